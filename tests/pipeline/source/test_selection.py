"""Choosing classes and images of a source, from Python and as typed."""

import os
import shlex
from pathlib import Path

import pytest

from pipeline.build.build import build_cache
from pipeline.errors import SourceError
from pipeline.inspect.info import check_source
from pipeline.load.cache import TensorCache
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice, choose, parse_choice, typed_classes
from tests.support.builds import InThisProcess
from tests.support.command_line import RunCli
from tests.support.photos import save_jpeg, settle


def synsets(root: Path, count: int = 4) -> Path:
    for number, folder in enumerate(("n01", "n02", "n03", "n04")):
        for image in range(count):
            save_jpeg(root / folder / f"{folder}_{image}.JPEG", 20, 20, 100 * number + image)
    return root


def build(source: Path, out: Path, **options: object) -> bytes:
    build_cache(source, out, size=8, executor=InThisProcess(), choice=Choice(**options))  # type: ignore[arg-type]
    return out.read_bytes()


def test_chosen_classes_give_the_cache_of_a_folder_that_has_just_these(tmp_path: Path) -> None:
    source = synsets(tmp_path / "all")
    few = tmp_path / "few"
    few.mkdir()
    for folder in ("n02", "n04"):
        (few / folder).symlink_to(source / folder)

    chosen = build(source, tmp_path / "chosen.h5", classes=("n04", "n02"))

    assert chosen == build(few, tmp_path / "few.h5")
    assert scan_source(source, None, Choice(("n04", "n02"))).left_out == {"class not asked for": 2}


def test_a_class_of_several_folders_is_a_folder_that_holds_them(tmp_path: Path) -> None:
    source = synsets(tmp_path / "all")
    (source / "n02" / "dangling.jpg").symlink_to("nowhere")
    nested = tmp_path / "nested"
    (nested / "snake").mkdir(parents=True)
    for folder, place in (("n01", "snake/n01"), ("n02", "snake/n02"), ("n03", "n03")):
        (nested / place).symlink_to(source / folder)

    chosen = build(source, tmp_path / "chosen.h5", classes=("n03",), merged=(("snake", ("n02", "n01")),))

    assert chosen == build(nested, tmp_path / "nested.h5")
    cache = TensorCache(tmp_path / "chosen.h5")
    assert cache.class_ids == ["n03", "snake"] and cache.filenames[4] == "n01/n01_0.JPEG"


def test_images_chosen_of_a_class_hardly_change_when_it_grows() -> None:
    names = [b"%d.jpg" % number for number in range(2000)]
    chosen = {names[i] for i in choose(b"1", names, 500)}
    grown = sorted([*names, *(b"new%d.jpg" % number for number in range(20))])

    after = {grown[i] for i in choose(b"1", grown, 500)}

    assert len(chosen) == len(after) == 500
    assert all(name.startswith(b"new") for name in after - chosen)
    assert len(after - chosen) <= 20
    assert {names[i] for i in choose(b"1", names, 100)} < chosen
    assert {names[i] for i in choose(b"2", names, 500)} != chosen
    assert choose(b"1", names, 500).tolist() == sorted(choose(b"1", names, 500))
    assert choose(b"1", names[:3], 500).tolist() == [0, 1, 2]


def test_per_class_limits_the_images_and_counts_the_others(tmp_path: Path) -> None:
    source = synsets(tmp_path / "all")

    report = build_cache(source, tmp_path / "c.h5", size=8, executor=InThisProcess(), choice=Choice(per_class=3))

    assert report.counts == [3, 3, 3, 3]
    assert report.left_out == {"not among the 3 chosen of its class": 4} and report.seen == 16


def test_a_cache_of_some_classes_grows_by_the_others_alone(
    tmp_path: Path,
) -> None:
    source = synsets(tmp_path / "all")
    settle(source)
    some = Choice(("n02", "n04"), per_class=3)
    build(source, tmp_path / "c.h5", classes=("n02", "n04"), per_class=3)

    assert check_source(tmp_path / "c.h5", source, some) == ""
    assert check_source(tmp_path / "c.h5", source, Choice(("n02", "n04"))) == "class n02: 1 added; class n04: 1 added"
    report = build_cache(source, tmp_path / "c.h5", size=8, executor=InThisProcess())

    assert report.why.endswith("classes n01, n03 new")
    assert (report.decoded, report.copied) == (10, 6)


