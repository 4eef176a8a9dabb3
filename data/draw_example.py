"""Draw the example data set: photograph-like JPEGs of paddles and of snakes, from a seed.

Drawn rather than collected, so that it carries no licence, can be drawn again to the byte (with the
same Pillow and NumPy on the same kind of processor), and a held-out set is one command away:

    python data/draw_example.py
    python data/draw_example.py data/example-val --seed 1 --per-class 32

Both classes share backgrounds, light and sizes; only the object tells them apart. The mean colour of a
picture says next to nothing, while the small default network learns the difference from 128 pictures.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from draw_backgrounds import Array, Size, draw_background
from PIL import Image, ImageDraw, ImageFilter

CLASSES = {1: ("paddle", "n03874293"), 2: ("snake", "n01740131")}
SHOWN_NUMBER = 775  # the documentation's examples name this picture
STEPS, STRIPS = 400, 9  # quadrilaterals along and across an object
SUPERSAMPLE = 2
GREY_INDICES = (3, 12, 17)
ODD_INDEX, ODD_SIZE = 5, (212, 160)  # CMYK or PNG; small, since these files are large


# --- objects: a centre line with a width and a colour at each of its points -------------------------------


@dataclass
class Ribbon:
    """An object as a painted band; paddles and snakes both are.

    Attributes:
        line: (STEPS, 2) the centre line, in any unit.
        half_width: (STEPS,) in the unit of `line`.
        colours: (STEPS, STRIPS, 3) 0..255, before light.
        roundness: (STEPS,) 0 a flat board .. 1 a round bar.
    """

    line: Array
    half_width: Array
    colours: Array
    roundness: Array

    def place(self, rng: np.random.Generator, size: Size, fill: float) -> None:
        """Turn at random, then scale and move to cover `fill` of the picture's width or height."""
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.line = self.line @ turn
        extent = np.ptp(self.line, axis=0) + 2 * self.half_width.max()
        scale = fill * (np.array(size) / extent).min()
        room = np.maximum(np.array(size) - scale * extent, 0)
        middle = np.array(size) / 2 + rng.uniform(-0.5, 0.5, 2) * room
        self.line = (self.line - (self.line.max(0) + self.line.min(0)) / 2) * scale + middle
        self.half_width = self.half_width * scale

    def paint(self, layer: Image.Image, light: Array) -> None:
        """Draw on a supersampled RGBA layer, lit from `light`, a unit vector (x, y, z to the viewer)."""
        ahead = np.gradient(self.line, axis=0)
        sideways = np.stack([-ahead[:, 1], ahead[:, 0]], -1) / np.linalg.norm(ahead, axis=1, keepdims=True)
        across = np.linspace(-1, 1, STRIPS + 1)
        edges = self.line[:, None] + across[:, None] * (sideways * self.half_width[:, None])[:, None]
        edges = edges * SUPERSAMPLE
        middle = (across[1:] + across[:-1]) / 2 * self.roundness[:, None]
        facing = (sideways @ light[:2])[:, None] * middle + light[2] * np.sqrt(1 - middle**2)
        facing = np.maximum(facing, 0)
        lit = self.colours * (0.45 + 0.65 * facing)[..., None] + 60 * (facing**24)[..., None]
        lit = np.clip(lit, 0, 255).astype(int)
        draw = ImageDraw.Draw(layer)
        for i in range(STEPS - 1):
            for j in range(STRIPS):
                quad = (*edges[i, j], *edges[i, j + 1], *edges[i + 1, j + 1], *edges[i + 1, j])
                draw.polygon(quad, fill=(*lit[i, j], 255))


def choose(rng: np.random.Generator, palette: list[list[int]]) -> Array:
    """One colour of a palette, a little off."""
    return np.clip(np.array(palette[rng.integers(len(palette))]) + rng.normal(0, 10, 3), 5, 250)


SHAFTS = [[40, 40, 45], [190, 150, 100], [185, 188, 192], [225, 222, 215], [110, 75, 45]]
BLADES = [
    [235, 75, 35],
    [245, 200, 40],
    [245, 245, 238],
    [215, 35, 45],
    [245, 140, 30],
    [235, 190, 120],
    [250, 225, 60],
]


def blade_outline(along: Array, shape: float) -> Array:
    """Half width in 0..1 of a blade from its neck (0) to its tip (1); `shape` 0 a leaf .. 1 a board."""
    along = np.clip(along, 0, 1)
    neck = np.sin(np.pi / 2 * np.minimum(1, along / (0.5 - 0.3 * shape))) ** 2
    tip = np.sqrt(np.clip(1 - np.maximum(0, (along - 0.75) / 0.25) ** (2 + 3 * shape), 0, 1))
    return neck * tip


