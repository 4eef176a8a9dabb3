"""A run's device and threads follow from its options."""

from collections.abc import Callable

import pytest
import torch

from modelnet.runtime.device import (
    autocast,
    choose_device,
    choose_memory_format,
    cpu_threads,
    memory_errors,
    move_network,
    precision_warning,
)
from modelnet.runtime.ranks import Ranks
from pipeline.errors import DeviceError


@pytest.mark.parametrize(
    ("asked", "model", "batch_size", "threads"),
    [
        (None, "modelnet", 8, 1),
        (None, "modelnet", 31, 1),
        (None, "modelnet", 32, 2),
        (None, "modelnet", 256, 2),
        (2, "modelnet", 8, 2),
        (None, "linear", 256, 2),
        (None, "resnet18", 8, 3),
        (1, "resnet18", 8, 1),
    ],
)
def test_small_networks_use_few_threads_and_leave_a_core_free(
    asked: int | None, model: str, batch_size: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelnet.runtime.device.usable_cores", lambda: 3)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with cpu_threads(asked, model, batch_size) as chosen:
            assert chosen == torch.get_num_threads() == threads
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
    with pytest.raises(DeviceError, match=r"Tesla P100 does not compute with bfloat16. Give --amp-dtype float16"):
        autocast("bfloat16", torch.device("cuda"))
    with autocast("bfloat16", torch.device("cpu")):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16 and torch.is_autocast_enabled("cpu")


def test_networks_that_are_trained_as_one_use_every_core(
    monkeypatch: pytest.MonkeyPatch, set_threads: Callable[[int], None]
) -> None:
    monkeypatch.setattr("modelnet.runtime.device.usable_cores", lambda: 3)
    set_threads(3)

    for networks, threads in ((2, 1), (4, 2), (16, 3)):
        with cpu_threads(None, "modelnet", 8, networks=networks) as chosen:
            assert chosen == threads


@pytest.mark.parametrize(
    ("model", "batch_size", "threads"), [("resnet18", 2, 4), ("modelnet", 64, 2), ("modelnet", 256, 4)]
)
def test_ranks_divide_cores_and_batches(
    model: str, batch_size: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("device", "ranks"):
        monkeypatch.setattr(f"modelnet.runtime.{module}.usable_cores", lambda: 8)

    with cpu_threads(None, model, batch_size, Ranks(1, 2, 1, 2)) as chosen:
        assert chosen == threads


@pytest.mark.parametrize(
    ("model", "device", "precision", "memory_format"),
    [
        ("resnet18", "cpu", "float32", "channels_last"),
        ("timm:tf_efficientnet_lite0", "cpu", "bfloat16", "channels_last"),
        ("resnet18", "cuda", "float32", "contiguous"),
        ("resnet18", "cuda", "float16", "channels_last"),
        ("modelnet", "cpu", "float32", "contiguous"),
        ("modelnet", "cuda", "bfloat16", "contiguous"),
        ("linear", "cpu", "float32", "contiguous"),
    ],
)
def test_networks_larger_than_modelnet_run_channels_last_where_it_wins(
    model: str, device: str, precision: str, memory_format: str
) -> None:
    assert choose_memory_format(model, torch.device(device), precision) == memory_format


def test_a_network_that_is_placed_channels_last_computes_so() -> None:
    network, images_NCHW = torch.nn.Conv2d(3, 16, 3), torch.rand(2, 3, 8, 8)
    expected = network(images_NCHW)

    move_network(network, torch.device("cpu"), "channels_last")

    found = network(images_NCHW)
    assert expected.is_contiguous() and found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("precision", "op"), [("bfloat16", "bf16"), ("float16", "fp16")])
def test_a_processor_without_half_precision_is_named(precision: str, op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for fast, said in ((False, f"no instructions for {precision}"), (True, "")):
        monkeypatch.setattr(torch.ops.mkldnn, f"_is_mkldnn_{op}_supported", lambda fast=fast: fast, raising=False)
        warning = precision_warning(precision, torch.device("cpu"))
        assert said in warning and bool(warning) != fast
    assert not precision_warning("float32", torch.device("cpu"))
    assert not precision_warning(precision, torch.device("cuda"))


def test_a_build_without_onednn_has_no_fast_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)

    assert "no instructions for bfloat16" in precision_warning("bfloat16", torch.device("cpu"))


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
