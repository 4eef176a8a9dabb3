"""The tables of a run folder as text: what a line of metrics.csv and of predictions.csv says."""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from typing import Any, NamedTuple


@dataclass(frozen=True)
class EpochRow:
    """A line of metrics.csv.

    Attributes:
        epoch: from 1.
        train_loss, train_acc: running means over the images of the epoch, each measured before the step it led to.
        val_loss, val_acc: over the validation images, after the epoch; None without them.
        lr: learning rate at the end of the epoch.
        images_per_s: training images, validation not counted.
        data_wait_s: seconds of the training spent waiting for batches.
        epoch_s: seconds of the whole epoch, validation included.
    """

    epoch: int
    train_loss: float
    train_acc: float
    val_loss: float | None
    val_acc: float | None
    lr: float
    images_per_s: float
    data_wait_s: float
    epoch_s: float


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
