"""`python -m benchmarks SOURCE`: measure, print tables as Markdown, and record them."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

PARTS = (
    *("reading", "augmented", "building", "training", "many", "memory", "scale", "larger", "sharding", "starting"),
    *("features", "networks", "scaled", "windows", "prices"),
)
WITH_WEIGHTS = ("preparation", "pretrained", "folds")
AS_COMMANDS = ("augmented",)  # measured beside a busy process, with waiting threads that sleep, as the commands have it
ASKED_FOR = ("photographs", "filters", *WITH_WEIGHTS)  # whose SOURCE holds train/ and val/


def main() -> None:
    """Parse, measure, print."""
    options = parse()
    from benchmarks.dataset import Workplace
    from benchmarks.tables import machine, write
    from pipeline.load.batch_memory import keep_freed_memory

    keep_freed_memory()  # as `train` does; the other systems gain by it too
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.workdir) as folder:
        work = Workplace(Path(folder), options.source.absolute(), options.images, options.rounds, say, options.weights)
        for part in options.only:
            if part in AS_COMMANDS and os.environ.get("OMP_WAIT_POLICY") != "passive":
                in_a_process(options, part)
                continue
            start = time.monotonic()
            with contextlib.redirect_stdout(sys.stderr):  # other systems print
                tables = import_module(f"benchmarks.{part}").measure(work)
            write(tables, options.out / f"{part}.md", machine())
            print("\n".join(map(str, tables)), flush=True)
            say(f"{part} took {time.monotonic() - start:.0f} s")
    sys.stdout.flush()
    os._exit(0)  # other systems leave threads behind that would not end


def in_a_process(options: argparse.Namespace, part: str) -> None:
    """Measure a part in a process whose waiting threads sleep, which is settled when PyTorch is imported."""
    given = {"--images": options.images, "--rounds": options.rounds, "--out": options.out, "--workdir": options.workdir}
    named = [str(one) for name, value in given.items() if value is not None for one in (name, value)]
    command = [sys.executable, "-m", "benchmarks", str(options.source), "--only", part, *named]
    subprocess.run(command, env=os.environ | {"OMP_WAIT_POLICY": "passive"}, check=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    names = ",".join((*PARTS, *ASKED_FOR))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("source", type=Path, help="a folder of photographs, a class a folder")
    parser.add_argument("--images", type=int, default=9216, help="to how many it is replicated by links (9216)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (5)")
    parser.add_argument("--only", type=_parts, default=PARTS, metavar="PART,...", help=f"of {names}")
    parser.add_argument("--weights", type=_file, help=f"of timm's tf_efficientnet_lite0, for {', '.join(WITH_WEIGHTS)}")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="where tables are recorded")
    parser.add_argument("--workdir", type=Path, help="where everything is built, about 21 GB (the temporary folder)")
    return parser.parse_args()


def command_of(part: str) -> str:
    """Return the command that measures and records a part again."""
    source = "hymenoptera_data" if part in ASKED_FOR else "FOLDER"
    return f"make bench ONLY={part} SOURCE={source}" + (" WEIGHTS=FILE" if part in WITH_WEIGHTS else "")


def _file(text: str) -> Path:
    path = Path(text).absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    known = (*PARTS, *ASKED_FOR)
    if unknown := [part for part in parts if part not in known]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(known)}")
    return parts


def say(text: str) -> None:
    """Tell on stderr what goes on."""
    print(f"… {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
