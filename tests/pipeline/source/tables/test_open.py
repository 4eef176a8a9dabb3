"""Rows of tables in every form, and what is refused. Also of `table` and `parquet`."""

import errno
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError, StorageError, TableDamaged, WorkerDied
from pipeline.source.tables.open import open_table
from pipeline.source.tables.table import Cells, Table, named_column
from tests.support.builds import files_left


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path: Path, *columns: str) -> list[tuple[int, tuple[str, ...]]]:
    return list(open_table(path).rows(columns))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "file,label\na.jpg,cat\nb.jpg,dog\n"),
        ("t.CSV", "\ufefffile,label\r\na.jpg,cat\r\nb.jpg,dog\r\n"),
        ("t.csv", 'file;label\n"a.jpg"; cat \nb.jpg;"dog"'),
        ("t.csv", '"file";"label";"a, b"\na.jpg;cat;\nb.jpg;dog;'),
        ("t.csv", "file\tlabel\na.jpg\tcat\nb.jpg\tdog"),
        ("t.tsv", "file\tlabel\na.jpg\tcat\nb.jpg\tdog"),
    ],
)
def test_every_form_of_csv_gives_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    assert rows(written(tmp_path / name, content), "file", "label") == [(2, ("a.jpg", "cat")), (3, ("b.jpg", "dog"))]


def test_a_row_is_called_by_the_line_that_it_begins_in(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", 'file,label\n\n"two\nlines.jpg","a ""cat"", or, so"\nb.jpg,\n')

    assert rows(table, "label", "file") == [(3, ('a "cat", or, so', "two\nlines.jpg")), (5, ("", "b.jpg"))]


def test_json_lines_keep_whole_numbers_and_fractions_apart(tmp_path: Path) -> None:
    values = [1, 1.0, "1", True, None, float("nan"), "NaN"]
    lines = [json.dumps({"file": f"{i}.jpg", "label": value}) for i, value in enumerate(values)]
    table = written(tmp_path / "t.jsonl", "\n\n".join([*lines, '{"file": "x.jpg"}\n']))

    assert [cells[0] for _, cells in rows(table, "label")] == ["1", "1.0", "1", "true", "", "", "", ""]
    assert [number for number, _ in rows(table, "label")] == list(range(1, 16, 2))


def test_parquet_numbers_of_classes_are_read_as_their_names(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "T - shirt / top"], "_type": "ClassLabel"}, "file": {"_type": "Value"}}
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    columns = {"file": ["a", "b", "c"], "label": [1, 0, -1], "score": [0.5, float("nan"), None]}
    pq.write_table(pa.table(columns).replace_schema_metadata(note), tmp_path / "t.parquet")

    found = rows(tmp_path / "t.parquet", "label", "file", "score")
    assert found == [(1, ("T - shirt / top", "a", "0.5")), (2, ("cat", "b", "")), (3, ("", "c", ""))]


def test_rows_of_parquet_are_counted_over_all_its_batches(tmp_path: Path) -> None:
    pq.write_table(pa.table({"file": [str(i) for i in range(9000)]}), tmp_path / "t.parquet")

    assert rows(tmp_path / "t.parquet", "file") == [(i + 1, (str(i),)) for i in range(9000)]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.csv", "file,label\na.jpg,cat\na,b,c\n", "line 3: it has 3 cells, and the header 2"),
        ("t.csv", 'file,label\nb.jpg,dog\na.jpg,"cat\n', "the row that begins in line 3 is no row of a table"),
        ("t.csv", "file,label\na.jpg\n", "line 2: it has 1 cell, and the header 2"),
        pytest.param(
            "t.csv",
            f"file,label\nb.jpg,dog\na.jpg,{'x' * 131_073}\n",
            r"line 3 has a cell of more than 131,072 characters\. .* not closed, or leave that column out",
            id="a long cell",
        ),
        ("t.csv", "file,label\n".encode("utf-16-le"), "it holds NUL bytes, so it is no text. Save it as UTF-8"),
        ("t.csv", b"\xff\xfef\0i\0", "it is UTF-16. Save it as UTF-8"),
        ("t.jsonl", '{"file": "a"}\n{"file": \n', "line 2: it is no JSON"),
        ("t.jsonl", '{"file": "a"}\n["a"]\n', "line 2: it is no JSON object"),
        ("t.jsonl", '{"file": "a"}\n{"file": ["a", "b"]}\n', "line 2: it has a list where one text"),
        ("t.parquet", b"PAR1 not really", "it is no whole Parquet file"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | bytes, why: str) -> None:
    with pytest.raises(TableDamaged, match=why) as refused:
        rows(written(tmp_path / name, content), "file")
    assert refused.value.exit_code == 65 and refused.value.path == tmp_path / name


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.csv", "", "it is empty"),
        ("t.jsonl", "\n", "it is empty"),
        ("t.xlsx", "", r"a table ends in \.csv"),
        ("t.csv", "File_Name,label\n", "it has no column file; the nearest is File_Name. Its columns are"),
        ("t.csv", "file,file\n", "it has two columns file"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, name: str, content: str, why: str) -> None:
    with pytest.raises(SourceError, match=why) as refused:
        rows(written(tmp_path / name, content), "file")
    assert refused.value.exit_code == 66


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such file"):
        open_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(SourceError, match="it is no regular file"):
        open_table(tmp_path / "t.csv")


def test_a_table_that_the_system_fails_to_read_is_not_called_damaged(tmp_path: Path) -> None:
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        table = written(tmp_path / name, "file\n")
        with (
            files_left(0),
            pytest.raises(WorkerDied, match=rf"{name}: Too many open files \(the limit is \d+\)\. Raise the limit"),
        ):
            open_table(table)

    def read(_: object) -> Cells:
        yield 2, ["a"]
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StorageError, match=r"t\.csv: Input/output error"):
        list(Table(tmp_path / "t.csv", ("file",), "line", read).rows(["file"]))


def test_a_column_is_found_by_a_usual_name_or_because_it_is_the_only_other(tmp_path: Path) -> None:
    table = open_table(written(tmp_path / "t.csv", "Id,Image,has_cactus\n"))
    known = ("image", "id")

    assert named_column(table, known, None, "--file-column", "the file") == "Image"
    assert named_column(table, ("id",), None, "--label-column", "the label", "Image") == "Id"
    with pytest.raises(SourceError, match=r"column Image names the images already\. Give another --label-column"):
        named_column(table, ("label",), "Image", "--label-column", "the label", "Image")
    two = open_table(written(tmp_path / "u.csv", "id,has_cactus\n"))
    assert named_column(two, ("label",), None, "--label-column", "the label", "id") == "has_cactus"
    with pytest.raises(SourceError, match=r"known to have the label: Id, Image, has_cactus\. Give --label-column NAME"):
        named_column(table, ("label",), None, "--label-column", "the label", "Image")
    alone = open_table(written(tmp_path / "test.csv", "id\n"))
    with pytest.raises(SourceError, match=r"known to have the label: id\. Give --label-column NAME"):
        named_column(alone, ("label",), None, "--label-column", "the label", "id")
    one = open_table(written(tmp_path / "v.tsv", "id,label\n"))
    with pytest.raises(SourceError, match=r"the file: id,label\. Cells are separated by , or ; or a tab in \.csv"):
        named_column(one, ("id",), None, "--file-column", "the file")
