"""Images that are the same or nearly the same (`duplicates`, `image_hash`, `inspection`)."""

import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipeline.build.build import build_cache
from pipeline.decode.decode import decode
from pipeline.decode.image_hash import image_hash
from pipeline.format.duplicates import MOST_PAIRS, NEAR_BITS, exact_groups, near_pairs, near_rows_across
from pipeline.inspect.info import describe_cache
from pipeline.recipe import Recipe
from tests.support.builds import InThisProcess
from tests.support.photos import save_jpeg, textured


def hash_of(image: Image.Image, size: int = 64) -> int:
    return image_hash(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)))


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def distance(a: Image.Image, b: Image.Image) -> int:
    return (hash_of(a) ^ hash_of(b)).bit_count()


PICTURES = [textured(160, 120, seed) for seed in range(12)]


@pytest.mark.parametrize("picture", PICTURES)
def test_a_copy_that_was_compressed_scaled_or_brightened_is_near(picture: Image.Image) -> None:
    copies = [
        through_jpeg(picture, 60),
        picture.resize((80, 60), Image.Resampling.BICUBIC),
        through_jpeg(picture.resize((240, 180), Image.Resampling.BICUBIC), 75),
        ImageEnhance.Brightness(picture).enhance(1.05),
    ]

    assert [distance(picture, copy) <= NEAR_BITS for copy in copies] == [True] * 4


def test_different_pictures_are_far_apart() -> None:
    distances = [distance(a, b) for i, a in enumerate(PICTURES) for b in PICTURES[:i]]

    assert min(distances) > 2 * NEAR_BITS


def test_the_hash_is_64_comparisons_of_cell_means() -> None:
    """Against a plain loop in float64, where two cells are not so near that rounding decides."""
    decided = 0
    for seed in range(10):
        pixels = np.asarray(textured(72, 64, seed))
        grey = (pixels @ np.array([0.299, 0.587, 0.114])).reshape(8, 8, 9, 8).mean(axis=(1, 3))
        bits = f"{image_hash(pixels):064b}"
        for y in range(8):
            for x in range(8):
                if abs(grey[y, x] - grey[y, x + 1]) > 1.5:
                    decided += 1
                    assert bits[8 * y + x] == ("1" if grey[y, x] > grey[y, x + 1] else "0")

    assert decided > 500


def random_hashes(count: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Hashes of which many are near each other, at every distance from 0 to a few bits over the limit."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, np.uint64)
    for i in range(1, count, 2):
        flipped = rng.choice(64, rng.integers(0, NEAR_BITS + 3), replace=False).astype(np.uint64)
        hashes[i] = hashes[rng.integers(0, i)] ^ np.bitwise_or.reduce(np.uint64(1) << flipped, initial=np.uint64(0))
    return hashes


@pytest.mark.parametrize("seed", range(20))
def test_near_pairs_are_those_of_a_plain_double_loop(seed: int) -> None:
    hashes = random_hashes(120, seed)
    skip = np.random.default_rng(seed).random(120) < 0.1
    plain = [int(value) for value in hashes]

    expected = [
        (a, b)
        for a in range(120)
        for b in range(a + 1, 120)
        if not skip[a] and not skip[b] and (plain[a] ^ plain[b]).bit_count() <= NEAR_BITS
    ]

    assert near_pairs(hashes, skip) == expected and len(expected) > 20


def test_many_images_that_all_look_alike_do_not_fill_the_memory() -> None:
    hashes = np.full(20_000, 0b101, np.uint64)  # 200 million pairs
    start = time.monotonic()

    found = near_pairs(hashes, np.zeros(20_000, bool))

    assert len(found) == len(set(found)) == MOST_PAIRS and found == sorted(found)
    assert all(0 <= a < b < 20_000 for a, b in found)
    assert time.monotonic() - start < 5


def test_a_hundred_thousand_images_are_compared_in_a_moment() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64)
    hashes[77_777] = hashes[11] ^ np.uint64(0b111)
    start = time.monotonic()

    assert near_pairs(hashes, np.zeros(100_000, bool)) == [(11, 77_777)]
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("seed", range(5))
def test_exact_groups_are_those_of_a_plain_dictionary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    digests = rng.integers(0, 256, (40, 32), np.uint8)
    digests[::5, -1] = 0  # digests that end in zero bytes are not shortened
    digests[::3, :8] = 0  # those that begin alike are told apart
    rows = digests[rng.integers(0, 40, 90)]
    by_content: dict[bytes, list[int]] = {}
    for row, digest in enumerate(rows):
        by_content.setdefault(digest.tobytes(), []).append(row)

    found = [group.tolist() for group in exact_groups(rows)]
    assert found == sorted(group for group in by_content.values() if len(group) > 1)


