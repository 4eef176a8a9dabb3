"""The tables of a report's page: confusion, classes, options, environment."""

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass
from statistics import median
from typing import Any, NamedTuple

from modelnet.compare.result import Comparison, show_p, show_points
from modelnet.options import OPTIONS, TrainOptions
from modelnet.options.declaration import as_text
from modelnet.pages.collect import Group
from modelnet.pages.run import Run
from modelnet.plots.confusion import confused_pairs
from pipeline.format.features import Features
from pipeline.recipe import Recipe
from pipeline.text import counted, shorten, show_path

MATRIX_UP_TO = 20  # classes; with more, the pairs that are most often confused are shown instead
PAIRS, CONFUSED = 20, 12  # pairs, and classes in the matrix of many
CLASSES_UP_TO = 30  # classes; with more, the extremes are shown, and all behind a click
EXTREMES = 10
VALUES = 8  # of an option


class Bar(NamedTuple):
    """A cell with a bar behind its text, as long as its share of the longest."""

    text: str
    share: float


@dataclass(frozen=True)
class Table:
    """A caption, a heading for each column, and rows whose first cell names them; numbers are aligned at the right."""

    caption: str
    header: list[str]
    rows: Sequence[Sequence[str | Bar]]
    numbers: bool = True


def percent(value: float | None) -> str:
    """Return 0.614 as "61.4%"; a dash for None."""
    return "–" if value is None else f"{value:.1%}"


class MatrixRow(NamedTuple):
    """A row of the confusion matrix: the true class, and count and share of each predicted class."""

    name: str
    cells: list[tuple[int, float]]


class Matrix(NamedTuple):
    """The confusion matrix, or the part of a large one with the classes that are most often confused."""

    caption: str
    rows: list[MatrixRow]


def matrix(group: Group) -> Matrix | None:
    """Return the confusion matrix of up to 20 classes, else that of the 12 most often confused; None without one."""
    names, confusion = list(group.runs[0].classes.values()), group.confusion
    if confusion is None:
        return None
    chosen = list(range(len(names)))
    caption = "Confusion matrix"
    if len(names) > MATRIX_UP_TO:
        chosen = _most_confused(confusion)
        caption = f"Confusion matrix of the {len(chosen)} classes most often confused; other classes are left out"
    rows = []
    for true in chosen:
        counts, images = confusion[true], max(sum(confusion[true]), 1)
        rows.append(MatrixRow(names[true], [(counts[said], counts[said] / images) for said in chosen]))
    return Matrix(caption, rows) if rows else None


def _most_confused(confusion: Sequence[Sequence[int]]) -> list[int]:
    """Return the labels of the pairs that are most often confused, those of a pair side by side."""
    labels: dict[int, None] = {}
    for _, true, said in confused_pairs(confusion):
        wanted = [label for label in (true, said) if label not in labels]
        if len(labels) + len(wanted) <= CONFUSED:
            labels |= dict.fromkeys(wanted)
    return list(labels)


def pairs_table(group: Group) -> Table | None:
    """Return the pairs of classes that are most often confused, where there are too many for a matrix."""
    names = list(group.runs[0].classes.values())
    if group.confusion is None or len(names) <= MATRIX_UP_TO:
        return None
    pairs = confused_pairs(group.confusion)
    rows = [
        [names[true], names[said], f"{count:,}", percent(count / sum(group.confusion[true]))]
        for count, true, said in pairs[:PAIRS]
    ]
    header = ["true class", "predicted as", "images", "of the true class"]
    return Table("The pairs of classes most often confused", header, rows)


def pair_table(comparison: Comparison) -> Table:
    """Return how far each other side is above the first, and how far chance reaches."""
    rows = []
    for pair in comparison.pairs:
        accuracy, loss = pair.accuracy, pair.loss
        row = [f"{pair.second} against {pair.first}", f"{100 * accuracy.value:+z.1f}"]
        if accuracy.low is None or accuracy.high is None or pair.p_adjusted is None:
            rows.append([*row, "too few runs", "–", f"{loss.value:+z.4f}", "too few runs"])
        else:
            ends = show_points(accuracy.low, accuracy.high, "+"), f"{loss.low:+z.4f} to {loss.high:+z.4f}"
            rows.append([*row, ends[0], show_p(pair.p_adjusted), f"{loss.value:+z.4f}", ends[1]])
    header = ["", "accuracy, points", "95 % interval", "p", "loss", "95 % interval"]
    return Table(f"Differences on the {comparison.images:,} validation images", header, rows)


