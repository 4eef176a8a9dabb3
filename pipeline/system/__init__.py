"""Files, signals, processes and their limits; the compiled kernels."""
