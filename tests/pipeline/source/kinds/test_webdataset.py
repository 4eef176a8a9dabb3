"""WebDataset shards: labels pair with images or are refused; captions and shard numbers are no classes."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.decode.formats import FORMATS
from pipeline.errors import SourceError
from pipeline.source.reader import read_image
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from tests.support.archives import jpeg, write_tar


def test_webdataset_shards_have_the_class_of_a_sample_beside_its_image(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard in range(2):
        samples: dict[str, bytes] = {}
        for sample in range(3):
            samples[f"{sample:04d}.jpg"] = jpeg(10 * shard + sample)
            samples[f"{sample:04d}.cls"] = b"%d\n" % (sample % 2)
            samples[f"{sample:04d}.json"] = b"{}"
        samples["alone.png"] = jpeg()
        write_tar(shards / f"train-{shard:06d}.tar", samples)
    (shards / "classes.csv").write_text("id,name\n0,paddle\n1,snake\n")

    manifest = scan_source(shards)

    assert (manifest.class_ids, manifest.class_names) == ([0, 1], ["paddle", "snake"])
    images = list(zip(manifest.labels.tolist(), manifest.names, strict=True))
    assert images == [
        (0, b"train-000000/0000.jpg"),
        (0, b"train-000000/0002.jpg"),
        (0, b"train-000001/0000.jpg"),
        (0, b"train-000001/0002.jpg"),
        (1, b"train-000000/0001.jpg"),
        (1, b"train-000001/0001.jpg"),
    ]
    assert read_image(manifest.location(3))[0] == jpeg(12)
    assert manifest.left_out == {"no class beside it (.cls)": 2, "suffix .json": 6}
    assert list(scan_source(shards / "train-000000.tar", None, Choice(("1",))).names) == [b"0001.jpg"]


def test_members_of_every_image_format_are_images_of_samples(tmp_path: Path) -> None:
    samples = {f"{i}{form.suffixes[-1]}": jpeg(i) for i, form in enumerate(FORMATS)}
    labels = {f"{i}.cls": b"7" for i in range(len(FORMATS))}

    manifest = scan_source(write_tar(tmp_path / "a.tar", samples | labels))

    assert manifest.class_ids == [7]
    assert [name.decode() for name in manifest.names] == list(samples)


def test_the_image_of_a_sample_is_taken_and_not_its_mask(tmp_path: Path) -> None:
    source = write_tar(
        tmp_path / "a.tar",
        {
            **{"0.cls": b"1", "0.mask.png": jpeg(), "0.JPG": jpeg(1)},
            **{"1.cls": b"2", "1.large.jpg": jpeg(2)},  # the only one
        },
    )

    manifest = scan_source(source)

    assert list(manifest.names) == [b"0.JPG", b"1.large.jpg"]
    assert manifest.left_out_named == [("0.mask.png", "of a sample that has another image")]


def test_the_class_may_be_the_label_of_a_json_and_other_json_says_nothing(tmp_path: Path) -> None:
    labelled = {"a.jpg": b"a", "a.json": json.dumps({"label": "cat", "filename": "x"}).encode()}
    other = {"1/a.jpg": b"a", "1/a.json": json.dumps({"label": "cat"}).encode()}

    assert scan_source(write_tar(tmp_path / "a.tar", labelled)).class_ids == ["cat"]
    assert scan_source(write_tar(tmp_path / "b.tar", other)).class_ids == [1]
    for text in (b"[1]", b'{"label": "\\ud800"}', b"[" * 60_000, b'{"label": 1' + b"0" * 5000 + b"}"):
        assert scan_source(write_tar(tmp_path / "c.tar", {"a.jpg": b"a", "a.json": text})).class_ids == ["c"]


# --- pairing -----------------------------------------------------------------------------------------------------


def classes(source: Path, choice: Choice | None = None) -> dict[str, object]:
    """Return the class of each image by its name."""
    manifest = scan_source(source, None, choice)
    labels = zip(manifest.names, manifest.labels.tolist(), strict=True)
    return {name.decode(): manifest.class_ids[label] for name, label in labels}


def test_whole_stems_pair_where_first_dots_give_a_sample_several_labels(tmp_path: Path) -> None:
    members = {}
    for number in range(11):
        members[f"img.{number:04d}.jpg"] = b"%d" % number
        members[f"img.{number:04d}.cls"] = b"%d" % (number % 3)
    members |= {"other.jpg": b"x", "other.cls": b"7", "late.mask.png": b"x", "late.jpg": b"x", "late.cls": b"8"}
    expected = {f"img.{number:04d}.jpg": number % 3 for number in range(11)} | {"other.jpg": 7, "late.jpg": 8}

    assert classes(write_tar(tmp_path / "a.tar", members)) == expected
    reverse = dict(reversed(members.items()))
    assert classes(write_tar(tmp_path / "b.tar", reverse)) == expected
    shutil.unpack_archive(tmp_path / "a.tar", tmp_path / "unpacked")
    assert classes(tmp_path / "unpacked") == expected


def test_an_image_that_may_have_one_of_several_labels_is_refused(tmp_path: Path) -> None:
    members = {name: b"1" for name in ("img.0.jpg", "img.0.cls", "img.1.jpg", "img.1.cls", "img.2.jpg")}

    with pytest.raises(SourceError, match=r"img\.0\.cls is one of several labels .* belong to img\.2\.jpg") as refused:
        scan_source(write_tar(tmp_path / "a.tar", members))
    assert refused.value.exit_code == 66 and "rename img.0000.jpg to img_0000.jpg" in refused.value.advice


def test_a_label_that_comes_twice_is_that_of_the_last_member(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "a.tar", {"a.jpg": b"x", "a.cls": b"1", "./a.cls": b"2"})

    assert classes(source) == {"a.jpg": 2}


def test_an_unpacked_shard_has_the_classes_of_the_tar(tmp_path: Path) -> None:
    members = {f"{n}.jpg": jpeg(n) for n in range(3)} | {f"{n}.cls": b"%d" % (n % 2) for n in range(3)}
    members |= {f"deep/{n}.jpg": jpeg(9) for n in range(3)} | {f"deep/{n}.cls": b"5" for n in range(3)}
    source = write_tar(tmp_path / "a.tar", members)
    shutil.unpack_archive(source, tmp_path / "unpacked")

    assert classes(tmp_path / "unpacked") == classes(source)
    chosen = Choice(merged=(("both", ("0", "5")),))
    assert classes(tmp_path / "unpacked", chosen) == classes(source, chosen)
    manifest = scan_source(tmp_path / "unpacked", None, chosen)
    for row, name in enumerate(manifest.names):
        assert read_image(manifest.location(row))[0] == members[name.decode().partition("/")[2]]


# --- captions ----------------------------------------------------------------------------------------------------


def test_shards_with_captions_are_refused_as_their_numbers_are_no_classes(tmp_path: Path) -> None:
    for shard in range(2):
        members: dict[str, bytes] = {}
        for key in (f"{shard}{number:08d}" for number in range(3)):
            members |= {f"{key}.jpg": b"x", f"{key}.txt": b"a cat", f"{key}.json": b'{"caption": "a cat"}'}
        members.pop(f"{shard}{1:08d}.txt")  # some have none
        (tmp_path / "shards").mkdir(exist_ok=True)
        write_tar(tmp_path / "shards" / f"{shard:05d}.tar", members)

    for source in (tmp_path / "shards", tmp_path / "shards" / "00000.tar"):
        with pytest.raises(SourceError, match=r"00000\.tar: its images have captions .* no class") as refused:
            scan_source(source)
        assert "key.cls" in refused.value.advice and refused.value.exit_code == 66
    assert scan_source(tmp_path / "shards", None, Choice(("00000", "00001"))).class_ids == ["00000", "00001"]


def test_shards_with_captions_that_were_unpacked_are_refused(tmp_path: Path) -> None:
    members = {
        f"{shard:05d}/{n}.{suffix}": b"{}" for shard in range(2) for n in range(3) for suffix in ("jpg", "txt", "json")
    }
    shutil.unpack_archive(write_tar(tmp_path / "a.tar", members), tmp_path / "unpacked")

    for source in (tmp_path / "a.tar", tmp_path / "unpacked"):
        with pytest.raises(SourceError, match="its images have captions"):
            scan_source(source)
        assert scan_source(source, None, Choice(("00000",))).class_ids == ["00000"]


def test_a_class_tar_with_a_text_beside_some_images_is_a_class(tmp_path: Path) -> None:
    members = {"a.jpg": b"x", "b.jpg": b"x", "a.txt": b"notes", "a.json": b"{}"}

    assert scan_source(write_tar(tmp_path / "cats.tar", members)).class_ids == ["cats"]
