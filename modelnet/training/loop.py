"""The training loop over epochs and batches, and its records: metrics, checkpoints, scores."""

import math
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NoReturn

import torch

from modelnet.data.batches import Batches
from modelnet.data.caches import class_counts
from modelnet.data.workers import worker_deaths
from modelnet.eval.diagnostics import GUESSING_AFTER, guess_of, guessing, unshuffled
from modelnet.eval.evaluate import Outcome, evaluate, predictions_of
from modelnet.eval.metrics import Losses
from modelnet.eval.scores import Scores, score
from modelnet.plots.axes import MEASURES
from modelnet.plots.confusion import confusion_picture
from modelnet.plots.figures import Guess, loss_curves
from modelnet.plots.svg import curves_svg
from modelnet.progress import EpochRow, Progress
from modelnet.runs.content import evaluated_weights
from modelnet.runs.folder import RunFolder
from modelnet.runs.tables import best_row, criterion
from modelnet.runtime.device import memory_errors
from modelnet.runtime.interrupt import Stop
from modelnet.training.frozen_body import NotComputed
from modelnet.training.setup import Setup
from modelnet.training.step import NetworkUpdate, TrainingStep
from modelnet.training.tensorboard import TensorBoard
from pipeline.errors import TrainingDiverged
from pipeline.text import counted, shorten

NAMES_SHOWN = 16
LEAST_SCALE = 2.0**-24  # smallest scale of gradients: it starts at 65536, and each non-finite step halves it
SECONDS_BETWEEN_SAVES = 1.0  # publishing takes 10 ms or more, about as long as an epoch of a small set


@dataclass(frozen=True)
class TrainResult:
    """The result of a run.

    Attributes:
        run: the run folder.
        rows: one row for each epoch, including those before a resume.
        scores: of the final weights on the validation images; None without such images, or after an interruption.
        trained_accuracy: accuracy of the final network on its training images, measured if they were not shuffled.
        interrupted: True if the run was stopped before its last epoch; `resume` continues it.
    """

    run: Path
    rows: list[EpochRow]
    interrupted: bool
    scores: Scores | None = None
    trained_accuracy: float | None = None

    def __repr__(self) -> str:
        state = "interrupted after " if self.interrupted else ""
        last = self.rows[-1] if self.rows else None
        ended = "" if last is None else f", training loss {last.train_loss:.4f}"
        if last is not None and last.val_acc is not None:
            ended += f", validation accuracy {last.val_acc:.1%}"
        return f"TrainResult({str(self.run)!r}: {state}{counted(len(self.rows), 'epoch')}{ended})"

    def _repr_html_(self) -> str:
        """Show the curves in a notebook."""
        style = "display:inline-block;width:24rem;max-width:100%"
        curves = [curves_svg({"": [self.rows]}, measure) for measure in MEASURES] if self.rows else []
        return escape(repr(self)) + "<br>" + "".join(f'<div style="{style}">{curve}</div>' for curve in curves)


