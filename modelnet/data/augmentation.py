"""What the options of a run do to its training images."""

from modelnet.data.mixup import Mixing
from modelnet.nets.own import OwnChange, OwnCode
from modelnet.options import TrainOptions
from pipeline.errors import OptionsError
from pipeline.load.augment import KINDS, Augmentation
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
