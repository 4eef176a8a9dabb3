"""What doctor says of a machine (modelnet/training/machine.py, commands/workplace/doctor.py)."""

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from modelnet.training import machine
from modelnet.training.machine import Fact, describe_machine
from tests.support.command_line import RunCli

Usage = namedtuple("Usage", "total used free")


def facts_of(folder: Path) -> dict[str, Fact]:
    return {fact.name: fact for fact in describe_machine(folder)}


def test_versions_and_processor_are_those_of_this_process(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)

    assert f"torch {torch.__version__.partition('+')[0]}" in facts["versions"].value
    assert facts["processor"].value.startswith(f"{os.cpu_count()} cores")
    assert ("none" in facts["GPU"].value) != torch.cuda.is_available()


def test_slow_code_and_little_shared_memory_are_named_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_simplejpeg", lambda: False)
    monkeypatch.setattr(machine, "resizes_in_c", lambda: False)
    monkeypatch.setattr(machine, "compiled_kernels", lambda: None)
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 64 * 10**6))
    facts = facts_of(tmp_path)

    assert facts["JPEG decoder"].value == "Pillow, slower" and "[fast]" in facts["JPEG decoder"].advice
    assert "C compiler" in facts["resizing"].advice and "C compiler" in facts["reading"].advice
    assert facts["shared memory"] == (
        "shared memory",
        "64.0 MB free",
        "docker run --shm-size 8g gives more, where --workers is used",
    )
    assert facts["disk"].value == "64.0 MB free"


def test_fast_code_needs_no_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("has_simplejpeg", "resizes_in_c", "compiled_kernels"):
        monkeypatch.setattr(machine, name, lambda: True)
    facts = facts_of(tmp_path)

    assert [facts[name].advice for name in ("JPEG decoder", "resizing", "reading")] == ["", "", ""]


def test_the_command_prints_a_line_a_fact_or_json(tmp_path: Path, run_cli: RunCli) -> None:
    lines = run_cli("doctor").stdout.splitlines()
    found = json.loads(run_cli("doctor", "--json").stdout)

    assert list(found["machine"]) == list(facts_of(tmp_path)) and found["speed"] is None
    assert all(line.startswith(name) for line, name in zip(lines, found["machine"], strict=False))
