"""An experiment (modelnet/sweep/experiment.py): what its file says, and that a repetition goes on or finds it done."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelnet import TrainOptions, train, train_many
from modelnet.compare.compare import compare_groups
from modelnet.progress import Progress
from modelnet.runs.folder import RunFolder
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.experiment import train_experiment
from pipeline import TensorCache
from pipeline.errors import CacheMissing, OptionsError, RunError
from tests.support.experiments import TEXT, experiment, predictions
from tests.support.listener import Listener
from tests.support.photos import PHOTOS
from tests.support.splits import write_folds

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


class Killed(BaseException):
    """Ends a training as a kill would: nothing more is saved."""


class Killer(Progress):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, images: int) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


NAMES = ["e-slow-seed-0", "e-slow-seed-1", "e-fast-seed-0", "e-fast-seed-1"]


def test_each_side_has_its_options_and_all_have_the_common_ones(cache_path: Path) -> None:
    read = experiment(cache_path)

    common: dict[str, Any] = {"val_fraction": 0.5, "epochs": 3, "batch_size": 3, "threads": 1}
    assert read.sides["fast"][1] == TrainOptions(
        cache_path, **common, lr=0.05, momentum=0.9, seed=1, name="e-fast-seed-1"
    )
    assert [options.name for options in read.members] == NAMES
    assert read.runs("slow") == [Path("runs/e-slow-seed-0"), Path("runs/e-slow-seed-1")]


def test_data_seeds_are_crossed_with_the_seeds_and_stand_in_the_names(cache_path: Path) -> None:
    read = experiment(cache_path, text='data_seeds = "4-5"\nname = "n"\n' + TEXT)

    assert [(o.name, o.data_seed, o.seed) for o in read.sides["slow"][1:3]] == [
        ("n-slow-data-seed-4-seed-1", 4, 1),
        ("n-slow-data-seed-5-seed-0", 5, 0),
    ]


def test_data_seeds_with_which_nothing_is_drawn_are_refused(cache_path: Path) -> None:
    text = 'data_seeds = "4-5"\n' + TEXT.replace("[common]\n", "[common]\nshuffle = false\n")

    with pytest.raises(OptionsError, match="data seeds change nothing without --shuffle or --augment"):
        experiment(cache_path, text=text)


def test_seeds_may_be_a_list(cache_path: Path) -> None:
    assert experiment(cache_path, text=TEXT.replace('"0,1"', "[0, 1]")) == experiment(cache_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('seeds = "0,1"', "", "it has no seeds"),
        ('"0,1"', '"few"', "seeds: seeds are given as 0-15"),
        ("seeds =", "sedes =", "sedes is no option of an experiment; did you mean seeds?"),
        (
            'seeds = "0,1"',
            'seeds = "0"\nepochs = 4',
            r"epochs is an option of training; those of all sides belong below \[common\]",
        ),
        ("[fast]", "[slow.fast]", "it has 1 side. "),
        ("momentum", "momentun", "fast: momentun is no option of training; did you mean momentum?"),
        ("lr = 0.01", "lr = -1.0", "slow: lr is greater than 0, not -1.0"),
        ("lr = 0.01", 'seeds = "3"', "slow: seeds is of the whole experiment. Write it at the top"),
        ("lr = 0.01", "seed = 3", "slow: the experiment gives each run its seed"),
        ("val-fraction = 0.5", 'val = "v.h5"\nval-fraction = 0.5', "slow: --val-fraction keeps images"),
        ("[fast]", '["a/b"]', "'a/b' and 'e' make no name of a folder"),
        ("lr = 0.05\nmomentum = 0.9", "lr = 0.01", "slow and fast have the same options"),
    ],
)
def test_a_file_that_means_nothing_is_refused_by_its_key(cache_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(OptionsError, match=f"e.toml: .*{message}"):
        experiment(cache_path, text=TEXT.replace(old, new))


def test_sides_that_would_share_a_run_are_refused(cache_path: Path) -> None:
    text = TEXT.replace('seeds = "0,1"', 'seeds = "0"\ndata_seeds = "0-1"').replace("[fast]", "[slow-data-seed-1]")
    message = "slow and slow-data-seed-1 name a run e-slow-data-seed-1-seed-0. Rename one"
    with pytest.raises(OptionsError, match=rf"e\.toml: {message}"):
        experiment(cache_path, text=text)


def test_a_cache_that_is_not_named_is_the_one_there() -> None:
    with pytest.raises(CacheMissing, match="no cache to train on: data/cache"):
        experiment(Path(), text=TEXT.replace('cache = "{cache}"', ""))


def test_an_experiment_killed_anywhere_and_repeated_has_the_same_end(cache_path: Path) -> None:
    whole = train_experiment(experiment(cache_path), Progress(), Stop())
    assert whole is not None and [run.name for run in whole.runs] == NAMES
    expected = predictions()
    for steps in (1, 3, 5):
        shutil.rmtree("runs")
        with pytest.raises(Killed):
            train_experiment(experiment(cache_path), Killer(steps), Stop())
        assert train_experiment(experiment(cache_path), Progress(), Stop()) is not None
        assert predictions() == expected


def test_a_folder_in_which_nothing_was_trained_is_made_anew(cache_path: Path) -> None:
    train_experiment(experiment(cache_path), Progress(), Stop())
    expected = predictions()
    with pytest.raises(Killed):
        shutil.rmtree("runs")
        train_experiment(experiment(cache_path), Killer(1), Stop())
    half = Path("runs/e-fast-seed-0")
    half.joinpath("config.json").rename(half / "config.json.new")
    shutil.rmtree("runs/e-fast-seed-1")

    train_experiment(experiment(cache_path), Progress(), Stop())
    assert predictions() == expected and not half.joinpath("config.json.new").exists()


@pytest.mark.parametrize("killed_at", ["seeds.png", "group.csv"])
def test_an_experiment_killed_as_it_wrote_its_results_writes_them(cache_path: Path, killed_at: str) -> None:
    train_experiment(experiment(cache_path), Progress(), Stop())
    assert train_experiment(experiment(cache_path), Progress(), Stop()) is None
    without_checkpoints()
    result = Path("runs/e-slow-seed-0", killed_at)
    content = result.read_bytes()
    result.rename(result.with_name(f"{killed_at}.new"))

    again = train_experiment(experiment(cache_path), Progress(), Stop())

    assert again is not None and again.states == ["finished"] * 4
    assert result.read_bytes() == content and not list(result.parent.glob("*.new"))


def test_a_finished_experiment_trains_only_what_its_file_has_more(cache_path: Path) -> None:
    train_experiment(experiment(cache_path, 1), Progress(), Stop())
    before = predictions()
    assert train_experiment(experiment(cache_path, 1), Progress(), Stop()) is None

    heard = Listener()
    more = train_experiment(experiment(cache_path, 1, TEXT.replace('"0,1"', '"0-2"')), heard, Stop())
    assert more is not None and more.states == ["finished"] * 6
    assert len(predictions()) == 6 and {**predictions(), **before} == predictions()

    longer = train_experiment(experiment(cache_path, 2), Progress(), Stop())
    assert longer is not None and [len(rows) for rows in longer.rows] == [2] * 4


@pytest.mark.parametrize(
    ("fewer", "more"),
    [
        ('seeds = "0"', 'seeds = "0,1"'),
        ('seeds = "1"', 'seeds = "0,1"\ndata_seeds = "0-1"'),
        ('seeds = "0"\ndata_seeds = "1"', 'seeds = "0"\ndata_seeds = "0,1"'),
    ],
)
@pytest.mark.parametrize("folds", [False, True])
def test_a_run_of_one_seed_is_found_again_among_several(cache_path: Path, folds: bool, fewer: str, more: str) -> None:
    write_folds(TensorCache(cache_path), Path("s.csv"), 2)
    text = TEXT.replace("val-fraction = 0.5", 'split = "s.csv"\nfold = "all"') if folds else TEXT
    train_experiment(experiment(cache_path, 1, text.replace('seeds = "0,1"', fewer)), Progress(), Stop())
    before = predictions()
    assert len(before) == (4 if folds else 2)

    extended = experiment(cache_path, 1, text.replace('seeds = "0,1"', more))
    assert train_experiment(extended, Progress(), Stop()) is not None

    assert {options.name for options in extended.members} == set(predictions()) > set(before)
    assert {**predictions(), **before} == predictions()


def without_checkpoints() -> dict[Path, bytes]:
    """Remove the checkpoints of all runs, as a person does whose disk is full; return what is left."""
    for folder in Path("runs").glob("*/checkpoints"):
        shutil.rmtree(folder)
    return {path: path.read_bytes() for path in Path("runs").rglob("*.*") if path.is_file()}


def test_a_finished_experiment_needs_no_checkpoints(cache_path: Path) -> None:
    train_experiment(experiment(cache_path, 1), Progress(), Stop())
    left = without_checkpoints()

    assert train_experiment(experiment(cache_path, 1), Progress(), Stop()) is None
    assert {path: path.read_bytes() for path in left} == left
    more = train_experiment(experiment(cache_path, 1, TEXT.replace('"0,1"', '"0-2"')), Progress(), Stop())
    assert more is not None and more.states == ["finished"] * 6
    there = sorted(Path("runs").rglob("*"))
    with pytest.raises(RunError, match=r"e-slow-seed-0: it has no checkpoints/last\.pt\. Put it back"):
        train_experiment(experiment(cache_path, 2, TEXT.replace('"0,1"', '"0-3"')), Progress(), Stop())
    assert sorted(Path("runs").rglob("*")) == there  # nothing was begun


def test_networks_of_folds_without_checkpoints_judge_no_image(cache_path: Path) -> None:
    write_folds(TensorCache(cache_path), Path("s.csv"), 2)
    text = TEXT.replace("val-fraction = 0.5", 'split = "s.csv"\nfold = "all"')
    train_experiment(experiment(cache_path, 1, text), Progress(), Stop())
    without_checkpoints()

    more = train_experiment(experiment(cache_path, 1, text.replace('"0,1"', '"0-2"')), Progress(), Stop())

    assert more is not None and [(one.seeds, one.folds) for one in more.out_of_fold] == [(1, 2)] * 2
    assert all("seed-2" in one.table.parent.name for one in more.out_of_fold)


def test_trained_runs_that_cannot_go_on_are_refused_and_kept(cache_path: Path) -> None:
    train_experiment(experiment(cache_path, 1), Progress(), Stop())
    for table in Path("runs").glob("*/predictions.csv"):
        table.unlink()
    left = without_checkpoints()

    with pytest.raises(RunError, match=r"e-slow-seed-0: it has metrics\.csv, .* no checkpoints/last\.pt\. Put it back"):
        train_experiment(experiment(cache_path, 1), Progress(), Stop())
    assert {path: path.read_bytes() for path in left} == left


@pytest.mark.parametrize("sides", ["[plain]\n[fixed]\n{labels}", "[fixed]\n{labels}\n[plain]"])
def test_each_side_is_trained_on_the_labels_that_it_names(cache_path: Path, sides: str) -> None:
    flipped = [f"{class_id}/{name},{3 - int(class_id)}" for class_id, names in PHOTOS.items() for name in names]
    Path("fixed.csv").write_text("\n".join(["file,label", *flipped]))
    labels = 'labels = "fixed.csv"'
    common = TEXT.partition("[slow]")[0]

    result = train_experiment(experiment(cache_path, 1, common + sides.format(labels=labels)), Progress(), Stop())

    assert result is not None
    alone = [train(replace(own, name=None)).rows for own in result.members]
    assert [rows[0].train_loss for rows in result.rows] == pytest.approx([rows[0].train_loss for rows in alone])
    assert abs(alone[0][0].train_loss - alone[2][0].train_loss) > 1e-3  # seed 0 with the one and the other labels


TWO_SIDES = [
    ("[plain]\n[half]\namp = true", ["amp=no", "amp=yes"], [2, 2]),
    ("[two]\n[three]\nsplit = '3.csv'", ["split=2.csv", "split=3.csv"], [2, 3]),
]


@pytest.mark.parametrize(("sides", "settings", "folds"), TWO_SIDES)
def test_sides_are_settings_whatever_they_differ_in(
    cache_path: Path, sides: str, settings: list[str], folds: list[int]
) -> None:
    for count in (2, 3):
        write_folds(TensorCache(cache_path), Path(f"{count}.csv"), count)
    common = TEXT.partition("[slow]")[0].replace("val-fraction = 0.5", 'split = "2.csv"\nfold = "all"')

    heard = Listener()
    result = train_experiment(experiment(cache_path, 1, common + sides), heard, Stop())

    assert result is not None and list(result.settings) == settings
    assert [(one.seeds, one.folds) for one in result.out_of_fold] == [(2, count) for count in folds]
    assert len({one.table for one in result.out_of_fold}) == 2
    assert list(result.curves()) == settings
    with result.table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    name = settings[0].partition("=")[0]
    assert [f"{name}={line[name]}" for line in lines if line["fold"] == line["seed"] == "0"] == settings


def test_sides_that_differ_on_the_machine_or_in_the_fold_alone_are_refused(cache_path: Path) -> None:
    for option in ('memory-format = "channels_last"', "threads = 3", "fold = 1"):
        text = TEXT.replace("lr = 0.05\nmomentum = 0.9", f"lr = 0.01\n{option}")
        text = text.replace("val-fraction = 0.5", 'split = "2.csv"\nfold = 0') if "fold" in option else text
        with pytest.raises(OptionsError, match="slow and fast have the same options"):
            experiment(cache_path, text=text)


def test_an_experiment_whose_runs_lost_patience_is_done(cache_path: Path) -> None:
    text = TEXT.replace("epochs = {epochs}", "patience = 1\nepochs = 30")
    ended = train_experiment(experiment(cache_path, text=text), Progress(), Stop())
    assert ended is not None and ended.states == ["finished"] * 4 and min(map(len, ended.rows)) < 30
    left = without_checkpoints()

    assert train_experiment(experiment(cache_path, text=text), Progress(), Stop()) is None
    assert {path: path.read_bytes() for path in left} == left


def test_sides_without_validation_are_refused_and_their_trained_runs_stay(cache_path: Path) -> None:
    sides: dict[str, Any] = {"e-slow": {"lr": 0.01}, "e-fast": {"lr": 0.05, "momentum": 0.9}}
    for name, more in sides.items():
        train_many(TrainOptions(cache_path, epochs=1, batch_size=3, threads=1, name=name, **more), [0, 1])
    there = {path: path.read_bytes() for path in Path("runs").rglob("*.*") if path.is_file()}

    with pytest.raises(OptionsError, match=r"slow: its runs have no validation images to compare them by\. Give val, "):
        train_experiment(experiment(cache_path, 1, TEXT.replace("val-fraction = 0.5", "")), Progress(), Stop())
    assert {path: path.read_bytes() for path in Path("runs").rglob("*.*") if path.is_file()} == there


def test_a_run_that_diverged_stays_so_and_is_left_out(cache_path: Path) -> None:
    wild = experiment(cache_path, 1, TEXT.replace("lr = 0.05", "lr = 1e12"))
    train_experiment(wild, Progress(), Stop())

    assert wild.ended("fast") == [] and len(wild.ended("slow")) == 2
    assert train_experiment(wild, Progress(), Stop()) is None
    assert RunFolder(wild.runs("fast")[0]).state().end == "diverged"


def test_a_seed_of_which_a_fold_failed_is_left_out_with_its_other_folds(cache_path: Path) -> None:
    write_folds(TensorCache(cache_path), Path("s.csv"), 2)
    read = experiment(cache_path, 1, TEXT.replace("val-fraction = 0.5", 'split = "s.csv"\nfold = "all"'))
    train_experiment(read, Progress(), Stop())
    RunFolder(Path("runs/e-slow-fold-0-seed-1")).write_divergence("here")

    assert [run.name for run in read.ended("slow")] == ["e-slow-fold-0-seed-0", "e-slow-fold-1-seed-0"]
    assert len(read.ended("fast")) == 4
    assert compare_groups([read.ended("slow"), read.ended("fast")]).images == 8
