"""Versions of the routes for operators: what serves, what was refused and why, reload and rollback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sbc.errors import ConfigError
from sbc.management import rpc
from sbc.routing.versions import Versions, Wish, describe

LIMIT_S: Final = 150.0  # the proof has two minutes
SWAP_LIMIT_S: Final = 10.0
LOOK_S: Final = 0.05

Answer = dict[str, Any]  # Any: JSON values
Ask = Callable[[str, rpc.Params], Awaitable[tuple[list[tuple[str, Any]], list[str]]]]


class RouteVersions:
    """``ask`` asks every SIP worker; the supervisor looks for wishes by itself."""

    def __init__(self, state_dir: str, ask: Ask) -> None:
        self._versions = Versions(state_dir)
        self._ask = ask
        self._busy = False

    def methods(self) -> dict[str, rpc.Method]:
        """By name."""
        return {
            "routes": self.routes,
            "routes_versions": lambda _: describe(self._versions.read()),
            "routes_reload": lambda _: self._change(Wish()),
            "routes_rollback": self.rollback,
        }

    async def routes(self, _params: rpc.Params) -> Answer:
        """Which version each worker gives to new calls, and how many calls it has on which; 0 is the built-in one."""
        answers, silent = await self._ask("routes", {})
        rows = [{"worker": worker, **answer} for worker, answer in answers]
        return {"routes": rows, "current": self._versions.read().current, "no_answer": silent}

    async def rollback(self, params: rpc.Params) -> Answer:
        """``{version}`` -> a former version serves again, if it passes what a reload must pass."""
        version = params.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise rpc.RpcError(rpc.INVALID_PARAMS, "version must be a number, as the list of versions shows it")
        return await self._change(Wish(version))

    async def _change(self, wish: Wish) -> Answer:
        """Have the supervisor reload; its outcome, once every worker has followed."""
        if self._busy:
            raise rpc.RpcError(rpc.UNAVAILABLE, "a reload is under way")
        self._busy = True
        try:
            return await self._reload(wish)
        finally:
            self._busy = False

    async def _reload(self, wish: Wish) -> Answer:
        before = self._versions.read()
        try:
            self._versions.wish(wish)
        except ConfigError as error:
            raise rpc.RpcError(rpc.UNAVAILABLE, error.faults[0]) from error
        deadline = time.monotonic() + LIMIT_S  # the supervisor looks for wishes: we may not be of its user
        while self._versions.has_wish or self._versions.read().attempt == before.attempt:
            if time.monotonic() > deadline:
                raise rpc.RpcError(rpc.UNAVAILABLE, f"no outcome within {LIMIT_S:.0f} s; the log may tell more")
            await asyncio.sleep(LOOK_S)
        index = self._versions.read()
        if index.refused:
            return {"ok": False, "serves": index.current, "refused": list(index.refused)}
        late = await self._followed(index.current)
        return {
            "ok": not late,
            "serves": index.current,
            "refused": [f"{worker} still serves another version" for worker in late],
        }

    async def _followed(self, version: int) -> list[str]:
        """The workers that do not serve the version after a while: a startup route may have failed there."""
        deadline = time.monotonic() + SWAP_LIMIT_S
        while True:
            answers, silent = await self._ask("routes", {})
            late = [worker for worker, answer in answers if answer["version"] != version] + silent
            if not late or time.monotonic() > deadline:
                return late
            await asyncio.sleep(LOOK_S)
