"""Find the validation images that runs got wrong, and read their pictures from the cache."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from modelnet.data.caches import find, has_rows_of
from modelnet.options import TrainOptions
from modelnet.pages.document import jpeg_of
from modelnet.runs.tables import Prediction
from pipeline import TensorCache
from pipeline.errors import CacheDamaged, PipelineError
from pipeline.load.normalize import pixels_of
from pipeline.recipe import Recipe
from pipeline.text import show_path

LARGEST = 448  # pixels of a side; shown small, and as large as the window after a click


class ImageKey(NamedTuple):
    """An image's class and file: two classes may have the same file name."""

    class_id: str
    file: str


@dataclass(frozen=True)
class Mistake:
    """An image that at least one run predicted wrongly.

    Attributes:
        image: which one.
        predicted: the wrong class that was said most often.
        runs: that got it wrong.
        p_predicted, p_true: means over these runs.
        judges: number of runs that validated on it; of a split's folds one in each seed.
    """

    image: ImageKey
    predicted: str
    runs: int
    p_predicted: float
    p_true: float
    judges: int


def find_mistakes(runs: Iterable[Sequence[Prediction]]) -> list[Mistake]:
    """Return the wrongly predicted images: those wrong in most runs first, then the most confident.

    Args:
        runs: what each says of its images.
    """
    judges = Counter[ImageKey]()
    wrong: dict[ImageKey, list[Prediction]] = defaultdict(list)
    for predictions in runs:
        for prediction in predictions:
            judges[ImageKey(prediction.class_id, prediction.file)] += 1
            if not prediction.correct:
                wrong[ImageKey(prediction.class_id, prediction.file)].append(prediction)
    mistakes = [
        Mistake(
            image,
            Counter(p.predicted for p in answers).most_common(1)[0][0],
            len(answers),
            sum(p.p_predicted for p in answers) / len(answers),
            sum(p.p_true for p in answers) / len(answers),
            judges[image],
        )
        for image, answers in wrong.items()
    ]
    return sorted(mistakes, key=lambda m: (-m.runs, -m.p_predicted, m.image))


def sure(probability: float) -> str:
    """Return how sure a prediction is: never 0 % or 100 %."""
    if probability >= 0.995:
        return "over 99% sure"
    return f"{probability:.0%} sure" if probability >= 0.005 else "under 1% sure"


@dataclass(frozen=True)
class Pictures:
    """JPEG thumbnails of the images that the cache still holds unchanged.

    Attributes:
        jpegs: by image.
        missing: why some are left out, or "".
    """

    jpegs: dict[ImageKey, bytes]
    missing: str = ""


def read_pictures(run: Path, options: TrainOptions, fingerprint: str, images: Iterable[ImageKey]) -> Pictures:
    """Make thumbnails of validation images, from the tensors that the network saw.

    Args:
        run: its folder, beside which the cache is looked for too.
        options: name the cache.
        fingerprint: of the cache when the run began.
        images: which ones.
    """
    try:
        cache = TensorCache(find(options.val or options.cache, run, fingerprint))
    except PipelineError as error:
        return Pictures({}, str(error))
    if not has_rows_of(cache, fingerprint):
        return Pictures({}, f"{show_path(cache.path)} has changed since the run")
    if cache.features is not None:
        return Pictures({}, f"{show_path(cache.path)} holds features, not images")
    jpegs, missing = {}, ""
    labels = {str(class_id): label for label, class_id in enumerate(cache.class_ids)}
    for image in images:
        label = labels.get(image.class_id)
        rows = [row for row in cache.rows_of(image.file) if int(cache.labels[row]) == label]
        try:
            if rows:
                jpegs[image] = thumbnail(cache.read(torch.tensor(rows[:1]))[0], cache.recipe)
        except CacheDamaged as error:
            missing = str(error)
    return Pictures(jpegs, missing)


def thumbnail(image_CHW: Tensor, recipe: Recipe) -> bytes:
    """Turn a normalized image back into a picture of at most `LARGEST` pixels a side, a JPEG."""
    return jpeg_of(pixels_of(image_CHW[None], recipe)[0].numpy(), LARGEST)
