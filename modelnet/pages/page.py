"""Render a report as one HTML page that needs nothing outside itself: no network, no server, no JavaScript."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from markupsafe import Markup

from modelnet.compare.result import Comparison, Flip, Pair
from modelnet.pages.collect import Group, Report, flips_shown, gather
from modelnet.pages.document import Curve, Picture, data_url, render_page
from modelnet.pages.mistakes import ImageKey, Mistake, sure
from modelnet.pages.results import facts_of, group_table, run_table
from modelnet.pages.run import Run
from modelnet.pages.story import story_of
from modelnet.pages.tables import Table, class_tables, environment_table, matrix, option_tables, pair_table, pairs_table
from modelnet.plots.axes import MEASURES, value_of
from modelnet.plots.svg import LABELS, curves_svg, forest_svg, parts_of
from modelnet.runs.history import describe_epochs
from pipeline.text import show_path

GROUPS_SAID = 8  # whose curves are told in words
GROUPS_DETAILED, GROUPS_WITH_ALL_CLASSES = 12, 4  # with their classes; with a table of all of many classes


def report(runs: Sequence[Path]) -> bytes:
    """Render runs as one self-contained HTML page, and return it in UTF-8.

    Args:
        runs: at least one run folder. Runs that differ only in their seeds form a group.

    Raises:
        RunError: a folder is not a run, or cannot be read.
    """
    return render(gather(runs))


def render(report: Report) -> bytes:
    """Return the page in UTF-8. The same runs and pictures give the same bytes."""
    detailed = _detailed(report.groups)
    return render_page(
        "page.html.jinja",
        title=_title(report),
        about=_about(report),
        story=story_of(report),
        notes=report.notes,
        facts=facts_of(report.groups[0]) if len(report.groups) == 1 else [],
        group_table=group_table(report.groups) if len(report.groups) > 1 else None,
        curves=_curves(report),
        galleries=[(one, [_picture(report, mistake) for mistake in one.mistakes]) for one in report.galleries],
        comparison=report.comparison,
        forest=_forest(report.comparison),
        pair_table=None if report.comparison is None else pair_table(report.comparison),
        flips=_flips(report),
        missing=report.pictures.missing,
        groups_have_several=_sides_have_several(report.comparison),
        confusions=[(group.label, matrix(group), pairs_table(group)) for group in detailed if group.confusion],
        classes=[_classes(group, len(detailed)) for group in detailed],
        detailed="" if len(detailed) == len(report.groups) else f"Of the {len(detailed)} groups with the best results.",
        run_table=run_table(report) if len(report.runs) > 1 else None,
        options=option_tables(report.groups),
        environment=environment_table(report.runs),
        commands=[(show_path(run.path.name), *_command(run)) for run in report.runs],
    )


def _detailed(groups: Sequence[Group]) -> list[Group]:
    """Return the groups whose classes are shown: all, or the best of many, so that the page stays small."""

    def result(group: Group) -> float:
        values = [-run.result.train_loss if run.result.val_acc is None else run.result.val_acc for run in group.started]
        return median(values) if values else float("-inf")

    best = sorted(groups, key=result, reverse=True)[:GROUPS_DETAILED]
    return [group for group in groups if group in best]


def _classes(group: Group, groups: int) -> tuple[str, str, list[Table], Table | None]:
    """Return name, balance and tables of a group; the table of all classes only where there are few groups."""
    balance, shown, every = class_tables(group)
    return group.label, balance, shown, every if groups <= GROUPS_WITH_ALL_CLASSES else None


def _command(run: Run) -> tuple[str, str]:
    """Return the command that repeats a run, or "" and why none does."""
    command = run.config.get("command", "")
    if command is None:
        epochs = describe_epochs(run.config)
        return "", f"No command repeats this run: epochs {epochs}, and the learning rate depends on their number."
    return show_path(command), ""


def _title(report: Report) -> str:
    names = [show_path(run.path.name) for run in report.runs]
    if len(names) == 1:
        return names[0]
    return f"{names[0]} to {names[-1]}" if len(report.groups) == 1 else f"{len(names)} runs compared"


def _about(report: Report) -> str:
    run = report.runs[0]
    images = f"{_span([sum(run.counts) for run in report.runs])} images of {len(run.classes):,} classes"
    many = f"{len(report.runs)} runs" if len(report.runs) > 1 else "One run"
    if len(report.runs) == len(report.groups) > 1:
        return f"{many}, side by side."
    names = {name for group in report.groups if len(group.runs) > 1 for name in group.differs_in}
    alike = f"differ only in their {' and '.join(sorted(names, reverse=True))}"
    if len(report.groups) > 1:
        return f"{many} in {len(report.groups)} groups; the runs of a group {alike}."
    val = [sum(run.val_counts or []) for run in report.runs]
    validated = f", validated on {_span(val)}" if val[0] else ""
    which = f", which {alike}" if len(report.runs) > 1 else ""
    return f"{many} of {show_path(run.options.model)}{which}, trained on {images}{validated}."


def _span(numbers: Sequence[int]) -> str:
    """Return a number, or the least and the largest: each fold has others."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _curves(report: Report) -> list[Curve]:
    groups = {group.label: [run.rows for run in group.started] for group in report.groups if group.started}
    if not groups:
        return []
    curves = []
    guesses = {run.guess for run in report.runs}
    guess = guesses.pop() if len(guesses) == 1 else None
    guessed = dict(zip(MEASURES, guess or (None, None), strict=True))
    several = " (medians; the bands lie between the quartiles)" if max(map(len, groups.values())) > 1 else ""
    for measure, name in LABELS.items():
        said = []
        for label, runs in [*groups.items()][:GROUPS_SAID]:
            for part, column in parts_of(groups, measure).items():
                firsts, lasts = ([value_of(rows[i], column) for rows in runs] for i in (0, -1))
                what = ", ".join(filter(None, (label, part if measure in MEASURES else "")))
                said.append(f"{what} from {median(firsts):.3g} to {median(lasts):.3g}".strip())
        alt = f"{name} against the epoch: {'; '.join(said)}"
        svg = curves_svg(groups, measure, guessed.get(measure))
        curves.append(Curve(f"{name[0].upper()}{name[1:]}{several}", Markup(svg), alt))
    return curves


