"""Scores of classes against scikit-learn."""

import json
import math
from pathlib import Path

import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

from modelnet import TrainOptions, train
from modelnet.eval.evaluate import Outcome
from modelnet.eval.scores import Scores, score
from tests.support.command_line import RunCli


def scores_of(classes: int, images: int, seed: int) -> tuple[Scores, Outcome]:
    torch.manual_seed(seed)
    outcome = Outcome(torch.randn(images, classes), torch.randint(0, classes, (images,)))
    return score(outcome, list(range(classes)), [""] * classes), outcome


@pytest.mark.parametrize(("classes", "images"), [(2, 50), (6, 200), (11, 9)])
def test_scores_are_those_of_scikit_learn(classes: int, images: int) -> None:
    scores, outcome = scores_of(classes, images, seed=classes)
    true, said, every = outcome.labels_N.numpy(), outcome.logits_NC.argmax(1).numpy(), list(range(classes))

    assert scores.confusion == confusion_matrix(true, said, labels=every).tolist()
    columns = precision_recall_fscore_support(true, said, labels=every, zero_division=math.nan)
    for k, ours in enumerate(scores.classes):
        for value, column in zip((ours.precision, ours.recall, ours.f1, ours.images), columns, strict=True):
            assert math.isnan(column[k]) if value is None else value == pytest.approx(column[k])
    if classes < 6:
        assert scores.top5 is None
    else:
        expected = top_k_accuracy_score(true, outcome.logits_NC.numpy(), k=5, labels=every)
        assert scores.top5 == pytest.approx(expected)


def test_the_text_shows_classes_confusion_and_the_whole() -> None:
    outcome = Outcome(torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1, 1]))
    loss = (2 * math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 3
    assert str(score(outcome, [1, 2], ["paddle", ""])).splitlines() == [
        "class   images  precision  recall     F1",
        "paddle       1      50.0%  100.0%  66.7%",
        "2            2     100.0%   50.0%  66.7%",
        "",
        "true class \\ predicted  paddle  2",
        "paddle                       1  0",
        "2                            1  1",
        "",
        f"3 images: loss {loss:.4f}, accuracy 66.7%",
    ]
    large = score(Outcome(-torch.arange(12.0)[None], torch.tensor([3])), list(range(12)), [""] * 12)
    assert "predicted" not in str(large)
    assert str(large).splitlines()[-1].startswith("1 image: loss ")
    assert str(large).endswith("accuracy 0.0%, top-5 100.0%")


def test_a_run_ends_with_the_scores_of_its_validation_images(
    cache_path: Path, tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = train(TrainOptions(cache_path, val=cache_path, epochs=2, threads=1))
    assert result.scores is not None
    assert (result.scores.loss, result.scores.accuracy) == (result.rows[-1].val_loss, result.rows[-1].val_acc)
    assert json.loads((result.run / "scores.json").read_text()) == result.scores.to_dict()
    assert train(TrainOptions(cache_path, epochs=1, threads=1)).scores is None

    ended = run_cli("train", "--cache", cache_path, "--val", cache_path, "--epochs", "2", "--threads", "1")
    assert ended.code == 0
    assert str(result.scores) in ended.stdout
