"""Say how much better the best of several settings looks than it is, because it was chosen on the same images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelnet.compare.statistics import Values
from modelnet.runs.reader import RunReader

DRAWS = 400
_AT_ONCE = 20_000_000  # numbers


@dataclass(frozen=True)
class Selection:
    """The best of several settings, on the images that it was chosen on.

    Attributes:
        best: its number.
        settings: number of them.
        less: by how much its accuracy is expected to be lower on other images and with other seeds, 0..1.
        has_one_seed: whether a setting has one seed: the luck of seeds is not in `less` then.
    """

    best: int
    settings: int
    less: float
    has_one_seed: bool

    def __str__(self) -> str:
        """Return a sentence: "chosen among 32 on these images: expect about 1.4 points less"."""
        about = "at least about" if self.has_one_seed else "about"
        more = "; one seed a setting: its luck comes on top" if self.has_one_seed else ""
        points = f"{about} {100 * self.less:.1f} points less{more}"
        return f"chosen among {self.settings} on these images: expect {points}"


def select(
    settings: Sequence[NDArray[Any]], middle: Callable[..., Any] = np.nanmean, draws: int = DRAWS, seed: int = 0
) -> Selection:
    """Choose the best setting, and say how much less it is expected to have, by a bootstrap over images and seeds.

    In each draw the best setting is chosen by some images and seeds, drawn with replacement, and judged by those that
    were not drawn (Tsamardinos et al. 2018, for images). The mean of what it has there is what is to be expected.

    Args:
        settings: (seeds, N) of each, 1 where a network is right; all of the same images. At least two.
        middle: of the accuracies of seeds, with an axis and without NaN: np.nanmean or np.nanmedian.
        draws: of the bootstrap.
        seed: of its random numbers.
    """
    rng = np.random.default_rng(seed)
    images = settings[0].shape[1]
    seen = np.array([middle(right_RN.mean(1), axis=0) for right_RN in settings])
    best, found = int(seen.argmax()), list[Values]()
    at_once = max(1, min(draws, _AT_ONCE // images))
    for start in range(0, draws, at_once):
        some = min(at_once, draws - start)
        drawn_ND = rng.multinomial(images, np.full(images, 1 / images), size=some).T.astype(np.float32)
        left_ND = (drawn_ND == 0).astype(np.float32)
        drawn_ND /= images
        left_ND /= np.maximum(left_ND.sum(0), 1)
        sides = [_of_draws(rng, np.asarray(right_RN, np.float32), drawn_ND, left_ND, middle) for right_RN in settings]
        chosen_D = np.array([chosen for chosen, _ in sides]).argmax(0)
        found.append(np.array([judged for _, judged in sides])[chosen_D, np.arange(some)])
    less = float(seen[best] - np.concatenate(found).mean())
    return Selection(best, len(settings), max(0.0, less), any(len(right_RN) == 1 for right_RN in settings))


def select_runs(settings: Sequence[Sequence[Sequence[Path]]], middle: Callable[..., Any]) -> Selection | None:
    """Choose the best setting by what its runs predicted; None where they did not all validate on the same images.

    Args:
        settings: the seeds of each; of a seed its run, or those of all folds.
        middle: as for `select`.
    """
    seen = set[bytes]()
    rights = []
    for seeds in settings:
        rows = []
        for runs in seeds:
            answers = [answer for run in runs for answer in RunReader(run).read_predictions()]
            answers.sort(key=lambda p: (p.class_id, p.sha256, p.file))
            images = "\n".join(f"{answer.class_id} {answer.sha256}" for answer in answers)
            seen.add(sha256(images.encode("utf-8", "surrogateescape")).digest())
            rows.append(np.array([answer.correct for answer in answers], np.float32))
        if len(seen) != 1 or not len(rows[0]):
            return None
        rights.append(np.array(rows))
    return select(rights, middle)


def _of_draws(
    rng: np.random.Generator,
    right_RN: NDArray[np.float32],
    drawn_ND: NDArray[np.float32],
    left_ND: NDArray[np.float32],
    middle: Callable[..., Any],
) -> tuple[Values, Values]:
    """Return what a setting has in each draw: by the images and seeds that are drawn, and by the others; (D,) each."""
    seeds, draws = len(right_RN), drawn_ND.shape[1]
    chosen_RD, judged_RD = right_RN @ drawn_ND, right_RN @ left_ND
    if seeds == 1:
        return chosen_RD[0], judged_RD[0]
    which_RD = rng.integers(0, seeds, (seeds, draws))
    whole_D = (np.sort(which_RD, 0) == np.arange(seeds)[:, None]).all(0)
    which_RD[0, whole_D] = which_RD[1, whole_D]  # one seed at least is left to judge by
    used_RD = np.zeros((seeds, draws), bool)
    np.put_along_axis(used_RD, which_RD, True, 0)
    chosen = middle(np.take_along_axis(chosen_RD, which_RD, 0), axis=0)
    return chosen, middle(np.where(used_RD, np.nan, judged_RD), axis=0)
