"""Two real processes that train one network, against one process; and what is seen where one of them fails."""

import csv
import os
import pickle
import re
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import cli
from modelnet import TrainOptions, TrainResult, resume, train
from modelnet.nets.freeze import freeze_layers, thaw_layers
from modelnet.nets.registry import build_network
from modelnet.progress import Progress
from modelnet.runtime.interrupt import Stop
from modelnet.runtime.ranks import Ranks, join_ranks, own_cores, synchronize_batch_norm
from modelnet.sweep.train import train_many
from pipeline.build.build import build_cache
from pipeline.errors import OptionsError, PipelineError
from tests.support.command_line import REPOSITORY
from tests.support.listener import Listener
from tests.support.photos import make_photos, save_jpeg

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures", "one_thread")

SMALL = "shufflenet_v2_x0_5"  # with BatchNorm
COMMON: dict[str, Any] = {"device": "cpu", "epochs": 4, "lr": 0.01, "threads": 1}


def in_ranks(work: Callable[[Ranks], Any], size: int = 2) -> list[Any]:
    """Do the same in `size` processes, forked from this one, and return what each gives or the error it ends with."""
    store, processes = store_as_torchrun_has(), []
    for rank in range(size):
        reading, writing = os.pipe()
        pid = fork(lambda rank=rank, writing=writing: one_rank(work, rank, size, store.port, writing))  # type: ignore[misc]
        os.close(writing)
        processes.append((pid, reading))
    results = []
    for pid, reading in processes:
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(pid, 0)
        results.append(pickle.loads(data) if data else status)
    return results


def store_as_torchrun_has() -> Any:
    """Return what is kept for the ranks by a process that outlives them: this one."""
    return torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]


