"""Let several processes train one network: their shares of batches, sums over all ranks, and how they end.

    torchrun --nproc-per-node 2 cli.py train ...

Every rank has the same network and goes through the same steps; of each batch it takes a part. Rank 0 alone reads and
writes the run folder, and speaks.
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import xxhash
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from modelnet.runtime.interrupt import Stop
from modelnet.runtime.launcher import is_rank, launcher_variables
from pipeline.errors import OptionsError, RankFailed, WorkerDied
from pipeline.system.processes import bound_cores, usable_cores

_LOST = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe", re.IGNORECASE)
_SPOKEN, _CODE = "modelnet/spoken", "modelnet/code"

_joined: "Ranks | None" = None


class Ranks:
    """This process and the other ranks. Without arguments it is alone, and every method returns its input.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        local, local_size: the same, on this machine.
        cores: that this rank computes with, unless it is told otherwise.

    Args:
        store: what torchrun keeps for all of them: it outlives each.
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0, local_size: int = 1, store: Any = None) -> None:
        self.rank = rank
        self.size = size
        self.local = local
        self.local_size = local_size
        self.cores = max(1, usable_cores() // local_size)
        self._store = store

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks, the same bits on each."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def gather(self, values: Tensor) -> list[Tensor]:
        """Return every rank's tensor, which differ at most in their first dimension, on the CPU."""
        if self.size == 1:
            return [values]
        lengths = [0] * self.size
        dist.all_gather_object(lengths, len(values))
        padded = values.new_zeros((max(lengths), *values.shape[1:]), device="cpu")
        padded[: len(values)] = values
        gathered = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(gathered, padded)
        return [rows[:length] for rows, length in zip(gathered, lengths, strict=True)]

    def gather_objects(self, value: Any) -> list[Any]:
        """Return every rank's plain value."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def first(self, value: Any) -> Any:
        """Return rank 0's value, whatever the others give."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def device_name(self, name: str) -> str:
        """Say which device this rank takes for what was asked for: "auto" and "cuda" are a GPU for each rank.

        Raises:
            OptionsError: one GPU for all of them.
        """
        if self.size == 1 or name == "cpu":
            return name
        if name.startswith("cuda:") and self.local_size > 1:
            raise OptionsError(
                f"--device {name} is one for {self.local_size} ranks", None, "each takes its own", "Give cuda"
            )
        if name == "auto" and not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{self.local}" if name in ("auto", "cuda") else name

    def replicate(
        self, network: nn.Module, device: torch.device, row_shape: tuple[int, ...], may_thaw: bool = False
    ) -> nn.Module:
        """Return the module to call in training: after `backward`, every rank has the mean gradient of the whole batch.

        BatchNorm takes mean and variance of the whole batch too, so that the number of ranks makes no difference.

        Args:
            network: on the device; its BatchNorm layers are changed in place.
            device: of this rank.
            row_shape: of an image.
            may_thaw: whether BatchNorm layers that are frozen now will take means of batches later.

        Raises:
            OptionsError: BatchNorm on a CPU that takes means of batches, now or later.
        """
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        synchronize_batch_norm(network, device, may_thaw)
        parallel = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
        # The first pass decides in which order gradients are added up, and is itself done in another: so it is one
        # that counts for nothing, and a run that is resumed has the order of one that never stopped.
        network.eval()
        parallel(torch.zeros(1, *row_shape, device=device)).sum().backward()
        network.zero_grad()
        network.train()
        return parallel

    def seed(self, device: torch.device, *key: int) -> None:
        """Seed the generator that dropout draws from, for one step, unlike that of any other step or rank.

        Alone, dropout goes on in the one stream that began with the seed, which a checkpoint holds.
        """
        if self.size == 1:
            return
        digest = xxhash.xxh3_64_intdigest(repr((*key, self.rank)).encode()) >> 1
        torch.default_generator.manual_seed(digest)
        if device.type == "cuda":
            torch.cuda.manual_seed(digest)

    def share(self, stop: Stop) -> Stop:
        """Return a request to stop that all ranks hear of after the same step."""
        return stop if self.size == 1 else _SharedStop(stop)

    def may_speak(self, code: int) -> bool:
        """Say whether this rank is the first that tells of a failure, and leave its exit code to the others."""
        if self._store is None:
            return True
        with suppress(RuntimeError):  # if torchrun itself is gone, printing twice is better than never
            if self._store.add(_SPOKEN, 1) > 1:
                return False
            self._store.set(_CODE, str(code))
        return True

    def code_of_failure(self) -> int | None:
        """Return the exit code of the rank that reported a failure, if one did."""
        with suppress(RuntimeError):
            if self._store is not None and self._store.check([_CODE]):
                return int(self._store.get(_CODE))
        return None


def synchronize_batch_norm(network: nn.Module, device: torch.device, may_thaw: bool = False) -> None:
    """Make the BatchNorm layers of a network take mean and variance over all ranks; torch can do it on GPUs alone.

    Layers with a `train` of their own, as frozen ones have, are left as they are: they take no mean of a batch, and the
    new module would lose it.

    Args:
        network: its BatchNorm layers are changed in place.
        device: of this rank.
        may_thaw: whether frozen ones will take means of batches later.

    Raises:
        OptionsError: on a CPU there is one that takes means of batches, now or later.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    if not (layers if may_thaw else any(map(_takes_its_own_mean, layers))):
        return
    if device.type != "cuda":
        reason = "BatchNorm takes mean and variance over all ranks on GPUs only"
        advice = "Train it in one process, give --norm-stats keep, or choose a network without BatchNorm"
        raise OptionsError("this network cannot train in several ranks on a CPU", None, reason, advice)
    timm = sys.modules.get("timm")  # its BatchNorm layers do more, which we cannot reproduce
    convert = timm.layers.convert_sync_batchnorm if timm else nn.SyncBatchNorm.convert_sync_batchnorm
    for path, layer in list(network.named_modules(remove_duplicate=False)):
        if _takes_its_own_mean(layer):
            network.set_submodule(path, convert(layer))


def _takes_its_own_mean(layer: nn.Module) -> bool:
    """Say whether it is a BatchNorm layer that is to be converted: timm's may lose its activation in a second time."""
    if not isinstance(layer, _BatchNorm) or isinstance(layer, nn.SyncBatchNorm):
        return False
    return "train" not in vars(layer) or layer.running_mean is None  # without statistics a batch gives them always


class _SharedStop(Stop):
    """A stop request to any rank. A `poll` returns the answer to the previous one, so that no rank waits."""

    def __init__(self, own: Stop) -> None:
        super().__init__()
        self._own = own
        self._asked = torch.zeros(1, dtype=torch.int64)
        self._under_way: dist.Work | None = None

    def poll(self) -> int | None:
        asked = self._own.signal
        if self._under_way is not None:
            self._under_way.wait()
            self.signal = int(self._asked) or None
            self._own.signal = self._own.signal or self.signal
        self._asked = torch.tensor([asked or 0])
        self._under_way = dist.all_reduce(self._asked, dist.ReduceOp.MAX, async_op=True)
        return self.signal


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the other processes of this torchrun, or stay alone without torchrun; leave them at the end.

    All wait for the last one at the end: torchrun stops those that are left when one has ended otherwise than well.

    Raises:
        RankFailed: another rank has failed, and has told of it.
        WorkerDied: another rank is gone without a word.
    """
    global _joined
    if not is_rank():
        yield Ranks()
        return
    for name, value in launcher_variables().items():
        if not value.isdecimal():
            reason = f"{name} is {value!r}, not a number"
            raise OptionsError("the ranks cannot meet", None, reason, "Start them with torchrun, or unset WORLD_SIZE")
    with _ended_by_signals():
        store, rank, size = next(rendezvous("env://"))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    local, local_size = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if torch.cuda.is_available() and local < torch.cuda.device_count():
        torch.cuda.set_device(local)  # "cuda" means this device from here on
    _joined = ranks = Ranks(rank, size, local, local_size, store)
    try:
        ranks.cores = own_cores(ranks)
        yield ranks
        ranks.gather_objects(None)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        code = ranks.code_of_failure()
        if code is not None:
            failed = RankFailed("another rank failed", None, "it says why itself")
            failed.exit_code = code  # type: ignore[misc]  # of the class elsewhere; here it is that of the other rank
            raise failed from error
        reason = f"rank {rank} of {size} has lost another (killed?)"
        raise WorkerDied("a rank of this training is gone", None, reason, "train --resume continues") from error
    dist.destroy_process_group()
    _joined = None


def own_cores(ranks: Ranks) -> int:
    """Return how many cores a rank computes with: those that it is bound to, divided among all that are bound to them.

    Slurm and `taskset` may bind each rank to cores of its own; torchrun binds none.
    """
    here = ranks.rank - ranks.local, bound_cores()  # with the first rank of this machine
    return max(1, usable_cores() // ranks.gather_objects(here).count(here))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a signal end this process at once: torch waits half an hour for other ranks, and Python cannot answer."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    answered = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        answered = {}
    for number in answered:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in answered.items():
            signal.signal(number, handler)


def may_speak(code: int) -> bool:
    """Say whether this process reports the failure that ends it; only one rank does.

    Also where it fails before it has met the others: perhaps it alone does.

    Args:
        code: that it ends with.
    """
    if _joined is not None:
        return _joined.may_speak(code)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # else rank 0 holds the store, and may have ended
        with suppress(RuntimeError, ValueError):
            store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=10)))
            return Ranks(store=store).may_speak(code)
    return os.environ.get("RANK", "0") == "0"
