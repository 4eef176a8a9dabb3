"""The training loss against torch.nn.functional in float64, image by image."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from modelnet import Trained, TrainOptions, train
from modelnet.eval.loss import TrainingLoss, balanced_weights, blind_loss, build_loss, lowest_loss
from modelnet.runs.folder import RunFolder
from pipeline import build_cache

PLAIN = TrainOptions(Path())
COUNTS = torch.tensor([90, 10])


def weighted(logits_BC: Tensor, labels_B: Tensor, weights_C: Tensor, smoothing: float) -> Tensor:
    """Return the mean loss: each image's smoothed loss, as torch has it, times its class's weight."""
    losses_B = cross_entropy(logits_BC, labels_B, reduction="none", label_smoothing=smoothing)
    return (losses_B * weights_C[labels_B]).sum() / len(labels_B)


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], [5, 17, 2])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=labels)
    assert balanced_weights(torch.tensor([5, 17, 2])).tolist() == pytest.approx(expected.tolist())
    assert balanced_weights(torch.tensor([5, 0, 5])).tolist() == [1, 0, 1]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_an_unweighted_loss_is_torchs_to_the_bit(smoothing: float) -> None:
    logits, labels = torch.randn(7, 3), torch.randint(3, (7,))
    assert torch.equal(
        TrainingLoss(smoothing)(logits, labels), cross_entropy(logits, labels, label_smoothing=smoothing)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("as_shares", [False, True])
def test_labels_are_smoothed_first_and_weighted_by_the_class_then(smoothing: float, as_shares: bool) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(9, 4, dtype=torch.float64), torch.randint(4, (9,))
    weights = torch.tensor([0.5, 5.0, 1.0, 0.0], dtype=torch.float64)
    given = one_hot(labels, 4).double() if as_shares else labels
    loss = TrainingLoss(smoothing, weights)(logits, given)
    torch.testing.assert_close(loss, weighted(logits, labels, weights, smoothing))


def test_a_mixed_label_costs_what_its_classes_cost_by_their_shares() -> None:
    torch.manual_seed(0)
    logits, first, second = torch.randn(9, 4, dtype=torch.float64), torch.randint(4, (9,)), torch.randint(4, (9,))
    share = torch.rand(9, 1, dtype=torch.float64)
    loss = TrainingLoss(0.2, torch.tensor([0.5, 5.0, 1.0, 0.1], dtype=torch.float64))
    mixed = share * one_hot(first, 4) + (1 - share) * one_hot(second, 4)
    expected = share[:, 0] * loss.of_images(logits, first) + (1 - share[:, 0]) * loss.of_images(logits, second)
    torch.testing.assert_close(loss.of_images(logits, mixed), expected)


@pytest.mark.parametrize("weights", [[1.9, 0.0], [0.01, 30.0, 1.0], [0.53, 10.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.99])
def test_the_best_logits_have_their_maximum_at_the_class(weights: list[float], smoothing: float) -> None:
    loss = TrainingLoss(smoothing, torch.tensor(weights))
    classes = torch.arange(len(weights))
    logits = torch.zeros(len(weights), len(weights), requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss(logits, classes)
        total.backward()
        return total

    optimizer.step(closure)
    weighed = torch.tensor(weights) > 0
    assert torch.equal(logits.argmax(1)[weighed], classes[weighed])


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_a_rare_class_has_its_share_of_the_steps_at_any_batch_size(batch_size: int) -> None:
    labels = (torch.arange(20 * 64) % 20 == 0).long()[torch.randperm(20 * 64)]
    loss = build_loss(replace(PLAIN, class_weights="balanced"), labels.bincount())
    moved = torch.zeros(2)
    for batch in labels.split(batch_size):
        logits = torch.zeros(len(batch), 2, requires_grad=True)
        loss(logits, batch).backward()
        assert logits.grad is not None
        moved += torch.stack([logits.grad[batch == label].abs().sum() for label in (0, 1)])
    assert (moved[1] / moved.sum()).item() == pytest.approx(0.5, abs=1e-4)


def test_the_parts_of_ranks_add_up_to_the_loss_of_the_batch() -> None:
    logits, labels = torch.randn(7, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 1, 1])
    for loss in (TrainingLoss(0.1), TrainingLoss(0.1, torch.tensor([3.0, 0.5]))):
        parts = [loss(*part, 7) for part in zip(logits.split([4, 3, 0]), labels.split([4, 3, 0]), strict=True)]
        torch.testing.assert_close(torch.stack(parts).sum(), loss(logits, labels))


SETTINGS: list[dict[str, Any]] = [
    {},
    {"smoothing": 0.2},
    {"class_weights": "balanced"},
    {"class_weights": "balanced", "smoothing": 0.2},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("counts", [[90, 10], [5, 0, 20, 3]], ids=str)
def test_guessing_costs_what_the_best_constant_answer_costs(setting: dict[str, Any], counts: list[int]) -> None:
    """The oracle: logits of their own that gradient descent finds for all images alike."""
    counts_C = torch.tensor(counts)
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts_C)
    loss = build_loss(replace(PLAIN, **setting), counts_C)
    logits = torch.zeros(len(counts), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss(logits.expand(len(labels), -1), labels)
        total.backward()
        return total

    optimizer.step(closure)
    blind, answer = blind_loss(loss, counts_C)
    assert blind == pytest.approx(closure().item(), abs=1e-5)
    assert answer.tolist() == pytest.approx(logits.softmax(0).tolist(), abs=1e-3)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("counts", [[90, 10], [5, 0, 20, 3]], ids=str)
def test_the_lowest_loss_is_that_of_the_best_answers(setting: dict[str, Any], counts: list[int]) -> None:
    options, counts_C = replace(PLAIN, **setting), torch.tensor(counts)
    weights = balanced_weights(counts_C).double() if options.class_weights == "balanced" else torch.ones(len(counts))
    wrong = options.smoothing / len(counts)
    entropy = -sum(p * math.log(p) for p in [1 - options.smoothing + wrong] + [wrong] * (len(counts) - 1) if p)
    expected = entropy * float((counts_C * weights).sum() / counts_C.sum())
    assert lowest_loss(build_loss(options, counts_C), counts_C, options) == pytest.approx(expected, abs=1e-6)


def test_balanced_weights_and_smoothing_learn_rare_and_large_class(
    in_a_folder_of_its_own: None, no_pictures: None
) -> None:
    rng = np.random.default_rng(0)
    for class_id, images, brightness in (("large", 190, 0), ("rare", 10, 150)):
        Path("photos", class_id).mkdir(parents=True)
        for i in range(images):
            pixels = rng.integers(0, 100, (24, 24, 3), np.uint8) + np.uint8(brightness)
            Image.fromarray(pixels).save(Path("photos", class_id, f"{i}.png"))
    cache = Path("c.h5")
    build_cache("photos", cache, size=64, dtype="uint8", workers=1)
    together = {"class_weights": "balanced", "smoothing": 0.2, "opt": "adamw", "lr": 0.01, "epochs": 6}
    options = TrainOptions(cache, val=cache, device="cpu", threads=1, **together)  # type: ignore[arg-type]

    result = train(options)

    assert result.scores is not None
    assert [one.recall for one in result.scores.classes] == [1.0, 1.0]
    counts_C = torch.tensor([190, 10])
    lowest = lowest_loss(build_loss(options, counts_C), counts_C, options)
    assert lowest == pytest.approx(0.3251, abs=1e-4)
    assert lowest - 1e-4 < result.rows[-1].train_loss < lowest + 0.05
    # validation is measured without weights and smoothing: by the labels themselves
    evaluated = Trained.load(result.run, device="cpu").evaluate()
    plain = np.mean([-math.log(one.p_true) for one in RunFolder(result.run).read_predictions() or []])
    assert evaluated.loss == pytest.approx(plain, rel=1e-3)
    assert evaluated.loss == pytest.approx(-math.log(0.9), abs=0.05)  # 0.9 is what a smoothed label asks for
