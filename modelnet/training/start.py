"""Make the network that a run begins with: drawn from the seed, with the weights of a file, or shared with others."""

import copy
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from modelnet.data.preload import Preloaded
from modelnet.data.split import Split
from modelnet.nets.freeze import freeze_layers
from modelnet.nets.head import draw_head, head_of
from modelnet.nets.init import initialize
from modelnet.nets.own import OwnCode, check_network
from modelnet.nets.preparation import preparation_hint
from modelnet.nets.registry import build_network
from modelnet.nets.weights import load_weights
from modelnet.options import OPTIONS, TrainOptions
from modelnet.options.code import parse_arguments
from modelnet.progress import Progress
from modelnet.runtime.device import CONTIGUOUS, move_network
from modelnet.runtime.ranks import Ranks
from modelnet.training.frozen_body import CachedBody
from modelnet.training.optimizer import build_optimizer, running_mean_of_weights
from modelnet.training.state import State, size_of_rows
from pipeline import TensorCache


class Shared(NamedTuple):
    """A network of which others take the frozen layers: all but the last.

    Attributes:
        network: on its device.
        drawn: its last layer, where that is drawn from the seed; empty where a file gave it.
        weights_sha256: of the file that gave it its weights.
    """

    network: nn.Module
    drawn: tuple[str, ...]
    weights_sha256: str | None

    def start(self, options: TrainOptions, device: torch.device) -> State:
        """Return what `initial_state` does, with the same frozen tensors and a last layer of its own."""
        heads = tuple(f"{head}." for head in head_of(self.network))
        tensors = chain(self.network.named_parameters(), self.network.named_buffers())
        network = copy.deepcopy(
            self.network, {id(tensor): tensor for name, tensor in tensors if not name.startswith(heads)}
        )
        draw_head(network, self.drawn, options.seed, options.init)
        state = _state(network, options, device, Ranks())
        state.weights_sha256 = self.weights_sha256
        return state


class Opened(NamedTuple):
    """What networks that train on the same images share: the open caches, as attributes of `Setup`.

    Attributes:
        preloaded: training and validation images in the memory of the device, or None.
        shared: of another network with the same frozen layers, where the last alone is trained; or None.
        body: what these layers give, where that is cached.
    """

    cache: TensorCache
    split: Split | None
    val: TensorCache | None
    label_map: Tensor
    preloaded: list[Preloaded | None]
    shared: Shared | None = None
    body: CachedBody | None = None


def initial_state(
    cache: TensorCache,
    options: TrainOptions,
    device: torch.device,
    ranks: Ranks | None = None,
    network: nn.Module | None = None,
    code: OwnCode | None = None,
) -> State:
    """Make the network, with the weights that follow from the seed, and its optimizer.

    Args:
        cache, options, device, ranks: of the run.
        network: to train; None makes one.
        code: of the network, where it is a person's own.
    """
    torch.manual_seed(options.seed)
    classes, size = len(cache.class_ids), size_of_rows(options, cache)
    if network is None:
        network = build_network(options.model, classes, size, code, parse_arguments(options.model_arg))
    else:
        check_network(network, classes, (size, size) if isinstance(size, int) else size)
    initialize(network, options.init)
    freeze_layers(network, options.freeze, options.norm_stats)
    move_network(network, device, options.memory_format or CONTIGUOUS)
    return _state(network, options, device, ranks or Ranks())


def _state(network: nn.Module, options: TrainOptions, device: torch.device, ranks: Ranks) -> State:
    average = None if options.model_ema is None else running_mean_of_weights(network, options.model_ema)
    scaler = GradScaler(device.type, enabled=options.scales_gradients)
    return State(network, build_optimizer(network, options), average, ranks, scaler=scaler)


def take_weights(state: State, options: TrainOptions, cache: TensorCache, progress: Progress) -> tuple[str, ...]:
    """Start from the weights of the file that the options name; layers that it lacks are drawn from the seed.

    Returns:
        The last layer, where it was drawn.

    Raises:
        As `load_weights`.
    """
    assert options.weights is not None
    loaded = load_weights(state.network, options.weights)
    state.weights_sha256 = loaded.sha256
    if loaded.head:
        draw_head(state.network, loaded.head, options.seed, options.init)
    for option in () if loaded.head or loaded.new else ("init", "seed"):
        if getattr(options, option) != OPTIONS[option].default:
            progress.warn(f"--{option} {getattr(options, option)} changes no weight: --weights sets all")
    for line in loaded.notes:
        progress.note(line)
    for line in loaded.warnings:
        progress.warn(line)
    if hint := preparation_hint(options.model, options.weights, cache.recipe, options.crop):
        progress.note(f"hint: {hint}")
    return loaded.head
