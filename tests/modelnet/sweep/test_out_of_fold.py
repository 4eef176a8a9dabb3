"""Networks of all folds (out_of_fold.py): each image is judged by those that never saw it."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet import Trained, TrainOptions, resume, train
from modelnet.data.split import split_by_folds
from modelnet.data.split_table import TEST, read_split
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.grid import passes
from modelnet.sweep.train import resume_many, train_many
from modelnet.training.lr_finder import find_learning_rate
from pipeline import TensorCache, build_cache
from pipeline.errors import OptionsError, RunDamaged
from tests.support.command_line import RunCli
from tests.support.listener import Listener
from tests.support.photos import save_jpeg
from tests.support.splits import write_folds

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")
LABELS = {"1": 0, "2": 1}


@pytest.fixture(scope="module")
def many_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of 24 small pictures, 12 a class."""
    folder = tmp_path_factory.mktemp("folds")
    for seed in range(24):
        save_jpeg(folder / "photos" / str(1 + seed % 2) / f"{seed}.jpg", 70, 60, seed)
    build_cache(folder / "photos", folder / "many.h5", size=64, workers=1)
    return folder / "many.h5"


@pytest.fixture
def split(many_cache: Path, tmp_path: Path) -> Path:
    """Three folds of six images each, and six test images."""
    return write_folds(TensorCache(many_cache), tmp_path / "split.csv", 3, 3)


def options_of(cache: Path, split: Path, fold: int | str | None = "all", **more: Any) -> TrainOptions:
    values: dict[str, Any] = {"batch_size": 4, "epochs": 2, "lr": 0.03, "threads": 1, "device": "cpu"}
    return TrainOptions(cache, split=split, fold=fold, **values | more)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files_of(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in ("predictions.csv", "split.csv", "scores.json")]


def test_each_image_is_judged_by_the_mean_of_networks_that_never_saw_it(many_cache: Path, split: Path) -> None:
    result = train_many(options_of(many_cache, split), [0, 7])

    cache, table = TensorCache(many_cache), read_split(split)
    assert passes(result.members) == [[0, 1], [2, 3], [4, 5]]
    (found,) = result.out_of_fold
    assert found.table == result.runs[0] / "out_of_fold.csv"
    lines = read_table(found.table)
    assert len(lines) == found.images == 18
    right = 0
    for line in lines:
        row = [digest.tobytes().hex() for digest in cache.source_sha256].index(line["sha256"])
        assert table.folds[row] == int(line["fold"])
        judges = [run for run, own in zip(result.runs, result.members, strict=True) if own.fold == int(line["fold"])]
        own = [next(p for p in read_table(run / "predictions.csv") if p["sha256"] == line["sha256"]) for run in judges]
        mean = sum(float(p["p_true"]) for p in own) / 2
        assert float(line["p_true"]) == pytest.approx(mean, rel=1e-6)
        assert float(line["loss"]) == pytest.approx(-torch.tensor(mean).log().item(), rel=1e-4)
        assert int(line["correct"]) == (mean > 0.5)
        right += mean > 0.5
    assert found.accuracy == right / 18
    assert f"accuracy {right / 18:.1%} (95 % interval " in str(result)


def test_a_seed_of_all_folds_has_one_line_over_all_images(many_cache: Path, split: Path) -> None:
    result = train_many(options_of(many_cache, split, name="n"), [0, 1])
    rights = [sum(int(p["correct"]) for p in read_table(run / "predictions.csv")) for run in result.runs]
    expected = [sum(rights[seed::2]) / 18 for seed in (0, 1)]
    lines = [line.split() for line in str(result).splitlines()[1:3]]
    assert [line[0] for line in lines] == ["0", "1"] and lines[0][-3:] == ["n-fold-0-seed-0", "...", "n-fold-2-seed-0"]
    assert [line[4] for line in lines] == [f"{value:.1%}" for value in expected]
    table = read_table(result.table)
    assert [(line["fold"], line["seed"]) for line in table] == [(f, s) for f in "012" for s in "01"]
    assert {line["labels"] for line in table} == {""}


@pytest.mark.long
def test_a_network_of_a_fold_has_the_bits_of_training_it_alone(many_cache: Path, split: Path) -> None:
    options = options_of(many_cache, split, model="squeezenet1_1", epochs=1)
    result = train_many(options, [3])
    for fold, run in enumerate(result.runs):
        alone = train(replace(options, fold=fold, seed=3)).run
        assert files_of(run) == files_of(alone)
        assert (run / "split.csv").read_bytes() == split.read_bytes()


