"""Forks training runs that are killed, or asked to stop, at a chosen moment; they need not import torch each.

Reads one JSON line a run from stdin: folder, options, moment; answers with its exit code, negative for a signal.
A folder has one run, or a group of one for each of the "seeds" among its options, or an experiment e.toml.
"""

import faulthandler
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from modelnet.options import TrainOptions
from modelnet.progress import Progress
from modelnet.runtime.interrupt import stop_on_signals
from modelnet.sweep import loop as sweep_loop
from modelnet.sweep.experiment import read_experiment, train_experiment
from modelnet.sweep.result import SweepResult
from modelnet.sweep.train import resume_many, train_many
from modelnet.training import loop
from modelnet.training.loop import TrainResult
from modelnet.training.train import resume, train
from pipeline.system import files

DONE, STOPPED = 0, 143


class Moment(NamedTuple):
    """When a run ends too early.

    Attributes:
        what: "step", "file" (an operation on a file, of a checkpoint or another) or "never".
        number: of steps or operations before it, in this process.
        signum: SIGKILL, or SIGTERM, which lets the step end and saves.
        half: with "file", in the midst of the operation.
    """

    what: str = "never"
    number: int = 0
    signum: int = signal.SIGKILL
    half: bool = False


def main() -> None:
    """Serve runs until stdin ends."""
    for line in sys.stdin:
        folder, values, moment = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                run(Path(folder), values, Moment(*moment))
            finally:  # never back into the loop; an exception has no exit code of its own here
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


class Victim(Progress):
    """Ends the process after so many steps."""

    def __init__(self, moment: Moment) -> None:
        self.moment, self.steps = moment, 0

    def step(self, images: int) -> None:
        """Count a step."""
        self.steps += 1
        if self.moment.what == "step" and self.steps == self.moment.number:
            os.kill(os.getpid(), self.moment.signum)


def run(folder: Path, values: dict[str, Any], moment: Moment) -> None:
    """Begin a run in `folder`, or go on with the one that is there, and exit with 0, or 143 where it was stopped."""
    faulthandler.enable()
    torch.set_num_threads(1)
    os.chdir(folder)
    loop.SECONDS_BETWEEN_SAVES = 0.0  # so that there are many moments to be killed at
    sweep_loop.SECONDS_BETWEEN_SAVES = 0.0  # type: ignore[attr-defined]
    loop.loss_curves = lambda *_: b""  # type: ignore[attr-defined]
    done = _watch_operations(moment)
    seeds = values.pop("seeds", [])
    options, name = TrainOptions.from_dict(values), "run"
    table = Path("runs") / f"{name}-seed-0" / "group.csv"
    with stop_on_signals() as stop:
        result: TrainResult | SweepResult
        if (file := Path("e.toml")).exists():
            ended = train_experiment(read_experiment(file, Path()), Victim(moment), stop)
            result = ended or TrainResult(Path(), [], interrupted=False)
        elif seeds and table.exists():
            result = resume_many(table, progress=Victim(moment), stop=stop)
        elif seeds:
            result = train_many(options, seeds, Victim(moment), stop)
        elif (folder / "runs" / name / "checkpoints" / "last.pt").exists():
            result = resume(Path("runs") / name, progress=Victim(moment), stop=stop)
        else:
            result = train(options, Victim(moment), stop)
    (folder / "operations").write_text(str(len(done)))
    os._exit(STOPPED if result.interrupted else DONE)


def _watch_operations(moment: Moment) -> list[str]:
    """Note operations on files, and end the process at one of them, or with half of it done, if it is the moment."""
    done: list[str] = []

    def watch(name: str) -> None:
        real = getattr(files, name)

        def operate(*arguments: Any) -> Any:
            done.append(name)
            if moment.what == "file" and len(done) == moment.number:
                if moment.half and name == "write_all":
                    fd, data, offset = arguments
                    real(fd, memoryview(data).cast("B")[: len(data) // 2], offset)
                os.kill(os.getpid(), moment.signum)
            return real(*arguments)

        setattr(files, name, operate)

    for name in ("write_all", "rename", "remove", "sync"):
        watch(name)
    return done


if __name__ == "__main__":
    main()
