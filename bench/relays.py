"""The relays under test behind one interface: the SBC's media worker and rtpengine, each driven by its own protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from bench.figures import NotMeasuredError
from bench.own import ROOT
from bench.peers import rtpengine
from bench.processes import Process, wait_until
from media import protocol
from sbc.b2bua.effects import MediaCommand
from sbc.media_client.client import MediaPool
from sbc.media_client.nodes import Address as NodeAddress
from sbc.selftest import ng

Address = tuple[str, int]

SUITE = "AES_CM_128_HMAC_SHA1_80"
NEAR, FAR = "127.0.2.11", "127.0.2.12"


@dataclass(frozen=True, slots=True)
class Anchored:
    """A call on a relay: the relay's addresses that face the caller and the callee.

    ``keys``: none for plain RTP; with SRTP on the callee's side the master keys, in hexadecimal: the callee's own, and
    the relay's towards the callee.
    """

    near: Address
    far: Address
    keys: tuple[str, ...] = ()


class Relay(Protocol):
    """A relay process and how to set up calls on it. Usable inside one event loop after ``connect``."""

    process: Process

    async def connect(self) -> None: ...
    def disconnect(self) -> None: ...

    async def open_call(self, number: int, caller: Address, callee: Address) -> Anchored:
        """Anchor the media of a call."""
        ...

    async def close_call(self, number: int) -> None: ...


class OwnRelay:
    """The SBC's media worker: offer (which engages), answer, delete, through the client that its SIP workers use."""

    def __init__(self, core: int, directory: Path, *, secure: bool = False) -> None:
        self._secure = secure
        path = directory / "media.sock"
        self._endpoint = f"ipc://{path}"
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[protocol.Reply]] = {}
        self._pool: MediaPool | None = None
        environment = {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "bench.media_node", self._endpoint, NEAR, FAR]
        self.process = Process("media", command, core, directory, environment)
        try:
            wait_until(path.exists, self.process, "its control socket")
        except BaseException:
            self.process.stop()
            raise

    async def connect(self) -> None:
        self._pool = MediaPool({"media": NodeAddress(self._endpoint)}, asyncio.get_running_loop(), deadline_s=5.0)

    def disconnect(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def _done(self, number: int, reply: protocol.Reply) -> None:
        future = self._waiting.pop(number)
        if not future.done():
            future.set_result(reply)

    async def _ask(self, request: protocol.Request) -> protocol.Reply:
        assert self._pool is not None
        number = next(self._ids)
        future: asyncio.Future[protocol.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._pool.perform(MediaCommand(number, request, "media"), self._done)
        reply = await future
        if not reply.ok:
            raise NotMeasuredError(f"the media worker refused: {reply.code} {reply.reason}: {self.process.tail()}")
        return reply

    async def open_call(self, number: int, caller: Address, callee: Address) -> Anchored:
        session = f"bench-{number}"
        offer = protocol.Offer(session, "a", "b1", "near", "far", [protocol.Stream(*caller)])
        answered = protocol.Stream(*callee)
        keys: tuple[str, ...] = ()
        if self._secure:
            offer.to_srtp = "required"
        to_callee = await self._ask(offer)
        far = to_callee.endpoints[0]
        if self._secure:
            tag, relays_key = sdes_key("".join(f"a=crypto:{value}\n" for value in far.keys))
            callees_key = os.urandom(30)
            answered.protocol = "RTP/SAVP"
            answered.keys = [f"{tag} {SUITE} inline:{base64.b64encode(callees_key).decode()}"]
            keys = callees_key.hex(), relays_key.hex()
        to_caller = await self._ask(protocol.Answer(session, "b1", "a", [answered]))
        near = to_caller.endpoints[0]
        return Anchored((near.address, near.port), (far.address, far.port), keys)

    async def close_call(self, number: int) -> None:
        await self._ask(protocol.Delete(f"bench-{number}"))


class RtpengineRelay:
    """rtpengine: offer, answer, delete over ng. ``secure``: SDES-SRTP towards the callee, plain RTP to the caller."""

    def __init__(self, core: int, directory: Path, *, secure: bool = False) -> None:
        self._secure = secure
        self.process = rtpengine.start(core, directory)
        self._client: rtpengine.Client | None = None

    async def connect(self) -> None:
        self._client = await rtpengine.Client.connect()

    def disconnect(self) -> None:
        if self._client is not None:
            self._client.close()

    async def open_call(self, number: int, caller: Address, callee: Address) -> Anchored:
        offered = await self._media("offer", number, description(caller))
        if not self._secure:
            answered = await self._media("answer", number, description(callee))
            return Anchored(media_address(answered), media_address(offered))
        tag, relays_key = sdes_key(offered)
        callees_key = os.urandom(30)
        answered = await self._media("answer", number, description(callee, tag, callees_key))
        return Anchored(media_address(answered), media_address(offered), (callees_key.hex(), relays_key.hex()))

    async def _media(self, command: str, number: int, sdp: str) -> str:
        """SDP in, SDP out."""
        assert self._client is not None
        request: dict[str, ng.Value] = {
            "command": command,
            "call-id": f"bench-{number}",
            "from-tag": "a",
            "ICE": "remove",
            "replace": ["origin", "session-connection"],
            "sdp": sdp,
        }
        if command == "answer":
            request["to-tag"] = "b"
        if self._secure:
            request["DTLS"] = "off"
            request["transport-protocol"] = "RTP/SAVP" if command == "offer" else "RTP/AVP"
        return str((await self._client.ask(request))["sdp"])

    async def close_call(self, number: int) -> None:
        assert self._client is not None
        await self._client.ask({"command": "delete", "call-id": f"bench-{number}", "from-tag": "a", "delete-delay": 0})


def description(side: Address, tag: str = "", key: bytes = b"") -> str:
    """SDP of one G.711 audio stream; with a key as SDES-SRTP (RFC 4568)."""
    host, port = side
    lines = ["v=0", f"o=bench 1 1 IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0"]
    lines += [f"m=audio {port} RTP/{'SAVP' if key else 'AVP'} 8", "a=rtpmap:8 PCMA/8000", "a=ptime:20", "a=sendrecv"]
    if key:
        lines.append(f"a=crypto:{tag} {SUITE} inline:{base64.b64encode(key).decode()}")
    return "\r\n".join((*lines, ""))


def sdes_key(sdp: str) -> tuple[str, bytes]:
    """Tag and master key of the suite that the generator speaks; NotMeasuredError where it is not offered."""
    found = re.search(rf"^a=crypto:(\d+) {SUITE} inline:([A-Za-z0-9+/=]+)", sdp, re.M)
    if found is None:
        raise NotMeasuredError(f"{SUITE} is not offered: {sdp!r}")
    return found[1], base64.b64decode(found[2] + "=" * (-len(found[2]) % 4))


def media_address(sdp: str) -> Address:
    """The c= address and the port of the first m= line; NotMeasuredError where there is none."""
    address = re.search(r"^c=IN IP4 (\S+)", sdp, re.M)
    port = re.search(r"^m=audio (\d+)", sdp, re.M)
    if address is None or port is None:
        raise NotMeasuredError(f"no media address in {sdp!r}")
    return address[1], int(port[1])


RELAYS: dict[str, Callable[[int, Path], Relay]] = {"relay": OwnRelay, "rtpengine": RtpengineRelay}
# The same with SDES-SRTP on one side.
SECURE_RELAYS: dict[str, Callable[[int, Path], Relay]] = {
    "relay": partial(OwnRelay, secure=True),
    "rtpengine": partial(RtpengineRelay, secure=True),
}


async def in_flight(work: Callable[[int], Awaitable[None]], count: int, limit: int) -> None:
    """``work(0)`` to ``work(count - 1)``, at most ``limit`` at a time; the first error ends it."""
    numbers = iter(range(count))

    async def one_after_another() -> None:
        for number in numbers:
            await work(number)

    tasks = [asyncio.create_task(one_after_another()) for _ in range(min(limit, count))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, NotMeasuredError):
            await asyncio.gather(*tasks, return_exceptions=True)
