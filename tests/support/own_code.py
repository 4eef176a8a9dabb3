"""Files of code as a person writes them, with a network and a change of images."""

NETWORK = """
from torch import nn


class Net(nn.Module):
    def __init__(self, classes, width=4, act="relu"):
        super().__init__()
        assert act in ("relu", "tanh"), act
        self.body = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(width * 64, classes)

    def forward(self, images):
        return self.head(self.body(images).view(images.shape[0], -1))


def tiny(classes):
    return nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, classes))
"""

CHANGE = """
import torch


def speckle(image, generator):
    noise = torch.randint(0, 40, image.shape, generator=generator, dtype=torch.uint8)
    return torch.where(image < 200, image + noise, image)
"""
