"""The rows of the fault kit for two nodes, with few calls: a node dies, a planned switch under load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = os.environ.get("SBC_PAIR_CALLS", "10")


def test_a_node_dies_and_another_hands_over(tmp_path: Path) -> None:
    """No call, setup or record is lost, limits and registrations are there, no packet comes to the wrong call. How long
    it took is printed: a machine that is busy with other tests may be late."""
    if os.geteuid() or shutil.which("nft") is None:
        pytest.skip("needs root, ip of iproute2 and nft")
    told = tmp_path / "told.json"
    words = [sys.executable, "-m", "sbc", "selftest", "faults", "--only", "P7,P9", "--runs", "1", "--calls", CALLS]
    words += ["--json", str(told)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    print(done.stdout, done.stderr)
    rows = json.loads(told.read_text())["rows"]
    assert [(row["id"], row["verdict"] in ("pass", "fail")) for row in rows] == [("P7", True), ("P9", True)]
    assert [reason for row in rows for reason in row["reasons"] if "is promised" not in reason] == []
