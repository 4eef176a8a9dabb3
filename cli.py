"""The command line: build a cache of a folder of photographs, look at it, train from it.

A command parses, calls and prints. Nothing heavy is imported before a command needs it: `--help` is instant.
"""

import errno
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import click
from click.core import ParameterSource

from modelnet.options import CHOICES
from modelnet.progress import Progress
from pipeline.errors import OutputError, PipelineError, SourceError, StorageError, WorkerDied
from pipeline.text import show_path

if TYPE_CHECKING:
    from modelnet.progress import EpochRow
    from modelnet.sweep.result import ManyResult
    from modelnet.training.loop import TrainResult
    from pipeline.shards.build import ShardChoice

DEFAULT_CACHES, DEFAULT_FEATURES = Path("data/cache"), Path("data/features")
DONE_WITH_FAILURES, INTERRUPTED, TERMINATED, BUG = 3, 130, 143, 1

# whether it may be read is found out where it is read: a permission that is missing is no usage error
PATH = click.Path(path_type=Path, readable=False)


def choice_options(command: Any) -> Any:
    """Add the options that say which part of a source is meant."""
    for option in (
        click.option("--per-class", type=click.IntRange(1), metavar="N", help="Images of each class at most."),
        click.option(
            "--class",
            "merged",
            multiple=True,
            metavar="NAME=FOLDER,...",
            help="A class made of several folders; may be given again for another class.",
        ),
        click.option("--classes", metavar="FOLDER,...", help="Only these class folders.  [default: all]"),
    ):
        command = option(command)
    return command


class Terminated(BaseException):
    """SIGTERM came."""


class Interrupted(BaseException):
    """Ctrl-C came."""


class Unread(BaseException):
    """Nobody reads the output any more: `| head` has seen enough."""


class Commands(click.Group):
    """Brings Ctrl-C and a closed pipe to `main`; click would answer with an empty line, and with exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None
        except BrokenPipeError:
            raise Unread from None


def example(command: str) -> str:
    """Return the end of a command's help: a line that can be pasted."""
    return f"\b\nExample:\n  {command}"


