"""Export a trained network for other programs, as ONNX or by torch.export, with how its images are prepared.

The file takes 8-bit pixels: normalization and softmax are part of it, so that nobody can forget them. It holds the
network in float32, for any number of images, and no path of the machine that wrote it.
"""

import copy
import io
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelnet.eval.export_beside import INFER, infer_files
from modelnet.eval.trained import Trained
from pipeline.errors import CheckpointError, OptionsError
from pipeline.recipe import Recipe
from pipeline.text import how_to_install, show_bytes, show_path

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
PREPARATION = "modelnet.json"  # the file name of the preparation in a program of torch.export

_NEEDED = ("onnx", "onnxscript")
_MOST_ONNX = 2_000_000_000  # bytes: protobuf has no larger messages
_TOLERANCE = 1e-5  # absolute for logits up to 1, relative for larger ones
_LEAST_PROBABILITY = 1e-30  # float32 ends at 1e-38
_BATCHES = (1, 3)  # batch sizes of the check; both differ from that of the export


@dataclass(frozen=True)
class Exported:
    """An exported network.

    Attributes:
        data: the bytes of the file.
        shape: of what it takes for an image: (H, W, 3) 8-bit pixels; (3, H, W) normalized numbers if `raw`.
        classes: C, the numbers that it gives for an image: probabilities; logits if `raw`.
        raw: whether it is the bare network.
        checked_by: the package that computed the same numbers from these bytes; None where it is not installed.
        difference: the largest one found in them.
        amp: the half-size numbers that `predict` computes with, or "": the file computes with float32.
        beside: the bytes of further files beside it, by name.
        note: what a person should know of it.
    """

    data: bytes
    shape: tuple[int, ...]
    classes: int
    raw: bool
    checked_by: str | None
    difference: float
    amp: str = ""
    beside: dict[str, bytes] = field(default_factory=dict)
    note: str = ""

    def text(self, path: Path) -> str:
        """Return a summary of the file at `path`."""
        shape = " × ".join(map(str, self.shape))
        takes, gives = (f"images (N × {shape}, float32)", "logits")
        if not self.raw:
            takes, gives = (f"pixels (N × {shape}, uint8)", "probabilities")
        lines = [f"{show_path(path)}: {show_bytes(len(self.data))}: {takes} -> {gives} (N × {self.classes})"]
        if self.checked_by is not None:
            lines.append(f"checked: by {self.checked_by} its {gives} differ by at most {self.difference:.1e}")
        if INFER in self.beside:
            lines.append(f"to try it: python {shlex.quote(show_path(path.with_name(INFER)))} IMAGE...")
        if self.note:
            lines.append(f"note: {self.note}")
        if self.amp:
            lines.append(f"note: it computes in float32, predict in {self.amp} (--amp): probabilities differ a little")
        return "\n".join(lines)


class FromPixels(nn.Module):
    """A network behind the normalization of 8-bit pixels; gives probabilities.

    Args:
        network: (N, 3, H, W) float32 -> (N, C) logits.
        recipe: gives mean and std.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(recipe, name)).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (N, C) float32 probabilities of (N, H, W, 3) uint8 pixels; normalized in torchvision's three steps."""
        images_NCHW = pixels.permute(0, 3, 1, 2).contiguous().float() / 255  # a network may take a view
        logits: Tensor = self.network((images_NCHW - self.mean) / self.std)
        return logits.softmax(1)


