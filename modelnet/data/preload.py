"""All images of a run in the memory of its device, as they are stored: nothing is read while training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline import TensorCache
from pipeline.errors import DeviceError
from pipeline.load.augment import Augmentation
from pipeline.load.batch_memory import send
from pipeline.text import show_bytes

_AT_ONCE = 64  # rows
_MEMORY = Path("/proc/meminfo")


class Preloaded:
    """Rows of a cache, checked and copied to a device.

    Args:
        cache: whose rows.
        rows: (M,) int64, the rows that are copied.
        device: where they go.

    Raises:
        CacheDamaged: a row is not what was written.

    Attributes:
        images: (M, 3, H, W) of the cache's dtype, on the device.
        labels: (M,) int64, on the device.
    """

    def __init__(self, cache: TensorCache, rows: Tensor, device: torch.device) -> None:
        self.images = torch.empty((len(rows), *cache.row_shape), dtype=cache.stored_dtype, device=device)
        for images, chunk in zip(self.images.split(_AT_ONCE), rows.split(_AT_ONCE), strict=True):
            images.copy_(cache.read_stored(chunk))
        self.labels = cache.labels[rows].to(device)
        self._position_of_row = torch.zeros(cache.num_images, dtype=torch.int64)
        self._position_of_row[rows] = torch.arange(len(rows))

    def read(self, rows_B: Tensor, augment: Augmentation | None = None, epoch: int = 0) -> tuple[Tensor, Tensor]:
        """Return images as they are stored, and labels, of rows: (B,) int64 on the CPU.

        Args:
            rows_B: of the cache.
            augment: changes the images on the way, on the CPU alone, as it does in `epoch`.
        """
        positions = send(self._position_of_row[rows_B], self.images.device)
        labels = self.labels.index_select(0, positions)
        if augment is None:
            return self.images.index_select(0, positions), labels
        images_BCHW = torch.empty((len(rows_B), 3, *augment.size), dtype=torch.float32, device="cpu")
        augment.read(self.images, positions, epoch, rows_B, images_BCHW)
        return images_BCHW, labels

    def batches(self, positions: Tensor, lengths: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images as they are stored, and labels, of batches of these lengths.

        Args:
            positions: (N,) int64 on the CPU, positions in `rows`, batch after batch.
            lengths: images of each batch.
        """
        for batch in send(positions, self.images.device).split(list(lengths)):
            yield self.images.index_select(0, batch), self.labels.index_select(0, batch)


def check_memory(needed: int, device: torch.device) -> None:
    """Refuse to load more bytes than a device has free.

    Raises:
        DeviceError: says both.
    """
    free = free_bytes(device)
    if free is not None and needed > free:
        reason = (
            f"{device}: the images take {show_bytes(needed)} ({needed} bytes), {show_bytes(free)} ({free}) are free"
        )
        raise DeviceError("--preload does not fit", None, reason, "Leave it out, or cache the images as uint8")


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes of memory that a device has free; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not _MEMORY.exists():
        return None
    lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None
