"""The notebook runs, cell by cell, and the last value of each cell can be shown."""

import ast
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.command_line import REPOSITORY
from tests.support.console import check_out


def test_the_cells_of_the_notebook_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_out(tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    display = ModuleType("IPython.display")
    display.HTML = str  # type: ignore[attr-defined]
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    notebook = json.loads((REPOSITORY / "docs" / "notebook.ipynb").read_text("utf-8"))
    names: dict[str, Any] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            *statements, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(statements, []), "cell", "exec"), names)
            assert isinstance(last, ast.Expr)
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    report, cache, page, batch, result, _, loader = shown
    for value, part in (
        (report, "BuildReport"),
        (cache, "128 images"),
        (result, "5 epochs"),
        (loader, "8 batches of 16"),
    ):
        assert part in repr(value) and "<" in value._repr_html_()
    assert page.startswith("<iframe srcdoc=") and "Training images of notebook.h5" in batch
    assert "<svg" in result._repr_html_()
