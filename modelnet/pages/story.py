"""Tell the story of runs in three sentences: what was trained, how it went, what came out."""

from statistics import mean, median

from modelnet.eval.scores import accuracy_interval
from modelnet.pages.collect import Group, Report
from modelnet.pages.run import Run
from modelnet.plots.confusion import confused_pairs
from pipeline.text import counted, show_path


def story_of(report: Report) -> str:
    """Tell in three sentences what was trained, how it went, and what came out."""
    started = [run for run in report.runs if run.rows]
    if not started:
        return ""
    if len(report.groups) == 1:
        one = len(report.runs) == 1
        return _story_of_one(report.runs[0]) if one else _story_of_seeds(report.groups[0])
    return _story_of_groups(report)


def _story_of_one(run: Run) -> str:
    first, last, best = run.rows[0], run.result, run.best_epoch
    begin = "from pretrained weights" if run.options.weights else "from scratch"
    sentences = [
        f"{show_path(run.options.model)} was trained {begin} on {counted(sum(run.counts), 'image')} of "
        f"{counted(len(run.classes), 'class', 'classes')} for {counted(run.epochs_done, 'epoch')}."
    ]
    went = f"Its training loss went from {first.train_loss:.3g} to {last.train_loss:.3g}"
    if len(run.rows) == 1:
        went = f"Its training loss was {last.train_loss:.3g}"
    elif best.val_acc is not None and last.val_acc is not None:
        went += f"; validation accuracy was highest in epoch {best.epoch} ({best.val_acc:.1%})"
        went += f" and {last.val_acc:.1%} at the end" if best is not last else ""
    sentences.append(f"{went}.")
    if run.scores is None:
        sentences.append("There are no scores of validation images to judge it by.")
        return " ".join(sentences)
    right = round(run.scores.accuracy * run.scores.images)
    low, high = accuracy_interval(right, run.scores.images)
    came = f"It is right about {right:,} of {counted(run.scores.images, 'validation image')}"
    came += f" (95 % interval {low:.1%} to {high:.1%})"
    names = list(run.classes.values())
    for count, true, said in confused_pairs(run.scores.confusion)[:1]:
        came += f", and most often takes {names[true]} for {names[said]} ({counted(count, 'image')})"
    return " ".join([*sentences, f"{came}."])


def _story_of_seeds(group: Group) -> str:
    started = group.started
    converged = sum(run.converged for run in started)
    ends = [one.result for one in started]
    accuracies = [row.val_acc for row in ends if row.val_acc is not None]
    sentences = [
        f"{counted(len(group.runs), 'run')} of {show_path(started[0].options.model)} on "
        f"{counted(sum(group.counts), 'image')} differ in their {' and '.join(group.differs_in)} alone.",
        f"{converged} of them converged; the median training loss is {median(row.train_loss for row in ends):.3g}.",
    ]
    if accuracies:
        luck = " and ".join("the images of each fold" if name == "folds" else "the seeds" for name in group.differs_in)
        sentences.append(
            f"Their validation accuracy is {mean(accuracies):.1%} on average, from {min(accuracies):.1%} to "
            f"{max(accuracies):.1%}: that is the luck of {luck}."
        )
    return " ".join(sentences)


def _story_of_groups(report: Report) -> str:
    accuracies = {}
    for group in report.groups:
        values = [run.result.val_acc for run in group.started]
        if known := [value for value in values if value is not None]:
            accuracies[group.label] = mean(known)
    sentences = [f"{counted(len(report.runs), 'run')} in {len(report.groups)} groups are compared."]
    if len(accuracies) > 1:
        best, worst = max(accuracies, key=accuracies.__getitem__), min(accuracies, key=accuracies.__getitem__)
        high, low = f"{accuracies[best]:.1%}", f"{accuracies[worst]:.1%}"
        differs = f"highest with {best} ({high}) and lowest with {worst} ({low})"
        sentences.append(f"Mean validation accuracy is {differs if high != low else f'the same ({high})'}.")
    if report.comparison is None:
        sentences.append("Whether that is more than luck cannot be said of these runs.")
    elif len(report.comparison.pairs) == 1:
        (pair,) = report.comparison.pairs
        all_are_compared = len(report.groups) == 2  # others may be the best and the worst
        asked = "Beyond luck" if all_are_compared else f"{pair.second} against {pair.first}"
        sentences.append(f"{asked}: {pair.verdict}.")
    else:
        beyond = [pair for pair in report.comparison.pairs if pair.better is not None]
        first = report.comparison.pairs[0].first
        sentences.append(f"{len(beyond)} of {len(report.comparison.pairs)} groups differ from {first} beyond chance.")
    return " ".join(sentences)