@click.group(
    cls=Commands,
    epilog=example("python cli.py build-cache data/example"),
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
    invoke_without_command=True,
)
@click.version_option(package_name="modelnet-cache", prog_name="modelnet")
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Decode a folder of photographs once, train many experiments from the cache."""
    if under_torchrun() and ctx.invoked_subcommand != "train":
        raise click.UsageError("torchrun starts several processes, and only train divides its work among them")
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(click.UsageError.exit_code)


@cli.command("build-cache", epilog=example("python cli.py build-cache data/example"))
@click.argument("source", type=PATH)
@choice_options
@click.option("--out", type=PATH, help="The cache.  [default: data/cache/<SOURCE>.h5]")
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
@click.option(
    "--scaled-decode",
    is_flag=True,
    help="Decode large JPEGs at 1/2, 1/4 or 1/8 of their size, of at least twice --size: faster, not the same pixels.",
)
@click.option("-j", "--workers", type=click.IntRange(1), help="Processes that decode.  [default: one a core]")
@click.option("--strict", is_flag=True, help="End with 3 if any image failed.")
@click.option("--rebuild", is_flag=True, help="Decode everything anew, and replace whatever cache is there.")
@click.option("--wait", is_flag=True, help="Wait for another build of the same cache.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--features", metavar="NETWORK", help="Cache what this frozen network makes of the images: resnet18, say."
)
@click.option("--weights", type=PATH, help="Of --features: a local file with its weights.")
@click.option("--device", default="auto", help="Of --features: auto, cpu, cuda or cuda:1.")
@click.option("--shards", type=click.IntRange(1), help="Several files instead of one: name-00000-of-00064.h5, ...")
@click.option("--rows-per-shard", type=click.IntRange(1), help="Chooses the number of shards, at the first build.")
@click.option("--shard", metavar="I/K", help="Build only the one with this number of K, from 0: 3/64.")
@click.option("--engine", type=click.Choice(["local", "dask"]), default="local", help="Who builds shards.")
@click.option("--scheduler", metavar="ADDRESS", help="Of the Dask cluster: tcp://host:8786.")
@click.pass_context
def build_cache_command(
    ctx: click.Context,
    /,
    source: Path,
    classes: str | None,
    merged: tuple[str, ...],
    per_class: int | None,
    out: Path | None,
    workers: int | None,
    strict: bool,
    rebuild: bool,
    wait: bool,
    dry_run: bool,
    features: str | None,
    weights: Path | None,
    device: str,
    engine: str,
    scheduler: str | None,
    **recipe: Any,
) -> None:
    """Decode SOURCE, a folder with a folder of images per class, into an HDF5 tensor cache.

    SOURCE may also be a tar or zip of class folders, ImageNet's tar of a tar per class, a folder of such archives, or
    of WebDataset shards; nothing is unpacked. A folder within an archive is written photos.zip/train.

    A cache that is up to date is left alone; otherwise only what changed is decoded, and an interrupted build goes
    on where it stopped.

    With --features, SOURCE is such a cache (or a folder, whose cache is built first), and what comes of it is a cache
    in data/features/ that train --model linear takes: a row is the input of the network's last layer.
    """
    from pipeline.build.build import build_cache
    from pipeline.build.report import BuildReport
    from pipeline.format.paths import is_cache_or_set
    from pipeline.inspect.plan import plan_build, plan_shards
    from pipeline.recipe import Recipe
    from pipeline.shards.build import build_shards
    from pipeline.source.selection import parse_choice

    shards = shard_options(engine, scheduler, recipe)
    check_feature_options(ctx, features, weights, dry_run, is_cache_or_set(source))
    path = default_cache(source) if features or out is None else out
    with usage_errors():
        checked = Recipe(**recipe)
        choice = parse_choice(classes, merged, per_class)
    if dry_run:
        plan = plan_shards(source, path, checked, shards, workers, rebuild, choice) if shards else None
        click.echo(plan or plan_build(source, path, checked, workers, rebuild, choice))
        return
    if features and weights and is_cache_or_set(source):
        cache_features(source, out, features, weights, device, rebuild=rebuild, wait=wait)
        return
    if features and weights:
        check_backbone(features, weights, checked.size, device)
    recipe |= {"choice": choice, "workers": workers, "rebuild": rebuild, "wait": wait}
    report: BuildReport
    with progress_bar("decode", " images") as progress, cluster(scheduler) as executor:
        if shards:
            report = build_shards(source, path, progress=progress, executor=executor, **vars(shards), **recipe)
        else:
            report = build_cache(source, path, progress=progress, **recipe)
    click.echo(report)
    if features and weights:
        cache_features(path, out, features, weights, device, rebuild=rebuild, wait=wait)
    if strict and report.failed:
        raise SystemExit(DONE_WITH_FAILURES)


def check_feature_options(
    ctx: click.Context, features: str | None, weights: Path | None, dry_run: bool, of_cache: bool
) -> None:
    """Refuse options of build-cache that do not go together."""
    if bool(features) != bool(weights):
        raise click.UsageError("--features and --weights go together: a network, and a file with its weights")
    if features and dry_run:
        raise click.UsageError("--dry-run looks at images, not at --features")
    if features and of_cache:
        typed = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if wrong := set(typed) - {"source", "out", "features", "weights", "device", "rebuild", "wait"}:
            flags = ", ".join(sorted(max(p.opts, key=len) for p in ctx.command.params if p.name in wrong))
            raise click.UsageError(f"the images of a cache are as they are; leave out {flags}")


def check_backbone(model: str, weights: Path, size: int, device: str) -> None:
    """Find out what is wrong with network and weights before the images are decoded, which may take hours."""
    from modelnet.nets.backbone import Backbone

    Backbone(model, weights, size, device)


def cache_features(images: Path, out: Path | None, model: str, weights: Path, device: str, **how: bool) -> None:
    """Write the cache of features of a cache of images, and print what became of it."""
    from modelnet.eval.features import build_features

    path = out or DEFAULT_FEATURES / f"{images.stem}-{model.replace(':', '-')}.h5"
    with progress_bar("features", " images") as progress:
        click.echo(build_features(images, path, model, weights, device, progress=progress, **how))


def shard_options(engine: str, scheduler: str | None, options: dict[str, Any]) -> "ShardChoice | None":
    """Take the options about shards out of the others; None where one file is to be built."""
    from pipeline.shards.build import ShardChoice

    shards, rows, shard = (options.pop(name) for name in ("shards", "rows_per_shard", "shard"))
    with usage_errors():
        chosen = ShardChoice.of(shards, rows, shard)
    if (engine == "dask") != (scheduler is not None):
        raise click.UsageError("--engine dask and --scheduler ADDRESS go together")
    if engine == "dask" and chosen is None:
        raise click.UsageError("--engine dask builds shards; give --shards, or --rows-per-shard")
    return chosen


@contextmanager
def cluster(scheduler: str | None) -> Iterator[Any]:
    """Yield the executor of a Dask cluster; None without one."""
    if scheduler is None:
        yield None
        return
    from pipeline.shards.dask import dask_executor

    with dask_executor(scheduler) as executor:
        yield executor


CACHES = click.argument("cache", nargs=-1, required=True, type=PATH, metavar="CACHE")


def one_or_all(paths: tuple[Path, ...]) -> "Path | tuple[Path, ...]":
    """Return what a command was given: one cache, set or pattern, or the files of a set."""
    return paths[0] if len(paths) == 1 else paths


@cli.command("info", epilog=example("python cli.py info data/cache/example.h5"))
@CACHES
@click.option("--check", type=PATH, metavar="SOURCE", help="Say whether SOURCE still matches.")
@choice_options
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def info_command(
    cache: tuple[Path, ...],
    check: Path | None,
    classes: str | None,
    merged: tuple[str, ...],
    per_class: int | None,
    as_json: bool,
) -> None:
    """Show what is in CACHE: classes with counts, recipe, bytes, fingerprint, what failed, what looks alike.

    Several files are the shards of one set.

    --classes, --class and --per-class say which part of SOURCE is compared with it, as they do to build-cache.
    """
    import json

    from pipeline.inspect.info import check_source, describe_cache
    from pipeline.source.selection import parse_choice

    with usage_errors():
        choice = parse_choice(classes, merged, per_class)
    named = one_or_all(cache)
    info = describe_cache(named)
    differs = {} if check is None else {"source_differs": check_source(named, check, choice)}
    click.echo(json.dumps(info.to_dict() | differs, indent=2) if as_json else info)
    if check and not as_json:
        click.echo(f"source: {differs['source_differs'] or 'matches'}")


@cli.command("verify", epilog=example("python cli.py verify data/cache/example.h5"))
@CACHES
def verify_command(cache: tuple[Path, ...]) -> None:
    """Check every row and table of CACHE against its checksum, and the HDF5 library's view against the header."""
    from pipeline.errors import CacheDamaged
    from pipeline.inspect.verify import verify_cache

    with progress_bar("verify", " rows") as progress:
        damage = list(verify_cache(one_or_all(cache), progress))
    click.echo("\n".join(map(str, damage)) or "every row and table is as it was built")
    if damage:
        click.echo("Run build-cache again: it rebuilds just the damaged rows.", err=True)
        raise SystemExit(CacheDamaged.exit_code)


