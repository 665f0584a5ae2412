"""Pytest plugin: how the suite is shared out over the worker processes of pytest-xdist (`make test`).

A file's tests stay on one worker, so that its fixtures are made once; tests marked `serial` run at the end, while all
other workers wait. Without xdist (plain `python -m pytest`) nothing here does anything.
"""

import json
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

try:
    import fcntl
except ImportError:  # Windows: serial tests are still the last ones of one worker
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

LARGE_FIXTURES = {"published_file", "converted", "published_model"}
"""Session fixtures that take long to make: the tests of all files that want them stay together."""

SCRIPTS = {"test_smoke_training.py", "test_prepare.py", "test_train_processes.py"}
"""Files that fork their processes from one server, see script_processes.py: they stay together, too."""

ORDER = (
    "test_cli.py",  # measures its process's memory, so it comes before the large fixtures
    "scripts",
    "test_train.py",
    "test_gpu_train.py",
    "test_gpu_check.py",
    "large",
    "test_base_pipeline.py",
    "test_docs.py",
    "test_train_lips.py",
    "test_demo.py",
    "test_batch.py",
    "test_pipeline.py",
    "test_published_losses.py",
    "test_evaluation.py",
    "test_ablations.py",
    "test_hubert.py",
    "test_python_interface.py",
    "test_hub.py",
    "test_unpickle.py",
    "test_bad_input.py",
    "test_hub_training.py",
    "test_video.py",
    "test_video_formats.py",
    "test_flame_file.py",
    "test_distribution.py",
    "test_train_painter.py",
    "test_data_loader.py",
    "test_flame_tracker.py",
    "test_hub_data.py",
)
"""Groups to begin with, longest first: what begins last should be short. Only speed depends on it."""

if "PYTEST_XDIST_WORKER" in os.environ:  # workers and the processes of their tests share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


GROUPS = pytest.StashKey[tempfile.TemporaryDirectory]()
"""Of the process that shares out: the folder in which a worker tells it each test's group."""


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("serial"):
        return "serial"
    if LARGE_FIXTURES.intersection(getattr(item, "fixturenames", ())):
        return "large"
    return "scripts" if item.path.name in SCRIPTS else item.path.name


def _place(item: pytest.Item) -> int:
    group = _group(item)
    if group == "serial":
        return len(ORDER) + 1
    return ORDER.index(group) if group in ORDER else len(ORDER)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests; every worker comes to the same list."""
    if hasattr(config, "workerinput"):
        items.sort(key=_place)  # stable: inside a group the order stays


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: "WorkerController") -> None:
    """Tell a worker where to write the groups: of a test, it sends no more than the name."""
    if GROUPS not in node.config.stash:
        node.config.stash[GROUPS] = tempfile.TemporaryDirectory(prefix="groups-")
    node.workerinput["groups"] = str(Path(node.config.stash[GROUPS].name, "groups.json"))


@pytest.hookimpl(tryfirst=True)  # before xdist tells that the tests are collected
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write the group of every test, all workers the same."""
    if path := getattr(session.config, "workerinput", {}).get("groups"):
        written = Path(f"{path}.{os.getpid()}")
        written.write_text(json.dumps({item.nodeid: _group(item) for item in session.items}))
        written.replace(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadScopeScheduling | None":
    """For `--dist loadgroup`: one group after the other, in their order. What xdist calls a group is not used."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class InGroups(LoadScopeScheduling):
        groups: dict[str, str] = {}

        def _split_scope(self, nodeid: str) -> str:
            if not self.groups:
                self.groups = json.loads(Path(config.stash[GROUPS].name, "groups.json").read_text())
            return self.groups[nodeid]

    config.option.loadscopereorder = False
    return InGroups(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Many ordinary tests run at a time, or one serial test: readers and writers of a lock on this very file."""
    if not hasattr(item.config, "workerinput") or fcntl is None:
        return (yield)
    alone = item.get_closest_marker("serial") is not None
    with open(__file__, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            return (yield)
        finally:  # closing the file would leave the lock with processes that were forked meanwhile
            fcntl.flock(lock, fcntl.LOCK_UN)
