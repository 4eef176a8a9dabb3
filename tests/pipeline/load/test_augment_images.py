"""Changes of whole batches, as a GPU makes them, against torchvision and plain loops; on the CPU here."""

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as tv

from pipeline.load.augment_images import Places, change_colors, erase, take_pixels


@pytest.mark.parametrize("factors", [(0.7, 1.0, 1.0), (1.0, 1.3, 1.0), (1.0, 1.0, 0.6), (1.4, 0.6, 1.4)])
def test_colors_are_those_of_torchvision(factors: tuple[float, float, float], images: torch.Tensor) -> None:
    brightness, contrast, saturation = factors
    mean, std = (0.4, 0.5, 0.6), (0.5, 0.6, 0.7)
    pixels = (images + 1) / 2
    normalized = tv.normalize(pixels, list(mean), list(std))
    expected = tv.adjust_brightness(pixels, brightness)
    expected = tv.adjust_saturation(tv.adjust_contrast(expected, contrast), saturation)
    changed = change_colors(normalized, torch.tensor([factors] * 8), mean, std)
    torch.testing.assert_close(changed, tv.normalize(expected, list(mean), list(std)), atol=1e-5, rtol=0)


def test_pixels_come_from_between_two_lines_and_two_columns() -> None:
    image = torch.tensor([[[[0.0, 10.0], [20.0, 30.0]]]])
    parts = np.array([[0.25, 0.0]], np.float32), np.array([[0.5, 0.0]], np.float32)
    both = np.array([[0, 1]], np.int32)
    ahead = Places(both, both, np.array([1]), *parts)
    flipped = ahead._replace(x=both[:, ::-1], step=np.array([-1]))

    assert take_pixels(image, ahead).tolist() == [[[[12.5, 20.0], [22.5, 30.0]]]]
    assert take_pixels(image, flipped).tolist() == [[[[17.5, 10.0], [27.5, 20.0]]]]


def test_an_erased_box_is_the_mean_and_all_else_as_it_was(images: torch.Tensor) -> None:
    erased = erase(images[:2], torch.tensor([[3, 20, 10, 64], [5, 5, 0, 0]]))
    expected = images[:2].clone()
    expected[0, :, 10:64, 3:20] = 0
    assert torch.equal(erased, expected)