@cli.command("train", epilog=example("python cli.py train --batch-size 8"))
@click.option(
    "--cache",
    type=PATH,
    help="To train on; a set of shards: 'NAME-*.h5'.  [default: the one in data/cache/]",
)
@click.option("--val", type=PATH, help="A cache to validate on after every epoch.")
@click.option("--val-fraction", type=float, help="Of the images, kept to validate on; their content decides which.")
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(1),
    default=8,
    help="Images that go through the network at once: of all ranks together under torchrun.",
)
@click.option(
    "--model",
    default="modelnet",
    help="modelnet, a torchvision classifier: resnet18, say; or timm:NAME; linear on features.",
)
@click.option("--weights", type=PATH, help="A local file with weights to start from.")
@click.option("--accumulate", type=click.IntRange(1), default=1, help="Batches a step, their gradients added up.")
@click.option(
    "--zero-grad",
    type=click.Choice(CHOICES["zero_grad"]),
    default="batch",
    help="When gradients are cleared: before every step, before every epoch, or never.",
)
@click.option("--epochs", type=click.IntRange(1), default=100, help="Times every image is seen.")
@click.option("--opt", type=click.Choice(CHOICES["opt"]), default="sgd", help="Which of torch's optimizers.")
@click.option("--lr", type=float, help="Learning rate.  [default: 0.001 × batch size for sgd, 0.001 for the others]")
@click.option("--momentum", default=0.5, help="Of sgd and rmsprop.")
@click.option("--wd", "--weight-decay", "weight_decay", default=1e-4, help="Of the optimizer.")
@click.option(
    "--sched",
    type=click.Choice(CHOICES["sched"]),
    default="none",
    help="How the learning rate falls: half a cosine, in steps, or where no epoch gets better any more.",
)
@click.option("--warmup-epochs", type=click.IntRange(0), default=0, help="In which the learning rate rises from 0.")
@click.option("--decay-rate", default=0.1, help="What step and plateau multiply the learning rate by.")
@click.option("--decay-epochs", type=click.IntRange(1), default=30, help="Between two steps of --sched step.")
@click.option(
    "--plateau-epochs", type=click.IntRange(1), default=10, help="Without a better one, before --sched plateau decays."
)
@click.option("--clip-grad", type=float, help="Norm of the gradient at most.")
@click.option("--smoothing", default=0.0, help="Label smoothing, 0 to 1.")
@click.option(
    "--class-weights",
    type=click.Choice(CHOICES["class_weights"]),
    default="none",
    help="balanced: each class counts as much as any other, however few images it has.",
)
@click.option(
    "--model-ema", type=float, metavar="DECAY", help="Validate with a running mean of the weights: 0.99, say."
)
@click.option(
    "--augment",
    default="",
    metavar="KIND,...",
    help="Change training images at random, anew each epoch: flip, crop, color, erase, mixup, cutmix, with commas.",
)
@click.option(
    "--crop-size",
    type=click.IntRange(1),
    help="Side of a part of each image: anywhere in training, the middle otherwise.  [default: all of it]",
)
@click.option("--crop-scale", default=0.35, help="Smallest part of an image's area that crop keeps.")
@click.option("--color-jitter", default=0.4, help="Most that color changes brightness, contrast and saturation by.")
@click.option("--mixup-alpha", default=0.2, help="mixup draws an image's own part from Beta(alpha, alpha).")
@click.option("--cutmix-alpha", default=1.0, help="The same of cutmix; 1 is uniform.")
@click.option("--patience", type=click.IntRange(1), help="End after so many epochs without a better one.")
@click.option("--init", type=click.Choice(CHOICES["init"]), default="default", help="How the weights start.")
@click.option("--shuffle/--no-shuffle", default=True, help="A new order each epoch, or class after class.")
@click.option("--drop-last/--no-drop-last", help="Leave out the last, shorter batch of an epoch.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the initial weights.")
@click.option("--seeds", metavar="SEEDS", help="Many networks at once, one a seed: 0-15, or 3,5,8.")
@click.option("--data-seed", type=click.IntRange(0), default=0, help="Of the order of the images and of --augment.")
@click.option("--data-seeds", metavar="SEEDS", help="Many networks, one an order: 0-3. A pass over the data for each.")
@click.option(
    "--sweep",
    multiple=True,
    metavar="OPTION=VALUE,...",
    help="Many networks, one a value: lr=0.003,0.01. Several are crossed, with each other and the seeds.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:1.")
