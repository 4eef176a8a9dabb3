"""How caches, loaders and results show themselves: short, and as nothing but text."""

from collections import Counter
from pathlib import Path

from modelnet.compare.compare import compare_runs
from modelnet.progress import EpochRow
from modelnet.training.loop import TrainResult
from pipeline import TensorCache, make_loader
from pipeline.build.report import BuildReport
from tests.support.made_runs import ANSWERS, HOSTILE, make_run


def test_texts_are_short_and_say_what_it_is(cache_path: Path) -> None:
    loader = make_loader(TensorCache(cache_path), 3, seed=5, augment="flip", workers=2)
    assert repr(loader).endswith(
        ": 8 images, 2 classes, 64 × 64)), changed by flip, 2 workers, EpochSampler(8 rows shuffled with seed 5, "
        "3 batches of 3, next epoch 0))"
    )
    own = make_loader(TensorCache(cache_path), shuffle=False)
    assert "in plain order" in repr(own) and "changed" not in repr(own)
    row = EpochRow(1, 0.5, 0.5, 0.4, 0.75, 0.1, 1, 0, 1)
    result = TrainResult(Path("runs/a"), [row] * 300, True)
    shown = "TrainResult('runs/a': interrupted after 300 epochs, training loss 0.5000, validation accuracy 75.0%)"
    assert repr(result) == shown and repr(TrainResult(Path("b"), [], False)) == "TrainResult('b': 0 epochs)"
    assert result._repr_html_().count("<svg") == 2


def test_html_is_escaped_and_bounded(cache_path: Path, in_a_folder_of_its_own: None) -> None:
    classes = [f"{HOSTILE}{i}" for i in range(500)]
    report = BuildReport(Path(f"{HOSTILE}.h5"), list(classes), classes, [1] * 500, 500, left_out=Counter({HOSTILE: 3}))
    runs = [make_run(f"{HOSTILE.replace('/', '')}{i}", [0.7], ANSWERS, seed=i) for i in range(2)]
    result = TrainResult(Path(HOSTILE), [], False)
    cache = TensorCache(cache_path)
    for value in (report, compare_runs(runs), result, cache, make_loader(cache)):
        html = value._repr_html_()  # type: ignore[union-attr]
        assert "<script" not in html and len(html) < 10_000 and len(repr(value)) < 1000
    assert "and 463 more" in report._repr_html_() and "500 images, 500 classes, 0 failed" in repr(report)
