"""Images to augment."""

from pathlib import Path

import pytest
import torch

from pipeline import TensorCache


@pytest.fixture
def images(cache_path: Path) -> torch.Tensor:
    """Normalized images, in memory of their own."""
    return TensorCache(cache_path).images.clone()
