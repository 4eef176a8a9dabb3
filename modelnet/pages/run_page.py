"""Show what a network looks at as a page: heat maps of its surest mistakes, and a map of its last layer's features."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelnet.data.batches import Batches
from modelnet.data.caches import match_labels
from modelnet.data.relabel import key_class
from modelnet.eval.heat_maps import heat_maps, last_features, principal_components
from modelnet.eval.own_images import seen_images
from modelnet.eval.trained import BATCH_SIZE, Trained
from modelnet.nets.registry import LINEAR
from modelnet.pages.document import Picture, data_url, jpeg_of, render_page
from modelnet.pages.mistakes import ImageKey, Mistake, find_mistakes, sure
from modelnet.pages.run import Run
from modelnet.plots.palette import color_of
from modelnet.runs.tables import Prediction
from pipeline import TensorCache
from pipeline.errors import OptionsError
from pipeline.load.normalize import pixels_of
from pipeline.text import counted, show_path

MISTAKES = 12  # with heat maps
POINTS = 240  # of the map, at most
SIDE, POINT_SIDE = 224, 48  # pixels of a picture, and of one on the map
WIDTH, HEIGHT, EDGE = 1000, 640, 40  # of the map, in its own units
CLASSES_NAMED = 24
OPACITY = 0.7  # of the brightest part of a heat map


class Point(NamedTuple):
    """An image on the map: its position, its picture, the colors of its frames and its text."""

    x: float
    y: float
    source: str
    color: str
    said_color: str
    text: str


def show_run(run: Path, checkpoint: str | None = None, device: str = "auto", *, trust_code: bool = False) -> bytes:
    """Render what the network of a run looks at, as one self-contained HTML page in UTF-8.

    Heat maps (LayerCAM) stand beside the surest mistakes on the validation images; a map shows up to 240 images by the
    two main directions (PCA) of what the last layer is given. Without validation images it shows training images.

    Args:
        run, checkpoint, device, trust_code: as `Trained.load` has them.

    Raises:
        CacheStale: the images have changed since the run. CacheMissing: they are gone.
        As `Trained.load` otherwise.
    """
    trained, read = Trained.load(run, checkpoint, device, trust_code=trust_code), Run.read(run)
    images = Images(trained, *seen_images(run, trained.options))
    mistakes = find_mistakes([_answers(trained, read)])[:MISTAKES]
    pictured, why_none = _pictured(images, read, mistakes)
    points, share, right = _map(images, list(read.classes.values()))
    kind = "validation" if trained.options.validates else "training"
    return render_page(
        "run.html.jinja",
        title=f"What {show_path(run.name)} sees",
        about=f"A network {show_path(read.options.model)} for {counted(len(read.classes), 'class', 'classes')}, "
        f"on {kind} images of {show_path(images.cache.path.name)}.",
        notes=_notes(trained, read, why_none),
        mistakes=pictured,
        points=points,
        legend=[(name, color_of(label)) for label, name in enumerate(read.classes.values())][:CLASSES_NAMED],
        map_about=f"{counted(len(points), 'image')}, {right} of them predicted rightly, placed by the two main "
        "directions of the input to the last layer. "
        f"These hold {share:.0%} of its variance; each axis has its own scale.",
        width=WIDTH,
        height=HEIGHT,
    )


def _answers(trained: Trained, run: Run) -> list[Prediction]:
    """Return what these weights say of the validation images: predictions.csv is of the result alone."""
    if not trained.options.validates:
        return []
    return run.predictions if trained.is_result and run.state.has_result else trained.validation()


class Images:
    """Images of a cache as the network sees them.

    Attributes:
        trained: the network.
        cache: the images, or features.
        rows: that are meant.
    """

    def __init__(self, trained: Trained, cache: TensorCache, rows: Tensor | None) -> None:
        self.trained, self.cache = trained, cache
        self.rows: Sequence[int] = range(cache.num_images) if rows is None else rows.tolist()
        self._labels = match_labels(trained.class_ids, trained.recipe, cache, trained.features, "the run")
        self._batches = Batches(cache, trained.device, BATCH_SIZE, crop_size=trained.options.crop)

    def seen(self, rows: Sequence[int]) -> Tensor:
        """Return (B, 3, H, W) float32 on the device of the network."""
        return self._batches.seen(torch.tensor(rows, dtype=torch.int64), 0).images

    def pixels(self, images_NCHW: Tensor) -> NDArray[np.uint8]:
        """Return (B, 3, H, W) uint8: what normalized images were made of."""
        return pixels_of(images_NCHW.cpu(), self.cache.recipe).numpy()

    def row(self, image: ImageKey) -> int | None:
        """Return the row of an image; None where there is none."""
        rows = self.cache.rows_of(image.file)
        return next((row for row in rows if str(key_class(self.cache, row)) == image.class_id), None)

    def labels(self, rows: Sequence[int]) -> list[int]:
        """Return the true label of each image, in the network's numbering."""
        return list(self._labels[self.cache.labels[list(rows)]].tolist())


