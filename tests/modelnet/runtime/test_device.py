"""A run's device and threads follow from its options."""

from pathlib import Path

import pytest
import torch

from modelnet.options import TrainOptions
from modelnet.runtime.device import autocast, choose_device, cpu_threads, memory_errors
from pipeline.errors import DeviceError


@pytest.mark.parametrize(
    ("asked", "batch_size", "threads"), [(None, 8, 1), (None, 31, 1), (None, 32, 2), (None, 256, 3), (2, 8, 2)]
)
def test_small_batches_use_few_threads_unless_told_otherwise(asked: int | None, batch_size: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with cpu_threads(asked, batch_size):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_gpu_that_is_not_there_is_an_error_and_never_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"cuda:1 was asked for, PyTorch sees 0 CUDA devices\. Try --device cpu"):
        choose_device("cuda:1")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand more"),
            "out of GPU memory: cuda:0: CUDA",
        ),
        (
            RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
            "out of GPU memory: cuda:0: CUDA",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "out of GPU memory: ",
        ),
    ],
)
def test_too_little_memory_is_no_bug(raised: RuntimeError, said: str) -> None:
    with pytest.raises(DeviceError, match=said) as caught, memory_errors(torch.device("cuda:0")):
        raise raised
    assert str(caught.value).endswith("Try a smaller --batch-size, and no --preload") and caught.value.exit_code == 71


def test_too_little_cpu_memory_is_reported_and_other_errors_pass() -> None:
    with pytest.raises(DeviceError, match=r"^out of memory: cpu: "), memory_errors(torch.device("cpu")):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_errors(torch.device("cpu")):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_a_gpu_that_cannot_be_used_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", busy)
    with pytest.raises(DeviceError, match=r"cannot be used: cuda: CUDA error: all .* unavailable\. Try --device cpu"):
        choose_device("cuda")


def test_a_gpu_without_bfloat16_is_not_given_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
    options = TrainOptions(Path("c.h5"), amp=True)
    with pytest.raises(DeviceError, match=r"Tesla P100 does not compute with bfloat16. Give --amp-dtype float16"):
        autocast(options, torch.device("cuda"))
    assert autocast(options, torch.device("cpu")).fast_dtype == torch.bfloat16


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_computes_as_the_processor_does_but_for_rounding() -> None:
    device = choose_device("cuda")
    torch.manual_seed(0)
    images_NCHW, kernel = torch.randn(8, 3, 64, 64), torch.randn(3, 3, 6, 6)
    expected = torch.nn.functional.conv2d(images_NCHW.double(), kernel.double()).float()
    found = torch.nn.functional.conv2d(images_NCHW.to(device), kernel.to(device)).cpu()
    assert (found - expected).abs().max() < 1e-4  # with TF32 it is about 1e-2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_that_is_full_is_an_error_with_advice() -> None:
    with pytest.raises(DeviceError, match="out of GPU memory: cuda"), memory_errors(torch.device("cuda")):
        torch.empty(2**50, device="cuda")
