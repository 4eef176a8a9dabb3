"""Runs with the labels of a table: rows and bytes of the cache stay. Also of `labels` of a run."""

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelnet import Trained, TrainOptions, compare_runs, report, resume, train, train_many
from modelnet.data.relabel import LabelTable, RelabelledCache, labelled_rows, relabel, with_labels_of
from modelnet.runs.repeat import repeated_options
from modelnet.runs.tables import parse_predictions
from pipeline import TensorCache
from pipeline.build.build import build_cache
from pipeline.errors import CheckpointError, RunError, SourceError, TableDamaged
from tests.support.builds import InThisProcess
from tests.support.listener import Listener
from tests.support.photos import save_jpeg

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures", "one_thread")

LABELS = {
    "1/n03874293_7.JPEG": "paddle",
    "1/n03874293_43.JPEG": "oar",
    "1/n03874293_775.JPEG": "paddle",
    "1/n03874293_1030.JPEG": "paddle",
    "2/n01740131_12.JPEG": "snake",
    "2/n01740131_300.JPEG": "oar",
    "2/n01740131_4405.JPEG": "snake",
}  # of `PHOTOS`, but one


def table(rows: dict[str, str], path: Path = Path("t.csv")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows.items()])
    return path


def options(cache: Path, **more: Any) -> TrainOptions:
    values: dict[str, Any] = {"epochs": 1, "batch_size": 4, "labels": more.get("labels") or table(LABELS)}
    return TrainOptions(cache, **values | more)


def relabelled(cache: Path, rows: dict[str, str]) -> TensorCache:
    return relabel(TensorCache(cache), LabelTable.of(options(cache, labels=table(rows))))


def test_images_have_the_labels_of_their_rows(cache_path: Path) -> None:
    cache, plain = relabelled(cache_path, LABELS), TensorCache(cache_path)

    assert cache.class_ids == ["oar", "paddle", "snake"] and cache.class_names == ["", "", ""]
    keys = [f"{plain.class_ids[label]}/{name}" for label, name in zip(plain.labels, plain.filenames, strict=True)]
    labels = [cache.class_ids[label] if label >= 0 else None for label in cache.labels.tolist()]
    assert labels == [LABELS.get(key) for key in keys]
    rows = labelled_rows(cache)
    assert rows is not None and rows.tolist() == [row for row, label in enumerate(labels) if label]
    images, batch_labels = cache.read_batch(rows)
    assert torch.equal(images, plain.read(rows)) and torch.equal(batch_labels, cache.labels[rows])


def test_classes_are_ordered_as_folders_are(cache_path: Path) -> None:
    names = dict(zip(LABELS, ["10", "9", "10", "9", "2", "2", "2"], strict=True))

    assert relabelled(cache_path, names).class_ids == [2, 9, 10]
    assert labelled_rows(TensorCache(cache_path)) is None


def test_a_relabelled_cache_survives_pickling(cache_path: Path) -> None:
    cache = relabelled(cache_path, LABELS)
    again = pickle.loads(pickle.dumps(cache))

    assert isinstance(again, RelabelledCache) and torch.equal(again.labels, cache.labels)
    assert (again.class_ids, again.class_names) == (cache.class_ids, cache.class_names)


def test_a_copy_of_an_image_has_its_label_and_no_other(tmp_path: Path) -> None:
    for name in ("1/a.jpg", "2/copy.jpg", "2/b.jpg"):
        save_jpeg(tmp_path / "photos" / name, 20, 20, int(name == "2/b.jpg"))
    build_cache(tmp_path / "photos", tmp_path / "c.h5", size=8, executor=InThisProcess())

    cache = relabelled(tmp_path / "c.h5", {"1/a.jpg": "x", "2/b.jpg": "y"})
    assert [cache.class_ids[label] for label in cache.labels] == ["x", "y", "x"]
    with pytest.raises(
        TableDamaged, match=r"line 3: the label of 1/a.jpg is x \(line 2\), and that of its copy 2/copy"
    ):
        relabelled(tmp_path / "c.h5", {"1/a.jpg": "x", "2/copy.jpg": "y"})


def test_workers_that_read_batches_know_the_labels(cache_path: Path) -> None:
    ours, theirs = (train(options(cache_path, workers=workers)) for workers in (0, 1))

    assert ours.rows[0].train_loss == theirs.rows[0].train_loss
    config = json.loads((ours.run / "config.json").read_text())
    assert config["cache"]["images"] == 7 and [c["images"] for c in config["cache"]["classes"]] == [2, 3, 2]


def test_losses_are_those_of_a_plain_loop_over_these_labels(cache_path: Path) -> None:
    run = train(options(cache_path, batch_size=7, shuffle=False))
    trained = Trained.load(train(options(cache_path, batch_size=7, shuffle=False, lr=1e-12)).run)
    cache = relabelled(cache_path, LABELS)
    rows = labelled_rows(cache)
    assert rows is not None
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(trained.network(cache.read(rows)), cache.labels[rows])

    assert run.rows[0].train_loss == pytest.approx(loss.item(), rel=1e-5)


