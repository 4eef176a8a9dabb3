"""BatchNorm over a batch that is divided among ranks: mean and variance of the whole, whatever the number of ranks."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import OptionsError

_AFTER = ("drop", "act")  # of timm's BatchNormAct2d


def share_statistics(network: nn.Module) -> None:
    """Make the BatchNorm layers of a network, which may lie on a GPU or not, take the statistics of all ranks.

    Raises:
        OptionsError: a layer that is more than BatchNorm, in a way that is not known here.
    """
    for name, layer in list(network.named_modules()):
        if isinstance(layer, _BatchNorm):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _shared(layer))


def _shared(layer: _BatchNorm) -> nn.Module:
    plain = type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if not plain and not all(hasattr(layer, name) for name in _AFTER):
        reason = f"its {type(layer).__name__} cannot take the mean of all ranks"
        raise OptionsError("this network trains in one process alone", None, reason, "Train it without torchrun")
    if plain and any(values.is_cuda for values in layer.state_dict().values()):
        synchronized: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
        return synchronized
    layer.__class__ = SharedBatchNorm  # torch's own does this on GPUs alone; all else of the layer stays as it is
    return layer


class SharedBatchNorm(_BatchNorm):
    """BatchNorm of (N, C, ...) float tensors, N counted over all ranks; a rank may have no image at all."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm takes (N, C, ...), not {tuple(input.shape)}")

    def forward(self, values: Tensor) -> Tensor:
        """Normalize as `nn.BatchNorm2d` does with the whole batch; timm's layers do more after it."""
        values = self._normalize(values) if self.training else super().forward(values)
        for name in _AFTER:
            if hasattr(self, name):
                values = getattr(self, name)(values)
        return values

    def _normalize(self, values: Tensor) -> Tensor:
        others = [d for d in range(values.dim()) if d != 1]
        shape = [1, -1] + [1] * (values.dim() - 2)
        dtype, values = values.dtype, values.to(torch.promote_types(values.dtype, torch.float32))
        here = values.new_tensor([values.numel() // values.shape[1]])
        total: Tensor = _SumOfRanks.apply(torch.cat([values.sum(others), here]))
        mean, count = total[:-1] / total[-1], total[-1]
        centred = values - mean.view(shape)
        variance = _SumOfRanks.apply(centred.square().sum(others)) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1).clamp(min=1)))
        normalized: Tensor = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, which evaluation uses."""
        if not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        part = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.mul_(1 - part).add_(now, alpha=part)


class _SumOfRanks(torch.autograd.Function):
    """The sum over all ranks; each rank's gradient is the sum of those that all have of it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
