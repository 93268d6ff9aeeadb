"""What the control worker asks a SIP worker about its calls."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from sbc.b2bua.core import Core
from sbc.management import rpc
from sbc.telemetry import log


class Questions:
    """``wake`` has the worker perform what an order came to."""

    def __init__(self, core: Core, now: Callable[[], float], wake: Callable[[], None]) -> None:
        self._core = core
        self._now = now
        self._wake = wake
        self._log = log.get()

    def methods(self) -> dict[str, rpc.Method]:
        """By the names under which they are asked."""
        return {"calls": self._list_calls, "call": self._one_call, "hangup": self._hang_up}

    def fault(self, method: str, error: Exception) -> None:
        """One that could not be answered."""
        self._log.exception("a question of the control worker met a fault", error, method=method)

    def _list_calls(self, params: rpc.Params) -> dict[str, Any]:  # Any: JSON values
        calls, offset = self._core.calls, int(params.get("offset", 0))
        chosen = islice(calls.values(), offset, offset + int(params.get("limit", 1000)))
        return {"total": len(calls), "calls": [call.describe() for call in chosen]}

    def _one_call(self, params: rpc.Params) -> dict[str, Any] | None:  # Any: JSON values
        call = self._core.calls.get(params["key"])
        return None if call is None else call.describe()

    def _hang_up(self, params: rpc.Params) -> bool:
        call = self._core.calls.get(params["key"])
        if call is None:
            return False
        self._core.release(call, self._now(), reason=str(params.get("reason", "ended by the operator")))
        self._wake()
        return True