def test_the_table_is_kept_and_used_by_whatever_reads_the_run(cache_path: Path, photos: Path) -> None:
    heard = Listener()
    run = train(options(cache_path, val=cache_path), progress=heard).run
    digest = LabelTable.of(options(cache_path))
    assert digest is not None
    table({"1/n03874293_7.JPEG": "other", "2/n01740131_12.JPEG": "one"})  # the table is changed where it was

    config = json.loads((run / "config.json").read_text())
    assert config["labels"] == {"sha256": digest.sha256, "images": 7, "left_out": 1}
    assert "labels of 7 images, 3 classes, from t.csv" in heard.notes
    assert any("1 image in no row of t.csv: 2/n03874293_775.JPEG" in warning for warning in heard.warnings)
    predictions = parse_predictions((run / "predictions.csv").read_bytes())
    assert {f"{p.class_id}/{p.file}": p.label for p in predictions} == LABELS
    assert resume(run, epochs=2).rows[-1].epoch == 2
    scores = Trained.load(run).evaluate()
    assert [one.images for one in scores.classes] == [2, 3, 2]
    assert Trained.load(run).evaluate(cache_path).images == 7
    assert repeated_options(run)["labels"] == str(run / "labels.csv")
    assert digest.sha256 in report([run]).decode()


def test_another_table_in_the_run_is_refused(cache_path: Path) -> None:
    run = train(options(cache_path, val=cache_path)).run
    with (run / "labels.csv").open("a") as file:
        file.write("x,y\n")

    for use in (lambda: resume(run, epochs=2), lambda: Trained.load(run).evaluate()):
        with pytest.raises(CheckpointError, match="the labels of the run were changed"):
            use()
    (run / "labels.csv").unlink()
    with pytest.raises(RunError, match="the labels cannot be read"):
        resume(run, epochs=2)


def test_one_table_labels_both_caches_but_not_one_without_rows(cache_path: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("oar/x.jpg", "paddle/y.jpg")):
        save_jpeg(tmp_path / "val" / name, 30, 30, 50 + seed)
    build_cache(tmp_path / "val", tmp_path / "val.h5", size=64, executor=InThisProcess())
    heard = Listener()

    train(options(cache_path, val=tmp_path / "val.h5", labels=table(LABELS)), progress=heard)
    assert not any("without image" in warning for warning in heard.warnings)
    both = LABELS | {"x.jpg": "paddle", "z.jpg": "oar"}
    run = train(options(cache_path, val=tmp_path / "val.h5", labels=table(both)), progress=heard).run

    assert any("1 row of t.csv without image: z.jpg (line 10)" in warning for warning in heard.warnings)
    predictions = parse_predictions((run / "predictions.csv").read_bytes())
    assert [(p.class_id, p.file, p.label) for p in predictions] == [("oar", "x.jpg", "paddle")]


def test_many_networks_share_the_labels_and_compare_says_so(cache_path: Path) -> None:
    common = {"val_fraction": 0.4, "epochs": 1}
    flipped = {name: "2" if name.startswith("1") else "1" for name in LABELS} | {"2/n03874293_775.JPEG": "1"}
    many = train_many(options(cache_path, labels=table(flipped), **common), [0, 1])
    alone = train(options(cache_path, labels=table(flipped), seed=1, **common))
    plain = train_many(TrainOptions(cache_path, batch_size=4, **common), [0, 1])  # type: ignore[arg-type]

    assert many.rows[1][0].train_loss == pytest.approx(alone.rows[0].train_loss, rel=1e-5)
    comparison = compare_runs([*many.runs, *plain.runs])
    digest = LabelTable.of(options(cache_path, labels=table(flipped)))
    assert digest is not None and comparison.differs["labels"] == [f"SHA-256 {digest.sha256[:12]}", "none"]
    count = comparison.images
    assert any(f"--labels gives {count} images other labels" in note for note in comparison.notes)


def test_a_table_of_one_class_or_of_other_images_is_refused(cache_path: Path) -> None:
    with pytest.raises(SourceError, match="training needs at least 2 classes, and all images are of class x"):
        train(options(cache_path, labels=table(dict.fromkeys(LABELS, "x"))))
    with pytest.raises(SourceError, match="names no image here"):
        train(options(cache_path, labels=table({"a.jpg": "x"})))
    assert not any(Path().glob("runs/*"))


def test_labels_stay_with_features(cache_path: Path) -> None:
    cache = relabelled(cache_path, LABELS)
    other = with_labels_of(TensorCache(cache_path), cache)

    assert np.array_equal(other.labels, cache.labels) and other.class_ids == cache.class_ids
    assert with_labels_of(other, TensorCache(cache_path)) is other
