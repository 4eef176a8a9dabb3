"""Augmented batches of a loader against those of training, and against the plain ones."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import functional as tv

from modelnet import TrainOptions, train
from modelnet.data.augmentation import build_augmentation
from modelnet.data.batches import Batches
from pipeline import CacheDataset, TensorCache, collate, make_loader
from pipeline.errors import CacheDamaged
from pipeline.load import augment_rows, kernels, normalize
from pipeline.load.augment import Augmentation
from pipeline.recipe import Recipe

CPU = torch.device("cpu")
EVERYTHING: dict[str, Any] = {"augment": "flip,crop,color,erase", "crop_size": "48x40", "crop_scale": 0.2}


def seen_in_training(cache: TensorCache, epoch: int, batch_size: int = 3, **options: Any) -> list[Tensor]:
    given = TrainOptions(Path("c.h5"), batch_size=batch_size, data_seed=5, **options)
    augment = build_augmentation(given, cache.recipe)
    batches = Batches(cache, CPU, batch_size, True, 5, augment=augment)
    return [images for images, *_ in batches.epoch(epoch)]


def same(ours: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, others, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["cache_path", "uint8_cache_path", "shards_path"])
def test_a_loader_gives_what_training_sees_in_each_epoch(
    kind: str, workers: int, request: pytest.FixtureRequest
) -> None:
    cache = TensorCache(request.getfixturevalue(kind))
    loader: Any = make_loader(cache, 3, seed=5, workers=workers, **EVERYTHING)

    first, second = ([images for images, _ in loader] for _ in range(2))
    loader.sampler.set_epoch(7)
    later = [images for images, _ in loader]

    for epoch, batches in ((0, first), (1, second), (7, later)):
        assert same(batches, seen_in_training(cache, epoch, **EVERYTHING))
    assert first[0].shape == (3, 3, 48, 40) and not same(first, second)


class Seen(nn.Module):
    """Keeps the batches that it is trained on; one of them before the first epoch, to see whether it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.batches: list[Tensor] = []

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if self.training:
            self.batches.append(images_BCHW.clone())
        logits_BC: Tensor = self.linear(images_BCHW.mean((2, 3)))
        return logits_BC


@pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")
def test_a_network_that_is_trained_is_given_the_batches_of_a_loader(uint8_cache_path: Path) -> None:
    options: dict[str, Any] = EVERYTHING | {"augment": "trivialaugment,flip,crop,color,erase", "color_jitter": 0.3}
    network, cache = Seen(), TensorCache(uint8_cache_path)

    train(TrainOptions(uint8_cache_path, batch_size=3, epochs=2, data_seed=5, device="cpu", **options), network=network)

    for workers in (0, 2):
        loader = make_loader(cache, 3, seed=5, workers=workers, **options)
        given = [images for _ in range(2) for images, _ in loader]
        assert same(given, network.batches[-len(given) :])


def test_all_kinds_of_caches_give_the_same_augmented_bits(
    cache_path: Path, uint8_cache_path: Path, shards_path: Path
) -> None:
    epochs = [
        [images for images, _ in make_loader(TensorCache(path), 3, **EVERYTHING)]
        for path in (cache_path, uint8_cache_path, shards_path)
    ]
    assert same(epochs[0], epochs[1]) and same(epochs[0], epochs[2])


