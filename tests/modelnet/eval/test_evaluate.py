"""Evaluation against scikit-learn and torch's own arithmetic."""

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from modelnet.eval.evaluate import Outcome


def test_loss_and_accuracy_are_those_of_scikit_learn() -> None:
    torch.manual_seed(3)
    outcome = Outcome(torch.randn(101, 5) * 4, torch.randint(0, 5, (101,)))
    probabilities = torch.softmax(outcome.logits_NC.double(), 1).numpy()
    labels = outcome.labels_N.numpy()
    assert outcome.loss == pytest.approx(log_loss(labels, probabilities, labels=list(range(5))), rel=1e-9)
    assert outcome.accuracy == accuracy_score(labels, probabilities.argmax(1))
    assert outcome.losses_N.sum().item() == pytest.approx(101 * outcome.loss)


def test_a_hopeless_mistake_has_a_finite_loss() -> None:
    outcome = Outcome(torch.tensor([[1e4, -1e4]]), torch.tensor([1]))
    assert outcome.loss == 2e4
    assert outcome.accuracy == 0
