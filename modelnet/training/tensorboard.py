"""Log the epochs of metrics.csv for TensorBoard, in RUN/tensorboard."""

from importlib.util import find_spec
from pathlib import Path

from modelnet.progress import EpochRow
from pipeline.errors import OptionsError, StorageError
from pipeline.text import how_to_install

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Refuse --tensorboard where its package is not installed.

    Raises:
        OptionsError: says what to type.
    """
    if find_spec("tensorboard") is None:
        reason, advice = "the package tensorboard is not installed", how_to_install("tensorboard")
        raise OptionsError("--tensorboard cannot be used", None, reason, advice)


class TensorBoard:
    """Writes epochs as TensorBoard reads them; TensorBoard forgets what an earlier process wrote of the same epochs.

    Args:
        run: the folder of the run.
        epoch: the first that will be written.

    Raises:
        StorageError: nothing can be written there.
    """

    def __init__(self, run: Path, epoch: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.path = run / FOLDER
        try:
            self._writer = SummaryWriter(str(self.path), purge_step=epoch)
        except OSError as error:
            raise self._failed(error) from error

    def add(self, row: EpochRow) -> None:
        """Write an epoch, so that it can be seen at once.

        Raises:
            StorageError: it could not be written.
        """
        values = {
            "loss/train": row.train_loss,
            "loss/val": row.val_loss,
            "accuracy/train": row.train_acc,
            "accuracy/val": row.val_acc,
            "learning rate": row.lr,
        }
        try:
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(name, value, row.epoch)
            self._writer.flush()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _failed(self, error: OSError) -> StorageError:
        return StorageError("the run cannot be written", self.path, error.strerror or str(error))
