"""Prepare a run: caches, device, network and batches, checked against each other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from modelnet.data.augmentation import build_augmentation, build_mixing
from modelnet.data.batches import Batches
from modelnet.data.caches import class_counts, match_labels, open_to_train, pair_warnings, shard_warnings
from modelnet.data.preload import Preloaded, check_room
from modelnet.data.split import Split, split_by_content, split_counts, split_warnings
from modelnet.eval.loss import build_loss
from modelnet.nets.freeze import freeze_layers, is_frozen, thaw_layers
from modelnet.nets.head import draw_head
from modelnet.nets.init import initialize
from modelnet.nets.own import OwnCode, check_network
from modelnet.nets.preparation import preparation_hint, pretrained_hint
from modelnet.nets.registry import build_network
from modelnet.nets.weights import load_weights
from modelnet.options import OPTIONS, TrainOptions
from modelnet.options.code import parse_arguments
from modelnet.progress import Progress
from modelnet.runs.code import digests_of, kept_code, named_code, names_of
from modelnet.runs.folder import RunFolder
from modelnet.runtime.compile import compile_network
from modelnet.runtime.device import (
    CONTIGUOUS,
    autocast,
    choose_device,
    choose_memory_format,
    memory_errors,
    place,
    precision_warning,
)
from modelnet.runtime.ranks import Ranks
from modelnet.training.accumulation import Accumulation
from modelnet.training.checks import check_content, check_smallest_batch, frozen_note, idle_when_fine_tuning, unreached
from modelnet.training.optimizer import add_thawed, build_optimizer, running_mean_of_weights
from modelnet.training.schedule import Schedule
from modelnet.training.state import State, shape_of_rows, size_of_rows
from modelnet.training.tensorboard import require_tensorboard
from pipeline import TensorCache
from pipeline.errors import CacheStale, OptionsError
from pipeline.text import show_bytes


class Opened(NamedTuple):
    """What networks that train on the same images share: the open caches, as attributes of `Setup`.

    Attributes:
        preloaded: training and validation images in the memory of the device, or None.
    """

    cache: TensorCache
    split: Split | None
    val: TensorCache | None
    label_map: Tensor
    preloaded: list[Preloaded | None]


class Setup:
    """The objects that a run needs in this process. Making them writes nothing; impossible options fail here.

    Args:
        options: of the run; the attribute also has the memory format that was chosen.
        progress: hears of what was chosen for the user.
        run: an earlier run's folder, beside which caches are looked for too.
        ranks: the processes that train together, among which batches are divided.
        opened: of another network that trains on the same images.
        network: to train, where it was given from Python; None makes the one that the options name.

    Attributes:
        code: files of a person's own, by option.
        cache, batches: what is trained on.
        split: the rows of `cache` to train and to validate on, where it serves for both; else None.
        val, val_batches: what is validated on, or None.
        label_map: (C of `val`,) int64, the network's label by that of `val`.
        device: of the network.
        state: network and optimizer at their start.
        forward: (images (B, 3, H, W)) -> logits (B, C), the network as it is called in training.
        autocast: the context that the network computes in.
        class_counts: (C,) int64, training images of each class.
        loss_of: the loss of a batch.
        accumulation: which batches begin and end a step.
        schedule: the learning rate of every step.
    """

    def __init__(
        self,
        options: TrainOptions,
        progress: Progress,
        run: Path | None = None,
        ranks: Ranks | None = None,
        opened: Opened | None = None,
        network: nn.Module | None = None,
    ) -> None:
        self.options = options
        if options.tensorboard:
            require_tensorboard()
        self.ranks = ranks = ranks or Ranks()
        self._check_batch_size()
        self.code = self._read_code(run)
        self.cache = self._open_cache(run) if opened is None else opened.cache
        same_caches(ranks, self.cache)  # before a network is made for its classes
        check_content(self.cache, options)
        self.device = choose_device(options.device, ranks)
        memory_format = options.memory_format or choose_memory_format(options.model, self.device, options.precision)
        self.options = options = replace(options, memory_format=memory_format)
        self.autocast = autocast(options.precision, self.device)
        if warning := precision_warning(options.precision, self.device):
            progress.warn(warning)
        self.state = initial_state(self.cache, options, self.device, ranks, network, self.code.get("model"))
        self.state.code = digests_of(self.code)
        if options.weights is not None and run is None:  # a resumed run has its own
            self._load_weights(options.weights, progress)
        elif run is None and (hint := pretrained_hint(options.model)):
            progress.note(f"hint: {hint}")
        if options.weights is None and options.init == "zeros" and options.seed != OPTIONS["seed"].default:
            progress.warn(f"--seed {options.seed} changes no weight: --init zeros sets all")
        if is_frozen(self.state.network) and options.thaw_epoch != 1:
            progress.note(frozen_note(self.state.network))
        if options.freeze is not None and options.weights is None and run is None:
            progress.warn("--freeze keeps layers that were drawn at random: give --weights")
        if opened is not None:
            self.split = opened.split
        else:
            self.split = None if options.val_fraction is None else split_by_content(self.cache, options.val_fraction)
        self.batches = Batches(
            self.cache,
            self.device,
            options.batch_size,
            options.shuffle,
            options.data_seed,
            options.workers,
            options.drop_last,
            None if self.split is None else self.split.train,
            build_augmentation(options, self.cache.recipe, self.code.get("augment_code")),
            build_mixing(options),
            ranks,
            options.crop,
        )
        if len(self.batches) == 0:
            reason = f"{len(self.batches.subset)} images are less than one batch of {options.batch_size}"
            raise OptionsError("nothing left to train on", options.cache, reason, "Leave out --drop-last")
        if "augment_code" in self.code:
            self.cache.read(
                self.batches.subset[:1], self.batches.augment
            )  # a mistake in it shows before an epoch begins
        check_smallest_batch(self.state.network, self.batches.plan, shape_of_rows(options, self.cache), options.model)
        for warning in unreached(options) + idle_when_fine_tuning(self.state.network, options):
            progress.warn(warning)
        if options.lr is None:
            progress.note(f"learning rate {options.learning_rate:g} ({options.learning_rate_reason})")
        self.class_counts = class_counts(self.cache, self.batches.subset)
        if options.mixtures:
            progress.note("training images are mixed: the class with the larger share counts as right")
        self.loss_of = build_loss(options, self.class_counts, self.device)
        self.accumulation = Accumulation(options, self.batches.plan, self.device)
        self.schedule = Schedule(options, self.accumulation.steps)
        self.state.keeps_gradients = self.accumulation.keeps_gradients
        self.forward = self._build_forward()
        self.label_map = torch.empty(0, dtype=torch.int64) if opened is None else opened.label_map
        self.val = self._open_val(run, progress) if opened is None else opened.val
        self.val_batches = None
        if self.val is not None:
            rows = None if self.split is None else self.split.val
            self.val_batches = Batches(
                self.val,
                self.device,
                options.batch_size,
                workers=options.workers,
                rows=rows,
                ranks=ranks,
                crop_size=options.crop,
            )
            same_caches(ranks, self.val)
        if options.preload:
            self._preload(progress, opened)

    def _open_cache(self, run: Path | None) -> TensorCache:
        path = self.options.cache
        return open_to_train(path if run is None else RunFolder(run).cache_path("cache", path))

    @property
    def opened(self) -> Opened:
        """What other networks can share that train on the same images."""
        preloaded = [None if part is None else part.preloaded for part in (self.batches, self.val_batches)]
        return Opened(self.cache, self.split, self.val, self.label_map, preloaded)

    def _read_code(self, run: Path | None) -> dict[str, OwnCode]:
        names = names_of(self.options)
        if run is None:
            return named_code(names)
        return kept_code(RunFolder(run), names, RunFolder(run).read_config().get("code", {}))

    def _check_batch_size(self) -> None:
        """Refuse batches with fewer images than ranks."""
        size, ranks = self.options.batch_size, self.ranks.size
        if size < ranks:
            reason = f"a batch of {size} images cannot be divided among {ranks} ranks"
            raise OptionsError("too many ranks", None, reason, f"Give --batch-size {ranks} or more: it is that of all")

    def _build_forward(self) -> Callable[[Tensor], Tensor]:
        """Return the callable for training: the network, compiled with --compile, or wrapped for several ranks."""
        network, batches, options = self.state.network, self.batches, self.options
        if not options.compile:
            return self.ranks.replicate(network, self.device, shape_of_rows(options, self.cache))
        if self.ranks.size > 1:
            reason = f"{self.ranks.size} ranks train together"
            raise OptionsError("--compile is for one process", None, reason, "Leave it out")
        whole = batches.plan.size(0)
        graphs = self.device.type == "cuda" and not self.accumulation.keeps_gradients
        with memory_errors(self.device):
            return compile_network(network, (whole, *shape_of_rows(options, self.cache)), self.autocast, graphs)

    def thaws(self, epoch: int) -> bool:
        """Say whether frozen layers begin to train in an epoch, counted from 0."""
        first = self.options.thaw_epoch
        return first is not None and epoch + 1 >= first and is_frozen(self.state.network)

    def thaw(self) -> None:
        """Let frozen layers train from now on."""
        self.forward = self.state.network
        thaw_layers(self.state.network, self.options.norm_stats)
        add_thawed(self.state.optimizer, self.state.network, self.options)
        self.forward = self._build_forward()

    def _preload(self, progress: Progress, opened: Opened | None) -> None:
        if opened is not None:
            for part, preloaded in zip((self.batches, self.val_batches), opened.preloaded, strict=True):
                if part is not None:
                    part.preloaded = preloaded
            return
        parts = [part for part in (self.batches, self.val_batches) if part is not None]
        needed = sum(part.stored_bytes for part in parts)
        check_room(needed, self.device)
        with memory_errors(self.device):
            for part in parts:
                part.preload()
        images = sum(len(part.subset) for part in parts)
        progress.note(f"{images} images, {show_bytes(needed)}, are in the memory of {self.device}")

    def _load_weights(self, path: Path, progress: Progress) -> None:
        """Start from the weights of a file; layers that it lacks are drawn from the seed."""
        options, network = self.options, self.state.network
        loaded = load_weights(network, path)
        self.state.weights_sha256 = loaded.sha256
        if loaded.head:
            draw_head(network, loaded.head, options.seed, options.init)
        for option in () if loaded.head or loaded.new else ("init", "seed"):
            if getattr(options, option) != OPTIONS[option].default:
                progress.warn(f"--{option} {getattr(options, option)} changes no weight: --weights sets all")
        for line in loaded.notes:
            progress.note(line)
        for line in loaded.warnings:
            progress.warn(line)
        if hint := preparation_hint(options.model, self.cache.recipe, options.crop):
            progress.note(f"hint: {hint}")

    def _open_val(self, run: Path | None, progress: Progress) -> TensorCache | None:
        """Open the cache to validate on; warn where it does not match."""
        val, warnings = None, shard_warnings(self.cache)
        if self.options.val is not None:
            val = TensorCache(self.options.val if run is None else RunFolder(run).cache_path("val", self.options.val))
            self.label_map = self._match(val)
            warnings += shard_warnings(val) + pair_warnings(self.cache, val)
        elif self.split is not None:
            val = self.cache
            self.label_map = self._match(val)
            progress.note(f"{len(self.split.val)} of {val.num_images} images are kept for validation, by their content")
            progress.note(f"kept of each class: {split_counts(val, self.split)}")
            warnings += split_warnings(val, self.split)
        for warning in warnings:
            progress.warn(warning)
        return val

    def _match(self, val: TensorCache) -> Tensor:
        return match_labels(self.cache.class_ids, self.cache.recipe, val, self.cache.features)


def same_caches(ranks: Ranks, cache: TensorCache) -> None:
    """Refuse ranks that read different caches, as those of two machines may be.

    Raises:
        CacheStale: a rank has another cache than rank 0; raised on all ranks.
    """
    found = ranks.gather_objects(cache.fingerprint)
    others = [rank for rank, fingerprint in enumerate(found) if fingerprint != found[0]]
    if others:
        reason = f"rank {others[0]} reads another cache there than rank 0"
        raise CacheStale("the ranks read different caches", cache.path, reason, "Give all the same file")


def initial_state(
    cache: TensorCache,
    options: TrainOptions,
    device: torch.device,
    ranks: Ranks | None = None,
    network: nn.Module | None = None,
    code: OwnCode | None = None,
) -> State:
    """Make the network, with the weights that follow from the seed, and its optimizer.

    Args:
        cache, options, device, ranks: of the run.
        network: to train; None makes one.
        code: of the network, where it is a person's own.
    """
    torch.manual_seed(options.seed)
    classes, size = len(cache.class_ids), size_of_rows(options, cache)
    if network is None:
        network = build_network(options.model, classes, size, code, parse_arguments(options.model_arg))
    else:
        check_network(network, classes, (size, size) if isinstance(size, int) else size)
    initialize(network, options.init)
    freeze_layers(network, options.freeze, options.norm_stats)
    place(network, device, options.memory_format or CONTIGUOUS)
    average = None if options.model_ema is None else running_mean_of_weights(network, options.model_ema)
    scaler = GradScaler(device.type, enabled=options.scales_gradients)
    return State(network, build_optimizer(network, options), average, ranks or Ranks(), scaler=scaler)
