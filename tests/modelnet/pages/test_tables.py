"""The tables of a page, beside what test_page.py sees of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from modelnet.pages.run import Run
from modelnet.pages.tables import environment_table
from pipeline.recipe import Recipe
from tests.support.made_runs import make_run


def test_height_and_width_of_the_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.read(make_run("a", [0.7]))
    cache = run.config["cache"] | {"recipe": Recipe((192, 256), dtype="uint8").to_dict()}

    table = environment_table([replace(run, config=run.config | {"cache": cache})])

    (images,) = (row[1] for row in table.rows if row[0] == "training images")
    assert ", 192 × 256, uint8, fingerprint " in str(images)
