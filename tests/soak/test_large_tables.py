"""A table of ImageNet's size is read in seconds, and in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY

ROWS = 1_280_000
_READ = """
import json, sys, time
from pathlib import Path
from pipeline.source.tables.column import read_column
start = time.process_time()
column = read_column(Path(sys.argv[1]))
seconds = time.process_time() - start
status = Path("/proc/self/status").read_text()  # ru_maxrss would be that of the process that forked this one
bytes_used = 1024 * int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps([len(column.keys), len(column.texts), seconds, bytes_used]))
"""


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_table_of_a_million_rows_is_read_quickly_in_little_memory(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    with path.open("w") as file:
        file.write("image,label\n" if suffix == "csv" else "")
        for i in range(ROWS):
            label = f"n{i % 1000:08}"
            name = f"{label}/{label}_{i}.JPEG"
            file.write(f"{name},{label}\n" if suffix == "csv" else f'{{"image": "{name}", "label": "{label}"}}\n')

    read = subprocess.run(
        [sys.executable, "-c", _READ, path], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    rows, labels, seconds, bytes_used = json.loads(read.stdout)
    assert (rows, labels) == (ROWS, 1000)
    assert seconds < 10, seconds  # processor time: twice what is wanted, for a busy machine
    assert bytes_used < 300e6, bytes_used
