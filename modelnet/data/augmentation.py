"""What the options of a run do to its training images, and the batches that they give."""

import torch
from torch import Tensor

from modelnet.data.batches import Batches
from modelnet.data.mixup import Mixing
from modelnet.nets.own import OwnChange, OwnCode
from modelnet.options import TrainOptions
from modelnet.runtime.ranks import Ranks
from pipeline import TensorCache
from pipeline.errors import OptionsError
from pipeline.load.augment import Augmentation
from pipeline.load.kinds import KINDS
from pipeline.recipe import Recipe


def build_augmentation(options: TrainOptions, recipe: Recipe, code: OwnCode | None = None) -> Augmentation | None:
    """Return the augmentation of training images, or None; `code` is a person's own.

    Raises:
        OptionsError: it cannot be done to such images.
    """
    if not set(options.augmentations) & set(KINDS) and options.crop is None and code is None:
        return None
    try:
        return Augmentation(
            options.augmentations,
            options.data_seed,
            recipe,
            options.crop_scale,
            options.color_jitter,
            options.crop,
            None if code is None else OwnChange(code),
        )
    except ValueError as error:
        raise OptionsError("no such augmentation of these images", None, str(error), "Leave it out") from error


def build_mixing(options: TrainOptions) -> Mixing | None:
    """Return with which other images training images are mixed, or None."""
    if not options.mixtures:
        return None
    return Mixing(options.mixtures, options.data_seed, options.mixup_alpha, options.cutmix_alpha)


def training_batches(
    options: TrainOptions,
    cache: TensorCache,
    device: torch.device,
    rows: Tensor | None = None,
    code: OwnCode | None = None,
    ranks: Ranks | None = None,
) -> Batches:
    """Return the batches that a run trains on.

    Args:
        options: of the run.
        cache: open.
        device: where the batches go.
        rows: (M,) int64, those of the cache that are trained on; None for all.
        code: a person's own that changes images, or None.
        ranks: among which every batch is divided.

    Raises:
        As `build_augmentation`.
    """
    return Batches(
        cache,
        device,
        options.batch_size,
        options.shuffle,
        options.data_seed,
        options.workers,
        options.drop_last,
        rows,
        build_augmentation(options, cache.recipe, code),
        build_mixing(options),
        ranks,
        options.crop,
    )
