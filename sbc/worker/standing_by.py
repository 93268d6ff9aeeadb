"""A SIP worker of a pair's passive node: started, its sockets bound, and silent until the node becomes active."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

from sbc.telemetry.role import Role, RoleCell
from sbc.worker.parting import Parting
from sbc.worker.slot import SipSlot

LEFT_S = 0.5  # for what waits for the store, before a planned switch goes on; media are relayed meanwhile


class Standing:
    """``parting`` is how it gives way by order."""

    def __init__(
        self,
        slot: SipSlot,
        cell: RoleCell,
        loop: asyncio.AbstractEventLoop,
        parting: Parting,
    ) -> None:
        self._slot = slot
        self._cell = cell
        self._loop = loop
        self._parting = parting
        self._active = loop.create_future()
        self._serves = cell.is_active  # calls may be here
        self._leaving: asyncio.Future[None] | None = None
        loop.add_reader(cell.bell(slot.name), self._role_changed)

    async def by(self, stopped: asyncio.Future[None]) -> bool:
        """Wait until the node is active; False where ``stopped`` came first. What arrives meanwhile is dropped: it was
        sent to an address that stays with this machine, by somebody who looks whether it serves."""
        for sock in self._datagram_sockets():
            self._loop.add_reader(sock.fileno(), _drop, sock)
        try:
            if not self._cell.is_active:
                await asyncio.wait([self._active, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for sock in self._datagram_sockets():
                self._loop.remove_reader(sock.fileno())
        return not stopped.done()

    def _datagram_sockets(self) -> list[socket.socket]:
        return [sock for sock in self._slot.sockets if sock.type == socket.SOCK_DGRAM]

    def _role_changed(self) -> None:
        self._cell.heard(self._slot.name)
        match self._cell.role:
            case Role.ACTIVE:
                self._serves = True
                if not self._active.done():
                    self._active.set_result(None)
            case Role.DRAINING if self._serves:
                self._parting.drain()
            case Role.LEAVING if self._serves:
                if self._leaving is None:
                    self._leaving = asyncio.ensure_future(self._go())
            case Role.PASSIVE if self._serves:
                os._exit(0)  # no BYE, no record: another node has the calls
            case _:
                pass

    async def _go(self) -> None:
        try:
            await self._parting.leave(LEFT_S)
        finally:
            os._exit(0)


def _drop(sock: socket.socket) -> None:
    with suppress(OSError):  # BlockingIOError among them
        for _ in range(64):
            sock.recv(1)
