"""Caches of features: what a frozen network makes of images, written once, and a linear probe trained on it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from modelnet import TrainOptions, train
from modelnet.eval.features import build_features
from modelnet.eval.predict import predict
from modelnet.eval.trained import Trained
from modelnet.pages.collect import gather
from modelnet.pages.page import render
from pipeline import TensorCache, build_cache, make_loader
from pipeline.errors import (
    CacheMissing,
    CacheStale,
    CheckpointError,
    CheckpointUnsafe,
    OptionsError,
    OutputError,
    RunError,
)
from pipeline.format.features import Features
from pipeline.format.fingerprint import features_fingerprint
from pipeline.inspect.info import describe_cache
from pipeline.inspect.verify import verify_cache
from tests.support.photos import make_photos

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def save_weights(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    torch.save(models.resnet18().state_dict(), path)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18 with random weights, as torchvision saves them."""
    return save_weights(tmp_path_factory.mktemp("weights") / "resnet18.pth")


@pytest.fixture(scope="session")
def features_path(cache_path: Path, weights: Path) -> Path:
    path = weights.parent / "features.h5"
    build_features(cache_path, path, "resnet18", weights, "cpu")
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_row_is_what_torchvisions_network_gives_before_its_last_layer(
    cache_path: Path, features_path: Path, weights: Path
) -> None:
    network = models.resnet18()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.fc = torch.nn.Identity()
    images, found = TensorCache(cache_path), TensorCache(features_path)
    with torch.inference_mode():
        expected = network.eval()(images.read(torch.arange(8)))
    torch.testing.assert_close(found.read(torch.arange(8)), expected, atol=1e-5, rtol=1e-5)
    assert found.row_shape == (512,) and found.features is not None
    assert found.features.images == images.fingerprint != found.fingerprint
    for name in ("labels", "filenames", "source_sha256", "classes"):
        assert np.array_equal(found.reader.table(name), images.reader.table(name))
    assert torch.equal(found["n03874293_7.JPEG"][1], found.read(torch.tensor(found.rows_of("n03874293_7.JPEG")))[0])


def test_info_names_the_network_and_verify_finds_nothing(features_path: Path, weights: Path) -> None:
    text = str(describe_cache(features_path))
    assert f"features: 512 numbers an image: resnet18 before its last layer, weights {digest(weights)[:8]}" in text
    assert not list(verify_cache(features_path))


