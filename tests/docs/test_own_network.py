"""The commands of the lesson on a network of one's own work and print what it shows, numbers aside."""

import re
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY
from tests.support.command_server import CommandServer
from tests.support.console import check_out, matches, type_in, typed_commands

LESSON = REPOSITORY / "docs" / "own-network.md"
FILE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_commands_of_the_lesson_print_what_it_shows(tmp_path: Path, command_server: CommandServer) -> None:
    checkout = tmp_path / "checkout"
    check_out(checkout)
    (source,) = FILE.findall(LESSON.read_text("utf-8"))
    (checkout / "net.py").write_text(source)
    commands = typed_commands(LESSON)
    assert len(commands) == 6

    for typed in commands:
        printed = type_in(typed, checkout, command_server)
        assert matches(typed.shown, printed), f"{typed.command}\n" + "\n".join(printed)
