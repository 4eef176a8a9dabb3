"""A trained network, from its run folder: evaluated on a cache, or asked about single images."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modelnet.augmentation import center_crop
from modelnet.backbone import Backbone
from modelnet.batches import Batches, worker_deaths
from modelnet.caches import match_labels
from modelnet.device import autocast, choose_device, memory_errors
from modelnet.evaluation import evaluate
from modelnet.models import build_network
from modelnet.options import TrainOptions
from modelnet.progress import Progress
from modelnet.runs import RunFolder
from modelnet.scores import Scores, score
from modelnet.session import find
from modelnet.split import split_by_content
from modelnet.state import check_format, evaluated_weights, features_of
from pipeline import TensorCache
from pipeline.decode import Undecodable, decode
from pipeline.errors import CacheMissing, CacheStale, CheckpointError, OptionsError, RunError, show_path
from pipeline.features import Features
from pipeline.normalize import normalize
from pipeline.places import read_image
from pipeline.recipe import Recipe, pixels_to_row
from pipeline.sources import SUFFIXES, ClassId

BATCH_SIZE = 32


@dataclass(frozen=True)
class Trained:
    """A network as a run left it, with all that is needed to use it.

    Attributes:
        run: its folder.
        network: in evaluation mode; with a running mean of the weights, that one.
        class_ids, class_names: by the network's label.
        recipe: how an image becomes a tensor.
        features: what the network takes instead of images, or None.
        options: of the run.
        device: of the network.
    """

    run: Path
    network: nn.Module
    class_ids: list[ClassId]
    class_names: list[str]
    recipe: Recipe
    options: TrainOptions
    device: torch.device
    features: Features | None = None

    @classmethod
    def load(cls, run: Path, checkpoint: str = "last", device: str = "auto") -> "Trained":
        """Load the network of a run.

        Args:
            run: its folder.
            checkpoint: "last", or the "best" epoch's.
            device: "auto", "cpu", "cuda" or "cuda:1".

        Raises:
            RunError: no run there, or it saved no such checkpoint.
            CheckpointError: the checkpoint is damaged, unsafe, or of another format.
            DeviceError: the device is not there.
        """
        folder, name = RunFolder(run), f"{checkpoint}.pt"
        folder.read_config()
        content = folder.load_checkpoint(name)
        path = os.fspath(folder.checkpoints / name)
        check_format(content, path)
        chosen = choose_device(device)
        try:
            network = build_network(**content["model"])
            network.load_state_dict(evaluated_weights(content))
            recipe, options = Recipe.from_dict(content["recipe"]), TrainOptions.from_dict(content["options"])
            features = features_of(content)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError("the checkpoint cannot be used", path, str(error)) from error
        with memory_errors(chosen):
            network.to(chosen).eval()
        return cls(run, network, content["class_ids"], content["class_names"], recipe, options, chosen, features)

    def on_images(self, weights: Path | None) -> "Trained":
        """Return the network behind the frozen one whose features it was trained on; itself where there is none.

        Args:
            weights: a file with those of the frozen network, which are not kept in the run.

        Raises:
            RunError: they are needed, and not given or not there.
            CheckpointError: they are others.
            OptionsError: they are given, and not needed.
        """
        if self.features is None:
            if weights is not None:
                raise OptionsError("--weights are not needed", self.run, "its network takes images", "Leave them out")
            return self
        name, digest = self.features.model, self.features.weights
        if weights is None:
            reason = f"it was trained on features of {name}, whose weights are not kept here"
            raise RunError("weights are needed", self.run, reason, f"Give --weights, those with digest {digest[:8]}")
        backbone = Backbone(name, weights, self.recipe.size, str(self.device))
        if backbone.digest != digest:
            reason = (
                f"their digest is {backbone.digest[:8]}, and {self.run.name} was trained on features by {digest[:8]}"
            )
            raise CheckpointError("the weights are others", weights, reason)
        return replace(self, network=nn.Sequential(backbone.network, self.network).eval())

    def evaluate(self, cache: Path | None = None, workers: int = 0, progress: Progress | None = None) -> Scores:
        """Say how good the network is on the images of a cache.

        Args:
            cache: another one, all of it; None for the images that the run was validated on.
            workers: processes that read.
            progress: hears of images that the network was trained on.

        Raises:
            OptionsError: the run had no validation images, and no cache is given.
            CacheError: the cache cannot be used, does not go together with the network, or has changed since the run.
        """
        if cache is None:
            opened, rows = self._validation_images()
        else:
            opened, rows = TensorCache(cache), None
            if (known := self._trained_on(opened)) and progress is not None:
                among = f"{known} of its {opened.num_images} images" if known < opened.num_images else "all its images"
                progress.warn(f"{show_path(opened.path)}: the network was trained on {among}")
        if opened.num_images == 0:
            raise OptionsError("nothing to evaluate on", opened.path, "it holds no images", "Give another --cache")
        label_map = match_labels(self.class_ids, self.recipe, opened, self.features, f"run {self.run.name}")
        size, crop_size = self.options.batch_size, self.options.crop_size
        batches = Batches(opened, self.device, size, workers=workers, rows=rows, crop_size=crop_size)
        with worker_deaths(opened.path), memory_errors(self.device):
            outcome = evaluate(self.network, batches, label_map, autocast=autocast(self.options, self.device))
        assert outcome is not None  # nobody can ask it to stop
        return score(outcome, self.class_ids, self.class_names)

    def _validation_images(self) -> tuple[TensorCache, Tensor | None]:
        """Open the cache that the run was validated on; the rows are the part of it that was."""
        if self.options.val is None and self.options.val_fraction is None:
            reason = "the run had no validation images"
            raise OptionsError("nothing to evaluate on", self.run, reason, "Give a --cache")
        try:
            cache = TensorCache(find(self.options.val or self.options.cache, self.run))
        except CacheMissing as error:
            error.advice += ", or give --cache to evaluate on another, whole"
            raise
        if cache.fingerprint != RunFolder(self.run).read_config()["val"]["fingerprint"]:
            reason = f"it is not the one that run {self.run.name} was validated on"
            raise CacheStale("the cache has changed", cache.path, reason, "Give --cache to evaluate on it, whole")
        fraction = self.options.val_fraction
        return cache, None if fraction is None else split_by_content(cache, fraction).val

    def _trained_on(self, cache: TensorCache) -> int:
        """Count the images of a cache that the network was trained on, where it is the run's own."""
        described = RunFolder(self.run).read_config()["cache"]
        return int(described["images"]) if cache.fingerprint == described["fingerprint"] else 0

    def prepare(self, data: bytes) -> Tensor:
        """Make of an image file what the cache made of the files that the network was trained on, to the last bit.

        Args:
            data: a whole JPEG or PNG.

        Returns:
            (3, S, S) float32; with `crop_size`, its middle.

        Raises:
            Undecodable: the bytes give no image.
        """
        row_CHW = torch.from_numpy(pixels_to_row(decode(data, self.recipe).pixels_HWC, self.recipe))
        image_CHW = normalize(row_CHW[None], self.recipe)[0] if row_CHW.dtype == torch.uint8 else row_CHW
        return image_CHW if self.options.crop_size is None else center_crop(image_CHW, self.options.crop_size)

    def probabilities(self, images_NCHW: Tensor) -> Tensor:
        """Return (N, C) float64 on the CPU, what the network thinks of prepared images."""
        with torch.inference_mode(), memory_errors(self.device), autocast(self.options, self.device):
            logits_NC: Tensor = self.network(images_NCHW.to(self.device))
        return logits_NC.double().softmax(1).cpu()


