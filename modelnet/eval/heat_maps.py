"""Say which parts of an image speak for a class (LayerCAM), and what the last layer is given."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from modelnet.nets.head import head_of
from pipeline.errors import OptionsError

FEWEST = 4  # positions a side; a coarser map says nothing


def heat_maps(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
    """Return which parts of images speak for a class each, by LayerCAM (Jiang et al. 2021).

    The map of the last layer that has one of 4 × 4 positions or more: its values, weighted by their gradients where
    these are positive, and added over the channels.

    Args:
        network: in evaluation mode; (N, 3, H, W) float32 -> (N, C) logits.
        images_NCHW: normalized, on the device of the network.
        labels_N: int64, the class that each image is asked for.

    Returns:
        (N, H, W) float32 on the CPU, 0..1; each image's largest value is 1, or all are 0 where nothing speaks for it.

    Raises:
        OptionsError: no layer has a map: the network takes features, or its layers give sequences of tokens.
    """
    layer = map_layer(network, images_NCHW[:1])
    kept: list[Tensor] = []
    with torch.enable_grad(), layer.register_forward_hook(lambda *call: kept.append(call[2])):
        logits_NC = network(images_NCHW.detach().clone().requires_grad_() * 1)  # frozen layers too are on the way
        chosen = logits_NC.gather(1, labels_N[:, None].to(logits_NC.device)).sum()
        (gradient,) = torch.autograd.grad(chosen, kept[-1])
    values = (gradient.clamp(min=0) * kept[-1]).detach().float()
    maps_NHW = values.sum(3 if _ends_in_channels(network, kept[-1]) else 1).clamp(min=0)
    maps_NHW = interpolate(maps_NHW[:, None], images_NCHW.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return (maps_NHW / maps_NHW.amax((1, 2), keepdim=True).clamp(min=1e-12)).cpu()


def map_layer(network: nn.Module, image_1CHW: Tensor) -> nn.Module:
    """Return the last layer whose output is a map of positions.

    Raises:
        OptionsError: none has, or only layers before a sequence of tokens.
    """
    found: list[nn.Module] = []
    tokens: list[nn.Module] = []

    def look(layer: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            sides = output.shape[1:3] if _ends_in_channels(network, output) else output.shape[2:]
            if min(sides) >= FEWEST:
                found.append(layer)
                tokens.clear()
        elif isinstance(output, Tensor) and output.dim() == 3 and output.shape[1] > 1:
            tokens.append(layer)

    leaves = [module for module in network.modules() if not list(module.children())]
    with ExitStack() as stack, torch.inference_mode():
        for leaf in leaves:
            stack.enter_context(leaf.register_forward_hook(look))
        network(image_1CHW)
    if tokens:
        reason = f"its layers give sequences of tokens, as {type(tokens[-1]).__name__} does"
        raise OptionsError("the network has no map of positions", None, reason)
    if not found:
        reason = f"no layer has a map of {FEWEST} × {FEWEST} positions or more"
        raise OptionsError("the network has no map of positions", None, reason)
    return found[-1]


def _ends_in_channels(network: nn.Module, output: Tensor) -> bool:
    """Say whether maps are (N, H, W, C), as in Swin transformers: their sides are alike, and channels are more."""
    nhwc = getattr(network, "output_fmt", "") == "NHWC" or type(network).__module__.endswith("swin_transformer")
    return nhwc and output.shape[3] > output.shape[1]


def last_features(network: nn.Module, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the last layer is given, and the logits.

    Args:
        network: in evaluation mode.
        images_NCHW: normalized, on the device of the network; (N, D) for a network on features.

    Returns:
        (N, D) and (N, C) float32 on the CPU.
    """
    heads = head_of(network)
    kept: list[Tensor] = []
    head = network.get_submodule(heads[0]) if heads else network
    with torch.no_grad(), head.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0])):
        logits_NC = network(images_NCHW)
    features = kept[-1].float()
    if features.dim() == 4:
        features = features.mean((2, 3))
    return features.flatten(1).cpu(), logits_NC.float().cpu()


def principal_components(features_ND: Tensor) -> tuple[Tensor, float]:
    """Return the two directions in which features differ most (PCA).

    Args:
        features_ND: (N, D) float32.

    Returns:
        (N, 2) float64, each column's largest part positive, so that the picture is always the same way around; and the
        share of the variance that both have.
    """
    centered = features_ND.double() - features_ND.double().mean(0)
    left, sizes, right = torch.linalg.svd(centered, full_matrices=False)
    sizes, right = sizes[:2], right[:2]
    signs = right.gather(1, right.abs().argmax(1, keepdim=True)).sign().ravel()
    places = torch.zeros(len(centered), 2, dtype=torch.float64)
    places[:, : len(sizes)] = left[:, :2] * sizes * signs
    total = float(centered.square().sum())
    return places, float(sizes.square().sum()) / total if total else 0.0
