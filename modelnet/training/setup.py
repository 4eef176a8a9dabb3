"""Prepare a run: caches, device, network and batches, checked against each other."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from modelnet.data.batches import Batches
from modelnet.data.caches import class_counts, match_labels, open_to_train, pair_warnings, shard_warnings
from modelnet.data.mixup import Mixing
from modelnet.data.preload import check_room
from modelnet.data.split import split_by_content, split_counts, split_warnings
from modelnet.eval.loss import build_loss
from modelnet.nets.head import draw_head
from modelnet.nets.init import initialize
from modelnet.nets.modelnet import SMALLEST
from modelnet.nets.preparation import preparation_hint, pretrained_hint
from modelnet.nets.registry import LINEAR, MODELNET, build_network
from modelnet.nets.weights import load_weights
from modelnet.options import OPTIONS, TrainOptions
from modelnet.progress import Progress
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
from modelnet.training.optimizer import build_optimizer, running_mean_of_weights
from modelnet.training.schedule import Schedule
from modelnet.training.state import State, shape_of_rows, size_of_rows
from modelnet.training.tensorboard import require_tensorboard
from pipeline import TensorCache
from pipeline.errors import CacheStale, OptionsError
from pipeline.load.augment import KINDS, Augmentation
from pipeline.load.batch_plan import BatchPlan
from pipeline.recipe import Recipe, show_size
from pipeline.text import show_bytes


class Setup:
    """The objects that a run needs in this process. Making them writes nothing; impossible options fail here.

    Args:
        options: of the run; the attribute also has the memory format that was chosen.
        progress: hears of what was chosen for the user.
        run: an earlier run's folder, beside which caches are looked for too.
        ranks: the processes that train together, among which batches are divided.

    Attributes:
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
        self, options: TrainOptions, progress: Progress, run: Path | None = None, ranks: Ranks | None = None
    ) -> None:
        self.options = options
        if options.tensorboard:
            require_tensorboard()
        self.ranks = ranks = ranks or Ranks()
        self._check_batch_size()
        self.cache = open_to_train(options.cache if run is None else RunFolder(run).cache_path("cache", options.cache))
        same_caches(ranks, self.cache)  # before a network is made for its classes
        check_content(self.cache, options)
        self.device = choose_device(options.device, ranks)
        memory_format = options.memory_format or choose_memory_format(options.model, self.device, options.precision)
        self.options = options = replace(options, memory_format=memory_format)
        self.autocast = autocast(options.precision, self.device)
        if warning := precision_warning(options.precision, self.device):
            progress.warn(warning)
        self.state = initial_state(self.cache, options, self.device, ranks)
        if options.weights is not None and run is None:  # a resumed run has its own
            self._load_weights(options.weights, progress)
        elif run is None and (hint := pretrained_hint(options.model)):
            progress.note(f"hint: {hint}")
        if options.weights is None and options.init == "zeros" and options.seed != OPTIONS["seed"].default:
            progress.warn(f"--seed {options.seed} changes no weight: --init zeros sets all")
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
            build_augmentation(options, self.cache.recipe),
            build_mixing(options),
            ranks,
            options.crop,
        )
        if len(self.batches) == 0:
            reason = f"{len(self.batches.subset)} images are less than one batch of {options.batch_size}"
            raise OptionsError("nothing left to train on", options.cache, reason, "Leave out --drop-last")
        check_smallest_batch(self.state.network, self.batches.plan, shape_of_rows(options, self.cache), options.model)
        for warning in unreached(options):
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
        self.val = self._open_val(run, progress)
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
            self._preload(progress)

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

    def _preload(self, progress: Progress) -> None:
        parts = [part for part in (self.batches, self.val_batches) if part is not None]
        needed = sum(part.stored_bytes for part in parts)
        check_room(needed, self.device)
        with memory_errors(self.device):
            for part in parts:
                part.preload()
        images = sum(len(part.subset) for part in parts)
        progress.note(f"{images} images, {show_bytes(needed)}, are in the memory of {self.device}")

    def beside(self, options: TrainOptions, run: Path | None = None) -> "Setup":
        """Return the setup of another network that trains on the same batches.

        Args:
            options: of that one, which give the same batches.
            run: its folder, where it goes on.
        """
        own = copy.copy(self)
        own.options = options = replace(options, memory_format=self.options.memory_format)
        own.state = initial_state(self.cache, options, self.device)
        if options.weights is not None and run is None:
            own._load_weights(options.weights, Progress())
        own.state.keeps_gradients = self.accumulation.keeps_gradients
        own.loss_of = build_loss(options, self.class_counts, self.device)
        own.schedule = Schedule(options, self.accumulation.steps)
        own.forward = own.state.network
        return own

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


