"""What commands write: results on stdout; notes, warnings and progress on stderr."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import click

from modelnet.commands.shared.process import raise_lost_signal, tell
from modelnet.progress import EpochRow, Progress
from pipeline.errors import OutputError, PipelineError
from pipeline.text import show_path


class Notes(Progress):
    """Prints notes and warnings on stderr; with --quiet, warnings alone."""

    def note(self, text: str) -> None:
        """Print a note."""
        if not is_quiet():
            self._echo(text, err=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._echo(f"warning: {text}", err=True)

    def _echo(self, text: str, err: bool = False) -> None:
        tell(text, err)


class EpochLines(Notes):
    """Prints a line an epoch; on a terminal, a bar below them says when training will end."""

    def __enter__(self) -> Self:
        from tqdm import tqdm

        shape = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} images, {rate_fmt}, {remaining} left, ends {eta:%H:%M}"
        look: dict[str, Any] = {"unit": " images", "bar_format": shape, "dynamic_ncols": True, "leave": False}
        self._bar = tqdm(disable=is_quiet() or not sys.stderr.isatty(), delay=0.1, **look)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def started(self, run: Path, images: int, done: int) -> None:
        """Print the run folder and what the numbers mean; start the bar."""
        self._begin(run)
        self._bar.initial = done
        self._bar.reset(images)
        self._bar.update(done)

    def _begin(self, run: Path) -> None:
        if not is_quiet():
            self._echo(f"run folder: {show_path(run)}")
            self._echo("training loss and accuracy are averages over the epoch, taken before each step")

    def step(self, images: int) -> None:
        """Move the bar."""
        self._bar.update(images)

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Print the line of an epoch."""
        if is_quiet():
            return
        parts = [f"training loss {row.train_loss:.4f}, accuracy {row.train_acc:.1%}"]
        if row.val_loss is not None:
            parts.append(f"validation loss {row.val_loss:.4f}, accuracy {row.val_acc:.1%}")
        parts.append(f"{row.images_per_s:,.0f} images/s, {row.data_wait_s:.2f} s waiting for data")
        self._echo(f"epoch {row.epoch:{len(str(epochs))}}/{epochs}: {' | '.join(parts)}")

    def _echo(self, text: str, err: bool = False) -> None:
        with self._bar.external_write_mode(file=sys.stderr if err else sys.stdout):
            tell(text, err)


class EpochJson(EpochLines):
    """Prints a line of JSON with the run folder, and one an epoch, with the columns of metrics.csv."""

    def _begin(self, run: Path) -> None:
        self._echo(json.dumps({"run": os.fspath(run)}))

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Print the line of an epoch."""
        self._echo(json.dumps(asdict(row)))


def is_quiet() -> bool:
    """Say whether the command was given --quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get("quiet"))


@contextmanager
def usage_errors(advice: str = "") -> Iterator[None]:
    """Turn a ValueError into a usage error (2) that names options as they are typed, and ends in `advice`."""
    try:
        yield
    except PipelineError:
        raise
    except ValueError as error:
        options = {parameter.name for parameter in click.get_current_context().command.params}
        names = r"^[a-z]+(?:_[a-z]+)*|[a-z]+(?:_[a-z]+)+"  # as the first word, or like max_megapixels
        text = re.sub(names, lambda m: _flag(m[0]) if m[0] in options else m[0], str(error))
        raise click.UsageError(text + advice) from error


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@contextmanager
def output_errors(path: Path, advice: str = "") -> Iterator[None]:
    """Name the file that could not be written (73), and what to do."""
    try:
        yield
    except OSError as error:
        raise OutputError("the file cannot be written", path, error.strerror or str(error), advice) from error


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Any]:
    """Yield a callback (done, total) that draws a bar on stderr, where that is a terminal."""
    from tqdm import tqdm

    bar = tqdm(desc=what, unit=unit, disable=is_quiet() or not sys.stderr.isatty(), dynamic_ncols=True, leave=False)

    def show(done: int, total: int) -> None:
        bar.total = total
        if bar.n == 0 and done:
            bar.initial = done
            bar.reset(total)
        bar.update(done - bar.n)
        raise_lost_signal()

    with bar:
        yield show
