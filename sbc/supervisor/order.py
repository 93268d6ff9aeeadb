"""What an operator has a running node do by a signal to its keeper, and what comes of it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ANSWER_S = 10.0  # until the node says anything at all
LOOK_S = 0.2
WORDS = {
    "tried": "the installed release is being tried",
    "under way": "release {version} takes over, process by process",
    "done": "release {version} serves",
    "refused": "refused: release {version} serves on",
    "failed": "it did not work out: the former release goes on",
}


class NoAnswer(Exception):
    """The node cannot be told, or says nothing; a plain sentence."""


def upgrade(run_dir: str, say: Callable[[str], None] | None = None, limit_s: float = 3600.0) -> dict[str, Any]:
    """Have the installed release take over; what the node tells in the end (``state``: done, refused or failed, and
    ``reasons``). ``say`` gets a line for each step. Any: JSON values. Raises NoAnswer."""
    from sbc.supervisor.upgrade import FILE

    path = Path(run_dir) / FILE
    before = _read(path).get("at")
    try:
        keeper = int((Path(run_dir) / "supervisor.pid").read_text())
        os.kill(keeper, signal.SIGUSR2)
    except (OSError, ValueError) as error:
        raise NoAnswer(f"no SBC to be told in {run_dir}: {error}") from None
    began, last = time.monotonic(), ""
    while time.monotonic() - began < limit_s:
        told = _read(path)
        state = str(told.get("state", ""))
        if told.get("at") != before and state:
            if state != last and say is not None and state in WORDS:
                say(WORDS[state].format(version=told.get("version")))
            last = state
            if state in ("done", "refused", "failed"):
                return told
        elif time.monotonic() - began > ANSWER_S:
            raise NoAnswer("the SBC does not say that it has begun; its log may tell why")
        time.sleep(LOOK_S)
    raise NoAnswer(f"not done within {limit_s:.0f} s; sbc status shows how far it has come")


def _read(path: Path) -> dict[str, Any]:  # Any: JSON values
    try:
        found: dict[str, Any] = json.loads(path.read_text())  # Any: as above
    except (OSError, ValueError):
        return {}
    return found
