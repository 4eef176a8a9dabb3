"""Hold the content of a checkpoint: everything needed to resume training, and to use the network."""

import copy
from collections.abc import Container
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from modelnet.data.caches import different_features, same_images
from modelnet.eval.metrics import RunningMean
from modelnet.options import TrainOptions
from modelnet.runs.content import FORMAT, check_content, check_optimizer, features_of
from modelnet.runtime.ranks import Ranks
from pipeline import TensorCache
from pipeline.errors import CheckpointError
from pipeline.recipe import Recipe


def shape_of_rows(options: TrainOptions, cache: TensorCache) -> tuple[int, ...]:
    """Return the shape of a network's input: (3, H, W) of an image or its crop, or (D,) of features."""
    return cache.row_shape if options.crop is None else (3, *options.crop)


def size_of_rows(options: TrainOptions, cache: TensorCache) -> int | tuple[int, int]:
    """Return the size for `build_network`: the number of features, the side of squares, or (height, width)."""
    shape = shape_of_rows(options, cache)
    return (shape[1], shape[2]) if shape[1:2] != shape[2:] else shape[-1]


@dataclass
class State:
    """A network in training. Restored from a checkpoint, it continues bit for bit as if it had never stopped.

    Attributes:
        network, optimizer: what is trained.
        average: the moving average of its weights, or None.
        ranks: the processes that train it, all of which have this state.
        epoch: epochs that are finished.
        step: batches done in the epoch after them.
        running: loss and accuracy of these batches.
        seconds, waited: time spent on these batches, and the part of it spent waiting for batches.
        best: how good the best epoch was, larger is better; empty before the first.
        stale: epochs since then.
        decays: times that the learning rate was lowered because no epoch got better.
        scaler: of the gradients, where float16 would lose small ones; it finds its scale in training.
        keeps_gradients: whether gradients are part of the state: the next batch adds to them.
        weights_sha256: of the file of weights that training began from, or None.
        code: SHA-256 of each file of a person's own, by option.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None = None
    ranks: Ranks = field(default_factory=Ranks)
    epoch: int = 0
    step: int = 0
    running: RunningMean = field(init=False)
    seconds: float = 0.0
    waited: float = 0.0
    best: list[float] = field(default_factory=list)
    stale: int = 0
    decays: int = 0
    scaler: GradScaler = field(default_factory=lambda: GradScaler("cpu", enabled=False))
    keeps_gradients: bool = False
    weights_sha256: str | None = None
    code: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.running = RunningMean(self.ranks)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step, of layers without a factor on it."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group.get("lr_scale", 1.0))

    @property
    def evaluated(self) -> nn.Module:
        """The network to validate and predict with: that of the mean weights where there is one."""
        return self.network if self.average is None else self.average.module

    def finish_epoch(self, score: list[float], plateau_epochs: int | None = None) -> bool:
        """Begin the next epoch; say whether the one that ended is the best so far.

        Args:
            score: of the epoch that ended, larger is better.
            plateau_epochs: without a better one, after each of which the learning rate decays; None for never.
        """
        self.epoch += 1
        self.step, self.running, self.seconds, self.waited = 0, RunningMean(self.ranks), 0.0, 0.0
        is_best = not self.best or score > self.best
        self.stale = 0 if is_best else self.stale + 1
        if is_best:
            self.best = score
        if plateau_epochs and self.stale and self.stale % plateau_epochs == 0:
            self.decays += 1
        return is_best

    @property
    def is_finite(self) -> bool:
        """Whether all weights that training changes are numbers."""
        trained = (weights for weights in self.network.parameters() if weights.requires_grad)
        return all(bool(weights.isfinite().all()) for weights in chain(trained, self.network.buffers()))

    def to_content(self, options: TrainOptions, cache: TensorCache) -> dict[str, Any]:
        """Return a checkpoint's content: tensors and plain values."""
        return self._described(options, cache) | self._trained()

    def _described(self, options: TrainOptions, cache: TensorCache) -> dict[str, Any]:
        """Return what training does not change."""
        return {
            "format": FORMAT,
            "model": {
                "name": options.model,
                "classes": len(cache.class_ids),
                "size": list(size) if isinstance(size := size_of_rows(options, cache), tuple) else size,
            },
            "recipe": cache.recipe.to_dict(),
            "features": None if cache.features is None else cache.features.to_dict(),
            "class_ids": cache.class_ids,
            "class_names": cache.class_names,
            "fingerprint": cache.fingerprint,
            "options": options.to_dict(),
            "weights_sha256": self.weights_sha256,
            "code": self.code,
        }

    def _trained(self) -> dict[str, Any]:
        """Return what training changes."""
        return {
            "weights": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.module.state_dict(),
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
            "scaler": self.scaler.state_dict(),
            "gradients": self._gradients() if self.keeps_gradients else {},
            "epoch": self.epoch,
            "step": self.step,
            "running": self.running.to_dict(),
            "seconds": self.seconds,
            "waited": self.waited,
            "best": self.best,
            "stale": self.stale,
            "decays": self.decays,
            "rng": torch.get_rng_state(),
            "rng_cuda": [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else [],
        }

    def snapshot(self, options: TrainOptions, cache: TensorCache) -> dict[str, Any]:
        """Return the content of a checkpoint that stays as it is now: what training changes is copied to the CPU.

        Layers that stay frozen are not copied, so that many last layers of one body take little memory.
        """
        parameters = self.network.parameters() if options.thaw_epoch is None else ()
        frozen = {weights.data_ptr() for weights in parameters if not weights.requires_grad}
        trained: dict[str, Any] = _copied(self._trained(), frozen)
        return self._described(options, cache) | trained

    def _gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}

    def restore(self, content: dict[str, Any]) -> None:
        """Take everything from a checkpoint whose content was checked, the global random generators too.

        Raises:
            RuntimeError, ValueError: it is of another network or optimizer.
        """
        check_optimizer(content["optimizer"], self.optimizer)
        self.network.load_state_dict(content["weights"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(content["average"])
            self.average.n_averaged.fill_(content["averaged"])
        self.scaler.load_state_dict(content["scaler"])
        for name, parameter in self.network.named_parameters():
            if name in content["gradients"]:
                parameter.grad = content["gradients"][name].to(parameter.device)
        self.epoch, self.step = content["epoch"], content["step"]
        self.running = RunningMean.from_dict(content["running"], self.ranks)
        self.seconds, self.waited = content["seconds"], content["waited"]
        self.weights_sha256 = content.get("weights_sha256")
        self.best, self.stale, self.decays = content["best"], content["stale"], content["decays"]
        torch.set_rng_state(content["rng"])
        if content["rng_cuda"] and self.device.type == "cuda":
            torch.cuda.set_rng_state(content["rng_cuda"][0], self.device)


def _copied(value: Any, fixed: Container[int]) -> Any:
    """Return a part of a checkpoint with copies of its tensors, but for those at the addresses `fixed`."""
    if isinstance(value, Tensor):
        return value if value.data_ptr() in fixed else value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        changed = copy.copy(value)  # of the same kind, with what `load_state_dict` knows of it
        changed.update({key: _copied(one, fixed) for key, one in value.items()})
        return changed
    return [_copied(one, fixed) for one in value] if isinstance(value, list) else value


def check_fits(content: dict[str, Any], cache: TensorCache, path: str) -> None:
    """Refuse a checkpoint that is of another format, or was trained on other classes or images prepared otherwise.

    Raises:
        CheckpointError: shows both.
    """
    what, advice = "the checkpoint does not fit", "Use the cache that it was trained on"
    check_content(content, path)
    if content["class_ids"] != cache.class_ids:
        trained, there = (", ".join(map(str, ids)) for ids in (content["class_ids"], cache.class_ids))
        raise CheckpointError(what, path, f"it was trained on classes {trained}; the cache has {there}", advice)
    if different := different_features(features_of(content), cache):
        raise CheckpointError(what, path, f"it was trained on {different}", advice)
    differences = same_images(Recipe.from_dict(content["recipe"])).differences(same_images(cache.recipe))
    if differences:
        reason = f"the cache's images are prepared differently: {', '.join(differences)}"
        raise CheckpointError(what, path, reason, advice)
