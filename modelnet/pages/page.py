"""A report as one HTML page that needs nothing outside itself: no network, no server, no JavaScript."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from modelnet.compare.result import Flip
from modelnet.eval.scores import accuracy_interval
from modelnet.pages.collect import Group, Report, flips_shown, gather
from modelnet.pages.mistakes import ImageKey, Mistake
from modelnet.pages.run import Run
from modelnet.pages.tables import (
    Table,
    class_tables,
    confused_pairs,
    differing_options,
    environment_table,
    matrix,
    option_tables,
    pair_table,
    percent,
)
from modelnet.plots.axes import MEASURES, PARTS, parts_shown
from modelnet.plots.svg import curves_svg
from modelnet.runs.history import describe_epochs
from pipeline.text import show_path


class Fact(NamedTuple):
    """A number at the head of the page, with what it is called and what has to be known of it."""

    label: str
    value: str
    detail: str = ""


class Curve(NamedTuple):
    """A picture of a measure, with the text for those who cannot see it."""

    title: str
    svg: Markup
    alt: str


class Picture(NamedTuple):
    """A mistake as it is shown; `source` is a data: URL, or empty where the picture is not there."""

    source: str
    file: str
    true: str
    predicted: str
    detail: str


def report(runs: Sequence[Path]) -> bytes:
    """Show runs as one HTML page that needs nothing outside itself, and return it in UTF-8.

    Args:
        runs: folders, at least one; runs that differ in their seeds alone become a group.

    Raises:
        RunError: one of them is no run, or cannot be read.
    """
    return render(gather(runs))


def render(report: Report) -> bytes:
    """Return the page, UTF-8. It follows from the runs and the pictures alone: the same again, byte for byte."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files and classes can be anything
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja").render(
        title=_title(report),
        about=_about(report),
        notes=report.notes,
        facts=_facts(report.groups[0]) if len(report.groups) == 1 else [],
        group_table=_group_table(report.groups) if len(report.groups) > 1 else None,
        curves=_curves(report),
        galleries=[(one, [_picture(report, mistake) for mistake in one.mistakes]) for one in report.galleries],
        comparison=report.comparison,
        pair_table=None if report.comparison is None else pair_table(report.comparison),
        flips=[_flip(report, flip) for flip in flips_shown(report.comparison)],
        missing=report.pictures.missing,
        groups_have_several=any(len(group.runs) > 1 for group in report.groups),
        some_pictures=bool(report.pictures.jpegs),
        confusions=[(group.label, matrix(group), confused_pairs(group)) for group in report.groups if group.confusion],
        classes=[(group.label, *class_tables(group)) for group in report.groups],
        run_table=_run_table(report) if len(report.runs) > 1 else None,
        options=option_tables(report.groups),
        environment=environment_table(report.runs),
        commands=[(show_path(run.path.name), _command(run)) for run in report.runs],
    )
    return page.encode("utf-8", "backslashreplace")


def _command(run: Run) -> str:
    command = run.config.get("command", "")
    if command is None:
        return f"none: epochs {describe_epochs(run.config)}, and the learning rate depends on their number"
    return show_path(command)


def _title(report: Report) -> str:
    names = [show_path(run.path.name) for run in report.runs]
    if len(names) == 1:
        return names[0]
    return f"{names[0]} to {names[-1]}" if len(report.groups) == 1 else f"{len(names)} runs compared"


def _about(report: Report) -> str:
    run = report.runs[0]
    images = f"{sum(run.counts):,} images of {len(run.classes):,} classes"
    many = f"{len(report.runs)} runs" if len(report.runs) > 1 else "One run"
    if len(report.runs) == len(report.groups) > 1:
        return f"{many}, side by side."
    if len(report.groups) > 1:
        return f"{many} in {len(report.groups)} groups; those of a group differ in their seeds alone."
    val = sum(run.val_counts or [])
    validated = f", validated on {val:,}" if val else ""
    seeds = ", which differ in their seeds alone" if len(report.runs) > 1 else ""
    return f"{many} of {show_path(run.options.model)}{seeds}, trained on {images}{validated}."


def _facts(group: Group) -> list[Fact]:
    if not group.started:
        return []
    return _facts_of_one(group.started[0]) if len(group.runs) == 1 else _facts_of_many(group)


def _facts_of_one(run: Run) -> list[Fact]:
    last, best, facts = run.rows[-1], run.best_epoch, []
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
    facts.append(Fact("Training loss", f"{last.train_loss:.4f}", f"running mean; accuracy {percent(last.train_acc)}"))
    by = f"loss {best.train_loss:.4f}" if best.val_acc is None else f"validation accuracy {percent(best.val_acc)}"
    facts.append(Fact("Best epoch", str(best.epoch), by))
    speed = f"{_seconds(run)}; {median(row.images_per_s for row in run.rows):,.0f} images/s"
    return [*facts, Fact("Epochs", f"{run.epochs_done} of {run.options.epochs}", speed)]


