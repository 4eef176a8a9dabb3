"""What tests of several rooms share."""

from pathlib import Path

import pytest
import torch
from torchvision import models


@pytest.fixture
def weights(in_a_folder_of_its_own: None) -> Path:
    """Return a file of weights of shufflenet_v2_x0_5, drawn at random."""
    torch.manual_seed(3)
    torch.save(models.get_model("shufflenet_v2_x0_5", weights=None).state_dict(), "w.pth")
    return Path("w.pth")