class Answer(NamedTuple):
    """What a network says of an image file: (class, probability), the most probable first; or why it says nothing."""

    file: Path
    classes: list[tuple[int, float]]
    error: str = ""


def predict(trained: Trained, paths: Sequence[Path], top_k: int) -> Iterator[Answer]:
    """Ask a network about image files.

    Args:
        trained: the network.
        paths: files, or folders whose JPEGs and PNGs are meant, at any depth.
        top_k: classes an image.

    Yields:
        An answer a file, in order.

    Raises:
        RunError: a path that is not there, or a folder without images.
    """
    files = [file for path in paths for file in image_files(path)]
    for start in range(0, len(files), BATCH_SIZE):
        yield from _predict_batch(trained, files[start : start + BATCH_SIZE], top_k)


def image_files(path: Path) -> list[Path]:
    """Return the file itself, or what has an image's name below a folder, hidden files and folders left out.

    Raises:
        RunError: it is not there, or a folder without images.
    """
    if not path.exists():
        raise RunError("no image there", path, "no such file or folder")
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if os.fsencode(file.suffix.lower()) in SUFFIXES
        and not file.is_dir()
        and not any(part.startswith(".") or part == "__MACOSX" for part in file.relative_to(path).parts)
    )
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
        top = trained.probabilities(torch.stack(list(prepared.values()))).topk(min(top_k, len(trained.class_ids)))
        for i, values, labels in zip(prepared, top.values.tolist(), top.indices.tolist(), strict=True):
            answers[i] = Answer(files[i], list(zip(labels, values, strict=True)))
    return answers


def answer_text(trained: Trained, answer: Answer) -> str:
    """Return a line: "photos/a.jpg: snake 93.1%, paddle 6.9%"."""
    names = (trained.class_names[label] or str(trained.class_ids[label]) for label, _ in answer.classes)
    said = (f"{show_path(name)} {p:.1%}" for name, (_, p) in zip(names, answer.classes, strict=True))
    return f"{show_path(answer.file)}: {', '.join(said)}"


def answer_dict(trained: Trained, answer: Answer) -> dict[str, Any]:
    """Return plain JSON values: the file, and its classes or the error."""
    if answer.error:
        return {"file": os.fspath(answer.file), "error": answer.error}
    classes = [
        {"id": trained.class_ids[label], "name": trained.class_names[label], "p": p} for label, p in answer.classes
    ]
    return {"file": os.fspath(answer.file), "classes": classes}
