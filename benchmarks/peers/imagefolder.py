"""torchvision's ImageFolder, which decodes every image in every epoch."""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from benchmarks.peers import Deliver, Epochs, Peer, Reader

WORKERS = 2


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Decode with `WORKERS` processes that live for an epoch."""
    transform = Compose([Resize((224, 224)), ToTensor(), Normalize([0.5] * 3, [0.5] * 3)])
    return Epochs(DataLoader(ImageFolder(str(path), transform), batch_size, shuffle=True, num_workers=WORKERS))


PEER = Peer("ImageFolder", None, (Reader(f"ImageFolder, {WORKERS} workers", "photos", ("float32",), read),))