def test_a_second_build_does_nothing_and_a_rebuild_gives_the_same_bytes(
    cache_path: Path, features_path: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.h5"
    assert not build_features(cache_path, path, "resnet18", weights, "cpu").up_to_date
    assert digest(path) == digest(features_path)
    with monkeypatch.context() as patch:
        patch.setattr("modelnet.nets.backbone.TensorCache.read", None)  # no row is even read
        again = build_features(cache_path, path, "resnet18", weights, "cpu")
    assert again.up_to_date and "nothing was computed" in str(again)
    assert build_features(cache_path, path, "resnet18", weights, "cpu", rebuild=True).why == "a rebuild was asked for"
    assert digest(path) == digest(features_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5", "f.h5.lock"]


def test_precision_and_memory_format_are_in_the_header_and_the_fingerprint(
    cache_path: Path, features_path: Path, weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "f.h5"
    path.write_bytes(features_path.read_bytes())
    full = TensorCache(path)

    report = build_features(cache_path, path, "resnet18", weights, "cpu", amp=True)

    half = TensorCache(path)
    assert report.why == "precision float32 → bfloat16" and "in bfloat16" in str(describe_cache(path))
    assert full.features is not None and half.features is not None
    assert (full.features.precision, full.features.memory_format) == ("float32", "channels_last")
    assert (half.features.precision, half.features.memory_format) == ("bfloat16", "channels_last")
    assert full.fingerprint != half.fingerprint
    contiguous = replace(full.features, memory_format="contiguous")
    assert features_fingerprint(contiguous) not in (full.fingerprint, half.fingerprint)
    with pytest.raises(CacheStale, match=r"weights \w+, and it holds .*, in bfloat16"):
        train(TrainOptions(features_path, val=path, model="linear", device="cpu"))


def test_features_in_bfloat16_are_those_of_the_plain_loop(cache_path: Path, weights: Path, tmp_path: Path) -> None:
    build_features(cache_path, tmp_path / "f.h5", "resnet18", weights, "cpu", amp=True)
    network = models.resnet18()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.fc = torch.nn.Identity()
    network.eval().to(memory_format=torch.channels_last)
    images = TensorCache(cache_path).read(torch.arange(8))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = network(images).float()

    torch.testing.assert_close(TensorCache(tmp_path / "f.h5").read(torch.arange(8)), expected, atol=0.02, rtol=0.02)


def test_features_without_the_keys_are_contiguous_float32(cache_path: Path) -> None:
    values = {"model": "resnet18", "layer": "fc", "length": 512, "weights": "0" * 64, "images": "1" * 64}

    features = Features.from_dict(values)

    assert (features.precision, features.memory_format) == ("float32", "contiguous")
    assert features.to_dict() == values  # so an earlier file keeps its bytes and its fingerprint
    with pytest.raises(ValueError, match="memory_format is contiguous or channels_last, not 'nhwc'"):
        Features.from_dict(values | {"memory_format": "nhwc"})


def test_what_changed_is_named_and_computed_anew(weights: Path, tmp_path: Path) -> None:
    photos, images, path = make_photos(tmp_path / "photos"), tmp_path / "c.h5", tmp_path / "f.h5"
    build_cache(photos, images, size=64, workers=1)
    build_features(images, path, "resnet18", weights, "cpu")
    before = TensorCache(path).read(torch.arange(8))

    other = save_weights(tmp_path / "other.pth", seed=1)
    old, new = (digest(file)[:8] for file in (weights, other))
    assert build_features(images, path, "resnet18", other, "cpu").why == f"weights {old} → {new}"
    assert not torch.equal(TensorCache(path).read(torch.arange(8)), before)

    (photos / "1" / "n03874293_7.JPEG").unlink()
    build_cache(photos, images, size=64, workers=1)
    assert build_features(images, path, "resnet18", other, "cpu").why == "the cache of images has changed"
    assert TensorCache(path).num_images == 7

    data = bytearray(path.read_bytes())
    data[8192 + 5 * 2048] ^= 1
    path.write_bytes(data)
    assert build_features(images, path, "resnet18", other, "cpu").why == "1 damaged"
    assert not list(verify_cache(path))


def test_caches_never_replace_those_of_something_else(
    cache_path: Path, features_path: Path, weights: Path, shared_photos: Path, tmp_path: Path
) -> None:
    copies = [tmp_path / "images.h5", tmp_path / "features.h5"]
    for copy, path in zip(copies, (cache_path, features_path), strict=True):
        copy.write_bytes(path.read_bytes())
    with pytest.raises(OutputError, match="holds images, not features"):
        build_features(cache_path, copies[0], "resnet18", weights, "cpu")
    with pytest.raises(OutputError, match="holds features, not images"):
        build_cache(shared_photos, copies[1], size=64, workers=1)
    with pytest.raises(OutputError, match="the images are in it"):
        build_features(copies[0], copies[0], "resnet18", weights, "cpu", rebuild=True)
    with pytest.raises(CacheMissing, match=r"this is a folder\. Build its cache first: python cli\.py build-cache "):
        build_features(shared_photos, tmp_path / "more.h5", "resnet18", weights, "cpu")
    with pytest.raises(OptionsError, match="it holds features"):
        build_features(copies[1], tmp_path / "more.h5", "resnet18", weights, "cpu")


def test_weights_that_do_not_fit_are_refused(cache_path: Path, weights: Path, tmp_path: Path) -> None:
    torch.save({"fc": print}, tmp_path / "code.pth")
    state = torch.load(weights, weights_only=True)
    torch.save(state | {"conv1.weight": state["conv1.weight"][:, :1]}, tmp_path / "grey.pth")
    torch.save({name: values * torch.nan for name, values in state.items()}, tmp_path / "nan.pth")
    for name, kind, why in (
        ("code.pth", CheckpointUnsafe, "not safe weights"),
        ("grey.pth", CheckpointError, r"conv1.weight has shape \(64, 1, 7, 7\)"),
        ("nan.pth", CheckpointError, "NaN or infinite numbers are in"),
        ("none.pth", RunError, "no such file"),
    ):
        with pytest.raises(kind, match=why):
            build_features(cache_path, tmp_path / "f.h5", "resnet18", tmp_path / name, "cpu")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("f.h5")]


def test_a_linear_probe_follows_the_plain_loop_and_sees_images(
    cache_path: Path, features_path: Path, weights: Path, shared_photos: Path, tmp_path: Path
) -> None:
    options = TrainOptions(
        features_path, val=features_path, model="linear", batch_size=8, shuffle=False, lr=0.05, epochs=5, device="cpu"
    )
    result = train(options)

    torch.manual_seed(0)
    linear, cache = torch.nn.Linear(512, 2), TensorCache(features_path)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.05, momentum=0.5, weight_decay=1e-4)
    expected = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(linear(cache.read(torch.arange(8))), cache.labels)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert [row.train_loss for row in result.rows] == pytest.approx(expected, abs=1e-5)
    assert expected[0] - expected[-1] > 0.01

    trained = Trained.load(result.run, device="cpu")
    assert trained.evaluate().loss == pytest.approx(result.rows[-1].val_loss)
    with pytest.raises(CacheStale, match=r"has 512 numbers an image: .*, and it holds images"):
        trained.evaluate(cache_path)
    with pytest.raises(RunError, match="features of resnet18, whose weights are not kept here"):
        trained.on_images(None)
    with pytest.raises(CheckpointError, match="the weights are others"):
        trained.on_images(save_weights(tmp_path / "other.pth", seed=1))
    answers = list(predict(trained.on_images(weights), [shared_photos / "1"], 2))
    with torch.inference_mode():
        probabilities = linear(cache.read(torch.arange(4))).softmax(1)
    by_name = dict(zip(cache.filenames[:4], probabilities, strict=True))
    for answer in answers:
        assert dict(answer.classes)[0] == pytest.approx(by_name[answer.file.name][0].item(), abs=1e-4)


def test_networks_and_caches_that_do_not_go_together_are_told_what_to_give(
    cache_path: Path, features_path: Path
) -> None:
    with pytest.raises(OptionsError, match="Give --model linear"):
        train(TrainOptions(features_path, device="cpu"))
    with pytest.raises(OptionsError, match="build-features CACHE --model"):
        train(TrainOptions(cache_path, model="linear", device="cpu"))
    with pytest.raises(OptionsError, match="--augment changes images"):
        train(TrainOptions(features_path, model="linear", augment="flip", device="cpu"))
    Path("changes.py").write_text("def change(image, generator):\n    return image\n")
    with pytest.raises(OptionsError, match="--augment-code changes images"):
        train(TrainOptions(features_path, model="linear", augment_code="changes.py:change", device="cpu"))
    with pytest.raises(CacheStale, match="and it holds images"):
        train(TrainOptions(features_path, val=cache_path, model="linear", device="cpu"))


def test_a_report_of_a_linear_probe_has_no_pictures_and_says_so(features_path: Path) -> None:
    options = TrainOptions(features_path, val=features_path, model="linear", epochs=1, lr=1e-9, threads=1, device="cpu")
    page = render(gather([train(options).run])).decode()
    assert f"Pictures are missing: {features_path} holds features, not images." in page
    assert "512 numbers an image: resnet18 before its last layer" in page and "<img" not in page


def test_a_loader_of_features_takes_no_augmentation(features_path: Path) -> None:
    for options in ({"augment": "flip"}, {"crop_size": 1}):
        with pytest.raises(ValueError, match="holds features: augment and crop_size change images"):
            make_loader(TensorCache(features_path), **options)
