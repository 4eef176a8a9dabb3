"""An experiment whose file, images or files have changed since it was trained (modelnet/sweep/experiment.py)."""

import shutil
from pathlib import Path

import pytest
import torch

from modelnet.nets.registry import build_network
from modelnet.progress import Progress
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.experiment import train_experiment
from pipeline import TensorCache
from pipeline.errors import OptionsError
from tests.support.experiments import TEXT, experiment, predictions
from tests.support.own_code import CHANGE
from tests.support.photos import PHOTOS
from tests.support.splits import write_folds

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def test_runs_with_other_options_are_refused(cache_path: Path) -> None:
    train_experiment(experiment(cache_path, 1), Progress(), Stop())

    with pytest.raises(
        OptionsError, match=r"e-fast-seed-0: its lr is 0.05, and e.toml says 0.07. Give .* another name"
    ):
        train_experiment(experiment(cache_path, 1, TEXT.replace("0.05", "0.07")), Progress(), Stop())


def finished(cache: Path, lines: str = "") -> str:
    """Train an experiment with more lines in its common table; return its text."""
    text = TEXT.replace("epochs =", f"{lines}\nepochs =")
    text = text.replace("val-fraction = 0.5\n", "") if "split" in lines else text
    assert train_experiment(experiment(cache, 1, text), Progress(), Stop()) is not None
    return text


@pytest.mark.parametrize("option", ["cache", "val"])
def test_other_images_are_an_error_wherever_they_are(option: str, cache_path: Path, uint8_cache_path: Path) -> None:
    shutil.copy(cache_path, "a.h5")
    text = TEXT.replace("{cache}", "a.h5").replace("val-fraction = 0.5", 'val = "a.h5"')
    train_experiment(experiment(Path(), 1, text), Progress(), Stop())
    before = predictions()
    Path("a.h5").rename("moved.h5")
    moved = text.replace("a.h5", "moved.h5")
    assert train_experiment(experiment(Path(), 1, moved), Progress(), Stop()) is None
    assert train_experiment(experiment(Path(), 1, text), Progress(), Stop()) is None  # nothing is left to read

    shutil.copy(uint8_cache_path, "b.h5")
    with pytest.raises(OptionsError, match=f"seed-0: its {option} was a.h5, and is b.h5 now, of other images"):
        other = moved.replace(f'{option} = "moved.h5"', f'{option} = "b.h5"')
        train_experiment(experiment(Path(), 1, other), Progress(), Stop())
    Path("b.h5").rename("a.h5")
    with pytest.raises(OptionsError, match="its cache has other images now"):
        train_experiment(experiment(Path(), 1, text), Progress(), Stop())
    assert predictions() == before


def write_content(option: str, cache: Path, number: int) -> None:
    """Write the file f that an option names, with another content for each number."""
    if option == "split":
        write_folds(TensorCache(cache), Path("f.csv"), 2 + number)
    elif option == "weights":
        torch.manual_seed(number)
        torch.save(build_network("modelnet", 2, 64).state_dict(), "f")
    elif option == "labels":
        rows = [f"{class_id}/{name},{class_id}" for class_id, names in PHOTOS.items() for name in names]
        Path("f.csv").write_text("\n".join(["file,label", *sorted(rows, reverse=bool(number))]))
    else:
        Path("f.py").write_text(f"{CHANGE}# {number}\n")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("split", '"f.csv"\nfold = 0'),
        ("weights", '"f"'),
        ("labels", '"f.csv"'),
        ("augment_code", '"f.py:speckle"'),
    ],
)
def test_a_changed_file_is_an_error_also_where_nothing_is_left_to_train(
    option: str, value: str, cache_path: Path
) -> None:
    write_content(option, cache_path, 0)
    text = finished(cache_path, f"{option} = {value}")
    more = text.replace('"0,1"', '"0-2"')
    assert train_experiment(experiment(cache_path, 1, more), Progress(), Stop()) is not None
    write_content(option, cache_path, 1)

    with pytest.raises(OptionsError, match=rf"its {option} had the SHA-256 \w{{12}}, and f\S* has \w{{12}} now\. Give"):
        train_experiment(experiment(cache_path, 1, more), Progress(), Stop())


def test_what_the_machine_chose_is_no_other_option_and_what_is_typed_is(cache_path: Path) -> None:
    text = finished(cache_path).replace("threads = 1\n", "")
    assert train_experiment(experiment(cache_path, 1, text), Progress(), Stop()) is None

    for line, said in (("threads = 2", "threads is 1, and e.toml says 2"), ("tensorboard = true", "tensorboard is F")):
        with pytest.raises(OptionsError, match=f"e-slow-seed-0: its {said}"):
            other = text.replace("[slow]", f"{line}\n[slow]")
            train_experiment(experiment(cache_path, 1, other), Progress(), Stop())