def test_test_images_are_never_read(many_cache: Path, split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = set[int]()
    real = TensorCache.read

    def noted(self: TensorCache, rows: torch.Tensor, *more: Any) -> Any:
        read.update(rows.tolist())
        return real(self, rows, *more)

    monkeypatch.setattr(TensorCache, "read", noted)
    cache = TensorCache(many_cache)
    sides = split_by_folds(cache, read_split(split), None)
    train(options_of(many_cache, split, fold=None))
    assert read == set(sides.train.tolist()) and len(read) == 18
    train_many(options_of(many_cache, split), [0, 1])
    find_learning_rate(options_of(many_cache, split, fold=None, epochs=1), [0.01])
    assert read.isdisjoint(sides.test.tolist()) and len(sides.test) == 6


@pytest.mark.parametrize("cut", [3, 6, 10])
def test_folds_that_were_stopped_go_on_to_the_same_bits(cut: int, many_cache: Path, split: Path) -> None:
    options = options_of(many_cache, split)
    whole = train_many(options, [0, 1])
    stop = Stop()
    stopped = train_many(options, [0, 1], Listener(stop, cut), stop)
    assert stopped.interrupted and not (stopped.runs[0] / "out_of_fold.csv").exists()
    split.unlink()  # each run has a copy

    resumed = resume_many(stopped.table)

    for run, other in zip(resumed.runs, whole.runs, strict=True):
        assert files_of(run) == files_of(other)
        weights = [torch.load(r / "checkpoints/last.pt", weights_only=True)["weights"] for r in (run, other)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    tables = [result.runs[0] / "out_of_fold.csv" for result in (resumed, whole)]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_each_setting_of_a_sweep_has_out_of_fold_predictions(many_cache: Path, split: Path) -> None:
    result = train_many(options_of(many_cache, split, name="s", patience=2), [0], sweep={"lr": [0.01, 0.03]})
    assert [one.table.parent.name for one in result.out_of_fold] == ["s-lr-0.01-fold-0", "s-lr-0.03-fold-0"]
    assert "\nlr=0.03: out of fold: accuracy " in str(result)
    assert "out_of_fold.csv; --patience or --sched plateau used these images: it is a little too high" in str(result)
    assert result.selection is not None and result.selection.settings == 2 and result.selection.has_one_seed
    assert f"; chosen among 2 on these images: expect at least about {100 * result.selection.less:.1f} p" in str(result)
    for i, one in enumerate(result.out_of_fold):  # of a single seed it is what the networks said
        own = [line for run in result.runs[3 * i : 3 * i + 3] for line in read_table(run / "predictions.csv")]
        said = {line["sha256"]: line["predicted"] for line in read_table(one.table)}
        assert said == {line["sha256"]: line["predicted"] for line in own}


def test_a_seed_that_lacks_a_fold_judges_no_image(
    many_cache: Path, split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelnet.sweep.group.passes", lambda members: [[i] for i in range(len(members))])
    monkeypatch.setattr("modelnet.sweep.group.Group._train_alone", diverging(1, 0))
    result = train_many(options_of(many_cache, split), [0, 1])
    assert result.states.count("diverged") == 1 and result.out_of_fold[0].seeds == 1


def diverging(fold: int, seed: int) -> Any:
    """Return a way to train alone in which one network diverges."""
    from modelnet.runs.reader import DIVERGED
    from modelnet.sweep.group import Group

    real = Group._train_alone

    def train_alone(self: Group, i: int) -> None:
        own = self.members[i]
        if (own.fold, own.seed) == (fold, seed):
            self.result.states[i] = DIVERGED
        else:
            real(self, i)

    return train_alone


def test_the_split_of_a_run_is_copied_and_a_changed_copy_is_refused(many_cache: Path, split: Path) -> None:
    run = train(options_of(many_cache, split, fold=1)).run
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["fold"] == 1 and len(config["split"]["sha256"]) == 64
    assert f"--split {split} --fold 1" in config["command"]
    assert Trained.load(run).evaluate().images == 6
    (run / "split.csv").write_text(split.read_text().replace(",1\n", ",2\n", 1))
    with pytest.raises(RunDamaged, match=r"the split of the run was changed: .*split\.csv: its SHA-256 is"):
        resume(run, epochs=3)


def test_folds_that_are_not_there_are_refused(many_cache: Path, split: Path) -> None:
    with pytest.raises(OptionsError, match=r"no fold 3: .*split\.csv: its folds are 0 to 2"):
        train(options_of(many_cache, split, fold=3))
    with pytest.raises(OptionsError, match=r"--fold all is for many networks: .*: each of the 3 folds needs"):
        train(options_of(many_cache, split))
    for fold in (1, "all"):
        with pytest.raises(OptionsError, match=f"--fold {fold} needs a split: there is none. Give --split FILE"):
            train(TrainOptions(many_cache, fold=fold))
    with pytest.raises(ValueError, match="split says which images are validated on"):
        options_of(many_cache, split, val=many_cache)
    with pytest.raises(ValueError, match="fold is the number of a fold, or all, not '-1'"):
        options_of(many_cache, split, fold="-1")


def test_images_that_the_split_lacks_are_left_out_and_named(many_cache: Path, split: Path) -> None:
    lines = split.read_text().splitlines(keepends=True)
    split.write_text("".join(lines[:-1]))
    heard = Listener()
    train(options_of(many_cache, split, fold=0, epochs=1), heard)
    assert "6 of 24 images are kept for validation: fold 0; 6 test images are not used" in heard.notes
    assert any("1 of 24 images of the cache are not in the split, and are left out: 2/" in w for w in heard.warnings)


def test_a_split_beside_the_cache_needs_a_word(many_cache: Path, tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "c.h5").write_bytes(many_cache.read_bytes())
    write_folds(TensorCache(many_cache), tmp_path / "c-split.csv", 2)
    for command in ("train", "lr-find"):
        ended = run_cli(command, "--cache", "c.h5", "--epochs", "1")
        assert ended.code == 2
        assert "a split of this cache is there: give --split c-split.csv, or --no-split" in ended.stderr
    train_it = ("train", "--cache", "c.h5", "--epochs", "1", "--threads", "1")
    assert "contradict" in run_cli(*train_it, "--split", "c-split.csv", "--no-split").stderr
    assert run_cli(*train_it, "--no-split").code == 0
    ended = run_cli(*train_it, "--split", "c-split.csv", "--fold", "all", "--name", "f")
    assert ended.code == 0, ended.stderr
    assert "f-fold-0 ... f-fold-1" in ended.stdout and "runs/f-fold-0/out_of_fold.csv" in ended.stdout
    assert (tmp_path / "runs" / "f-fold-0-to-f-fold-1.html").exists()


def test_images_are_judged_by_the_labels_of_a_table_and_only_those_in_it(many_cache: Path, split: Path) -> None:
    cache, table = TensorCache(many_cache), read_split(split)
    file_of = {name: f"{1 + int(Path(name).stem) % 2}/{name}" for name in cache.filenames}
    label_of = {name: "cat" if int(Path(name).stem) % 3 else "dog" for name in cache.filenames}
    unlisted = [cache.filenames[int((table.folds == fold).argmax())] for fold in (TEST, 0, 2)]
    for name in unlisted:
        del label_of[name]
    with Path("labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((file_of[name], label) for name, label in label_of.items())])
    result = train_many(options_of(many_cache, split, labels=Path("labels.csv")), [0, 1])

    (found,) = result.out_of_fold
    lines = read_table(found.table)
    assert list(lines[0])[-2:] == ["label", "fold"]
    folds = dict(zip(cache.filenames, table.folds.tolist(), strict=True))
    assert {line["file"] for line in lines} == {name for name in label_of if folds[name] != TEST}
    assert found.images == len(lines) == 16
    for line in lines:
        assert (line["class_id"], line["label"]) == (file_of[line["file"]][0], label_of[line["file"]])
        assert int(line["correct"]) == (line["predicted"] == line["label"]) == (float(line["p_true"]) > 0.5)
        assert int(line["fold"]) == folds[line["file"]]
    assert found.accuracy == sum(int(line["correct"]) for line in lines) / 16
    tested = Trained.load(result.runs[0]).test(noted=True)
    assert sorted(p.file for p in tested) == sorted(name for name in label_of if folds[name] == TEST)
    assert {p.label for p in tested} <= {"cat", "dog"} and len(tested) == 5
