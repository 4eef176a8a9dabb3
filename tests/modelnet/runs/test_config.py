"""What config.json has to say for itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from modelnet import TrainOptions
from modelnet.runs.config import parse_config
from tests.support.made_runs import config_of


def test_validation_images_that_options_name_must_be_described() -> None:
    def parsed(described: dict[str, Any] | None, **options: Any) -> Any:
        return parse_config(json.dumps(config_of(TrainOptions(Path("c.h5"), **options)) | {"val": described}).encode())[
            "val"
        ]

    images = config_of(TrainOptions(Path("c.h5")))["cache"]
    assert parsed(None) is None
    assert parsed(images, val=Path("v.h5")) == images
    for options in ({"val": Path("v.h5")}, {"val_fraction": 0.2}):
        with pytest.raises(ValueError, match="val is a table, since options name"):
            parsed(None, **options)
