import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from pipeline.build.build import build_cache
from pipeline.errors import CacheDamaged, CacheStale
from pipeline.load.cache import TensorCache
from pipeline.load.dataset import CacheDataset
from pipeline.load.loader import make_loader
from pipeline.load.normalize import _look_up, _table_on, normalize  # private: only a GPU would call them
from pipeline.recipe import Recipe, normalization_table
from tests.support.builds import InThisProcess
from tests.support.command_line import REPOSITORY
from tests.support.photos import PHOTOS, SIZE, make_photos, save_jpeg

SHARED = "n03874293_775.JPEG"  # in both classes
ROW_BYTES = 3 * SIZE * SIZE * 4


def torchvision_tensor(path: Path, size: int, mean: Any, std: Any) -> torch.Tensor:
    """The oracle."""
    transform = transforms.Compose(
        [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(mean, std)]
    )
    tensor: torch.Tensor = transform(Image.open(path).convert("RGB"))
    return tensor


@pytest.fixture(scope="module")
def every_mode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of every mode that is read."""
    folder = make_photos(tmp_path_factory.mktemp("modes") / "photos")
    picture = Image.open(folder / "1" / SHARED)
    picture.convert("L").save(folder / "1" / "grey.JPEG")
    picture.convert("CMYK").save(folder / "2" / "cmyk.JPEG")
    picture.save(folder / "2" / "really a png.JPEG", "PNG")
    picture.quantize(50).save(folder / "1" / "palette.png")
    return folder


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_tensors_have_the_bits_of_torchvision_from_every_reader(
    dtype: Literal["float32", "uint8"], size: int, every_mode: Path, tmp_path: Path
) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    path = tmp_path / "c.h5"
    build_cache(every_mode, path, size=size, mean=mean, std=std, dtype=dtype, executor=InThisProcess())

    cache = TensorCache(path)

    images, labels = next(iter(make_loader(cache, batch_size=100, shuffle=False)))
    seen = 0
    for name, by_class in cache.items():
        for class_id, tensor in by_class.items():
            seen += 1
            expected = torchvision_tensor(every_mode / str(class_id) / name, size, mean, std)
            row = next(r for r in cache.rows_of(name) if cache.class_ids[cache.labels[r]] == class_id)
            assert tensor.dtype == torch.float32 and tensor.shape == (3, size, size)
            assert tensor.numpy().tobytes() == expected.numpy().tobytes()
            assert images[row].numpy().tobytes() == expected.numpy().tobytes()
            assert labels[row] == cache.class_ids.index(class_id)
            if dtype == "float32":
                with h5py.File(path) as file:
                    assert file["images"][row].tobytes() == expected.numpy().tobytes()
    assert seen == cache.num_images == 12


def test_a_cache_is_a_mapping_from_file_name_to_class_id_to_tensor(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    names = sorted({name for by_class in PHOTOS.values() for name in by_class})

    assert isinstance(cache, Mapping)
    assert sorted(cache) == names and len(list(cache)) == len(cache) == len(names) == 7
    assert cache.num_images == 8
    assert SHARED in cache and "missing.jpg" not in cache
    number: Any = 5
    assert number not in cache
    for missing, told in (("missing.jpg", "missing.jpg"), (number, r"5 is no file name; CacheDataset\(cache\)\[row\]")):
        with pytest.raises(KeyError, match=told):
            cache[missing]
    with pytest.raises(KeyError, match="'1': the image's class is 1 and 2"):
        cache[SHARED]["1"]
    assert 2 in cache[SHARED] and "2" not in cache[SHARED] and cache[SHARED].get(3) is None
    assert cache.get("missing.jpg") is None
    assert set(cache.keys()) == set(names) and len(cache.items()) == 7


@pytest.mark.parametrize("name", ["", "a", "\0", SHARED + "\0", SHARED[:-1], "x" * 10_000, "é", "\udcff", "\ud800"])
def test_a_name_that_is_not_there_is_a_key_error_however_odd(name: str, cache_path: Path) -> None:
    cache = TensorCache(cache_path)

    assert name not in cache
    with pytest.raises(KeyError):
        cache[name]


def test_a_name_in_two_classes_gives_both_images_neither_lost_nor_swapped(
    shared_photos: Path, cache_path: Path
) -> None:
    cache = TensorCache(cache_path)

    assert list(cache[SHARED]) == [1, 2]
    assert list(cache["n03874293_7.JPEG"]) == [1] and list(cache["n01740131_12.JPEG"]) == [2]
    for class_id in (1, 2):
        expected = torchvision_tensor(shared_photos / str(class_id) / SHARED, SIZE, (0.5,) * 3, (0.5,) * 3)
        assert torch.equal(cache[SHARED][class_id], expected)
    assert not torch.equal(cache[SHARED][1], cache[SHARED][2])


def test_what_a_cache_says_of_itself(shared_photos: Path, cache_path: Path) -> None:
    cache = TensorCache(cache_path)

    assert cache.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1] and cache.labels.dtype == torch.int64
    assert cache.class_ids == [1, 2] and cache.class_names == ["", ""]
    assert list(cache.filenames[:4]) == sorted(PHOTOS["1"]) and cache.filenames[-1] == SHARED
    assert cache.recipe == Recipe(size=SIZE)
    assert len(cache.fingerprint) == 64 and cache.failed == []
    assert cache.images.shape == (8, 3, SIZE, SIZE) and cache.images.dtype == torch.float32
    assert cache.source_sha256[3].tobytes() == hashlib.sha256((shared_photos / "1" / SHARED).read_bytes()).digest()
    assert repr(cache) == f"TensorCache({str(cache_path)!r}: 8 images, 2 classes, 64 × 64)"


def test_class_ids_that_are_no_integers_are_strings(tmp_path: Path) -> None:
    for class_id in ("n02", "n01"):
        save_jpeg(tmp_path / "p" / class_id / "a.jpg", 40, 40, 1)
    build_cache(tmp_path / "p", tmp_path / "c.h5", size=8, executor=InThisProcess())

    assert TensorCache(tmp_path / "c.h5").class_ids == ["n01", "n02"]
    assert list(TensorCache(tmp_path / "c.h5")["a.jpg"]) == ["n01", "n02"]


def test_names_that_are_not_utf8_come_back_as_the_file_system_gives_them(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    save_jpeg(tmp_path / "p" / "1" / name, 40, 40, 1)
    build_cache(tmp_path / "p", tmp_path / "c.h5", size=8, executor=InThisProcess())

    cache = TensorCache(tmp_path / "c.h5")

    assert list(cache) == [name] and name in cache
    assert (tmp_path / "p" / "1" / cache.filenames[0]).exists()


# --- checking -----------------------------------------------------------------------------------------------------


def damage(path: Path, row: int) -> None:
    """Flip one bit in a row, in the file itself."""
    with path.open("r+b") as file:
        file.seek(8192 + row * ROW_BYTES + 777)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def test_a_damaged_row_is_named_with_class_and_file_and_others_are_read(copy: Path) -> None:
    damage(copy, 5)
    cache = TensorCache(copy)

    with pytest.raises(CacheDamaged) as damaged:
        cache["n01740131_300.JPEG"][2]
    assert damaged.value.reason == "row 5 (class 2, n01740131_300.JPEG) is not as it was written"
    assert damaged.value.exit_code == 65 and damaged.value.path == copy
    for row in (0, 1, 2, 3, 4, 6, 7):
        cache.read(torch.tensor([row]))
    with pytest.raises(CacheDamaged):
        cache.read(torch.arange(8))


def test_rows_are_checked_at_first_always_or_not_at_all(copy: Path) -> None:
    caches = {verify: TensorCache(copy, verify=verify) for verify in ("first", "always", "off")}
    for cache in caches.values():
        cache.read(torch.tensor([5]))
    damage(copy, 5)  # a private map shows this as long as nobody has written to that page

    caches["first"].read(torch.tensor([5]))
    caches["off"].read(torch.tensor([5]))
    with pytest.raises(CacheDamaged):
        caches["always"].read(torch.tensor([5]))
    with pytest.raises(CacheDamaged):
        TensorCache(copy).read(torch.tensor([5]))
    TensorCache(copy, verify="off").read(torch.tensor([5]))


@pytest.mark.parametrize("whole", [True, False])
def test_rows_are_checked_anew_after_somebody_has_written_to_the_file(whole: bool, copy: Path) -> None:
    cache = TensorCache(copy, verify="first" if whole else "off")
    cache.read(torch.arange(8))
    os.utime(copy, (1, 1))
    cache.look_again()
    cache.read(torch.arange(8))  # nothing was written
    damage(copy, 5)
    cache.look_again()

    cache.read(torch.arange(5))
    if whole:
        with pytest.raises(CacheDamaged, match="row 5"):
            cache.read(torch.arange(8))
    else:
        cache.read(torch.arange(8))


def test_a_cache_that_another_one_is_written_over_is_not_read_on(
    copy: Path, shared_photos: Path, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(shared_photos, tmp_path / "photos"))
    first, second = sorted((photos / "1").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    build_cache(photos, tmp_path / "other.h5", size=TensorCache(copy).recipe.size, workers=1)
    cache = TensorCache(copy)
    cache.read(torch.arange(8))
    content = copy.read_bytes()

    copy.write_bytes((tmp_path / "other.h5").read_bytes())
    with pytest.raises(CacheStale, match="another one was written over it while it was read"):
        cache.look_again()
    for other in (content[:-1], content[:4090] + b"x" + content[4091:], content[:-9] + b"x" + content[-8:]):
        copy.write_bytes(other)
        with pytest.raises(CacheDamaged):
            cache.look_again()
    copy.write_bytes(content)
    cache.look_again()
    cache.read(torch.arange(8))


def test_another_way_of_checking_is_refused(cache_path: Path) -> None:
    with pytest.raises(ValueError, match="verify is one of first, always, off, not 'sometimes'"):
        TensorCache(cache_path, verify="sometimes")  # type: ignore[arg-type]


def test_a_tensor_belongs_to_its_reader(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    before = cache_path.read_bytes()

    mine = cache[SHARED][1]
    mine.zero_()

    assert cache[SHARED][1].any() and TensorCache(cache_path)[SHARED][1].any()
    assert cache_path.read_bytes() == before


def test_writing_to_the_images_spoils_this_view_only_and_is_noticed(cache_path: Path) -> None:
    before = cache_path.read_bytes()
    cache = TensorCache(cache_path)

    cache.images[2].zero_()

    assert cache_path.read_bytes() == before
    assert TensorCache(cache_path).images[2].any()
    with pytest.raises(CacheDamaged, match="row 2"):
        cache.read(torch.tensor([2]))


@pytest.mark.parametrize("verify", ["first", "always", "off"])
@pytest.mark.parametrize("row", [8, 10**9, -9])
def test_a_row_that_is_not_there_is_an_index_error(
    row: int, verify: Literal["first", "always", "off"], cache_path: Path
) -> None:
    with pytest.raises(IndexError):
        TensorCache(cache_path, verify=verify).read(torch.tensor([row]))


@pytest.mark.parametrize("verify", ["first", "off"])
@pytest.mark.parametrize(
    "rows", [torch.zeros(4, dtype=torch.int32), torch.zeros(8, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.int64)]
)
def test_rows_of_another_kind_are_refused_and_never_taken_for_addresses(
    rows: torch.Tensor, verify: Literal["first", "off"], cache_path: Path, uint8_cache_path: Path
) -> None:
    for path in (cache_path, uint8_cache_path):
        with pytest.raises(ValueError, match=r"rows are \(B,\) int64, not "):
            TensorCache(path, verify=verify).read(rows)


def test_many_threads_may_read_at_once(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    expected = TensorCache(cache_path).read(torch.arange(8))
    equal = []

    def read() -> None:
        equal.append(torch.equal(cache.read(torch.arange(8)), expected))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert equal == [True] * 8


# --- other processes ----------------------------------------------------------------------------------------------


def test_only_path_and_geometry_travel(cache_path: Path) -> None:
    cache = TensorCache(cache_path, verify="always")

    pickled = pickle.dumps(cache)
    again = pickle.loads(pickled)

    assert len(pickled) < 1000
    assert (again.verify, again.fingerprint, again.path) == ("always", cache.fingerprint, cache_path)
    assert torch.equal(again.read(torch.arange(8)), cache.read(torch.arange(8)))


def read_elsewhere(pickled: bytes) -> subprocess.CompletedProcess[bytes]:
    """Unpickle in a process that knows nothing of this one, and return the bytes of all rows."""
    program = "import pickle, sys, torch; cache = pickle.load(sys.stdin.buffer); "
    program += "sys.stdout.buffer.write(cache.read(torch.arange(cache.num_images)).numpy().tobytes())"
    return subprocess.run(
        [sys.executable, "-c", program],
        input=pickled,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        cwd="/",
    )


@pytest.mark.long
def test_a_cache_rebuilt_while_open_stays_whole_also_when_pickled(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("c.h5")
    build_cache(photos, path, size=SIZE, executor=InThisProcess())
    cache = TensorCache(path)
    before = cache.read(torch.arange(8))
    pickled = pickle.dumps(cache)
    shutil.rmtree(photos / "2")
    build_cache(photos, path, size=SIZE, executor=InThisProcess())

    assert torch.equal(cache.read(torch.arange(8)), before)
    assert torch.equal(pickle.loads(pickled).read(torch.arange(8)), before)
    assert read_elsewhere(pickled).stdout == before.numpy().tobytes()
    assert TensorCache(path).num_images == 4


def test_a_rebuilt_cache_is_not_mistaken_for_the_old_one_after_closing(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    build_cache(photos, path, size=SIZE, executor=InThisProcess())
    cache = TensorCache(path)
    pickled = pickle.dumps(cache)
    shutil.rmtree(photos / "2")
    build_cache(photos, path, size=SIZE, executor=InThisProcess())
    cache.reader.close()

    with pytest.raises(CacheStale, match="it was replaced since it was opened"):
        pickle.loads(pickled)


def test_a_reader_needs_no_permission_to_write_and_leaves_nothing_behind(
    copy: Path, tmp_path: Path, unprivileged: None
) -> None:
    copy.chmod(0o444)
    tmp_path.chmod(0o555)

    cache = TensorCache(copy)
    cache.read(torch.arange(8))

    assert [entry.name for entry in tmp_path.iterdir()] == ["copy.h5"]
    tmp_path.chmod(0o755)


def test_a_moved_file_is_the_same_cache(copy: Path, cache_path: Path, tmp_path: Path) -> None:
    copy.rename(tmp_path / "moved.h5")

    moved = TensorCache(tmp_path / "moved.h5")

    assert moved.fingerprint == TensorCache(cache_path).fingerprint
    assert torch.equal(moved.read(torch.arange(8)), TensorCache(cache_path).read(torch.arange(8)))


# --- normalize ----------------------------------------------------------------------------------------------------


def test_normalizing_gives_the_bits_of_torchvision_for_every_value() -> None:
    recipe = Recipe(size=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), dtype="uint8")
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)

    found = normalize(pixels, recipe)

    expected = transforms.Normalize(recipe.mean, recipe.std)(pixels.to(torch.float32).div(255))
    assert found.numpy().tobytes() == expected.numpy().tobytes()
    assert np.array_equal(found[0].reshape(3, 256).numpy(), normalization_table(recipe))


def test_another_device_looks_up_the_same_bits() -> None:
    recipe = Recipe(size=16, dtype="uint8", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.equal(_look_up(pixels, *_table_on(torch.device("cpu"), recipe)), normalize(pixels, recipe))


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 3, 16, 16),
        torch.zeros(3, 16, 16, dtype=torch.uint8),
        torch.zeros(1, 1, 16, 16, dtype=torch.uint8),
        torch.zeros(1, 16, 16, 3, dtype=torch.uint8),
    ],
)
def test_what_is_no_batch_of_pixels_is_not_normalized(pixels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="pixels are"):
        normalize(pixels, Recipe(size=16, dtype="uint8"))


def test_a_cache_is_equal_to_itself_and_may_be_a_key(cache_path: Path) -> None:
    cache = TensorCache(cache_path)

    assert cache == cache and cache != TensorCache(cache_path)
    assert {cache: 1}[cache] == 1 and cache in [cache]
    assert "3" not in repr(cache["n03874293_775.JPEG"]).split() and "classes 1, 2" in repr(cache["n03874293_775.JPEG"])


def test_what_a_caller_does_to_labels_and_classes_changes_no_sample(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    cache.labels.zero_()
    cache.class_ids.append(3)
    cache.class_names.clear()

    assert [CacheDataset(cache)[row][1] for row in range(8)] == [0] * 4 + [1] * 4
    assert cache.class_ids == [1, 2] and list(cache["n03874293_775.JPEG"]) == [1, 2]
