"""The command reference, as Sphinx builds it, has every command and every option of the command line."""

import re
import subprocess
import sys

import click
import pytest

from cli import cli
from tests.support.command_line import REPOSITORY

CONFIGURATION = f"""
import sys

sys.path.insert(0, {str(REPOSITORY)!r})
extensions = ["myst_parser", "sphinx_click", "docs.generated"]
exclude_patterns = []
root_doc = "commands"
smartquotes = False
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of the page, built alone."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "conf.py").write_text(CONFIGURATION)
    (folder / "commands.md").write_text((REPOSITORY / "docs" / "commands.md").read_text("utf-8"))
    arguments = ["-b", "text", "--fail-on-warning", "--quiet", str(folder), str(folder / "built")]
    subprocess.run([sys.executable, "-m", "sphinx", *arguments], check=True, cwd=folder)
    return (folder / "built" / "commands.txt").read_text("utf-8")


def test_every_command_of_the_help_is_in_the_reference(reference: str) -> None:
    context = click.Context(cli)

    for name in cli.list_commands(context):
        assert f"python cli.py {name} [OPTIONS]" in reference


def test_every_option_of_every_command_is_in_the_reference(reference: str) -> None:
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}

    for name, command in commands.items():
        own = reference.partition(f"python cli.py {name} [OPTIONS]")[2].partition("Usage")[0]
        assert command is not None
        for option in (param for param in command.params if isinstance(param, click.Option) and not param.hidden):
            assert all(flag in own for flag in option.opts + option.secondary_opts), (name, option.name)


def test_the_reference_shows_options_in_the_groups_of_the_help(reference: str) -> None:
    train = reference.partition("python cli.py train [OPTIONS]")[2]

    assert re.findall(r"-\[ (.+) \]-", train)[:3] == ["Options", "Data", "Network"]
    assert "--val <val>" in train.partition("-[ Data ]-")[2].partition("-[ Network ]-")[0]


def test_the_reference_shows_defaults(reference: str) -> None:
    train = reference.partition("python cli.py train [OPTIONS]")[2]

    assert 'Default:\n      "8"' in train.partition("--batch-size")[2][:300]
