"""Draw the probes: small images whose decoded pixels identify a JPEG and PNG decoder installation.

Edges, noise and saturated colours are where decoders part (the inverse DCT, how chroma is scaled up, how
CMYK and palettes become RGB); odd sizes show what happens at the borders of blocks.

    python data/draw_probes.py

The committed files are what counts: a cache's decoder digest is made from their bytes' decoding, so drawing
them again with another Pillow, whose encoder may differ, makes every cache stale.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (37, 29)
JPEGS: dict[str, tuple[str, dict[str, Any]]] = {  # name: mode, how it is encoded
    "baseline-420": ("RGB", {"quality": 75, "subsampling": "4:2:0"}),
    "baseline-422": ("RGB", {"quality": 75, "subsampling": "4:2:2"}),
    "baseline-444": ("RGB", {"quality": 75, "subsampling": "4:4:4"}),
    "progressive": ("RGB", {"quality": 75, "subsampling": "4:2:0", "progressive": True}),
    "quality-30": ("RGB", {"quality": 30, "subsampling": "4:2:0"}),
    "quality-95": ("RGB", {"quality": 95, "subsampling": "4:2:0"}),
    "restart": ("RGB", {"quality": 75, "subsampling": "4:2:0", "restart_marker_blocks": 2}),
    "grey": ("L", {"quality": 75}),
    "cmyk": ("CMYK", {"quality": 60}),
}
PNGS = {  # name: mode, size; noise does not compress, so those with much to store are smaller
    "rgb": ("RGB", (23, 17)),
    "rgba": ("RGBA", (19, 17)),
    "grey-alpha": ("LA", (23, 19)),
    "palette": ("P", (29, 23)),
    "palette-transparent": ("P", (29, 23)),
    "one-bit": ("1", SIZE),
    "tall": ("RGB", (11, 47)),  # since Pillow 13 its columns are resized first
}


def texture(rng: np.random.Generator, size: tuple[int, int], bands: int) -> Image.Image:
    """Blots of full colour with hard edges, a fine wave and noise, in 1 to 4 bands."""
    blots = Image.fromarray(rng.integers(0, 256, (4, 5, bands), dtype=np.uint8).squeeze())
    pixels = np.asarray(blots.resize(size, Image.Resampling.NEAREST)).astype(float).reshape(*size[::-1], bands)
    y, x = np.mgrid[: size[1], : size[0]]
    pixels += 40 * np.sin(x * 1.1 + y * 0.7)[..., None] + rng.normal(0, 8, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).squeeze())


def draw_probes(out: Path, seed: int) -> None:
    """Write every probe into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name, (mode, options) in JPEGS.items():
        image = texture(rng, SIZE, bands=len(Image.new(mode, (1, 1)).getbands()))
        if mode == "CMYK":
            image = Image.frombytes("CMYK", image.size, image.tobytes())
        image.save(out / f"{name}.jpg", **options)
    for name, (mode, size) in PNGS.items():
        options = {}
        if mode == "P":
            image = texture(rng, size, bands=3).quantize(64)
        elif mode == "1":
            image = texture(rng, size, bands=1).convert("1")
        else:
            bands = len(mode)
            image = texture(rng, size, bands)
        if name == "palette-transparent":
            options = {"transparency": 0}
        image.save(out / f"{name}.png", **options)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description="Draw the decoder probes.")
    parser.add_argument("out", nargs="?", type=Path, default=Path("pipeline/decode/probes"), metavar="OUT")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw_probes(options.out, options.seed)


if __name__ == "__main__":
    main()
