"""Copies of a person's own code in run folders, and which of them are executed."""

import hashlib
from pathlib import Path

import pytest

from modelnet.nets.own import OwnCode
from modelnet.runs import code as runs_code
from modelnet.runs.code import allow, digests_of, kept_code, named_code, trust
from modelnet.runs.folder import RunFolder
from pipeline.errors import CheckpointError, CodeError, RunError

NAMES = {"model": "elsewhere/net.py:Net", "augment_code": ""}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nobody has trusted anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(runs_code, "_allowed", set())
    return tmp_path


@pytest.fixture
def code() -> dict[str, OwnCode]:
    return {"model": OwnCode(Path("net.py"), "Net", b"def Net(c): pass")}


@pytest.fixture
def run(code: dict[str, OwnCode]) -> RunFolder:
    with RunFolder.create("run", "") as run:
        run.write_code({"model": code["model"].source})
        (run.checkpoints / "last.pt").touch()
        return run


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be another process of the same person."""
    monkeypatch.setattr(runs_code, "_allowed", set())


def test_code_is_read_where_it_was_named_and_its_digest_is_of_the_bytes() -> None:
    Path("net.py").write_bytes(b"x = 1")
    found = named_code({"model": "net.py:Net", "augment_code": ""})
    assert {option: (one.name, one.source) for option, one in found.items()} == {"model": ("Net", b"x = 1")}
    assert digests_of(found)["model"] == hashlib.sha256(b"x = 1").hexdigest()


def test_only_the_copy_of_a_file_that_was_named_here_is_used(
    run: RunFolder, code: dict[str, OwnCode], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CodeError, match=r"unknown code: run.*/code/model.py: nobody .* SHA-256 .* Read it, then give"):
        kept_code(run, NAMES, digests_of(code))

    assert trust(code) == ""
    forget(monkeypatch)

    kept = kept_code(run, NAMES, digests_of(code))
    assert kept == {"model": OwnCode(run.path / "code" / "model.py", "Net", code["model"].source)}


def test_a_digest_is_noted_once(code: dict[str, OwnCode], place: Path) -> None:
    trust(code)
    trust(code)
    assert (place / "state/modelnet/trusted").read_text() == f"{code['model'].sha256}  net.py\n"


def test_a_copy_that_was_changed_is_refused_even_where_all_is_allowed(run: RunFolder, code: dict[str, OwnCode]) -> None:
    allow(digests_of(code))
    run.code_path("model").write_bytes(b"import os")
    with pytest.raises(CheckpointError, match="the code of the run was changed"):
        kept_code(run, NAMES, digests_of(code))


def test_a_person_may_allow_code_for_this_time(
    run: RunFolder, code: dict[str, OwnCode], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(digests_of(code))
    assert kept_code(run, NAMES, digests_of(code))
    forget(monkeypatch)
    with pytest.raises(CodeError):
        kept_code(run, NAMES, digests_of(code))


def test_a_copy_that_is_gone_is_named(run: RunFolder, code: dict[str, OwnCode]) -> None:
    run.code_path("model").unlink()
    with pytest.raises(RunError, match=r"the code cannot be read: .*model.py"):
        kept_code(run, NAMES, digests_of(code))


def test_a_home_that_cannot_be_written_is_a_warning(run: RunFolder, code: dict[str, OwnCode], place: Path) -> None:
    (place / "state").write_text("a file")
    assert "later commands need --trust-code" in trust(code)
    assert kept_code(run, NAMES, digests_of(code))  # in this process


@pytest.mark.parametrize("state", ["", "relative/place"])
def test_without_a_state_folder_the_usual_one_is_taken(
    state: str, code: dict[str, OwnCode], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", str(place / "home"))
    trust(code)
    assert (place / "home/.local/state/modelnet/trusted").is_file()