def test_without_the_compiled_part_the_bits_are_the_same(
    uint8_cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TensorCache(uint8_cache_path)
    compiled = [images for images, _ in make_loader(cache, 3, **EVERYTHING)]
    for module, name in (
        (augment_rows, "compiled_kernel"),
        (normalize, "compiled_kernel"),
        (kernels, "compiled_kernels"),
    ):
        monkeypatch.setattr(module, name, lambda: None)

    assert same(compiled, [images for images, _ in make_loader(cache, 3, **EVERYTHING)])


def test_a_size_without_augmentation_is_that_of_the_center(cache_path: Path) -> None:
    cache = TensorCache(cache_path)

    images, _ = next(iter(make_loader(cache, 8, shuffle=False, crop_size=(33, 48))))

    assert torch.equal(images, tv.center_crop(cache.images, [33, 48]))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_an_image_is_augmented_alike_in_any_batch_and_on_any_rank(cache_path: Path, batch_size: int) -> None:
    cache = TensorCache(cache_path)
    whole = torch.cat([images for images, _ in make_loader(cache, 8, seed=5, **EVERYTHING)])

    assert same([whole], [torch.cat([images for images, _ in make_loader(cache, batch_size, seed=5, **EVERYTHING)])])
    parts = [next(iter(make_loader(cache, 8, seed=5, part=(rank, 2), **EVERYTHING)))[0] for rank in range(2)]
    assert same([whole], [torch.cat(parts)])


def test_the_dataset_of_a_loader_augments_in_anybodys_loader(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    ours: Any = make_loader(cache, 3, seed=5, **EVERYTHING)
    theirs = DataLoader(ours.dataset, 3, sampler=ours.sampler, collate_fn=collate)

    epochs = [[images for images, _ in theirs] for _ in range(2)]

    assert same(epochs[0], seen_in_training(cache, 0, **EVERYTHING))
    assert same(epochs[1], seen_in_training(cache, 1, **EVERYTHING))
    assert len(list(ours.dataset)) == 8 and torch.equal(ours.dataset[-1][0], ours.dataset[7][0])
    assert ours.dataset[[]][0].shape == (0, 3, 48, 40)
    with pytest.raises(ValueError, match="images of several epochs"):
        ours.dataset[[0, 2**40]]
    with pytest.raises(IndexError, match="rows 8 to 8 of a cache of 8 images"):
        ours.dataset[2**40 + 8]
    with pytest.raises(IndexError):
        CacheDataset(cache)[2**40]


@pytest.mark.long
def test_spawned_workers_know_the_epoch(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    spawned = make_loader(
        cache, 4, seed=5, workers=1, multiprocessing_context="spawn", persistent_workers=True, **EVERYTHING
    )

    epochs = [[images for images, _ in spawned] for _ in range(2)]

    assert [same(batches, seen_in_training(cache, epoch, 4, **EVERYTHING)) for epoch, batches in enumerate(epochs)] == [
        True,
        True,
    ]
    assert multiprocessing.active_children()


def test_rows_are_checked_when_they_are_first_augmented(uint8_cache_path: Path, tmp_path: Path) -> None:
    content = bytearray(uint8_cache_path.read_bytes())
    content[8192 + 3 * 3 * 64 * 64 + 5] ^= 1  # in row 3
    (tmp_path / "damaged.h5").write_bytes(content)
    cache = TensorCache(tmp_path / "damaged.h5")

    with pytest.raises(CacheDamaged, match="row 3"):
        list(make_loader(cache, 8, augment="flip,crop"))


def test_reading_augmented_batches_leaves_the_cache_alone(cache_path: Path, set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    cache = TensorCache(cache_path)
    before = cache.images.clone()

    for images, _ in make_loader(cache, 8, **EVERYTHING):
        images.zero_()

    assert torch.equal(cache.images, before)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"augment": "flip,mixup"}, "mixup mixes labels too: modelnet's train does that"),
        ({"augment": "cutmix"}, "cutmix mixes labels too"),
        ({"augment": "flip,,crop"}, "each once, with commas, not 'flip,,crop'"),
        (
            {"augment": "flip,turn"},
            "flip, crop, color, erase, each once, with commas, not 'flip,turn'",
        ),
        ({"augment": "flip,flip"}, "each once"),
        ({"crop_size": 65}, "crop_size 65 is larger than the images of .*, 64"),
        ({"crop_size": 0}, "crop_size: size is a whole number of pixels from 1 to 4096, not 0"),
        ({"crop_size": "big"}, "crop_size: a size is a number of pixels, 224, or height x width, 192x256, not 'big'"),
        ({"augment": "crop", "crop_scale": 1.5}, "crop_scale is a number from 0 to 1, not 1.5"),
        ({"augment": "color", "color_jitter": -0.1}, "color_jitter is a number from 0 to 1, not -0.1"),
        ({"augment": "crop", "crop_scale": "0.5"}, "crop_scale is a number from 0 to 1, not '0.5'"),
        ({"augment": "color", "color_jitter": None}, "color_jitter is a number from 0 to 1, not None"),
        ({"augment": "flip", "stored": True}, "stored gives images as they are stored"),
    ],
)
def test_an_impossible_augmentation_is_named(options: dict[str, Any], told: str, cache_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        make_loader(TensorCache(cache_path), **options)


@pytest.mark.parametrize("augment", [["flip"], ("flip", "crop"), True])
def test_an_augmentation_that_is_no_text_is_named(augment: Any, cache_path: Path) -> None:
    with pytest.raises(TypeError, match='augment is a text, as "flip,crop", not '):
        make_loader(TensorCache(cache_path), augment=augment)


def test_no_augmentation_with_a_crop_size_cuts_the_center(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    loader = make_loader(cache, 8, shuffle=False, augment=None, crop_size=32)  # type: ignore[arg-type]

    images, _ = next(iter(loader))

    assert torch.equal(images, next(iter(make_loader(cache, 8, shuffle=False)))[0][:, :, 16:48, 16:48])


def test_images_of_another_size_than_the_augmentation_has_are_refused(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    augment = Augmentation(("flip", "crop"), 0, Recipe(size=96))
    refused = r"images are \(N, 3, 96, 96\) uint8 or float32, not \(8, 3, 64, 64\) "

    with pytest.raises(ValueError, match=f"{refused}torch.float32"):
        list(make_loader(cache, 8, augment=augment))
    with pytest.raises(ValueError, match=f"{refused}torch.float64"):
        augment.on_device(cache.images.double(), 0, torch.arange(8))
