"""Media sessions without a call are ended after a resume, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from media.protocol import Delete, ListSessions, Reply
from sbc.b2bua.effects import MediaCommand
from sbc.worker.orphans import AGAIN_S, Orphans
from tests.support.virtual_loop import run_virtually


class _Pool:
    """Media nodes by name with their sessions; a node in ``mute`` misses the deadline."""

    def __init__(self, nodes: dict[str, list[str]]) -> None:
        self.nodes = nodes
        self.mute: set[str] = set()
        self.deleted: list[tuple[str, str]] = []

    def perform(self, effect: MediaCommand, done: Callable[[int, Reply], None]) -> None:
        match effect.request:
            case ListSessions(owner="sbc1/", limit=limit):
                names = self.nodes[effect.node][:limit]
                reply = Reply(ok=False, code="timeout") if effect.node in self.mute else Reply(sessions=names)
            case Delete(session=session):
                self.deleted.append((effect.node, session))
                reply = Reply()
            case other:
                raise AssertionError(other)
        asyncio.get_running_loop().call_soon(done, effect.request_id, reply)


def test_only_sessions_of_ours_without_a_call_end_also_at_a_node_that_was_mute() -> None:
    async def scenario() -> None:
        pool = _Pool({"media-0": ["mine-live", "mine-lost", "other-lost"], "media-1": ["mine-gone"]})
        pool.mute.add("media-1")
        found: list[tuple[str, list[str]]] = []
        orphans = Orphans(
            pool,  # type: ignore[arg-type]  # the one method of MediaPool that is used
            asyncio.get_running_loop(),
            lambda name: name.startswith("mine"),
            {"mine-live"},
            lambda node, names: found.append((node, names)),
            "sbc1/",
        )
        orphans.end(pool.nodes)
        await asyncio.sleep(AGAIN_S / 2)
        assert pool.deleted == [("media-0", "mine-lost")]
        pool.mute.clear()
        await asyncio.sleep(AGAIN_S)
        assert pool.deleted == [("media-0", "mine-lost"), ("media-1", "mine-gone")]
        assert found == [("media-0", ["mine-lost"]), ("media-1", ["mine-gone"])]
        await asyncio.sleep(10 * AGAIN_S)
        assert len(pool.deleted) == 2

    run_virtually(scenario)