@click.option("--amp/--no-amp", help="Compute with half-size numbers where that does little harm; evaluate too.")
@click.option(
    "--amp-dtype",
    type=click.Choice(CHOICES["amp_dtype"]),
    default="bfloat16",
    help="Which: float16 is finer, bfloat16 has the range of float32, and is quick on CPUs too.",
)
@click.option("--compile/--no-compile", help="Let torch compile the network first; with CUDA as graphs of kernels.")
@click.option("--preload/--no-preload", help="Keep all images in the device's memory, as they are stored.")
@click.option("-j", "--workers", type=click.IntRange(0), default=0, help="Reading processes; 0 is fastest from memory.")
@click.option(
    "--threads", type=click.IntRange(1), help="PyTorch's threads on the CPU.  [default: 1 per 16 images of a batch]"
)
@click.option("--tensorboard/--no-tensorboard", help="Write every epoch for TensorBoard too, in RUN/tensorboard.")
@click.option("--name", help="Of the run folder in runs/.  [default: <cache>-<model>-001, counted up]")
@click.option(
    "--resume",
    "run",
    type=PATH,
    metavar="RUN",
    help="Go on with this run folder, or all of a group.csv.",
)
@click.pass_context
def train_command(
    ctx: click.Context,
    /,
    run: Path | None,
    cache: Path | None,
    seeds: str | None,
    data_seeds: str | None,
    sweep: tuple[str, ...],
    **options: Any,
) -> None:
    """Train a network on a cache, and keep what comes of it in a new folder runs/<name>/.

    Ctrl-C ends it after the step and saves; --resume goes on from there. With --resume only --epochs, --device,
    --workers, --preload and --compile may be given.

    On several GPUs: torchrun --nproc-per-node 2 cli.py train ... divides every batch among so many processes (ranks);
    the losses are those of one process, up to rounding. --workers and --threads are of each rank.
    """
    import faulthandler

    from modelnet.data.caches import find_cache
    from modelnet.options import TrainOptions
    from modelnet.runtime.interrupt import stop_on_signals
    from modelnet.runtime.ranks import join_ranks
    from modelnet.sweep.grid import parse_seeds, parse_sweep
    from modelnet.sweep.result import ManyResult
    from modelnet.sweep.train import resume_many, train_many
    from modelnet.training.loop import TrainResult
    from modelnet.training.train import resume, train
    from pipeline.load.batch_memory import keep_freed_memory

    faulthandler.enable()  # a disk that fails under a memory map ends the process; this says where
    keep_freed_memory()
    result: TrainResult | ManyResult
    with stop_on_signals() as stop:
        with join_ranks() as ranks, EpochLines() if ranks.is_main else Progress() as progress:
            if run is not None:
                go_on = resume_many if run.suffix == ".csv" else resume
                result = go_on(run, **resume_options(ctx), progress=progress, stop=stop, ranks=ranks)
            else:
                with usage_errors():
                    chosen = TrainOptions(cache or Path(), **options)
                    many = [chosen.seed] if seeds is None else parse_seeds(seeds)
                    orders = None if data_seeds is None else parse_seeds(data_seeds)
                    settings = parse_sweep(sweep)
                refuse_two_values(ctx, seeds, data_seeds, list(settings))
                chosen = replace(chosen, cache=cache or find_cache(DEFAULT_CACHES))
                if seeds or data_seeds or sweep:
                    with usage_errors():
                        result = train_many(
                            chosen, many, progress, stop, data_seeds=orders, sweep=settings, ranks=ranks
                        )
                else:
                    result = train(chosen, progress, stop, ranks)
            if ranks.is_main:
                tell_result(result)
        if result.interrupted:
            end(stop.exit_code)


