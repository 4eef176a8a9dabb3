"""What Pillow itself makes of a file: the answer that builds of damaged files are held to."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from pillow_heif import HeifImageFile

from pipeline.decode.formats import AVIF, HEIC, JPEG, Format, recognize
from pipeline.recipe import pixels_to_row
from tests.soak.trees import RECIPE


def oracle(data: bytes) -> NDArray[np.float32] | None:
    """Decode as Pillow itself does, to the row of `RECIPE`; None where it does not, or beyond 64 megapixels."""
    kind = recognize(data)
    if not isinstance(kind, Format):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image: Image.Image
            if kind in (AVIF, HEIC):  # `Image.open` looks at the major brand only
                image = (AvifImageFile if kind == AVIF else HeifImageFile)(io.BytesIO(data))
            else:
                readers = ("JPEG", "MPO") if kind == JPEG else (kind.name.upper(),)
                image = Image.open(io.BytesIO(data), formats=readers)
            if image.width * image.height > 64_000_000:
                return None
            rgb = image.convert("RGB")
        except Exception:
            return None
    pixels_HWC = np.asarray(rgb.resize(RECIPE.size, Image.Resampling.BILINEAR))
    row: NDArray[np.float32] = pixels_to_row(pixels_HWC, RECIPE)
    return row
