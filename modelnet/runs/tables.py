"""The tables of a run folder as text: what a line of metrics.csv and of predictions.csv says."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields, replace
from statistics import median
from typing import Any, NamedTuple

from modelnet.progress import EpochRow

_COLUMNS = [field.name for field in fields(EpochRow)]
_MAY_BE_EMPTY = ("val_loss", "val_acc")  # of a run without validation images


class Prediction(NamedTuple):
    """A line of predictions.csv: a validation image, and what the network says of it.

    Attributes:
        class_id, file, sha256: the image, and its content; the class as text.
        predicted: the most probable class, as text.
        correct: whether that is the image's class.
        p_predicted, p_true: probabilities of these classes.
        loss: cross-entropy.
    """

    class_id: str
    file: str
    sha256: str
    predicted: str
    correct: bool
    p_predicted: float
    p_true: float
    loss: float


def epochs_text(rows: Iterable[EpochRow], with_header: bool = True) -> str:
    """Return lines of metrics.csv."""
    lines = [["" if value is None else value for value in astuple(row)] for row in rows]
    return csv_text([_COLUMNS, *lines] if with_header else lines)


def read_epochs(text: str) -> list[EpochRow]:
    """Return what `epochs_text` was given; raises csv.Error, KeyError, TypeError or ValueError where it is none."""
    rows = []
    for line in csv.DictReader(io.StringIO(text)):
        values: dict[str, Any] = {
            name: None if line[name] == "" and name in _MAY_BE_EMPTY else float(line[name]) for name in _COLUMNS
        }
        rows.append(EpochRow(**values | {"epoch": int(line["epoch"])}))
    return rows


def read_predictions(text: str) -> list[Prediction]:
    """Return the lines of predictions.csv; raises csv.Error, KeyError, TypeError or ValueError where it is none."""
    return [_prediction(line) for line in csv.DictReader(io.StringIO(text, newline=""))]


def _prediction(line: dict[str, str]) -> Prediction:
    if None in line.values():
        raise ValueError("a line of it is cut short")
    return Prediction(
        line["class_id"],
        line["file"],
        line["sha256"],
        line["predicted"],
        {"0": False, "1": True}[line["correct"]],
        float(line["p_predicted"]),
        float(line["p_true"]),
        float(line["loss"]),
    )


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as CSV, a line each."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


_MEASURES = ("train_loss", "train_acc", "val_loss", "val_acc")


def median_row(rows: Sequence[EpochRow]) -> EpochRow:
    """Return the row of medians of an epoch; what the first has not, as validation, it has not either."""

    def of(name: str) -> Any:
        return None if getattr(rows[0], name) is None else float(median(getattr(row, name) for row in rows))

    train_loss, train_acc, val_loss, val_acc = map(of, _MEASURES)
    return replace(rows[0], train_loss=train_loss, train_acc=train_acc, val_loss=val_loss, val_acc=val_acc)
