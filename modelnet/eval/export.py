"""Export a trained network for other programs, as ONNX or by torch.export, with how its images are prepared.

The file holds the network in float32, for any number of images, and no path of the machine that wrote it.
"""

import copy
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelnet.eval.trained import Trained
from pipeline.errors import CheckpointError, OptionsError
from pipeline.text import how_to_install, show_bytes, show_path

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
PREPARATION = "modelnet.json"  # the file name of the preparation in a program of torch.export

_NEEDED = ("onnx", "onnxscript")
_MOST_ONNX = 2_000_000_000  # bytes: protobuf has no larger messages
_TOLERANCE = 1e-5  # absolute for logits up to 1, relative for larger ones
_BATCHES = (1, 3)  # batch sizes of the check; both differ from that of the export


@dataclass(frozen=True)
class Exported:
    """An exported network.

    Attributes:
        data: the bytes of the file.
        shape: (3, H, W) of an image.
        classes: C, the logits of an image.
        checked_by: the package that computed the same logits from these bytes; None where it is not installed.
        difference: the largest one found in them.
        amp: the half-size numbers that `predict` computes with, or "": the file computes with float32.
        config: the bytes of a config.json beside the file; empty where there is none.
        note: what a person should know of it.
    """

    data: bytes
    shape: tuple[int, ...]
    classes: int
    checked_by: str | None
    difference: float
    amp: str = ""
    config: bytes = b""
    note: str = ""

    def text(self, path: Path) -> str:
        """Return a summary of the file at `path`."""
        shape = " × ".join(map(str, self.shape))
        what = f"images (N × {shape}, float32) -> logits (N × {self.classes})"
        lines = [f"{show_path(path)}: {show_bytes(len(self.data))}: {what}"]
        if self.checked_by is not None:
            lines.append(f"checked: by {self.checked_by} its logits differ by at most {self.difference:.1e}")
        if self.note:
            lines.append(f"note: {self.note}")
        if self.amp:
            lines.append(f"note: it computes in float32, predict in {self.amp} (--amp): probabilities differ a little")
        return "\n".join(lines)


def export(trained: Trained, form: str = "onnx") -> Exported:
    """Export a network, and check that the file gives the same logits.

    Args:
        trained: the network; it takes images and is on the CPU.
        form: "onnx", or "torch" for `torch.export`.

    Raises:
        OptionsError: a package is not installed, or the network is too large for ONNX.
        CheckpointError: torch cannot export the network, or the exported one gives other logits.
    """
    if form == "onnx":
        _check_onnx(trained)
    shape, recorded = (3, *(trained.options.crop or trained.recipe.size)), preparation(trained)
    encode = _onnx_bytes if form == "onnx" else _torch_bytes
    network = copy.deepcopy(trained.whole).to(memory_format=torch.contiguous_format)
    try:
        data = encode(network, torch.zeros(2, *shape), recorded)
    except Exception as error:  # torch's exporters raise any type of error for an unknown operation
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError("the network cannot be exported", trained.run, f"torch says: {reason}") from error
    checked_by, difference = _check(trained, form, data, shape)
    amp = trained.options.amp_dtype if trained.options.amp else ""
    return Exported(data, shape, len(trained.class_ids), checked_by, difference, amp)


def preparation(trained: Trained) -> dict[str, Any]:
    """Return what a program needs to use the network, as plain JSON values.

    `recipe` says how an image becomes a tensor, `filter` how it is resized, `crop_size` its centre crop.
    `class_ids` and `class_names` are those of the logits. With `features`, `model` stands behind that frozen network.
    """
    return {
        "recipe": trained.recipe.to_dict(),
        "filter": _filter(trained.recipe.interpolation),
        "crop_size": trained.options.to_dict()["crop_size"],
        "class_ids": trained.class_ids,
        "class_names": trained.class_names,
        "model": trained.options.model.rpartition("/")[2],  # of one's own without the folder of its file
        "features": None if trained.features is None else trained.features.to_dict(),
        "run": show_path(trained.run.resolve().name),
    }


def _filter(interpolation: str) -> str:
    """Describe how an image is resized, for a program that does without this one."""
    smooth = "" if interpolation == "nearest" else ", antialiased"
    return f"{interpolation}{smooth}: Pillow's Image.resize with Resampling.{interpolation.upper()}"


def _check_onnx(trained: Trained) -> None:
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        reason = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise OptionsError("ONNX cannot be written", None, reason, how_to_install("export"))
    size = sum(tensor.nbytes for tensor in trained.whole.state_dict().values())
    if size > _MOST_ONNX:
        reason = f"its weights have {show_bytes(size)}, and an ONNX file holds {show_bytes(_MOST_ONNX)}"
        raise OptionsError("the network is too large for ONNX", trained.run, reason, "Give --format torch")


def _onnx_bytes(network: nn.Module, images: Tensor, recorded: dict[str, Any]) -> bytes:
    """Write ONNX; what is recorded are metadata_props of the model, text as it is and JSON otherwise."""
    program = torch.onnx.export(
        network,
        (images,),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # the source line of each operation, with paths of this machine
    for name, value in recorded.items():
        program.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value)
    data: bytes = program.model_proto.SerializeToString()
    return data


def _torch_bytes(network: nn.Module, images: Tensor, recorded: dict[str, Any]) -> bytes:
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    program.example_inputs = None  # images of zeros, as large as many networks
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={PREPARATION: json.dumps(recorded, indent=2)})
    return file.getvalue()


def _check(trained: Trained, form: str, data: bytes, shape: tuple[int, ...]) -> tuple[str | None, float]:
    """Compute logits from the bytes; return the package that did, and the largest difference from the network's."""
    compute = _onnxruntime(data) if form == "onnx" else ("torch", torch.export.load(io.BytesIO(data)).module())
    if compute is None:
        return None, 0.0
    by, run = compute
    return by, compared(trained.run, by, trained.whole, run, shape)


def compared(
    run: Path, by: str, network: nn.Module, exported: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> float:
    """Return by how much the logits of an exported network differ from the network's, at most.

    Args:
        run: the run folder.
        by: the package that computes those of the exported one.
        network: in evaluation mode, on the CPU.
        exported: (N, 3, H, W) -> (N, C).
        shape: (3, H, W) of an image.

    Raises:
        CheckpointError: they differ by more than rounding.
    """
    generator, difference = torch.Generator().manual_seed(0), 0.0
    for count in _BATCHES:
        images = torch.randn(count, *shape, generator=generator)
        with torch.inference_mode():
            logits, found = network(images), exported(images)
        off = (found - logits).abs()
        if not (off <= _TOLERANCE * logits.abs().clamp(min=1)).all():
            reason = f"by {by} the logits of {count} images differ by up to {off.max().item():.1e}"
            raise CheckpointError("the exported network gives other logits", run, reason, "Nothing was written")
        difference = max(difference, off.max().item())
    return difference


def _onnxruntime(data: bytes) -> tuple[str, Any] | None:
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return "onnxruntime", run
