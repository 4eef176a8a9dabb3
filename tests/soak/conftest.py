"""What the soak suites share: how many rounds to do, and a folder in memory to do them in."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.soak.builders import Builders, builder_process

Count = Callable[[int, int], int]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give a suite the time that its count needs."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(120 + 7200 * config.getoption("--soak-scale")))


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    """Scale a full count, down to a least one: `count(1000, 10)`."""
    scale: float = request.config.getoption("--soak-scale")
    return lambda full, least: max(least, round(full * scale))


@pytest.fixture
def workspace() -> Iterator[Path]:
    """A folder in memory where the system has such a place, so that thousands of builds do not wait for a disk."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def builders() -> Iterator[Builders]:
    """A process that starts and kills builders."""
    with builder_process() as running:
        yield running
