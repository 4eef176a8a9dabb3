"""Mixed images: against SciPy's beta distribution, plain loops, the plain loss, and themselves in any batch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from modelnet import TrainOptions, resume, train
from modelnet.data.batches import Batches
from modelnet.data.mixup import BetaTable, Mixing, cut_boxes, mix_images, mix_labels
from modelnet.eval.loss import TrainingLoss
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.network import StackedLoss
from modelnet.sweep.train import train_many
from pipeline import TensorCache
from pipeline.load.augment import Augmentation
from pipeline.recipe import Recipe
from tests.support.listener import Listener

KINDS = ("mixup", "cutmix")


pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def mixing_batches(path: Path, kinds: tuple[str, ...], batch_size: int = 8, **options: Any) -> Batches:
    augment = Augmentation(("flip",), 0, Recipe(size=64), 0.3, 0.4)
    return Batches(
        TensorCache(path),
        torch.device("cpu"),
        batch_size,
        augment=augment,
        mixing=Mixing(kinds, 0, 1.0, 1.0),
        **options,
    )


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.8, 1.0, 5.0])
def test_parts_are_of_the_beta_distribution(alpha: float) -> None:
    numbers = (torch.arange(1000) + 0.5) / 1000
    parts = BetaTable(alpha)(numbers)
    expected = stats.beta(alpha, alpha).ppf(numbers.double().numpy())
    np.testing.assert_allclose(parts.numpy(), expected, atol=2e-4)
    ends = BetaTable(alpha)(torch.tensor([0.0, 1 - 2**-24]))
    assert ends.isfinite().all() and ends[0] == 0


def test_cut_boxes_have_the_area_of_the_partner_within_the_image() -> None:
    part, places = torch.tensor([0.75, 0.75, 0.0, 1.0]), torch.tensor([0.5, 0.0, 0.5, 0.5])
    boxes = cut_boxes(part, places, torch.full((4,), 0.5), (64, 64))
    assert boxes.tolist() == [[16, 48, 16, 48], [0, 16, 16, 48], [0, 64, 0, 64], [32, 32, 32, 32]]


@pytest.mark.parametrize("kinds", [("mixup",), ("cutmix",), KINDS])
def test_a_mixed_label_says_what_the_image_is_made_of(kinds: tuple[str, ...], cache_path: Path) -> None:
    """The oracle: an image of ones mixed with one of zeros; its mean is the part of the first."""
    mixture = Mixing(kinds, 3, 1.0, 1.0).draw(4, torch.arange(200), torch.arange(300), (32, 32))
    images = mix_images(mixture, torch.ones(200, 3, 32, 32), torch.zeros(200, 3, 32, 32))
    mixed = mix_labels(mixture, torch.full((200,), 0), torch.full((200,), 1), 2)
    torch.testing.assert_close(images.mean((1, 2, 3)), mixed[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.sum(1), torch.ones(200))
    whole = ((images == 0) | (images == 1)).all(3).all(2).all(1)
    cut = whole.double().mean()
    assert cut == (pytest.approx(0.5, abs=0.12) if kinds == KINDS else float(kinds == ("cutmix",)))
    if kinds == ("cutmix",):  # what is pasted is a box: as many whole rows as columns say
        for image in images[:, 0]:
            zeros = image == 0
            assert zeros.sum() == zeros.any(0).sum() * zeros.any(1).sum()


def test_partners_are_all_training_images_alike_and_none_other() -> None:
    among = torch.tensor([2, 5, 7, 11])
    partners = Mixing(KINDS, 0, 1.0, 1.0).draw(0, torch.arange(8000), among, (64, 64)).partners_B
    assert partners.unique().tolist() == among.tolist()
    counts = torch.bincount(partners)[among].double()
    assert ((counts - 2000) ** 2 / 2000).sum() < 16.3  # chi-squared, 3 degrees of freedom, 0.1 %


def test_mixing_an_image_does_not_depend_on_batch_workers_or_preloading(cache_path: Path) -> None:
    def images_and_labels(**options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        batches = mixing_batches(cache_path, KINDS, **options)
        if options.get("batch_size") == 4:
            batches.preload()
        by_row: dict[int, Any] = {}
        for images, labels, rows, _ in batches.epoch(1):
            by_row |= zip(rows.tolist(), zip(images, labels, strict=True), strict=True)
        ordered = [by_row[row] for row in sorted(by_row)]
        return torch.stack([image for image, _ in ordered]), torch.stack([label for _, label in ordered])

    whole = images_and_labels()
    for options in ({"batch_size": 1}, {"batch_size": 3, "shuffle": True, "workers": 2}, {"batch_size": 4}):
        for one, other in zip(images_and_labels(**options), whole, strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(whole[0], TensorCache(cache_path).images)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 4.0])])
def test_the_loss_of_mixed_labels_is_that_of_both_by_their_parts(
    smoothing: float, weights: torch.Tensor | None
) -> None:
    torch.manual_seed(0)
    logits, one, other = torch.randn(7, 3), torch.randint(3, (7,)), torch.randint(3, (7,))
    part = torch.rand(7)
    loss_of = TrainingLoss(smoothing, weights)

    mixed = torch.lerp(one_hot(other, 3).float(), one_hot(one, 3).float(), part[:, None])
    w = torch.ones(3) if weights is None else weights
    total = 0.0
    for row, a, b, p in zip(logits.double(), one.tolist(), other.tolist(), part.tolist(), strict=True):
        loss_C = -log_softmax(row, 0)
        for label, share in ((a, p), (b, 1 - p)):
            total += share * (w[label] * ((1 - smoothing) * loss_C[label] + smoothing * loss_C.mean())).item()
    assert loss_of(logits, mixed).item() == pytest.approx(total / 7, rel=1e-5)

    plain = (cross_entropy(logits, one, reduction="none", label_smoothing=smoothing) * w[one]).mean()
    torch.testing.assert_close(loss_of(logits, one), plain)
    torch.testing.assert_close(loss_of(logits, one_hot(one, 3).float()), plain)


def test_mixed_runs_say_so_resume_alike_and_validate_on_whole_images(cache_path: Path) -> None:
    options = TrainOptions(
        cache_path, val=cache_path, batch_size=3, epochs=3, augment="mixup,cutmix", class_weights="balanced", threads=1
    )
    heard, stop = Listener(), Stop()
    whole = train(options, heard)
    assert any("images are mixed" in note for note in heard.notes)
    cut = train(options, Listener(stop, 5), stop).run
    assert [row.train_loss for row in resume(cut).rows] == [row.train_loss for row in whole.rows]
    assert [row.train_loss for row in train(TrainOptions(cache_path, batch_size=3, epochs=3)).rows] != [
        row.train_loss for row in whole.rows
    ]
    assert whole.scores is not None and whole.scores.loss == pytest.approx(whole.rows[-1].val_loss)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_losses_of_stacked_networks_are_those_of_each(weighted: bool) -> None:
    torch.manual_seed(0)
    losses = [
        TrainingLoss(0.1, torch.tensor([0.5, 1.0, 4.0]) if weighted else None),
        TrainingLoss(),
    ]
    logits, mixed = torch.randn(2, 7, 3), torch.rand(7, 3).softmax(1)
    together = StackedLoss(losses)(logits, mixed, len(mixed))
    torch.testing.assert_close(
        together, torch.stack([loss(own, mixed) for loss, own in zip(losses, logits, strict=True)])
    )


def test_networks_in_one_pass_have_the_mixed_losses_of_each_alone(cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=3, epochs=2, augment="flip,mixup,cutmix", crop_size=60, threads=1)
    together = train_many(options, [0, 1])
    for seed, rows in zip((0, 1), together.rows, strict=True):
        alone = train(replace(options, seed=seed)).rows
        for one, other in zip(rows, alone, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5) and one.train_acc == other.train_acc
