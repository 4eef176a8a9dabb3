"""Archives to train on and to validate on that lie in one folder, or in one archive."""

from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.source.scan import scan_source
from pipeline.source.splits import refuse_splits
from tests.pipeline.source.test_archive import tar_of
from tests.support.photos import make_photos


@pytest.mark.parametrize(
    "names",
    [
        ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
        ("Train.zip", "test.zip"),
    ],
)
def test_images_to_train_on_and_to_validate_on_are_not_put_together(names: tuple[str, str], tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    (tmp_path / "in").mkdir()
    for name in names:
        tar_of(photos, tmp_path / "in" / name)
    for source in (tmp_path / "in", tar_of(tmp_path / "in", tmp_path / "all.tar")):
        with pytest.raises(SourceError, match=" and ".join(sorted(names))) as refused:
            scan_source(source)
        assert refused.value.exit_code == 66


@pytest.mark.parametrize(
    "names",
    [
        ("train-0.tar", "train-1.tar", "training-2.tar"),
        ("train.tar", "bus.tar", "car.tar"),  # classes
        ("valley.tar", "trainers.tar", "contest.tar"),
        ("n01440764.tar", "n01443537.tar"),
    ],
)
def test_parts_of_one_source_and_classes_with_such_names_are_let_through(names: tuple[str, ...]) -> None:
    refuse_splits([name.encode() for name in names], "in")