def tell_result(result: "TrainResult | ManyResult") -> None:
    """Print how training ended."""
    from modelnet.sweep.result import ManyResult

    if result.interrupted:
        stopped = result.table if isinstance(result, ManyResult) else result.run
        click.echo(f"stopped and saved. Go on with: python cli.py train --resume {shlex.quote(str(stopped))}", err=True)
        return
    if isinstance(result, ManyResult):
        click.echo(f"\n{result}\n\nall networks: {show_path(result.table)}\ncurves: {show_path(result.picture)}")
        write_report(result.runs)
        return
    if result.scores is not None:
        click.echo(f"\n{result.scores}\n")
    click.echo(f"loss curve: {show_path(result.run / 'loss.png')}")
    write_report([result.run])


LR_FIND_OPTIONS = (
    *("cache", "val_fraction", "model", "weights", "init", "seed", "data_seed", "device", "workers", "threads"),
    *("amp", "amp_dtype", "preload"),
    *("batch_size", "accumulate", "zero_grad", "shuffle", "drop_last"),
    *("opt", "momentum", "weight_decay", "clip_grad", "smoothing", "class_weights"),
    *("augment", "crop_size", "crop_scale", "color_jitter", "mixup_alpha", "cutmix_alpha"),
)


@cli.command(
    "lr-find",
    epilog=example("python cli.py lr-find --batch-size 8"),
    params=[parameter for parameter in train_command.params if parameter.name in LR_FIND_OPTIONS],
)
@click.option("--epochs", type=click.IntRange(1), default=10, help="That each learning rate is tried for.")
@click.option("--out", type=PATH, help="The picture, a PNG.  [default: runs/<cache>-<model>-lr.png]")
def lr_find_command(cache: Path | None, out: Path | None, **options: Any) -> None:
    """Try learning rates from 0.0001 to 1 for a few epochs each, all from the same start, and suggest one.

    Give it the options of the run that is to follow, but for --val and those of schedule and running mean. The networks
    are thrown away. At the rate with the lowest loss longer runs often fail: the one below it is suggested.
    """
    from modelnet.data.caches import find_cache
    from modelnet.options import TrainOptions
    from modelnet.plots.figures import rate_curve
    from modelnet.training.lr_finder import find_learning_rate
    from pipeline.format.paths import cache_name
    from pipeline.system.files import check_can_publish, publish

    with usage_errors():
        chosen = TrainOptions(cache or Path(), **options)
    chosen = replace(chosen, cache=cache or find_cache(DEFAULT_CACHES))
    title = f"{cache_name(chosen.cache)}-{chosen.model_in_names}-lr"
    path = out or Path("runs") / f"{title}.png"
    if out is not None:
        with output_errors(path):
            check_can_publish(path)
    with progress_bar("lr-find", " rates") as bar:
        curve = find_learning_rate(chosen, progress=Remarks(), done=bar)
    click.echo(curve)
    with output_errors(path):
        check_can_publish(path)
        publish(rate_curve(curve.rates, curve.losses, curve.blind, curve.suggestion, curve.epochs, title), path)
    click.echo(f"picture: {show_path(path)}")


RUN = click.argument("run", type=PATH)
CHECKPOINT = click.option(
    "--checkpoint", type=click.Choice(["last", "best"]), default="last", help="The weights at the end, or the best."
)
DEVICE = click.option("--device", default="auto", help="auto, cpu, cuda or cuda:1.")


