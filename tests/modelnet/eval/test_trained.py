"""Use a trained network (trained.py, predict.py, commands/evaluate.py, commands/predict.py) as it was trained."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from cli import cli
from modelnet import Trained, TrainOptions, predict, resume, train
from modelnet.eval.predict import image_files
from modelnet.pages.collect import gather
from modelnet.progress import EpochRow
from modelnet.runs.checkpoint import encode
from modelnet.runs.folder import RunFolder
from pipeline import TensorCache, build_cache
from pipeline.errors import (
    CacheMissing,
    CacheStale,
    CheckpointDamaged,
    CheckpointError,
    DeviceError,
    OptionsError,
    RunError,
)
from pipeline.recipe import Recipe
from pipeline.source.scan import scan_source
from tests.support.earlier import make_earlier
from tests.support.listener import Listener
from tests.support.photos import save_jpeg

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def trained_on(cache: Path, **options: Any) -> Path:
    wanted: dict[str, Any] = {"batch_size": 2, "epochs": 2, "threads": 1, "device": "cpu"} | options
    return train(TrainOptions(cache, **wanted)).run


@pytest.mark.parametrize(
    "recipe",
    [
        {"dtype": "float32"},
        {"dtype": "uint8"},
        {"dtype": "uint8", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "exif_rotate": True},
        {"dtype": "uint8", "scaled_decode": True},
    ],
)
def test_an_image_is_prepared_as_the_cache_did_to_the_last_bit(recipe: dict[str, Any], photos: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(photos / "1" / "n03874293_43.JPEG") as image:
        image.save(photos / "1" / "turned.jpg", exif=turned)
    build_cache(photos, "c.h5", size=64, workers=1, **recipe)
    cache = TensorCache("c.h5")
    trained = Trained.load(trained_on(Path("c.h5")), device="cpu")
    for row, name in enumerate(cache.filenames):
        class_id = cache.class_ids[int(cache.labels[row])]
        prepared = trained.prepare((photos / str(class_id) / name).read_bytes())
        assert prepared.dtype == torch.float32
        assert prepared.numpy().tobytes() == cache.read(torch.tensor([row])).numpy().tobytes()


def test_predictions_of_files_are_those_of_the_run(cache_path: Path, shared_photos: Path) -> None:
    run = trained_on(cache_path, val=cache_path, model_ema=0.5)
    with (run / "predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    trained = Trained.load(run, device="cpu")
    answers = list(predict(trained, [shared_photos / "1", shared_photos / "2"], top_k=1))
    assert [str(answer.file.relative_to(shared_photos)) for answer in answers] == [
        f"{line['class_id']}/{line['file']}" for line in lines
    ]
    for answer, line in zip(answers, lines, strict=True):
        ((label, probability),) = answer.classes
        assert str(trained.class_ids[label]) == line["predicted"]
        assert probability == pytest.approx(float(line["p_predicted"]), abs=1e-6)


@pytest.mark.parametrize("options", [{"val": True}, {"val_fraction": 0.4}, {"val": True, "model_ema": 0.9}])
def test_evaluating_a_run_gives_the_scores_that_it_ended_with(options: dict[str, Any], cache_path: Path) -> None:
    run = trained_on(cache_path, **(options | ({"val": cache_path} if "val" in options else {})))
    assert Trained.load(run, device="cpu").evaluate().to_dict() == json.loads((run / "scores.json").read_text())


def test_the_best_epoch_and_another_cache_can_be_asked_for(cache_path: Path, uint8_cache_path: Path) -> None:
    run = trained_on(cache_path, val=cache_path, lr=0.05, epochs=12)
    best = torch.load(run / "checkpoints/best.pt", weights_only=True)["best"]
    scores = Trained.load(run, "best", "cpu").evaluate(uint8_cache_path)
    assert [scores.accuracy, -scores.loss] == best


def test_the_best_epoch_is_that_of_the_checkpoint_whatever_the_table_says(cache_path: Path) -> None:
    """A run that was killed may have rows of epochs that it had not saved."""
    run = RunFolder(trained_on(cache_path, val=cache_path))
    saved = run.load_checkpoint("best.pt")["epoch"]
    run.append_metrics(EpochRow(3, 0.1, 1.0, 0.1, 1.0, 0.01, 100, 0, 1))
    for is_lost in (False, True):
        if is_lost:
            (run.path / "metrics.csv").unlink()
        trained = Trained.load(run.path, "best", "cpu")
        assert f"the weights are those of epoch {saved}, picked by its validation accuracy: on" in trained.note
        trained.evaluate(keep=True)
        kept = json.loads((run.path / "evaluations/photos-best.json").read_text())
        assert (kept["checkpoint"], kept["epoch"]) == ("best", saved) and saved < 3


def test_what_cannot_be_evaluated_says_why(cache_path: Path, photos: Path) -> None:
    with pytest.raises(RunError, match="no run there"):
        Trained.load(Path("runs/none"))
    Path("group.csv").touch()
    with pytest.raises(RunError, match=r"group\.csv: it is a table of several\. Give one of the folders that it names"):
        Trained.load(Path("group.csv"))
    run = trained_on(cache_path)
    with pytest.raises(OptionsError, match=r"the run had no validation images. Give a --cache"):
        Trained.load(run, device="cpu").evaluate()
    with pytest.raises(OptionsError, match="no such device: 'gpu'"):
        Trained.load(run, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError):
            Trained.load(run, device="cuda")
    build_cache(photos, "large.h5", size=96, workers=1)
    with pytest.raises(CacheStale, match=r"from those of run photos-modelnet-001: size 64 → 96"):
        Trained.load(run, device="cpu").evaluate(Path("large.h5"))
    build_cache(photos, "c.h5", size=64, workers=1)
    run = trained_on(cache_path, val=Path("c.h5"))
    save_jpeg(photos / "1" / "new.jpg", 80, 80, seed=50)
    build_cache(photos, "c.h5", size=64, workers=1)
    with pytest.raises(CacheStale, match=r"not the one that run photos-modelnet-002 was validated on"):
        Trained.load(run, device="cpu").evaluate()


def test_a_cache_that_is_gone_is_named_with_what_to_do(cache_path: Path) -> None:
    Path("mine.h5").write_bytes(cache_path.read_bytes())
    run = trained_on(Path("mine.h5"), val_fraction=0.4)
    Path("mine.h5").rename("moved.h5")
    gone = r"the run's cache is gone: mine\.h5: .*\. Move it back, leave a link to it there, or train --resume RUN "
    gone += r"--cache FILE \(--val FILE\)"
    with pytest.raises(CacheMissing, match=gone + ", or give --cache to evaluate on another, whole$"):
        Trained.load(run, device="cpu").evaluate()
    with pytest.raises(CacheMissing, match=gone + "$"):
        resume(run, epochs=3)
    Path("mine.h5.building").touch()
    with pytest.raises(CacheMissing, match="an unfinished build exists"):
        resume(run, epochs=3)


def test_images_that_the_network_was_trained_on_are_counted_in_a_warning(
    cache_path: Path, uint8_cache_path: Path
) -> None:
    images = TensorCache(cache_path).num_images
    for options, among in (
        ({"val_fraction": 0.4}, f"{{}} of its {images} images"),
        ({}, "all its images"),
    ):
        run = trained_on(cache_path, **options)
        known = images - json.loads((run / "scores.json").read_text())["images"] if options else images
        ended = CliRunner().invoke(cli, ["evaluate", str(run), "--cache", str(cache_path), "--device", "cpu"])
        warning = f"warning: {cache_path}: the network was trained on {among.format(known)}\n"
        kept = f"kept: {run}/evaluations/photos.json, and each prediction beside it\n"
        assert (ended.exit_code, ended.stderr) == (0, warning + kept)
    other = CliRunner().invoke(cli, ["evaluate", str(run), "--cache", str(uint8_cache_path), "--device", "cpu"])
    kept = f"kept: {run}/evaluations/photos-uint8.json, and each prediction beside it\n"
    assert (other.exit_code, other.stderr) == (0, kept)


def test_a_checkpoint_that_is_damaged_or_of_another_format_is_refused(cache_path: Path) -> None:
    run = trained_on(cache_path)
    path = run / "checkpoints/last.pt"
    content = torch.load(path, weights_only=True)
    path.write_bytes(encode(content | {"format": 0}))
    with pytest.raises(CheckpointError, match="it has format 0"):
        Trained.load(run)
    path.write_bytes(encode(content | {"model": {"name": "modelnet", "classes": 3, "size": 64}}))
    with pytest.raises(CheckpointError, match="the checkpoint cannot be used"):
        Trained.load(run)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointDamaged):
        Trained.load(run)


def test_the_commands_print_scores_and_predictions(cache_path: Path, shared_photos: Path, tmp_path: Path) -> None:
    def typed(*words: "str | Path") -> Result:
        return CliRunner().invoke(cli, [str(word) for word in words])

    run = trained_on(cache_path, val=cache_path)
    scores = json.loads((run / "scores.json").read_text())
    assert json.loads(typed("evaluate", run, "--device", "cpu", "--json").stdout) == scores
    text = typed("evaluate", run, "--device", "cpu", "--cache", cache_path).stdout
    assert text.splitlines()[-1] == f"8 images: loss {scores['loss']:.4f}, accuracy {scores['accuracy']:.1%}"

    (tmp_path / "broken.jpg").write_bytes(b"no image")
    files = (shared_photos / "1" / "n03874293_7.JPEG", tmp_path / "broken.jpg", shared_photos / "2")
    ended = typed("predict", run, *files, "-k", "1")
    assert ended.exit_code == 3
    assert ended.stderr == f"warning: left out: {tmp_path}/broken.jpg: not an image\n"
    assert len(ended.stdout.splitlines()) == 5
    assert ended.stdout.startswith(f"{files[0]}: ")

    lines = [json.loads(line) for line in typed("predict", run, *files, "--json").stdout.splitlines()]
    assert [line["file"] for line in lines[:2]] == [str(file) for file in files[:2]]
    assert lines[1]["error"] == "not an image"
    assert sum(entry["p"] for entry in lines[0]["classes"]) == pytest.approx(1)
    assert {entry["id"] for entry in lines[0]["classes"]} == {1, 2}
    for line in map(json.loads, typed("predict", run, files[0], files[2], "--json", "-k", "1").stdout.splitlines()):
        assert list(line["probabilities"]) == ["1", "2"] and sum(line["probabilities"].values()) == pytest.approx(1)
        assert line["classes"][0]["p"] == max(line["probabilities"].values()) and len(line["classes"]) == 1

    missing = typed("predict", run, tmp_path / "nowhere.jpg")
    assert isinstance(missing.exception, RunError) and missing.stdout == ""
    assert missing.exception.exit_code == 66 and str(missing.exception).startswith("no image there: ")


def test_a_folder_is_searched_by_the_rules_of_a_cache(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_jpeg(source / "a" / "one.jpg", 70, 60, 1)
    for hidden in ("._one.jpg", ".thumbs/two.jpg", "__MACOSX/one.jpg", "a/@eaDir/one.jpg/THUMB.jpg", "notes.txt"):
        (source / hidden).parent.mkdir(parents=True, exist_ok=True)
        (source / hidden).write_bytes(b"x")
    (source / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    save_jpeg(tmp_path / "elsewhere" / "b" / "two.jpg", 70, 60, 2)
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "linked.jpg").symlink_to(tmp_path / "elsewhere" / "b" / "two.jpg")
    (source / "a" / "again").symlink_to(source)  # a loop

    found = [str(file.relative_to(source)) for file in image_files(source)]

    assert found == ["a/one.jpg", "linked/b/two.jpg", "linked.jpg", "nowhere.jpg"]
    assert {*scan_source(source).names} == {b"one.jpg", b"b/two.jpg"}


def test_a_folder_of_links_to_folders_is_searched(tmp_path: Path) -> None:
    save_jpeg(tmp_path / "elsewhere" / "one.jpg", 70, 60, 1)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "1").symlink_to(tmp_path / "elsewhere")

    assert image_files(tmp_path / "links") == [tmp_path / "links" / "1" / "one.jpg"]


def test_an_evaluation_of_another_cache_is_kept(cache_path: Path, uint8_cache_path: Path) -> None:
    run = trained_on(cache_path, val=cache_path)
    notes = Listener()
    trained = Trained.load(run, device="cpu")
    trained.evaluate(keep=True, progress=notes)
    assert not (run / "evaluations").exists()  # predictions.csv has it
    scores = trained.evaluate(uint8_cache_path, keep=True, progress=notes)
    kept = json.loads((run / "evaluations/photos-uint8.json").read_text())
    assert kept["scores"] == scores.to_dict() and kept["checkpoint"] == "last"
    assert kept["fingerprint"] == TensorCache(uint8_cache_path).fingerprint
    lines = (run / "evaluations/photos-uint8.csv").read_text().splitlines()
    assert len(lines) == 1 + scores.images and lines[0] == (run / "predictions.csv").read_text().splitlines()[0]
    Trained.load(run, "best", "cpu").evaluate(keep=True)
    assert json.loads((run / "evaluations/photos-best.json").read_text())["checkpoint"] == "best"
    assert any("photos-uint8.json" in note for note in notes.notes)


def test_an_evaluation_of_another_cache_of_the_same_name_is_not_lost(cache_path: Path, tmp_path: Path) -> None:
    run = RunFolder(trained_on(cache_path, val=cache_path))
    paths = [run.write_evaluation("x", {"fingerprint": digit * 64}, []) for digit in "112"]
    assert [path.name for path in paths] == ["x.json", "x.json", "x-22222222.json"]


def test_a_run_finds_its_cache_by_the_fingerprint_after_it_was_moved(cache_path: Path, tmp_path: Path) -> None:
    shutil.copy(cache_path, "c.h5")
    run = trained_on(Path("c.h5"), val=Path("c.h5"))
    loss = Trained.load(run, device="cpu").evaluate().loss
    Path("data/cache").mkdir(parents=True)
    Path("data/cache/other.h5").write_bytes(b"no cache")
    Path("c.h5").rename("data/cache/renamed.h5")
    assert Trained.load(run, device="cpu").evaluate().loss == loss
    assert len(resume(run, epochs=4).rows) == 4
    assert gather([run]).pictures.missing == ""


def test_a_run_of_an_earlier_version_goes_on_when_its_cache_is_replaced(photos: Path, tmp_path: Path) -> None:
    """It named its cache by the fingerprint of that version, and recorded a recipe of fewer keys."""
    cache = tmp_path / "data" / "cache" / "c.h5"
    build_cache(photos, cache, size=64)
    make_earlier(cache)
    run, whole = (trained_on(cache, val_fraction=0.5, epochs=epochs, seed=1) for epochs in (2, 3))
    config = json.loads((run / "config.json").read_text())
    for images in (config["cache"], config["val"]):
        assert images["fingerprint"] == images.pop("earlier_fingerprint") == TensorCache(cache).fingerprint
        images["recipe"] = Recipe(64).to_earlier_dict()
    (run / "config.json").write_text(json.dumps(config))
    before = Trained.load(run, device="cpu").evaluate()

    assert build_cache(photos, cache, size=64).why == "made by an earlier version"
    assert TensorCache(cache).fingerprint != config["cache"]["fingerprint"]
    cache.rename(cache.with_name("moved.h5"))  # found by the fingerprint
    assert Trained.load(run, device="cpu").evaluate() == before
    cache.with_name("moved.h5").rename(cache)

    assert [row.train_loss for row in resume(run, epochs=3).rows] == [
        row.train_loss for row in RunFolder(whole).read_metrics()
    ]
    shutil.copy(photos / "1" / "n03874293_7.JPEG", photos / "1" / "new.JPEG")
    build_cache(photos, cache, size=64)
    with pytest.raises(CacheStale, match="it is not the one that run"):
        resume(run, epochs=4)


def test_a_run_goes_on_with_moved_caches_that_are_named_and_with_no_others(
    cache_path: Path, photos: Path, tmp_path: Path
) -> None:
    caches = [shutil.copy(cache_path, name) for name in ("c.h5", "v.h5")]
    run = trained_on(Path("c.h5"), val=Path("v.h5"))
    moved, val = (Path(name).rename(tmp_path / f"elsewhere-{name}") for name in caches)
    with pytest.raises(CacheMissing, match="gone"):
        resume(run, epochs=4)
    next((photos / "2").iterdir()).unlink()
    other = tmp_path / "other.h5"
    build_cache(photos, other, size=TensorCache(moved).recipe.size, workers=1)
    for train_cache, val_cache in ((other, val), (moved, other)):
        with pytest.raises(CacheStale, match=r"other\.h5: it is not the one that run"):
            resume(run, epochs=4, cache=train_cache, val=val_cache)
    with pytest.raises(CacheMissing):
        resume(run, epochs=4, cache=tmp_path / "nowhere.h5", val=val)
    assert len(resume(run, epochs=4, cache=moved, val=val).rows) == 4
    assert len(resume(run, epochs=5).rows) == 5
    assert gather([run]).pictures.missing == ""
    without = trained_on(moved)
    with pytest.raises(OptionsError, match="it has none"):
        resume(without, epochs=4, val=val)