def fork(work: Callable[[], NoReturn]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, of which the children use none
        pid = os.fork()
    return pid or work()


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """Return what torchrun gives a process to know."""
    numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    texts = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return {name: str(value) for name, value in numbers.items()} | texts


def one_rank(work: Callable[[Ranks], Any], rank: int, size: int, port: int, writing: int) -> NoReturn:
    """Be a rank, in a forked process, and end it."""
    os.environ |= environment(rank, size, port)
    try:
        with join_ranks() as ranks:
            result = work(ranks)
    except PipelineError as error:
        result = error
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(result, pipe)
    os._exit(0)


def results(run: Path, name: str = "metrics.csv") -> list[list[float]]:
    """Read the columns of a table that are results: no times, names and digests."""
    with (run / name).open() as file:
        lines = list(csv.reader(file))[1:]
    return [[float(v) for v in line[:6] if re.fullmatch(r"-?[\d.e-]+", v)] for line in lines]


def weights(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["weights"]
    return content


CASES: dict[str, dict[str, Any]] = {
    # 8 images: parts of 2 and 1; the last batch has 2
    "parts-differ": {"batch_size": 3, "augment": "flip,crop,color"},
    # the last batch has one image, so that one rank has none
    "a-rank-has-none": {
        "batch_size": 7,
        "class_weights": "balanced",
        "smoothing": 0.1,
        "zero_grad": "epoch",
        "preload": True,
    },
    "mixed": {
        "batch_size": 7,
        "augment": "flip,erase,mixup,cutmix",
        "crop_size": 60,
        "lr": 0.1,
        "class_weights": "balanced",
        "smoothing": 0.1,
    },
    "accumulated": {"batch_size": 3, "accumulate": 2, "clip_grad": 0.5, "model_ema": 0.5, "opt": "adamw"},
    "thawed": {"batch_size": 7, "freeze": "features", "thaw_epoch": 3, "head_lr": 3.0},
    "dropped": {"batch_size": 3, "drop_last": True, "shuffle": False, "workers": 1},
}


def test_two_ranks_give_the_losses_metrics_and_predictions_of_one(
    cache_path: Path, uint8_cache_path: Path, tmp_path: Path
) -> None:
    def run(name: str, ranks: Ranks | None = None) -> TrainResult:
        options = COMMON | CASES[name] | {"name": f"{name}-{1 if ranks is None else ranks.size}"}
        return train(TrainOptions(cache_path, val=uint8_cache_path, **options), ranks=ranks)

    alone = {name: run(name) for name in CASES}
    both = in_ranks(lambda ranks: {name: run(name, ranks) for name in CASES})

    for name, expected in alone.items():
        found = both[0][name]
        assert found.run.name == f"{name}-2" and both[1][name].run == found.run
        assert len(expected.rows) == len(found.rows) == 4
        assert expected.rows[0].train_loss != pytest.approx(expected.rows[1].train_loss, abs=1e-4)  # it learns
        first, theirs = (result.rows[0].train_loss for result in (expected, found))
        assert theirs == pytest.approx(first, abs=2e-6), "the promise: later epochs enlarge rounding"
        for table in ("metrics.csv", "predictions.csv"):
            pairs = zip(results(expected.run, table), results(found.run, table), strict=True)
            assert all(b == pytest.approx(a, abs=1e-5) for a, b in pairs), (name, table)
        assert weights(expected.run).keys() == weights(found.run).keys()
        assert [r.train_loss for r in both[1][name].rows] == [r.train_loss for r in found.rows]  # all know the same
    assert len(list((tmp_path / "runs").iterdir())) == 2 * len(CASES)


class StopsAfter(Progress):
    """Asks this process, and no other, to stop after so many images."""

    def __init__(self, images: int) -> None:
        self.left = images
        self.stop = Stop()

    def step(self, images: int) -> None:
        self.left -= images
        if self.left <= 0:
            self.stop.signal = signal.SIGTERM


@pytest.mark.long
def test_a_stop_of_one_rank_saves_once_and_any_number_of_ranks_goes_on(cache_path: Path) -> None:
    options = TrainOptions(cache_path, **COMMON | {"batch_size": 3, "model": "squeezenet1_0", "lr": 0.001})  # dropout

    def stopped(ranks: Ranks, name: str) -> tuple[bool, int | None]:
        asks = StopsAfter(10 if ranks.rank == 1 else 10**9)  # within the first step of the second epoch
        named = TrainOptions(**{**vars(options), "name": name})
        return train(named, asks, asks.stop, ranks).interrupted, asks.stop.signal

    def work(ranks: Ranks) -> Any:
        whole = train(options, ranks=ranks)
        signals = stopped(ranks, "same"), stopped(ranks, "other")
        first = resume(Path("runs/same"), ranks=ranks)
        return whole, signals, first

    (whole, signals, first), (_, other_signals, _) = in_ranks(work)
    assert signals == other_signals == ((True, signal.SIGTERM),) * 2
    saved = torch.load("runs/other/checkpoints/last.pt", weights_only=True)
    assert (saved["epoch"], saved["step"], saved["running"]["images"]) == (1, 2, 6)  # one step later all know
    assert results(first.run) == results(whole.run)
    for key, values in weights(whole.run).items():
        assert torch.equal(values, weights(first.run)[key])
    assert not resume(Path("runs/other")).interrupted
    assert len(results(Path("runs/other"))) == 4


def test_another_number_of_ranks_resumes_to_the_same_losses(cache_path: Path) -> None:
    options = {**COMMON, "batch_size": 3}
    whole = train(TrainOptions(cache_path, **options))
    asks = StopsAfter(13)
    train(TrainOptions(cache_path, **options, name="r"), asks, asks.stop)
    in_ranks(lambda ranks: resume(Path("runs/r"), ranks=ranks).interrupted)
    for expected, found in zip(results(whole.run), results(Path("runs/r")), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("one_after_another", [False, True])
def test_networks_of_many_seeds_are_divided_among_ranks(
    one_after_another: bool, cache_path: Path, uint8_cache_path: Path
) -> None:
    def run(name: str, ranks: Ranks | None = None) -> Any:
        options = TrainOptions(
            cache_path,
            val=uint8_cache_path,
            **COMMON,
            batch_size=3,
            name=name,
            augment="flip",
            freeze="classifier.2" if one_after_another else None,
        )
        return train_many(options, [4, 1, 7], ranks=ranks)

    alone, (both, other) = run("alone"), in_ranks(lambda ranks: run("both", ranks))
    assert [path.name for path in both.runs] == ["both-seed-4", "both-seed-1", "both-seed-7"]
    assert both.runs == other.runs and both.converged == alone.converged
    for expected, found in zip(alone.runs, both.runs, strict=True):
        assert results(expected) != results(alone.runs[0]) or expected == alone.runs[0]
        for a, b in zip(results(expected), results(found), strict=True):
            assert b == (a if one_after_another else pytest.approx(a, abs=1e-5))


def test_the_rank_that_fails_tells_and_the_others_end_with_its_code(cache_path: Path) -> None:
    def fails(ranks: Ranks) -> None:
        if ranks.rank == 1:
            assert ranks.may_speak(66)
            raise OptionsError("this rank", None, "fails")
        train(TrainOptions(cache_path, **COMMON), ranks=ranks)

    def is_killed(ranks: Ranks) -> None:
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        train(TrainOptions(cache_path, **COMMON), ranks=ranks)

    waiting, failed = in_ranks(fails)
    assert type(waiting).__name__ == "RankFailed" and waiting.exit_code == 66
    assert str(failed) == "this rank: fails"
    waiting, killed = in_ranks(is_killed)
    assert killed == signal.SIGKILL
    assert waiting.exit_code == 71 and "rank 0 of 2 has lost another" in str(waiting)


@pytest.mark.parametrize("many", [False, True])
def test_ranks_that_read_different_caches_are_refused_whatever_is_in_these(
    many: bool, cache_path: Path, tmp_path: Path
) -> None:
    """As those of two machines, each with a copy of its own; one more class would be another network, too."""
    photos = make_photos(tmp_path / "photos")
    save_jpeg(photos / "3" / "a.jpg", 60, 60, 9)
    other = build_cache(photos, tmp_path / "c.h5", size=64, workers=1).path

    def work(ranks: Ranks) -> None:
        options = TrainOptions(other if ranks.rank else cache_path, **COMMON)
        train_many(options, [0, 1], ranks=ranks) if many else train(options, ranks=ranks)

    for ended, path in zip(in_ranks(work), (cache_path, other), strict=True):
        reason = "rank 1 reads another cache there than rank 0. Give all the same file"
        assert str(ended) == f"the ranks read different caches: {path}: {reason}"
    assert not (tmp_path / "runs").exists()


def test_ranks_without_a_part_of_the_batch_are_refused(cache_path: Path) -> None:
    for ended in in_ranks(lambda ranks: train(TrainOptions(cache_path, batch_size=1, device="cpu"), ranks=ranks)):
        assert str(ended) == (
            "too many ranks: a batch of 1 images cannot be divided among 2 ranks. "
            "Give --batch-size 2 or more: it is that of all"
        )


def test_batchnorm_is_refused_on_cpu_ranks_before_a_run_begins(cache_path: Path) -> None:
    base = TrainOptions(cache_path, **COMMON, batch_size=8, model=SMALL)

    def work(ranks: Ranks) -> list[OptionsError]:
        ends = []
        refused: list[dict[str, Any]] = [{}, {"freeze": "conv1"}, {"freeze": "all-but-head", "thaw_epoch": 3}]
        for more in refused:
            with pytest.raises(OptionsError) as caught:
                train(replace(base, **more), ranks=ranks)
            ends.append(caught.value)
        return ends

    for ended in chain.from_iterable(in_ranks(work)):
        assert ended.exit_code == 2 and str(ended) == (
            "this network cannot train in several ranks on a CPU: BatchNorm takes mean and variance over all ranks on "
            "GPUs only. Train it in one process, give --norm-stats keep, or choose a network without BatchNorm"
        )
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "more",
    [
        {"freeze": "all-but-head"},
        {"norm_stats": "keep", "lr": 0.001},
        {"freeze": "conv1|stage2", "thaw_epoch": 3, "norm_stats": "keep", "lr": 0.001},
    ],
)
def test_ranks_on_cpus_train_a_network_whose_batchnorm_is_frozen(more: dict[str, Any], cache_path: Path) -> None:
    torch.save(build_network(SMALL, 2, 64).state_dict(), "w.pth")
    common = COMMON | {"model": SMALL, "weights": Path("w.pth"), "batch_size": 7, "augment": "flip"}  # one has no image
    options = TrainOptions(cache_path, val=cache_path, **common | more)

    alone, (both, other) = train(options), in_ranks(lambda ranks: train(options, ranks=ranks))

    for expected, row in zip(results(alone.run), results(both.run), strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    assert [row.train_loss for row in both.rows] == [row.train_loss for row in other.rows]
    file, found = torch.load("w.pth", weights_only=True), weights(both.run)
    assert not torch.equal(found["fc.weight"], file["fc.weight"])
    assert all(torch.equal(found[name], values) for name, values in file.items() if "running_" in name)


def test_frozen_batchnorm_without_statistics_takes_those_of_a_batch() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(12, 2))
    freeze_layers(network, "0", None)

    with pytest.raises(OptionsError, match="on GPUs only"):
        synchronize_batch_norm(network, torch.device("cpu"))
    synchronize_batch_norm(network, torch.device("cuda"))
    assert isinstance(network[0], nn.SyncBatchNorm)


@pytest.mark.parametrize("name", [SMALL, "timm:test_byobnet"])
def test_batchnorm_on_gpu_ranks_is_torchs_own_with_all_else_of_the_layer(name: str) -> None:
    network = build_network(name, 2, 64).eval()
    images, weights = torch.randn(2, 3, 64, 64), dict(network.named_parameters())
    expected = network(images)

    synchronize_batch_norm(network, torch.device("cuda"))  # what it does is seen without a GPU, but in training

    assert not any(type(layer) is nn.BatchNorm2d for layer in network.modules())
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in network.modules())
    assert torch.equal(network(images), expected)
    assert all(weights[name] is parameter for name, parameter in network.named_parameters())
    synchronize_batch_norm(network, torch.device("cuda"))  # again, as layers thaw
    assert torch.equal(network(images), expected)


@pytest.mark.parametrize("name", [SMALL, "timm:test_byobnet"])
@pytest.mark.parametrize(
    ("freeze", "norm_stats"), [("all-but-head", None), ("stages|conv1|stage2", None), (None, "keep")]
)
def test_frozen_batchnorm_stays_as_it_is_on_gpu_ranks_until_it_is_thawed(
    name: str, freeze: str | None, norm_stats: str | None
) -> None:
    network = build_network(name, 2, 64)
    freeze_layers(network, freeze, norm_stats)
    held = [path for path, layer in network.named_modules() if isinstance(layer, _BatchNorm) and not layer.training]
    before = {name: values.clone() for name, values in network.state_dict().items()}

    synchronize_batch_norm(network, torch.device("cuda"))
    network.train()(torch.randn(4, 3, 64, 64))

    after = network.state_dict()
    assert held and all(torch.equal(after[key], before[key]) for key in before if key.startswith(tuple(held)))
    others = [layer for path, layer in network.named_modules() if isinstance(layer, _BatchNorm) and path not in held]
    assert all(isinstance(layer, nn.SyncBatchNorm) and layer.training for layer in others)
    thaw_layers(network, None)
    synchronize_batch_norm(network, torch.device("cuda"))
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    assert len(layers) == len(held) + len(others) and all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)


