"""README's table of speeds, and the figures of its text, are what benchmarks recorded."""

import re

from docs.pictures import COMMANDS, READING, SHOWN, TABLE, recorded_figures, speed_table
from tests.support.command_line import REPOSITORY

RECORD = """4,608 images; 2 cores

### Reading, images/s

|  | batch 8 | batch 8 × limit | batch 64 |
| --- | ---: | ---: | ---: |
| ours, uint8 cache | 47,000 (44,000–48,000) | 1.15 | 38,900 (1–2) |

### Reading as uint8, images/s

|  | batch 8 |
| --- | ---: |
| ours, uint8 cache | 84,400 |

### First batch, ms

|  | ms | spread |
| --- | ---: | ---: |
| ours, uint8 cache | 8.00 | 7–9 |
"""


def test_the_first_table_that_has_a_column_counts() -> None:
    figures = recorded_figures(RECORD)["ours, uint8 cache"]

    assert (figures["batch 8"], figures["batch 64"], figures["ms"]) == ("47,000", "38,900", "8.00")


def test_a_system_that_was_not_measured_has_dashes() -> None:
    table = speed_table(recorded_figures(RECORD))

    assert "| **this project, uint8 cache** | 47,000 | 38,900 | – | 8.00 ms |" in table
    assert "| FFCV | – | – | – | – |" in table


def test_the_table_of_readme_is_the_recorded_one() -> None:
    shown = TABLE.search((REPOSITORY / "README.md").read_text("utf-8"))

    assert shown is not None
    assert shown[0] == speed_table(recorded_figures(READING.read_text("utf-8")))
    assert len(SHOWN) == 6


def test_the_figures_of_a_pretrained_network_are_the_recorded_ones() -> None:
    readme = " ".join((REPOSITORY / "README.md").read_text("utf-8").split())
    record = (READING.parent / "pretrained.md").read_text("utf-8")

    shown = re.search(
        r"EfficientNet-Lite0 was trained 16 times .* together took (\d+) s\. .* \[(\d+) times as long\]", readme
    )
    recorded = re.search(r"\| 16 × \d+ \| ([\d.]+) \| (\d+) \|", record)
    assert shown is not None and recorded is not None
    assert (int(shown[1]), shown[2]) == (round(float(recorded[1])), recorded[2])


def test_the_commands_of_readme_give_the_picture_of_the_report() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    *trained, _ = COMMANDS

    assert "\n".join(f"python cli.py {command}" for command in trained) in readme
