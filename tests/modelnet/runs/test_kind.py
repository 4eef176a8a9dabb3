"""Which runs differ in their seeds alone."""

from pathlib import Path
from typing import Any

import pytest

from modelnet import TrainOptions
from modelnet.runs.kind import facts_of, kind_of
from pipeline.recipe import Recipe
from tests.support.made_runs import config_of


def kind(more: dict[str, Any] | None = None, **options: Any) -> str:
    config = config_of(TrainOptions(Path("c.h5"), **options)) | (more or {})
    return kind_of(facts_of(config))


@pytest.mark.parametrize(
    "options", [{"seed": 3}, {"data_seed": 3}, {"name": "x"}, {"workers": 2}, {"lr": 0.008}, {"decay_epochs": 3}]
)
def test_seeds_places_and_idle_options_make_no_other_kind(options: dict[str, Any]) -> None:
    assert kind(**options) == kind()


def test_other_options_images_and_recipes_make_another_kind() -> None:
    config = config_of(TrainOptions(Path("c.h5")))
    others = [
        kind(lr=0.1),
        kind({"cache": config["cache"] | {"fingerprint": "0" * 64}}),
        kind({"cache": config["cache"] | {"recipe": config["cache"]["recipe"] | {"size": 65}}}),
    ]
    assert len({kind(), *others}) == 4


def test_runs_of_an_earlier_version_are_of_the_same_kind() -> None:
    """They named the same rows by another fingerprint, and recorded fewer keys of the recipe."""
    cache = config_of(TrainOptions(Path("c.h5")))["cache"]
    now = cache | {"fingerprint": "1" * 64, "earlier_fingerprint": "2" * 64}
    earlier = cache | {"fingerprint": "2" * 64, "recipe": Recipe(64, dtype="uint8").to_earlier_dict()}

    assert kind({"cache": now}) == kind({"cache": earlier})
    assert kind({"cache": now}) != kind({"cache": now | {"earlier_fingerprint": ""}})


def test_the_digest_of_weights_decides_and_not_their_path() -> None:
    def with_weights(path: str, digest: str) -> str:
        return kind({"weights": {"sha256": digest}}, weights=Path(path))

    assert with_weights("w.pt", "1" * 64) == with_weights("moved/w.pt", "1" * 64)
    assert with_weights("w.pt", "1" * 64) != with_weights("w.pt", "2" * 64)
    assert kind(weights=Path("w.pt")) != kind(weights=Path("x.pt"))  # of an earlier version, without a digest


def test_a_run_of_an_earlier_version_has_a_kind() -> None:
    config = config_of(TrainOptions(Path("c.h5")))
    for key in ("git_commit", "versions"):
        del config[key]
    assert kind_of(facts_of(config)) == kind()


def test_a_run_without_a_number_of_epochs_had_the_default() -> None:
    config = config_of(TrainOptions(Path("c.h5")))
    del config["options"]["epochs"]
    assert facts_of(config)["epochs"] == str(TrainOptions(Path("c.h5")).epochs)
