"""All images in the device's memory: the same batches, the same losses, and an error where there is no room."""

from pathlib import Path

import pytest
import torch

from modelnet import TrainOptions, resume, train
from modelnet.data.batches import Batches
from modelnet.data.preload import check_memory, free_bytes
from pipeline import TensorCache
from pipeline.errors import CacheDamaged, DeviceError, OptionsError

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


@pytest.mark.parametrize("rows", [None, torch.tensor([1, 2, 4, 5, 7])])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_batches_are_those_that_are_read(
    cache_path: Path, uint8_cache_path: Path, dtype: str, rows: torch.Tensor | None
) -> None:
    cache = TensorCache(cache_path if dtype == "float32" else uint8_cache_path)
    read = Batches(cache, CPU, batch_size=3, shuffle=True, seed=4, rows=rows)
    held = Batches(cache, CPU, batch_size=3, shuffle=True, seed=4, rows=rows)
    held.preload()
    for epoch, start in ((0, 0), (1, 1), (2, 0)):
        for one, other in zip(read.epoch(epoch, start), held.epoch(epoch, start), strict=True):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_nothing_is_read_once_training_has_begun(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Batches(TensorCache(cache_path), CPU, batch_size=3)
    held.preload()
    monkeypatch.setattr(TensorCache, "read_stored", None)
    assert sum(batch.size for batch in held.epoch(0)) == 8


def test_losses_are_the_same_to_the_bit(uint8_cache_path: Path) -> None:
    options = TrainOptions(
        uint8_cache_path, batch_size=2, epochs=3, augment="flip,color", val_fraction=0.4, device="cpu"
    )
    rows, held = (train(TrainOptions(**vars(options) | {"preload": choice})).rows for choice in (False, True))
    assert [(r.train_loss, r.train_acc, r.val_loss) for r in held] == [
        (r.train_loss, r.train_acc, r.val_loss) for r in rows
    ]


def test_a_damaged_row_is_found_before_the_run_begins(cache_path: Path, tmp_path: Path) -> None:
    data = bytearray(cache_path.read_bytes())
    data[data.index(TensorCache(cache_path).images[5].numpy().tobytes()) + 100] ^= 1
    (tmp_path / "c.h5").write_bytes(data)
    with pytest.raises(CacheDamaged, match=r"n01740131_300.JPEG"):
        train(TrainOptions(tmp_path / "c.h5", preload=True, device="cpu"))
    assert not Path("runs").exists()


def test_what_does_not_fit_is_refused_with_both_sizes(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelnet.data.preload.free_bytes", lambda device: 500_000)
    needed = 16 * 3 * 64 * 64 * 4
    with pytest.raises(
        DeviceError, match=rf"cpu: the images take 786.4 kB \({needed} bytes\), 500.0 kB \(500000\) are"
    ):
        train(TrainOptions(cache_path, val=cache_path, preload=True, device="cpu"))
    assert not Path("runs").exists()
    check_memory(500_000, CPU)


def test_free_memory_is_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       1000 kB\nMemFree:    10 kB\nMemAvailable:     600 kB\n")
    monkeypatch.setattr("modelnet.data.preload._MEMORY", tmp_path / "meminfo")
    assert free_bytes(CPU) == 600 * 1024
    monkeypatch.setattr("modelnet.data.preload._MEMORY", tmp_path / "nowhere")
    assert free_bytes(CPU) is None
    check_memory(2**62, CPU)


def test_workers_have_nothing_to_do_beside_it(cache_path: Path) -> None:
    with pytest.raises(ValueError, match="preload leaves nothing to read for --workers"):
        TrainOptions(cache_path, preload=True, workers=2)
    run = train(TrainOptions(cache_path, epochs=1, device="cpu", workers=1)).run
    with pytest.raises(OptionsError, match="preload leaves nothing to read"):
        resume(run, epochs=2, preload=True)
    assert len(resume(run, epochs=2, preload=True, workers=0).rows) == 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_batches_are_those_of_the_cpu(uint8_cache_path: Path) -> None:
    cache = TensorCache(uint8_cache_path)
    near, far = (Batches(cache, torch.device(name), batch_size=3, shuffle=True, seed=4) for name in ("cpu", "cuda"))
    far.preload()
    for (images, labels, *_), (expected, their_labels, *_) in zip(far.epoch(1), near.epoch(1), strict=True):
        assert images.is_cuda and torch.equal(images.cpu(), expected) and torch.equal(labels.cpu(), their_labels)
    with pytest.raises(DeviceError, match="--preload does not fit"):
        check_memory(2**50, torch.device("cuda"))
