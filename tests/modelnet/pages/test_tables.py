"""The tables of a page, beside what test_page.py sees of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from modelnet.options import OPTIONS
from modelnet.pages.collect import Group
from modelnet.pages.run import Run
from modelnet.pages.tables import environment_table, option_tables
from pipeline.recipe import Recipe
from tests.support.made_runs import make_run


def test_height_and_width_of_the_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.read(make_run("a", [0.7]))
    cache = run.config["cache"] | {"recipe": Recipe((192, 256), dtype="uint8").to_dict()}

    table = environment_table([replace(run, config=run.config | {"cache": cache})])

    (images,) = (row[1] for row in table.rows if row[0] == "training images")
    assert ", 192 × 256, uint8, fingerprint " in str(images)


def test_default_learning_rates_are_those_that_were_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [Run.read(make_run(f"b{size}", [0.7], batch_size=size)) for size in (8, 16)]
    runs.append(Run.read(make_run("adamw", [0.7], opt="adamw")))
    by_default = (
        "0.008 (0.001 × batch size 8), 0.016 (0.001 × batch size 16), 0.001 (adamw takes it for any batch size)"
    )
    for more, shown in (
        ([], ["--lr", by_default]),
        ([Run.read(make_run("typed", [0.7], lr=0.3))], ["--lr", f"{by_default}, 0.3", OPTIONS["lr"].default_text]),
    ):
        tables = option_tables([Group("", [run]) for run in [*runs, *more]])
        assert [row for table in tables for row in table.rows if row[0] == "--lr"] == [shown]


def test_values_are_shown_as_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [
        Run.read(make_run("square", [0.7], crop_size=192, model="net.py:Net", model_arg=("width=8", "depth=2"))),
        Run.read(make_run("wide", [0.7], crop_size=(192, 256), shuffle=False)),
    ]
    changed, _ = option_tables([Group("", runs)])
    values = {str(row[0]): row[1:] for row in changed.rows}
    assert values["--crop-size"] == ["192, 192x256", "that of the images"]
    assert values["--model-arg"] == ["width=8 depth=2, –", "–"]
    assert values["--shuffle"] == ["yes, no", "yes"]


def test_of_many_values_of_an_option_the_first_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [Run.read(make_run(f"r{i}", [0.7], lr=(i + 1) / 8)) for i in range(12)]
    changed, _ = option_tables([Group("", [run]) for run in runs])
    (shown,) = (row[1] for row in changed.rows if row[0] == "--lr")
    assert shown == "0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0 and 4 more"
