"""Fixtures and the rule for peers: a program that a test needs is used where it is there, its absence skips the test
with a reason, and with SBC_REQUIRE_PEERS=1 (as CI has it) fails it instead."""

from __future__ import annotations

import os
import shutil

import pytest

SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("peer"):
        for program in mark.args:
            missing = program == "root" and os.geteuid() != 0
            if missing or (program != "root" and shutil.which(program, path=SEARCH) is None):
                why = "needs root for network namespaces" if program == "root" else f"{program} is not installed"
                if os.environ.get("SBC_REQUIRE_PEERS") == "1":
                    pytest.fail(f"{why}, and SBC_REQUIRE_PEERS=1 says that it must be here")
                pytest.skip(why)
