"""Hints: said where they are true, and nowhere else."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modelnet import TrainOptions, train
from modelnet.data.mixup import Mixing, mix_labels
from modelnet.eval.diagnostics import converged_below, guessing, unshuffled
from modelnet.progress import EpochRow
from pipeline import build_cache
from tests.support.listener import Listener
from tests.support.photos import save_jpeg

pytestmark = pytest.mark.usefixtures("no_pictures")


PLAIN = TrainOptions(Path())


def epochs(*losses: float, accuracy: float = 0.5) -> list[EpochRow]:
    return [EpochRow(i + 1, loss, accuracy, None, None, 0.001, 1.0, 0.0, 1.0) for i, loss in enumerate(losses)]


def test_a_loss_that_stays_at_that_of_guessing_is_named() -> None:
    assert guessing(epochs(0.697, 0.693, 0.692), [10, 10, 0], PLAIN) == (
        "after 3 epochs the loss is still 0.693 = ln 2: the network is guessing. "
        "Try another --lr than 0.001; lr-find suggests one"
    )
    assert "2.303 = ln 10:" in guessing(epochs(2.31, 2.301), [3] * 10, PLAIN)
    uneven = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert f"still {uneven:.3f} = what the sizes of the classes alone give" in guessing(epochs(uneven), [5, 15], PLAIN)
    assert guessing(epochs(0.69, 0.69, 0.6), [10, 10], PLAIN) == ""
    assert guessing(epochs(0.69), [5, 15], PLAIN) == ""
    assert guessing(epochs(0.694, 0.692, 0.690), [10, 10], PLAIN) == ""  # it has begun to learn


@pytest.mark.parametrize(
    ("counts", "above"),
    [
        ([90, 10], (0.0124, 0.0054, 0.0080, 0.0116, 0.0033, 0.0042)),
        ([40, 5, 30, 8, 12, 3, 20, 6, 25, 11], (0.0239, 0.0228, 0.0273, 0.0244, 0.0246, 0.0229)),
    ],
)
def test_unequal_classes_are_guessed_from_the_last_epochs(counts: list[int], above: tuple[float, ...]) -> None:
    """The losses of a learning rate of 0.3, above that of guessing: the first epochs learn the sizes of the classes."""
    shares = [count / sum(counts) for count in counts]
    blind = -sum(share * math.log(share) for share in shares)
    first, last = [blind + 0.4, blind + 0.1], [blind + more for more in above]
    assert f"still {blind:.3f} = what the sizes of the classes alone give" in guessing(
        epochs(*first, *last), counts, PLAIN
    )
    assert guessing(epochs(*last, *first), counts, PLAIN) == ""


def test_no_learning_rate_is_advised_where_none_helps() -> None:
    zeros = replace(PLAIN, init="zeros")
    assert guessing(epochs(0.693), [5, 5], zeros).endswith("Leave out --init zeros: hidden layers never learn from it")
    assert "Try another --lr" in guessing(epochs(0.693), [5, 5], replace(zeros, model="linear"))


def test_a_running_accuracy_that_the_network_does_not_have_is_named() -> None:
    assert unshuffled(epochs(0.05, accuracy=0.98)[0], 0.68) == (
        "average training loss 0.05, accuracy 98%, but 32% of the training images are wrong now: "
        "the order is not shuffled"
    )
    assert unshuffled(epochs(0.05, accuracy=0.7)[0], 0.68) == ""


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_run_class_after_class_is_found_out_and_a_shuffled_one_is_not(
    shuffle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(24):
        save_jpeg(tmp_path / "photos" / str(1 + seed // 12) / f"{seed}.jpg", 64, 64, seed)
    build_cache(tmp_path / "photos", "c.h5", size=64, workers=1)
    heard = Listener()
    result = train(TrainOptions(Path("c.h5"), batch_size=1, epochs=2, lr=0.2, threads=1, shuffle=shuffle), heard)
    if shuffle:
        assert heard.hints == []
    else:
        assert result.rows[-1].train_acc > 0.8
        assert heard.hints[0].endswith("50% of the training images are wrong now: the order is not shuffled")


def test_a_learning_rate_that_moves_nothing_is_hinted_at_while_training(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heard = Listener()
    train(TrainOptions(cache_path, epochs=21, lr=1e-9, init="zeros", threads=1), heard)
    assert heard.hints == [
        "after 20 epochs the loss is still 0.693 = ln 2: the network is guessing. "
        "Leave out --init zeros: hidden layers never learn from it"
    ]


def test_what_the_loss_asks_for_decides_what_guessing_gives() -> None:
    uneven = [10, 30]
    assert "still 0.693 = ln 2" in guessing(epochs(0.693), uneven, replace(PLAIN, class_weights="balanced"))
    smoothed = replace(PLAIN, smoothing=0.2)
    logits = torch.tensor([[0.3, 0.7]]).log()  # 0.8 of a quarter and 0.1: what is asked for of the first class
    loss = torch.nn.functional.cross_entropy(logits.expand(4, 2), torch.tensor([0, 1, 1, 1]), label_smoothing=0.2)
    assert f"still {loss:.3f} = what the sizes" in guessing(epochs(loss.item()), uneven, smoothed)
    assert guessing(epochs(loss.item()), uneven, PLAIN) == ""


def test_convergence_is_half_way_between_guessing_and_the_lowest_loss() -> None:
    assert converged_below([5, 5], PLAIN) == pytest.approx(math.log(2) / 2)
    assert converged_below([30, 10], PLAIN) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / 2)
    assert converged_below([30, 10], replace(PLAIN, class_weights="balanced")) == pytest.approx(math.log(2) / 2)
    target = torch.tensor([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    best = torch.nn.functional.cross_entropy(target.log()[None], torch.tensor([0]), label_smoothing=0.1).item()
    assert converged_below([1, 1, 1], replace(PLAIN, smoothing=0.1)) == pytest.approx((math.log(3) + best) / 2)


@pytest.mark.parametrize("augment", ["mixup", "cutmix", "mixup,cutmix"])
def test_mixed_labels_have_a_lowest_loss_above_0(augment: str) -> None:
    options = replace(PLAIN, augment=augment, mixup_alpha=0.4)
    rows_N = torch.arange(4000)
    labels_N = (rows_N >= 1000).long()
    mixture = Mixing(options.mixtures, 0, options.mixup_alpha, options.cutmix_alpha).draw(0, rows_N, rows_N, (224, 224))
    targets_NC = mix_labels(mixture, labels_N, labels_N[mixture.partners_B], 2)
    lowest = torch.special.entr(targets_NC).sum(1).mean().item()
    blind = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert lowest > 0.05
    assert converged_below([1000, 3000], options) == pytest.approx((blind + lowest) / 2, abs=0.02)
