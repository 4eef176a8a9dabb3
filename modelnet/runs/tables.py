"""Read and write the tables of a run folder: metrics.csv, predictions.csv, group.csv."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields, replace
from itertools import pairwise
from math import isclose
from statistics import fmean, median
from typing import Any, NamedTuple

from modelnet.progress import EpochRow
from modelnet.runs.schema import Check, number, refused, whole
from pipeline.text import csv_text

_COLUMNS = [field.name for field in fields(EpochRow)]
_MAY_BE_EMPTY = ("val_loss", "val_acc")  # of a run without validation images


class Prediction(NamedTuple):
    """A line of predictions.csv: a validation image and its prediction.

    Attributes:
        class_id, file, sha256: the image, and its content; the class as text.
        predicted: the most probable class, as text.
        correct: whether that is the image's class; of the networks of several folds, their share that is right.
        p_predicted, p_true: probabilities of these classes.
        loss: cross-entropy.
        label: the class that a table of labels gives the image, as text; empty where `class_id` is it.
    """

    class_id: str
    file: str
    sha256: str
    predicted: str
    correct: float
    p_predicted: float
    p_true: float
    loss: float
    label: str = ""


_TEXTS, _NUMBERS = Prediction._fields[:4], Prediction._fields[5:8]  # those that every table has, beside `correct`


def predictions_text(predictions: Sequence[Prediction], folds: Sequence[int] | None = None) -> str:
    """Return predictions.csv: with labels where a table gave them, and with folds where they are given."""
    count = len(Prediction._fields) - (not any(prediction.label for prediction in predictions))
    lines: list[tuple[Any, ...]] = [line[:count] for line in (Prediction._fields, *predictions)]
    if folds is not None:
        lines = [(*line, fold) for line, fold in zip(lines, ("fold", *folds), strict=True)]
    return csv_text(lines)


def epochs_text(rows: Iterable[EpochRow], with_header: bool = True) -> str:
    """Return lines of metrics.csv."""
    lines = [["" if value is None else value for value in astuple(row)] for row in rows]
    return csv_text([_COLUMNS, *lines] if with_header else lines)


_EPOCH: dict[str, Check] = {
    "train_loss": number(),
    "train_acc": number(0, 1),
    "val_loss": number(),
    "val_acc": number(0, 1),
    "lr": number(0),
    "images_per_s": number(0),
    "data_wait_s": number(0),
    "epoch_s": number(0),
}
_IS_EPOCH = whole(1, 2**31 - 1)
_IS_PROBABILITY, _IS_LOSS = number(0, 1.0000001), number()  # rounding may put a probability a little above 1


def parse_epochs(data: bytes) -> list[EpochRow]:
    """Return the whole lines of metrics.csv; the last one may be torn where the process was killed.

    Raises:
        ValueError: it is not what `epochs_text` writes: names the epoch, the column and what came.
    """
    with _named("a table of epochs"):
        text = data.decode()
        lines = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
        rows = [_epoch(line) for line in lines]
        for before, after in pairwise(rows):
            if after.epoch <= before.epoch:
                raise ValueError(f"epoch {after.epoch} comes after epoch {before.epoch}")
        return rows


def _epoch(line: dict[str, str]) -> EpochRow:
    epoch = _int(line["epoch"])
    _IS_EPOCH(epoch, "epoch")
    validated = any(line[name] for name in _MAY_BE_EMPTY)
    values: dict[str, Any] = {}
    for name, check in _EPOCH.items():
        if line[name] == "" and name in _MAY_BE_EMPTY and not validated:
            values[name] = None
        else:
            values[name] = _float(line[name])
            check(values[name], f"epoch {epoch}: {name}")
    return EpochRow(epoch, **values)


def _int(cell: str) -> Any:
    """Return the number in a cell, or the cell itself where there is none."""
    return int(cell) if cell.isdecimal() and len(cell) < 20 else cell


def _float(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


def best_row(rows: Sequence[EpochRow]) -> EpochRow:
    """Return the best epoch: of the highest validation accuracy, then the lowest loss; without these, training loss."""
    return max(rows, key=lambda r: (-r.train_loss,) if r.val_loss is None else (r.val_acc or 0, -r.val_loss))


def result_row(rows: Sequence[EpochRow], result: str) -> EpochRow:
    """Return the epoch whose weights are the result of a run.

    Args:
        rows: at least one.
        result: "last", or "best" where `--patience` chose that epoch; config.json says which.
    """
    return best_row(rows) if result == "best" else rows[-1]


def are_of_the_end(predictions: Sequence[Prediction], rows: Sequence[EpochRow], result: str) -> bool:
    """Say whether predictions belong to the result; a resumed run keeps the old ones until it ends."""
    if not predictions or not rows or (expected := result_row(rows, result).val_loss) is None:
        return False
    return isclose(fmean(prediction.loss for prediction in predictions), expected, rel_tol=1e-4, abs_tol=1e-8)


def criterion(row: EpochRow) -> str:
    """Return the measure that chose the best epoch."""
    return "training loss" if row.val_loss is None else "validation accuracy"


def parse_predictions(data: bytes) -> list[Prediction]:
    """Return the lines of predictions.csv.

    Raises:
        ValueError: it is not the table that training writes: says in which line, and what came.
    """
    with _named("a table of predictions"):
        text = data.decode("utf-8", "surrogateescape")
        lines = csv.DictReader(io.StringIO(text, newline=""))
        return [_prediction(line, f"image {position}") for position, line in enumerate(lines, 1)]


def _prediction(line: dict[str, str], key: str) -> Prediction:
    if None in line.values():
        raise ValueError("a line of it is cut short")
    if line["correct"] not in ("0", "1"):
        raise refused(f"{key}: correct", "0 or 1", line["correct"])
    numbers = {name: _float(line[name]) for name in _NUMBERS}
    for name, value in numbers.items():
        (_IS_LOSS if name == "loss" else _IS_PROBABILITY)(value, f"{key}: {name}")
    texts: dict[str, Any] = {name: line[name] for name in _TEXTS}
    return Prediction(correct=line["correct"] == "1", label=line.get("label", ""), **texts, **numbers)


def parse_group(data: bytes) -> list[str]:
    """Return the names of the folders in a group.csv.

    Raises:
        ValueError: it has none, or names folders elsewhere.
    """
    try:
        lines = csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape")))
        names = [line["run"] for line in lines]
    except (KeyError, csv.Error) as error:
        raise ValueError("it is not a table with a column of runs") from error
    if not names or any(name in (None, "", ".", "..") or set("/\0") & set(name) for name in names):
        raise ValueError("it names no folders beside its own")
    return names


@contextmanager
def _named(table: str) -> Iterator[None]:
    """Let an error say which table was expected."""
    try:
        yield
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"the column {error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"it is not {table} ({reason})") from error


_MEASURES = ("train_loss", "train_acc", "val_loss", "val_acc")


def mean_row(rows: Sequence[EpochRow], weights: Sequence[int]) -> EpochRow:
    """Return the row of the networks of all folds: of training the mean, of validation the mean over all images."""

    def of(name: str) -> Any:
        values = [getattr(row, name) for row in rows]
        counts = weights if name in _MAY_BE_EMPTY else [1] * len(rows)
        return None if None in values else sum(v * n for v, n in zip(values, counts, strict=True)) / sum(counts)

    train_loss, train_acc, val_loss, val_acc = map(of, _MEASURES)
    return replace(rows[0], train_loss=train_loss, train_acc=train_acc, val_loss=val_loss, val_acc=val_acc)


def median_row(rows: Sequence[EpochRow]) -> EpochRow:
    """Return the row of medians of an epoch; a column that the first row lacks, as validation, is empty."""

    def of(name: str) -> Any:
        return None if getattr(rows[0], name) is None else float(median(getattr(row, name) for row in rows))

    train_loss, train_acc, val_loss, val_acc = map(of, _MEASURES)
    return replace(rows[0], train_loss=train_loss, train_acc=train_acc, val_loss=val_loss, val_acc=val_acc)
