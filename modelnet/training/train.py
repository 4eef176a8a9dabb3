"""Start a run in a new folder, or resume one from its last checkpoint."""

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from modelnet.data.caches import has_rows_of
from modelnet.data.split import split_rows
from modelnet.data.split_table import split_text
from modelnet.options import TrainOptions
from modelnet.options.code import GIVEN
from modelnet.progress import EpochRow, Progress, usual_progress
from modelnet.runs.code import allow, trust
from modelnet.runs.folder import RunFolder, UnwrittenRun
from modelnet.runs.history import parts_of, with_part
from modelnet.runs.labels import check_labels
from modelnet.runs.provenance import command, describe_run, result_of
from modelnet.runtime.device import CONTIGUOUS, cpu_threads
from modelnet.runtime.interrupt import Stop
from modelnet.runtime.ranks import Ranks
from modelnet.training.frozen_body import trains_head_alone
from modelnet.training.loop import TrainingLoop, TrainResult
from modelnet.training.schedule import Schedule
from modelnet.training.setup import Setup
from modelnet.training.state import check_fits
from pipeline.errors import CacheStale, CheckpointError, OptionsError
from pipeline.text import show_path


def train(
    options: TrainOptions,
    progress: Progress | None = None,
    stop: Stop | None = None,
    ranks: Ranks | None = None,
    network: nn.Module | None = None,
) -> TrainResult:
    """Train a network on a cache, in a new run folder.

    Args:
        options: the options of the run.
        progress: receives the events of training. None: a `ProgressBar` in a notebook, elsewhere nothing is shown.
        stop: when it is set, training ends after the current step and saves.
        ranks: the processes that train this network together; None for a single process.
        network: a module to train, from the weights that it has: (B, 3, H, W) float32 -> logits (B, C). The option
            `model` is not used then, and the run records that no command repeats it. None makes the network of `model`.

    Raises:
        CodeError: code of your own raises an error, or does not fit.
        SourceError: the cache has fewer than two classes.
        CacheError: a cache cannot be used, or the two caches do not fit together.
        DeviceError: the device does not exist, or its memory is too small.
        OptionsError: the images are too small, or nothing is left to train or to validate on.
        OutputError, StorageError, AccessDenied: the run folder cannot be created or written.
        TrainingDiverged: the loss became NaN or infinite; the last good checkpoint is kept.
        WorkerDied: a reading process was killed.
    """
    progress, ranks = progress or usual_progress(), ranks or Ranks()
    if network is not None:
        options = replace(options, model=f"{GIVEN}{type(network).__name__}", model_arg=())
    for warning in options.idle:
        progress.warn(warning)
    with ExitStack() as stack:
        threads = stack.enter_context(cpu_threads(options.threads, options.model, options.batch_size, ranks))
        setup = Setup(with_threads(options, threads, ranks), progress, ranks=ranks, network=network)
        run = stack.enter_context(_new_run(options.name, f"{setup.cache.path.stem}-{options.model_in_names}", ranks))
        stop = stop or Stop()
        training = start_run(run, setup, progress, stop)
        prepare(training, progress)
        return training.run_epochs([])


def with_threads(options: TrainOptions, threads: int, ranks: Ranks | None = None) -> TrainOptions:
    """Return options with the number of threads that a rule chose, for the command that repeats the run.

    Where the last layer may be trained alone, its body and it have a number each, which no one command could say.
    """
    alone = trains_head_alone(options) and (ranks is None or ranks.size == 1)
    return options if alone else replace(options, threads=threads)


def start_run(run: RunFolder, setup: Setup, progress: Progress, stop: Stop) -> TrainingLoop:
    """Return the training of a new run, saved as it is before the first step.

    Args:
        run: new; it gets its description.
        setup: of the run.
        progress, stop: as for `train`.
    """
    if run.is_written:
        if warning := trust(setup.code):
            progress.warn(warning)
        run.write_code({option: code.source for option, code in setup.code.items()})
        images = setup.batches, setup.val_batches
        run.write_config(describe_run(setup.options, *images, setup.device, setup.state.code, setup.labels))
    if setup.labels is not None:
        run.write_labels(setup.labels.content, setup.options)
    if setup.options.split is not None:
        run.write_split(setup.options.split.read_bytes())
    elif setup.split is not None:
        run.write_split(split_text(split_rows(setup.cache, setup.split)))
    training = TrainingLoop(setup, run, progress, stop)
    training.save()
    return training


