"""The command line: build a cache of a folder of photographs, look at it, train from it.

A command parses, calls and prints. Nothing heavy is imported before a command needs it: `--help` is instant.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from pipeline.errors import PipelineError

DEFAULT_CACHES = Path("data/cache")
DONE_WITH_FAILURES, INTERRUPTED, TERMINATED, BUG = 3, 130, 143, 1

SOURCE = click.Path(path_type=Path)


class Terminated(BaseException):
    """SIGTERM came."""


def example(command: str) -> str:
    """Return the end of a command's help: a line that can be pasted."""
    return f"\b\nExample:\n  {command}"


@click.group(
    epilog=example("python cli.py build-cache data/example"),
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
@click.version_option(package_name="modelnet-cache", prog_name="modelnet")
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
def cli(debug: bool) -> None:
    """Decode a folder of photographs once, train many experiments from the cache."""


@cli.command("build-cache", epilog=example("python cli.py build-cache data/example"))
@click.argument("source", type=SOURCE)
@click.option("--out", type=click.Path(path_type=Path), help="The cache.  [default: data/cache/<SOURCE>.h5]")
@click.option("--size", default=224, help="Side of the square images, in pixels.")
@click.option("--mean", nargs=3, type=float, default=(0.5, 0.5, 0.5), help="Per channel, on the 0..1 scale.")
@click.option("--std", nargs=3, type=float, default=(0.5, 0.5, 0.5), help="Per channel, on the 0..1 scale.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "uint8"]),
    default="float32",
    help="What a row stores; uint8 is a quarter of the bytes and gives the same tensors.",
)
@click.option("--exif-rotate/--no-exif-rotate", help="Turn images upright as their EXIF orientation says.")
@click.option("--max-megapixels", default=64, help="Larger images are refused before they are decoded.")
@click.option("-j", "--workers", type=click.IntRange(1), help="Processes that decode.  [default: one a core]")
@click.option("--strict", is_flag=True, help="End with 3 if any image failed.")
@click.option("--rebuild", is_flag=True, help="Decode everything anew, and replace whatever cache is there.")
@click.option("--wait", is_flag=True, help="Wait for another build of the same cache.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def build_cache_command(
    source: Path,
    out: Path | None,
    workers: int | None,
    strict: bool,
    rebuild: bool,
    wait: bool,
    dry_run: bool,
    **recipe: Any,
) -> None:
    """Decode SOURCE, a folder with a folder of images per class, into one HDF5 tensor cache.

    A cache that is up to date is left alone; otherwise only what changed is decoded, and an interrupted build goes
    on where it stopped.
    """
    from pipeline.build import build_cache
    from pipeline.plan import plan_build
    from pipeline.recipe import Recipe

    path = out or default_cache(source)
    with usage_errors():
        checked = Recipe(**recipe)
    if dry_run:
        click.echo(plan_build(source, path, checked, workers, rebuild))
        return
    with progress_bar("decode", " images") as progress:
        report = build_cache(source, path, workers=workers, rebuild=rebuild, wait=wait, progress=progress, **recipe)
    click.echo(report)
    if strict and report.failed:
        raise SystemExit(DONE_WITH_FAILURES)


@cli.command("info", epilog=example("python cli.py info data/cache/example.h5"))
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--check", type=SOURCE, metavar="SOURCE", help="Say whether SOURCE still matches.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def info_command(cache: Path, check: Path | None, as_json: bool) -> None:
    """Show what is in CACHE: classes with counts, recipe, bytes, fingerprint, what failed, what looks alike."""
    import json

    from pipeline.describe import check_source, describe_cache

    info = describe_cache(cache)
    click.echo(json.dumps(info.to_dict(), indent=2) if as_json else info)
    if check:
        click.echo(f"source: {check_source(cache, check) or 'matches'}")


@cli.command("verify", epilog=example("python cli.py verify data/cache/example.h5"))
@click.argument("cache", type=click.Path(path_type=Path))
def verify_command(cache: Path) -> None:
    """Check every row and table of CACHE against its checksum, and the HDF5 library's view against the header."""
    from pipeline.errors import CacheDamaged
    from pipeline.verify import verify_cache

    with progress_bar("verify", " rows") as progress:
        damage = list(verify_cache(cache, progress))
    click.echo("\n".join(map(str, damage)) or "every row and table is as it was built")
    if damage:
        click.echo("Run build-cache again: it rebuilds just the damaged rows.", err=True)
        raise SystemExit(CacheDamaged.exit_code)


def default_cache(source: Path) -> Path:
    """Name the cache of a source: its own name, with its parent's for train, val and test."""
    place = source.absolute()
    name = f"{place.parent.name}-{place.name}" if place.name in ("train", "val", "test") else place.name
    return DEFAULT_CACHES / f"{name or 'cache'}.h5"


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a value that the program cannot use into a usage error (2)."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Any]:
    """Yield a callback (done, total) that draws a bar on stderr, where that is a terminal."""
    from tqdm import tqdm

    bar = tqdm(desc=what, unit=unit, disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=False)

    def show(done: int, total: int) -> None:
        bar.total = total
        if bar.n == 0 and done:
            bar.initial = done
            bar.reset(total)
        bar.update(done - bar.n)

    with bar:
        yield show


def main() -> NoReturn:
    """Run the command line; every failure is one line on stderr and an exit code of `pipeline.errors`."""
    debug = "--debug" in sys.argv
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except SystemExit:
        raise
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "cli.py"
        fail(f"{error.format_message().rstrip('.')}. See {command} --help", error.exit_code, debug)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted. Run the same command again to go on", INTERRUPTED, debug)
    except Terminated:
        fail("terminated. Run the same command again to go on", TERMINATED, debug)
    except PipelineError as error:
        fail(str(error), error.exit_code, debug)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        fail(
            f"this is a bug: {type(error).__name__}: {error}. Run it with --debug and report what it shows",
            BUG,
            debug,
        )


def fail(message: str, code: int, debug: bool) -> NoReturn:
    """Say what went wrong in one line and end."""
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    main()