def paddle(rng: np.random.Generator) -> Ribbon:
    """A canoe paddle (a grip and one blade) or a kayak paddle (two blades)."""
    t = np.linspace(0, 1, STEPS)
    two_blades = rng.random() < 0.35
    blade_length = rng.uniform(0.24, 0.3) if two_blades else rng.uniform(0.34, 0.45)
    blade_width = blade_length * rng.uniform(0.22, 0.28)
    shaft_width = rng.uniform(0.011, 0.016)
    shape = rng.random()
    far = (t - (1 - blade_length)) / blade_length
    near = (blade_length - t) / blade_length if two_blades else np.full(STEPS, -1.0)
    along = np.maximum(far, near)
    half_width = np.maximum(shaft_width * (t < 0.97), blade_width * blade_outline(along, shape))
    if not two_blades:
        grip = np.clip(1 - (t / 0.05) ** 4, 0, 1) * rng.uniform(0.02, 0.04)
        half_width = np.maximum(half_width, grip)
    on_blade = (along > 0.03)[:, None, None]
    shaft, blade, stripe = choose(rng, SHAFTS), choose(rng, BLADES), choose(rng, BLADES)
    colours = np.where(on_blade, blade, shaft) * np.ones((STEPS, STRIPS, 1))
    if rng.random() < 0.5:
        start = rng.uniform(0.4, 0.8)
        colours[(along > start) & (along < start + rng.uniform(0.1, 0.3))] = stripe
    colours[along > 0.03, STRIPS // 2] *= 0.85  # the spine that stiffens a blade
    colours *= 1 + 0.06 * rng.normal(size=(1, STRIPS, 1))
    bow = rng.normal(0, 0.015) * np.sin(np.pi * t)
    return Ribbon(np.stack([t, bow], -1), half_width, colours, np.where(along > 0.03, 0.25, 0.95))


SNAKES = [  # ground, marking
    ([[165, 142, 108], [150, 132, 105]], [[50, 35, 25], [60, 40, 28]]),
    ([[145, 142, 135], [160, 156, 145]], [[35, 32, 30], [50, 40, 34]]),
    ([[115, 120, 65], [130, 128, 78]], [[28, 30, 18], [36, 34, 18]]),
    ([[165, 140, 105], [160, 128, 90]], [[85, 30, 22], [70, 28, 20]]),
    ([[60, 48, 38], [45, 40, 36]], [[160, 142, 100], [150, 130, 88]]),
]


def snake_line(rng: np.random.Generator) -> tuple[Array, float]:
    """A body's centre line from tail to head, of length 1, and how thick it may be."""
    t = np.linspace(0, 1, STEPS)
    if rng.random() < 0.65:  # winding
        waves, swing = rng.uniform(1.5, 3), rng.uniform(0.8, 1.5)
        heading = swing * np.sin(2 * np.pi * waves * t + rng.uniform(0, 6)) + rng.normal(0, 1) * t
        thick = rng.uniform(0.033, 0.041)
    else:  # coiled, its head at the rim
        turns = rng.uniform(1.5, 2.2)
        heading = 2 * np.pi * turns * np.sqrt(0.04 + t) * rng.choice([-1, 1])
        heading += 0.25 * np.sin(2 * np.pi * 4 * t)
        thick = rng.uniform(0.026, 0.031)
    steps = np.stack([np.cos(heading), np.sin(heading)], -1) / STEPS
    return np.cumsum(steps, axis=0), thick


def snake(rng: np.random.Generator) -> Ribbon:
    """A night snake or one of its cousins: tapering tail, neck, head, and saddles, bands or diamonds."""
    line, thick = snake_line(rng)
    t = np.linspace(0, 1, STEPS)
    body = np.minimum(1, 0.06 + 1.6 * t) * np.where(t > 0.75, 1 - 0.35 * np.clip((t - 0.75) / 0.17, 0, 1), 1)
    head = np.sqrt(np.clip(1 - ((t - 0.955) / 0.045) ** 2, 0, 1)) * 1.05
    half_width = thick * np.maximum(np.where(t < 0.955, body, 0), head)
    grounds, markings = SNAKES[rng.integers(len(SNAKES))]
    ground, marking = choose(rng, grounds), choose(rng, markings)
    across = np.abs(np.linspace(-1, 1, STRIPS))
    count, reach = rng.uniform(12, 22), rng.choice([0.6, 0.8, 1.1])
    wave = np.abs(((t * count) % 1) - 0.5)[:, None] * 2  # 0 in the middle of a mark, 1 between two
    diamond = rng.choice([0.0, 0.5])
    marked = (wave + diamond * across < 0.55) & (across <= reach) & (t < 0.93)[:, None]
    colours = np.where(marked[..., None], marking, ground)
    colours = colours * (1 - 0.3 * (across > 0.8) * (reach < 1))[None, :, None]
    colours = colours * (1 + 0.07 * rng.normal(size=(STEPS, STRIPS, 1)))  # scales
    colours[int(0.968 * STEPS) : int(0.978 * STEPS), [1, STRIPS - 2]] = 15  # eyes
    return Ribbon(line, half_width, colours, np.full(STEPS, 0.95))


# --- a picture: object on ground, light, camera, file ---------------------------------------------------


def draw_picture(rng: np.random.Generator, class_id: int, size: Size) -> Image.Image:
    """An RGB picture with the class's object somewhere in it."""
    ground = draw_background(rng, size)
    toward_light = rng.uniform(0, 2 * np.pi)
    light = np.array([0.6 * np.cos(toward_light), 0.6 * np.sin(toward_light), 0.8])
    layer = Image.new("RGBA", (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE))
    ribbons = [paddle(rng) for _ in range(1 + (rng.random() < 0.3))] if class_id == 1 else [snake(rng)]
    for ribbon in ribbons:
        ribbon.place(rng, size, rng.uniform(1.0, 1.15))
        ribbon.paint(layer, light)
    painted = layer.reduce(SUPERSAMPLE)

    unit = max(size) / 20
    shadow = Image.new("L", size)
    away_x, away_y = -light[:2] * unit * rng.uniform(0.2, 0.7)
    shadow.paste(painted.getchannel("A"), (int(away_x), int(away_y)))
    shadow = shadow.filter(ImageFilter.GaussianBlur(unit * rng.uniform(0.1, 0.3)))
    ground *= 1 - rng.uniform(0.3, 0.6) * np.asarray(shadow)[..., None] / 255
    alpha = np.asarray(painted.getchannel("A"))[..., None] / 255
    scene = ground + alpha * (np.asarray(painted.convert("RGB")) - ground)
    return photograph(rng, scene, light)


def photograph(rng: np.random.Generator, scene: Array, light: Array) -> Image.Image:
    """What a camera makes of a scene of (height, width, 3), 0..255: uneven light, cast, blur, noise."""
    height, width = scene.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    fall = 1 + rng.uniform(0, 0.25) * (x * light[0] + y * light[1]) - rng.uniform(0, 0.15) * (x**2 + y**2)
    scene = scene * fall[..., None] * rng.uniform(0.88, 1.1) * rng.normal(1, 0.02, 3)
    blurred = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))
    blurred = blurred.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2) * max(scene.shape) / 500))
    noise = rng.normal(0, rng.uniform(0, 6), scene.shape)
    return Image.fromarray(np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8))


