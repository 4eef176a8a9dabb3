"""The options that take those of training from a file or from a run, and what is typed beside them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from modelnet.commands._options import PATH, check_split, grouped
from modelnet.commands.shared.console import Notes, usage_errors
from modelnet.options import OPTIONS, Option
from modelnet.options.folders import CACHES
from modelnet.progress import Progress

if TYPE_CHECKING:
    from modelnet.options import TrainOptions

_repeat = grouped("Repeat")


def repeat_options(command: Any) -> Any:
    """Add the options that name a file or a run."""
    for option in (
        _repeat(
            "--without",
            multiple=True,
            metavar="OPTION",
            help="An option of that file or run that returns to its default; may be given again.",
        ),
        _repeat("--from", "source", type=PATH, metavar="RUN", help="Take the options of this run, but for its name."),
        _repeat(
            "--config",
            type=PATH,
            metavar="FILE",
            help="Take options from a TOML or JSON file, or from a run's config.json. Options that are typed win.",
        ),
    ):
        command = option(command)
    return command


def chosen_options(
    ctx: click.Context,
    trust_code: bool = False,
    used: Callable[[Option], bool] = lambda option: True,
    progress: Progress | None = None,
) -> "TrainOptions":
    """Return the options of training: those that are typed, then those of --config or --from, then the defaults.

    Args:
        ctx: of the command.
        trust_code: as `repeated_options` takes it.
        used: says which options of the file or run the command uses.
        progress: hears of caches of the run that have changed since; None prints that.

    Raises:
        click.UsageError: values that do not go together.
        As `read_options` and `repeated_options`.
    """
    from modelnet.data.caches import find_cache
    from modelnet.options import TrainOptions

    given = typed(ctx)
    own = {name: value for name, value in ctx.params.items() if name in OPTIONS and name in given}
    taken = _stored(ctx, own, trust_code, progress or Notes())
    stored = {name: value for name, value in taken.items() if used(OPTIONS[name])}
    values = {name: value for name, value in ctx.params.items() if name in OPTIONS} | stored | own
    cache = values.pop("cache")
    with usage_errors("; --without OPTION leaves one of them out" if stored else ""):
        chosen = TrainOptions(cache or Path(), **values)
    chosen = chosen if cache else replace(chosen, cache=find_cache(CACHES))
    if "no_split" in ctx.params:  # a command that trains
        check_split(chosen.cache, chosen.split, ctx.params["no_split"])
    return chosen


def _stored(ctx: click.Context, own: dict[str, Any], trust_code: bool, progress: Progress) -> dict[str, Any]:
    """Return the options of the file or the run that the command takes."""
    config, source = ctx.params["config"], ctx.params["source"]
    without = [name.removeprefix("--").replace("-", "_") for name in ctx.params["without"]]
    if config and source:
        raise click.UsageError("--config and --from exclude each other; leave one of them out")
    if config is None and source is None:
        if without:
            raise click.UsageError("--without leaves out an option of --config or --from; give one of them")
        return {}
    from modelnet.options.file import read_options, unknown

    for name in without:
        if name not in OPTIONS:
            raise click.UsageError(f"--without: {unknown(name, OPTIONS)}")
    swept = [text.partition("=")[0].replace("-", "_") for text in ctx.params.get("sweep", ())]
    others = [*own, *without, *swept]
    if config is not None:
        stored = read_options(config, others)
    else:
        from modelnet.runs.repeat import changed_files, repeated_options

        stored = repeated_options(source, others, trust_code)
        for warning in changed_files(source, stored):
            progress.warn(warning)
    return {name: value for name, value in stored.items() if name not in without}


def typed(ctx: click.Context) -> dict[str, str]:
    """Return the options that stand on the command line: name -> its longest flag."""
    return {
        parameter.name: max(parameter.opts, key=len)
        for parameter in ctx.command.params
        if parameter.name and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    }
