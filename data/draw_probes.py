"""Draw the probes: small images of each format whose decoded pixels identify the decoders of an installation.

Edges, noise and saturated colours are where decoders part (the inverse DCT, how chroma is scaled up, how
CMYK and palettes become RGB); odd sizes show what happens at the borders of blocks.

    python data/draw_probes.py        (needs the extra heic)

The committed files are what counts: a cache's decoder digest is made from their bytes' decoding, so drawing
them again with another Pillow, whose encoder may differ, makes every cache stale. So does a further JPEG or PNG;
a further file of another format makes those caches stale that hold this format.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pillow_heif import from_bytes, register_heif_opener

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
OTHERS: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {  # file: mode, size, how it is encoded
    "palette.gif": ("P", (17, 13), {}),
    "transparent.gif": ("P", (13, 17), {"transparency": 1, "interlace": True}),
    "rgb.bmp": ("RGB", (13, 11), {}),
    "grey.bmp": ("L", (7, 9), {}),
    "one-bit.bmp": ("1", (37, 9), {}),
    "strips.tif": ("RGB", (13, 11), {"compression": "raw", "strip_size": 160}),
    "lzw.tif": ("RGBA", (13, 11), {"compression": "tiff_lzw"}),
    "deflate.tif": ("P", (17, 13), {"compression": "tiff_adobe_deflate"}),
    "jpeg.tif": ("RGB", (19, 17), {"compression": "jpeg", "quality": 75}),
    "group-4.tif": ("1", (37, 13), {"compression": "group4"}),
    "lossless.webp": ("RGB", (17, 13), {"lossless": True}),
    "lossless-alpha.webp": ("RGBA", (13, 11), {"lossless": True, "exact": True}),
    "lossy.webp": ("RGB", SIZE, {"quality": 60}),
    "lossy-alpha.webp": ("RGBA", (19, 17), {"quality": 80}),
    "420.avif": ("RGB", SIZE, {"quality": 60, "subsampling": "4:2:0"}),
    "444.avif": ("RGB", (23, 17), {"quality": 80, "subsampling": "4:4:4"}),
    "alpha.avif": ("RGBA", (19, 17), {"quality": 60}),
    "grey.avif": ("L", SIZE, {"quality": 60}),
    "420.heic": ("RGB", SIZE, {"quality": 50}),
    "444.heic": ("RGB", (23, 17), {"quality": 60, "chroma": 444}),
    "alpha.heic": ("RGBA", (19, 17), {"quality": 50}),
    "ten-bits.heic": ("RGB;16", (19, 17), {"quality": 50}),
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
        options = {"transparency": 0} if name == "palette-transparent" else {}
        drawn(rng, mode, size, colors=64).save(out / f"{name}.png", **options)
    for file, (mode, size, options) in OTHERS.items():
        if mode == "RGB;16":
            pixels = np.asarray(texture(rng, size, bands=3)).astype(np.uint16) * 257
            from_bytes(mode, size, pixels.tobytes()).save(out / file, **options)
        else:
            drawn(rng, mode, size).save(out / file, **options)


def drawn(rng: np.random.Generator, mode: str, size: tuple[int, int], colors: int = 16) -> Image.Image:
    """Draw a texture in a mode of Pillow's."""
    if mode == "P":
        return texture(rng, size, bands=3).quantize(colors)
    if mode == "1":
        return texture(rng, size, bands=1).convert("1")
    return texture(rng, size, bands=len(mode))


def main() -> None:
    """Parse the command line and draw."""
    register_heif_opener()
    parser = argparse.ArgumentParser(description="Draw the decoder probes.")
    parser.add_argument("out", nargs="?", type=Path, default=Path("pipeline/decode/probes"), metavar="OUT")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw_probes(options.out, options.seed)


if __name__ == "__main__":
    main()
