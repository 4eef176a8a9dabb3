"""The folders that commands write into and look in, below the current one."""

from pathlib import Path

CACHES = Path("data/cache")  # by build-cache
FEATURES = Path("data/features")  # by build-features, and by train where the last layer alone is trained
RUNS = Path("runs")  # by train
