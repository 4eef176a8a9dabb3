"""The page of training images shows, to the bit, what training sees."""

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import modelnet.pages.batch_page as batch_page
from cli import cli
from modelnet import TrainOptions, show_batch
from modelnet.pages.batch_page import EPOCHS, first_images
from modelnet.progress import Progress
from modelnet.training.setup import Setup
from pipeline import TensorCache, build_cache, make_loader
from tests.support.parsed_page import ParsedPage
from tests.support.photos import make_hostile_photos

ALL = "rot90,vflip,rotate,grey,blur,randaugment,flip,crop,color,erase"
CHANGE = """
import torch

def change(image, generator):
    return image.roll(int(torch.randint(9, (), generator=generator)), 2)
"""


def options_of(cache: Path, **more: Any) -> TrainOptions:
    return TrainOptions(cache, device="cpu", threads=1, epochs=1, **more)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"augment": ALL, "crop_size": 60},
        {"augment": "flip,mixup,cutmix", "data_seed": 3, "val_fraction": 0.4},
        {"augment": "color,mixup", "augment_code": "changes.py:change", "batch_size": 3, "shuffle": False},
    ],
)
def test_the_images_are_those_of_the_batches_of_train(
    more: dict[str, Any], uint8_cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("changes.py").write_text(CHANGE)
    options = options_of(uint8_cache_path, **more)
    batches, rows = first_images(options, TensorCache(uint8_cache_path))
    trained = Setup(options, Progress()).batches
    for epoch in range(EPOCHS):
        seen = batches.seen(rows, epoch)
        by_row: dict[int, Any] = {}
        for batch in trained.epoch(epoch):
            by_row |= dict(zip(batch.rows.tolist(), zip(batch.images, batch.labels, strict=True), strict=True))
        assert set(rows.tolist()) == set(by_row)
        for row, image, label in zip(rows.tolist(), seen.images, seen.labels, strict=True):
            assert torch.equal(image, by_row[row][0]) and torch.equal(label, by_row[row][1])


def test_the_images_are_those_of_a_loader(uint8_cache_path: Path) -> None:
    cache = TensorCache(uint8_cache_path)
    batches, rows = first_images(options_of(uint8_cache_path, augment="flip,crop,color", data_seed=5), cache)
    loader = make_loader(cache, 8, augment="flip,crop,color", seed=5)
    (images, labels) = next(iter(loader))
    seen = batches.seen(rows, 0)
    assert torch.equal(seen.images, images) and torch.equal(seen.labels, labels)


def test_the_page_shows_each_image_as_stored_and_as_three_epochs_see_it(
    uint8_cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_page, "IMAGES", 5)
    page = ParsedPage(show_batch(options_of(uint8_cache_path, augment="mixup,erase", mixup_alpha=5.0, crop_size=60)))
    assert len(page.all("img")) == 5 * (1 + EPOCHS) and "5 of 8 training images" in page.text
    assert "--crop-size 60 " in page.text and "--shuffle yes " in page.text
    assert "% 2, " in page.text and "--augment erase,mixup" in page.text and "Erased boxes have the mean" in page.text
    plain = ParsedPage(show_batch(options_of(uint8_cache_path, crop_scale=0.2)))
    assert "No --augment is given" in plain.text and "--crop-scale 0.2 changes nothing" in plain.text


def test_no_name_gets_onto_the_page_as_anything_but_text(tmp_path: Path, out: Path) -> None:
    build_cache(make_hostile_photos(tmp_path / "photos"), out, size=64, workers=1)
    page = ParsedPage(show_batch(options_of(out, augment="cutmix")))
    page.check_safe()
    assert "<script>alert(1)<" in page.text and repr("\u202egpj.exe.jpg") in page.text


def test_the_command_takes_the_options_of_train(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(*words: str) -> Any:
        return CliRunner().invoke(cli, ["show", *words])

    monkeypatch.chdir(copy.parent)
    train = ["--augment", "flip", "--lr", "0.1", "--model", "resnet18", "--seed", "3", "--device", "cpu"]
    assert typed("--batch", "--cache", copy.name, *train).stdout == "page: copy-batch.html\n"
    shown = Path("copy-batch.html").read_bytes()
    Path("options.json").write_text('{"augment": "flip"}')
    more = ("--config", "options.json", "--device", "cpu", "--out", "b.html")
    assert typed("--batch", copy.name, *more).stdout == "page: b.html\n"
    assert Path("b.html").read_bytes() == shown
    assert "--lr is for --batch" in typed(copy.name, "--lr", "0.1").stderr
    assert "--checkpoint is for a RUN" in typed(copy.name, "--checkpoint", "best").stderr
    for words, use in (
        (["--device", "cpu"], "--device is for a RUN, or --batch"),
        (["-b", "2"], "is for --batch, which"),
    ):
        assert use in typed(copy.name, *words).stderr
    assert "--checkpoint, --device are for a RUN" in typed(copy.name, "--checkpoint", "last", "--device", "cpu").stderr
    assert "--device TEXT" in typed("--help").stdout and "For a RUN, or --batch." in typed("--help").stdout
    assert "images of one cache" in typed("--batch", copy.name, "--cache", copy.name).stderr
    assert "name a CACHE or a RUN" in typed().stderr
