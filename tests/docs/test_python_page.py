"""The Python that the pages show runs, and the page of the API has every public name."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

import modelnet
import pipeline
from cli import cli
from modelnet import Trained, TrainOptions, predict, train
from pipeline import build_cache
from pipeline.recipe import RecipeOptions
from tests.support.command_line import REPOSITORY
from tests.support.console import check_out

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone, as the current folder."""
    check_out(tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


def blocks_of(page: str) -> list[str]:
    return PYTHON.findall((REPOSITORY / page).read_text("utf-8"))


def python_of(page: str) -> str:
    return "\n".join(blocks_of(page))


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (REPOSITORY / "docs" / "python.md").read_text("utf-8")
    shown = re.findall(r"^\.\. auto(?:class|function|exception):: (\w+)$", page, re.MULTILINE)

    assert sorted(shown) == sorted([*pipeline.__all__, *modelnet.__all__])


def test_pages_name_only_what_the_packages_export() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    deeper = re.compile(r"(?:from|import) (?:pipeline|modelnet)\.|`(?:pipeline|modelnet)\.[a-z]+\.")

    assert [page.name for page in pages if deeper.search(page.read_text("utf-8"))] == []


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"fit": "crop"}, {"size": (60, 72), "fit": "pad", "interpolation": "box"}])
def test_the_program_for_an_onnx_file_answers_as_predict_does(
    options: RecipeOptions, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_cache("data/example", "example.h5", **RecipeOptions(size=64) | options)
    run = train(TrainOptions(Path("example.h5"), epochs=1, name="run")).run
    assert CliRunner().invoke(cli, ["export", str(run)]).exit_code == 0
    Image.open("data/example/1/n03874293_775.JPEG").resize((301, 200)).save(run / "photo.jpg")
    (answer,) = predict(Trained.load(run), [run / "photo.jpg"], top_k=1)
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(sys.modules, "infer", raising=False)

    program: dict[str, Any] = {}
    code = next(block for block in blocks_of("docs/export.md") if "onnxruntime" in block)
    exec(compile(code, "docs/export.md", "exec"), program)

    assert program["probabilities"] == pytest.approx(answer.probabilities, abs=1e-5)
    assert capsys.readouterr().out == f"{1 + answer.classes[0][0]}\n"


@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/seeing.md"])
def test_the_python_of_a_page_runs(page: str, checkout: Path) -> None:
    code = python_of(page)
    assert code

    exec(compile(code, page, "exec"), {"__name__": page})
