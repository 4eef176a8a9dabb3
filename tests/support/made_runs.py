"""Run folders as training leaves them, made in an instant, for tests of what is shown of runs, and compared."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelnet.eval.scores import Scores, class_scores
from modelnet.options import TrainOptions
from modelnet.progress import EpochRow
from modelnet.runs.folder import RunFolder
from modelnet.runs.tables import Prediction
from pipeline.recipe import Recipe

Answer = tuple[str, str, str, float]
"""An image's class and file, the class that was said, and how probable that was."""

HOSTILE = '<script>document.title="owned"</script>'
BAD_FILE = '"><img src="http://x/y" onerror=alert(1)> {{ 7*7 }} \udcff\x1b[2J.jpg'
ANSWERS: list[Answer] = [("1", "a.jpg", "1", 0.9), ("1", BAD_FILE, "2", 0.8), ("2", "c.jpg", "1", 0.999)]


def make_run(
    name: str,
    losses: list[float],
    predictions: list[Answer] | None = None,
    classes: tuple[tuple[Any, str, int], ...] = ((1, "paddle", 6), (2, "snake", 2)),
    result: str = "last",
    **options: Any,
) -> Path:
    """Write runs/<name>: a row an epoch, whose losses are given; with answers, these of its validation images.

    Args:
        classes: id, name and number of training images of each.
        result: "best" where the answers are those of the epoch with the lowest loss, as with `patience`.
        options: of the run.
    """
    described = [{"id": id, "name": class_name, "images": images} for id, class_name, images in classes]
    val = None if predictions is None else [sum(p[0] == str(id) for p in predictions) for id, _, _ in classes]
    with RunFolder.create(name, "") as run:
        wanted = TrainOptions(Path("c.h5"), **({"epochs": len(losses)} | options))
        run.write_config(config_of(wanted, described, val) | {"result": result})
        for i, x in enumerate(losses):
            value = None if predictions is None else x
            run.append_metrics(EpochRow(i + 1, x, 0.5, value, value and 0.5, 0.01, 100, 0, 1))
        if predictions is not None:
            _write_answers(run, predictions, described, losses[-1] if result == "last" else min(losses))
    return run.path


PADDLE_AND_SNAKE = [{"id": 1, "name": "paddle", "images": 6}, {"id": 2, "name": "snake", "images": 2}]


def config_of(
    options: TrainOptions, classes: list[dict[str, Any]] = PADDLE_AND_SNAKE, val: list[int] | None = None
) -> dict[str, Any]:
    """Return a config.json: of a run with these classes, and so many validation images of each."""
    validated = None if val is None else [one | {"images": n} for one, n in zip(classes, val, strict=True)]
    images = {"images": 0, "fingerprint": "f" * 64, "recipe": Recipe(64, dtype="uint8").to_dict()}
    return {
        "options": options.to_dict(),
        "command": options.command(),
        "cache": images | {"classes": classes, "images": sum(one["images"] for one in classes)},
        "val": validated and images | {"fingerprint": "e" * 64, "classes": validated, "images": sum(val or [])},
        "versions": {"python": "3.x", "torch": "2.x"},
        "git_commit": "0123abcd",
        "device": "cpu",
        "device_name": "x86_64",
    }


def _write_answers(run: RunFolder, predictions: list[Answer], classes: list[dict[str, Any]], loss: float) -> None:
    ids = [str(one["id"]) for one in classes]
    confusion = [[0] * len(ids) for _ in ids]
    for true, _, said, _ in predictions:
        confusion[ids.index(true)][ids.index(said)] += 1
    right = sum(true == said for true, _, said, _ in predictions)
    scores = class_scores(confusion, [one["id"] for one in classes], [one["name"] for one in classes])
    run.write_scores(Scores(len(predictions), loss, right / len(predictions), None, scores, confusion).to_dict())
    answers = [
        Prediction(c, file, file, said, int(c == said), p, 1 - p if c != said else p, loss)
        for c, file, said, p in predictions
    ]
    run.write_predictions(answers)


def many_classes() -> Path:
    """A run on a thousand classes, of which each image is taken for the next class."""
    classes = tuple((f"n{i:08}", f"class number {i}", 100 + i) for i in range(1000))
    answers = [(f"n{i:08}", f"{i}.jpg", f"n{(i + i % 3 // 2) % 1000:08}", 0.5) for i in range(1000)]
    return make_run("thousand", [6.9, 6.5], answers, classes)


def write_run(name: str, correct: Sequence[int], photos: Sequence[str] = (), epochs: int = 2, **options: Any) -> Path:
    """Make a run of two epochs with these right and wrong answers; every second image is of class 1, the others of 2.

    Args:
        correct: 1 for each validation image that it gets right, 0 for each other.
        photos: names of the images, which are their content too.
        epochs: that it was to have: it has ended where they are two.
        options: of the run.
    """
    val = None if "split" in options else Path("v.h5")
    wanted = TrainOptions(Path("c.h5"), val=val, epochs=epochs, name=name, **options)
    run = RunFolder.create(name, "")
    config = config_of(wanted) | {"split": wanted.split and {"sha256": hashlib.sha256(bytes(wanted.split)).hexdigest()}}
    run.write_config(config | {"git_commit": None, "versions": {"torch": "2.9"}, "val": config["cache"]})
    answers = []
    for i, (right, photo) in enumerate(zip(correct, photos or map(str, range(len(correct))), strict=True)):
        true, sha256 = str(1 + i % 2), hashlib.sha256(os.fsencode(photo)).hexdigest()
        said = true if right else str(2 - i % 2)
        p_true, of_image = (0.9, 0.105) if right else (0.1, 2.303)
        answers.append(Prediction(true, f"{photo}.jpg", sha256, said, right, 0.9, p_true, of_image))
    run.write_predictions(answers)
    run.write_scores({})  # a comparison asks only whether they are there
    for epoch in range(1, 3):
        loss = float(np.mean([answer.loss for answer in answers]))
        run.append_metrics(EpochRow(epoch, 0.5, 0.5, loss, float(np.mean(correct)), 0.1, 1.0, 0.0, 1.0))
    run.close()
    return run.path


def bits(count: int, right: int, start: int = 0) -> list[int]:
    """Return which of `count` images are right: `right` of them, from `start` on."""
    return [int((i - start) % count < right) for i in range(count)]


def in_folds(name: str, correct: Sequence[int], **options: Any) -> list[Path]:
    """Make the runs of three folds of a seed, which together validated on all images."""
    photos = list(map(str, range(len(correct))))
    values = {"split": Path("s.csv")} | options
    return [write_run(f"{name}-{k}", correct[k::3], photos[k::3], fold=k, **values) for k in range(3)]
