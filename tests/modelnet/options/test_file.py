"""Options of training from a file of TOML or JSON (modelnet/options/file.py)."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelnet.data.relabel import LabelTable
from modelnet.nets.own import read_code
from modelnet.options import OPTIONS, TrainOptions
from modelnet.options.code import CodeName
from modelnet.options.file import read_options
from pipeline.errors import AccessDenied, OptionsError, RunError, SourceError, StorageError

OTHER = TrainOptions(Path("c.h5"), batch_size=4, lr=0.5, augment="flip", val=Path("v.h5"), model_arg=("width=3",))


@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (errno.EIO, StorageError),
        (errno.EACCES, AccessDenied),
        *((number, (SourceError, RunError)) for number in (errno.ENOENT, errno.EISDIR, errno.ENXIO)),
    ],
)
@pytest.mark.parametrize(
    "read",
    [
        read_options,
        lambda path: read_code(CodeName(path, "Net")),
        lambda path: LabelTable.of(TrainOptions(Path("c.h5"), labels=path)),
    ],
    ids=["options", "code", "labels"],
)
def test_a_failing_disk_is_told_from_a_missing_file(
    read: Callable[[Path], object], number: int, raised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)

    with pytest.raises(raised, match=r"cannot be read: f\.toml: "):
        read(Path("f.toml"))


@pytest.mark.parametrize("name", ["o.toml", "o.JSON"])
def test_options_have_the_values_of_the_file(tmp_path: Path, name: str) -> None:
    texts = {
        "o.toml": 'cache = "c.h5"\nbatch-size = 4\nlr = 1\namp = true\nmodel_arg = ["width=3"]',
        "o.JSON": '{"cache": "c.h5", "batch_size": 4, "lr": 1, "amp": true, "model_arg": ["width=3"]}',
    }
    (tmp_path / name).write_text(texts[name])

    options = TrainOptions(**read_options(tmp_path / name))

    assert options == TrainOptions(Path("c.h5"), batch_size=4, lr=1.0, amp=True, model_arg=("width=3",))


def test_all_options_of_the_config_of_a_run_count_but_its_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"options": OTHER.to_dict() | {"name": "r"}, "cache": {}}))

    assert read_options(tmp_path / "config.json") == {k: v for k, v in OTHER.to_dict().items() if k != "name"}


def test_what_a_rule_chose_for_a_run_is_chosen_anew(tmp_path: Path) -> None:
    chosen = {"threads": 1, "memory_format": "contiguous"}
    (tmp_path / "config.json").write_text(json.dumps({"options": chosen, "cache": {}}))
    (tmp_path / "o.json").write_text(json.dumps({"options": chosen}))

    assert read_options(tmp_path / "config.json", ["lr"]) == chosen
    assert read_options(tmp_path / "config.json", ["batch_size"]) == {"memory_format": "contiguous"}
    assert read_options(tmp_path / "config.json", ["model"]) == {}
    assert read_options(tmp_path / "o.json", ["model"]) == chosen


def test_the_config_of_a_run_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"options": OTHER.to_dict(), "cache": {}, "code": {"model": "0" * 64}})
    )

    with pytest.raises(OptionsError, match=r"code of its own, which lies beside it. Take .*: --from RUN"):
        read_options(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("momentun = 0.9", "o.toml: momentun is no option of training; did you mean momentum?"),
        ("zzz = 1", "o.toml: zzz is no option of training$"),
        ("epochs = 0", "o.toml: epochs is a whole number from 1 "),
        ('epochs = "20"', "o.toml: epochs is a whole number from 1 .*, not '20'"),
        ("threads = 4097", "o.toml: threads is a whole number from 1 to 4096, not 4097"),
        ("lr = nan", "o.toml: lr is greater than 0, not nan"),
        ("amp = 1", "o.toml: amp is True or False, not 1"),
        ("opt = 'sdg'", "o.toml: opt is one of sgd, .*, not 'sdg'"),
        ("augment = 'flop'", "o.toml: augment is some of .*, not 'flop'"),
        ("device = 'gpu'", "o.toml: device is auto, cpu, cuda or cuda:N, not 'gpu'"),
        ("val = 2026-01-01", "o.toml: val is a path, not datetime.date"),
        ("[data]\nval = 'v.h5'", "o.toml: data is no option of training"),
        ("lr = \nseed = 1", "o.toml: it is no TOML: .*line 1"),
        ("lr = '\udc80'", "o.toml: it is no TOML: .*utf-8"),
        ("batch-size = 4\nbatch_size = 8", "o.toml: batch_size is given twice"),
        ("seeds = '0-7'", "o.toml: seeds stands in no file of options. Type --seeds$"),
        ("lr = 0.1\nepochs = 3\n[options]\nlr = 0.5", "o.toml: nothing reads lr, epochs beside options. Put all"),
        ("cache = ''", "o.toml: cache is a path, and '' is none"),
        ("weights = ''", "o.toml: weights is a path, and '' is none"),
        ("no-split = true", "o.toml: no-split stands in no file of options. Type --no-split$"),
        (r'val = "a\u0000b"', r"o.toml: val is a path, and 'a\\x00b' is a name that no file can have"),
    ],
)
def test_what_no_option_can_be_is_refused_by_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "o.toml").write_text(text, errors="surrogateescape")

    with pytest.raises(OptionsError, match=message):
        read_options(tmp_path / "o.toml")


def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text(r'{"cache": "\ud800.h5"}')

    with pytest.raises(OptionsError, match=r"o.json: cache is a path, and '\\ud800.h5' is a name that no file"):
        read_options(tmp_path / "o.json")


@pytest.mark.parametrize(("name", "text"), [("o.toml", "lr = 0.5"), ("o.json", '{"lr": 0.5}')])
def test_a_byte_order_mark_is_not_part_of_the_options(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8-sig")

    assert read_options(tmp_path / name) == {"lr": 0.5}


def test_a_pipe_or_a_folder_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()

    for name, reason in {"pipe.toml": "not a regular file", "folder.toml": "it is a folder"}.items():
        with pytest.raises(SourceError, match=rf"{name}: {reason}. Give a .toml or .json file"):
            read_options(tmp_path / name)


def test_every_option_is_named_where_its_value_is_of_another_kind(tmp_path: Path) -> None:
    for name in OPTIONS:
        (tmp_path / "o.json").write_text(json.dumps({name: {"a": 1}}))
        with pytest.raises(OptionsError, match=rf"o\.json: {name} is "):
            read_options(tmp_path / "o.json")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    for name, text in {"o.yaml": "lr: 1", "o.json": "[1]", "o2.json": "{"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(OptionsError, match=name.replace(".", r"\.")):
            read_options(tmp_path / name)
    with pytest.raises(SourceError, match=r"missing\.toml: No such file"):
        read_options(tmp_path / "missing.toml")
