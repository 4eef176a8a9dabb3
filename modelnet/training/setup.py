"""Prepare a run: caches, device, network and batches, checked against each other."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from modelnet.data.augmentation import training_batches
from modelnet.data.batches import Batches, preload
from modelnet.data.caches import (
    class_counts,
    home_of,
    match_labels,
    open_to_train,
    pair_warnings,
    same_caches,
    shard_warnings,
)
from modelnet.data.relabel import LabelTable, RelabelledCache, label_notes, labelled_rows, relabel
from modelnet.data.split import split_counts, split_images, split_note, split_warnings
from modelnet.eval.loss import build_loss
from modelnet.nets.freeze import is_frozen, thaw_layers
from modelnet.nets.own import OwnCode
from modelnet.nets.preparation import pretrained_hint
from modelnet.nets.registry import LINEAR
from modelnet.options import OPTIONS, TrainOptions
from modelnet.progress import Progress
from modelnet.runs.code import digests_of, kept_code, named_code, names_of
from modelnet.runs.folder import RunFolder
from modelnet.runs.reader import folds_of
from modelnet.runtime.compile import compile_network
from modelnet.runtime.device import (
    autocast,
    choose_device,
    choose_memory_format,
    cpu_threads,
    images_at_once,
    memory_errors,
    precision_warning,
)
from modelnet.runtime.interrupt import Stop
from modelnet.runtime.ranks import Ranks
from modelnet.training.accumulation import Accumulation
from modelnet.training.checks import (
    check_batch_size,
    check_input,
    check_smallest_batch,
    frozen_note,
    idle_when_fine_tuning,
    unreached,
)
from modelnet.training.frozen_body import CachedBody, cached_body, trains_head_alone
from modelnet.training.optimizer import add_thawed
from modelnet.training.schedule import Schedule
from modelnet.training.start import Opened, Shared, initial_state, take_weights
from modelnet.training.state import shape_of_rows
from modelnet.training.tensorboard import require_tensorboard
from pipeline import TensorCache
from pipeline.errors import OptionsError, PipelineError
from pipeline.text import show_path


class Setup:
    """The objects that a run needs in this process. Making them writes nothing; impossible options fail here.

    Before the first step, `prepare` is called once.

    Args:
        options: of the run; the attribute also has the memory format that was chosen.
        progress: hears of what was chosen for the user.
        run: an earlier run's folder, beside which caches are looked for too.
        ranks: the processes that train together, among which batches are divided.
        opened: of another network that trains on the same images.
        network: to train, where it was given from Python; None makes the one that the options name.

    Attributes:
        code: files of a person's own, by option.
        labels: the table of other labels, or None.
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
        body: the cached features that the last layer is trained on alone; None where the whole network is trained.
        head_threads: PyTorch's threads for that layer alone; None for the choice of a rule.
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
        check_batch_size(options.batch_size, ranks)
        self.code = self._read_code(run)
        self.labels = LabelTable.of(options, None if run is None else RunFolder(run).labels_path(options))
        self.cache = self._open_cache(run, progress) if opened is None else opened.cache
        same_caches(ranks, self.cache)  # before a network is made for its classes
        check_input(self.cache, options)
        self.device = choose_device(options.device, ranks)
        memory_format = options.memory_format or choose_memory_format(options.model, self.device, options.precision)
        self.options = options = replace(options, memory_format=memory_format)
        self.autocast = autocast(options.precision, self.device)
        if warning := precision_warning(options.precision, self.device):
            progress.warn(warning)
        self.body: CachedBody | None = None
        self.head_threads = options.threads
        self._opened = opened
        self._drawn: tuple[str, ...] = ()
        shared = None if opened is None else opened.shared
        if shared is not None:
            self.state = shared.start(options, self.device)
        else:
            self.state = initial_state(self.cache, options, self.device, ranks, network, self.code.get("model"))
        self.state.code = digests_of(self.code)
        if options.weights is not None and run is None and shared is None:
            self._drawn = take_weights(self.state, options, self.cache, progress)  # a resumed run has its own
        elif options.weights is None and run is None and (hint := pretrained_hint(options.model)):
            progress.note(f"hint: {hint}")
        if options.weights is None and options.init == "zeros" and options.seed != OPTIONS["seed"].default:
            progress.warn(f"--seed {options.seed} changes no weight: --init zeros sets all")
        if is_frozen(self.state.network) and options.thaw_epoch != 1:
            progress.note(frozen_note(self.state.network, options.freeze))
        if options.freeze is not None and options.weights is None and run is None:
            progress.warn("--freeze keeps layers that were drawn at random: give --weights")
        if opened is not None:
            self.split = opened.split
        else:
            self.split = split_images(self.cache, options, folds_of(options, run))
        self.batches = self._batches(self.cache)
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
            self.val_batches = self._val_batches(self.val)
            same_caches(ranks, self.val)
        if options.preload and not self.may_cache_body:  # which has features instead, as a rule
            self._preload(progress)

    def _batches(self, cache: TensorCache) -> Batches:
        rows = labelled_rows(cache) if self.split is None else self.split.train
        return training_batches(self.options, cache, self.device, rows, self.code.get("augment_code"), self.ranks)

    def _val_batches(self, cache: TensorCache) -> Batches:
        options = self.options
        return Batches(
            cache,
            self.device,
            options.batch_size,
            workers=options.workers,
            rows=labelled_rows(cache) if self.split is None else self.split.val,
            ranks=self.ranks,
            crop_size=options.crop,
        )

    @property
    def may_cache_body(self) -> bool:
        """Whether one process trains the last layer alone, on images that are the same in every epoch."""
        return trains_head_alone(self.options) and self.ranks.size == 1

    def prepare(
        self,
        progress: Progress,
        stop: Stop | None = None,
        run: Path | None = None,
        *,
        on_features: bool = True,
        computes: bool = True,
    ) -> None:
        """Take what the first step needs: features in place of images if the last layer alone is trained, and preload.

        The losses are those of the whole network on images, up to rounding.

        Args:
            progress: hears where the features are, or why there are none.
            stop: when it is set, no more features are computed.
            run: the folder of the run, in whose home data/features is; None for the one here.
            on_features: False for a run that has begun on images, and goes on so.
            computes: False takes features only if they are there.

        Raises:
            NotComputed: features are not there, because `stop` was set or `computes` is False.
            DeviceError: images or features do not fit into the memory of the device.
        """
        if self.may_cache_body and on_features:
            try:
                body = self._cached_body(progress, stop or Stop(), Path() if run is None else home_of(run), computes)
            except PipelineError as error:
                error.advice = ""  # it is that of build-features, which has other options
                rounding = "; the losses will differ by rounding" if self.state.epoch + self.state.step else ""
                progress.warn(f"features are not cached, and the whole network runs in each epoch{rounding}: {error}")
            else:
                if body is not None:
                    self._train_head(body)
        if self.options.preload and self.batches.preloaded is None:
            self._preload(progress)

    def _cached_body(self, progress: Progress, stop: Stop, home: Path, computes: bool) -> CachedBody | None:
        if self._opened is not None and self._opened.body is not None:
            return self._opened.body
        network, sha256, images = self.state.network, self.state.weights_sha256, (self.cache, self.val)
        return cached_body(network, self.options, images, sha256, self.autocast, progress, stop, home, computes)

    def _train_head(self, body: CachedBody) -> None:
        """Train the last layer alone from now on, on cached features."""
        self.body = body
        self.batches = self._batches(body.train)
        self.val_batches = None if body.val is None else self._val_batches(body.val)
        self.forward = self._build_forward()

    def trained_part(self, network: nn.Module) -> nn.Module:
        """Return what is computed in a step and in validation: the network, or its last layer alone."""
        return network if self.body is None else network.get_submodule(self.body.head)

    @property
    def at_once(self) -> int | None:
        """How many images are evaluated together, as `images_at_once` has it."""
        model = self.options.model if self.body is None else LINEAR
        return images_at_once(model, self.device, self.options.precision)

    def own_threads(self, networks: int = 1) -> AbstractContextManager[int | None]:
        """Set as many threads as a last layer alone gets; of a whole network they are set already."""
        if self.body is None:
            return nullcontext()
        return cpu_threads(self.head_threads, LINEAR, self.options.batch_size, networks=networks)

    def _open_cache(self, run: Path | None, progress: Progress) -> TensorCache:
        path = self.options.cache
        cache = open_to_train(path if run is None else RunFolder(run).cache_path("cache", path), self.labels)
        if self.labels is not None and isinstance(cache, RelabelledCache):
            progress.note(f"{cache.summary}, from {show_path(self.labels.path)}")
        return cache

    @property
    def opened(self) -> Opened:
        """What other networks can share that train on the same images."""
        preloaded = [None if part is None else part.preloaded for part in (self.batches, self.val_batches)]
        shared = None
        if trains_head_alone(self.options):
            shared = Shared(self.state.network, self._drawn, self.state.weights_sha256)
        if shared is not None and self._opened is not None:
            shared = self._opened.shared or shared
        return Opened(self.cache, self.split, self.val, self.label_map, preloaded, shared, self.body)

    def _read_code(self, run: Path | None) -> dict[str, OwnCode]:
        names = names_of(self.options)
        if run is None:
            return named_code(names)
        return kept_code(RunFolder(run), names, RunFolder(run).read_config().get("code", {}))

    def _build_forward(self) -> Callable[[Tensor], Tensor]:
        """Return the callable for training: the network, compiled with --compile, or wrapped for several ranks."""
        network, batches, options = self.state.network, self.batches, self.options
        if self.body is not None:
            return self.trained_part(network)
        if not options.compile:
            may_thaw = options.thaw_epoch is not None and options.norm_stats != "keep"
            return self.ranks.replicate(network, self.device, shape_of_rows(options, self.cache), may_thaw)
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

    def _preload(self, progress: Progress) -> None:
        """Copy all images, or their features, to the device.

        Raises:
            DeviceError: they do not fit.
            OptionsError: images are changed one by one, which the device does not do.
        """
        if self._opened is not None and self._opened.body is self.body and self._opened.preloaded[0] is not None:
            for part, preloaded in zip((self.batches, self.val_batches), self._opened.preloaded, strict=True):
                if part is not None:
                    part.preloaded = preloaded
            return
        progress.note(preload([part for part in (self.batches, self.val_batches) if part is not None]))

    def _open_val(self, run: Path | None, progress: Progress) -> TensorCache | None:
        """Open the cache to validate on; warn where it does not match."""
        val, warnings = None, shard_warnings(self.cache)
        if self.options.val is not None:
            path = self.options.val if run is None else RunFolder(run).cache_path("val", self.options.val)
            val = relabel(TensorCache(path), self.labels, needed=False)
            self.label_map = self._match(val)
            warnings += shard_warnings(val) + pair_warnings(self.cache, val)
        elif self.split is not None:
            val = self.cache if len(self.split.val) else None
            progress.note(split_note(self.cache, self.split, self.options))
            if val is not None:
                self.label_map = self._match(val)
                progress.note(f"kept of each class: {split_counts(val, self.split)}")
            warnings += split_warnings(self.cache, self.split, self.options)
        for warning in label_notes(self.cache, None if val is self.cache else val) + warnings:
            progress.warn(warning)
        return val

    def _match(self, val: TensorCache) -> Tensor:
        return match_labels(self.cache.class_ids, self.cache.recipe, val, self.cache.features)
