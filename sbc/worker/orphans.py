"""Media sessions whose call died with a worker: calls that were being set up are in no journal, and no CDR, CANCEL or
BYE would ever free their ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable

from media.protocol import Delete, ListSessions, Reply
from sbc.b2bua.effects import MediaCommand
from sbc.media_client.client import MediaPool

ALL = 65_536  # no worker has ports for more
AGAIN_S = 2.0  # a media worker that does not answer is asked again

Found = Callable[[str, list[str]], None]


class Orphans:
    """After a resume: asks every media node once for its sessions, and ends those that are ours and have no call.

    ``owner`` begins the identity by which this node is known to media nodes, which may serve others too.
    ``mine`` tells whether the call of a session belongs to this worker, ``found`` is told (node, sessions ended).
    """

    def __init__(
        self,
        media: MediaPool,
        loop: asyncio.AbstractEventLoop,
        mine: Callable[[str], bool],
        calls: Container[str],
        found: Found,
        owner: str = "",
    ) -> None:
        self._owner = owner
        self._media = media
        self._loop = loop
        self._mine = mine
        self._calls = calls
        self._found = found

    def end(self, nodes: Iterable[str]) -> None:
        """Begin. A call made from now on is in ``calls`` before its session is opened, so it is safe."""
        for node in nodes:
            self._ask(node)

    def _ask(self, node: str) -> None:
        def listed(_: int, reply: Reply) -> None:
            if not reply.ok:
                self._loop.call_later(AGAIN_S, self._ask, node)
                return
            lost = [name for name in reply.sessions if self._mine(name) and name not in self._calls]
            for name in lost:
                self._media.perform(MediaCommand(0, Delete(name), node), _nothing)
            if lost:
                self._found(node, lost)

        self._media.perform(MediaCommand(0, ListSessions(limit=ALL, owner=self._owner), node), listed)


def _nothing(_: int, __: Reply) -> None:
    """The pool repeats a delete until it is answered."""