def test_nothing_is_like_nothing() -> None:
    assert near_pairs(np.empty(0, np.uint64), np.empty(0, bool)) == []
    assert exact_groups(np.empty((0, 32), np.uint8)) == []
    assert near_pairs(np.zeros(1, np.uint64), np.zeros(1, bool)) == []


def test_digests_that_differ_in_trailing_zeros_only_are_different() -> None:
    digests = np.zeros((3, 32), np.uint8)
    digests[1, 31] = 1
    digests[2, 0] = 1

    assert exact_groups(digests) == []


def test_a_build_finds_copies_and_blank_and_tiny_images(photos: Path, tmp_path: Path) -> None:
    original = photos / "1" / "n03874293_775.JPEG"
    shutil.copy(original, photos / "2" / "copied.jpg")
    Image.open(original).convert("RGB").save(photos / "2" / "recoded.jpg", quality=50)
    for name in ("a", "b"):
        Image.new("RGB", (60, 60), (200, 200, 200)).save(
            photos / "1" / f"blank {name}.png", compress_level=ord(name) % 9
        )
    save_jpeg(photos / "1" / "tiny.jpg", 12, 40, 55)

    report = build_cache(photos, tmp_path / "c.h5", size=64, executor=InThisProcess())

    inspection = report.inspection
    assert inspection.same_content == [["1/n03874293_775.JPEG", "2/copied.jpg"]]
    assert inspection.nearly_alike == [("1/n03874293_775.JPEG", "2/recoded.jpg")]
    assert inspection.notes == [
        ("1/blank a.png", "blank: nearly one color all over"),
        ("1/blank b.png", "blank: nearly one color all over"),
        ("1/tiny.jpg", "tiny: 12 × 40 pixels"),
    ]
    assert describe_cache(tmp_path / "c.h5").inspection == inspection
    decoded = decode(original.read_bytes(), Recipe(size=64)).pixels_HWC
    assert image_hash(decoded) in [int(h) for h in _hashes(tmp_path / "c.h5")]


def _hashes(path: Path) -> list[int]:
    from pipeline.format.reader import CacheReader

    return [int(value) for value in CacheReader(path).table("image_hash")]


def test_a_crowd_that_shares_a_band_is_searched_as_completely_as_the_rest() -> None:
    """A white sky gives thousands of images the same first bits."""
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2**48, 3000, dtype=np.uint64)
    for row, bits in ((10, 0b101), (500, 1 << 47 | 1 << 3 | 1 << 20), (900, 0)):
        hashes[row + 1] = hashes[row] ^ np.uint64(bits)
    expected = [
        (a, a + 1 + int(b))
        for a in range(len(hashes) - 1)
        for b in np.flatnonzero(np.bitwise_count(hashes[a + 1 :] ^ hashes[a]) <= 3)
    ]

    assert {(10, 11), (500, 501), (900, 901)} <= set(expected)
    assert near_pairs(hashes, np.zeros(len(hashes), bool)) == sorted(expected)


def test_near_copies_across_two_sets_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(7)
    others = rng.integers(0, 2**64, 200, np.uint64)
    hashes = np.concatenate([rng.integers(0, 2**64, 100, np.uint64), others[:60]])
    for row in range(100, 160):  # none to five bits away, and some twice
        for bit in rng.choice(64, row % 6, replace=False).tolist():
            hashes[row] ^= np.uint64(1 << bit)
    hashes = np.concatenate([hashes, hashes[150:]])

    near = near_rows_across(hashes, others)

    plain = [min(int(a ^ b).bit_count() for b in others.tolist()) <= NEAR_BITS for a in hashes.tolist()]
    assert near.tolist() == plain and 30 < sum(plain) < 60
    assert not near_rows_across(hashes, others[:0]).any() and near_rows_across(hashes[:0], others).shape == (0,)
