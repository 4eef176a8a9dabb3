"""A cache -> batches: TensorCache, dataset, loader, sampler, augmentation, kernels."""
