"""report: show runs as one HTML page."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from modelnet.commands._options import PATH, example
from modelnet.commands.shared.console import output_errors
from modelnet.commands.shared.process import tell
from pipeline.text import show_path


@click.command("report", epilog=example("report runs/example-modelnet-001"))
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option(
    "--out", type=PATH, help="The page.  [default: RUN/report.html, of several runs <first>-to-<last>.html beside them]"
)
def command(runs: tuple[Path, ...], out: Path | None) -> None:
    """Show runs as one HTML page: curves, mistakes with pictures, scores by class, options, environment.

    The page is one file without links to others. Runs that differ in their seeds alone form a group; groups stand side
    by side. A group.csv names all runs of a sweep.
    """
    write_report(named_runs(runs), out)


def named_runs(paths: Iterable[Path]) -> list[Path]:
    """Return the folders of runs; a group.csv gives the runs of its sweep.

    Pages and pictures are left out: `report`, `train --seeds` and `lr-find` write them beside the runs, where runs/*
    finds them too.
    """
    from modelnet.runs.folder import RunFolder

    paths = list(paths)
    meant = [path for path in paths if not (path.suffix in (".html", ".png") and path.is_file())]
    groups = [RunFolder.read_group(path) if path.suffix == ".csv" else [path] for path in meant or paths]
    return [run for group in groups for run in group]


def write_report(runs: Sequence[Path], out: Path | None = None) -> None:
    """Write the page of runs and print its path."""
    from modelnet import report

    page = report(runs)
    first, last = (Path(os.path.normpath(run.absolute())) for run in (runs[0], runs[-1]))
    default = first / "report.html" if len(runs) == 1 else first.parent / f"{first.name}-to-{last.name}.html"
    publish_page(page, out, default, "The runs are whole: make room, or give report --out")


def publish_page(page: bytes, out: Path | None, default: Path, advice: str, what: str = "report") -> None:
    """Write a page where `--out` says, else to its default place, and print its path."""
    from pipeline.system.files import check_can_publish, publish

    path = out or Path(os.path.relpath(default))
    with output_errors(path, "" if out else advice):
        check_can_publish(path)
        publish(page, path)
    tell(f"{what}: {show_path(path)}")
