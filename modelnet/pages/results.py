"""The results on a report's page: the numbers at its head, and the tables of groups and of runs."""

from collections.abc import Callable, Sequence
from statistics import mean, median, quantiles

from modelnet.eval.scores import accuracy_interval
from modelnet.pages.collect import Group, Report
from modelnet.pages.document import Fact
from modelnet.pages.run import Run
from modelnet.pages.tables import Table, differing_options, percent
from modelnet.runs.tables import criterion
from pipeline.text import show_path


def facts_of(group: Group) -> list[Fact]:
    """Return the numbers at the head of the page; none before the first epoch."""
    if not group.started:
        return []
    return _facts_of_one(group.started[0]) if len(group.runs) == 1 else _facts_of_many(group)


def _facts_of_one(run: Run) -> list[Fact]:
    last, best, facts = run.result, run.best_epoch, []
    if run.scores is not None:
        right = round(run.scores.accuracy * run.scores.images)
        low, high = accuracy_interval(right, run.scores.images)
        detail = f"{right:,} of {run.scores.images:,} images; 95 % interval {low:.1%} to {high:.1%}"
        facts.append(Fact("Validation accuracy", percent(run.scores.accuracy), detail))
        if run.scores.top5 is not None:
            facts.append(
                Fact("Top-5 accuracy", percent(run.scores.top5), "the right class is among the five likeliest")
            )
        facts.append(Fact("Validation loss", f"{run.scores.loss:.4f}"))
    elif last.val_loss is not None:
        facts.append(Fact("Validation accuracy", percent(last.val_acc), f"loss {last.val_loss:.4f}"))
    average = f"average over the epoch; accuracy {percent(last.train_acc)}"
    facts.append(Fact("Training loss", f"{last.train_loss:.4f}", average))
    by = f"loss {best.train_loss:.4f}" if best.val_acc is None else f"validation accuracy {percent(best.val_acc)}"
    images = "training" if best.val_acc is None else "validation"
    picked = f"{by}; picked on the {images} images, so it looks better than it is"
    facts.append(Fact("Best epoch", str(best.epoch), picked))
    if run.result is best and best is not run.rows[-1]:
        facts.append(Fact("Result", f"epoch {best.epoch}", f"--patience picked it by its {criterion(best)}"))
    speed = f"{_seconds(run)}; {median(row.images_per_s for row in run.rows):,.0f} images/s"
    return [*facts, Fact("Epochs", f"{run.epochs_done} of {run.options.epochs}", speed)]


def _facts_of_many(group: Group) -> list[Fact]:
    ends = [run.result for run in group.started]
    facts = [Fact("Converged", f"{sum(run.converged for run in group.runs)} of {len(group.runs)} starts", CONVERGED)]
    for label, values, text in (
        ("Validation accuracy, median", [row.val_acc for row in ends if row.val_acc is not None], percent),
        ("Validation loss, median", [row.val_loss for row in ends if row.val_loss is not None], _four),
        ("Training loss, median", [row.train_loss for row in ends], _four),
    ):
        if values:
            facts.append(Fact(label, text(median(values)), _spread(values, text)))
    return facts


CONVERGED = "training loss nearer to the lowest possible than to guessing"


def _spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    """Say where the middle half lies, and the extremes: "58.8 to 61.2 %, all 53.6 to 68.0 %"."""
    if len(values) < 2:
        return ""
    low, _, high = quantiles(values, n=4, method="inclusive")
    return f"middle half {text(low)} to {text(high)}; all {text(min(values))} to {text(max(values))}"


def _four(value: float) -> str:
    return f"{value:.4f}"


def _seconds(run: Run) -> str:
    seconds = round(sum(row.epoch_s for row in run.rows))
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60} min"


def group_table(groups: Sequence[Group]) -> Table:
    """Return a table of the groups: the results first, so that they are seen on a phone and on paper."""
    rows, options = [], differing_options(groups)
    for number, group in enumerate(groups):
        ends = [run.result for run in group.started]
        accuracies = [row.val_acc for row in ends if row.val_acc is not None]
        rows.append(
            [
                group.label,
                percent(mean(accuracies)) if accuracies else "–",
                f"{percent(min(accuracies))} to {percent(max(accuracies))}" if len(accuracies) > 1 else "–",
                _four(mean(row.train_loss for row in ends)) if ends else "–",
                f"{sum(run.converged for run in group.runs)} of {len(group.runs)}",
                *(values[number] for values in options.values()),
                show_path(group.runs[0].path.name) if len(group.runs) == 1 else f"{len(group.runs)} runs",
            ]
        )
    header = ["group", "validation accuracy, mean", "lowest to highest", "training loss, mean", "converged"]
    header += [*(flag.removeprefix("--") for flag in options), "runs"]
    return Table(f"The groups{_at(groups)}", header, rows)


def _at(groups: Sequence[Group]) -> str:
    """Say which epoch the numbers are of."""
    chosen = {run.state.result for group in groups for run in group.runs}
    if chosen == {"last"}:
        return " at their last epochs"
    return ": the best epoch where --patience picked it" + (", else the last" if "last" in chosen else "")


def run_table(report: Report) -> Table:
    """Return a table of all runs."""
    several, folds = len(report.groups) > 1, len({run.options.fold for run in report.runs}) > 1
    header = ["run", *(["group"] if several else []), *(["fold"] if folds else []), "seed", "data seed", "epochs"]
    rows = []
    for group in report.groups:
        for run in group.runs:
            own = run.options
            place = [show_path(run.path.name), *([group.label] if several else [])]
            place += ["–" if own.fold is None else str(own.fold)] if folds else []
            rows.append([*place, str(own.seed), str(own.data_seed), str(run.epochs_done), *_ends(run)])
    header += ["training loss", "accuracy", "validation loss", "accuracy", "best epoch"]
    return Table(f"The runs{_at(report.groups)}", header, rows)


def _ends(run: Run) -> list[str]:
    if not run.rows:
        return ["–"] * 5
    last = run.result
    val = ["–", "–"] if last.val_loss is None else [_four(last.val_loss), percent(last.val_acc)]
    return [_four(last.train_loss), percent(last.train_acc), *val, str(run.best_epoch.epoch)]
