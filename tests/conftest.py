"""Fixtures and the rule for peers: a program that a test needs is used where it is there, its absence skips the test
with a reason, and with SBC_REQUIRE_PEERS=1 (as CI has it) fails it instead.

Without arguments `./dev test` runs two files at once, each in a process that :func:`set_apart` keeps from the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

from tests.support.apart import set_apart
from tests.support.media_process import MediaControl, MediaProcess
from tests.support.store import StoreServer

SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

# These start processes and wait for them. They go first, so that the short ones fill what time is left at the end.
# Those that load the machine (or measure) are never two at a time; of the others a file is one piece, for its fixtures.
PROCESSES = tuple(str(Path(__file__).parent / name) + os.sep for name in ("ha", "integration"))
LOADING = """
    bench browser calls extensions forking hostile media_attacks media_link media_soak media_worker repeats requests
    stream_limits streams supervisor transfers
"""

# These look at the clock of the machine, or at what it spent on them.
CLOCKED = """
    cli counters datapath_sanitized digest dry_runs framing fuzz_sdp header_rules sdp_sanitized watchdog watchdog_doubt
    watchdog_rests
"""

# Real time and programs of others: a machine that stood still for a moment fails such a test, and no code is at fault.
# It gets a second chance, and the summary names it (R): one that stands there again and again has a fault after all.
AGAIN = pytest.mark.flaky(reruns=1, reruns_delay=2)

# How long an example takes tells more of what else runs on the machine than of the code.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


@pytest.hookimpl(trylast=True)  # plugins connect to the process that started this one
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # one of several, by pytest-xdist
        set_apart()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not str(item.path).startswith(PROCESSES))
    for item in items:
        if str(item.path).startswith(PROCESSES) or item.path.stem.removeprefix("test_") in CLOCKED.split():
            item.add_marker(AGAIN)


class Pieces(LoadScopeScheduling):  # type: ignore[misc]  # as above
    """What stays together when tests run side by side."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        loads = path.startswith("tests/ha/") or Path(path).stem.removeprefix("test_") in LOADING.split()
        return "loading" if loads else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Pieces:
    return Pieces(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("peer"):
        for program in mark.args:
            missing = program == "root" and os.geteuid() != 0
            if missing or (program != "root" and shutil.which(program, path=SEARCH) is None):
                why = "needs root for network namespaces" if program == "root" else f"{program} is not installed"
                if os.environ.get("SBC_REQUIRE_PEERS") == "1":
                    pytest.fail(f"{why}, and SBC_REQUIRE_PEERS=1 says that it must be here")
                pytest.skip(why)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    """A store of this test's own, which it may kill."""
    server = StoreServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def control(worker: MediaProcess) -> Iterator[MediaControl]:
    """Of the media worker that the file has as ``worker``."""
    client = MediaControl(worker.endpoint)
    yield client
    client.close()
