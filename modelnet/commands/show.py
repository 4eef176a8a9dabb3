"""show: look at a cache, at training images, or at what a network looks at, as one HTML page."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from modelnet.commands._options import (
    CHECKPOINT,
    NO_SPLIT,
    PATH,
    TRUST,
    GroupedCommand,
    check_there,
    example,
    one_or_all,
    training_options,
)
from modelnet.commands.option_groups.repeat import chosen_options, repeat_options, typed
from modelnet.commands.report import publish_page
from modelnet.options import OPTIONS
from modelnet.options.groups import OF_IMAGES


def _options() -> list[click.Parameter]:
    options = training_options()
    for option in options:
        assert isinstance(option, click.Option)
        if option.name == "device":
            option.help = f"{option.help} For a RUN, or --batch."
            continue
        option.hidden = OPTIONS[str(option.name)].heading not in OF_IMAGES  # the others are accepted
    return options


@click.command("show", cls=GroupedCommand, epilog=example("show data/cache/example.h5"), params=_options())
@click.argument("shown", nargs=-1, type=PATH, metavar="[CACHE|RUN]")
@click.option("--batch", is_flag=True, help="Show sixteen training images as the first three epochs see them.")
@NO_SPLIT
@repeat_options
@CHECKPOINT
@TRUST
@click.option(
    "--out",
    type=PATH,
    help="The page.  [default: beside CACHE: CACHE.html; CACHE-batch.html with --batch; RUN/show.html]",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    shown: tuple[Path, ...],
    batch: bool,
    checkpoint: str | None,
    trust_code: bool,
    device: str,
    out: Path | None,
    **_options: Any,
) -> None:
    """Show a CACHE, training images, or what the network of RUN looks at, as one HTML page.

    Of CACHE: classes with counts and samples, sizes and aspect ratios of the image files, copies and near copies,
    images that are tiny or blank, the mean image, and the files that failed. Of a large cache a sample is shown, and
    the page says so.

    --batch takes all options of train, and shows what a network will see with them. The same options and --data-seed
    give the same pictures in training.

    Of RUN: its surest mistakes with heat maps of what spoke for each class, and a map of validation images by the
    features of the last layer.
    """
    from modelnet import show_batch, show_cache, show_run
    from pipeline.format.paths import base_path, cache_files

    if batch:
        options = _batch_options(ctx, shown, trust_code)
        page, suffix, cache = show_batch(options), "-batch.html", options.cache
    elif not shown:
        raise click.UsageError("name a CACHE or a RUN, or give --batch with the options of train")
    elif len(shown) > 1 and any(path.is_dir() for path in shown):
        raise click.UsageError("show takes one RUN, or the files of one CACHE")
    elif len(shown) == 1 and shown[0].is_dir():
        _refuse_others(ctx, "checkpoint", "trust_code", "device")
        page = show_run(shown[0], checkpoint, device, trust_code=trust_code)
        publish_page(page, out, shown[0].absolute() / "show.html", "Give --out", "page")
        return
    else:
        check_there(shown[0])
        _refuse_others(ctx)
        page, suffix, cache = show_cache(one_or_all(shown)), ".html", shown[0]
    whole = base_path(cache_files(cache)[0])
    publish_page(page, out, whole.with_name(f"{whole.stem}{suffix}"), "Give --out", "page")


def _refuse_others(ctx: click.Context, *accepted: str) -> None:
    """Refuse options that are for another kind of page."""
    if given := sorted(flag for name, flag in typed(ctx).items() if name not in ("shown", "out", *accepted)):
        use = "--batch, which shows training images"
        if set(given) <= {"--checkpoint", "--device", "--trust-code"}:
            use = "a RUN" if "--checkpoint" in given else "a RUN, or --batch"
        raise click.UsageError(f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} for {use}")


def _batch_options(ctx: click.Context, shown: tuple[Path, ...], trust_code: bool) -> Any:
    """Return the options of training that are typed; a cache may stand without --cache."""
    if len(shown) > 1 or (shown and "cache" in typed(ctx)):
        raise click.UsageError("--batch shows images of one cache")
    if "checkpoint" in typed(ctx):
        raise click.UsageError("--checkpoint is for a RUN")
    if shown:
        ctx.params["cache"] = shown[0]
    options = chosen_options(ctx, trust_code)
    return replace(options, cache=shown[0]) if shown else options
