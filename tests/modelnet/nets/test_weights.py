"""Weights from files in networks (also `head`): names made to fit, what is new, left, or refused."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from modelnet import ModelNet, TrainOptions, resume, train
from modelnet.nets.registry import build_network
from modelnet.nets.weights import Loaded, load_weights
from modelnet.runs.folder import RunFolder
from pipeline.errors import CheckpointError
from tests.support.listener import Listener

SMALL = "shufflenet_v2_x0_5"  # 0.35 million weights, with batch normalization

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def saved(content: Any, name: str = "w.pth") -> Path:
    save_file(content, name) if name.endswith("safetensors") else torch.save(content, name)
    return Path(name)


def network_of(seed: int, name: str = SMALL, classes: int = 1000) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network


def loaded(network: nn.Module, path: Path) -> tuple[Loaded, dict[str, Tensor]]:
    return load_weights(network, path), network.state_dict()


def equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class Lightning(nn.Module):
    """Keeps its network as a LightningModule does, and has a tensor of its own."""

    def __init__(self, network: nn.Module, attribute: str) -> None:
        super().__init__()
        setattr(self, attribute, network)
        self.register_buffer("class_weights", torch.ones(2))


def _of_lightning(network: nn.Module) -> Any:
    return {"state_dict": Lightning(network, "net").state_dict(), "epoch": 1, "pytorch-lightning_version": "2.4.0"}


def compiled(network: nn.Module) -> Any:
    return torch.compile(network)


WRITERS: dict[str, Callable[[nn.Module], Any]] = {
    "torchvision": lambda network: network.state_dict(),
    "a checkpoint of torchvision's references": lambda network: {"model": network.state_dict(), "epoch": 1},
    "an average": lambda network: {"model_ema": AveragedModel(network).state_dict(), "model": {"a": torch.ones(1)}},
    "timm's trainer": lambda network: {
        "state_dict": network_of(5).state_dict(),
        "state_dict_ema": network.state_dict(),
    },
    "Lightning": _of_lightning,
    "Lightning with a compiled network": lambda network: Lightning(compiled(network), "model").state_dict(),
    "DataParallel": lambda network: nn.DataParallel(network).state_dict(),
    "torch.compile": lambda network: compiled(network).state_dict(),
    "torch.compile of DataParallel": lambda network: compiled(nn.DataParallel(network)).state_dict(),
    "DataParallel of torch.compile": lambda network: nn.DataParallel(compiled(network)).state_dict(),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_files_of_all_writers_load(writer: str) -> None:
    theirs = network_of(1)

    report, found = loaded(network_of(2), saved(WRITERS[writer](theirs)))

    assert equal(found, theirs.state_dict())
    assert report.count == len(found) and not report.head and not report.new
    assert set(report.left) <= {"n_averaged", "class_weights"}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_files_of_timm_and_of_the_hub_load(name: str) -> None:
    theirs = timm.create_model(name, num_classes=7)
    path = saved(theirs.state_dict(), "model.safetensors")

    report, found = loaded(build_network(f"timm:{name}", 7, 160), path)

    assert equal(found, theirs.state_dict())
    assert report.notes == [f"weights: {len(found)} tensors of model.safetensors, SHA-256 {report.sha256[:8]}"]
    assert not report.warnings


def test_all_layers_of_an_encoder_that_names_no_last_layer_are_loaded() -> None:
    network, stored = (timm.create_model("test_vit", num_classes=0) for _ in range(2))
    vars(network)["pretrained_cfg"] = vars(network)["pretrained_cfg"] | {"classifier": None}

    report = load_weights(network, saved(stored.state_dict()), with_head=False)

    assert report.count == len(stored.state_dict()) and not report.new
    assert equal(network.state_dict(), stored.state_dict())


def test_position_embeddings_are_resampled_as_timm_does() -> None:
    theirs = timm.create_model("test_vit", num_classes=7)
    expected = timm.create_model("test_vit", num_classes=7, img_size=96)
    timm.models.load_checkpoint(
        expected, str(saved(theirs.state_dict())), filter_fn=timm.models.vision_transformer.checkpoint_filter_fn
    )

    report, found = loaded(build_network("timm:test_vit", 7, 96), Path("w.pth"))

    assert equal(found, expected.state_dict())
    assert report.resampled == ["pos_embed (1, 101, 64) → (1, 37, 64)"]
    assert report.notes[-1].startswith("resampled for images of another size: pos_embed (1, 101, 64)")


def test_torchvision_s_transformer_takes_images_of_another_size() -> None:
    small: dict[str, Any] = {"patch_size": 16, "num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8}
    theirs = models.VisionTransformer(image_size=64, num_classes=3, **small)

    report, _ = loaded(models.VisionTransformer(image_size=96, num_classes=3, **small), saved(theirs.state_dict()))

    assert report.resampled == ["encoder.pos_embedding (1, 17, 8) → (1, 37, 8)"]


def test_old_names_of_densenet_s_layers_are_understood() -> None:
    theirs = network_of(1, "densenet121", 3)
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): t for name, t in theirs.state_dict().items()
    }

    _, found = loaded(network_of(2, "densenet121", 3), saved(old))

    assert equal(found, theirs.state_dict())


@pytest.mark.parametrize(("file_has", "why"), [(1000, "the file's is for 1000 classes"), (0, "the file has none")])
def test_the_last_layer_of_other_classes_or_without_a_file_is_new(file_has: int, why: str) -> None:
    state = network_of(1).state_dict()
    body = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    ours = network_of(2, classes=2)
    head = {name: ours.state_dict()[name].clone() for name in ("fc.weight", "fc.bias")}

    report, found = loaded(ours, saved(state if file_has else body))

    assert report.head == ("fc",) and not report.warnings
    assert report.notes[-1] == f"new, drawn from the seed alone: fc ({why})"
    assert equal(found, body) and equal(found, head)


def test_a_new_last_layer_is_drawn_as_the_linear_network_is(cache_path: Path) -> None:
    path = saved(network_of(1).state_dict())
    for init in ("default", "orthogonal"):
        options = TrainOptions(
            cache_path, model=SMALL, weights=path, epochs=1, lr=1e-30, seed=5, init=init, device="cpu"
        )
        content = RunFolder(train(options).run).load_checkpoint()
        torch.manual_seed(5)
        expected = nn.Linear(1024, 2)
        if init == "orthogonal":
            nn.init.orthogonal_(expected.weight)
            nn.init.zeros_(expected.bias)
        torch.testing.assert_close(content["weights"]["fc.weight"], expected.weight.detach(), atol=1e-12, rtol=0)
        torch.testing.assert_close(content["weights"]["fc.bias"], expected.bias.detach(), atol=1e-12, rtol=0)


def test_other_tensors_that_only_one_side_has_are_named() -> None:
    state = network_of(1).state_dict()
    state = {("other" if name == "conv1.0.weight" else name): tensor for name, tensor in state.items()}

    report, _ = loaded(network_of(2), saved(state))

    assert report.warnings == [
        "not in the weights, and new: conv1.0.weight",
        "not in the network, and left: other",
    ]


def test_a_flipped_bit_is_seen_where_the_name_has_the_digest() -> None:
    data = saved(network_of(1).state_dict(), "w.safetensors").read_bytes()
    path = Path(f"shufflenet-{hashlib.sha256(data).hexdigest()[:8]}.safetensors")
    path.write_bytes(data)
    assert not load_weights(network_of(2), path).warnings
    changed = bytearray(data)
    changed[data.index(network_of(1).state_dict()["fc.bias"].numpy().tobytes())] ^= 1
    path.write_bytes(changed)

    (warning,) = load_weights(network_of(2), path).warnings

    assert re.fullmatch(
        r"shuff.*: its name says SHA-256 (\w{8}), and it has (?!\1)\w{8}: it is damaged, or .*", warning
    )


def test_counters_of_batch_normalization_may_lack() -> None:
    state = {name: t for name, t in network_of(1).state_dict().items() if "num_batches" not in name}

    report, _ = loaded(network_of(2), saved(state))

    assert not report.new and not report.warnings


def test_half_precision_is_cast_and_said() -> None:
    state = {name: t.half() if t.is_floating_point() else t for name, t in network_of(1).state_dict().items()}
    state["fc.bias"] = state["fc.bias"].bfloat16()

    report, found = loaded(network_of(2), saved(state, "w.safetensors"))

    assert report.notes[1] == "cast to float32: bfloat16, float16"
    assert equal(found, {name: t.float() if t.is_floating_point() else t for name, t in state.items()})


def _without(change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Callable[[], Mapping[str, Tensor]]:
    return lambda: change(dict(network_of(1).state_dict()))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            _without(lambda s: {f"x.{name}": t for name, t in s.items()}),
            r"it lacks \d+ of the network's \d+ tensors, such as conv1\.0\.weight; the network lacks \d+ of its",
        ),
        (_without(lambda s: dict(list(s.items())[:30])), r"it lacks \d+ .* such as stage2\.\d.*Give the --model"),
        (
            _without(lambda s: s | {"stage3.1.branch2.3.weight": s["stage3.1.branch2.3.weight"][:, :, :2]}),
            r"stage3\.1\.branch2\.3\.weight has shape \(48, 1, 2, 3\), and the network's \(48, 1, 3, 3\)",
        ),
        (
            _without(lambda s: s | {"conv1.0.weight": s["conv1.0.weight"].to(torch.int8)}),
            r"conv1\.0\.weight holds int8 numbers, and the network's float32",
        ),
        (
            _without(lambda s: s | {"conv1.0.weight": s["conv1.0.weight"] * torch.nan}),
            r"NaN or infinite numbers are in 1 of \d+ tensors, such as conv1\.0\.weight",
        ),
        (
            _without(lambda s: s | {"conv1.1.running_var": s["conv1.1.running_var"].double() * 1e300}),
            r"NaN or infinite numbers are in 1 of \d+ tensors, such as conv1\.1\.running_var",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(content: Callable[[], Any], why: str) -> None:
    network = network_of(2)

    with pytest.raises(CheckpointError, match=why):
        load_weights(network, saved(content()))
    assert equal(network.state_dict(), network_of(2).state_dict())


def test_our_own_small_network_loads_its_weights_whole() -> None:
    weights = ModelNet(2, 64).state_dict()

    assert load_weights(ModelNet(2, 64), saved(weights)).count == len(weights)
    with pytest.raises(CheckpointError, match=r"classifier\.0\.weight has shape"):
        load_weights(ModelNet(2, 100), saved(weights))


def test_a_run_keeps_the_digest_and_needs_the_file_no_more(cache_path: Path) -> None:
    heard, path = Listener(), saved(OrderedDict(network_of(9).state_dict()))
    options = TrainOptions(cache_path, model=SMALL, weights=path, epochs=1, device="cpu")
    run = train(options, heard).run
    digest = RunFolder(run).read_config()["weights"]["sha256"]
    assert RunFolder(run).load_checkpoint()["weights_sha256"] == digest
    assert heard.notes[0].endswith(f"tensors of w.pth, SHA-256 {digest[:8]}")
    path.unlink()
    assert len(resume(run, epochs=2).rows) == 2
    assert RunFolder(run).load_checkpoint()["weights_sha256"] == digest

    again = TrainOptions(cache_path, model=SMALL, weights=run / "checkpoints/best.pt", epochs=1, threads=1)
    assert not train(again).interrupted


@pytest.mark.parametrize(
    ("model", "file"),
    [(SMALL, "https://.*shufflenetv2_x0.5-.*.pth"), ("timm:test_resnet", "model.safetensors of timm/")],
)
def test_without_weights_a_hint_says_which_file_is_meant(model: str, file: str, cache_path: Path) -> None:
    heard = Listener()
    train(TrainOptions(cache_path, model=model, epochs=1), heard)

    (hint,) = heard.hints
    assert (
        hint.startswith(f"{model} starts untrained; pretrained weights are ") and "give that file as --weights" in hint
    )
    assert re.search(file, hint)
