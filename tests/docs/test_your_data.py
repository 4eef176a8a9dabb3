"""The three sets of the page on one's own data: its commands, on sets of these forms, work and print what it shows."""

import csv
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command_line import REPOSITORY
from tests.support.command_server import CommandServer
from tests.support.console import check_out, matches, type_in, typed_commands

PAGE = REPOSITORY / "docs" / "your-data.md"
CLASSES = {"1": "paddle", "2": "snake"}


def images(folder: Path) -> list[tuple[str, Path]]:
    """Return the images of data/example with their classes."""
    return [(CLASSES[path.parent.name], path) for path in sorted((folder / "data" / "example").glob("*/*.JPEG"))]


def write_csv(path: Path, *rows: tuple[str, ...]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def make_competition(folder: Path) -> None:
    """Write leaves/train.csv, the images that it names in leaves/train, and an eighth of them in leaves/test."""
    rows = []
    for i, (label, path) in enumerate(images(folder)):
        side, name = "train" if i % 8 else "test", f"{i * 2654435761 % 2**32:08x}"
        (folder / "leaves" / side).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "leaves" / side / f"{name}.jpg")
        rows += [(name, label)] if side == "train" else []
    write_csv(folder / "leaves" / "train.csv", ("id", "species"), *rows)
    write_csv(folder / "corrected.csv", ("id", "species"), rows[0], (rows[1][0], "snake"), *rows[2:])


def make_patients(folder: Path) -> None:
    """Write scans/ with four images of each patient, and scans.csv."""
    (folder / "scans").mkdir()
    rows = []
    for i, (label, path) in enumerate(images(folder)):
        rows.append((f"p{i // 4:02}_{i % 4}.jpg", f"p{i // 4:02}", label))
        shutil.copy(path, folder / "scans" / rows[-1][0])
    write_csv(folder / "scans.csv", ("file", "patient", "diagnosis"), *rows)


def make_parquet(folder: Path) -> None:
    """Write shapes/data/train-00000-of-00001.parquet and validation-..., as Hugging Face does."""
    (folder / "shapes" / "data").mkdir(parents=True)
    names = list(CLASSES.values())
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    for first, side in enumerate(("train", "validation")):
        part = images(folder)[first::2]
        cells = [{"bytes": path.read_bytes(), "path": path.name} for _, path in part]
        table = pa.table({"image": cells, "label": [names.index(label) for label, _ in part]})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, folder / f"shapes/data/{side}-00000-of-00001.parquet")


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_commands_of_the_three_sets_work(tmp_path: Path, command_server: CommandServer) -> None:
    checkout = tmp_path / "checkout"
    check_out(checkout)
    for make in (make_competition, make_patients, make_parquet):
        make(checkout)
    commands = typed_commands(PAGE)
    assert len(commands) == 16

    for typed in commands:
        printed = type_in(typed, checkout, command_server)
        assert matches(typed.shown, printed), f"{typed.command}\n" + "\n".join(printed)