def export(trained: Trained, form: str = "onnx", raw: bool = False, name: str = "model.onnx") -> Exported:
    """Export a network, and check that the file gives the same numbers.

    Args:
        trained: the network; it takes images and is on the CPU.
        form: "onnx", or "torch" for `torch.export`.
        raw: the bare network, from normalized images to logits, instead of pixels to probabilities.
        name: of the file; `infer.py` beside it looks for it.

    Raises:
        OptionsError: a package is not installed, or the network is too large for ONNX.
        CheckpointError: torch cannot export the network, or the exported one gives other numbers.
    """
    if form == "onnx":
        _check_onnx(trained)
    size, recorded = trained.options.crop or trained.recipe.size, preparation(trained)
    encode = _onnx_bytes if form == "onnx" else _torch_bytes
    network = copy.deepcopy(trained.whole).to(memory_format=torch.contiguous_format)
    inputs = torch.zeros(2, 3, *size)
    if not raw:
        network, inputs = FromPixels(network, trained.recipe).eval(), torch.zeros(2, *size, 3, dtype=torch.uint8)
    shape = tuple(inputs.shape[1:])
    try:
        data = encode(network, inputs, recorded)
    except Exception as error:  # torch's exporters raise any type of error for an unknown operation
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError("the network cannot be exported", trained.run, f"torch says: {reason}") from error
    whole = trained.whole if raw else FromPixels(trained.whole, trained.recipe).eval()
    checked_by, difference = _check(trained.run, form, data, whole, shape)
    amp = trained.options.amp_dtype if trained.options.amp else ""
    beside = infer_files(trained, name) if form == "onnx" and not raw else {}
    return Exported(data, shape, len(trained.class_ids), raw, checked_by, difference, amp, beside)


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


def _onnx_bytes(network: nn.Module, inputs: Tensor, recorded: dict[str, Any]) -> bytes:
    """Write ONNX; what is recorded are metadata_props of the model, text as it is and JSON otherwise."""
    takes, gives = ("pixels", "probabilities") if isinstance(network, FromPixels) else ("images", "logits")
    program = torch.onnx.export(
        network,
        (inputs,),
        dynamo=True,
        input_names=[takes],
        output_names=[gives],
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


def _torch_bytes(network: nn.Module, inputs: Tensor, recorded: dict[str, Any]) -> bytes:
    program = torch.export.export(network, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    program.example_inputs = None  # images of zeros, as large as many networks
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={PREPARATION: json.dumps(recorded, indent=2)})
    return file.getvalue()


def _check(run: Path, form: str, data: bytes, network: nn.Module, shape: tuple[int, ...]) -> tuple[str | None, float]:
    """Compute with the bytes; return the package that did, and the largest difference from the network's numbers."""
    compute = _onnxruntime(data) if form == "onnx" else ("torch", torch.export.load(io.BytesIO(data)).module())
    if compute is None:
        return None, 0.0
    by, exported = compute
    return by, compared(run, by, network, exported, shape)


def compared(
    run: Path, by: str, network: nn.Module, exported: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> float:
    """Return by how much the numbers of an exported network differ from the network's, at most.

    Probabilities are compared by their logarithms: on noise, most networks are so sure that probabilities of 0 and 1
    would hide other logits.

    Args:
        run: the run folder.
        by: the package that computes those of the exported one.
        network: in evaluation mode, on the CPU; a `FromPixels` takes pixels and gives probabilities.
        exported: (N, *shape) -> (N, C).
        shape: of the input for an image.

    Raises:
        CheckpointError: they differ by more than rounding.
    """
    generator, difference, raw = torch.Generator().manual_seed(0), 0.0, not isinstance(network, FromPixels)
    for count in _BATCHES:
        inputs = torch.randn(count, *shape, generator=generator)
        if not raw:
            inputs = (128 + 64 * inputs).clamp(0, 255).to(torch.uint8)
        with torch.inference_mode():
            wanted, found = network(inputs), exported(inputs)
        difference = max(difference, (found - wanted).abs().max().item())
        if not raw:
            wanted, found = (numbers.clamp(min=_LEAST_PROBABILITY).log() for numbers in (wanted, found))
        size = wanted.abs() if raw else wanted.abs().amax(1, keepdim=True)
        off = (found - wanted).abs()
        if not (off <= _TOLERANCE * size.clamp(min=1)).all():
            reason = f"by {by} the logits of {count} images differ by up to {off.max().item():.1e}"
            raise CheckpointError("the exported network gives other logits", run, reason, "Nothing was written")
    return difference


def _onnxruntime(data: bytes) -> tuple[str, Any] | None:
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()

    def run(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {taken.name: inputs.numpy()})[0])

    return "onnxruntime", run
