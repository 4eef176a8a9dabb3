"""Names of groups, and the story of runs (story.py) in three sentences."""

from pathlib import Path

import pytest

from modelnet.pages.collect import gather
from modelnet.pages.names import group_names
from modelnet.pages.page import render
from modelnet.pages.run import Run
from modelnet.pages.story import story_of
from tests.support.made_runs import ANSWERS, HOSTILE, make_run
from tests.support.parsed_page import ParsedPage

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def names(*groups: list[Path]) -> list[str]:
    return group_names([[Run.read(path) for path in group] for group in groups])


def test_groups_are_named_by_what_differs_between_them() -> None:
    slow, fast = make_run("slow", [0.7]), make_run("fast", [0.7], lr=0.1, opt="adam")
    assert names([slow]) == [""]
    assert names([slow], [fast]) == ["opt=sgd, lr=0.008", "opt=adam, lr=0.1"]
    assert names([slow], [make_run("lr", [0.7], lr=0.1)]) == ["lr=0.008", "lr=0.1"]
    assert names([slow], [make_run("flip", [0.7], augment="flip")]) == ["augment=none", "augment=flip"]


def test_groups_with_long_names_have_those_of_their_folders_or_letters() -> None:
    long = [make_run(name, [0.7], freeze=f"{name}.*{'x' * 50}") for name in ("one", "two")]
    assert names(*([run] for run in long)) == ["one", "two"]
    more = make_run("three", [0.7], freeze=f"two.*{'x' * 50}", seed=4)
    assert names([long[0]], [long[1], more]) == ["A", "B"]
    alike = [make_run(name, [0.7], seed=seed) for name, seed in (("a" * 60, 0), ("b", 1))]
    assert names(*([run] for run in alike)) == ["A", "B"]


def test_a_run_is_told_in_three_sentences() -> None:
    story = story_of(gather([make_run("a", [0.7, 0.6], ANSWERS)]))
    assert story == (
        "modelnet was trained from scratch on 8 images of 2 classes for 2 epochs. "
        "Its training loss went from 0.7 to 0.6; validation accuracy was highest in epoch 2 (50.0%). "
        "It is right about 1 of 3 validation images (95 % interval 6.1% to 79.2%), "
        "and most often takes paddle for snake (1 image)."
    )
    assert story_of(gather([make_run("none", [], epochs=3)])) == ""
    blind = story_of(gather([make_run("blind", [0.7])]))
    assert "for 1 epoch. Its training loss was 0.7. There are no scores of validation images" in blind


def test_seeds_and_groups_have_their_story() -> None:
    runs = [make_run(f"s{i}", [0.7, loss], ANSWERS, seed=i) for i, loss in enumerate((0.1, 0.2, 0.6))]
    story = story_of(gather(runs))
    assert "3 runs of modelnet on 8 images differ in their seeds alone. 2 of them converged" in story
    assert "50.0% on average" in story
    others = [make_run(f"o{i}", [0.7], ANSWERS, seed=i, lr=0.5) for i in range(3)]
    story = story_of(gather([*runs, *others]))
    assert "6 runs in 2 groups are compared." in story and "Beyond luck: not distinguishable with 3 images" in story
    assert "Mean validation accuracy is the same (50.0%)." in story
    third = [make_run(f"t{i}", [0.7], ANSWERS, seed=i, lr=0.7) for i in range(3)]
    assert "0 of 2 groups differ from " in story_of(gather([*runs, *others, *third]))
    stopped = make_run("stopped", [0.7], epochs=9, lr=0.7)
    story = story_of(gather([*runs, *others, stopped]))
    assert "epochs=1, lr=0.5 against epochs=2, lr=0.008: not distinguishable with 3 images" in story
    assert "Beyond luck" not in story


def test_folds_are_luck_of_their_own_and_all_their_images_count() -> None:
    runs = [make_run(f"f{i}-{seed}", [0.7, 0.6], ANSWERS, fold=i, seed=seed) for i in (0, 1) for seed in (0, 1)]
    story = story_of(gather(runs))
    assert story.startswith("4 runs of modelnet on 11 images differ in their seeds and folds alone. ")
    assert story.endswith("from 50.0% to 50.0%: that is the luck of the seeds and the images of each fold.")
    about = "4 runs of modelnet, which differ only in their seeds and folds, trained on 8 images"
    assert about in ParsedPage(render(gather(runs))).text
    others = [make_run(f"o{i}", [0.7], ANSWERS, fold=i, lr=0.5) for i in (0, 1)]
    said = ParsedPage(render(gather([*runs[::2], *others]))).text
    assert "4 runs in 2 groups; the runs of a group differ only in their folds." in said
    story = story_of(gather(runs[::2]))
    assert "2 runs of modelnet on 11 images differ in their folds alone. " in story
    assert story.endswith(": that is the luck of the images of each fold.")
    assert story_of(gather(runs[:2])).startswith("2 runs of modelnet on 8 images differ in their seeds alone. ")


def test_a_report_of_many_runs_is_small_and_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = tuple((f"n{i:04}", f"{HOSTILE} {i}", 10 + i) for i in range(150))
    answers = [(f"n{i:04}", f'"><img onerror=x>{i}.jpg', f"n{(i + i % 2) % 150:04}", 0.5) for i in range(150)]
    runs = [make_run(f"r{i}", [0.7, 0.6 - i / 1000], answers, classes, lr=i / 1000) for i in range(1, 41)]
    page = render(gather(runs))
    parsed = ParsedPage(page)
    parsed.check_safe()
    assert (
        "lr=0.04" in parsed.text and HOSTILE in parsed.text and "Of the 12 groups with the best results." in parsed.text
    )
    small, large = render(gather(runs[:20])), len(page)
    each = (large - len(small)) / 20  # bytes of another run
    assert large + 1000 * each < 5_000_000
