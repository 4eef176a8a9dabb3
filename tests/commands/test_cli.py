"""The group of commands: every help text (commands/_options), and the version."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli import cli
from tests.support.command_line import REPOSITORY, RunCli


def all_commands() -> dict[str, click.Command]:
    """Return every command by its name, and the group itself under ""."""
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {"": cli} | {name: command for name, command in commands.items() if command}


COMMANDS = all_commands()


@pytest.mark.parametrize("words", COMMANDS)
def test_help_answers_at_once_and_ends_in_a_line_to_paste(words: str, run_cli: RunCli) -> None:
    before = os.times()
    ended = run_cli(*words.split(), "--help", fresh=True)
    after = os.times()

    *_, heading, last = ended.stdout.rstrip("\n").splitlines()
    assert (ended.code, ended.stderr) == (0, "")
    assert heading.strip() == "Example:" and re.fullmatch(r" +python cli\.py \S.*", last)
    assert last.split()[2:3] == words.split()[:1] or not words
    assert sum(after[2:4]) - sum(before[2:4]) < 0.75, "processor time of the command"
    assert "-h, --help" in ended.stdout


@pytest.mark.parametrize("words", COMMANDS)
def test_every_line_to_paste_is_a_command_with_options_that_exist(words: str) -> None:
    epilog = COMMANDS[words].epilog or ""
    line = epilog.splitlines()[-1].split()
    assert line[:2] == ["python", "cli.py"]
    command = COMMANDS[line[2]]

    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in line[3:] if word.startswith("-")} <= known


@pytest.mark.parametrize("words", COMMANDS)
def test_options_are_written_with_hyphens_and_every_one_is_explained(words: str) -> None:
    for parameter in COMMANDS[words].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert re.fullmatch(r"--[a-z0-9]+(-[a-z0-9]+)*|-[a-z]", option), option


@pytest.mark.parametrize("words", COMMANDS)
def test_no_help_needs_numpy(words: str) -> None:
    asked = f"import sys; from cli import cli; cli(['{words}', '--help'][not '{words}':], standalone_mode=False)"
    script = f"{asked}; assert not {{'numpy', 'torch', 'PIL', 'h5py'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("words", COMMANDS)
def test_help_shows_the_default_of_an_option_once(words: str) -> None:
    context = click.Context(COMMANDS[words], parent=click.Context(cli, **cli.context_settings) if words else None)
    for parameter in COMMANDS[words].params:
        _, text = parameter.get_help_record(context) or ("", "")
        assert text.count("[default: ") <= 1, text


def test_h_is_help_and_no_command_shows_the_help_too(run_cli: RunCli) -> None:
    asked = run_cli("-h")
    bare = run_cli()

    assert asked.code == 0 and "build-cache" in asked.stdout
    assert bare.code == 2 and "Usage: " in bare.stdout + bare.stderr and "build-cache" in bare.stdout + bare.stderr
    assert not bare.stderr.startswith("error: Usage")


def test_the_version_is_told(run_cli: RunCli) -> None:
    assert re.fullmatch(r"modelnet, version \d+\.\d+.*\n", run_cli("--version").stdout)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("modelnet lr-", "lr-find"),
        ("modelnet train --momen", "--momentum"),
        ("modelnet train --opt ad", "adam adamw"),
    ],
)
def test_bash_completes_after_the_documented_line(typed: str, completed: str, tmp_path: Path) -> None:
    line = next(line for line in (REPOSITORY / "docs/commands.md").read_text().splitlines() if line.startswith("eval"))
    program = tmp_path / "modelnet"  # as pip makes it
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n")
    program.write_text(f"{program.read_text()}from cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    words = f"COMP_WORDS=({typed}); COMP_CWORD={typed.count(' ')}; _modelnet_completion modelnet"
    script = f"{line}\n{words}\necho ${{COMPREPLY[@]}}"
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == (f"{completed}\n", "")


@pytest.mark.parametrize("command", ["show", "doctor"])
def test_a_name_of_nothing_is_neither_cache_nor_run(command: str, run_cli: RunCli) -> None:
    missing = run_cli(command, "nothere")
    advice = "List them: python cli.py caches, python cli.py runs"
    expected = f"error: no cache and no run: nothere: there is no such file or folder. {advice}\n"
    assert (missing.code, missing.stderr) == (66, expected)
    assert command == "doctor" or run_cli(command, "nothere", "--device", "cpu").stderr == expected
    assert run_cli(command, "nothere.h5").stderr.startswith("error: no cache: nothere.h5: there is no such file. Build")


@pytest.mark.parametrize("words", [["train", "--cache", ""], ["lr-find", "--out="], ["info", ""], ["report", ""]])
def test_an_empty_path_is_refused(words: list[str], run_cli: RunCli) -> None:
    ended = run_cli(*words)
    assert ended.code == 2 and "a path is needed, and this is an empty text" in ended.stderr
