"""Check optimizers and rates (optimizer.py, schedule.py) and losses against plain loops of torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from modelnet import ModelNet, Trained, TrainOptions, resume, train
from modelnet.data.batches import Batches
from modelnet.progress import Progress
from modelnet.runtime.interrupt import Stop
from modelnet.training.optimizer import build_optimizer
from modelnet.training.schedule import Schedule
from modelnet.training.state import State
from pipeline import TensorCache
from tests.support.listener import Listener

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures", "one_thread")


def weights(run: Path, name: str = "last.pt", part: str = "weights") -> dict[str, torch.Tensor]:
    saved: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / name, weights_only=True)[part]
    return saved


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


PLAIN: dict[str, Any] = {
    "sgd": lambda w: torch.optim.SGD(w, lr=0.01, momentum=0.5, weight_decay=0.01),
    "adam": lambda w: torch.optim.Adam(w, lr=0.01, weight_decay=0.01),
    "adamw": lambda w: torch.optim.AdamW(w, lr=0.01, weight_decay=0.01),
    "nadam": lambda w: torch.optim.NAdam(w, lr=0.01, weight_decay=0.01),
    "radam": lambda w: torch.optim.RAdam(w, lr=0.01, weight_decay=0.01),
    "rmsprop": lambda w: torch.optim.RMSprop(w, lr=0.01, weight_decay=0.01, momentum=0.5),
}


@pytest.mark.parametrize("opt", PLAIN)
def test_the_weights_are_those_of_the_plain_loop_with_torchs_optimizer(opt: str, cache_path: Path) -> None:
    torch.manual_seed(3)
    network = ModelNet(2, 64)
    optimizer = PLAIN[opt](network.parameters())
    batches = Batches(TensorCache(cache_path), torch.device("cpu"), 3, shuffle=True, seed=1)
    for epoch in range(3):
        for images, labels, *_ in batches.epoch(epoch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images), labels, label_smoothing=0.1)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.05)
            optimizer.step()

    options = TrainOptions(
        cache_path,
        batch_size=3,
        epochs=3,
        opt=opt,
        lr=0.01,
        weight_decay=0.01,
        clip_grad=0.05,
        smoothing=0.1,
        seed=3,
        data_seed=1,
        device="cpu",
    )
    assert_same_weights(weights(train(options).run), network.state_dict())


@pytest.mark.parametrize(
    "wanted",
    [
        {"opt": "adamw", "sched": "cosine", "warmup_epochs": 1},
        {"opt": "rmsprop", "sched": "plateau", "plateau_epochs": 1, "clip_grad": 0.1, "class_weights": "balanced"},
        {"sched": "step", "decay_epochs": 2, "smoothing": 0.1},
        {"sched": "cosine", "accumulate": 2},
        {"sched": "cosine", "zero_grad": "epoch"},
        {"sched": "cosine", "model_ema": 0.7, "init": "orthogonal"},
        {"sched": "cosine", "zero_grad": "never", "accumulate": 2},
    ],
)
def test_a_stopped_run_resumes_to_the_same_bits_and_learning_rates(wanted: dict[str, Any], cache_path: Path) -> None:
    options = TrainOptions(cache_path, val=cache_path, batch_size=3, epochs=5, **wanted)
    whole = train(options)
    for cut in (4, 9):
        stop = Stop()
        run = train(options, Listener(stop, cut), stop).run
        resumed = resume(run)
        for name in ("last.pt", "best.pt"):
            for part in ("weights", "average"):
                assert_same_weights(weights(run, name, part), weights(whole.run, name, part))
        assert [(row.lr, row.train_loss, row.val_loss) for row in resumed.rows] == [
            (row.lr, row.train_loss, row.val_loss) for row in whole.rows
        ]
    assert len({row.lr for row in whole.rows}) > 1


# Learning rates

STEPS = 7


def scheduled(options: TrainOptions) -> list[float]:
    schedule = Schedule(options, STEPS)
    return [schedule.rate(step) for step in range(options.epochs * STEPS)]


def torchs(scheduler_of: Any, count: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = scheduler_of(optimizer)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.filterwarnings(
    "ignore:The epoch parameter in `scheduler.step:UserWarning"
)  # torch 2.8 warns of its own call
def test_a_warm_up_and_a_cosine_are_those_of_torch() -> None:
    def expected(optimizer: Any) -> Any:
        warm = lr_scheduler.LinearLR(optimizer, 1 / 14, 1.0, total_iters=13)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=5 * STEPS - 14)
        return lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[14])

    rates = scheduled(TrainOptions(Path("c.h5"), lr=0.3, epochs=5, sched="cosine", warmup_epochs=2))
    assert rates == pytest.approx(torchs(expected, 5 * STEPS), rel=1e-9)
    assert min(rates) > 0 and max(rates) == 0.3


def test_steps_are_those_of_torch() -> None:
    rates = scheduled(TrainOptions(Path("c.h5"), lr=0.3, epochs=9, sched="step", decay_epochs=2, decay_rate=0.5))
    expected = torchs(lambda optimizer: lr_scheduler.StepLR(optimizer, 2, gamma=0.5), 9)
    assert rates[::STEPS] == pytest.approx(expected)
    assert rates[STEPS - 1 :: STEPS] == pytest.approx(expected)


def test_a_plateau_is_that_of_torch() -> None:
    scores = torch.rand(60, generator=torch.Generator().manual_seed(2)).tolist()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.5, patience=3, threshold=0)
    schedule = Schedule(TrainOptions(Path("c.h5"), lr=0.3, sched="plateau", plateau_epochs=4, decay_rate=0.5), STEPS)
    state = State(nn.Linear(1, 1), optimizer)
    rates = []
    for score in scores:
        theirs.step(score)
        state.finish_epoch([score], 4)
        rates.append((schedule.rate(0, state.decays), optimizer.param_groups[0]["lr"]))
    assert all(ours == pytest.approx(expected) for ours, expected in rates)
    assert len(set(rates)) > 5


def test_without_a_schedule_the_rate_is_the_one_that_was_given() -> None:
    assert set(scheduled(TrainOptions(Path("c.h5"), lr=0.3))) == {0.3}


# Losses


def test_smoothing_is_in_the_loss_that_is_shown(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    torch.manual_seed(0)
    with torch.no_grad():
        logits = ModelNet(2, 64)(cache.images)
    loss = nn.functional.cross_entropy(logits, cache.labels, label_smoothing=0.3).item()
    row = train(TrainOptions(cache_path, batch_size=8, epochs=1, smoothing=0.3)).rows[0]
    assert row.train_loss == pytest.approx(loss, abs=1e-6)


# The mean of the weights, patience


def test_the_mean_of_the_weights_is_the_plain_sum_and_is_what_is_validated(cache_path: Path) -> None:
    class Follow(Progress):
        mean: dict[str, torch.Tensor] | None = None

        def step(self, images: int) -> None:
            now = {name: w.detach().double().clone() for name, w in networks[0].state_dict().items()}
            self.mean = now if self.mean is None else {n: 0.8 * w + 0.2 * now[n] for n, w in self.mean.items()}

    networks: list[nn.Module] = []
    real = ModelNet.__init__

    def remember(self: ModelNet, classes: int, size: int) -> None:
        real(self, classes, size)
        networks.append(self)

    follow = Follow()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelNet, "__init__", remember)
        result = train(TrainOptions(cache_path, val=cache_path, batch_size=3, epochs=3, lr=0.05, model_ema=0.8), follow)

    average = weights(result.run, part="average")
    assert follow.mean is not None
    for name, expected in follow.mean.items():
        torch.testing.assert_close(average[name].double(), expected, rtol=1e-5, atol=1e-6)
    network, cache = ModelNet(2, 64), TensorCache(cache_path)
    network.load_state_dict(average)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(network(cache.images), cache.labels).item()
    assert result.rows[-1].val_loss == pytest.approx(loss, abs=1e-6)


def test_training_ends_when_patience_does_and_stays_ended(cache_path: Path) -> None:
    listener = Listener()
    options = TrainOptions(cache_path, val=cache_path, batch_size=2, epochs=60, lr=0.05, patience=3)
    result = train(options, listener)
    scores = [(row.val_acc, -(row.val_loss or 0)) for row in result.rows]
    best = scores.index(max(scores)) + 1
    assert len(scores) == best + 3 < 60 and not result.interrupted
    assert listener.notes == [
        f"stopped: no epoch has been better than epoch {best}. "
        f"The weights of epoch {best} are the result: --patience picked it by its validation accuracy"
    ]
    assert result.scores is not None and result.scores.accuracy == scores[best - 1][0]
    assert Trained.load(result.run).evaluate() == result.scores
    assert Trained.load(result.run, "last").evaluate().loss == result.rows[-1].val_loss
    assert len(resume(result.run).rows) == len(scores)
    assert (result.run / "predictions.csv").exists()


OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_as_torchs_own_does_and_loads_its_state(name: str, cache_path: Path) -> None:
    def steps(network: nn.Linear, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for step in numbers:
            optimizer.zero_grad()
            network(torch.full((4, 3), step + 1.0)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    options = TrainOptions(cache_path, opt=name, lr=0.01)
    momentum = {"momentum": options.momentum} if name in ("sgd", "rmsprop") else {}
    plain = OPTIMIZERS[name](theirs.parameters(), lr=0.01, weight_decay=options.weight_decay, **momentum)
    steps(theirs, plain, range(8))
    optimizer = build_optimizer(ours, options)
    steps(ours, optimizer, range(4))
    again = build_optimizer(ours, options)
    again.load_state_dict(optimizer.state_dict())
    steps(ours, again, range(4, 8))

    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_making_an_optimizer_does_not_import_torchs_compiler(cache_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from torch import nn; from modelnet import Trained, TrainOptions; "
        "from modelnet.training.optimizer import build_optimizer; "
        f"o = build_optimizer(nn.Linear(3, 2), TrainOptions(Path({str(cache_path)!r}))); o.zero_grad(); o.step(); "
        "o.load_state_dict(o.state_dict()); "
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
