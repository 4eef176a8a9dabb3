"""train: train a network, or many of them, on a cache."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from modelnet.commands._console import EpochLines, usage_errors
from modelnet.commands._options import DEFAULT_CACHES, PATH, example
from modelnet.commands._process import end
from modelnet.commands.report import write_report
from modelnet.options import CHOICES
from modelnet.progress import Progress
from pipeline.text import show_path

if TYPE_CHECKING:
    from modelnet.sweep.result import SweepResult
    from modelnet.training.loop import TrainResult


@click.command("train", epilog=example("python cli.py train --batch-size 8"))
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
def command(
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
    from modelnet.sweep.result import SweepResult
    from modelnet.sweep.train import resume_many, train_many
    from modelnet.training.loop import TrainResult
    from modelnet.training.train import resume, train
    from pipeline.load.batch_memory import keep_freed_memory

    faulthandler.enable()  # a disk that fails under a memory map ends the process; this says where
    keep_freed_memory()
    result: TrainResult | SweepResult
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


def tell_result(result: "TrainResult | SweepResult") -> None:
    """Print how training ended."""
    from modelnet.sweep.result import SweepResult

    if result.interrupted:
        stopped = result.table if isinstance(result, SweepResult) else result.run
        click.echo(f"stopped and saved. Go on with: python cli.py train --resume {shlex.quote(str(stopped))}", err=True)
        return
    if isinstance(result, SweepResult):
        click.echo(f"\n{result}\n\nall networks: {show_path(result.table)}\ncurves: {show_path(result.picture)}")
        write_report(result.runs)
        return
    if result.scores is not None:
        click.echo(f"\n{result.scores}\n")
    click.echo(f"loss curve: {show_path(result.run / 'loss.png')}")
    write_report([result.run])


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
