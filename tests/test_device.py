"""A run's device and threads follow from its options."""

import pytest
import torch

from modelnet.device import choose_device, cpu_threads
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
