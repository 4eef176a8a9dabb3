"""ModelNet: two convolutions, a pooling, three linear layers; 11,000 weights for 224 × 224 images and two classes."""

from torch import Tensor, nn

from pipeline.errors import OptionsError

SMALLEST = 60


class ModelNet(nn.Module):
    """Classifies images of 60 × 60 pixels or more with a small convolutional network.

    Weights start as in PyTorch's layers, drawn from torch's global generator in the order of the layers.

    Args:
        classes: the number of classes C.
        size: (height, width) of the images in pixels, or one number for a square. It sets the width of the first
            linear layer: 150 for 224.

    Raises:
        OptionsError: the images are too small; no pixel is left after the last convolution.
    """

    def __init__(self, classes: int = 2, size: int | tuple[int, int] = 224) -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < SMALLEST:
            raise OptionsError(
                "the images are too small",
                None,
                f"ModelNet needs {SMALLEST} × {SMALLEST} pixels or more, not {height} × {width}",
                f"Build the cache with --size {SMALLEST} or more",
            )
        self.features = nn.Sequential(
            nn.Conv2d(3, 3, kernel_size=6, stride=6),
            nn.MaxPool2d(kernel_size=6, stride=2),
            nn.Conv2d(3, 6, kernel_size=3, stride=3),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(6 * side_after_features(height) * side_after_features(width), 60),
            nn.ReLU(),
            nn.Linear(60, 20),
            nn.ReLU(),
            nn.Linear(20, classes),
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Map (N, 3, H, W) float32 images to (N, C) float32 logits."""
        logits_NC: Tensor = self.classifier(self.features(images_NCHW))
        return logits_NC


def side_after_features(size: int) -> int:
    """Return the side of the last convolution's output: 5 for 224, 1 for 60, 0 or less where nothing is left."""
    convolved = size // 6
    pooled = (convolved - 6) // 2 + 1
    return pooled // 3
