"""What a run refuses before its first epoch (checks.py, called by setup.py)."""

from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet import ModelNet, TrainOptions, train, train_many
from modelnet.progress import Progress
from modelnet.runtime.ranks import Ranks
from modelnet.training.checks import unreached
from modelnet.training.lr_finder import find_learning_rate
from modelnet.training.setup import Setup
from pipeline.errors import OptionsError
from tests.support.listener import Listener

BATCHNORM = "shufflenet_v2_x0_5"  # BatchNorm over one pixel of each image of 32 × 32

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"norm_stats": "keep"}, "--norm-stats keep changes nothing: modelnet has no BatchNorm"),
        ({"model": BATCHNORM, "norm_stats": "update"}, "--norm-stats update changes nothing without --freeze"),
        ({"freeze": "features", "thaw_epoch": 1}, "--freeze features changes nothing: --thaw-epoch 1 trains all"),
    ],
)
def test_options_of_fine_tuning_that_change_nothing_are_named(
    values: dict[str, Any], said: str, cache_path: Path
) -> None:
    heard = Listener()
    Setup(TrainOptions(cache_path, device="cpu", **values), heard)

    assert [warning for warning in heard.warnings if warning.startswith(said)]
    assert not [note for note in heard.notes if note.startswith("frozen")]  # no weight is


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch_size": 7}, "the last batch of an epoch has one image .* Give --drop-last or another --batch-size"),
        ({"batch_size": 1}, "a batch has one image .* Give a larger --batch-size"),
    ],
)
def test_batchnorm_on_one_image_is_refused_before_the_run_begins(
    values: dict[str, Any], said: str, cache_path: Path
) -> None:
    options = TrainOptions(cache_path, model=BATCHNORM, crop_size=32, device="cpu", epochs=1, **values)
    for begin in (train, find_learning_rate):
        with pytest.raises(OptionsError, match=f"{BATCHNORM} cannot train on a single image: {said}"):
            begin(options)
    assert not Path("runs").exists()
    with pytest.raises(OptionsError, match="single image"):
        Setup(options, Progress(), ranks=AnyRanks(min(2, options.batch_size)))


class AnyRanks(Ranks):
    """Ranks without the other processes, as far as a setup that fails asks them."""

    def __init__(self, size: int) -> None:
        super().__init__(0, size, 0, size)

    def gather_objects(self, value: Any) -> list[Any]:
        return [value]


def test_a_single_image_is_trained_on_where_the_network_can(cache_path: Path) -> None:
    options = TrainOptions(
        cache_path, model=BATCHNORM, crop_size=32, batch_size=7, drop_last=True, device="cpu", epochs=1
    )
    assert len(train(options).rows) == 1
    assert len(train(TrainOptions(cache_path, batch_size=1, epochs=1)).rows) == 1


def test_trying_a_single_image_leaves_network_and_random_numbers_alone(cache_path: Path) -> None:
    options = TrainOptions(cache_path, model=BATCHNORM, batch_size=7, device="cpu")  # 64 × 64: four values a channel
    weights = Setup(options, Progress()).state.network.state_dict()
    state = torch.get_rng_state()
    tried = Setup(TrainOptions(cache_path, model=BATCHNORM, batch_size=8, device="cpu"), Progress())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(values, weights[name]) for name, values in tried.state.network.state_dict().items())


def test_options_that_weights_leave_nothing_to_are_named(cache_path: Path) -> None:
    torch.save(ModelNet(2, 64).state_dict(), "all.pt")
    torch.save(ModelNet(3, 64).state_dict(), "other-classes.pt")
    for weights, init, seed, warned in [
        ("all.pt", "xavier", 3, ["--init xavier", "--seed 3"]),
        ("all.pt", "default", 0, []),
        ("other-classes.pt", "xavier", 3, []),  # the last layer is new
        (None, "zeros", 3, ["--seed 3"]),
    ]:
        heard = Listener()
        path = None if weights is None else Path(weights)
        Setup(TrainOptions(cache_path, weights=path, init=init, seed=seed, device="cpu"), heard)
        assert [text.partition(" changes no weight")[0] for text in heard.warnings] == warned


def test_networks_of_several_seeds_that_start_alike_are_named(cache_path: Path) -> None:
    heard = Listener()
    train_many(TrainOptions(cache_path, epochs=1, init="zeros"), [0, 1], heard)
    assert "the networks of seeds 0 and 1 start alike: --weights or --init zeros sets all weights" in heard.warnings
    heard = Listener()
    train_many(TrainOptions(cache_path, epochs=1), [0, 1], heard, sweep={"lr": [0.1, 0.2]})
    assert heard.warnings == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"patience": 3}, "--patience 3 ends nothing"),
        ({"warmup_epochs": 4}, "--warmup-epochs 4 ends after the run: the rate never reaches --lr"),
        ({"sched": "step"}, "--decay-epochs 30 never lets --sched step lower the rate"),
        ({"sched": "plateau", "plateau_epochs": 3}, "--plateau-epochs 3 never lets --sched plateau lower the rate"),
    ],
)
def test_options_that_wait_for_more_epochs_than_there_are_are_named(values: dict[str, Any], said: str) -> None:
    assert unreached(TrainOptions(Path(), epochs=3, **values)) == [f"{said}: there are 3 epochs"]
    most = {name: 2 for name, value in values.items() if isinstance(value, int)} or {"decay_epochs": 2}
    assert unreached(TrainOptions(Path(), epochs=3, **values | most)) == []
    assert unreached(TrainOptions(Path(), epochs=3)) == []
