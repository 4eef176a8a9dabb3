"""export: the format that is chosen by name or by the end of --out."""

from pathlib import Path

import click
import pytest

from modelnet.commands.export import chosen_format


@pytest.mark.parametrize(
    ("form", "out", "chosen"),
    [
        (None, None, "onnx"),
        ("torch", None, "torch"),
        (None, "model.pt2", "torch"),
        (None, "model.onnx", "onnx"),
        (None, "model.bin", "onnx"),
        ("torch", "model.bin", "torch"),
        ("onnx", "model.onnx", "onnx"),
        (None, "model.safetensors", "safetensors"),
    ],
)
def test_the_format_follows_from_its_name_or_from_the_file(form: str | None, out: str | None, chosen: str) -> None:
    assert chosen_format(form, Path(out) if out else None) == chosen


@pytest.mark.parametrize(("form", "out"), [("torch", "x.onnx"), ("onnx", "x.pt2")])
def test_a_format_and_a_file_name_that_differ_are_refused(form: str, out: str) -> None:
    with pytest.raises(click.UsageError, match=rf"--format {form} writes .*, and --out {out} ends otherwise"):
        chosen_format(form, Path(out))
