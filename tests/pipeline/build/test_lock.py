"""One build of a cache at a time, and a lock that ends with its holder."""

import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.build.build import build_cache
from pipeline.build.lock import build_lock
from pipeline.errors import AccessDenied, CacheBusy, OutputError
from tests.support.builds import InThisProcess
from tests.support.command_line import REPOSITORY
from tests.support.photos import SIZE


def test_a_second_builder_is_told_who_builds_where_and_since_when(tmp_path: Path) -> None:
    cache = tmp_path / "c.h5"

    with build_lock(cache):
        holder = json.loads((tmp_path / "c.h5.lock").read_text())
        assert holder["pid"] == os.getpid() and holder["host"] == os.uname().nodename
        with pytest.raises(CacheBusy) as busy, build_lock(cache):
            pass

    assert busy.value.exit_code == 75
    expected = f"another build (pid {os.getpid()} on {holder['host']}, since {holder['since']}) is running"
    assert busy.value.reason == expected
    with build_lock(cache):
        pass


def test_the_lock_file_goes_where_no_cache_came_of_the_build(tmp_path: Path) -> None:
    with build_lock(tmp_path / "none.h5"):
        pass
    with build_lock(tmp_path / "c.h5"):
        (tmp_path / "c.h5").touch()

    assert not (tmp_path / "none.h5.lock").exists()
    assert (tmp_path / "c.h5.lock").read_bytes() == b""


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"pid": "x", "host": 1, "since": 2}', b"\xff" * 5000])
def test_a_holder_that_has_not_said_who_it_is_is_a_builder_all_the_same(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.h5.lock").write_bytes(text)
    with (tmp_path / "c.h5.lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CacheBusy, match="another build is running"), build_lock(tmp_path / "c.h5"):
            pass


def test_a_builder_that_waits_comes_in_when_the_other_is_done(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with build_lock(tmp_path / "c.h5", wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with build_lock(tmp_path / "c.h5"):
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)

    assert order == ["first", "second"]


def test_a_builder_that_waited_finds_the_cache_fresh(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    with build_lock(out):
        program = "import sys; from pipeline import build_cache; "
        program += f"print(build_cache(sys.argv[1], sys.argv[2], size={SIZE}, wait=True).up_to_date)"
        second = subprocess.Popen(
            [sys.executable, "-c", program, photos, out], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        time.sleep(1)
        build_cache(photos, tmp_path / "other.h5", size=SIZE, executor=InThisProcess())
        assert second.poll() is None
        (tmp_path / "other.h5").rename(out)

    assert second.communicate(timeout=60)[0] == "True\n"


def test_a_process_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    with build_lock(tmp_path / "c.h5"):
        child.start()

    with build_lock(tmp_path / "c.h5"):
        pass
    child.kill()
    child.join()


def test_a_file_system_without_locks_is_told_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)

    with (
        pytest.raises(OutputError, match=r"no locks\. Build on a local disk") as refused,
        build_lock(tmp_path / "c.h5"),
    ):
        pass
    assert refused.value.exit_code == 73


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, unprivileged: None) -> None:
    tmp_path.chmod(0o555)

    with pytest.raises(AccessDenied), build_lock(tmp_path / "c.h5"):
        pass
    tmp_path.chmod(0o755)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("somebody's")
    (tmp_path / "c.h5.lock").symlink_to("precious")

    with pytest.raises(OutputError), build_lock(tmp_path / "c.h5"):
        pass
    assert (tmp_path / "precious").read_text() == "somebody's"
