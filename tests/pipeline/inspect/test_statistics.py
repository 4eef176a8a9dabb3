"""What the image files of a cache are like, and mean and std of its pixels (`statistics`, `pixel_sums`)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.build.build import build_cache
from pipeline.format.header import IMAGES_OFFSET
from pipeline.format.pixel_sums import PixelSums
from pipeline.format.sharded import open_reader
from pipeline.inspect import info
from pipeline.inspect.info import describe_cache
from pipeline.inspect.statistics import Sources
from pipeline.shards.build import build_shards
from tests.support.builds import InThisProcess
from tests.support.earlier import make_earlier
from tests.support.photos import PHOTOS, textured

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def test_sources_are_described_by_format_size_and_aspect(photos: Path, tmp_path: Path) -> None:
    textured(300, 20, 3).save(photos / "1" / "wide.png")
    sizes = [(h, w) for names in PHOTOS.values() for w, h in names.values()] + [(20, 300)]
    build_cache(photos, tmp_path / "c.h5", size=16, executor=InThisProcess())

    found = describe_cache(tmp_path / "c.h5").sources

    assert found is not None and found.formats == {"JPEG": 8, "PNG": 1}
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size[1]))
    assert (found.smallest, found.median, found.largest) == (ordered[0], ordered[4], ordered[-1])
    ratios = [w / h for h, w in sizes]
    assert (found.narrowest, found.widest) == (min(ratios), max(ratios)) and found.median_ratio == np.median(ratios)
    assert "8 JPEG, 1 PNG; 53 × 53 to " in str(found) and "width / height 0.41 to 15.00" in str(found)


def test_sources_of_an_earlier_version_are_not_known(photos: Path, tmp_path: Path) -> None:
    build_cache(photos, tmp_path / "c.h5", size=16, executor=InThisProcess())
    make_earlier(tmp_path / "c.h5")

    assert describe_cache(tmp_path / "c.h5").sources is None


@pytest.mark.parametrize("options", [{"dtype": "uint8"}, {"dtype": "float32"}, IMAGENET, {"fit": "pad"}])
@pytest.mark.parametrize("shards", [None, 3])
def test_mean_and_std_of_the_stored_pixels_are_those_of_numpy(
    options: dict[str, Any], shards: int | None, photos: Path, tmp_path: Path
) -> None:
    build_cache(photos, tmp_path / "8.h5", size=16, executor=InThisProcess(), **options | {"dtype": "uint8"})
    if shards is None:
        build_cache(photos, tmp_path / "c.h5", size=16, executor=InThisProcess(), **options)
    else:
        build_shards(photos, tmp_path / "c.h5", shards, size=16, workers=1, **options)

    found = describe_cache(tmp_path / "c.h5").mean_std

    pixels_NCHW = np.array(open_reader(tmp_path / "8.h5").images, np.float64) / 255
    assert found is not None
    np.testing.assert_allclose(found[0], pixels_NCHW.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found[1], pixels_NCHW.std(axis=(0, 2, 3)), rtol=1e-6)


def test_rows_of_a_large_cache_are_read_only_if_asked(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "READ_BYTES", 1000)

    assert describe_cache(cache_path).mean_std is None
    assert describe_cache(cache_path, mean_std=True).mean_std is not None


def test_sums_of_pixels_are_exact_in_any_order() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (50, 3, 31, 17), np.uint8)
    forwards, backwards = PixelSums(), PixelSums()
    for row in rows:
        forwards.add(row)
    for row in rows[::-1]:
        backwards.add(row)

    assert forwards.mean_std() == backwards.mean_std()
    assert forwards.squares == (rows.astype(np.int64) ** 2).sum(axis=(0, 2, 3)).tolist()
    with pytest.raises(ValueError, match="no pixels"):
        PixelSums().mean_std()


def test_the_aspect_ratio_of_a_thin_image_is_not_shown_as_zero() -> None:
    thin, flat = (20_000, 1), (1, 20_000)
    text = str(Sources({"PNG": 2}, thin, thin, flat, 1 / 20_000, 1.5, 20_000.0))
    assert text.endswith("width / height 0.00005 to 20000.00, median 1.50")


def test_a_damaged_row_counts_in_no_mean(cache_path: Path, tmp_path: Path) -> None:
    data = bytearray(cache_path.read_bytes())
    data[IMAGES_OFFSET : IMAGES_OFFSET + 4] = b"\x01\x00\x80\x7f"  # a NaN that warns when it is cast
    (tmp_path / "c.h5").write_bytes(data)

    assert describe_cache(tmp_path / "c.h5", mean_std=True).mean_std is None
