"""The options and arguments that several commands share."""

import os
import shlex
from collections.abc import Callable
from dataclasses import MISSING
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import click

from modelnet.options import OPTIONS, Option
from pipeline.text import command_line

DONE_WITH_FAILURES = 3
_Command = TypeVar("_Command", bound=Callable[..., Any])


class GroupedOption(click.Option):
    """An option that `--help` shows below a heading."""

    def __init__(self, *args: Any, heading: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.heading = heading


class GroupedCommand(click.Command):
    """A command whose help shows its options in groups, in the order of their first ones; the others come last."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        headings = list(dict.fromkeys(heading for option in self.params if (heading := heading_of(option))))
        self.params.sort(key=lambda option: [*headings, ""].index(heading_of(option)))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group."""
        shown = [
            (option, record)
            for option in self.get_params(ctx)
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx))
        ]
        for heading, options in groupby(shown, lambda pair: heading_of(pair[0])):
            with formatter.section(heading or "Other options"):
                formatter.write_dl([record for _, record in options])


def heading_of(option: click.Parameter) -> str:
    """Return the heading of an option; empty for one without."""
    return getattr(option, "heading", "")


def grouped(heading: str) -> Callable[..., Callable[[_Command], _Command]]:
    """Return what declares options below a heading, as `click.option` does."""
    return partial(click.option, cls=GroupedOption, heading=heading)


class _PathType(click.Path):
    """A path. `~` is the home folder: no shell replaces it in --out=~/c.h5."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)  # a missing permission is not a usage error

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; one that begins with `~` as the shell understands it."""
        if value == "":  # of a variable that is not set
            self.fail("a path is needed, and this is an empty text", param, ctx)
        path = os.fsdecode(super().convert(value, param, ctx))
        return Path(os.path.expanduser(path))  # noqa: PTH111 -- leaves ~nobody alone


PATH = _PathType()


CACHES = click.argument("cache", nargs=-1, required=True, type=PATH, metavar="CACHE")


RUN = click.argument("run", type=PATH)
CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Choice(["last", "best"]),
    help="Weights of the last or of the best epoch.  [default: last; best where RUN had --patience]",
)
AMP = click.option("--amp/--no-amp", default=None, help="Compute in half precision.  [default: as RUN did]")
ON = click.option(
    "--on",
    "side",
    type=click.Choice(["val", "test"]),
    default="val",
    help="Images: those that RUN was validated on, or the test images of its split.",
)
TRUST = click.option(
    "--trust-code", is_flag=True, help="Execute the code in RUN, although nobody has trained with it here."
)
QUIET = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,  # `console.is_quiet` asks for it
    callback=lambda ctx, option, value: ctx.meta.update(quiet=value),
    help="Show no progress and no notes; warnings and the result stay.",
)
DEVICE = click.option("--device", default="auto", help="Device: auto, cpu, cuda or cuda:1.")


NO_SPLIT = grouped("Data")(
    "--no-split", is_flag=True, help="Train on all images although <cache>-split.csv lies beside the cache."
)


def check_split(cache: Path, split: Path | None, no_split: bool) -> None:
    """Refuse to pass over a split that lies beside a cache: its test images would be trained on.

    Raises:
        click.UsageError: says what to give.
    """
    from modelnet.data.split_table import split_path
    from pipeline.text import show_path

    beside = split_path(cache)
    if split is not None and no_split:
        raise click.UsageError("--split and --no-split contradict each other; leave one of them out")
    if split is None and not no_split and beside.exists():
        advice = f"give --split {shlex.quote(show_path(beside))}, or --no-split"
        raise click.UsageError(f"a split of this cache is there: {advice}")


def choice_options(command: Any) -> Any:
    """Add the options that choose classes and images of a source."""
    option_of = grouped("Images")
    for option in (
        option_of("--label-column", metavar="NAME", help="Column of the labels.  [default: label, class, ...]"),
        option_of("--file-column", metavar="NAME", help="Column of the files.  [default: file_name, image, id, ...]"),
        option_of(
            "--table",
            type=PATH,
            metavar="FILE",
            help="Table with the label of each image: CSV, TSV, JSON lines or Parquet.  [default: one in SOURCE, or "
            "its folders]",
        ),
        option_of("--per-class", type=click.IntRange(1), metavar="N", help="Largest number of images of each class."),
        option_of(
            "--class",
            "merged",
            multiple=True,
            metavar="NAME=FOLDER,...",
            help="A class made of several folders; may be given again for another class. Quotes as in --classes.",
        ),
        option_of(
            "--classes",
            metavar="FOLDER,...",
            help="Only these class folders; a name with a comma in quotes: '\"cat, tabby\",dog'.  [default: all]",
        ),
    ):
        command = option(command)
    return command


def training_options(wanted: Callable[[Option], bool] = lambda option: True) -> list[click.Parameter]:
    """Return the options of training as `modelnet.options` declares them, in the order of their declaration."""
    return [click_option(option) for option in OPTIONS.values() if wanted(option)]


def click_option(option: Option) -> click.Option:
    """Return an option of the command line for an option of training."""
    kind = str if option.parse else option.types[0]
    switch = f"{option.flag}/--no-{option.flag.removeprefix('--')}"
    types = {int: click.IntRange(0 if option.least is None else int(option.least)), Path: PATH, float: float, str: str}
    return GroupedOption(
        [option.name, *option.flags, switch if kind is bool else option.flag],
        multiple=option.repeats,
        type=click.Choice(option.choices) if option.choices else types.get(kind),
        default=None if option.default is MISSING or option.repeats else option.default,
        help=option.help + (f"  [default: {option.default_text}]" if option.default_text else ""),
        show_default=option.default not in (None, ""),
        metavar=option.metavar,
        heading=option.heading,
    )


def example(command: str) -> str:
    """Return the last lines of a help text: a command to paste."""
    return f"\b\nExample:\n  {command_line()} {command}"


def one_or_all(paths: tuple[Path, ...]) -> "Path | tuple[Path, ...]":
    """Return the cache, set or pattern that was typed, or the files of a set."""
    return paths[0] if len(paths) == 1 else paths


def check_there(path: Path) -> None:
    """Refuse a name at which there is neither a cache nor a run; one that ends in .h5 can only mean a cache.

    Raises:
        CacheMissing: says how to find out what there is.
    """
    from pipeline.errors import CacheMissing
    from pipeline.format.paths import cache_exists

    if path.suffix != ".h5" and not cache_exists(path):
        reason = "there is no such file or folder"
        advice = f"List them: {command_line()} caches, {command_line()} runs"
        raise CacheMissing("no cache and no run", path, reason, advice)
