"""split: divide the images of a cache into folds and a test set."""

import math
import shlex
from pathlib import Path

import click

from modelnet.commands._options import PATH, GroupedCommand, example, grouped
from modelnet.commands.shared.console import Notes, output_errors
from modelnet.commands.shared.process import tell

_group = grouped("What stays together")


@click.command(
    "split",
    cls=GroupedCommand,
    epilog=example("split data/cache/example.h5 --folds 5 --test 0.15 --group-near"),
)
@click.argument("cache", type=PATH)
@click.option("--folds", type=click.IntRange(2, 1000), default=5, help="Number of folds.")
@click.option(
    "--test", type=click.FloatRange(0, 1, max_open=True), default=0.15, help="Share of the images for the test set."
)
@click.option("--stratify", is_flag=True, help="The same share of each class in all folds, by scikit-learn.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Another seed gives other folds.")
@click.option("--out", type=PATH, help="The split to write.  [default: <CACHE>-split.csv, beside CACHE]")
@click.option("--force", is_flag=True, help="Replace a split that is there.")
@_group(
    "--group",
    "tables",
    multiple=True,
    metavar="FILE:COLUMN",
    help="Images with the same value in a column of a table, as labels.csv:patient. May be given again.",
)
@_group(
    "--group-by",
    "patterns",
    multiple=True,
    metavar="REGEX",
    help="Images with the same text found in class/name: group 1 of the expression, or the whole match.",
)
@_group("--group-near", is_flag=True, help="Near copies: scaled or compressed again, by the perceptual hash.")
def command(
    cache: Path,
    folds: int,
    test: float,
    stratify: bool,
    seed: int,
    out: Path | None,
    force: bool,
    tables: tuple[str, ...],
    patterns: tuple[str, ...],
    group_near: bool,
) -> None:
    """Divide the images of CACHE into folds and a test set, and write it as a table: class,file,sha256,group,fold.

    Exact copies always stay together, and so do the groups that are asked for. An image with two of them joins both.
    The side of a group follows from its name or content, so nothing moves when images are added. With --stratify,
    added images may move others.
    """
    from modelnet.data.folds import class_warnings, divide, fold_table, group_lines, near_copies_torn, size_notes
    from modelnet.data.groups import group_images, groups_by_pattern, groups_by_table, near_copies, open_to_divide
    from modelnet.data.split_table import split_of, split_path, write_split
    from pipeline.errors import OutputError
    from pipeline.system.files import check_can_publish
    from pipeline.text import command_line, show_path

    if math.isnan(test):
        raise click.UsageError("--test is a share from 0 to below 1, not nan")
    notes = Notes()
    named = [_file_and_column(text) for text in tables]
    reader = open_to_divide(cache)
    path = out or split_path(reader.path)
    if path.suffix.lower() != ".csv":
        raise click.UsageError(f"--out is a .csv file, not {show_path(path)}")
    if path.exists() and not force:
        advice = "--force replaces it; the folds of earlier runs then differ from it"
        raise OutputError("the split is not replaced", path, "it is there already", advice)
    with output_errors(path):
        check_can_publish(path)
    near = near_copies(reader)
    groupings = [groups_by_table(reader, *name) for name in named] + [groups_by_pattern(reader, p) for p in patterns]
    groups = group_images(reader, groupings, near if group_near else None)
    of_images = divide(reader, groups, folds, test, seed, stratify)
    with output_errors(path):
        write_split(split_of(reader, path, of_images, groups.of, groups.names))
    for note in (note for grouping in groupings for note in grouping.notes):
        notes.note(note)
    if stratify:
        notes.note("with --stratify, images that are added may move others to another fold")
    else:
        for note in size_notes(of_images):
            notes.note(note)
    for warning in class_warnings(reader, groups, of_images) + near_copies_torn(reader, near, of_images):
        notes.warn(warning)
    tell("\n".join([*fold_table(reader, of_images), *group_lines(groups), f"split: {show_path(path)}"]))
    paths = [shlex.quote(show_path(file)) for file in (cache, path)]
    tell(f"Type: {command_line()} train --cache {paths[0]} --split {paths[1]} --fold all")


def _file_and_column(text: str) -> tuple[Path, str]:
    file, colon, column = text.rpartition(":")
    if not (colon and file and column):
        raise click.UsageError(f"--group is FILE:COLUMN, as labels.csv:patient, not {text!r}")
    return Path(file).expanduser(), column
