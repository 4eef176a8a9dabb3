"""The rooms of ARCHITECTURE.md: every import points down, nothing goes in a circle, no room outgrows itself."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Each room may import those that stand behind it, and what they may import.
BELOW = {
    "cli": "commands",
    "commands": "pages sweep",
    "pages": "compare eval",
    "compare": "runs",
    "sweep": "training compare",
    "training": "eval",
    "eval": "plots",
    "plots": "runs",
    "runs": "data",
    "data": "nets",
    "nets": "runtime",
    "runtime": "options progress",
    "options": "inspect load",
    "progress": "inspect load",
    "inspect": "shards",
    "shards": "build",
    "build": "source",
    "source": "format",
    "load": "format",
    "format": "decode",
    "decode": "recipe",
    "recipe": "text errors",
    "text": "system",
    "errors": "text system",
    "system": "",
}
ROOTS = {"pipeline": {"errors", "recipe", "text"}, "modelnet": {"progress"}}


def modules() -> dict[str, Path]:
    """Return every module of the packages and the command line, by its dotted name."""
    files = [REPOSITORY / "cli.py", *(f for package in ROOTS for f in (REPOSITORY / package).rglob("*.py"))]
    return {".".join(f.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


MODULES = modules()


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imports(file: Path) -> set[str]:
    """Return the modules of this project that a file imports, anywhere in it, also for type annotations."""
    found = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in MODULES else node.module for a in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys()


def reachable(name: str) -> set[str]:
    below = set(BELOW[name].split())
    return below.union(*map(reachable, below))


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ROOTS.keys()))
def test_imports_point_down(module: str) -> None:
    rooms = {room(name) for name in imports(MODULES[module]) if name not in ROOTS}
    allowed = {room(module), *reachable(room(module))}
    assert rooms <= allowed, f"{module} may not import {sorted(rooms - allowed)}"


def test_the_pipeline_knows_no_networks_and_no_command_line() -> None:
    found = {name: imports(file) for name, file in MODULES.items() if name.startswith("pipeline.")}
    assert {name: f for name, used in found.items() if (f := used & {"pipeline", "modelnet", "cli"})} == {}


def test_no_files_import_each_other_in_a_circle() -> None:
    TopologicalSorter({name: imports(file) - ROOTS.keys() - {name} for name, file in MODULES.items()}).prepare()


def test_no_module_stands_outside_the_rooms() -> None:
    for package, names in ROOTS.items():
        assert {file.stem for file in (REPOSITORY / package).glob("*.py")} == names | {"__init__"}


def test_no_room_and_no_file_outgrows_itself() -> None:
    folders = {file.parent for file in MODULES.values()} - {REPOSITORY}
    assert {str(f): n for f in folders if (n := len([*f.glob("*.py")])) > 16} == {}
    programs = [file for folder in ("data", "benchmarks", "docs") for file in (REPOSITORY / folder).rglob("*.py")]
    lines = {str(file): len(file.read_text("utf-8").splitlines()) for file in (*MODULES.values(), *programs)}
    assert REPOSITORY / "data" / "draw_example.py" in programs
    assert {name: count for name, count in lines.items() if count > 350} == {}