def test_ranks_that_train_a_last_layer_preload_their_images(cache_path: Path) -> None:
    torch.save(timm.create_model("test_vit", img_size=64).state_dict(), "w.pth")
    frozen: dict[str, Any] = {"model": "timm:test_vit", "weights": Path("w.pth"), "freeze": "all-but-head"}
    options = TrainOptions(cache_path, **COMMON | frozen | {"epochs": 1}, batch_size=4, preload=True)

    def work(ranks: Ranks) -> list[str]:
        heard = Listener()
        train(options, heard, ranks=ranks)
        return [note for note in heard.notes if note.endswith("are in the memory of cpu")]

    assert all(len(notes) == 1 for notes in in_ranks(work))


@pytest.mark.parametrize(
    ("others", "cores"),
    [
        ([], 4),
        ([(0, [0, 1, 2, 3])], 2),  # shares them
        ([(0, [4, 5, 6, 7])], 4),  # has cores of its own
        ([(2, [0, 1, 2, 3])], 4),  # is on another machine
        ([(0, [0, 1, 2, 3])] * 7, 1),
    ],
)
def test_a_rank_uses_the_cores_that_it_is_bound_to(
    others: list[Any], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelnet.runtime.ranks.bound_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr("modelnet.runtime.ranks.usable_cores", lambda: 4)
    ranks = Ranks(1, 1 + len(others), 1, 1 + len(others))
    monkeypatch.setattr(ranks, "gather_objects", lambda own: [*others, own])

    assert own_cores(ranks) == cores


class Backwards(nn.Module):
    """Has its layers in another order than it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(500, 10), nn.Linear(100, 500)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.first(values).relu())
        return out


def test_the_first_step_adds_gradients_up_in_the_order_of_all_others() -> None:
    """Else a run that is resumed, whose first step is not the first, would end with other last digits."""

    def work(ranks: Ranks) -> bool:
        torch.manual_seed(0)
        network = Backwards()
        forward = ranks.replicate(network, torch.device("cpu"), (100,))
        assert network.first.weight.grad is None and network.training
        torch.manual_seed(ranks.rank)
        values, gradients = torch.randn(4, 100), []
        for _ in range(3):
            network.zero_grad()
            forward(values).square().sum().backward()
            gradients.append(
                [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
            )
        first, *others = gradients
        return len(first) == 4 and all(all(map(torch.equal, first, other)) for other in others)

    assert in_ranks(work, size=3) == [True] * 3


def torchrun(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(REPOSITORY / "cli.py")]
    return subprocess.Popen(
        [*command, "train", *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.long
def test_torchrun_trains_speaks_once_and_is_stopped(cache_path: Path, tmp_path: Path) -> None:
    process = torchrun(
        *("--cache", str(cache_path), "--device", "cpu", "--epochs", "1000000", "--name", "r"), cwd=tmp_path
    )
    assert process.stdout is not None
    lines = [next(process.stdout) for _ in range(4)]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert lines[0] == "run folder: runs/r\n"
    assert [line[:11] for line in lines[2:]] == ["epoch      ", "epoch      "]
    assert errors.count("stopped and saved. Continue with") == 1 and "error:" not in errors.replace("Error:", "")
    saved = torch.load(tmp_path / "runs/r/checkpoints/last.pt", weights_only=True)
    assert saved["epoch"] == (tmp_path / "runs/r/metrics.csv").read_text().count("\n") - 1
    assert rest.count("epoch") + 2 == saved["epoch"]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["train", "--lr", "1e12"], 76, "error: training diverged: runs/{cache}-modelnet-001: the loss is "),
        (["train", "--device", "cuda:9"], 2, "error: --device cuda:9 is one for 2 ranks: "),
        (["train", "--val-fraction", "2"], 2, "error: --val-fraction is between 0 and 1, not 2.0. See "),
        (["evaluate", "runs/x"], 2, "error: torchrun starts several processes, and only train divides its work"),
    ],
)
def test_one_rank_tells_of_an_error_and_all_end_with_its_code(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, line: str
) -> None:
    if arguments[0] == "train":
        arguments = [*arguments, "--cache", str(cache_path)]
    arguments += ["--device", "cpu"] if "1e12" in arguments else []
    monkeypatch.setattr(sys, "argv", ["cli.py", *arguments])
    ended = in_ranks_of_the_command_line(tmp_path / "stderr")
    errors = (tmp_path / "stderr").read_text()
    assert ended == [code, code]
    assert re.findall("^error: .*", errors, re.MULTILINE) == errors.splitlines()[-1:]
    assert errors.splitlines()[-1].startswith(line.format(cache=cache_path.stem))


def test_finished_ranks_end_without_waiting_for_threads_that_may_abort(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["cli.py", "train", "--cache", str(cache_path), "--device", "cpu", "--epochs", "1"]
    )
    monkeypatch.setattr(sys, "exit", lambda code: os._exit(42))  # would run the end of the interpreter

    assert in_ranks_of_the_command_line(tmp_path / "stderr") == [0, 0]


@pytest.mark.parametrize("torch_fails", [False, True])
def test_a_rank_that_fails_alone_before_it_meets_the_others_tells_why(
    torch_fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(*of: object, **options: object) -> int:
        if os.environ["RANK"] == "0":
            return 0  # as one that waits for the other
        if torch_fails:
            monkeypatch.setitem(sys.modules, "modelnet.runtime.ranks", None)
        raise OptionsError("this rank alone", None, "fails")

    monkeypatch.setattr(cli.cli, "main", main)

    assert in_ranks_of_the_command_line(tmp_path / "stderr") == [0, 2]
    assert (tmp_path / "stderr").read_text() == "error: this rank alone: fails\n"


def in_ranks_of_the_command_line(stderr: Path) -> list[int]:
    """Run the command line in two ranks, as torchrun does, and return their exit codes."""

    def command(rank: int, port: int) -> NoReturn:
        os.environ |= environment(rank, 2, port)
        file = os.open(stderr, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        try:
            cli.main()
        except SystemExit as error:
            os._exit(error.code if isinstance(error.code, int) else 1)
        finally:
            os._exit(99)

    store = store_as_torchrun_has()
    processes = [fork(lambda rank=rank: command(rank, store.port)) for rank in range(2)]  # type: ignore[misc]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in processes]