def test_a_class_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    source = synsets(tmp_path / "all", 1)

    with pytest.raises(SourceError, match="it has no class n99; there are n01, n02, n03, n04"):
        scan_source(source, None, Choice(("n99", "n01")))


@pytest.mark.parametrize(
    ("classes", "merged", "expected"),
    [
        ("a,b", [], Choice(("a", "b"))),
        ('"cat, tabby",dog', [], Choice(("cat, tabby", "dog"))),
        (r"cat\, tabby,dog", [], Choice(("cat, tabby", "dog"))),
        ("dog=small", [], Choice(("dog=small",))),
        (r'a\b,say "x",\"y', [], Choice((r"a\b", 'say "x"', '"y'))),
        (r"a\\", [], Choice(("a\\",))),
        (None, ["x=a,b"], Choice(merged=(("x", ("a", "b")),))),
        (None, ["x=a=b,c"], Choice(merged=(("x", ("a=b", "c")),))),
        (None, ['"dog=small"="cat, tabby",b'], Choice(merged=(("dog=small", ("cat, tabby", "b")),))),
        (None, [r"dog\=small=cat\, tabby,b"], Choice(merged=(("dog=small", ("cat, tabby", "b")),))),
    ],
)
def test_names_with_commas_and_equal_signs_can_be_typed(
    classes: str | None, merged: list[str], expected: Choice
) -> None:
    assert parse_choice(classes, merged, None) == expected


def test_what_an_error_says_to_type_can_be_typed() -> None:
    folders = [b"cat, tabby", b"dog=small", b"bus", b"it's", b'"quoted"']

    option, typed = shlex.split(typed_classes(folders))

    assert option == "--classes"
    assert parse_choice(typed, [], None).folders == frozenset(folders)


def test_a_missing_class_says_how_a_name_with_a_comma_is_typed(tmp_path: Path) -> None:
    save_jpeg(tmp_path / "x" / "cat, tabby" / "a.jpg", 20, 20, 1)
    save_jpeg(tmp_path / "x" / "dog" / "a.jpg", 20, 20, 2)

    with pytest.raises(SourceError, match=r"has no classes  tabby, cat; .*put a name with a comma in double quotes"):
        scan_source(tmp_path / "x", None, parse_choice("cat, tabby,dog", [], None))
    choice = parse_choice('"cat, tabby"', [], None)
    assert scan_source(tmp_path / "x", None, choice).class_ids == ["cat, tabby"]


@pytest.mark.parametrize(
    ("classes", "merged", "per_class", "why"),
    [
        ("a,b,a", [], None, "class a is asked for twice"),
        ("a", ["b=a,c"], None, "folder a is asked for twice"),
        ("a", ["a=b"], None, "class a is asked for twice"),
        ("a,", [], None, "without a name"),
        ("", [], None, "without a name"),
        ('"a,b', [], None, "a quote is not closed"),
        (None, ["snake"], None, "--class takes NAME=FOLDER"),
        (None, ["=a"], None, "without a name"),
        ("../a", [], None, "is no name of a folder"),
        ("a\0", [], None, r"the class 'a\\x00' is no name of a folder"),
        (None, [], 0, "from 1, not 0"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(
    classes: str | None, merged: list[str], per_class: int | None, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        parse_choice(classes, merged, per_class)


def test_the_command_line_chooses_classes_everywhere(tmp_path: Path, run_cli: RunCli) -> None:
    synsets(tmp_path / "all", 2)
    choice = ("--class", "snake=n01,n02", "--classes", "n04", "--per-class", "3")

    planned = run_cli("build-cache", "all", *choice, "--size", "8", "--dry-run")
    built = run_cli("build-cache", "all", *choice, "--size", "8", "-j", "1")
    same = run_cli("info", "data/cache/all.h5", "--check", "all", *choice)
    other = run_cli("info", "data/cache/all.h5", "--check", "all")
    wrong = run_cli("build-cache", "all", "--class", "snake")

    table = ["label  class  images", "    0  n04         2", "    1  snake       3"]
    assert planned.stdout.splitlines()[:3] == built.stdout.splitlines()[:3] == table, built.stderr
    assert same.code == 0 and same.stdout.endswith("source: matches\n")
    assert other.code == 65 and "classes n01, n02, n03 new" in other.stdout and "class snake gone" in other.stdout
    assert wrong.code == os.EX_USAGE or wrong.code == 2
    assert "--class takes NAME=FOLDER" in wrong.stderr
