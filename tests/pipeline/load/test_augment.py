"""Augmentation against torchvision, plain loops, and itself whatever the batches and workers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import CenterCrop, Resize
from torchvision.transforms import functional as tv

from modelnet import Trained, TrainOptions, resume, train
from modelnet.data.batches import Batches
from modelnet.runtime.interrupt import Stop
from pipeline import TensorCache
from pipeline.decode.geometry import fit
from pipeline.errors import OptionsError
from pipeline.load.augment import Augmentation, crop_boxes, erased_boxes
from pipeline.load.kinds import KINDS
from pipeline.load.random import uniform
from pipeline.recipe import Recipe
from tests.support.listener import Listener
from tests.support.photos import textured

pytestmark = pytest.mark.usefixtures("no_pictures")


def augmentation(*kinds: str, seed: int = 0) -> Augmentation:
    return Augmentation(kinds, seed, Recipe(size=64), crop_scale=0.3, color_jitter=0.4)


def test_random_numbers_are_uniform_and_independent() -> None:
    numbers = torch.cat([uniform("augment", 1, epoch, torch.arange(4000)) for epoch in range(5)]).double()
    assert numbers.min() >= 0 and numbers.max() < 1
    for column in numbers.T:
        counts = torch.histc(column, 20, 0, 1)
        assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-squared, 19 degrees of freedom, 0.1 %
    correlations = torch.corrcoef(numbers.T) - torch.eye(8)
    neighbours = torch.corrcoef(torch.stack([numbers[:-1].flatten(), numbers[1:].flatten()]))[0, 1]
    assert correlations.abs().max() < 0.03 and neighbours.abs() < 0.02


def test_flips_are_those_of_torchvision_to_the_last_bit(images: torch.Tensor) -> None:
    which = uniform("augment", 0, 0, torch.arange(8))[:, 0] < 0.5
    assert 0 < which.sum() < 8
    for before, after, flipped in zip(images, augmentation("flip")(images, 0, torch.arange(8)), which, strict=True):
        assert torch.equal(after, tv.hflip(before) if flipped else before)


def test_crops_stay_within_the_image_and_keep_what_is_promised() -> None:
    left, top, width, height = map(torch.from_numpy, crop_boxes(uniform("augment", 0, 0, torch.arange(5000)), 0.3))
    assert min(left.min(), top.min()) >= 0
    assert max((left + width).max(), (top + height).max()) <= 1 + 1e-6
    assert 0.299 < (width * height).min() < 0.31 and (width * height).max() > 0.95
    assert 0.749 < (width / height).min() < 0.78 and 1.28 < (width / height).max() < 1.335


@pytest.mark.parametrize("least", [0.08, 0.35, 0.75, 0.9, 1.0])
def test_no_crop_is_smaller_than_its_scale_allows(least: float) -> None:
    _, _, width, height = map(torch.from_numpy, crop_boxes(uniform("augment", 0, 0, torch.arange(20000)), least))
    area = (width * height).double()
    assert least - 1e-6 <= area.min() <= least + 0.01 and area.max() <= 1 + 1e-6
    assert area.mean() == pytest.approx((1 + least) / 2, abs=0.01), "as uniform as torchvision draws it"


def test_an_image_becomes_the_same_whatever_batch_it_comes_in(images: torch.Tensor) -> None:
    augment = augmentation(*KINDS)
    together = augment(images.clone(), 3, torch.arange(8))
    for row in (0, 5):
        alone = augment(images[row : row + 1].clone(), 3, torch.tensor([row]))
        assert torch.equal(alone[0], together[row])
    assert not torch.equal(augment(images.clone(), 4, torch.arange(8)), together)
    assert not torch.equal(augmentation(*KINDS, seed=1)(images.clone(), 3, torch.arange(8)), together)


def test_augmentation_is_the_same_for_any_workers_and_leaves_the_cache(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    before = cache.images.clone()
    epochs = []
    for workers in (0, 2):
        batches = Batches(cache, torch.device("cpu"), 3, shuffle=True, workers=workers, augment=augmentation(*KINDS))
        epochs.append([images for epoch in range(2) for images, *_ in batches.epoch(epoch)])
    assert all(torch.equal(one, other) for one, other in zip(*epochs, strict=True))
    assert not torch.equal(epochs[0][0], Batches(cache, torch.device("cpu"), 3).cache.read(torch.tensor([0, 1, 2])))
    assert torch.equal(cache.images, before)


def test_augmented_runs_repeat_resume_and_differ_from_plain_ones(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def losses(**options: Any) -> list[float]:
        return [row.train_loss for row in train(TrainOptions(cache_path, batch_size=3, epochs=3, **options)).rows]

    augmented = losses(augment="flip,crop,color")
    assert losses(augment="flip,crop,color") == losses(augment="flip,crop,color", workers=2) == augmented
    assert losses(augment="flip,crop,color", data_seed=1) != augmented
    assert len({tuple(losses(augment=kind)) for kind in ("", *KINDS)}) == len(KINDS) + 1

    stop = Stop()
    options = TrainOptions(cache_path, batch_size=3, epochs=3, augment="flip,crop,color")
    cut = train(options, Listener(stop, 5), stop).run
    assert [row.train_loss for row in resume(cut).rows] == augmented


def test_parts_lie_anywhere_in_training_and_the_center_is_torchvisions(images: torch.Tensor) -> None:
    for size in ((33, 48), (48, 33), (63, 64), (64, 64)):
        center = Augmentation(None, 0, Recipe(size=64), crop_size=size)
        assert torch.equal(center(images, 0, torch.arange(8)), tv.center_crop(images, list(size)))

    places = Augmentation((), 0, Recipe(size=64), crop_size=(60, 62)).draw(0, torch.arange(500)).places
    assert sorted(set(places.y[:, 0])) == [0, 1, 2, 3, 4] and sorted(set(places.x[:, 0])) == [0, 1, 2]
    assert (places.y[:, -1] - places.y[:, 0] == 59).all() and (places.x[:, -1] - places.x[:, 0] == 61).all()


def test_the_center_of_a_stored_crop_is_torchvisions_smaller_crop() -> None:
    stored = Recipe(size=256, fit="crop", resize_to=256)
    for seed, (width, height) in enumerate([(500, 375), (375, 500), (301, 256), (257, 400)]):
        image = textured(width, height, seed)
        places = Augmentation(None, 0, stored, crop_size=(224, 224)).draw(0, torch.arange(1)).places
        center_HWC = fit(image, stored)[places.y[0]][:, places.x[0]]
        assert np.array_equal(center_HWC, np.asarray(CenterCrop(224)(Resize(256)(image))))


def test_an_erased_box_is_the_mean_and_all_else_as_it_was(images: torch.Tensor) -> None:
    boxes = erased_boxes(uniform("more", 0, 3, torch.arange(8)), (64, 64))
    expected = images.clone()
    for image, (left, right, top, bottom) in zip(expected, boxes.tolist(), strict=True):
        image[:, top:bottom, left:right] = 0
    assert torch.equal(augmentation("erase")(images, 3, torch.arange(8)), expected)
    assert not torch.equal(images, expected)

    boxes = erased_boxes(uniform("more", 0, 0, torch.arange(5000)), (1000, 1000))
    assert boxes.min() >= 0 and boxes.max() <= 1000
    areas = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / 1000**2
    some = areas > 0
    assert 0.47 < some.double().mean() < 0.53
    assert 0.019 < areas[some].min() < 0.025 and 0.32 < areas.max() < 0.335


def test_a_run_on_crops_sees_new_ones_each_epoch_and_predicts_on_centers(
    cache_path: Path, shared_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = train(TrainOptions(cache_path, val=cache_path, crop_size=60, epochs=2, threads=1, device="cpu"))
    trained = Trained.load(result.run, device="cpu")
    assert trained.evaluate() == result.scores
    cache = TensorCache(cache_path)
    prepared = trained.prepare((shared_photos / "1" / cache.filenames[0]).read_bytes())
    assert torch.equal(prepared, tv.center_crop(cache.images[0].clone(), [60, 60]))
    plain = train(TrainOptions(cache_path, val=cache_path, epochs=2, threads=1, device="cpu"))
    assert plain.rows[0].train_loss != result.rows[0].train_loss
    with pytest.raises(OptionsError, match=r"--crop-size 40 is too small: .*60 × 60 .*Give 60 to 64, or leave it out"):
        train(TrainOptions(cache_path, crop_size=40))
    with pytest.raises(OptionsError, match=r"--crop-size 65 is too large: .*its images have 64 × 64 pixels"):
        train(TrainOptions(cache_path, crop_size=65))
