"""Evaluate a network on a set of images: loss, accuracy, and a prediction for each image."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from modelnet.data.batches import Batches
from modelnet.data.relabel import RelabelledCache, key_class
from modelnet.runs.tables import Prediction
from modelnet.runtime.interrupt import Stop
from pipeline import TensorCache
from pipeline.format.classes import ClassId


@dataclass(frozen=True)
class Outcome:
    """The logits of a network for a set of images, each counted once.

    Attributes:
        logits_NC: (N, C) float32 on the CPU, in the order of the images.
        labels_N: (N,) int64 on the CPU, in the network's numbering.
    """

    logits_NC: Tensor
    labels_N: Tensor

    @property
    def losses_N(self) -> Tensor:
        """(N,) float64, cross-entropy of each image."""
        return cross_entropy(self.logits_NC.double(), self.labels_N, reduction="none")

    @cached_property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return self.losses_N.mean().item()

    @cached_property
    def accuracy(self) -> float:
        """Fraction of the images that are classified correctly, 0..1."""
        return (self.logits_NC.argmax(1) == self.labels_N).double().mean().item()


def evaluate(
    network: nn.Module,
    batches: Batches,
    label_map: Tensor,
    stop: Stop | None = None,
    autocast: AbstractContextManager[object] | None = None,
    at_once: int | None = None,
) -> Outcome | None:
    """Run the network over all images in order; ranks divide them, and each returns the whole outcome.

    Args:
        network: put into evaluation mode.
        batches: unshuffled, the last one included.
        label_map: (C of the cache,) int64, the network's label by the cache's.
        stop: where set meanwhile, the result is None.
        autocast: the context that the network computes in, or None.
        at_once: images that the network computes together, at most; None for a batch.
    """
    network.eval()
    batches.stop = stop
    logits: list[Tensor] = []
    labels = []
    with torch.inference_mode(), autocast or nullcontext():
        for batch in batches.epoch(0):
            logits += map(network, batch.images.split(at_once or max(len(batch.images), 1)))
            labels.append(batch.labels)
            if stop is not None and stop.poll() is not None:
                return None
    if len(labels) < len(batches):  # asked to stop while it waited for a worker
        return None
    logits_NC, labels_N = (batches.gather(torch.cat(parts).cpu()) for parts in (logits, labels))
    return Outcome(logits_NC.float(), label_map[labels_N])


def predictions_of(outcome: Outcome, cache: TensorCache, rows_N: Tensor, class_ids: list[ClassId]) -> list[Prediction]:
    """Return what the network says of each image. Class and file are its key in its cache.

    Args:
        outcome: over these images.
        cache, rows_N: the images; of a relabelled cache, each prediction has the label too.
        class_ids: by the network's label.
    """
    predictions = []
    has_label = isinstance(cache, RelabelledCache)
    probabilities_NC = softmax(outcome.logits_NC.double(), dim=1)
    predicted_N = outcome.logits_NC.argmax(1)
    losses_N = outcome.losses_N.tolist()
    answers = zip(rows_N.tolist(), outcome.labels_N.tolist(), predicted_N.tolist(), strict=True)
    for i, (row, label, said) in enumerate(answers):
        p_predicted, p_true = (probabilities_NC[i, k].item() for k in (said, label))
        sha256 = cache.source_sha256[row].tobytes().hex()
        file = cache.filenames[row]
        told = str(key_class(cache, row)), file, sha256, str(class_ids[said]), int(said == label)
        own = str(class_ids[label]) if has_label else ""
        predictions.append(Prediction(*told, p_predicted, p_true, losses_N[i], own))
    return predictions
