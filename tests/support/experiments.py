"""An experiment of two sides with two seeds each, written, trained and read."""

from pathlib import Path

from modelnet.sweep.experiment import Experiment, read_experiment

TEXT = """
seeds = "0,1"
[common]
cache = "{cache}"
val-fraction = 0.5
epochs = {epochs}
batch-size = 3
threads = 1
[slow]
lr = 0.01
[fast]
lr = 0.05
momentum = 0.9
"""


def experiment(cache: Path, epochs: int = 3, text: str = TEXT) -> Experiment:
    Path("e.toml").write_text(text.format(cache=cache, epochs=epochs))
    return read_experiment(Path("e.toml"), Path("data/cache"))


def predictions() -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in Path("runs").glob("*/predictions.csv")}
