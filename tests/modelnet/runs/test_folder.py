"""The run folder: nothing half written, nothing lost in silence; also `publish`, `reader`, `tables` and `schema`."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet.options import TrainOptions
from modelnet.progress import EpochRow
from modelnet.runs.folder import RunFolder
from modelnet.runs.tables import Prediction, epochs_text, predictions_text
from pipeline.errors import AccessDenied, OutputError, RunBusy, RunError, StorageError
from pipeline.system import files
from tests.support.listener import Listener
from tests.support.made_runs import config_of

ROW = EpochRow(1, 0.1 + 0.2, 0.5, None, None, 0.008, 1234.5, 0.01, 1.5)
SAID = Prediction("1", "a.jpg", "00", "2", 0, 0.75, 0.25, 1.5)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    with RunFolder.create("r", "") as folder:
        return folder


def content(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "weights": {"a": torch.full((100,), float(epoch))}}


def test_metrics_are_read_back_exactly(run: RunFolder) -> None:
    rows = [ROW, EpochRow(2, 1 / 3, 0.25, 2 / 3, 0.75, 1e-5, 10.0, 0.0, 9.9)]
    for row in rows:
        run.append_metrics(row)
    assert run.read_metrics() == rows
    assert run.keep_metrics(1) == [ROW]
    assert run.read_metrics() == [ROW]


def test_a_torn_last_line_is_not_read(run: RunFolder) -> None:
    run.append_metrics(ROW)
    whole = (run.path / "metrics.csv").read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        (run.path / "metrics.csv").write_bytes(whole[:end])
        assert run.read_metrics() == []


def test_checkpoints_are_published_whole_with_the_one_before(run: RunFolder) -> None:
    for epoch in (1, 2, 3):
        run.save_checkpoint(content(epoch), content(epoch) if epoch == 1 else None)
    found = {name: run.load_checkpoint(f"{name}.pt")["epoch"] for name in ("last", "previous", "best")}
    assert found == {"last": 3, "previous": 2, "best": 1}


@pytest.mark.parametrize("operation", ["create", "write_all", "sync", "rename"])
def test_killed_anywhere_while_saving_the_last_checkpoint_is_whole(run: RunFolder, operation: str) -> None:
    run.save_checkpoint(content(1), content(1))
    run.save_checkpoint(content(2), content(2))
    for call in (1, 2, 3):  # of best.pt, previous.pt, last.pt
        child = os.fork()
        if child == 0:
            _die_at(operation, call)
            run.save_checkpoint(content(3), content(3))
            os._exit(1)
        os.waitpid(child, 0)
        assert run.load_checkpoint()["epoch"] in (2, 3)
        assert run.load_checkpoint("best.pt")["epoch"] in (2, 3)
        assert run.load_checkpoint("previous.pt")["epoch"] in (1, 2, 3)
    run.save_checkpoint(content(4), content(4))  # what was left over is in nobody's way
    assert not list(run.path.rglob("*.new"))


def _die_at(operation: str, call: int) -> None:
    real, left = getattr(files, operation), [call]

    def die(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            if operation == "write_all":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
            os._exit(0)
        return real(*arguments)

    setattr(files, operation, die)


@pytest.mark.parametrize("operation", ["create", "write_all", "sync", "rename"])
def test_a_full_disk_is_a_loud_error_and_leaves_the_last_checkpoint(
    run: RunFolder, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save_checkpoint(content(1))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, operation, full)
        writes: list[Callable[[], None]] = [
            lambda: run.save_checkpoint(content(2)),
            lambda: run.write_config({}),
            lambda: run.write_predictions([SAID]),
        ]
        for write in writes:
            with pytest.raises(StorageError, match="No space left on device") as caught:
                write()
            assert caught.value.exit_code == 74
            assert caught.value.path is not None and caught.value.path.is_relative_to(run.path)
    assert run.load_checkpoint()["epoch"] == 1
    assert not list(run.path.rglob("*.new"))


def test_a_new_run_of_which_nothing_was_saved_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="Nothing was saved; train again"), RunFolder.create("r", "") as run:
        run.write_config({})
        monkeypatch.setattr(files, "write_all", full)
        run.save_checkpoint(content(1))
    assert not Path("runs/r").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt), RunFolder.create("r", "") as run:
        run.save_checkpoint(content(1))
        raise KeyboardInterrupt
    assert run.load_checkpoint()["epoch"] == 1


BEGUN = TrainOptions(Path("c.h5"), labels=Path("t.csv"), model="net.py:Net")


@pytest.mark.parametrize("operation", ["create", "write_all", "sync", "rename"])
def test_what_a_kill_left_of_a_folder_that_was_made_is_removed(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for call in range(1, 6):
        child = os.fork()
        if child == 0:
            run = RunFolder.create("r", "")
            _die_at(operation, call)
            run.write_code({"model": b"class Net: ..."})
            run.write_config(config_of(BEGUN))
            run.write_labels(b"file,label\n", BEGUN)
            run.write_split(b"class,file\n")
            run.save_checkpoint(content(0))
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert RunFolder.reopen("r") is None and not Path("runs/r").exists()


TEXTS = {"metrics.csv": epochs_text([ROW]), "predictions.csv": predictions_text([])}


@pytest.mark.parametrize("name", [*TEXTS, "scores.json", "checkpoints/best.pt", "checkpoints/previous.pt", "notes.txt"])
def test_a_run_that_lost_its_last_checkpoint_is_refused_and_kept(run: RunFolder, name: str) -> None:
    run.write_config(config_of(BEGUN))
    (run.path / name).write_text(TEXTS.get(name, "x"))
    there = {path for path in run.path.rglob("*")}

    with pytest.raises(RunError, match=rf"the run cannot go on: runs/r: it has {name}, and no checkpoints/last\.pt"):
        RunFolder.reopen("r")
    run.remove()

    assert {path for path in run.path.rglob("*")} == there
    RunFolder.open_for_writing(run.path).close()  # it is not kept locked


def test_a_run_without_a_config_is_refused_where_steps_are_saved(run: RunFolder) -> None:
    run.save_checkpoint({"epoch": 0, "step": 2})

    with pytest.raises(RunError, match=r"runs/r: it has checkpoints/last\.pt, and no config\.json"):
        RunFolder.reopen("r")
    assert run.saved_step() == (0, 2)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_without_hard_links_the_previous_checkpoint_is_a_copy(
    run: RunFolder, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    for epoch in (1, 2, 3):
        run.save_checkpoint(content(epoch))
    assert run.load_checkpoint("previous.pt")["epoch"] == 2 and run.load_checkpoint()["epoch"] == 3
    assert not list(run.path.rglob("*.new"))


def test_a_picture_that_cannot_be_drawn_is_a_warning(run: RunFolder) -> None:
    listener = Listener()
    run.draw_picture("loss.png", lambda: b"x" * (1 // 0), listener)
    assert listener.warnings == ["loss.png cannot be drawn: ZeroDivisionError: integer division or modulo by zero"]
    assert not (run.path / "loss.png").exists()


def test_a_folder_that_was_moved_meanwhile_is_not_called_whole(run: RunFolder) -> None:
    run.path.rename(run.path.with_name("elsewhere"))
    writes: list[Callable[[], None]] = [lambda: run.append_metrics(ROW), lambda: run.write_config({})]
    for write in writes:
        with pytest.raises(
            StorageError, match=r"No such file or directory\. The folder is no longer there; if it was renamed"
        ):
            write()


def test_a_full_disk_is_a_loud_error_for_metrics_too(run: RunFolder) -> None:
    (run.path / "metrics.csv").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"metrics.csv: No space left"):
        run.append_metrics(ROW)


def test_a_folder_that_turned_read_only_is_a_loud_error(run: RunFolder, unprivileged: None) -> None:
    run.append_metrics(ROW)
    run.checkpoints.chmod(0o500)
    with pytest.raises(AccessDenied, match="the run cannot be written") as caught:
        run.save_checkpoint(content(1))
    assert caught.value.exit_code == 77
    run.checkpoints.chmod(0o700)


def test_runs_cannot_be_made_where_a_file_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("not a folder")
    with pytest.raises(OutputError):
        RunFolder.create(None, "c-modelnet")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"options": 3}', "\udcff"])
def test_a_config_that_is_none_is_named(run: RunFolder, text: str) -> None:
    (run.path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=r"config.json"):
        run.read_config()


def test_names_that_are_not_utf8_survive_in_predictions(run: RunFolder) -> None:
    said = [SAID._replace(file=os.fsdecode(b"caf\xe9.jpg")), SAID._replace(file="a\nb,c.jpg")]
    run.write_predictions(said)
    assert (run.path / "predictions.csv").read_bytes().splitlines(keepends=True) == [
        b"class_id,file,sha256,predicted,correct,p_predicted,p_true,loss\n",
        b"1,caf\xe9.jpg,00,2,0,0.75,0.25,1.5\n",
        b'1,"a\n',
        b'b,c.jpg",00,2,0,0.75,0.25,1.5\n',
    ]
    assert run.read_predictions() == said


@pytest.mark.parametrize("line", [b"2,,0.5,,,0.1,9,0,1\n", b"2,x,y,,,,,,\n", b"\xff\xfe\n", b"2,0.5\n"])
def test_a_wrong_table_of_epochs_is_named_and_not_read_as_empty(run: RunFolder, line: bytes) -> None:
    path = run.path / "metrics.csv"
    path.write_bytes(b"epoch,train_loss,train_acc,val_loss,val_acc,lr,images_per_s,data_wait_s,epoch_s\n" + line)
    with pytest.raises(RunError, match=r"metrics\.csv: it is not a table of epochs"):
        run.read_metrics()

    path.write_bytes(b"a,b,c\n1,2,3\n")
    with pytest.raises(RunError, match=r"metrics\.csv"):
        run.read_metrics()


def test_a_process_that_a_run_has_forked_does_not_keep_its_folder_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a loader worker that has not yet ended when the run was killed."""
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create("held", "")
    run.write_config(config_of(TrainOptions(Path("c.h5"))))
    asleep, wake = os.pipe()
    begun, begin = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(wake)
        os.write(begin, b".")
        os.read(asleep, 1)
        os._exit(0)
    assert os.read(begun, 1)
    with pytest.raises(RunBusy):
        RunFolder.open_for_writing(run.path)
    run.close()
    RunFolder.open_for_writing(run.path).close()
    os.close(wake)
    assert os.waitpid(pid, 0)[1] == 0


def test_labels_and_folds_of_predictions_are_columns_of_their_own(run: RunFolder) -> None:
    run.write_predictions([SAID._replace(label="cat")])
    assert (run.path / "predictions.csv").read_text().splitlines()[0].endswith(",loss,label")
    assert run.read_predictions() == [SAID._replace(label="cat")]
    lines = run.write_out_of_fold([SAID, SAID], [0, 2]).read_text().splitlines()
    assert lines[0].endswith(",p_true,loss,fold") and [line[-2:] for line in lines[1:]] == [",0", ",2"]
