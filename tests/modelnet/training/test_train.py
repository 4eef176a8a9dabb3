"""Runs that go on with other options than they began with (`history`)."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from modelnet import Trained, TrainOptions, compare_runs, resume, train, train_many
from modelnet.commands.train import command as train_command
from modelnet.runtime.interrupt import Stop
from pipeline import TensorCache
from tests.support.listener import Listener

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures", "one_thread")


def config_of(run: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((run / "config.json").read_text())
    return config


def test_a_cosine_with_more_epochs_is_said_recorded_and_no_repetition(cache_path: Path) -> None:
    options = {"val": cache_path, "batch_size": 4, "sched": "cosine"}
    run = train(TrainOptions(cache_path, epochs=6, **options)).run  # type: ignore[arg-type]
    heard = Listener()
    resume(run, epochs=12, progress=heard)
    straight = train(TrainOptions(cache_path, epochs=12, **options)).run  # type: ignore[arg-type]

    assert any(
        "followed a cosine of 6 epochs, and now follows one of 12: it goes from 6.8e-05 to 0.002" in note
        and "No single command repeats this run" in note
        for note in heard.notes
    ), heard.notes
    config = config_of(run)
    assert config["command"] is None and config["options"]["epochs"] == 12
    assert [(part["epoch"], part["options"]["epochs"]) for part in config["parts"]] == [(0, 6), (6, 12)]
    comparison = compare_runs([run, straight])
    assert comparison.differs["epochs"] == ["6, from epoch 7 on 12", "12"]
    resume(run)
    assert config_of(run)["command"] is None and config_of(run)["parts"] == config["parts"]


def test_more_epochs_at_a_constant_rate_are_repeated_by_one_command(cache_path: Path) -> None:
    options = {"val": cache_path, "batch_size": 4, "sched": "step", "decay_epochs": 2, "warmup_epochs": 1}
    run = train(TrainOptions(cache_path, epochs=2, **options)).run  # type: ignore[arg-type]
    heard = Listener()
    rows = resume(run, epochs=3, progress=heard).rows
    straight = train(TrainOptions(cache_path, epochs=3, **options))  # type: ignore[arg-type]

    assert [row.train_loss for row in rows] == [row.train_loss for row in straight.rows]
    assert config_of(run)["command"] == config_of(straight.run)["command"]
    assert [part["options"]["epochs"] for part in config_of(run)["parts"]] == [2, 3]
    assert not any("learning rate followed" in note for note in heard.notes)


def test_a_run_that_goes_on_as_it_began_has_no_parts(cache_path: Path) -> None:
    run = train(TrainOptions(cache_path, epochs=1)).run
    resume(run)
    assert "parts" not in config_of(run)

    member = train_many(TrainOptions(cache_path, epochs=1), [0, 1]).runs[0]  # a rule chose its threads
    resume(member)
    assert "parts" not in config_of(member)

    earlier = config_of(run)  # of a version that knew no memory format
    earlier["options"].pop("memory_format")
    (run / "config.json").write_text(json.dumps({k: v for k, v in earlier.items() if k != "memory_format"}))
    resume(run)
    assert "parts" not in config_of(run)


NETWORK = "shufflenet_v2_x0_5"


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, dict[str, torch.Tensor]] = torch.load(run / "checkpoints/last.pt", weights_only=True)
    return content["weights"]


def same_bits(run: Path, other: Path) -> bool:
    ours, theirs = weights_of(run), weights_of(other)
    return all(torch.equal(values, theirs[name]) for name, values in ours.items())


def without_choices(run: Path) -> None:
    """Make config.json that of an earlier version, which chose no memory format."""
    config = config_of(run)
    for values in (config, config["options"]):
        del values["memory_format"]
    config["options"]["threads"] = None
    (run / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("model", "memory_format"), [("modelnet", "contiguous"), (NETWORK, "channels_last")])
def test_a_run_records_and_its_command_repeats_what_rules_chose(
    model: str, memory_format: str, cache_path: Path
) -> None:
    config = config_of(train(TrainOptions(cache_path, model=model, epochs=1, batch_size=4, device="cpu")).run)

    assert (config["memory_format"], config["threads"]) == (memory_format, 1)
    typed = train_command.make_context("train", shlex.split(config["command"])[3:]).params
    assert (typed["memory_format"], typed["threads"]) == (memory_format, 1)


def test_the_same_command_gives_the_same_bits_channels_last(cache_path: Path) -> None:
    options = TrainOptions(cache_path, model=NETWORK, epochs=1, batch_size=4, device="cpu")
    first, second = (train(options).run for _ in range(2))

    assert same_bits(first, second)


def test_a_resumed_run_keeps_its_threads_and_its_memory_format(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch, set_threads: Callable[[int], None]
) -> None:
    options = TrainOptions(cache_path, model=NETWORK, epochs=2, batch_size=4, device="cpu", opt="adamw")
    whole, stop = train(options).run, Stop()
    cut = train(options, Listener(stop, 3), stop).run
    monkeypatch.setattr("modelnet.training.setup.choose_memory_format", lambda *_: "contiguous")
    set_threads(2)

    resume(cut)

    assert same_bits(cut, whole)
    assert (config_of(cut)["options"]["threads"], "parts" in config_of(cut)) == (1, False)


def test_a_run_of_an_earlier_version_goes_on_contiguous(cache_path: Path) -> None:
    options = TrainOptions(cache_path, model=NETWORK, epochs=2, batch_size=4, device="cpu", memory_format="contiguous")
    whole, stop = train(options).run, Stop()
    cut = train(options, Listener(stop, 3), stop).run
    without_choices(cut)

    resume(cut)

    assert same_bits(cut, whole)
    assert config_of(cut)["options"]["memory_format"] == "contiguous"


@pytest.mark.parametrize(("amp", "parts"), [(False, [3, 3, 2]), (True, [6, 2])])
def test_a_large_network_is_evaluated_in_parts_as_a_plain_loop_does(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch, amp: bool, parts: list[int]
) -> None:
    monkeypatch.setattr("modelnet.runtime.device.AT_ONCE", 3)
    result = train(TrainOptions(cache_path, val=cache_path, model=NETWORK, epochs=1, lr=0.05, device="cpu", amp=amp))
    assert result.scores is not None
    network, cache = models.get_model(NETWORK, num_classes=2).eval(), TensorCache(cache_path)
    network.load_state_dict(weights_of(result.run))
    seen: list[int] = []
    trained = Trained.load(result.run, device="cpu")
    trained.network.register_forward_pre_hook(lambda _, images: seen.append(len(images[0])))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(network(cache.images).double(), cache.labels).item()

    assert trained.evaluate().to_dict() == result.scores.to_dict()
    assert result.scores.loss == pytest.approx(expected, rel=0.02 if amp else 1e-5)
    predicted = trained.probabilities(cache.images.clone())
    assert predicted.argmax(1).eq(cache.labels).double().mean() == result.scores.accuracy
    assert seen == parts * 2
