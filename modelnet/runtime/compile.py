"""Compile a network with torch for whole batches of training; shorter batches use it uncompiled."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from pipeline.errors import DeviceError

_TRIALS = 3  # a CUDA graph is recorded in the second


def compile_network(
    network: nn.Module, batch_shape: tuple[int, ...], autocast: AbstractContextManager[object], cuda_graphs: bool
) -> Callable[[Tensor], Tensor]:
    """Compile a network at once, so that a failure comes before a run begins.

    Only batches of one shape are compiled for: each shape takes seconds to minutes, and the last, shorter batch of an
    epoch is one of many. Validation uses the network itself, so that `evaluate` repeats it to the bit.

    Args:
        network: on its device, in training; its weights and statistics stay as they are.
        batch_shape: (B, 3, H, W) of a whole batch.
        autocast: the context that it computes in.
        cuda_graphs: whether to launch all kernels of a pass at once. What a pass returns lies where the next one
            writes: logits are copied, gradients must not be kept beyond a step.

    Returns:
        What maps (N, 3, H, W) float32 images to (N, C) logits as the network does, but for rounding.

    Raises:
        DeviceError: there is no compiler, or torch cannot compile this network.
    """
    whole = batch_shape[0]
    before = copy.deepcopy(network.state_dict())
    parameter = next(network.parameters())
    devices = [parameter.device] if parameter.device.type == "cuda" else []
    try:
        compiled = torch.compile(network, dynamic=False, mode="reduce-overhead" if cuda_graphs else None)

        def forward(images_NCHW: Tensor) -> Tensor:
            if len(images_NCHW) != whole:
                logits_NC: Tensor = network(images_NCHW)
                return logits_NC
            logits_NC = compiled(images_NCHW)
            return logits_NC.clone() if cuda_graphs else logits_NC

        network.train()
        with torch.random.fork_rng(devices):
            for _ in range(_TRIALS if cuda_graphs else 1):
                with autocast:
                    logits_NC = forward(torch.zeros(batch_shape, device=parameter.device))
                logits_NC.float().sum().backward()
                network.zero_grad()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        advice = "Leave out --compile; on the CPU it needs a C++ compiler, such as g++"
        raise DeviceError("--compile does not work here", None, reason, advice) from error
    network.load_state_dict(before)
    return forward
