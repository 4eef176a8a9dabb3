"""Compute many small networks as one: the same images go through all of them in a few large operations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, max_pool2d

from modelnet.eval.loss import TrainingLoss
from modelnet.nets.modelnet import ModelNet


class StackedNetworks(nn.Module):
    """K networks whose weights are stacked along a new first dimension; they do not influence each other.

    Each kind of network has its own `forward`: images or features (B, ...) float32 to logits (K, B, C) float32.

    Args:
        networks: K of one kind, without buffers and without dropout; they are copied.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.count = len(networks)
        self._names = [name for name, _ in networks[0].named_parameters()]
        states = [network.state_dict() for network in networks]
        self.stacked = nn.ParameterList(torch.stack([state[name] for state in states]) for name in self._names)

    def copy_to(self, networks: Sequence[nn.Module], which: Sequence[int]) -> None:
        """Give networks their weights.

        Args:
            networks: K of them.
            which: are meant; the others are left alone.
        """
        with torch.no_grad():
            for index, weights in enumerate(self.stacked):
                values = weights.unbind()
                for k in which:
                    self._parameter(networks[k], index).copy_(values[k])

    def copy_gradients_to(self, networks: Sequence[nn.Module], which: Sequence[int]) -> None:
        """Give networks their gradients."""
        for index, weights in enumerate(self.stacked):
            for k in which if weights.grad is not None else ():
                self._parameter(networks[k], index).grad = weights.grad[k].clone()

    def take_gradients(self, networks: Sequence[nn.Module]) -> None:
        """Set the gradients to those of K networks; zero where one has none."""
        for index, weights in enumerate(self.stacked):
            own = [self._parameter(network, index).grad for network in networks]
            weights.grad = torch.stack([torch.zeros_like(weights[0]) if grad is None else grad for grad in own])

    def _parameter(self, network: nn.Module, index: int) -> nn.Parameter:
        return network.get_parameter(self._names[index])


class StackedModelNet(StackedNetworks):
    """K ModelNets for images of one size.

    The first convolution's patches do not overlap, so one matrix product of the patches with the kernels of all
    networks does it, and the patches are cut once for all. What follows is the same for K groups of channels.
    """

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Map (B, 3, H, W) float32 images to (K, B, C) float32 logits."""
        kernel1, bias1, kernel2, bias2, *linear = self.stacked
        pooled_BCHW = max_pool2d(self._first_convolution(images_BCHW, kernel1, bias1), kernel_size=6, stride=2)
        hidden_KBF = self._second_convolution(pooled_BCHW, kernel2, bias2)
        for i in range(0, len(linear), 2):
            hidden_KBF = torch.baddbmm(linear[i + 1][:, None], hidden_KBF, linear[i].transpose(1, 2))
            if i + 2 < len(linear):
                hidden_KBF = hidden_KBF.relu()
        return hidden_KBF

    def _first_convolution(self, images_BCHW: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Return (B, K × 3, down, across), the channels last in memory: so the pooling is vectorized over them."""
        batch, down, across = len(images_BCHW), *(side // 6 for side in images_BCHW.shape[2:])
        cut = images_BCHW[:, :, : 6 * down, : 6 * across].reshape(batch, 3, down, 6, across, 6)
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(batch * down * across, 108)
        convolved = torch.addmm(bias.flatten(), patches, kernel.reshape(-1, 108).t())
        return convolved.view(batch, down, across, -1).permute(0, 3, 1, 2)

    def _second_convolution(self, pooled_BCHW: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Return (K, B, 6 × down × across), in the order in which one network flattens."""
        batch, down, across = len(pooled_BCHW), *(side // 3 for side in pooled_BCHW.shape[2:])
        cut_BHWC = pooled_BCHW.permute(0, 2, 3, 1)[:, : 3 * down, : 3 * across]
        cut = cut_BHWC.reshape(batch, down, 3, across, 3, self.count, 3)
        patches = cut.permute(5, 0, 1, 3, 6, 2, 4).reshape(self.count, batch * down * across, 27)
        convolved = torch.baddbmm(bias[:, None], patches, kernel.reshape(self.count, 6, 27).transpose(1, 2))
        return convolved.view(self.count, batch, down * across, 6).transpose(2, 3).reshape(self.count, batch, -1)


class StackedLinear(StackedNetworks):
    """K linear layers: one matrix product of the features with the weights of all."""

    def forward(self, features_BD: Tensor) -> Tensor:
        """Map (B, D) float32 features to (K, B, C) float32 logits."""
        weights_KCD, bias_KC = self.stacked
        together = linear(features_BD, weights_KCD.flatten(0, 1), bias_KC.flatten())
        return together.view(len(features_BD), self.count, -1).transpose(0, 1)


def stack(networks: Sequence[nn.Module]) -> StackedNetworks:
    """Return K ModelNets, or K linear layers, as one network."""
    return (StackedModelNet if isinstance(networks[0], ModelNet) else StackedLinear)(networks)


class StackedLoss:
    """The mean loss of a batch in each of K networks, each with label smoothing and class weights of its own.

    Args:
        losses: K of them; each network's loss is the one that its own gives.
    """

    def __init__(self, losses: Sequence[TrainingLoss]) -> None:
        weights, smoothing = [loss.weights_C for loss in losses], [loss.smoothing for loss in losses]
        given = next((weight for weight in weights if weight is not None), None)
        self._weights_KC = None
        self._smoothing_K1 = None
        if given is not None:
            self._weights_KC = torch.stack([torch.ones_like(given) if w is None else w for w in weights])
        if any(smoothing):
            self._smoothing_K1 = torch.tensor(smoothing, device=None if given is None else given.device)[:, None]

    def __call__(self, logits_KBC: Tensor, labels: Tensor, size: int) -> Tensor:
        """Return (K,), of `size` labels (B,) int64 or mixed ones (B, C) float32."""
        log_p_KBC = logits_KBC.log_softmax(2)
        mixed = labels.is_floating_point()
        weights_KB = None
        if self._weights_KC is not None:
            weights_KB = self._weights_KC @ labels.T if mixed else self._weights_KC[:, labels]
        if mixed:
            shares = labels if self._weights_KC is None else labels * self._weights_KC[:, None]
            losses_KB = -(log_p_KBC * shares).sum(2)
        else:
            losses_KB = -log_p_KBC.gather(2, labels[None, :, None].expand(len(logits_KBC), -1, 1)).squeeze(2)
            losses_KB = losses_KB if weights_KB is None else losses_KB * weights_KB
        if self._smoothing_K1 is not None:
            even_KB = -log_p_KBC.mean(2) if weights_KB is None else -log_p_KBC.mean(2) * weights_KB
            losses_KB = torch.lerp(losses_KB, even_KB, self._smoothing_K1.to(losses_KB.device))
        return losses_KB.sum(1) / size
