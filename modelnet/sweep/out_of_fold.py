"""Judge each image by the networks that never saw it: those of its fold, over all seeds."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modelnet.eval.evaluate import Outcome, predictions_of
from modelnet.eval.own_images import validation_images
from modelnet.eval.scores import accuracy_interval
from modelnet.eval.trained import Trained
from modelnet.options import TrainOptions
from modelnet.runs.folder import RunFolder
from modelnet.runtime.ranks import Ranks
from pipeline.text import show_path


@dataclass(frozen=True)
class OutOfFold:
    """The out-of-fold predictions of a setting, as out_of_fold.csv in the folder of its first network has them.

    Attributes:
        first: number of that network in its group.
        table: the file.
        seeds: number of networks that judged each image.
        folds: number of folds.
        images: N.
        accuracy: of the mean of their probabilities, 0..1.
        chosen: whether an option used these images while training, so that the accuracy is a little too high.
    """

    first: int
    table: Path
    seeds: int
    folds: int
    images: int
    accuracy: float
    chosen: bool

    def __str__(self) -> str:
        """Return the accuracy with its interval, and what it is of."""
        low, high = accuracy_interval(round(self.accuracy * self.images), self.images)
        chosen = "; --patience or --sched plateau used these images: it is a little too high" if self.chosen else ""
        judges = f"the mean of {self.seeds} networks" if self.seeds > 1 else "a network"
        return (
            f"out of fold: accuracy {self.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}) on {self.images} "
            f"images, each judged by {judges} that never saw it: {show_path(self.table)}{chosen}"
        )


def out_of_fold(
    members: Sequence[TrainOptions],
    runs: Sequence[Path],
    settings: Iterable[Sequence[int]],
    finished: Container[int],
    own: Container[int],
    ranks: Ranks,
) -> list[OutOfFold]:
    """Write out_of_fold.csv of each setting, from the seeds whose networks of all folds have ended.

    Args:
        members, runs: options and folders of all networks.
        settings: numbers of the networks of each.
        finished: numbers of those that have ended. One whose checkpoints were removed since judges no image.
        own: those that this rank trained; it judges by them.
        ranks: of which the first writes.
    """
    judges = {i for i, run in enumerate(runs) if i in finished and RunFolder(run).has_weights}
    whole = [networks for setting in settings if (networks := whole_seeds(members, setting, judges))]
    mine = {i: probabilities(runs[i], members[i].device) for networks in whole for i in networks if i in own}
    found = {i: value for part in ranks.gather_objects(mine) for i, value in part.items()}
    return [
        write_out_of_fold(
            *(networks[0], RunFolder(runs[networks[0]])),
            [int(members[i].fold or 0) for i in networks],
            [found[i] for i in networks],
        )
        for networks in whole
        if ranks.is_main
    ]


def whole_seeds(members: Sequence[TrainOptions], setting: Sequence[int], finished: Container[int]) -> list[int]:
    """Return the networks of a setting whose seed has finished all folds; none where a fold alone was trained."""
    seeds: dict[tuple[int, int], list[int]] = {}
    for i in setting:
        seeds.setdefault((members[i].seed, members[i].data_seed), []).append(i)
    folds = {members[i].fold for i in setting}
    done = [[i for i in networks if i in finished] for networks in seeds.values()]
    whole = [networks for networks in done if {members[i].fold for i in networks} == folds]
    return [i for networks in whole for i in networks] if len(folds) > 1 else []


def probabilities(run: Path, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the network of a run says of its validation images.

    Returns:
        (M,) int64 rows of the cache; (M,) int64 labels; (M, C) float64 probabilities.
    """
    batches, outcome = Trained.load(run, device=device).validate()
    return batches.subset, outcome.labels_N, outcome.logits_NC.double().softmax(1)


def write_out_of_fold(
    first: int, folder: RunFolder, folds: Sequence[int], judged: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> OutOfFold:
    """Write out_of_fold.csv: each image, judged by the mean of the probabilities that its networks give.

    Args:
        first: number of the first network.
        folder: of that network.
        folds: fold of each network.
        judged: what each says, as `probabilities` returns it.
    """
    trained = Trained.load(folder.path, device="cpu")
    cache, _ = validation_images(folder.path, trained.options)
    means_NC = torch.zeros(cache.num_images, len(trained.class_ids), dtype=torch.float64)
    labels_N, folds_N = torch.full((2, cache.num_images), -1)
    for fold, (rows, labels, probabilities_NC) in zip(folds, judged, strict=True):
        means_NC[rows] += probabilities_NC
        labels_N[rows], folds_N[rows] = labels, fold
    rows = torch.nonzero(folds_N >= 0).ravel()
    seeds = len(judged) // len(set(folds))
    outcome = Outcome((means_NC[rows] / seeds).log(), labels_N[rows])
    predictions = predictions_of(outcome, cache, rows, trained.class_ids)
    table = folder.write_out_of_fold(predictions, folds_N[rows].tolist())
    chosen = trained.options.patience is not None or trained.options.sched == "plateau"
    return OutOfFold(first, table, seeds, len(set(folds)), len(rows), outcome.accuracy, chosen)