def class_tables(group: Group) -> tuple[str, list[Table], Table | None]:
    """Return a sentence on the balance of the classes, the tables shown, and one of all classes where they are many."""
    counts, val_counts, scores = group.counts, group.val_counts, group.class_scores
    names = list(group.runs[0].classes.values())
    header = ["class", "training images"]
    header += [] if val_counts is None else ["validation images"]
    header += [] if scores is None else ["precision", "recall", "F1"]
    rows: list[list[str | Bar]] = []
    for k, name in enumerate(names):
        row: list[str | Bar] = [name, Bar(f"{counts[k]:,}", counts[k] / max(*counts, 1))]
        row += [] if val_counts is None else [f"{val_counts[k]:,}"]
        row += [] if scores is None else list(map(percent, (scores[k].precision, scores[k].recall, scores[k].f1)))
        rows.append(row)
    if len(rows) <= CLASSES_UP_TO:
        return _balance(counts, names), [Table("The classes", header, rows)], None
    if scores is None:
        order, ends = sorted(range(len(rows)), key=lambda k: counts[k]), ("smallest", "largest")
    else:
        order = sorted((k for k in range(len(rows)) if scores[k].images), key=lambda k: (scores[k].f1 or 0, k))
        ends = ("worst", "best")
    parts = [
        Table(f"The {EXTREMES} {end} classes", header, [rows[k] for k in chosen])
        for end, chosen in zip(ends, (order[:EXTREMES], order[: -EXTREMES - 1 : -1]), strict=True)
    ]
    return _balance(counts, names), parts, Table(f"All {len(rows):,} classes", header, rows)


def _balance(counts: list[int], names: list[str]) -> str:
    present = [count for count in counts if count]
    without = len(counts) - len(present)
    empty = f"; {without} {'class has' if without == 1 else 'classes have'} none" if without else ""
    if len(set(present)) <= 1:
        return f"Every class has {max(counts):,} training images{empty}."
    most, least = counts.index(max(present)), counts.index(min(present))
    return (
        f"From {min(present):,} training images ({names[least]}) to {max(present):,} ({names[most]}), "
        f"median {median(present):,.0f}: {max(present) / min(present):.3g} to 1{empty}."
    )


def differing_options(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Return the options in which the groups differ, with the value of each group."""
    compared = [option for option in OPTIONS.values() if option.compared]
    differing = {option.flag: [", ".join(_values(group.runs, option.name)) for group in groups] for option in compared}
    return {flag: values for flag, values in differing.items() if len(set(values)) > 1}


def option_tables(groups: Sequence[Group]) -> list[Table]:
    """Return tables of the options: those that are not at their defaults, and the others; each with all its values."""
    changed, others = [], []
    runs = [run for group in groups for run in group.runs]
    for option in OPTIONS.values():
        if option.name == "name":
            continue
        shown = [option.flag, shorten(_values(runs, option.name), VALUES)]
        if any(getattr(run.options, option.name) != option.default for run in runs):
            changed.append([*shown, option.default_text or show_value(option.default)])
        else:
            others.append(shown)
    return [
        Table("Options not at their defaults", ["option", "value", "default"], changed, numbers=False),
        Table("Options at their defaults", ["option", "value"], others, numbers=False),
    ]


def _values(runs: Iterable[Run], name: str) -> list[str]:
    """Return the values that runs have, each once."""
    options = [run.options for run in runs]
    whole = list(dict.fromkeys(getattr(one, name) for one in options))
    if len(whole) > 2 and type(whole[0]) is int and whole == list(range(whole[0], whole[0] + len(whole))):
        return [f"{whole[0]} to {whole[-1]}"]
    texts = [_rate(one) if name == "lr" and one.lr is None else show_value(getattr(one, name)) for one in options]
    return list(dict.fromkeys(texts))


def _rate(options: TrainOptions) -> str:
    """Return the learning rate where nobody gave one, and why it is that."""
    return f"{options.learning_rate:g} ({options.learning_rate_reason})"


def show_value(value: Any) -> str:
    """Return the value of an option: "yes", "no", a dash for none, else as it is typed."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value in (None, "", (), MISSING) else show_path(as_text(value))


def environment_table(runs: Sequence[Run]) -> Table:
    """Return a table of devices, versions and images; where the runs differ, all values."""
    described = [_environment(run) for run in runs]
    names = dict.fromkeys(name for one in described for name in one)
    rows = [[name, "; ".join(dict.fromkeys(one[name] for one in described if name in one))] for name in names]
    return Table("Devices, versions and images", ["", ""], rows, False)


def _environment(run: Run) -> dict[str, str]:
    config = run.config
    threads = f", threads: {config['threads']}" if "threads" in config else ""
    threads += f", of the last layer: {config['head_threads']}" if "head_threads" in config else ""
    shown = {"device": f"{config.get('device', '–')} ({config.get('device_name', '–')}){threads}"}
    shown |= {name: str(version) for name, version in config.get("versions", {}).items() if version}
    if labels := config.get("labels"):
        shown["labels"] = f"{show_path(run.options.labels or '')}, SHA-256 {labels['sha256']}"
        if labels.get("left_out"):
            shown["labels"] += f"; {counted(labels['left_out'], 'image')} in no row left out"
    if weights := config.get("weights"):
        shown["initial weights"] = f"{show_path(run.options.weights or '')}, SHA-256 {weights['sha256']}"
    shown["git commit"] = config.get("git_commit") or "none: not run from a checkout"
    sides = {"training images": (config["cache"], run.options.cache)}
    if config["val"] is not None:
        sides["validation images"] = (config["val"], run.options.val or run.options.cache)
    for side, (images, path) in sides.items():
        recipe = Recipe.from_dict(images["recipe"])
        size = f", {recipe.size[0]} × {recipe.size[1]}, {recipe.dtype}"
        if images.get("features"):
            size = f", {Features.from_dict(images['features'])}"
        shown[side] = f"{images['images']:,} of {show_path(path)}{size}, fingerprint {images['fingerprint'][:16]}"
    return {name: show_path(value) for name, value in shown.items()}
