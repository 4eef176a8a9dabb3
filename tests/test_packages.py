"""The public names of both packages, and how little they import."""

import subprocess
import sys
from pathlib import Path

import pytest

import modelnet
import pipeline
from tests.support.command_line import REPOSITORY

LOOK_UP = """
public = {f"{package.__name__}.{name}": getattr(package, name) for package in packages for name in package.__all__}
"""
LOAD_ALL = """
for package in packages:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name not in ("pipeline.system._batch", "pipeline.system._resize"):
            importlib.import_module(module.name)
"""
START = "import importlib, pkgutil, types, modelnet, pipeline; packages = modelnet, pipeline"
CHECK = "assert not [name for name, value in public.items() if isinstance(value, types.ModuleType)]"


def run_python(*program: str) -> str:
    command = [sys.executable, "-c", "\n".join(program)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_no_module_hides_a_public_name_before_or_after_all_are_loaded() -> None:
    before = "first = dict(public)"
    same = "assert all(public[name] is value for name, value in first.items())"
    run_python(START, LOOK_UP, CHECK, before, LOAD_ALL, LOOK_UP, CHECK, same)


@pytest.mark.long
def test_public_names_can_be_looked_up_after_all_modules_are_loaded() -> None:
    run_python(START, LOAD_ALL, LOOK_UP, CHECK)


def test_every_error_of_the_pipeline_is_public() -> None:
    errors = {name for name, value in vars(pipeline.errors).items() if isinstance(value, type)} - {"Path"}
    assert {name for name in errors if issubclass(getattr(pipeline.errors, name), pipeline.PipelineError)} <= {
        *pipeline.__all__
    }


@pytest.mark.parametrize("package", [pipeline, modelnet])
def test_completion_shows_the_public_names_alone(package: object) -> None:
    assert dir(package) == sorted(package.__all__)  # type: ignore[attr-defined]


HEAVY = ("torch", "torchvision", "PIL", "simplejpeg", "h5py", "matplotlib", "scipy")


@pytest.mark.parametrize(
    ("program", "allowed"),
    [
        ("import pipeline; pipeline.PipelineError, pipeline.Recipe", set()),
        ("import modelnet; modelnet.TrainOptions, modelnet.Progress", set()),
        ("from pipeline.format.reader import CacheReader; CacheReader({cache}).header", set()),
        ("from pipeline.format.sharded import open_reader; open_reader({cache}).images", set()),
        ("from modelnet.plots.figures import loss_curves; loss_curves([{row}], 'title')", {"matplotlib", "PIL"}),
        ("import cli; [cli.cli.get_command(None, name) for name in cli.COMMANDS]", set()),
    ],
)
def test_light_work_imports_no_heavy_library(program: str, allowed: set[str], cache_path: Path) -> None:
    row = "__import__('modelnet.progress').progress.EpochRow(1, 0.7, 0.5, None, None, 0.1, 10.0, 0.0, 1.0)"
    program = program.format(cache=f"__import__('pathlib').Path({str(cache_path)!r})", row=row)
    heavy = (*HEAVY, "numpy") if "import cli" in program else HEAVY
    loaded = run_python(f"import sys; {program}", f"print(*[name for name in {heavy} if name in sys.modules])")
    assert set(loaded.split()) <= allowed
