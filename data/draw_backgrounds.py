"""Draw the grounds of the pictures of draw_example.py: each is a height field in 0..1, colored by a palette."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float64]
Size = tuple[int, int]  # width, height


def clouds(rng: np.random.Generator, size: Size, cell: tuple[float, float], octaves: int = 4) -> Array:
    """Smooth noise of (height, width) in 0..1; `cell` is the size in pixels of its largest features."""
    field = np.zeros((size[1], size[0]))
    for octave in range(octaves):
        grid = [int(np.ceil(side * 2**octave / step)) + 3 for side, step in zip(size, cell, strict=True)]
        grid = [min(cells, side) for cells, side in zip(grid, size, strict=True)]
        coarse = rng.random((grid[1], grid[0]), dtype=np.float32)
        field += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)) / 1.7**octave
    low, high = float(field.min()), float(field.max())
    return (field - low) / (high - low)


def water(rng: np.random.Generator, size: Size) -> Array:
    """Waves that run across the picture, bright on their crests."""
    unit = max(size) / 20
    swell = clouds(rng, size, (6 * unit, 2 * unit))
    rows = np.arange(size[1])[:, None] / unit
    crests = 0.5 + 0.5 * np.sin(rng.uniform(2, 4) * rows + 9 * swell)
    return 0.6 * swell + 0.4 * crests**3


def grass(rng: np.random.Generator, size: Size) -> Array:
    """Blades as strokes, the later ones brighter, over a dark ground."""
    ground = Image.fromarray((80 * clouds(rng, size, (40, 40))).astype(np.uint8))
    draw, unit = ImageDraw.Draw(ground), max(size) / 20
    for shade in np.linspace(40, 230, 1200):
        x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1] + 2 * unit)
        lean, length = rng.normal(0, 0.8) * unit, rng.uniform(1, 2.5) * unit
        fill = int(shade * rng.uniform(0.5, 1))
        draw.line((x, y, x + lean, y - length), fill=fill, width=max(1, int(unit / 9)))
    return np.asarray(ground) / 255


def sand(rng: np.random.Generator, size: Size) -> Array:
    """Grains, and ripples that bend."""
    unit = max(size) / 20
    bend = clouds(rng, size, (8 * unit, 8 * unit), 2)
    y, x = np.mgrid[: size[1], : size[0]] / unit
    ripples: Array = 0.5 + 0.5 * np.sin(2 * (x * rng.uniform(-1, 1) + y) + 12 * bend)
    return 0.5 * bend + 0.2 * ripples + 0.3 * clouds(rng, size, (4, 4), 2)


def leaves(rng: np.random.Generator, size: Size) -> Array:
    """Fallen leaves with a rib each, in any direction."""
    litter = Image.new("L", size, 50)
    draw, unit = ImageDraw.Draw(litter), max(size) / 20
    along = np.concatenate([np.linspace(-1, 1, 9), np.linspace(1, -1, 9)])
    across = (1 - along**2) * np.repeat([0.4, -0.4], 9)
    for _ in range(420):
        turn = np.exp(1j * rng.uniform(0, 2 * np.pi)) * unit * rng.uniform(0.6, 1.5)
        outline = (along + 1j * across) * turn + rng.uniform(0, size[0]) + 1j * rng.uniform(0, size[1])
        points = list(zip(outline.real, outline.imag, strict=True))
        shade = int(rng.uniform(40, 220))
        draw.polygon(points, fill=shade, outline=shade // 2)
        draw.line((points[0], points[8]), fill=min(255, shade + 30))
    return np.asarray(litter) / 255


def wood(rng: np.random.Generator, size: Size) -> Array:
    """Planks with grain, lying or standing."""
    width, height = size if rng.random() < 0.5 else size[::-1]
    unit = max(size) / 20
    grain = clouds(rng, (width, height), (12 * unit, unit))
    rows = np.arange(height) / (unit * rng.uniform(3, 6))
    shade = rng.uniform(-0.15, 0.15, int(rows[-1]) + 1)[rows.astype(int)]
    gap = np.where(rows % 1 < 0.04, 0.2, 1.0)
    field: Array = np.clip(0.2 + 0.6 * grain + shade[:, None], 0, 1) * gap[:, None]
    return field if (width, height) == size else field.T


def rock(rng: np.random.Generator, size: Size) -> Array:
    """Lumps, and cracks where two noises cross."""
    unit = max(size) / 20
    cracks: Array = np.abs(clouds(rng, size, (6 * unit, 6 * unit)) - clouds(rng, size, (5 * unit, 5 * unit)))
    lumps = clouds(rng, size, (3 * unit, 3 * unit), 6)
    return 0.7 * lumps + 0.3 * np.minimum(1, 12 * cracks)


BACKGROUNDS: list[tuple[Callable[[np.random.Generator, Size], Array], list[list[int]]]] = [
    (water, [[25, 60, 75], [70, 120, 130], [190, 215, 215]]),
    (grass, [[30, 45, 20], [85, 120, 50], [170, 185, 95]]),
    (sand, [[120, 95, 70], [180, 155, 115], [220, 200, 165]]),
    (leaves, [[50, 35, 25], [130, 85, 45], [185, 150, 85]]),
    (wood, [[60, 42, 32], [130, 95, 65], [175, 140, 100]]),
    (rock, [[50, 50, 52], [120, 118, 112], [180, 176, 168]]),
]


def draw_background(rng: np.random.Generator, size: Size) -> Array:
    """A ground of (height, width, 3), 0..255, muted and shifted a little in colour."""
    field_of, palette = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    field = field_of(rng, size)
    stops = np.array(palette) * rng.normal(1, 0.03, 3) * rng.uniform(0.8, 1.1)
    stops = stops.mean(0) + 0.65 * (stops - stops.mean(0))
    return np.stack([np.interp(field, [0, 0.5, 1], stop) for stop in stops.T], axis=-1)
