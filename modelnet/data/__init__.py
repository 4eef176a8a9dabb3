"""Batches on the device: prefetching, preloading, mixing; splits; which caches go together."""