@cli.command(
    "evaluate", epilog=example("python cli.py evaluate runs/example-modelnet-001 --cache data/cache/example.h5")
)
@RUN
@click.option("--cache", type=PATH, help="Another one, whole.  [default: what RUN validated on]")
@CHECKPOINT
@DEVICE
@click.option("-j", "--workers", type=click.IntRange(0), default=0, help="Reading processes.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def evaluate_command(run: Path, cache: Path | None, checkpoint: str, device: str, workers: int, as_json: bool) -> None:
    """Show how good the network of RUN is: on its validation images, or on those of another cache."""
    import json

    from modelnet.eval.trained import Trained

    scores = Trained.load(run, checkpoint, device).evaluate(cache, workers, Remarks())
    click.echo(json.dumps(scores.to_dict(), indent=2) if as_json else scores)


@cli.command("predict", epilog=example("python cli.py predict runs/example-modelnet-001 data/example"))
@RUN
@click.argument("images", nargs=-1, required=True, type=PATH, metavar="IMAGE|FOLDER...")
@click.option("-k", "--top-k", type=click.IntRange(1), default=3, help="Classes an image, the most probable first.")
@CHECKPOINT
@DEVICE
@click.option("--weights", type=PATH, help="Of the frozen network, where RUN is of features.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: a line an image.")
def predict_command(
    run: Path,
    images: tuple[Path, ...],
    top_k: int,
    checkpoint: str,
    device: str,
    weights: Path | None,
    as_json: bool,
) -> None:
    """Say what the network of RUN sees in images, prepared bit for bit as those that it was trained on.

    Files that give no image are named, and the command ends with 3.
    """
    import json

    from modelnet.eval.predict import answer_dict, answer_text, predict
    from modelnet.eval.trained import Trained

    trained = Trained.load(run, checkpoint, device).on_images(weights)
    failed = False
    for answer in predict(trained, images, top_k):
        failed |= bool(answer.error)
        if as_json:
            click.echo(json.dumps(answer_dict(trained, answer)))
        elif answer.error:
            click.echo(f"warning: left out: {show_path(answer.file)}: {answer.error}", err=True)
        else:
            click.echo(answer_text(trained, answer))
    if failed:
        raise SystemExit(DONE_WITH_FAILURES)


@cli.command("export", epilog=example("python cli.py export runs/example-modelnet-001"))
@RUN
@click.option(
    "--format", "form", type=click.Choice(["onnx", "torch"]), default="onnx", help="torch: torch.export, .pt2."
)
@click.option("--out", type=PATH, help="The file.  [default: RUN/model.onnx or RUN/model.pt2]")
@CHECKPOINT
@click.option("--weights", type=PATH, help="Of the frozen network, where RUN is of features.")
def export_command(run: Path, form: str, out: Path | None, checkpoint: str, weights: Path | None) -> None:
    """Write the network of RUN for other programs, with how its images are prepared and what its classes are.

    It takes any number of images. What was written is read again, and has to give the network's logits within 1e-5.
    """
    from modelnet.eval.export import SUFFIXES, export
    from modelnet.eval.trained import Trained
    from pipeline.system.files import check_can_publish, publish

    trained = Trained.load(run, checkpoint, "cpu").on_images(weights)
    path = out or run / f"model{SUFFIXES[form]}"
    with output_errors(path):
        check_can_publish(path)
    exported = export(trained, form)
    with output_errors(path):
        publish(exported.data, path)
    click.echo(exported.text(path))
    if exported.checked_by is None:
        click.echo("warning: not checked: onnxruntime is not installed", err=True)


@cli.command("report", epilog=example("python cli.py report runs/example-modelnet-001"))
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option(
    "--out",
    type=PATH,
    help="The page.  [default: RUN/report.html, of several runs <first>-to-<last>.html beside them]",
)
def report_command(runs: tuple[Path, ...], out: Path | None) -> None:
    """Show runs as one HTML page: curves, mistakes with their pictures, scores of each class, options, environment.

    The page needs nothing outside itself, so that it can be sent, printed and kept. Runs that differ in their seeds
    alone are taken together, others side by side. A group.csv stands for all the runs that it names.
    """
    write_report(named_runs(runs), out)


def named_runs(paths: Iterable[Path]) -> list[Path]:
    """Return the runs that are meant: a group.csv stands for those that it names.

    Pages and pictures are left out, which `report`, `train --seeds` and `lr-find` write beside the runs: runs/* names
    them too.
    """
    from modelnet.runs.folder import RunFolder

    paths = list(paths)
    meant = [path for path in paths if not (path.suffix in (".html", ".png") and path.is_file())]
    groups = [RunFolder.read_group(path) if path.suffix == ".csv" else [path] for path in meant or paths]
    return [run for group in groups for run in group]


def write_report(runs: Sequence[Path], out: Path | None = None) -> None:
    """Write the page of some runs and say where it is."""
    from modelnet.pages.collect import gather
    from modelnet.pages.page import render
    from pipeline.system.files import check_can_publish, publish

    page = render(gather(runs))
    first, last = (Path(os.path.normpath(run.absolute())) for run in (runs[0], runs[-1]))
    default = first / "report.html" if len(runs) == 1 else first.parent / f"{first.name}-to-{last.name}.html"
    path = out or Path(os.path.relpath(default))
    with output_errors(path):
        check_can_publish(path)
        publish(page, path)
    click.echo(f"report: {show_path(path)}")


@cli.command("compare", epilog=example("python cli.py compare runs/example-modelnet-001 runs/example-modelnet-002"))
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN... [vs RUN...]")
@click.option("--json", "as_json", is_flag=True, help="For scripts, with every image that flipped.")
def compare_command(runs: tuple[Path, ...], as_json: bool) -> None:
    """Say whether runs that were validated on the same images differ beyond chance, and in which options.

    Runs that differ in --seed and --data-seed alone are taken together. "vs" between runs says otherwise which belong
    together: compare runs/old-* vs runs/new-*. A group.csv stands for all the runs that it names.
    """
    import json

    from modelnet.compare.compare import compare_groups, compare_runs

    groups = [named_runs(group) for between, group in groupby(runs, Path("vs").__eq__) if not between]
    compared = compare_groups(groups) if Path("vs") in runs else compare_runs(named_runs(runs))
    click.echo(json.dumps(compared.to_dict(), indent=2) if as_json else compared)


def refuse_two_values(ctx: click.Context, seeds: str | None, data_seeds: str | None, swept: list[str]) -> None:
    """Refuse an option that is given once for all networks and once for each."""
    each = {name: f"--sweep {name.replace('_', '-')}=..." for name in swept}
    each |= {"seed": "--seeds"} if seeds is not None else {}
    each |= {"data_seed": "--data-seeds"} if data_seeds is not None else {}
    for name, instead in each.items():
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{instead} gives each network its own; leave out --{name.replace('_', '-')}")


def resume_options(ctx: click.Context) -> dict[str, Any]:
    """Return the options typed beside --resume; a run goes on with its own."""
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    free = {"epochs", "device", "workers", "preload", "compile"}
    if other := given - free - {"run"}:
        flags = ", ".join(sorted(max(p.opts, key=len) for p in ctx.command.params if p.name in other))
        raise click.UsageError(f"--resume goes on with the run's own options; leave out {flags}")
    return {name: ctx.params[name] for name in given & free}


class Remarks(Progress):
    """Prints what a user should know on stderr."""

    def note(self, text: str) -> None:
        """Print it."""
        self._echo(text, err=True)

    def warn(self, text: str) -> None:
        """Print it as a warning."""
        self._echo(f"warning: {text}", err=True)

    def _echo(self, text: str, err: bool = False) -> None:
        click.echo(text, err=err)


class EpochLines(Remarks):
    """Prints a line an epoch; on a terminal, a bar below them says when training will end."""

    def __enter__(self) -> Self:
        from tqdm import tqdm

        shape = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} images, {rate_fmt}, {remaining} left, ends {eta:%H:%M}"
        self._bar = tqdm(
            disable=not sys.stderr.isatty(),
            unit=" images",
            dynamic_ncols=True,
            leave=False,
            bar_format=shape,
            delay=0.1,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def started(self, run: Path, images: int, done: int) -> None:
        """Say where the run is kept and what the numbers mean; start the bar."""
        self._echo(f"run folder: {show_path(run)}")
        self._echo("training loss and accuracy are running means: each image as it was before the step it led to")
        self._bar.initial = done
        self._bar.reset(images)
        self._bar.update(done)

    def step(self, images: int) -> None:
        """Move the bar."""
        self._bar.update(images)

    def epoch(self, row: "EpochRow", epochs: int) -> None:
        """Print the line of an epoch."""
        parts = [f"training loss {row.train_loss:.4f}, accuracy {row.train_acc:.1%}"]
        if row.val_loss is not None:
            parts.append(f"validation loss {row.val_loss:.4f}, accuracy {row.val_acc:.1%}")
        parts.append(f"{row.images_per_s:,.0f} images/s, {row.data_wait_s:.2f} s waiting for data")
        self._echo(f"epoch {row.epoch:{len(str(epochs))}}/{epochs}: {' | '.join(parts)}")

    def _echo(self, text: str, err: bool = False) -> None:
        with self._bar.external_write_mode(file=sys.stderr if err else sys.stdout):
            click.echo(text, err=err)


def default_cache(source: Path) -> Path:
    """Name the cache of a source: its own name, with its parent's for train, val and test."""
    place = Path(os.path.normpath(source.absolute()))
    own, parent = (re.sub(r"\.(tar|zip)$", "", name, flags=re.IGNORECASE) for name in (place.name, place.parent.name))
    name = f"{parent}-{own}" if own in ("train", "val", "test") else own
    return DEFAULT_CACHES / f"{name or 'cache'}.h5"


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a value that the program cannot use into a usage error (2)."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Name the file that could not be written (73)."""
    try:
        yield
    except OSError as error:
        raise OutputError("the file cannot be written", path, error.strerror or str(error)) from error


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
        if _lost:
            raise _lost.pop()

    with bar:
        yield show


_lost: list[BaseException] = []


def _remember_signals(unraisable: "sys.UnraisableHookArgs") -> None:
    """Keep a signal's exception that came where Python can only drop it (a callback of the collector, an import)."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt | Interrupted | Terminated):
        _lost.append(unraisable.exc_value)
    else:
        sys.__unraisablehook__(unraisable)


MOST_FILES = 2**17


def allow_many_files() -> None:
    """Raise the number of files that this process may have open as far as it may: a shard takes two of often 1,024."""
    import resource

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if most == resource.RLIM_INFINITY else min(most, MOST_FILES)
    if 0 <= now < most:
        with suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def working_folder_exists() -> bool:
    """Whether the folder that the command was typed in is still there."""
    with suppress(FileNotFoundError):
        return Path.cwd().is_dir()
    return False


def open_missing_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr the null device in their place.

    Else the first file that is opened gets the number of one, and whatever a library prints would go into a cache.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def main() -> NoReturn:
    """Run the command line; every failure is one line on stderr and an exit code of `pipeline.errors`."""
    debug = "--debug" in sys.argv  # before the command or behind it
    open_missing_streams()
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _remember_signals
    allow_many_files()
    try:
        code = cli.main([argument for argument in sys.argv[1:] if argument != "--debug"], standalone_mode=False)
        sys.stdout.flush()
        end(code if isinstance(code, int) else 0)
    except SystemExit:
        raise
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "cli.py"
        message = error.format_message().rstrip(".")
        if message.startswith("Got unexpected extra argument") and ".h5" in message:
            message += ". Quote a pattern of files, so that the shell leaves it alone: 'NAME-*.h5'"
        fail(f"{message}. See {command} --help", error.exit_code, debug)
    except (click.Abort, Interrupted, KeyboardInterrupt):
        fail("interrupted. Run the same command again to go on", INTERRUPTED, debug)
    except Terminated:
        fail("terminated. Run the same command again to go on", TERMINATED, debug)
    except PipelineError as error:
        fail(str(error), error.exit_code, debug)
    except (Unread, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        end(0)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not working_folder_exists():
            fail(
                "the current folder is gone: it was deleted or moved. Change to one that is there",
                SourceError.exit_code,
                debug,
            )
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            report_bug(error, debug)
        fail(f"writing failed: {error.strerror}. Free some room and run it again", StorageError.exit_code, debug)
    except ImportError as error:  # not installed, or no room for it in memory
        again = "Install it: pip install modelnet-cache; or raise the limit of memory (ulimit -v)"
        fail(f"a library that is needed cannot be loaded: {error}. {again}", WorkerDied.exit_code, debug)
    except Exception as error:
        report_bug(error, debug)


def report_bug(error: Exception, debug: bool) -> NoReturn:
    """Say that something went wrong that should have been foreseen."""
    fail(f"this is a bug: {type(error).__name__}: {error}. Run it with --debug and report what it shows", BUG, debug)


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun has started."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def fail(message: str, code: int, debug: bool) -> NoReturn:
    """Say what went wrong in one line and end; of several processes of a training, one says it."""
    if under_torchrun():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which comes as soon as another rank has ended
        try:
            from modelnet.runtime.ranks import may_speak

            speaks = may_speak(code)
        except Exception:  # torch is what failed, or it was stopped in the middle of being imported
            speaks = code not in (INTERRUPTED, TERMINATED) or os.environ.get("RANK") == "0"
        if not speaks:
            end(code)
    for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C: it ends already, and the first one's code counts
        signal.signal(number, signal.SIG_IGN)
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"error: {message}", err=True)
    end(code)


def end(code: int) -> NoReturn:
    """End the process; one of several at once, so that those that wait for it fail, and wait no longer.

    Nor may Python take itself apart there: gloo's threads outlive the process group as long as something holds a
    network that was trained with it, and one that then needs the interpreter aborts the process, now and then.
    """
    if under_torchrun():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    main()
