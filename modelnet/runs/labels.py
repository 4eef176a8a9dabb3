"""The table of labels that a run keeps a copy of."""

from typing import Any

from modelnet.data.relabel import LabelTable, RelabelledCache
from modelnet.options import TrainOptions
from modelnet.runs.reader import RunReader
from pipeline import TensorCache
from pipeline.errors import CheckpointError


def check_labels(config: dict[str, Any], table: LabelTable | None) -> None:
    """Refuse another table of labels than the run began with.

    Args:
        config: of config.json.
        table: the copy in the run folder.

    Raises:
        CheckpointError: shows both digests.
    """
    began = (config.get("labels") or {}).get("sha256")
    if table is not None and table.sha256 != began:
        reason = f"its SHA-256 is {table.sha256[:12]}, and the run has {str(began)[:12]}"
        raise CheckpointError(
            "the labels of the run were changed", table.path, reason, "Put back the table, or train anew"
        )


def kept_labels(run: RunReader, options: TrainOptions) -> LabelTable | None:
    """Return the copy of the table of labels that a run keeps; None of a run without.

    Raises:
        RunError: it is gone. CheckpointError: it was changed.
    """
    table = LabelTable.of(options, run.labels_path(options))
    check_labels(run.read_config(), table)
    return table


def describe_labels(table: LabelTable, *caches: TensorCache) -> dict[str, Any]:
    """Return what config.json says of a table: its digest, and the images that it labels or leaves out."""
    relabelled = {cache.fingerprint: cache for cache in caches if isinstance(cache, RelabelledCache)}.values()
    left_out = sum(int((cache.labels < 0).sum()) for cache in relabelled)
    return {
        "sha256": table.sha256,
        "images": sum(cache.num_images for cache in relabelled) - left_out,
        "left_out": left_out,
    }
