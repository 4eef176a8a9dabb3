"""The command line: a group of commands, each imported when it is asked for, so that `--help` is instant."""

import os
import sys
from importlib import import_module
from typing import Any, NoReturn

try:
    import click

    from modelnet.commands._options import example
    from modelnet.commands.shared.process import Unread, run
    from modelnet.runtime.launcher import is_rank
except ModuleNotFoundError as error:  # "pipeline.errors": a file pipeline.py comes first in the path of modules
    package = (error.name or "").partition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None)
    if package == "click":  # another Python than that of the environment
        from pipeline.errors import WorkerDied
        from pipeline.text import how_to_install

        advice = f"Activate its environment, or install it. {how_to_install()}"
        print(f"error: a library that is needed cannot be loaded: {error}. {advice}", file=sys.stderr)
        sys.exit(WorkerDied.exit_code)
    if package not in ("pipeline", "modelnet") or file is None:
        raise
    sys.exit(f"error: {file} hides the package {package} of modelnet-cache: rename that file")

WORKPLACE = ("experiment", "runs", "caches", "doctor")
COMMANDS = (
    *("build-cache", "build-features", "info", "show", "verify", "split"),
    *("train", "lr-find", "evaluate", "predict", "export", "report", "compare"),
    *WORKPLACE,
)


class Commands(click.Group):
    """Loads the command `lr-find` from `modelnet/commands/lr_find.py`, where it is called `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        folder = "modelnet.commands.workplace" if cmd_name in WORKPLACE else "modelnet.commands"
        command: click.Command = import_module(f"{folder}.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is typed; an unknown one is answered with the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f" (Did you mean {near[0]}?)" if near else ""
            raise click.UsageError(f"{error.message.rstrip('.')}{hint}", error.ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. `run` handles a closed pipe; click would end with 1, without a message."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise Unread from None


@click.group(
    cls=Commands,
    epilog=example("build-cache data/example"),
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
    invoke_without_command=True,
)
@click.version_option(package_name="modelnet-cache", prog_name="modelnet")
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Decode a folder of photographs once, train many experiments from the cache."""
    if is_rank() and ctx.invoked_subcommand in ("info", "verify", "compare"):
        os.environ["WORLD_SIZE"] = "1"  # they only read, so each rank of torchrun may run them by itself
    if is_rank() and ctx.invoked_subcommand != "train":
        raise click.UsageError("torchrun starts several processes, and only train divides its work among them")
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(click.UsageError.exit_code)


def main() -> NoReturn:
    """Run the command line; every failure is one line on stderr and an exit code of `pipeline.errors`."""
    run(cli)


if __name__ == "__main__":
    main()