def check_content(cache: TensorCache, options: TrainOptions) -> None:
    """Refuse a network that takes images where a cache holds features, or the other way round.

    Raises:
        OptionsError: says what to give instead.
    """
    takes_features = options.model == LINEAR
    if cache.features is None and takes_features:
        advice = "Make one: build-features CACHE --model resnet18 --weights FILE"
        raise OptionsError("--model linear takes features", cache.path, "it holds images", advice)
    if cache.features is not None and not takes_features:
        reason = f"it holds features, which {options.model} does not take"
        raise OptionsError("not a cache of images", cache.path, reason, "Give --model linear")
    changes = "--augment" if options.augment else "--crop-size" if options.crop_size else None
    if cache.features is not None and changes:
        raise OptionsError(f"{changes} changes images", cache.path, "it holds features", "Leave it out")
    if cache.features is None and options.crop is not None:
        check_crop_size(options.crop, cache, options)


def check_crop_size(crop: tuple[int, int], cache: TensorCache, options: TrainOptions) -> None:
    """Refuse a crop that is larger than the images, or too small for the network."""
    (height, width), typed = cache.recipe.size, f"--crop-size {show_size(crop)}"
    if crop[0] > height or crop[1] > width:
        reason = f"its images have {height} × {width} pixels"
        raise OptionsError(f"{typed} is too large", cache.path, reason, "Give a smaller one")
    if options.model == MODELNET and min(crop) < SMALLEST <= min(height, width):
        reason = f"ModelNet needs {SMALLEST} × {SMALLEST} pixels or more"
        advice = f"Give {SMALLEST} to {show_size(cache.recipe.size)}, or leave it out"
        raise OptionsError(f"{typed} is too small", cache.path, reason, advice)


def unreached(options: TrainOptions) -> list[str]:
    """Name the options that wait for more epochs than the run has."""
    effects = {"patience": "ends nothing", "warmup_epochs": "ends after the run: the rate never reaches --lr"}
    if waits := {"step": "decay_epochs", "plateau": "plateau_epochs"}.get(options.sched):
        effects[waits] = f"never lets --sched {options.sched} lower the rate"
    return [
        f"{OPTIONS[name].flag} {epochs} {effect}: there are {options.epochs} epochs"
        for name, effect in effects.items()
        if (epochs := getattr(options, name)) is not None and epochs >= options.epochs + (name == "warmup_epochs")
    ]


def check_smallest_batch(network: nn.Module, plan: BatchPlan, row_shape: tuple[int, ...], name: str) -> None:
    """Refuse a batch of one image where the network cannot train on one, before an epoch begins.

    BatchNorm has no variance of a single value. Ranks could train on it together, but not one process alone.

    Args:
        network: on its device, not yet divided among ranks; its statistics and the random states stay as they are.
        plan: of the batches.
        row_shape: of an image.
        name: of the network.

    Raises:
        OptionsError: says what to give instead.
    """
    if min(plan.size(0), plan.size(len(plan) - 1)) > 1:
        return
    before = copy.deepcopy(network.state_dict())
    device = next(network.parameters()).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), memory_errors(device):
            network.train()(torch.zeros(1, *row_shape, device=device))
    except ValueError as error:
        can_drop = len(plan) > 1 and plan.batch_size > 1
        advice = "Give --drop-last or another --batch-size" if can_drop else "Give a larger --batch-size"
        reason = f"{'the last batch of an epoch' if plan.batch_size > 1 else 'a batch'} has one image ({error})"
        raise OptionsError(f"{name} cannot train on a single image", None, reason, advice) from error
    network.load_state_dict(before)


def build_augmentation(options: TrainOptions, recipe: Recipe) -> Augmentation | None:
    """Return the augmentation of training images, or None."""
    if not set(options.augmentations) & set(KINDS) and options.crop is None:
        return None
    return Augmentation(
        options.augmentations, options.data_seed, recipe, options.crop_scale, options.color_jitter, options.crop
    )


def build_mixing(options: TrainOptions) -> Mixing | None:
    """Return with which other images training images are mixed, or None."""
    if not options.mixtures:
        return None
    return Mixing(options.mixtures, options.data_seed, options.mixup_alpha, options.cutmix_alpha)


def initial_state(cache: TensorCache, options: TrainOptions, device: torch.device, ranks: Ranks | None = None) -> State:
    """Make the network, with the weights that follow from the seed, and its optimizer."""
    torch.manual_seed(options.seed)
    network = build_network(options.model, len(cache.class_ids), size_of_rows(options, cache))
    initialize(network, options.init)
    place(network, device, options.memory_format or CONTIGUOUS)
    average = None if options.model_ema is None else running_mean_of_weights(network, options.model_ema)
    scaler = GradScaler(device.type, enabled=options.scales_gradients)
    return State(network, build_optimizer(network, options), average, ranks or Ranks(), scaler=scaler)
