"""Device, threads, ranks, interruption, compiling."""
