"""Show training images as a page: sixteen of them as they are stored, and as three epochs see them."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from modelnet.data.augmentation import training_batches
from modelnet.data.batches import Batches
from modelnet.data.caches import open_to_train
from modelnet.data.relabel import LabelTable, labelled_rows
from modelnet.data.split import split_images
from modelnet.data.split_table import read_split
from modelnet.options import OPTIONS, TrainOptions
from modelnet.options.groups import ALL, OF_IMAGES
from modelnet.pages.document import Picture, data_url, jpeg_of, render_page
from modelnet.pages.tables import Table, show_value
from modelnet.runs.code import named_code, names_of
from modelnet.runtime.device import choose_device
from pipeline import TensorCache
from pipeline.errors import OptionsError
from pipeline.load.normalize import pixels_of
from pipeline.text import show_path

IMAGES, EPOCHS = 16, 3
SIDE = 224  # pixels of a picture


class Drawn(NamedTuple):
    """A training image: as it is stored, and as each epoch sees it."""

    name: str
    pictures: list[Picture]


def show_batch(options: TrainOptions) -> bytes:
    """Render sixteen training images as three epochs see them, as one HTML page in UTF-8.

    They are the first images of the first epoch, read, changed and mixed by the code that trains: the same options and
    `data_seed` give the same pictures in training. Code of your own that changes images is executed.

    Args:
        options: of the training; those that do not change images have no effect.

    Raises:
        OptionsError: the cache holds features, or the options cannot be used with its images.
        CodeError: code of your own raises an error.
        CacheError: the cache cannot be used. SourceError: it has fewer than two classes. DeviceError: no such device.
        AccessDenied, WorkerDied, StorageError: the system failed.
    """
    cache = open_to_train(options.cache, LabelTable.of(options))
    if cache.features is not None:
        reason = f"it holds {cache.features}"
        raise OptionsError("no pictures to show", cache.path, reason, "Give the cache of images")
    batches, rows = first_images(options, cache)
    epochs = [batches.seen(rows, epoch) for epoch in range(EPOCHS)]
    stored = _pictures(cache, cache.read(rows), [""] * len(rows), "stored")
    seen = [
        _pictures(cache, batch.images.cpu(), _shares(cache, batch.labels.cpu()), f"epoch {epoch + 1}")
        for epoch, batch in enumerate(epochs)
    ]
    names = [show_path(cache.filenames[row]) for row in rows.tolist()]
    classes = [_name(cache, label) for label in cache.labels[rows].tolist()]
    drawn = [
        Drawn(f"{classes[i]}: {name}", [stored[i], *(pictures[i] for pictures in seen)]) for i, name in enumerate(names)
    ]
    height, width = epochs[0].images.shape[2:]
    return render_page(
        "batch.html.jinja",
        title=f"Training images of {show_path(cache.path.name)}",
        about=f"{len(rows)} of {len(batches.subset):,} training images, in the order of the first epoch. The network "
        f"sees {height} × {width} pixels; stored are {' × '.join(map(str, cache.recipe.size))}.",
        notes=_notes(options),
        drawn=drawn,
        options=_options(options),
    )


def first_images(options: TrainOptions, cache: TensorCache) -> tuple[Batches, Tensor]:
    """Return the batches of a training, and the rows, (B,) int64, of the first images of its first epoch."""
    table = None if options.split is None else read_split(options.split)
    first = replace(options, fold=0) if options.fold == ALL else options  # of all folds, the first
    split = split_images(cache, first, table)
    code = named_code(names_of(options)).get("augment_code")
    device = choose_device(options.device)
    rows = labelled_rows(cache) if split is None else split.train
    batches = training_batches(options, cache, device, rows, code)
    return batches, batches.plan.order(0)[:IMAGES]


def _pictures(cache: TensorCache, images: Tensor, details: list[str], file: str) -> list[Picture]:
    """Turn normalized images, (B, 3, H, W) float32 on the CPU, into pictures."""
    pixels = pixels_of(images, cache.recipe).numpy()
    return [
        Picture(data_url(jpeg_of(one, SIDE)), file, detail=detail) for one, detail in zip(pixels, details, strict=True)
    ]


def _shares(cache: TensorCache, labels: Tensor) -> list[str]:
    """Say which classes mixed images have, "70% ants, 30% bees"; "" of images that have one label."""
    if labels.dtype == torch.int64:
        return [""] * len(labels)
    texts = []
    for shares in labels.tolist():
        parts = sorted(((share, label) for label, share in enumerate(shares) if share >= 0.005), reverse=True)
        texts.append(", ".join(f"{share:.0%} {_name(cache, label)}" for share, label in parts))
    return texts


def _name(cache: TensorCache, label: int) -> str:
    return show_path(cache.class_names[label] or str(cache.class_ids[label]))


def _notes(options: TrainOptions) -> list[str]:
    """Say what may surprise a person who looks at the pictures."""
    notes = [f"{warning}." for warning in options.idle]
    if not options.augmentations and options.augment_code is None and options.crop is None:
        notes.append("No --augment is given: every epoch sees the images as they are stored.")
    if "erase" in options.augmentations:
        notes.append("Erased boxes have the mean color of the recipe: 0 for the network.")
    return notes


def _options(options: TrainOptions) -> Table:
    """Return the options that change what the network sees."""
    rows = [
        [option.flag, show_value(value)]
        for option in OPTIONS.values()
        if option.heading in OF_IMAGES and (value := getattr(options, option.name)) not in (None, "", ())
    ]
    return Table("Options that change what the network sees", ["option", "value"], rows, False)