def _facts_of_many(group: Group) -> list[Fact]:
    ends = [run.rows[-1] for run in group.started]
    facts = [Fact("Converged", f"{sum(run.converged for run in group.runs)} of {len(group.runs)} starts", CONVERGED)]
    for label, values, text in (
        ("Validation accuracy, median", [row.val_acc for row in ends if row.val_acc is not None], percent),
        ("Validation loss, median", [row.val_loss for row in ends if row.val_loss is not None], _four),
        ("Training loss, median", [row.train_loss for row in ends], _four),
    ):
        if values:
            facts.append(Fact(label, text(median(values)), _spread(values, text)))
    return facts


CONVERGED = "training loss nearer to the lowest than to that of guessing"


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


def _group_table(groups: Sequence[Group]) -> Table:
    rows, options = [], differing_options(groups)
    for number, group in enumerate(groups):
        ends = [run.rows[-1] for run in group.started]
        accuracies = [row.val_acc for row in ends if row.val_acc is not None]
        rows.append(
            [
                group.label,
                *(values[number] for values in options.values()),
                show_path(group.runs[0].path.name) if len(group.runs) == 1 else f"{len(group.runs)} runs",
                percent(median(accuracies)) if accuracies else "–",
                f"{percent(min(accuracies))} to {percent(max(accuracies))}" if len(accuracies) > 1 else "–",
                _four(median(row.train_loss for row in ends)) if ends else "–",
                f"{sum(run.converged for run in group.runs)} of {len(group.runs)}",
            ]
        )
    header = [
        "group",
        *(flag.removeprefix("--") for flag in options),
        "of",
        "validation accuracy, median",
        "lowest to highest",
        "training loss, median",
        "converged",
    ]
    return Table("The groups at their last epochs", header, rows)


def _run_table(report: Report) -> Table:
    several = len(report.groups) > 1
    header = ["run", *(["group"] if several else []), "seed", "data seed", "epochs", "training loss", "accuracy"]
    rows = []
    for group in report.groups:
        for run in group.runs:
            place = [show_path(run.path.name), *([group.label] if several else [])]
            seeds = [str(run.options.seed), str(run.options.data_seed), str(run.epochs_done)]
            rows.append([*place, *seeds, *_ends(run)])
    return Table("Every run at its last epoch", [*header, "validation loss", "accuracy", "best epoch"], rows)


def _ends(run: Run) -> list[str]:
    if not run.rows:
        return ["–"] * 5
    last = run.rows[-1]
    val = ["–", "–"] if last.val_loss is None else [_four(last.val_loss), percent(last.val_acc)]
    return [_four(last.train_loss), percent(last.train_acc), *val, str(run.best_epoch.epoch)]


def _curves(report: Report) -> list[Curve]:
    groups = {group.label: [run.rows for run in group.started] for group in report.groups if group.started}
    if not groups:
        return []
    curves = []
    guesses = {run.guess for run in report.runs}
    guess = guesses.pop() if len(guesses) == 1 else None
    for number, (measure, name) in enumerate(MEASURES.items()):
        said = []
        for label, runs in groups.items():
            for part in parts_shown(groups):
                firsts, lasts = ([getattr(rows[i], f"{part}_{measure}") for rows in runs] for i in (0, -1))
                group = f"group {label}, " if label else ""
                said.append(f"{group}{PARTS[part]} from {median(firsts):.3g} to {median(lasts):.3g}")
        alt = f"{name} against the epoch: {'; '.join(said)}"
        several = " (medians; the bands lie between the quartiles)" if max(map(len, groups.values())) > 1 else ""
        svg = curves_svg(groups, measure, None if guess is None else guess[number])
        curves.append(Curve(f"{name[0].upper()}{name[1:]}{several}", Markup(svg), alt))
    return curves


def _picture(report: Report, mistake: Mistake) -> Picture:
    classes = report.runs[0].classes
    runs = sum(bool(run.predictions) for run in report.runs)
    often = f"wrong in {mistake.runs} of {runs} runs, " if runs > 1 else ""
    said = classes.get(mistake.predicted, show_path(mistake.predicted))
    return _pictured(report, mistake.image, said, f"{often}{_sure(mistake.p_predicted)}")


def _flip(report: Report, flip: Flip) -> Picture:
    first, second = (group.label for group in report.groups)
    if len(report.runs) == 2:
        detail = f"{first if flip.right_1 else second} is right, {second if flip.right_1 else first} is wrong"
    else:
        detail = f"right in {flip.right_1:.0%} of the runs of {first}, {flip.right_2:.0%} of {second}"
    return _pictured(report, ImageKey(flip.class_id, flip.file), "", detail)


def _pictured(report: Report, image: ImageKey, said: str, detail: str) -> Picture:
    jpeg = report.pictures.jpegs.get(image)
    source = "" if jpeg is None else f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"
    true = report.runs[0].classes.get(image.class_id, show_path(image.class_id))
    return Picture(source, show_path(image.file), true, said, detail)


def _sure(probability: float) -> str:
    return f"{probability:.0%} sure" if probability < 0.995 else "over 99% sure"
