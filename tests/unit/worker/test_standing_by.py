"""A SIP worker of a passive node."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from sbc.telemetry.role import Role, RoleCell
from sbc.worker.standing_by import Standing


class Parted:
    """What a worker does that leaves by order, as far as a test likes to hear of it."""

    def __init__(self, say: Callable[[bytes], object] | None = None) -> None:
        self._say = say

    def drain(self) -> None:
        assert self._say is not None, "nobody is to leave"
        self._say(b"drained ")

    async def leave(self, _: float) -> None:
        assert self._say is not None, "nobody is to leave"
        self._say(b"written")


def standing(cell: RoleCell, sockets: list[socket.socket]) -> Standing:
    slot: Any = SimpleNamespace(name="sip 0", sockets=sockets)  # Any: of a slot it needs no more
    parted: Any = Parted()  # Any: nor of this
    return Standing(slot, cell, asyncio.get_running_loop(), parted)


def test_it_waits_until_the_node_is_active_and_drops_what_comes() -> None:
    async def scenario() -> None:
        cell = RoleCell(["sip 0"])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket() as listener:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            stopped = asyncio.get_running_loop().create_future()
            waiting = asyncio.create_task(standing(cell, [sock, listener]).by(stopped))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"early", sock.getsockname())
                await asyncio.sleep(0.05)
                assert not waiting.done()
                cell.set(Role.ACTIVE, 1)
                assert await asyncio.wait_for(waiting, 5)
                sender.sendto(b"late", sock.getsockname())
            assert sock.recv(10) == b"late"

    asyncio.run(scenario())


def test_it_can_be_stopped_while_it_waits() -> None:
    async def scenario() -> None:
        stopped = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(standing(RoleCell(["sip 0"]), []).by(stopped))
        await asyncio.sleep(0)
        stopped.set_result(None)
        assert not await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def test_a_worker_of_an_active_node_does_not_wait_and_ends_without_a_word() -> None:
    cell = RoleCell(["sip 0"])
    cell.set(Role.ACTIVE, 1)
    child = os.fork()
    if child == 0:

        async def life() -> None:
            assert await standing(cell, []).by(asyncio.get_running_loop().create_future())
            cell.set(Role.PASSIVE, 1)
            await asyncio.sleep(5)
            os._exit(3)

        try:
            asyncio.run(life())
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_worker_that_leaves_by_order_writes_first() -> None:
    cell = RoleCell(["sip 0"])
    read, write = os.pipe()
    child = os.fork()
    if child == 0:

        async def life() -> None:
            cell.set(Role.ACTIVE, 1)
            slot: Any = SimpleNamespace(name="sip 0", sockets=[])
            parted: Any = Parted(lambda said: os.write(write, said))
            made = Standing(slot, cell, asyncio.get_running_loop(), parted)
            assert await made.by(asyncio.get_running_loop().create_future())
            cell.set(Role.DRAINING, 1)
            await asyncio.sleep(0.05)
            cell.set(Role.LEAVING, 1)
            await asyncio.sleep(5)
            os._exit(3)

        try:
            asyncio.run(life())
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.read(read, 20) == b"drained written"
    os.close(read)
    os.close(write)
