"""What a run refuses before its first epoch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet import TrainOptions, train
from modelnet.progress import Progress
from modelnet.runtime.ranks import Ranks
from modelnet.training.lr_finder import find_learning_rate
from modelnet.training.setup import Setup
from pipeline.errors import OptionsError

BATCHNORM = "shufflenet_v2_x0_5"  # BatchNorm over one pixel of each image of 32 × 32

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


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
