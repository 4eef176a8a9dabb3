"""The options of `build-cache` that say how an image becomes a row."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from modelnet.commands._options import grouped
from pipeline.recipe import Fit, Interpolation, Recipe, StoredType
from pipeline.text import parse_size, show_size

_LIKE = ("size", "fit", "resize_to", "interpolation", "pad_color", "background", "mean", "std", "exif_rotate")


def recipe_options(command: Any) -> Any:
    """Add the options that shape rows. Each is None where it is not typed: then the cache that is there decides."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def apply_like(like: str | None, recipe: dict[str, Any]) -> str:
    """Fill a recipe with the preparation of a network, a run or a cache.

    Args:
        like: what `--like` names, or None.
        recipe: the options of `recipe_options` by name; is changed.

    Returns:
        The options that it stands for, in one line; empty without `like`.

    Raises:
        click.UsageError: an option beside it that it sets.
        OptionsError, RunError, CacheError: there is no such network, run or cache.
    """
    if like is None:
        return ""
    wanted = _preparation(like)
    for name in wanted:
        if recipe.get(name) is not None:
            raise click.UsageError(f"--like {like} sets --{name.replace('_', '-')}; leave one of them out")
    recipe |= wanted
    return f"like {like}: {' '.join(_typed(name, value) for name, value in wanted.items() if value is not None)}"


def refuse_beside_mean_std(mean_std: str | None, others: dict[str, Any]) -> None:
    """Refuse options that `--mean-std` excludes.

    Args:
        mean_std: the option, or None.
        others: values by name; None where an option was not typed.

    Raises:
        click.UsageError: names both.
    """
    for name in ("mean", "std", "like"):
        if mean_std and others[name] is not None:
            raise click.UsageError(f"--mean-std {mean_std} and --{name} exclude each other; leave one of them out")
    if mean_std and others["shards"] is not None:
        advice = "build one file, or a part of it with --per-class, and give its numbers as --mean and --std"
        raise click.UsageError(f"--mean-std {mean_std} and --shards exclude each other; {advice}")


def _preparation(like: str) -> dict[str, Any]:
    path = Path(like)
    if like and path.is_dir():  # Path("") is the current folder
        from modelnet.runs.reader import RunReader

        recipe = Recipe.from_dict(RunReader(path).read_config()["cache"]["recipe"])
    elif path.suffix == ".h5":
        from pipeline.inspect.info import describe_cache

        recipe = describe_cache(path).recipe
    else:
        from modelnet.nets.preparation import preparation_of

        return preparation_of(like)
    return {name: getattr(recipe, name) for name in _LIKE}


def _typed(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return flag if value else f"--no-{flag.removeprefix('--')}"
    if name == "size":
        return f"{flag} {show_size(value)}"
    if name in ("mean", "std"):
        return f"{flag} {' '.join(repr(v).removesuffix('.0') for v in value)}"
    return f"{flag} {','.join(map(str, value)) if isinstance(value, tuple) else value}"


def _size(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _color(edge: bool) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def parse(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Any:
        if text is None or (edge and text == "edge"):
            return text
        if not re.fullmatch(r"\d{1,3},\d{1,3},\d{1,3}", text) or max(map(int, text.split(","))) > 255:
            also = ", or edge" if edge else ""
            raise click.BadParameter(f"a color is R,G,B with numbers from 0 to 255{also}, not {text!r}")
        return tuple(map(int, text.split(",")))

    return parse


_option = grouped("Preparation")
_OPTIONS = (
    _option(
        "--size",
        metavar="SIZE",
        callback=_size,
        help="Pixels of the images: 224, or height x width, 192x256.  [default: the cache's, else 224]",
    ),
    _option(
        "--fit",
        type=click.Choice(get_args(Fit)),
        help="How images get this shape: squash ignores their aspect ratio, crop keeps the center, pad keeps it all.  "
        "[default: the cache's, else squash]",
    ),
    _option(
        "--resize-to",
        type=int,
        metavar="PIXELS",
        help="With --fit crop: the shorter side before the center is cut out.  [default: --size / 0.875]",
    ),
    _option(
        "--interpolation",
        type=click.Choice(get_args(Interpolation)),
        help="Filter that resizes, with antialiasing.  [default: the cache's, else bilinear]",
    ),
    _option(
        "--pad-color",
        metavar="R,G,B|edge",
        callback=_color(edge=True),
        help="With --fit pad: what fills the rest, a color or the edge of the image.  [default: the mean]",
    ),
    _option(
        "--background",
        metavar="R,G,B",
        callback=_color(edge=False),
        help="Color behind transparent images.  [default: their transparency is dropped]",
    ),
    _option(
        "--like",
        metavar="NAME|RUN|CACHE",
        help="Prepare images as pretrained weights want them (resnet50, resnet50:IMAGENET1K_V1, timm:NAME), or as a "
        "run or a cache has them.",
    ),
    _option("--mean", nargs=3, type=float, help="Per channel, of 0..1.  [default: the cache's, else 0.5]"),
    _option("--std", nargs=3, type=float, help="Per channel, of 0..1.  [default: the cache's, else 0.5]"),
    _option(
        "--mean-std",
        type=click.Choice(["auto"]),
        help="Normalize by the mean and std of the pixels, without pads. They are computed at the first build, or with "
        "--rebuild; later builds keep the numbers.",
    ),
    _option(
        "--dtype",
        type=click.Choice(get_args(StoredType)),
        help="What a row stores; uint8 is a quarter of the bytes and gives the same tensors.  "
        "[default: the cache's, else float32]",
    ),
    _option(
        "--exif-rotate/--no-exif-rotate",
        default=None,
        help="Turn images upright as their EXIF orientation says.  [default: the cache's, else no]",
    ),
    _option(
        "--max-megapixels",
        type=int,
        help="Larger images are refused before they are decoded.  [default: the cache's, else 64]",
    ),
    _option(
        "--scaled-decode/--no-scaled-decode",
        default=None,
        help="Decode large JPEGs at 1/2, 1/4 or 1/8 of their size, at least twice as large as needed: faster, not the "
        "same pixels.  [default: the cache's, else no]",
    ),
)
