"""Load a trained network from its run folder, evaluate it on a cache, or predict single images."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelnet.data.batches import Batches
from modelnet.data.caches import has_rows_of, match_labels
from modelnet.data.workers import worker_deaths
from modelnet.eval.evaluate import Outcome, evaluate, predictions_of
from modelnet.eval.own_images import Images, count_tested, other_images, test_images, validation_images
from modelnet.eval.scores import Scores, score
from modelnet.nets.backbone import Backbone
from modelnet.nets.own import OwnCode
from modelnet.nets.registry import build_network
from modelnet.nets.weights_file import digest_of
from modelnet.options import TrainOptions
from modelnet.options.code import GIVEN, parse_arguments
from modelnet.progress import Progress
from modelnet.runs.code import allow, kept_code
from modelnet.runs.content import check_content, evaluated_weights, features_of
from modelnet.runs.folder import RunFolder
from modelnet.runs.looks import add_look, check_can_note
from modelnet.runs.tables import Prediction
from modelnet.runtime.device import (
    CONTIGUOUS,
    autocast,
    choose_device,
    cpu_threads,
    images_at_once,
    memory_errors,
    move_network,
)
from pipeline import TensorCache
from pipeline.decode.decode import decode
from pipeline.errors import (
    AccessDenied,
    CacheMissing,
    CacheStale,
    CheckpointError,
    OptionsError,
    RunError,
    StorageError,
)
from pipeline.format.classes import ClassId
from pipeline.format.features import Features
from pipeline.load.augment import Augmentation
from pipeline.load.normalize import normalize
from pipeline.recipe import Recipe, pixels_to_row
from pipeline.text import show_path

BATCH_SIZE = 32


@dataclass(frozen=True)
class Trained:
    """A trained network with everything that is needed to use it.

    Attributes:
        run: the run folder.
        network: the network in evaluation mode; of a run with `model_ema`, the moving average of the weights (EMA).
        class_ids, class_names: ids and readable names of the classes, by label.
        recipe: how an image becomes a tensor.
        features: the features that the network takes instead of images, or None.
        options: the options of the run.
        device: the device of the network.
        picked: the epoch of the weights, which their checkpoint names, if they are the best ones; None if the last.
        backbone: the frozen network that computes those features, where it takes images nevertheless.
        is_result: whether these weights, in this precision, gave the result of the run, its predictions.csv.
    """

    run: Path
    network: nn.Module
    class_ids: list[ClassId]
    class_names: list[str]
    recipe: Recipe
    options: TrainOptions
    device: torch.device
    features: Features | None = None
    picked: int | None = None
    is_result: bool = True
    backbone: Backbone | None = None

    @property
    def whole(self) -> nn.Module:
        """The network from images to logits: with `backbone`, behind that."""
        return self.network if self.backbone is None else nn.Sequential(self.backbone.network, self.network).eval()

    @property
    def note(self) -> str:
        """Which weights these are where they are not the last, and what a person should know of that; else ""."""
        if self.picked is None:
            return ""
        images, measure = ("validation", "accuracy") if self.options.validates else ("training", "loss")
        return (
            f"the weights are those of epoch {self.picked}, picked by its {images} {measure}: "
            f"on the {images} images of the run they look better than they are"
        )

    @classmethod
    def load(
        cls,
        run: Path,
        checkpoint: str | None = None,
        device: str = "auto",
        amp: bool | None = None,
        network: nn.Module | None = None,
        trust_code: bool = False,
    ) -> "Trained":
        """Load the network of a run.

        Args:
            run: its folder.
            checkpoint: "last", or "best" for that of the best epoch; None is the result of the
                run: "best" where its `patience` chose that epoch, else "last".
            device: "auto", "cpu", "cuda" or "cuda:1".
            amp: whether to compute in half precision; None as the run did.
            network: the module that `train` was given, where it was; it takes the weights of the run.
            trust_code: execute a network of one's own that the run brings, although nobody has trained with it here.

        Raises:
            CodeError: that is not trusted, raises an error, or does not fit.
            OptionsError: the run needs `network`, or has no use for it.
            RunError: no run there, or it saved no such checkpoint.
            CheckpointError: the checkpoint is damaged, unsafe, or of another format.
            DeviceError: the device is not there.
        """
        folder = RunFolder(run)
        result = folder.read_config().get("result", "last")
        checkpoint = checkpoint or result
        name = f"{checkpoint}.pt"
        content = folder.load_checkpoint(name)
        path = os.fspath(folder.checkpoints / name)
        check_content(content, path)
        chosen = choose_device(device)
        code = _code_of(folder, content, network, trust_code)
        try:
            recipe, options = Recipe.from_dict(content["recipe"]), TrainOptions.from_dict(content["options"])
            if network is None:
                network = build_network(**content["model"], code=code, arguments=parse_arguments(options.model_arg))
            network.load_state_dict(evaluated_weights(content))
            is_result = checkpoint == result and amp in (None, options.amp)
            options = replace(options, amp=options.amp if amp is None else amp)
            features = features_of(content)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError("the checkpoint cannot be used", path, str(error)) from error
        move_network(network.eval(), chosen, options.memory_format or CONTIGUOUS)
        picked = content["epoch"] if checkpoint == "best" else None
        ids, names = content["class_ids"], content["class_names"]
        return cls(run, network, ids, names, recipe, options, chosen, features, picked, is_result)

    def on_images(self, weights: Path | None) -> "Trained":
        """Return the network appended to the frozen one whose features it takes; itself where it takes images.

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
        features, digest = self.features, self.features.weights
        if weights is None:
            reason = f"it was trained on features of {features.model}, whose weights are not kept here"
            raise RunError("weights are needed", self.run, reason, f"Give --weights, of SHA-256 {digest[:8]}")
        if (given := digest_of(weights)) != digest:
            reason = f"their SHA-256 is {given[:8]}, and {self.run.name} was trained on features by {digest[:8]}"
            raise CheckpointError("the weights are others", weights, reason)
        how = {name: getattr(features, name) for name in ("layer", "precision", "memory_format")}
        backbone = Backbone(features.model, weights, self.recipe.size, str(self.device), **how)
        return replace(self, backbone=backbone)

    def evaluate(
        self,
        cache: Path | None = None,
        workers: int = 0,
        progress: Progress | None = None,
        keep: bool = False,
        test: bool = False,
    ) -> Scores:
        """Measure how good the network is on the images of a cache. A look at test images is noted beside their split.

        Args:
            cache: another one, all of it; None for the images that the run was validated on.
            workers: processes that read.
            progress: hears of images that the network was trained on, of looks at test images, and where it is kept.
            keep: write scores and predictions into RUN/evaluations/, unless the run has them already.
            test: measure on the test images of the run's split.

        Raises:
            OptionsError: the run had no validation images, or no test images, and no cache is given.
            AccessDenied, StorageError: the look at test images cannot be noted; nothing is measured then.
            CacheError: the cache cannot be used, does not go together with the network, or has changed since the run.
            WorkerDied: a reading process was killed.
        """
        of_run, progress = (self.run, self.options), progress or Progress()
        if test:
            images: Images = test_images(*of_run)
        elif cache is not None:
            images = other_images(*of_run, cache)
        else:
            try:
                images = validation_images(*of_run)
            except (CacheMissing, CacheStale) as error:
                error.advice += ", or give --cache to evaluate on another, whole"
                raise
        opened, rows = images
        looks = test or (cache is not None and count_tested(*of_run, opened) > 0)
        split = check_can_note(self.run) if looks else None
        if cache is not None:
            if rows is not None:
                progress.warn(f"{opened.num_images - len(rows)} images are in no row of the run's table of labels")
            if known := self._trained_on(opened):
                among = f"{known} of its {opened.num_images} images" if known < opened.num_images else "all its images"
                progress.warn(f"{show_path(opened.path)}: the network was trained on {among}")
        batches, outcome = self._outcome(images, workers)
        if split is not None:
            progress.note(f"note: {add_look(split, 'evaluate', [self.run])}")
        scores = score(outcome, self.class_ids, self.class_names)
        if keep and (test or not (cache is None and self.is_result)):
            predictions = predictions_of(outcome, opened, batches.subset, self.class_ids)
            self._keep(opened, scores, predictions, progress, "test" if test else opened.path.stem)
        return scores

    def test(self, noted: bool = False) -> list[Prediction]:
        """Return what the network says of the test images of the run's split; the look is noted beside it.

        Args:
            noted: whether it is noted elsewhere: `compare` notes one for all its runs.

        Raises:
            As `evaluate`.
        """
        images = test_images(self.run, self.options)
        split = None if noted else check_can_note(self.run)
        predictions = self._predictions(images)
        if split is not None:
            add_look(split, "test", [self.run])
        return predictions

    def validation(self) -> list[Prediction]:
        """Return what the network says of the images that the run was validated on; raises as `evaluate`."""
        return self._predictions(validation_images(self.run, self.options))

    def _predictions(self, images: Images) -> list[Prediction]:
        batches, outcome = self._outcome(images)
        return predictions_of(outcome, batches.cache, batches.subset, self.class_ids)

    def validate(self) -> tuple[Batches, Outcome]:
        """Run the network over the images that the run was validated on; raises as `evaluate`."""
        return self._outcome(validation_images(self.run, self.options))

    def _outcome(self, images: Images, workers: int = 0) -> tuple[Batches, Outcome]:
        opened, rows = images
        if opened.num_images == 0:
            raise OptionsError("nothing to evaluate on", opened.path, "it holds no images", "Give another --cache")
        label_map = match_labels(self.class_ids, self.recipe, opened, self.features, f"run {self.run.name}")
        size, crop_size = self.options.batch_size, self.options.crop
        batches = Batches(opened, self.device, size, workers=workers, rows=rows, crop_size=crop_size)
        with worker_deaths(opened.path), memory_errors(self.device), self._computing() as context:
            at_once = images_at_once(self.options.model, self.device, self.options.precision)
            outcome = evaluate(self.network, batches, label_map, autocast=context, at_once=at_once)
        assert outcome is not None  # it has no stop flag
        return batches, outcome

    def _keep(
        self, cache: TensorCache, scores: Scores, predictions: list[Prediction], progress: Progress, name: str
    ) -> None:
        """Write an evaluation into the run folder; one that cannot be written, as on a read-only disk, is a warning."""
        checkpoint = "best" if self.picked is not None else "last"
        description = {
            "cache": os.fspath(cache.path),
            "fingerprint": cache.fingerprint,
            "checkpoint": checkpoint,
            "precision": self.options.precision,
            "epoch": self.picked,
            "scores": scores.to_dict(),
        }
        name = name if self.is_result else f"{name}-{checkpoint}"
        try:
            path = RunFolder(self.run).write_evaluation(name, description, predictions)
        except (StorageError, AccessDenied) as error:
            progress.warn(f"the evaluation is not kept: {error.reason}")
        else:
            progress.note(f"kept: {show_path(path)}, and each prediction beside it")

    def _trained_on(self, cache: TensorCache) -> int:
        """Count the images of a cache that the network was trained on, where it is the run's own."""
        described = RunFolder(self.run).read_config()["cache"]
        return int(described["images"]) if has_rows_of(cache, described["fingerprint"]) else 0

    def prepare(self, data: bytes) -> Tensor:
        """Prepare an image file bit for bit as the cache prepared the training images.

        Args:
            data: a whole image file.

        Returns:
            (3, H, W) float32; with `crop_size`, its middle.

        Raises:
            Undecodable: the bytes give no image.
        """
        row_CHW = torch.from_numpy(pixels_to_row(decode(data, self.recipe).pixels_HWC, self.recipe))
        if self.options.crop is not None:
            center = Augmentation(None, 0, self.recipe, crop_size=self.options.crop)
            return center(row_CHW[None], 0, torch.zeros(1, dtype=torch.int64))[0]
        return normalize(row_CHW[None], self.recipe)[0] if row_CHW.dtype == torch.uint8 else row_CHW

    def probabilities(self, images_NCHW: Tensor) -> Tensor:
        """Return the (N, C) float64 probabilities of prepared images, on the CPU."""
        inputs = images_NCHW if self.backbone is None else self.backbone(images_NCHW)
        at_once = images_at_once(self.options.model, self.device, self.options.precision)
        parts = inputs.split(at_once or max(len(inputs), 1))
        with torch.inference_mode(), memory_errors(self.device), self._computing() as context, context:
            logits_NC = torch.cat([self.network(part.to(self.device)) for part in parts])
        return logits_NC.double().softmax(1).cpu()

    @contextmanager
    def _computing(self) -> Iterator[AbstractContextManager[object]]:
        """Set the threads of the run, at most those that are here; yield the context that the network computes in."""
        options, most = self.options, torch.get_num_threads()
        asked = None if options.threads is None else min(options.threads, most)
        with cpu_threads(asked, options.model, options.batch_size):
            yield autocast(options.precision, self.device)


def _code_of(folder: RunFolder, content: dict[str, Any], network: nn.Module | None, trust_code: bool) -> OwnCode | None:
    """Return the code of a network of a person's own; None of others, and where a network is given."""
    name, digests = content["model"]["name"], content.get("code", {})
    if (network is not None) != name.startswith(GIVEN):
        if network is not None:
            raise OptionsError("no network is needed", folder.path, f"the run trained {name}", "Leave it out")
        reason = f"it was trained from Python, as a {name.removeprefix(GIVEN)} that is kept in no file"
        raise OptionsError("the network is needed", folder.path, reason, "Use Trained.load(run, network=...)")
    if trust_code:
        allow(digests)
    return kept_code(folder, {"model": name}, digests).get("model")
