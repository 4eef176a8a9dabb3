"""Predict the classes of image files."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modelnet.eval.trained import BATCH_SIZE, Trained
from pipeline.decode.faults import Undecodable
from pipeline.errors import RunError
from pipeline.source.file_names import SUFFIXES
from pipeline.source.folder import walk_folder
from pipeline.source.reader import read_image
from pipeline.text import show_path


class Answer(NamedTuple):
    """A prediction for an image file.

    Attributes:
        file: the image.
        classes: (label, probability) of the most probable classes, the first one first.
        error: why there is no prediction; else empty.
        probabilities: of all classes, by label.
    """

    file: Path
    classes: list[tuple[int, float]]
    error: str = ""
    probabilities: tuple[float, ...] = ()


def predict(trained: Trained, paths: Sequence[Path], top_k: int) -> Iterator[Answer]:
    """Predict the classes of image files.

    Args:
        trained: the network.
        paths: files, or folders, whose images are read at any depth.
        top_k: classes an image.

    Yields:
        One answer for each file, in order.

    Raises:
        RunError: a path does not exist, or a folder holds no images.
        AccessDenied, WorkerDied, StorageError: as `image_files`.
    """
    files = [file for path in paths for file in image_files(path)]
    for start in range(0, len(files), BATCH_SIZE):
        yield from _predict_batch(trained, files[start : start + BATCH_SIZE], top_k)


def image_files(path: Path) -> list[Path]:
    """Return the file itself, or the images below a folder, in order: those that a build of the folder would read.

    Raises:
        RunError: it is not there, or a folder without images.
        AccessDenied: a folder that may not be read.
        WorkerDied, StorageError: as `walk_folder`.
    """
    if not path.exists():
        raise RunError("no image there", path, "no such file or folder")
    if not path.is_dir():
        return [path]
    contents = walk_folder(os.fsencode(path))
    names = [*contents.images.paths, *(name for name, _ in contents.failed)]  # named later, when they fail
    found = sorted(path / os.fsdecode(name) for name in names)
    if not found:
        suffixes = " ".join(os.fsdecode(suffix) for suffix in SUFFIXES)
        raise RunError("no images there", path, f"no file below it has a suffix of {suffixes}")
    return found


def _predict_batch(trained: Trained, files: list[Path], top_k: int) -> list[Answer]:
    answers: list[Answer] = []
    prepared: dict[int, Tensor] = {}
    for i, file in enumerate(files):
        error = ""
        try:
            prepared[i] = trained.prepare(read_image(os.fsencode(file))[0])
        except (Undecodable, OSError) as failure:
            error = getattr(failure, "strerror", None) or str(failure)
        answers.append(Answer(file, [], error))
    if prepared:
        probabilities_NC = trained.probabilities(torch.stack(list(prepared.values())))
        top_NK = probabilities_NC.argsort(dim=1, descending=True, stable=True)[:, :top_k].tolist()
        for i, probabilities, labels in zip(prepared, probabilities_NC.tolist(), top_NK, strict=True):
            classes = [(label, probabilities[label]) for label in labels]
            answers[i] = Answer(files[i], classes, probabilities=tuple(probabilities))
    return answers


def answer_text(trained: Trained, answer: Answer) -> str:
    """Return a line: "photos/a.jpg: snake 93.1%, paddle 6.9%"."""
    names = (trained.class_names[label] or str(trained.class_ids[label]) for label, _ in answer.classes)
    said = (f"{show_path(name)} {p:.1%}" for name, (_, p) in zip(names, answer.classes, strict=True))
    return f"{show_path(answer.file)}: {', '.join(said)}"


def answer_dict(trained: Trained, answer: Answer) -> dict[str, Any]:
    """Return plain JSON values: the file, and its most probable classes and all probabilities, or the error."""
    if answer.error:
        return {"file": os.fspath(answer.file), "error": answer.error}
    classes = [
        {"id": trained.class_ids[label], "name": trained.class_names[label], "p": p} for label, p in answer.classes
    ]
    probabilities = dict(zip(map(str, trained.class_ids), answer.probabilities, strict=True))
    return {"file": os.fspath(answer.file), "classes": classes, "probabilities": probabilities}
