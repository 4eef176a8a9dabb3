"""Training: the plain loop over epochs and batches, and what makes a run of it: validation, checkpoints, resuming."""

import math
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from torch.nn.utils import clip_grad_norm_

from modelnet.batches import worker_deaths
from modelnet.checkpoint import encode
from modelnet.config import describe_run
from modelnet.device import cpu_threads, memory_errors
from modelnet.evaluation import PREDICTION_COLUMNS, Outcome, evaluate, prediction_rows
from modelnet.interrupt import Stop
from modelnet.metrics import Losses
from modelnet.network import MODELNET
from modelnet.options import TrainOptions
from modelnet.plots import loss_curves
from modelnet.progress import Progress
from modelnet.runs import EpochRow, RunFolder
from modelnet.scores import Scores, score
from modelnet.session import Session
from modelnet.split import SPLIT_COLUMNS, split_rows
from modelnet.state import check_fits
from pipeline.errors import CacheStale, OptionsError, RunError, TrainingDiverged

NAMES_SHOWN = 16
SECONDS_BETWEEN_SAVES = 1.0  # publishing takes 10 ms or more, an epoch of a small set little longer


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        run: its folder.
        rows: a row an epoch, also of the epochs before a resume.
        scores: of the validation images by the weights at the end; None without them, or where it was stopped.
        interrupted: whether it was asked to stop before its last epoch; `resume` goes on.
    """

    run: Path
    rows: list[EpochRow]
    interrupted: bool
    scores: Scores | None = None


def train(options: TrainOptions, progress: Progress | None = None, stop: Stop | None = None) -> TrainResult:
    """Train ModelNet on a cache, in a new run folder.

    Args:
        options: what to do.
        progress: hears how it goes.
        stop: where set, training ends after the step, saved.

    Raises:
        SourceError: fewer than two classes.
        CacheError: a cache cannot be used, or the two do not go together.
        DeviceError: the device is not there, or its memory is too small.
        OptionsError: images too small, or nothing left to train or to validate on.
        OutputError, StorageError, AccessDenied: the run folder cannot be made or written.
        TrainingDiverged: the loss became NaN or infinite; the last good checkpoint is kept.
        WorkerDied: a reading process was killed.
    """
    progress = progress or Progress()
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(options.threads, options.batch_size))
        session = Session(options, progress)
        run = stack.enter_context(RunFolder.create(options.name, f"{session.cache.path.stem}-{MODELNET}"))
        run.write_config(describe_run(options, session.batches, session.val_batches, session.device))
        if session.split is not None:
            run.write_split(SPLIT_COLUMNS, split_rows(session.cache, session.split))
        training = _Training(session, run, progress, stop or Stop())
        training.save()
        return training.run_epochs([])


def resume(
    path: Path,
    epochs: int | None = None,
    device: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> TrainResult:
    """Go on with a run where its last checkpoint left it; on the CPU, bit for bit as if it had never stopped.

    Args:
        path: the folder of the run.
        epochs, device, workers: instead of the stored ones, where given; nothing else may differ.
        progress, stop: as for `train`.

    Raises:
        RunError: no run there; RunBusy: another process trains in it.
        CheckpointError: its last checkpoint is damaged, unsafe, or of other classes or another recipe.
        CacheStale: a cache was rebuilt since.
        OptionsError: fewer epochs than it has already.
        As `train` otherwise.
    """
    progress = progress or Progress()
    with ExitStack() as stack:
        run = stack.enter_context(RunFolder.open_for_writing(path))
        config = run.read_config()
        options = _resumed_options(config["options"], path, epochs, device, workers)
        stack.enter_context(cpu_threads(options.threads, options.batch_size))
        content = run.load_checkpoint()
        session = Session(options, progress, path)
        check_fits(content, session.cache, os.fspath(run.checkpoints / "last.pt"))
        for cache, described in ((session.cache, config["cache"]), (session.val, config["val"])):
            if cache is not None and cache.fingerprint != described["fingerprint"]:
                reason = f"it is not the one that run {path.name} began with"
                raise CacheStale("the cache has changed", cache.path, reason, "Start a new run")
        session.state.restore(content)
        if session.state.epoch > options.epochs:
            reason = f"it has {session.state.epoch} epochs already, and {options.epochs} were asked for"
            raise OptionsError("nothing to resume", path, reason, "Give more --epochs")
        run.write_config(config | {"options": options.to_dict(), "command": options.command()})
        training = _Training(session, run, progress, stop or Stop())
        training.saved = (session.state.epoch, session.state.step)
        return training.run_epochs(run.keep_metrics(session.state.epoch))


class _Training:
    """A session at work in its run folder."""

    def __init__(self, session: Session, run: RunFolder, progress: Progress, stop: Stop) -> None:
        self.session = session
        self.state = session.state
        self.batches = session.batches
        self.run = run
        self.progress = progress
        self.stop = stop
        self.unsaved_best: bytes | None = None
        self.saved = (-1, -1)  # epoch, step
        self.saved_at = -math.inf

    def run_epochs(self, rows: list[EpochRow]) -> TrainResult:
        """Train the epochs that are left, and write down what came of it.

        Args:
            rows: the epochs before.
        """
        state, epochs = self.state, self.session.options.epochs
        images = self.batches.images_an_epoch
        self.progress.started(self.run.path, images * epochs, images * state.epoch + state.running.images)
        outcome = scores = None
        with worker_deaths(self.session.cache.path), memory_errors(self.session.device):
            while not self.is_finished:
                began = time.perf_counter() - state.seconds
                self.train_epoch()
                outcome = self.validate()
                if self.stop.signal:
                    break
                rows.append(self.finish_epoch(outcome, time.perf_counter() - began))
                self.progress.epoch(rows[-1], epochs)
            self.save()
            if self.is_finished:
                scores = self.write_predictions(outcome)
        if rows:
            self.run.write_picture("loss.png", loss_curves(rows, self.run.path.name))
        if self.is_finished and state.epoch < epochs:
            self.progress.note(f"stopped: no epoch has been better than epoch {state.epoch - state.stale}")
        return TrainResult(self.run.path, rows, not self.is_finished, scores)

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train: all epochs are done, or patience has ended."""
        patience = self.session.options.patience
        return self.state.epoch >= self.session.options.epochs or (
            patience is not None and self.state.stale >= patience
        )

    def train_epoch(self) -> None:
        """Train on what is left of the current epoch, up to its end or to a request to stop."""
        state, network, optimizer = self.state, self.state.network, self.state.optimizer
        loss_of, rhythm, schedule = self.session.loss_of, self.session.rhythm, self.session.schedule
        clip_grad = self.session.options.clip_grad
        losses = Losses(self.session.device)
        began, waited = time.perf_counter() - state.seconds, state.waited
        network.train()
        for images, labels in self.batches.epoch(state.epoch, state.step):
            if rhythm.clears(state.step):
                optimizer.zero_grad()
            logits = network(images)
            loss = loss_of(logits, labels)
            loss.backward(rhythm.share(state.step))
            if rhythm.steps_after(state.step):
                if clip_grad is not None:
                    clip_grad_norm_(network.parameters(), clip_grad)
                schedule.set(optimizer, rhythm.step(state.epoch, state.step), state.decays)
                optimizer.step()
                if state.average is not None:
                    state.average.update_parameters(network)

            state.step += 1
            state.running.add(loss, logits, labels)
            losses.add(loss)
            if losses.due:
                self.check(losses)
            self.progress.step(len(labels))
            if self.stop.signal:
                break
        self.check(losses)
        state.seconds = time.perf_counter() - began
        state.waited = waited + self.batches.waited

    def validate(self) -> Outcome | None:
        """Run the network over the validation images; None without them, or where a stop was asked for."""
        if self.session.val_batches is None or self.stop.signal:
            return None
        return evaluate(self.state.evaluated, self.session.val_batches, self.session.label_map, self.stop)

    def finish_epoch(self, outcome: Outcome | None, seconds: float) -> EpochRow:
        """Write down an epoch and save the state after it, at most once a second.

        The best epoch has the highest validation accuracy, among equals the lowest validation loss; without
        validation images, the lowest training loss.
        """
        state, running = self.state, self.state.running
        if outcome is not None and not math.isfinite(outcome.loss):
            self.diverged(f"the validation loss is {outcome.loss} after", state.step - 1)
        row = EpochRow(
            epoch=state.epoch + 1,
            train_loss=running.loss,
            train_acc=running.accuracy,
            val_loss=None if outcome is None else outcome.loss,
            val_acc=None if outcome is None else outcome.accuracy,
            lr=state.optimizer.param_groups[0]["lr"],
            images_per_s=running.images / state.seconds,
            data_wait_s=state.waited,
            epoch_s=seconds,
        )
        score = [-running.loss] if outcome is None else [outcome.accuracy, -outcome.loss]
        self.refuse_bad_weights()
        self.run.append_metrics(row)
        if state.finish_epoch(score, self.session.schedule.plateau):
            self.unsaved_best = encode(self.content())
        if time.monotonic() - self.saved_at >= SECONDS_BETWEEN_SAVES:
            self.save()
        return row

    def save(self) -> None:
        """Save the state, unless it is saved already; one whose weights are no numbers never is."""
        position = (self.state.epoch, self.state.step)
        if position != self.saved:
            self.refuse_bad_weights()
            self.run.save_checkpoint(self.content(), self.unsaved_best)
            self.unsaved_best, self.saved, self.saved_at = None, position, time.monotonic()

    def content(self) -> dict[str, Any]:
        """Return what a checkpoint of this moment holds."""
        return self.state.to_content(self.session.options, self.session.cache)

    def write_predictions(self, outcome: Outcome | None) -> Scores | None:
        """Write what the network says of each validation image, and how good that is.

        Args:
            outcome: spares running the network once more, where there is one.
        """
        if self.session.val_batches is None:
            return None
        if outcome is None:  # resumed after its last epoch
            outcome = evaluate(self.state.evaluated, self.session.val_batches, self.session.label_map)
        if outcome is None:
            return None
        cache = self.session.cache
        self.run.write_predictions(
            PREDICTION_COLUMNS, prediction_rows(outcome, self.session.val_batches, cache.class_ids)
        )
        scores = score(outcome, cache.class_ids, cache.class_names)
        self.run.write_scores(scores.to_dict())
        return scores

    def check(self, losses: Losses) -> None:
        """Stop where a loss was not a number."""
        bad = losses.first_bad()
        if bad is not None:
            steps_ago, loss = bad
            self.diverged(f"the loss is {loss} in", self.state.step - steps_ago)

    def refuse_bad_weights(self) -> None:
        """Stop where weights are not numbers: such a state is never saved."""
        if not self.state.is_finite:
            self.diverged("weights are NaN or infinite after", max(self.state.step - 1, 0))

    def diverged(self, what: str, step: int) -> NoReturn:
        """Name the batch at which it happened."""
        names = self.batches.names(self.state.epoch, step)
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        raise TrainingDiverged(
            "training diverged",
            self.run.path,
            f"{what} epoch {self.state.epoch + 1}, batch {step + 1} of {len(self.batches)} "
            f"({', '.join(names[:NAMES_SHOWN])}{more})",
            f"Try a smaller --lr than {self.session.options.learning_rate:g}; checkpoints/last.pt is the last good one",
        )


def _resumed_options(
    stored: dict[str, object], path: Path, epochs: int | None, device: str | None, workers: int | None
) -> TrainOptions:
    try:
        options = TrainOptions.from_dict(stored)
    except ValueError as error:
        raise RunError("the run cannot be read", path / "config.json", str(error)) from error
    return replace(
        options,
        epochs=options.epochs if epochs is None else epochs,
        device=options.device if device is None else device,
        workers=options.workers if workers is None else workers,
    )
