"""Robustness by the thousand: each suite takes its count from `--soak-scale`, and proves that it can fail."""