def prepare(training: TrainingLoop, progress: Progress, networks: int = 1) -> None:
    """Prepare a run for its first step, and note whether it trains its last layer alone, on cached features.

    A run that has begun goes on as it began.

    Args:
        training: of the run, with the weights that it goes on with.
        progress: hears where the features are, or why there are none.
        networks: that are trained as one.
    """
    setup, run = training.setup, training.run
    config = run.read_config() if setup.may_cache_body else {}
    has_begun, has_features = training.state.epoch + training.state.step > 0, config.get("features") is not None
    if has_features:
        setup.head_threads = config.get("head_threads")
    training.prepare(progress, on_features=has_features or not has_begun)
    if setup.body is not None:
        features = setup.body.train.features
        assert features is not None
        with setup.own_threads(networks) as setup.head_threads:
            run.write_config(config | {"features": features.to_dict(), "head_threads": setup.head_threads})


def _new_run(name: str | None, counted: str, ranks: Ranks) -> RunFolder:
    """Make the run folder, as rank 0; the others hear where it is."""
    run = RunFolder.create(name, counted) if ranks.is_main else None
    path = ranks.first(None if run is None else run.path)
    return run or UnwrittenRun(path)


def resume(
    path: Path,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    ranks: Ranks | None = None,
    network: nn.Module | None = None,
    trust_code: bool = False,
    **changes: Any,
) -> TrainResult:
    """Continue a run from its last checkpoint; on a CPU, with the same bits as if it had never stopped.

    Args:
        path: the folder of the run.
        progress, stop, ranks: as for `train`. Another number of ranks than before changes rounding, and what dropout
            draws.
        network: the module, where the run began with one; it takes the weights of the checkpoint.
        trust_code: execute code that the run brings, although nobody has trained with it here.
        changes: new values of `epochs`, `device`, `workers`, `preload` or `compile`, and new paths of caches that were
            moved: `cache`, `val`. Nothing else may differ.

    Raises:
        RunError: there is no run at `path`. RunBusy: another process trains in it.
        CheckpointError: the last checkpoint is damaged or unsafe, or has other classes or another recipe.
        CacheStale: a cache was rebuilt since.
        OptionsError: `epochs` is less than the run already has.
        As `train` otherwise.
    """
    path, progress, ranks = Path(path), progress or usual_progress(), ranks or Ranks()
    with ExitStack() as stack:
        run = stack.enter_context(RunFolder.open_for_writing(path) if ranks.is_main else UnwrittenRun(path))
        options = ranks.first(resumed_options(run, changes, ranks) if ranks.is_main else None)
        if trust_code:
            allow(RunFolder(path).read_config().get("code", {}))
        threads = stack.enter_context(cpu_threads(options.threads, options.model, options.batch_size, ranks))
        options = replace(options, threads=threads)
        stop = stop or Stop()
        training = load_run(run, Setup(options, progress, path, ranks, network=network), progress, stop)
        prepare(training, progress)
        if training.resume_note:
            progress.note(training.resume_note)
        if training.state.epoch == options.epochs:
            progress.note(nothing_left(options.epochs))
        rows = ranks.first(kept_rows(training, progress) if ranks.is_main else None)
        return training.run_epochs(rows)


def kept_rows(training: TrainingLoop, progress: Progress) -> list[EpochRow]:
    """Return the finished epochs of a resumed run; report those missing in metrics.csv to `progress`."""
    rows, epochs = training.run.keep_metrics(training.state.epoch), training.state.epoch
    if len(rows) < epochs:
        table = show_path(training.run.path / "metrics.csv")
        progress.warn(f"{table} has lost {epochs - len(rows)} of {epochs} epochs: the curves will lack them")
    return rows


def nothing_left(epochs: int) -> str:
    """Return the note for a resumed run that has no epochs left."""
    return f"nothing is left to train: all {epochs} epochs are done. Give more --epochs to continue"


