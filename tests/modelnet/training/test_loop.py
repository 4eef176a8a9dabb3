"""Train (loop.py, progress.py) as plain loops do, and end or resume a run that fails."""

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from modelnet import ModelNet, TrainOptions, TrainResult, resume, train
from modelnet.eval.metrics import Losses
from modelnet.pages.run import Run
from modelnet.progress import Progress
from modelnet.runs.folder import RunFolder
from modelnet.runs.reader import RunReader
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.train import resume_many, train_many
from pipeline import TensorCache, build_cache
from pipeline.errors import (
    CacheDamaged,
    CacheStale,
    CheckpointDamaged,
    CheckpointError,
    DeviceError,
    OptionsError,
    OutputError,
    RunBusy,
    RunError,
    SourceError,
    TrainingDiverged,
)
from tests.support.photos import save_jpeg

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures", "one_thread")

COLUMNS = ["epoch", "train_loss", "train_acc", "val_loss", "val_acc", "lr", "images_per_s", "data_wait_s", "epoch_s"]


@pytest.fixture
def every_epoch_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelnet.training.loop.SECONDS_BETWEEN_SAVES", 0)


def losses(result: TrainResult) -> list[float]:
    return [row.train_loss for row in result.rows]


def weights_digest(run: Path, name: str = "last.pt") -> str:
    digest = hashlib.sha256()
    content = torch.load(run / "checkpoints" / name, weights_only=True)
    for key, weights in content["weights"].items():
        digest.update(key.encode() + weights.cpu().numpy().tobytes())
    for buffers in content["optimizer"]["state"].values():
        digest.update(buffers["momentum_buffer"].cpu().numpy().tobytes())
    return digest.hexdigest()


def results(run: Path) -> list[list[str]]:
    """Read the columns of metrics.csv that are no times."""
    with (run / "metrics.csv").open() as file:
        return [row[:6] for row in csv.reader(file)]


def test_losses_from_shards_are_those_from_one_file_to_the_last_bit(cache_path: Path, shards_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "batch_size": 3, "val_fraction": 0.4}

    one = train(TrainOptions(cache_path, name="one", **options))
    many = train(TrainOptions(shards_path, name="many", **options))

    assert losses(one) == losses(many) and results(one.run) == results(many.run)
    assert weights_digest(one.run) == weights_digest(many.run)
    assert (one.run / "split.csv").read_bytes() == (many.run / "split.csv").read_bytes()


def test_losses_follow_the_plain_loop_over_a_dictionary_of_tensors(shared_photos: Path, tmp_path: Path) -> None:
    to_tensor = transforms.Compose(
        [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    )
    images: dict[str, dict[int, torch.Tensor]] = {}
    for class_id in (1, 2):
        for path in sorted((shared_photos / str(class_id)).iterdir()):
            images.setdefault(path.name, {})[class_id] = to_tensor(Image.open(path).convert("RGB"))

    torch.manual_seed(5)
    network = nn.Sequential(
        nn.Conv2d(3, 3, 6, stride=6),
        nn.MaxPool2d(6, stride=2),
        nn.Conv2d(3, 6, 3, stride=3),
        nn.Flatten(),
        nn.Linear(150, 60),
        nn.ReLU(),
        nn.Linear(60, 20),
        nn.ReLU(),
        nn.Linear(20, 2),
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.5, weight_decay=1e-4)
    expected = []
    for _ in range(12):
        total = 0.0
        for class_id in (1, 2):
            for name in sorted(images):
                if class_id not in images[name]:
                    continue
                target = torch.zeros(1, 2)
                target[0, class_id - 1] = 1
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(images[name][class_id][None]), target)
                loss.backward()
                optimizer.step()
                total += loss.item()
        expected.append(total / 8)

    build_cache(shared_photos, tmp_path / "c.h5", workers=1)
    result = train(TrainOptions(tmp_path / "c.h5", batch_size=1, shuffle=False, epochs=12, seed=5))

    assert losses(result) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 1e-3  # far more than the tolerance