class TrainingLoop:
    """Trains a network epoch by epoch, and writes its run folder."""

    def __init__(self, setup: Setup, run: RunFolder, progress: Progress, stop: Stop) -> None:
        self.setup = setup
        self.ranks = setup.ranks
        self.state = setup.state
        self.batches = setup.batches
        update = NetworkUpdate(setup.state, setup.options.clip_grad, setup.schedule)
        self.train_step = TrainingStep(setup.forward, setup.loss_of, update, setup.accumulation, setup.autocast)
        self.run = run
        self.progress = progress
        self.stop_asked, self.stop = stop, self.ranks.share(stop)
        self.batches.stop = stop
        self.unsaved_best: dict[str, Any] | None = None
        self.saved = (-1, -1)  # epoch, step
        self.saved_at = -math.inf
        self.seconds_between_saves = SECONDS_BETWEEN_SAVES
        self.tensorboard: TensorBoard | None = None
        self.resume_note = ""
        self.lacks_features = False  # a stop was asked for before they were computed

    def run_epochs(self, rows: list[EpochRow]) -> TrainResult:
        """Train the remaining epochs and write the results.

        Args:
            rows: the epochs before.
        """
        state, epochs = self.state, self.setup.options.epochs
        images = self.batches.plan.images
        self.progress.started(self.run.path, images * epochs, images * state.epoch + state.running.images)
        outcome = None
        with worker_deaths(self.batches.cache.path), memory_errors(self.setup.device), self.setup.own_threads():
            while not self.is_finished and not self.lacks_features:
                began = time.perf_counter() - state.seconds
                self.train_epoch()
                outcome = self.validate()
                if self.stop.signal:
                    break
                rows.append(self.finish_epoch(outcome, time.perf_counter() - began))
                self.progress.epoch(rows[-1], epochs)
                if len(rows) == GUESSING_AFTER:
                    self.hint(guessing(rows, self.setup.class_counts.tolist(), self.setup.options))
            return self.finish(rows, outcome)

    def prepare(self, progress: Progress, on_features: bool) -> None:
        """Prepare for the first step, as `Setup.prepare`; after a stop meanwhile, no epoch is trained."""
        try:
            self.setup.prepare(progress, self.stop_asked, self.run.path, on_features=on_features)
        except NotComputed:
            self.lacks_features = True
        self.batches = self.setup.batches
        self.batches.stop = self.stop_asked
        self.train_step.forward = self.setup.forward

    def finish(self, rows: list[EpochRow], outcome: Outcome | None) -> TrainResult:
        """Save and draw the curves; after the last epoch, write predictions and scores.

        Args:
            rows: all epochs.
            outcome: of the network, as it is now, on the validation images, where that is known already.
        """
        scores = trained_accuracy = None
        self.save()
        if self.tensorboard is not None:
            self.tensorboard.close()
        name = self.run.path.name
        if rows:
            self.run.draw_picture("loss.png", lambda: loss_curves(rows, name, self.guess()), self.progress)
        if self.is_finished:
            scores = self.write_predictions(outcome)  # last: a run that has them is not taken up again
            if rows and not self.setup.options.shuffle:
                trained_accuracy = self.training_images().accuracy
                self.hint(unshuffled(rows[-1], trained_accuracy))
        if self.is_finished and self.setup.options.patience is not None and rows:
            self.progress.note(self.chosen(best_row(rows)))
        return TrainResult(self.run.path, rows, not self.is_finished, scores, trained_accuracy)

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train: all epochs are done, or patience has ended."""
        patience = self.setup.options.patience
        return self.state.epoch >= self.setup.options.epochs or (patience is not None and self.state.stale >= patience)

    def train_epoch(self) -> None:
        """Train on the remaining batches of the current epoch, until its end or a request to stop."""
        state, device, seed = self.state, self.setup.device, self.setup.options.seed
        losses = Losses(device)
        began, waited = time.perf_counter() - state.seconds, state.waited
        if self.setup.thaws(state.epoch):
            self.train_step.forward = state.network  # lets go of a wrapper around some parameters
            self.setup.thaw()
            self.train_step.forward = self.setup.forward
        state.network.train()
        for batch in self.batches.epoch(state.epoch, state.step):
            self.ranks.seed(device, seed, state.epoch, state.step)
            loss, logits = self.train_step(batch, state.epoch, state.step)
            state.step += 1
            state.running.add(loss, logits, batch.labels, batch.size)
            losses.add(loss)
            if losses.due:
                self.check(losses)
            self.progress.step(batch.size)
            if self.stop.poll():
                break
        self.check(losses)
        state.running.settle()
        state.seconds = time.perf_counter() - began
        state.waited = waited + self.batches.waited

    def validate(self) -> Outcome | None:
        """Run the network over the validation images; None without them, or where a stop was asked for."""
        if self.setup.val_batches is None or self.stop.signal:
            return None
        return self.evaluate(self.stop)

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
            lr=state.learning_rate,
            images_per_s=running.images / state.seconds,
            data_wait_s=state.waited,
            epoch_s=seconds,
        )
        score = [-running.loss] if outcome is None else [outcome.accuracy, -outcome.loss]
        self.refuse_bad_weights()
        self.run.append_metrics(row)
        self.show(row)
        if state.finish_epoch(score, self.setup.schedule.plateau):
            own = self.setup.options, self.setup.cache
            self.unsaved_best = state.snapshot(*own) if self.run.is_written else None
        if time.monotonic() - self.saved_at >= self.seconds_between_saves:
            self.save()
        return row

    def show(self, row: EpochRow) -> None:
        """Write an epoch for TensorBoard, where that is asked for."""
        if self.setup.options.tensorboard and self.run.is_written:
            self.tensorboard = self.tensorboard or TensorBoard(self.run.path, row.epoch)
            self.tensorboard.add(row)

    def save(self) -> None:
        """Save the state, unless it is saved already; never save NaN or infinite weights."""
        position = (self.state.epoch, self.state.step)
        if position != self.saved:
            self.refuse_bad_weights()
            self.run.save_checkpoint(self.content(), self.unsaved_best)
            self.unsaved_best, self.saved, self.saved_at = None, position, time.monotonic()

    def content(self) -> dict[str, Any]:
        """Return the content of a checkpoint."""
        return self.state.to_content(self.setup.options, self.setup.cache)

    def write_predictions(self, outcome: Outcome | None) -> Scores | None:
        """Write predictions and scores of the validation images.

        Args:
            outcome: spares running the network once more, where there is one.
        """
        if self.setup.val_batches is None:
            return None
        if self.setup.options.patience is not None and self.state.stale:
            outcome = self.evaluate_best()
        if outcome is None:  # resumed after its last epoch
            outcome = self.validation_outcome()
        cache, images = self.setup.cache, self.setup.val_batches
        scores = score(outcome, cache.class_ids, cache.class_names)
        names = [one.name or str(one.id) for one in scores.classes]
        title = self.run.path.name
        self.run.draw_picture("confusion.png", lambda: confusion_picture(scores.confusion, names, title), self.progress)
        self.run.write_predictions(predictions_of(outcome, images.cache, images.subset, cache.class_ids))
        self.run.write_scores(scores.to_dict())
        return scores

    def validation_outcome(self) -> Outcome:
        """Run the network, as it is now, over the validation images."""
        outcome = self.evaluate()
        assert outcome is not None  # it has no stop flag
        return outcome

    def evaluate(self, stop: Stop | None = None) -> Outcome | None:
        """Run the network over the validation images; None where `stop` is set meanwhile."""
        setup = self.setup
        assert setup.val_batches is not None
        network, at_once = setup.trained_part(self.state.evaluated), setup.at_once
        return evaluate(network, setup.val_batches, setup.label_map, stop, setup.autocast, at_once=at_once)

    def evaluate_best(self) -> Outcome:
        """Run the network with the weights of the best epoch over the validation images."""
        network = self.state.evaluated
        best = self.ranks.first(self.run.load_checkpoint("best.pt") if self.run.is_written else None)
        last = {name: values.clone() for name, values in network.state_dict().items()}
        network.load_state_dict(evaluated_weights(best))
        try:
            return self.validation_outcome()
        finally:
            network.load_state_dict(last)

    def chosen(self, best: EpochRow) -> str:
        """Say which epoch's weights are the result, and by which measure, where patience chose them."""
        stopped = f"stopped: no epoch has been better than epoch {best.epoch}. "
        return (
            f"{stopped if self.state.epoch < self.setup.options.epochs else ''}"
            f"The weights of epoch {best.epoch} are the result: --patience picked it by its {criterion(best)}"
        )

    def guess(self) -> Guess:
        """Return how good the best answer is that ignores the image."""
        val = self.setup.val_batches
        val_counts = None if val is None else class_counts(val.cache, val.subset).tolist()
        return guess_of(self.setup.class_counts.tolist(), val_counts, self.setup.options)

    def training_images(self) -> Outcome:
        """Run the network, as it is now, over the images that it was trained on, in plain order and unchanged."""
        options, rows = self.setup.options, self.batches.subset
        more: dict[str, Any] = {"rows": rows, "ranks": self.ranks, "crop_size": options.crop}
        batches = Batches(self.batches.cache, self.setup.device, options.batch_size, **more)
        label_map = torch.arange(len(self.setup.cache.class_ids))
        network = self.setup.trained_part(self.state.network)
        outcome = evaluate(network, batches, label_map, autocast=self.setup.autocast)
        assert outcome is not None  # it has no stop flag
        return outcome

    def hint(self, text: str) -> None:
        """Print a hint, if there is one."""
        if text:
            self.progress.note(f"hint: {text}")

    def check(self, losses: Losses) -> None:
        """Stop where a loss was not a number."""
        bad = losses.first_bad()
        if bad is not None:
            steps_ago, loss = bad
            self.diverged(f"the loss is {loss} in", self.state.step - steps_ago)

    def refuse_bad_weights(self) -> None:
        """Stop if weights are NaN or infinite: such a state is never saved."""
        if not self.state.is_finite:
            self.diverged("weights are NaN or infinite after", max(self.state.step - 1, 0))
        if self.state.scaler.get_scale() < LEAST_SCALE:
            self.diverged("gradients are NaN or infinite, however they are scaled, in", max(self.state.step - 1, 0))

    def diverged(self, what: str, step: int) -> NoReturn:
        """Name the batch at which it happened; where its rows are not as they were written, that is why."""
        if not self.setup.options.preload:  # they were taken from it at the start
            self.batches.cache.look_again()
            self.batches.cache.read_stored(self.batches.rows(self.state.epoch, step))
        names = self.batches.names(self.state.epoch, step)
        where = f"{what} epoch {self.state.epoch + 1}, batch {step + 1} of {len(self.batches)}"
        self.run.write_divergence(where)
        raise TrainingDiverged(
            "training diverged",
            self.run.path,
            f"{where} ({shorten(names, NAMES_SHOWN)})",
            f"Try a smaller --lr than {self.setup.options.learning_rate:g}; checkpoints/last.pt is the last good one",
        )
