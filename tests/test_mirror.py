"""Tests mirror the rooms, as CONTRIBUTING.md says."""

import ast
import re
from pathlib import Path

from tests.support.command_line import REPOSITORY

TREES = {file: ast.parse(file.read_bytes()) for file in (REPOSITORY / "tests").rglob("*.py")}
TESTS = [file for file in TREES if file.name.startswith("test_")]


def is_named(module: Path, document: str) -> bool:
    return re.search(rf"(?<![\w.]){module.stem}(\.py)?(?!\w)", document) is not None


def test_every_module_has_its_file_of_tests_or_is_named_in_another() -> None:
    documents = [ast.get_docstring(TREES[file]) or "" for file in TESTS]
    for package in ("pipeline", "modelnet"):
        for module in (REPOSITORY / package).rglob("[!_]*.py"):
            folder = module.parent.relative_to(REPOSITORY)
            folder = Path("commands") if folder == Path("modelnet/commands") else folder
            own = REPOSITORY / "tests" / folder / f"test_{module.stem}.py"
            assert own in TESTS or any(is_named(module, text) for text in documents), module


def test_no_test_imports_a_test() -> None:
    for file, tree in TREES.items():
        names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [name for name in names if name.startswith("tests.") and ".test_" in name], file


def test_names_of_tests_have_seventy_characters_at_most() -> None:
    for file in TESTS:
        names = [node.name for node in ast.walk(TREES[file]) if isinstance(node, ast.FunctionDef)]
        assert not [name for name in names if name.startswith("test_") and len(name) > 70], file
