"""Networks by name."""

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchvision import models

from modelnet import Trained, TrainOptions, resume, train
from modelnet.nets.registry import build_network
from modelnet.runtime.interrupt import Stop
from pipeline.errors import OptionsError
from tests.support.listener import Listener

SMALL = "shufflenet_v2_x0_5"  # 0.35 million weights, with batch normalization


pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def test_a_network_of_torchvision_is_that_of_its_name_and_seed() -> None:
    torch.manual_seed(4)
    ours = build_network(SMALL, 3, 64)
    torch.manual_seed(4)
    theirs = models.get_model(SMALL, weights=None, num_classes=3)
    assert ours.training
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize(("name", "size"), [("squeezenet1_1", 64), ("googlenet", 64), ("mobilenet_v3_small", 60)])
def test_networks_give_one_answer_a_class_in_training_too(name: str, size: int) -> None:
    assert build_network(name, 3, size)(torch.zeros(2, 3, size, size)).shape == (2, 3)


def test_what_is_no_network_or_cannot_take_the_images_is_said() -> None:
    with pytest.raises(OptionsError, match=r"no such network: 'resnet81'. There is resnet1"):
        build_network("resnet81", 2, 64)
    with pytest.raises(OptionsError, match="alexnet cannot take images of 32 × 32 pixels") as caught:
        build_network("alexnet", 2, 32)
    assert caught.value.exit_code == 2


def test_a_timm_network_follows_from_name_and_seed_at_any_image_size() -> None:
    no_more: dict[str, Any] = {}
    for name, special in (("test_resnet", no_more), ("test_vit", {"img_size": 96})):
        torch.manual_seed(4)
        ours = build_network(f"timm:{name}", 3, 96)
        torch.manual_seed(4)
        theirs = timm.create_model(name, pretrained=False, num_classes=3, **special)
        assert ours.training
        assert all(torch.equal(ours.state_dict()[key], tensor) for key, tensor in theirs.state_dict().items())
    with pytest.raises(OptionsError, match="timm:test_vit cannot take images of 8 × 8 pixels"):
        build_network("timm:test_vit", 2, 8)


def test_only_names_of_timm_s_own_list_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("timm:hf_hub:timm/resnet18", "timm:local-dir:.", "timm:resnet18.nobody", "timm:resnet81"):
        with pytest.raises(OptionsError, match=r"no such network: 'timm:.*There is "):
            build_network(name, 2, 64)
    with pytest.raises(OptionsError, match=r"There is timm:resnet18,"):
        build_network("timm:resnet181", 2, 64)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(OptionsError, match=r"timm is not installed.*pip install '\.\[timm\]'"):
        build_network("timm:resnet18", 2, 64)


def test_a_name_of_timm_may_have_a_tag_of_its_weights() -> None:
    torch.manual_seed(4)
    plain, tagged = build_network("timm:resnet18", 3, 64), build_network("timm:resnet18.a1_in1k", 3, 64)
    made: Any = tagged

    assert plain.state_dict().keys() == tagged.state_dict().keys()
    assert (made.pretrained_cfg["tag"], made.num_classes) == ("a1_in1k", 3)


def test_a_run_of_timm_starts_from_a_local_file_and_is_used_again(cache_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", pretrained=False, num_classes=10).state_dict(), "w.pth")
    heard = Listener()
    options = TrainOptions(cache_path, val=cache_path, model="timm:test_resnet", weights=Path("w.pth"), epochs=1)
    result = train(options, heard)
    assert result.run.name == "photos-timm-test_resnet-001"
    assert "new, drawn from the seed alone: fc (the file's is for 10 classes)" in heard.notes
    assert Trained.load(result.run).evaluate() == result.scores


def test_a_torchvision_run_resumes_to_the_same_bits_and_predicts(cache_path: Path, shared_photos: Path) -> None:
    options = TrainOptions(
        cache_path, val=cache_path, model=SMALL, batch_size=3, epochs=2, drop_last=True, threads=1, model_ema=0.9
    )
    whole = train(options)
    stop = Stop()
    cut = train(options, Listener(stop, 3), stop).run
    resume(cut)
    contents = [torch.load(run / "checkpoints/last.pt", weights_only=True) for run in (whole.run, cut)]
    assert contents[0]["model"] == {"name": SMALL, "classes": 2, "size": 64}
    for part in ("weights", "average"):
        assert all(torch.equal(contents[1][part][name], tensor) for name, tensor in contents[0][part].items())
    assert whole.run.name == f"photos-{SMALL}-001"
    assert Trained.load(cut).evaluate() == whole.scores