def picture_size(rng: np.random.Generator) -> Size:
    """150 to 700 pixels a side, lying or standing, small ones more often."""
    long_side = int(np.exp(rng.uniform(np.log(200), np.log(701))))
    short_side = max(150, int(long_side / rng.choice([1, 1.25, 1.33, 1.33, 1.5])))
    return (long_side, short_side) if rng.random() < 0.6 else (short_side, long_side)


def save(rng: np.random.Generator, picture: Image.Image, path: Path, class_id: int, index: int) -> None:
    """Write as JPEG of some quality; a few grey, one CMYK (a paddle), one really a PNG (a snake)."""
    if index == ODD_INDEX and class_id == 2:
        picture.save(path, format="PNG")
        return
    if index == ODD_INDEX:
        picture = picture.convert("CMYK")
    elif index in GREY_INDICES:
        picture = picture.convert("L")
    picture.save(
        path,
        format="JPEG",
        quality=int(rng.integers(50, 96)),
        subsampling=int(rng.choice([0, 1, 2, 2])),
        progressive=bool(rng.random() < 0.2),
    )


def draw_example(out: Path, seed: int, per_class: int) -> None:
    """Draw `per_class` pictures of each class into `out`/1 and `out`/2, and name the classes."""
    for class_id, (_, synset) in CLASSES.items():
        folder = out / str(class_id)
        folder.mkdir(parents=True, exist_ok=True)
        others = np.delete(np.arange(12_000), SHOWN_NUMBER)
        numbers = np.random.default_rng([seed, class_id]).choice(others, per_class - 1, replace=False)
        for index, number in enumerate([SHOWN_NUMBER, *numbers]):
            rng = np.random.default_rng([seed, class_id, index])
            size = ODD_SIZE if index == ODD_INDEX else picture_size(rng)
            picture = draw_picture(rng, class_id, size)
            save(rng, picture, folder / f"{synset}_{number}.JPEG", class_id, index)
    names = "".join(f"{class_id},{name}\n" for class_id, (name, _) in CLASSES.items())
    (out / "classes.csv").write_text("id,name\n" + names)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description="Draw the example data set.")
    parser.add_argument("out", nargs="?", type=Path, default=Path("data/example"), metavar="OUT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, default=64)
    options = parser.parse_args()
    draw_example(options.out, options.seed, options.per_class)


if __name__ == "__main__":
    main()
