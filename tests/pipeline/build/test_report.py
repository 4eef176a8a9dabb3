"""What a person reads of a build (`report`, and `inspection` of its images)."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline import TensorCache, build_cache, build_shards, describe_cache
from pipeline.build.features import write_features
from pipeline.build.report import BuildReport, failed_lines, left_out_lines
from pipeline.format.classes import class_table
from pipeline.format.features import Features
from pipeline.format.inspection import Inspection
from pipeline.format.tables import Failed
from tests.support.photos import save_jpeg


@pytest.mark.parametrize(
    ("inspection", "summary"),
    [
        (Inspection(), ""),
        (Inspection(same_content=[["1/a", "2/b"]]), "1 group with the same content"),
        (
            Inspection([["a", "b"], ["c", "d"]], [("a", "c")], [("e", "tiny")] * 3),
            "2 groups with the same content, 1 pair nearly alike, 3 tiny, blank or of several frames",
        ),
    ],
)
def test_what_is_worth_a_look_is_told_in_one_line(inspection: Inspection, summary: str) -> None:
    assert inspection.summary() == summary


def test_long_lists_are_cut_and_say_how_many_more_there_are() -> None:
    failed = [Failed(1, f"{n}.jpg", "truncated", False) for n in range(25)]
    named = [(f"{n}.jpg", "outside a class folder") for n in range(12)]

    lines = list(failed_lines(failed))
    assert lines[0] == "failed: 25" and len(lines) == 22 and lines[-1] == "  and 5 more (info --json shows all)"
    lines = list(left_out_lines(Counter({"outside a class folder": 12}), named))
    assert lines[0] == "left out: 12 × outside a class folder" and lines[-1] == "  and 2 more"
    assert list(Inspection(notes=[("a", "tiny")] * 11).lines())[-1] == "  and 1 more (info --json shows all)"


def test_a_table_of_classes_is_as_wide_as_its_longest_name() -> None:
    assert class_table([1, 10], ["", ""], [5, 123456]) == [
        "label  class  images",
        "    0  1           5",
        "    1  10     123456",
    ]
    assert class_table(["n01740131"], ["a snake\x1b"], [1]) == [
        "label  class      name           images",
        "    0  n01740131  'a snake\\x1b'       1",
    ]


def test_files_seen_are_cached_left_out_and_failed_ones() -> None:
    report = BuildReport(
        path=Path("c.h5"),
        class_ids=[1],
        class_names=[""],
        counts=[3],
        cached=3,
        left_out=Counter({"suffix .txt": 2}),
        failed=[Failed(1, "a.jpg", "truncated", False)],
    )

    assert report.seen == 6
    assert str(report).splitlines()[-1] == "c.h5: 3 images, 0 bytes: tables alone rewritten in 0.0 s"


def test_a_single_image_is_counted_in_the_singular(tmp_path: Path) -> None:
    save_jpeg(tmp_path / "photos" / "1" / "a.jpg", 70, 60, 0)
    one = build_cache(tmp_path / "photos", tmp_path / "c.h5", size=64, workers=1)
    set_of_one = build_shards(tmp_path / "photos", tmp_path / "s.h5", 1, size=64, workers=1)
    reader = TensorCache(tmp_path / "c.h5").reader
    features = Features("resnet18", "", 512, "a" * 64, reader.fingerprint, "float32", "contiguous")
    of_features = write_features(reader, tmp_path / "f.h5", features, lambda first, end: np.zeros((1, 512), np.float32))
    for text in (one, set_of_one, of_features, describe_cache(tmp_path / "c.h5")):
        assert ": 1 image" in str(text) and ": 1 images" not in str(text)
    assert repr(TensorCache(tmp_path / "c.h5")).endswith(": 1 image, 1 class, 64 × 64)")
