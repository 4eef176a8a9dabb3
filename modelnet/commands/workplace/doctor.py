"""doctor: say what this installation and machine have, what an epoch waits for, and what would help."""

from pathlib import Path

import click

from modelnet.commands._options import PATH, TRUST, check_there, example
from modelnet.commands.shared.process import tell
from pipeline.text import align


@click.command("doctor", epilog=example("doctor"))
@click.argument("path", required=False, type=PATH, metavar="[CACHE|RUN]")
@TRUST
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def command(path: Path | None, trust_code: bool, as_json: bool) -> None:
    """Show versions, processor, GPU, memory and disk, and whether the fast decoder and the compiled code are in use.

    With RUN, its network is trained for some seconds; with CACHE, a ModelNet. Lines say what an epoch waits for, and
    what would help. Nothing is written.
    """
    import json

    from modelnet.options import TrainOptions
    from modelnet.runs.repeat import repeated_options
    from modelnet.training.machine import describe_machine
    from modelnet.training.speed import measure_speed

    speed = None
    facts = describe_machine(Path.cwd())
    if path is not None:
        if path.is_dir():
            options = repeated_options(path, trust_code=trust_code)
        else:
            check_there(path)
            options = {"cache": path}
        speed = measure_speed(TrainOptions(**options), run=path if path.is_dir() else None)
    if as_json:
        machine = {fact.name: {"value": fact.value, "advice": fact.advice} for fact in facts}
        tell(json.dumps({"machine": machine, "speed": None if speed is None else speed.to_dict()}, indent=2))
        return
    tell("\n".join(align([[fact.name, fact.value] for fact in facts], left=(0, 1))))
    advice = [f"would help: {fact.name}: {fact.advice}" for fact in facts if fact.advice]
    tell("\n".join(["", *([str(speed)] if speed else []), *advice]).rstrip())