def _forest(comparison: Comparison | None) -> list[Curve]:
    """Draw the differences of accuracy with their intervals, where there are any."""
    rows = [
        (f"{pair.second} – {pair.first}", 100 * pair.accuracy.value, 100 * low, 100 * high)
        for pair in (comparison.pairs if comparison is not None else [])
        if (low := pair.accuracy.low) is not None and (high := pair.accuracy.high) is not None
    ]
    if not rows:
        return []
    said = "; ".join(f"{name} {value:+.1f} ({low:+.1f} to {high:+.1f})" for name, value, low, high in rows)
    title = "Differences of accuracy, with 95 % intervals"
    return [Curve(title, Markup(forest_svg(rows, "points of accuracy")), f"{title}: {said}")]


def _picture(report: Report, mistake: Mistake) -> Picture:
    classes = report.runs[0].classes
    often = f"wrong in {mistake.runs} of {mistake.judges} runs, " if len(report.runs) > 1 else ""
    said = classes.get(mistake.predicted, show_path(mistake.predicted))
    return _pictured(report, mistake.image, said, f"{often}{sure(mistake.p_predicted)}")


def _sides_have_several(comparison: Comparison | None) -> bool:
    return comparison is not None and any(len(side.runs) > 1 for side in comparison.sides)


def _flips(report: Report) -> list[Picture]:
    """Show the images that flip between the two sides; a group that was left out has no side."""
    comparison = report.comparison
    return [] if comparison is None else [_flip(report, comparison.pairs[0], flip) for flip in flips_shown(comparison)]


def _flip(report: Report, pair: Pair, flip: Flip) -> Picture:
    first, second = pair.first, pair.second
    if pair.alone is not None:
        detail = f"{first if flip.right_1 else second} is right, {second if flip.right_1 else first} is wrong"
    else:
        detail = f"right in {flip.right_1:.0%} of the runs of {first}, {flip.right_2:.0%} of {second}"
    return _pictured(report, ImageKey(flip.class_id, flip.file), "", detail)


def _pictured(report: Report, image: ImageKey, said: str, detail: str) -> Picture:
    jpeg = report.pictures.jpegs.get(image)
    label = report.labels.get(image, image.class_id)
    true = report.runs[0].classes.get(label, show_path(label))
    return Picture(data_url(jpeg), show_path(image.file), true, said, detail)
