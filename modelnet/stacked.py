"""Many ModelNets as one: the same images go through all of them in a few large operations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d

from modelnet.network import ModelNet


class StackedModelNet(nn.Module):
    """K networks whose weights are stacked, each along a new first dimension; none sees another.

    The first convolution's patches do not overlap, so one matrix product of the patches with the kernels of all
    networks does it, and the patches are cut once for all. What follows is the same for K groups of channels.

    Args:
        networks: K of them, for images of one size; they are copied.
    """

    def __init__(self, networks: Sequence[ModelNet]) -> None:
        super().__init__()
        self.count = len(networks)
        self._names = [name for name, _ in networks[0].named_parameters()]
        states = [network.state_dict() for network in networks]
        self.stacked = nn.ParameterList(torch.stack([state[name] for state in states]) for name in self._names)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Map (B, 3, S, S) float32 images to (K, B, C) float32 logits."""
        kernel1, bias1, kernel2, bias2, *linear = self.stacked
        pooled_BCHW = max_pool2d(self._first_convolution(images_BCHW, kernel1, bias1), kernel_size=6, stride=2)
        hidden_KBF = self._second_convolution(pooled_BCHW, kernel2, bias2)
        for i in range(0, len(linear), 2):
            hidden_KBF = torch.baddbmm(linear[i + 1][:, None], hidden_KBF, linear[i].transpose(1, 2))
            if i + 2 < len(linear):
                hidden_KBF = hidden_KBF.relu()
        return hidden_KBF

    def _first_convolution(self, images_BCHW: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Return (B, K × 3, side, side), the channels last in memory: so the pooling is vectorized over them."""
        batch, side = len(images_BCHW), images_BCHW.shape[-1] // 6
        cut = images_BCHW[:, :, : 6 * side, : 6 * side].reshape(batch, 3, side, 6, side, 6)
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(batch * side * side, 108)
        convolved = torch.addmm(bias.flatten(), patches, kernel.reshape(-1, 108).t())
        return convolved.view(batch, side, side, -1).permute(0, 3, 1, 2)

    def _second_convolution(self, pooled_BCHW: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Return (K, B, 6 × side × side), in the order in which one network flattens."""
        batch, side = len(pooled_BCHW), pooled_BCHW.shape[-1] // 3
        cut = pooled_BCHW.permute(0, 2, 3, 1)[:, : 3 * side, : 3 * side].reshape(batch, side, 3, side, 3, self.count, 3)
        patches = cut.permute(5, 0, 1, 3, 6, 2, 4).reshape(self.count, batch * side * side, 27)
        convolved = torch.baddbmm(bias[:, None], patches, kernel.reshape(self.count, 6, 27).transpose(1, 2))
        return convolved.view(self.count, batch, side * side, 6).transpose(2, 3).reshape(self.count, batch, -1)

    def copy_to(self, networks: Sequence[nn.Module]) -> None:
        """Give each network its weights."""
        with torch.no_grad():
            for network, *values in zip(networks, *(weights.unbind() for weights in self.stacked), strict=True):
                for parameter, value in zip(network.parameters(), values, strict=True):
                    parameter.copy_(value)

    def copy_momentum_to(self, own: torch.optim.Optimizer, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Give each network's SGD its momentum, from that of the stacked weights."""
        for index, weights in enumerate(self.stacked):
            buffer = own.state[weights].get("momentum_buffer")
            if buffer is not None:
                for optimizer, value in zip(optimizers, buffer.unbind(), strict=True):
                    optimizer.state[optimizer.param_groups[0]["params"][index]]["momentum_buffer"] = value.clone()


def stacked_losses(logits_KBC: Tensor, labels_B: Tensor, loss_of: nn.CrossEntropyLoss) -> Tensor:
    """Return (K,), for each network what `loss_of` gives for it alone."""
    count, batch, classes = logits_KBC.shape
    losses_KB = cross_entropy(
        logits_KBC.reshape(count * batch, classes),
        labels_B.repeat(count),
        weight=loss_of.weight,
        reduction="none",
        label_smoothing=loss_of.label_smoothing,
    ).view(count, batch)
    return losses_KB.mean(1) if loss_of.weight is None else losses_KB.sum(1) / loss_of.weight[labels_B].sum()