def _pictured(images: Images, run: Run, mistakes: Sequence[Mistake]) -> tuple[list[list[Picture]], str]:
    """Return each mistake with what spoke for the predicted class, and for the true one; and why there is no such map.

    Raises:
        CacheDamaged: an image is not as it was written.
    """
    found = [(mistake, row) for mistake in mistakes if (row := images.row(mistake.image)) is not None]
    if not found or images.trained.features is not None:
        return [], "" if images.trained.features is None else f"{LINEAR} takes features, and no images"
    rows, names = [row for _, row in found], list(run.classes.values())
    seen, true = images.seen(rows), images.labels(rows)
    said = [list(run.classes).index(mistake.predicted) for mistake, _ in found]
    pixels, maps, why_none = images.pixels(seen), {}, ""
    try:
        for kind, labels in (("predicted", torch.tensor(said)), ("true", torch.tensor(true))):
            maps[kind] = torch.cat(
                [
                    heat_maps(images.trained.network, *part)
                    for part in zip(seen.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)
                ]
            ).numpy()
    except OptionsError as error:
        why_none = error.reason
    pictured = []
    for number, (mistake, _) in enumerate(found):
        file = show_path(mistake.image.file)
        detail = sure(mistake.p_predicted)
        pair = names[true[number]], names[said[number]]
        group = [Picture(data_url(jpeg_of(pixels[number], SIDE)), file, *pair, detail)]
        for kind, name in zip(maps, reversed(pair), strict=False):
            heated = jpeg_of(overlay(pixels[number], maps[kind][number]), SIDE)
            group.append(Picture(data_url(heated), kind, f"for {name}"))
        pictured.append(group)
    return pictured, why_none


def overlay(pixels_CHW: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a grey picture, (3, H, W) uint8, with a map of 0..1 laid over it: dark red to yellow."""
    import matplotlib

    colors_HWC = matplotlib.colormaps["inferno"](map_HW)[..., :3] * 255
    grey_1HW = pixels_CHW.mean(0, keepdims=True)
    opacity_HW = OPACITY * map_HW
    mixed = grey_1HW * (1 - opacity_HW) + colors_HWC.transpose(2, 0, 1) * opacity_HW
    return np.asarray(mixed.round().clip(0, 255), np.uint8)


def _map(images: Images, names: Sequence[str]) -> tuple[list[Point], float, int]:
    """Return the points of the map, those that are predicted wrongly on top; their share of the variance, and how many
    are right.
    """
    rows = _spread(images.rows)
    parts, pictures = [], []
    for start in range(0, len(rows), BATCH_SIZE):
        seen = images.seen(rows[start : start + BATCH_SIZE])
        parts.append(last_features(images.trained.network, seen))
        if images.trained.features is None:
            pictures += [data_url(jpeg_of(one, POINT_SIDE, 75)) for one in images.pixels(seen)]
    features, logits = (torch.cat(part) for part in zip(*parts, strict=True))
    places, share = principal_components(features)
    low, high = places.amin(0), places.amax(0)
    scaled = ((places - low) / (high - low).clamp(min=1e-12)).tolist()
    labels, said = images.labels(rows), logits.argmax(1).tolist()
    points = []
    for i, (x, y) in enumerate(scaled):
        taken = "" if said[i] == labels[i] else f", taken for {names[said[i]]}"
        text = f"{show_path(images.cache.filenames[rows[i]])}: {names[labels[i]]}{taken}"
        place = EDGE + x * (WIDTH - 2 * EDGE), HEIGHT - EDGE - y * (HEIGHT - 2 * EDGE)
        source = pictures[i] if pictures else ""
        points.append(Point(*place, source, color_of(labels[i]), color_of(said[i]) if taken else "", text))
    return sorted(points, key=lambda point: point.said_color != ""), share, labels_right(labels, said)


def labels_right(labels: Sequence[int], said: Sequence[int]) -> int:
    """Count the images whose label was said."""
    return sum(label == answer for label, answer in zip(labels, said, strict=True))


def _spread(rows: Sequence[int]) -> list[int]:
    """Return the rows of the map, evenly spread over all that are meant."""
    count = min(POINTS, len(rows))
    return [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]


def _notes(trained: Trained, run: Run, why_no_maps: str) -> list[str]:
    notes = [f"{trained.note[0].upper()}{trained.note[1:]}."] if trained.note else []
    if not trained.options.validates:
        notes.append("The run had no validation images: the map shows training images, and no mistakes.")
    if not run.has_ended and (run.rows or not run.predictions):  # metrics.csv may be lost
        notes.append("The run has not come to its end: these are its weights so far.")
    if why_no_maps:
        notes.append(f"No heat maps: {why_no_maps}.")
    return notes