def test_the_same_seeds_give_identical_losses_and_other_seeds_others(cache_path: Path) -> None:
    def run(**options: Any) -> list[float]:
        return losses(train(TrainOptions(cache_path, batch_size=3, epochs=3, **options)))

    first = run(seed=1, data_seed=2)
    assert run(seed=1, data_seed=2) == first
    assert run(seed=1, data_seed=2, workers=2) == first
    assert run(seed=2, data_seed=2) != first
    assert run(seed=1, data_seed=3) != first


def test_eight_images_are_learnt_by_heart(cache_path: Path) -> None:
    result = train(TrainOptions(cache_path, batch_size=2, epochs=80, lr=0.05))
    assert result.rows[-1].train_loss < 0.01
    assert result.rows[-1].train_acc == 1


def test_every_image_counts_once_in_the_mean_at_any_batch_size(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    torch.manual_seed(0)
    with torch.no_grad():
        logits = ModelNet(2, 64)(cache.images)
    loss = nn.functional.cross_entropy(logits.double(), cache.labels).item()
    accuracy = (logits.argmax(1) == cache.labels).double().mean().item()
    for batch_size in (1, 3, 5, 100):
        row = train(TrainOptions(cache_path, batch_size=batch_size, epochs=1, lr=1e-30)).rows[0]
        assert row.train_loss == pytest.approx(loss, abs=1e-6)
        assert row.train_acc == accuracy


def test_drop_last_leaves_out_the_shorter_batch_and_needs_a_whole_one(cache_path: Path) -> None:
    seen = Steps()
    train(TrainOptions(cache_path, batch_size=3, epochs=1, drop_last=True), seen)
    assert seen.images == [3, 3]
    with pytest.raises(OptionsError, match="8 images are less than one batch of 9"):
        train(TrainOptions(cache_path, batch_size=9, epochs=1, drop_last=True))


class Steps(Progress):
    """Remembers what it hears; asks to stop after `cut` steps."""

    def __init__(self, stop: Stop | None = None, cut: int = 0) -> None:
        self.images: list[int] = []
        self.heard: list[str] = []
        self.stop, self.cut = stop, cut

    def note(self, text: str) -> None:
        self.heard.append(text)

    def warn(self, text: str) -> None:
        self.heard.append(f"warning: {text}")

    def step(self, images: int) -> None:
        self.images.append(images)
        if self.stop and len(self.images) == self.cut:
            self.stop.signal = 2


def test_the_default_learning_rate_is_said_aloud(cache_path: Path) -> None:
    heard = Steps()
    result = train(TrainOptions(cache_path, epochs=1, batch_size=4), heard)
    assert heard.heard == ["learning rate 0.004 (0.001 × batch size 4)"]
    assert result.rows[0].lr == 0.004
    train(TrainOptions(cache_path, epochs=1, lr=0.5), heard)
    assert len(heard.heard) == 1


def test_a_run_folder_holds_what_was_done_and_what_came_of_it(cache_path: Path) -> None:
    result = train(TrainOptions(cache_path, val=cache_path, epochs=2))
    assert result.run == Path("runs/photos-modelnet-001")
    found = sorted(path.relative_to(result.run).as_posix() for path in result.run.rglob("*"))
    assert found == [
        "checkpoints",
        "checkpoints/best.pt",
        "checkpoints/last.pt",
        "checkpoints/previous.pt",
        "config.json",
        "confusion.png",
        "loss.png",
        "metrics.csv",
        "predictions.csv",
        "scores.json",
    ]
    with (result.run / "metrics.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == COLUMNS
    assert [float(row[1]) for row in rows[1:]] == losses(result)
    config = json.loads((result.run / "config.json").read_text())
    chosen: dict[str, Any] = {"threads": 1, "memory_format": "contiguous"}
    assert config["options"] == TrainOptions(cache_path, val=cache_path, epochs=2, **chosen).to_dict()
    assert config["cache"]["fingerprint"] == TensorCache(cache_path).fingerprint
    assert [c["images"] for c in config["cache"]["classes"]] == [4, 4]
    assert {"python", "torch", "numpy"} <= set(config["versions"])


def test_runs_are_counted_up_and_never_overwritten(cache_path: Path) -> None:
    options = TrainOptions(cache_path, epochs=1)
    assert [train(options).run.name for _ in range(2)] == ["photos-modelnet-001", "photos-modelnet-002"]
    named = TrainOptions(cache_path, epochs=1, name="mine")
    before = weights_digest(train(named).run)
    with pytest.raises(OutputError, match="never overwritten") as caught:
        train(TrainOptions(cache_path, epochs=1, name="mine", seed=1))
    assert caught.value.exit_code == 73
    assert weights_digest(Path("runs/mine")) == before


def test_a_run_that_cannot_work_leaves_no_folder(cache_path: Path, photos: Path, tmp_path: Path) -> None:
    build_cache(photos, tmp_path / "small.h5", size=32, workers=1)
    with pytest.raises(OptionsError, match=r"60 × 60"):
        train(TrainOptions(tmp_path / "small.h5"))
    for image in (photos / "2").iterdir():
        image.unlink()
    build_cache(photos, tmp_path / "one.h5", size=64, workers=1)
    with pytest.raises(SourceError, match="at least 2 classes"):
        train(TrainOptions(tmp_path / "one.h5"))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda:1 was asked for, PyTorch sees 0 CUDA devices"):
            train(TrainOptions(cache_path, device="cuda:1"))
    assert not Path("runs").exists()


# Diverging


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_images(cache_path: Path) -> None:
    with pytest.raises(TrainingDiverged) as caught:
        train(TrainOptions(cache_path, batch_size=2, epochs=5, lr=1e12, shuffle=False))
    assert caught.value.exit_code == 76
    assert caught.value.path == Path("runs/photos-modelnet-001")
    assert "epoch 1, batch 2 of 4 (1/n03874293_7.JPEG, 1/n03874293_775.JPEG)" in caught.value.reason
    last = torch.load("runs/photos-modelnet-001/checkpoints/last.pt", weights_only=True)
    assert all(weights.isfinite().all() for weights in last["weights"].values())
    assert not Path("runs/photos-modelnet-001/checkpoints/best.pt").exists()


def test_a_run_that_diverged_says_so_until_it_goes_on_without(cache_path: Path) -> None:
    with pytest.raises(TrainingDiverged):
        train(TrainOptions(cache_path, batch_size=2, epochs=1, lr=1e12, shuffle=False))
    run = RunFolder(Path("runs/photos-modelnet-001"))
    assert run.read_divergence() == "the loss is nan in epoch 1, batch 2 of 4"
    config = run.read_config()
    run.write_config(config | {"options": config["options"] | {"lr": 0.001}})
    resume(run.path)
    assert run.read_divergence() == ""


class WritesOver(Progress):
    """Fills every row of a cache with other bytes after so many steps, in the file itself, as a copy over it does."""

    def __init__(self, path: Path, after: int) -> None:
        self.path = path
        self.left = after

    def step(self, images: int) -> None:
        self.left -= 1
        if self.left == 0:
            extent = TensorCache(self.path).reader.images.nbytes
            with self.path.open("r+b") as file:
                file.seek(8192)
                file.write(b"\xff" * extent)  # NaN, as float32


@pytest.mark.parametrize("steps", [5, 8])
def test_overwritten_rows_are_reported_rather_than_a_nan_loss(steps: int, cache_path: Path, tmp_path: Path) -> None:
    """In the midst of the second epoch, whose rows are known to be good, or between two."""
    copy = Path(shutil.copy(cache_path, tmp_path / "c.h5"))
    with pytest.raises(CacheDamaged, match=r"row \d .* is not as it was written"):
        train(TrainOptions(copy, batch_size=2, epochs=5, threads=1), WritesOver(copy, after=steps))


class Poison(Progress):
    """Spoils a network's weights after so many steps, as a bad gradient does, whose loss was still a number."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.network: nn.Module | None = None

    def step(self, images: int) -> None:
        self.left -= 1
        if self.left == 0 and self.network is not None:
            next(self.network.parameters()).data.fill_(float("nan"))


@pytest.mark.usefixtures("every_epoch_is_saved")
def test_spoilt_weights_are_never_saved(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison = Poison(after=8)
    real = ModelNet.__init__

    def remember(self: ModelNet, classes: int, size: int) -> None:
        real(self, classes, size)
        poison.network = self

    monkeypatch.setattr(ModelNet, "__init__", remember)
    with pytest.raises(TrainingDiverged, match="weights are NaN or infinite after epoch 2, batch 4 of 4"):
        train(TrainOptions(cache_path, batch_size=2, epochs=5), poison)
    last = torch.load("runs/photos-modelnet-001/checkpoints/last.pt", weights_only=True)
    assert last["epoch"] == 1
    assert all(weights.isfinite().all() for weights in last["weights"].values())


def test_the_first_bad_loss_of_many_is_found() -> None:
    watched = Losses(torch.device("cuda"))
    for value in (1.0, 2.0, float("inf"), float("nan"), 3.0):
        watched.add(torch.tensor(value))
    assert not watched.due
    assert watched.first_bad() == (3, float("inf"))
    assert watched.first_bad() is None
    for _ in range(watched.every):
        watched.add(torch.tensor(0.5))
    assert watched.due
    assert watched.first_bad() is None


# Stopping and going on


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits(cache_path: Path, workers: int) -> None:
    options = TrainOptions(cache_path, val=cache_path, batch_size=3, epochs=4, workers=workers)
    whole = train(options).run
    cuts = (1, 3, 4, 6, 11) if workers == 0 else (2,)  # within, at the end of, and after an epoch of 3 steps
    for cut in cuts:
        stop = Stop()
        run = train(options, Steps(stop, cut), stop)
        assert run.interrupted
        assert not (run.run / "predictions.csv").exists()
        assert not resume(run.run).interrupted
        assert weights_digest(run.run) == weights_digest(whole)
        assert weights_digest(run.run, "best.pt") == weights_digest(whole, "best.pt")
        for name in ("predictions.csv", "scores.json", "config.json"):
            assert (run.run / name).read_bytes() == (whole / name).read_bytes()
        assert results(run.run) == results(whole)


def test_a_run_that_has_all_its_epochs_says_that_nothing_is_left_to_train(cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=4, epochs=2, lr=0.01)
    left = "nothing is left to train: all 2 epochs are done. Give more --epochs to continue"
    alone, many = Steps(), Steps()
    resume(train(options).run, progress=alone)
    table = train_many(options, [0, 1]).table
    resume_many(table, progress=many)
    assert alone.heard == [left] and left in many.heard
    more = Steps()
    resume_many(table, epochs=3, progress=more)
    assert left not in more.heard


def test_a_run_stopped_again_and_again_still_ends_with_the_same_bits(cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=3, epochs=3)
    whole = train(options).run
    stop = Stop()
    result = train(options, Steps(stop, 1), stop)
    run = result.run
    while result.interrupted:
        stop = Stop()
        result = resume(run, progress=Steps(stop, 1), stop=stop)
    assert weights_digest(run) == weights_digest(whole)
    assert results(run) == results(whole)


def test_saving_seldom_changes_nothing_but_how_much_a_kill_costs(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainOptions(cache_path, batch_size=2, epochs=6, lr=0.05)
    runs = []
    for seconds in (0, 1e9):
        monkeypatch.setattr("modelnet.training.loop.SECONDS_BETWEEN_SAVES", seconds)
        runs.append(train(options).run)
    for name in ("last.pt", "best.pt"):
        assert weights_digest(runs[0], name) == weights_digest(runs[1], name)
    previous = [torch.load(run / "checkpoints/previous.pt", weights_only=True)["epoch"] for run in runs]
    assert previous == [5, 0]


def test_more_epochs_go_on_as_one_longer_run(cache_path: Path) -> None:
    long = train(TrainOptions(cache_path, epochs=5)).run
    run = train(TrainOptions(cache_path, epochs=2)).run
    assert len(resume(run, epochs=5).rows) == 5
    assert weights_digest(run) == weights_digest(long)
    assert json.loads((run / "config.json").read_text())["options"]["epochs"] == 5
    assert resume(run).rows[-1].epoch == 5  # nothing left to do is no failure
    with pytest.raises(OptionsError, match="it has 5 epochs already, and 3 were asked for"):
        resume(run, epochs=3)


@pytest.mark.usefixtures("every_epoch_is_saved")
def test_the_lines_after_the_last_checkpoint_are_written_again(cache_path: Path) -> None:
    """As after a kill between the line of an epoch and its checkpoint, and one in the midst of a line."""
    options = TrainOptions(cache_path, epochs=3)
    whole, run = train(options).run, train(options).run
    checkpoints = run / "checkpoints"
    (checkpoints / "previous.pt").replace(checkpoints / "last.pt")
    with (run / "metrics.csv").open("a") as file:
        file.write("4,0.69")
    resume(run)
    assert results(run) == results(whole)
    assert weights_digest(run) == weights_digest(whole)


def test_a_moved_run_and_its_cache_are_found_again(cache_path: Path, tmp_path: Path) -> None:
    home = tmp_path / "project"
    (home / "data").mkdir(parents=True)
    (home / "data" / "c.h5").write_bytes(cache_path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        run = train(TrainOptions(Path("data/c.h5"), epochs=1)).run
    home.rename(tmp_path / "moved")
    assert len(resume(tmp_path / "moved" / run, epochs=2).rows) == 2


@pytest.mark.usefixtures("every_epoch_is_saved")
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_named(cache_path: Path) -> None:
    run = train(TrainOptions(cache_path, epochs=2)).run
    last, previous = run / "checkpoints" / "last.pt", run / "checkpoints" / "previous.pt"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 4
    last.write_bytes(data)
    with pytest.raises(CheckpointDamaged, match=r"last.pt.*whole \(epoch 1\): rename previous.pt to last.pt"):
        resume(run, epochs=3)
    previous.write_bytes(b"")
    with pytest.raises(CheckpointDamaged, match="No earlier checkpoint is whole"):
        resume(run, epochs=3)


def test_a_checkpoint_of_other_classes_or_another_recipe_is_refused(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    build_cache(photos, path, size=64, workers=1)
    run = train(TrainOptions(path, epochs=1)).run

    build_cache(photos, path, size=96, workers=1)
    with pytest.raises(CheckpointError, match="prepared differently: size 64 → 96"):
        resume(run, epochs=2)
    save_jpeg(photos / "3" / "new.jpg", 80, 80, seed=99)
    build_cache(photos, path, size=64, workers=1)
    with pytest.raises(CheckpointError, match="trained on classes 1, 2; the cache has 1, 2, 3"):
        resume(run, epochs=2)
    (photos / "3" / "new.jpg").rename(photos / "2" / "new.jpg")
    (photos / "3").rmdir()
    build_cache(photos, path, size=64, workers=1)
    with pytest.raises(CacheStale, match="not the one that run c-modelnet-001 began with"):
        resume(run, epochs=2)


def test_two_processes_do_not_train_in_one_folder(cache_path: Path) -> None:
    class Second(Progress):
        def step(self, images: int) -> None:
            with pytest.raises(RunBusy) as caught:
                resume(Path("runs/one"))
            assert caught.value.exit_code == 75
            self.tried = True

    second = Second()
    train(TrainOptions(cache_path, epochs=1, name="one"), second)
    assert second.tried


def test_a_run_whose_table_has_lost_epochs_goes_on_and_says_so(cache_path: Path) -> None:
    run = train(TrainOptions(cache_path, epochs=2, name="one")).run
    (run / "metrics.csv").unlink()
    heard = Steps()
    assert [row.epoch for row in resume(run, epochs=3, progress=heard).rows] == [3]
    assert "warning: runs/one/metrics.csv has lost 2 of 2 epochs: the curves will lack them" in heard.heard
    shown = Run.read(run)
    assert shown.epochs_done == 3 and shown.has_ended


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    for folder, reason in ((tmp_path, "it has no config.json"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(RunError, match=reason) as caught:
            resume(folder)
        assert caught.value.path == folder


# Validation


def test_validation_matches_class_ids_and_uses_weights_after_the_epoch(shared_photos: Path, tmp_path: Path) -> None:
    for class_id, seed in (("10", 31), ("2", 32), ("1", 33)):
        for i in range(3):
            save_jpeg(tmp_path / "train" / class_id / f"{i}.jpg", 70, 70, seed * 10 + i)
            if class_id != "1":
                save_jpeg(tmp_path / "val" / class_id / f"{i}.jpg", 70, 70, seed * 100 + i)
    for name in ("train", "val"):
        build_cache(tmp_path / name, tmp_path / f"{name}.h5", size=64, workers=1)
    heard = Steps()
    result = train(TrainOptions(tmp_path / "train.h5", val=tmp_path / "val.h5", epochs=2, lr=0.1), heard)

    val = TensorCache(tmp_path / "val.h5")
    network = ModelNet(3, 64)
    network.load_state_dict(torch.load(result.run / "checkpoints/last.pt", weights_only=True)["weights"])
    with torch.no_grad():
        logits = network(val.images)
    labels = torch.tensor([{1: 0, 2: 1, 10: 2}[int(val.class_ids[label])] for label in val.labels.tolist()])
    loss = nn.functional.cross_entropy(logits.double(), labels).item()
    assert result.rows[-1].val_loss == pytest.approx(loss, abs=1e-6)
    assert result.rows[-1].val_acc == (logits.argmax(1) == labels).double().mean().item()
    assert "warning: the validation set has no images of class 1" in heard.heard

    with (result.run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["class_id"], row["file"]) for row in rows] == [(c, f"{i}.jpg") for c in ("2", "10") for i in range(3)]
    assert [int(row["predicted"]) for row in rows] == [[1, 2, 10][k] for k in logits.argmax(1).tolist()]
    assert [row["sha256"] for row in rows] == [digest.tobytes().hex() for digest in val.source_sha256]
    assert sum(float(row["loss"]) for row in rows) / 6 == pytest.approx(loss, abs=1e-6)
    assert all(0 <= float(row["p_true"]) <= float(row["p_predicted"]) <= 1 for row in rows)


def test_a_validation_set_that_does_not_match_is_refused_before_warnings(cache_path: Path, tmp_path: Path) -> None:
    for class_id in ("1", "3"):
        save_jpeg(tmp_path / "val" / class_id / "a.jpg", 70, 70, int(class_id))
    build_cache(tmp_path / "val", tmp_path / "val.h5", size=64, workers=1)
    heard = Steps()
    with pytest.raises(CacheStale, match="class 3 is unknown to the training set"):
        train(TrainOptions(cache_path, val=tmp_path / "val.h5", lr=0.1), heard)
    assert heard.heard == []


def test_the_best_checkpoint_is_that_of_the_best_epoch(cache_path: Path) -> None:
    result = train(TrainOptions(cache_path, val=cache_path, batch_size=2, epochs=30, lr=0.05))
    best = max(result.rows, key=lambda row: (row.val_acc, -(row.val_loss or 0)))
    saved = torch.load(result.run / "checkpoints/best.pt", weights_only=True)
    assert saved["epoch"] == best.epoch
    assert saved["best"] == [best.val_acc, -(best.val_loss or 0)]


@pytest.mark.parametrize("picture", ["loss.png", "confusion.png"])
def test_a_run_has_its_pictures_before_it_counts_as_finished(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch, picture: str
) -> None:
    class Killed(BaseException):
        pass

    def draw(run: RunFolder, name: str, *_: object) -> None:
        if name == picture:
            raise Killed

    monkeypatch.setattr(RunFolder, "draw_picture", draw)
    with pytest.raises(Killed):
        train(TrainOptions(cache_path, val=cache_path, batch_size=4, epochs=1, name="r"))

    assert not RunReader(Path("runs/r")).state().has_result, "a group would not take it up again"
