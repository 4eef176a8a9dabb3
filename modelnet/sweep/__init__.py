"""Many networks: grid, stacked training, result."""
