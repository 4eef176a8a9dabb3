"""The wheel, installed into an environment of its own: nothing that the checkout has is missing in it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY

SOURCES = ("cli.py", "pyproject.toml", "README.md", "LICENSE", "pipeline", "modelnet")


def run(folder: Path, *command: "str | Path") -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ended = subprocess.run(command, cwd=folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that has the wheel, and the libraries of this one."""
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
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(folder, *pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, sources)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    commands = folder / "venv" / "bin"
    run(folder, *pip, "--python", commands / "python", "install", "--no-deps", "--no-index", wheel)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files do not count
    return commands


def test_the_wheel_builds_a_cache_trains_and_reports_elsewhere(
    installed: Path, shared_photos: Path, tmp_path: Path
) -> None:
    modelnet = installed / "modelnet"
    where = "import pipeline, modelnet, cli; print(pipeline.__file__, modelnet.__file__, cli.__file__, sep='\\n')"
    files = run(tmp_path, installed / "python", "-c", where).split()
    assert all(Path(file).is_relative_to(installed.parent) for file in files)

    run(tmp_path, modelnet, "build-cache", shared_photos, "--size", "64", "-j", "1")
    assert "8 images" in run(tmp_path, modelnet, "info", "data/cache/photos.h5")
    run(tmp_path, modelnet, "train", "--epochs", "1", "--threads", "1")
    assert (tmp_path / "runs" / "photos-modelnet-001" / "report.html").is_file()


def test_the_wheel_has_every_file_of_the_packages(installed: Path) -> None:
    (packages,) = installed.parent.glob("lib/python*/site-packages")
    for package in ("pipeline", "modelnet"):
        files = {path.relative_to(REPOSITORY) for path in (REPOSITORY / package).rglob("*") if path.is_file()}
        wanted = {path for path in files if path.suffix not in (".c", ".so", ".pyc")}
        assert {path for path in wanted if not (packages / path).is_file()} == set()