def load_run(run: RunFolder, setup: Setup, progress: Progress, stop: Stop) -> TrainingLoop:
    """Return the training of a run as its last checkpoint left it.

    Args:
        run: open for writing.
        setup: with the options that it goes on with.
        progress, stop: as for `train`.

    Raises:
        As `resume`.
    """
    path, options, ranks = run.path, setup.options, setup.ranks
    config, content = ranks.first((run.read_config(), run.load_checkpoint()) if run.is_written else None)
    check_fits(content, setup.cache, os.fspath(run.checkpoints / "last.pt"))
    for cache, described in ((setup.cache, config["cache"]), (setup.val, config["val"])):
        if cache is not None and not has_rows_of(cache, described["fingerprint"]):
            reason = f"it is not the one that run {path.name} began with"
            raise CacheStale("the cache has changed", cache.path, reason, "Start a new run")
    check_labels(config, setup.labels)
    if len(setup.batches.subset) != config["cache"]["images"]:  # it began with another rule of --val-fraction
        before, now = config["cache"]["images"], len(setup.batches.subset)
        reason = f"it began with {before} training images, and there are {now} now"
        raise CacheStale("the split has changed", path, reason, "Start a new run")
    if setup.may_cache_body:  # as `with_threads` left it
        setup.options = options = replace(options, threads=config["options"].get("threads"))
        setup.head_threads = options.threads
    if content.get("code", {}) != setup.state.code:
        reason = "it was saved with other code than config.json names"
        raise CheckpointError("the checkpoint does not fit", run.checkpoints / "last.pt", reason)
    load_state(setup, content, run.checkpoints / "last.pt")
    if setup.state.epoch > options.epochs:
        reason = f"it has {setup.state.epoch} epochs already, and {options.epochs} were asked for"
        raise OptionsError("nothing to resume", path, reason, "Give more --epochs")
    note = note_on_rates(TrainOptions.from_dict(parts_of(config)[-1]["options"]), setup)
    repeats = None if note or config.get("command", "") is None else command(options, ranks)
    run.write_config(with_part(config, options, setup.state.epoch) | {"command": repeats, "result": result_of(options)})
    run.forget_divergence()
    training = TrainingLoop(setup, run, progress, stop)
    training.saved = (setup.state.epoch, setup.state.step)
    training.resume_note = note
    return training


def note_on_rates(before: TrainOptions, setup: Setup) -> str:
    """Return a note if the steps done had other learning rates than the new options give them, else "".

    A cosine reaches 0 at the end of the epochs that it was made for. With more epochs the rate jumps, and no single
    command gives the same rates.

    Args:
        before: the options of the steps that are done.
        setup: with the options that the run goes on with.
    """
    new, state = setup.schedule, setup.state
    old = Schedule(before, new.steps)
    done = setup.accumulation.step(state.epoch, state.step)
    if all(old.rate(step) == new.rate(step) for step in [*range(0, done, max(new.steps // 2, 1)), max(done - 1, 0)]):
        return ""
    last, following = old.rate(max(done - 1, 0), state.decays), new.rate(done, state.decays)
    return (
        f"the learning rate followed a {before.sched} of {before.epochs} epochs, and now follows one of "
        f"{setup.options.epochs}: it goes from {last:.2g} to {following:.2g}. No single command repeats this run"
    )


def load_state(setup: Setup, content: dict[str, Any], path: Path) -> None:
    """Give a set-up the state that a checkpoint holds.

    Raises:
        CheckpointError: it is of another network or optimizer, or of a step that an epoch does not have.
    """
    try:
        if (
            len(content["optimizer"]["param_groups"]) > len(setup.state.optimizer.param_groups)
            and setup.options.thaw_epoch
        ):
            setup.thaw()
        setup.state.restore(content)
        if setup.state.step > len(setup.batches):
            raise ValueError(f"step is {setup.state.step}, and an epoch has {len(setup.batches)} batches")
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError("the checkpoint cannot be used", path, reason) from error


def resumed_options(run: RunFolder, changes: dict[str, Any], ranks: Ranks) -> TrainOptions:
    """Return the options of a resumed run: its own, replaced by those of `changes` that are not None.

    Threads and memory format stay those that the run began with, whatever the rule says now or here; a run of an
    earlier version was contiguous. Only another number of ranks, which rounds otherwise anyway, chooses threads anew.

    Raises:
        RunError: its config.json cannot be read.
        OptionsError: options that do not go together.
    """
    config = run.read_config()
    options = TrainOptions.from_dict(config["options"])
    threads = options.threads or config.get("threads") if config.get("ranks", 1) == ranks.size else None
    options = replace(options, threads=threads, memory_format=options.memory_format or CONTIGUOUS)
    try:
        if changes.get("val") is not None and options.val is None:
            raise ValueError("--val says where its validation cache was moved, but it has none")
        return options.resumed(changes)
    except ValueError as error:
        raise OptionsError("the run cannot be resumed with these options", run.path, str(error)) from error
