"""Export the weights of a trained network as safetensors, with a config.json as timm's files on the Hub have it.

Names of tensors are those of torchvision or timm, so that both libraries load the file without this package.
"""

import copy
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import nn

from modelnet.eval.export import Exported, compared, preparation
from modelnet.eval.export_beside import CONFIG
from modelnet.eval.trained import Trained
from modelnet.nets.head import head_of
from modelnet.nets.registry import TIMM, build_network
from modelnet.nets.weights import load_weights
from modelnet.options.code import is_own
from modelnet.runtime.device import SMALL
from pipeline.errors import OptionsError
from pipeline.recipe import Recipe


def export_weights(trained: Trained, weights: Path | None) -> Exported:
    """Export the weights of a network as safetensors, and a config.json; check that they give the same logits.

    A linear layer that was trained on features becomes the last layer of their network.

    Args:
        trained: the network, on the CPU.
        weights: of the frozen network, where the run was trained on features.

    Raises:
        OptionsError: the features are those of a layer in the middle, or the network ends in no linear layer.
        CheckpointError: a network that is built from the file gives other logits.
        As `Trained.on_images`.
    """
    trained.on_images(weights)  # refuses weights that are others, or not needed
    size, classes = trained.options.crop or trained.recipe.size, len(trained.class_ids)
    name = trained.options.model if trained.features is None else trained.features.model
    network = trained.network if trained.features is None else _with_body(trained, name, size, weights)
    data = save({key: tensor.contiguous().clone() for key, tensor in network.state_dict().items()}, {"format": "pt"})

    again = copy.deepcopy(network) if is_own(name) else build_network(name, classes, size)
    again.load_state_dict(load(data))
    difference = compared(trained.run, "safetensors", network.eval(), again.eval(), (3, *size))
    config = _config(trained, name, network, size)
    is_prepared = "crop_pct" in config["pretrained_cfg"]
    return Exported(
        data,
        (3, *size),
        classes,
        True,
        f"safetensors {version('safetensors')}",
        difference,
        trained.options.amp_dtype if trained.options.amp else "",
        {CONFIG: (json.dumps(config, indent=2) + "\n").encode()},
        "" if is_prepared else f"timm cannot prepare images as the run did: see modelnet.recipe in {CONFIG}",
    )


def _with_body(trained: Trained, name: str, size: tuple[int, int], weights: Path | None) -> nn.Module:
    """Return the whole network of a run that was trained on features."""
    assert trained.features is not None and weights is not None
    network = build_network(name, len(trained.class_ids), size)
    load_weights(network, weights, with_head=False)
    layers = [network.get_submodule(layer) for layer in head_of(network)]
    if trained.features.layer or len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        where = trained.features.layer or "its last layer, which is not linear"
        reason = f"the run was trained on features of {name} at {where}"
        raise OptionsError("there is no such network", trained.run, reason, "Give --format onnx or torch")
    layers[0].load_state_dict(trained.network.state_dict())
    return network.eval()


def _config(trained: Trained, name: str, network: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """Return what timm reads of a folder: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""
    own: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    kept = {key: own[key] for key in ("first_conv", "fixed_input_size") if key in own}
    heads = head_of(network)
    ids = [str(class_id) for class_id in trained.class_ids]
    arguments = {"img_size": list(size)} if own.get("fixed_input_size") and tuple(own["input_size"][1:]) != size else {}
    prepared = {
        "input_size": [3, *size],
        "interpolation": trained.recipe.interpolation,
        "mean": list(trained.recipe.mean),
        "std": list(trained.recipe.std),
        **crop_of(trained.recipe, size),
    }
    library = (
        "timm" if name.startswith(TIMM) else "modelnet" if name in SMALL else "own" if is_own(name) else "torchvision"
    )
    architecture = name.rpartition("/")[2]  # of one's own without the folder of its file
    if library == "timm":
        architecture = name.removeprefix(TIMM).partition(".")[0]  # without the tag: these are other weights
    return {
        "architecture": architecture,
        "library": library,
        "num_classes": len(ids),
        "label_names": ids,
        "label_descriptions": dict(zip(ids, trained.class_names, strict=True)),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            **prepared,
            **kept,
            "num_classes": len(ids),
            "classifier": heads[0] if len(heads) == 1 else list(heads),
        },
        "modelnet": preparation(trained),
    }


def crop_of(recipe: Recipe, size: tuple[int, int]) -> dict[str, Any]:
    """Return timm's crop_mode and crop_pct for the images of a recipe; nothing where timm cannot prepare them so.

    Args:
        recipe: of the cache.
        size: (height, width) of what the network sees: the images, or their centre.
    """
    if recipe.fit == "squash":
        sides = recipe.size
    elif recipe.fit == "crop" and size[0] == size[1]:
        sides = (recipe.resize_to or recipe.size[0],) * 2
    else:
        return {}
    shares = [_share(part, whole) for part, whole in zip(size, sides, strict=True)]
    fits = all(math.floor(part / shares[0]) == whole for part, whole in zip(size, sides, strict=True))
    return {"crop_mode": "squash" if recipe.fit == "squash" else "center", "crop_pct": shares[0]} if fits else {}


def _share(part: int, whole: int) -> float:
    """Return part / whole, such that timm's floor(part / share) is the whole again."""
    share = part / whole
    return share if math.floor(part / share) == whole else part / (whole + 0.5)
