"""The page of a report: everything on it, nothing outside it, and no name that could be anything but text."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import cli
from modelnet.pages.collect import gather
from modelnet.pages.mistakes import sure
from modelnet.pages.page import render
from modelnet.runs.folder import RunFolder
from pipeline.errors import OutputError, RunError
from tests.support.made_runs import ANSWERS, BAD_FILE, HOSTILE, Answer, make_run, many_classes
from tests.support.parsed_page import ParsedPage

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


class Page(ParsedPage):
    """The page of runs."""

    def __init__(self, runs: list[Path]) -> None:
        super().__init__(render(gather(runs)))


def test_a_run_whose_metrics_are_lost_has_a_page() -> None:
    whole, lost = (make_run(name, [0.7, 0.6], ANSWERS) for name in ("whole", "lost"))
    (lost / "metrics.csv").unlink()

    assert "No epoch" in ParsedPage(render(gather([lost]))).text
    assert "whole" in ParsedPage(render(gather([whole, lost]))).text


def test_no_prediction_is_0_or_100_percent_sure() -> None:
    assert [sure(p) for p in (0.001, 0.006, 0.994, 0.999)] == ["under 1% sure", "1% sure", "99% sure", "over 99% sure"]


def test_runs_of_folds_say_between_which_numbers_of_images_they_have() -> None:
    runs = []
    for fold, images, answers in ((0, 6, ANSWERS), (1, 1006, ANSWERS[:2])):
        classes = ((1, "paddle", images), (2, "snake", 2))
        runs.append(make_run(f"r{fold}", [0.7], answers, classes, split=Path("s.csv"), fold=fold))
        RunFolder(runs[-1]).write_config(RunFolder(runs[-1]).read_config() | {"split": {"sha256": "a" * 64}})
    about = "differ only in their folds, trained on 8 to 1,008 images of 2 classes, validated on 2 to 3."
    assert about in Page(runs).text and "trained on 8 images of 2 classes, validated on 3." in Page(runs[:1]).text


def test_names_of_anybody_are_text() -> None:
    run = make_run("<b>run", [0.7, 0.6], ANSWERS, ((1, HOSTILE, 6), (2, "snake{{ 7*7 }}", 2)))
    page = Page([run])
    assert {"script", "b" * 2} & {tag for tag, _ in page.elements} == set()
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert HOSTILE in page.text and "snake{{ 7*7 }}" in page.text and "<b>run" in page.text
    assert repr(BAD_FILE) in page.text  # by repr: an escape sequence and half of a surrogate pair cannot be shown
    assert b"\x1b" not in page.bytes


def test_a_page_refers_to_nothing_outside_itself() -> None:
    for page in (Page([make_run("a", [0.7], ANSWERS)]), Page([Path("runs/a"), make_run("b", [0.7], lr=0.1)])):
        for _, attributes in page.elements:
            assert {"src", "srcset", "action", "data"} & attributes.keys() == set()
            assert all(value.startswith("#") for name, value in attributes.items() if name.endswith("href"))
        urls = re.findall(rb"url\(([^)]*)\)|@import", page.bytes)
        assert all(url.startswith(b"#") for url in urls)
        (policy,) = [
            meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy.startswith("default-src 'none'")


def test_a_page_can_be_read_without_eyes() -> None:
    page = Page([make_run("a", [0.7, 0.6], ANSWERS), make_run("b", [0.7, 0.6], ANSWERS, seed=1)])
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) > 3
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))
    curves = [div["aria-label"] for div in page.all("div") if div.get("role") == "img"]
    assert curves == [
        "cross-entropy loss against the epoch: training (average over the epoch) from 0.7 to 0.6; "
        "validation from 0.7 to 0.6",
        "accuracy against the epoch: training (average over the epoch) from 0.5 to 0.5; validation from 0.5 to 0.5",
        "learning rate against the epoch: from 0.01 to 0.01",
        "training images/s against the epoch: from 100 to 100",
    ]


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_from_what_is_behind_it_by_day_and_by_night() -> None:
    page = render(gather([make_run("a", [0.7])])).decode()
    palettes = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", page)]
    assert len(palettes) >= 2
    for colors in palettes:
        for text, backs in (("text", ("back", "card", "bar")), ("soft", ("back", "card")), ("warn", ("warn-back",))):
            assert min(contrast(colors[text], colors[back]) for back in backs) >= 4.5, (text, colors)


def test_numbers_options_and_the_command_are_those_of_the_run() -> None:
    text = Page([make_run("a", [0.7, 0.6], ANSWERS, momentum=0.9, seed=7)]).text
    assert "Validation accuracy 33.3% 1 of 3 images; 95 % interval 6.1% to 79.2%" in text
    assert "--momentum 0.9 0.5" in text and "--seed 7 0" in text
    assert text.index("Options not at their defaults") < text.index("--momentum 0.9") < text.index("--opt sgd")
    assert "python cli.py train --cache c.h5" in text and "--momentum 0.9" in text.rpartition("python cli.py")[2]
    assert "python 3.x" in text and "git commit 0123abcd" in text
    assert "paddle 6 2 50.0% 50.0% 50.0%" in text  # training, validation images; precision, recall, F1
    assert "snake , taken for paddle over 99% sure c.jpg" in text


def test_a_run_that_no_command_repeats_shows_the_reason_instead() -> None:
    run, other = (make_run(name, [0.7, 0.6], ANSWERS, sched="cosine", lr=lr) for name, lr in (("a", 0.1), ("b", 0.2)))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"command": None}))
    alone, beside = Page([run]).text, Page([run, other]).text
    for text in (alone, beside):
        assert "No command repeats this run: epochs 2, and the learning rate depends on their number." in text
    assert "This command" not in alone and "python cli.py" not in alone
    assert beside.count("python cli.py train") == 1


def test_pictures_that_are_not_there_are_said_to_be_missing() -> None:
    page = Page([make_run("a", [0.7], ANSWERS)])
    assert "Pictures are missing: the run's cache is gone: c.h5: no such file, neither from here" in page.text
    assert "snake , taken for paddle" in page.text and page.all("img") == []


def test_a_group_is_shown_by_medians_and_how_many_starts_converged() -> None:
    runs = [make_run(f"s{i}", [0.7, loss], ANSWERS, seed=i) for i, loss in enumerate((0.1, 0.2, 0.6))]
    text = Page(runs).text
    assert "Converged 2 of 3 starts" in text  # half of the entropy of 6 and 2 images: 0.281
    assert "Training loss, median 0.2000 middle half 0.1500 to 0.4000; all 0.1000 to 0.6000" in text
    assert "--seed 0 to 2 0" in text
    assert "wrong in 3 of 3 runs, over 99% sure" in text
    assert text.count("python cli.py train") == 3


def test_groups_are_shown_side_by_side() -> None:
    text = Page([make_run("a", [0.7, 0.2], ANSWERS), make_run("b", [0.7, 0.6], ANSWERS, lr=0.5)]).text
    assert "validation accuracy, mean lowest to highest training loss, mean converged lr runs" in text
    assert "lr=0.008 50.0% – 0.2000 1 of 1 0.008 (0.001 × batch size 8) a lr=0.5 50.0% – 0.6000 0 of 1 0.5 b" in text
    assert "--lr 0.008 (0.001 × batch size 8), 0.5 0.001 × batch size" in text


def test_too_few_runs_have_no_interval() -> None:
    wrong: list[Answer] = [("1", str(i), "2", 0.9) for i in range(9)]
    right: list[Answer] = [("1", str(i), "1", 0.9) for i in range(9)]
    runs = [make_run(f"a{seed}", [1.0], wrong, lr=0.1, seed=seed) for seed in (0, 1)]
    runs += [make_run(f"b{seed}", [1.0], right, lr=0.2, seed=seed) for seed in (0, 1)]
    text = Page(runs).text
    assert "lr=0.2 against lr=0.1: too few runs: lr=0.1 has 2 and lr=0.2 has 2; " in text
    assert "lr=0.2 against lr=0.1 +100.0 too few runs –" in text


def test_a_comparison_is_in_words_and_numbers_with_the_images_that_flip() -> None:
    right: list[Answer] = [("1", f"{i:03}", "1", 0.9) for i in range(100)]
    wrong: list[Answer] = [("1", f"{i:03}", "2" if i < 40 else "1", 0.9) for i in range(100)]
    text = Page([make_run("a", [1.0], right), make_run("b", [1.0], wrong, lr=0.1)]).text
    assert "lr=0.1 against lr=0.008: the network of lr=0.008 is better by 40.0 points" in text
    assert "Only lr=0.008 is right about 40 images, only lr=0.1 about 0." in text
    assert "Differences on the 100 validation images" in text and "lr=0.1 against lr=0.008 -40.0 -" in text
    assert "40 images that one group alone gets right. " in text
    assert text.count("lr=0.008 is right, lr=0.1 is wrong") == 12
    nearly: list[Answer] = [("1", f"{i:03}", "2" if i < 1 else "1", 0.9) for i in range(100)]
    single = Page([Path("runs/a"), make_run("c", [1.0], nearly, lr=0.4)]).text
    assert "1 image that one group alone gets right. " in single
    assert "Only lr=0.008 is right about 1 image, only lr=0.4 about 0." in single
    unvalidated = [make_run(f"u{i}", [1.0], lr=0.3, seed=i) for i in range(2)]
    beside = Page([Path("runs/a"), Path("runs/b"), *unvalidated]).text
    assert (
        beside.count("lr=0.008 is right, lr=0.1 is wrong") == 12
        and "40 images that one group alone gets right. " in beside
    )
    many = [make_run(f"s{i}", [1.0], wrong if i == 0 else right, lr=0.2, seed=i) for i in range(3)]
    text = Page([Path("runs/b"), *many]).text
    assert "right in 0% of the runs of lr=0.1, 67% of lr=0.2" in text


def test_of_many_groups_the_tables_are_folded_away() -> None:
    def folded(count: int) -> int:
        return len(
            Page([make_run(f"g{count}-{i}", [0.7], ANSWERS, lr=0.01 * (i + 1)) for i in range(count)]).all("details")
        )

    of_nine = folded(9)
    assert of_nine == folded(3) + 2
    assert folded(14) == of_nine + 1  # the sentences of 13 comparisons


@pytest.mark.long
def test_a_thousand_classes_stay_readable_and_small() -> None:
    page = Page([many_classes()])
    assert len(page.bytes) < 400_000
    assert "class number 2 class number 3 1 100.0%" in page.text
    assert page.text.count("class number 999") <= 12
    assert "From 100 training images (class number 0) to 1,099 (class number 999), median 600: 11 to 1." in page.text


def test_a_run_without_an_epoch_or_validation_has_a_page_too() -> None:
    page = Page([make_run("none", [], epochs=3)])
    assert "0 of 3 epochs are done" in page.text and "No epoch is finished yet." in page.text
    page = Page([make_run("blind", [0.7, 0.6])])
    assert "No validation images" in page.text and "Confusion" not in page.text


def test_the_same_runs_give_the_same_bytes_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = render(gather([make_run("a", [0.7], ANSWERS)]))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs/a").rename(tmp_path / "elsewhere/a")
    assert render(gather([Path("elsewhere/a")])) == first


def test_the_command_writes_a_page_beside_the_runs_or_where_it_is_told() -> None:
    for seed, name in enumerate("abc"):
        make_run(name, [0.7], seed=seed)

    def typed(*words: str) -> str:
        ended = CliRunner().invoke(cli, ["report", *words])
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    assert typed("runs/a/") == "report: runs/a/report.html\n"
    assert typed("runs/a", "runs/b", "runs/c") == "report: runs/a-to-c.html\n"
    assert typed("runs/a", "--out", "new/x.html") == "report: new/x.html\n"
    assert (
        Path("runs/a/report.html").read_bytes() == Path("new/x.html").read_bytes() == render(gather([Path("runs/a")]))
    )
    Path("runs/a/group.csv").write_text("run\na\nb\n")
    assert typed("runs/a/group.csv") == "report: runs/a-to-b.html\n"
    wrong = CliRunner().invoke(cli, ["report", "runs"])
    assert isinstance(wrong.exception, RunError)


def test_a_pattern_of_runs_may_match_pages_and_pictures_beside_them() -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        for seed in (0, 1):
            make_run(f"{name}-{seed}", [0.7], ANSWERS, lr=lr, seed=seed)
    for name in ("a-0-to-a-1.html", "photos-modelnet-lr.png"):
        Path("runs", name).write_bytes(b"x")
    everything = [str(path) for path in Path("runs").iterdir()]
    for command in ("report", "compare"):
        ended = CliRunner().invoke(cli, [command, *everything])
        assert ended.exit_code == 0, ended.exception
    versus = CliRunner().invoke(cli, ["compare", "runs/a-0", "runs/a-0-to-a-1.html", "vs", "runs/b-0"])
    assert versus.exit_code == 0 and "runs/a-0" in versus.stdout
    alone = CliRunner().invoke(cli, ["report", "runs/a-0-to-a-1.html"])
    assert isinstance(alone.exception, RunError) and "no run there: runs/a-0-to-a-1.html" in str(alone.exception)


def test_a_page_that_cannot_be_written_says_why() -> None:
    make_run("a", [0.7])
    Path("file").write_bytes(b"")
    for out in ("file/page.html", "file/deeper/page.html"):
        ended = CliRunner().invoke(cli, ["report", "runs/a", "--out", out])
        assert isinstance(ended.exception, OutputError)
        assert str(ended.exception) == (
            f"the file cannot be written: {out}: a part of its path is a file, and no folder"
        )


def test_a_page_without_room_beside_its_run_leaves_the_run_whole() -> None:
    make_run("a", [0.7])
    Path("runs/a/report.html").mkdir()
    error = CliRunner().invoke(cli, ["report", "runs/a"]).exception
    assert isinstance(error, OutputError) and error.advice == "The runs are whole: make room, or give report --out"
