"""rtpengine in user space (no kernel module), and its ng control protocol: bencode over UDP with a cookie."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

from bench.figures import NotMeasuredError
from bench.machine import require_program
from bench.processes import Process
from sbc.selftest import ng
from sbc.selftest.ng import Value

ADDRESS = "127.0.2.10"
CONTROL = ("127.0.2.10", 2223)
THREADS = 1
# The protocol runs over UDP: the client sends again with the same cookie, and rtpengine answers from its cache.
SENDINGS, RESEND_S = 10, 0.5


def start(core: int, directory: Path) -> Process:
    """A daemon that answers on ``CONTROL`` and relays on ``ADDRESS``."""
    command = [
        require_program("rtpengine", "rtpengine-daemon"),
        *("--config-file=none", "--table=-1", "--foreground", "--log-stderr", "--log-level=2"),
        f"--interface={ADDRESS}",
        "--listen-ng={}:{}".format(*CONTROL),
        *("--port-min=20000", "--port-max=59999", f"--num-threads={THREADS}"),
        f"--pidfile={directory / 'rtpengine.pid'}",
    ]
    process = Process("rtpengine", command, core, directory)
    deadline = time.monotonic() + 10
    while True:
        process.require()
        try:
            if ng.ask(CONTROL, {"command": "ping"}, timeout_s=0.3).get("result") == "pong":
                return process
        except OSError:
            if time.monotonic() > deadline:
                process.stop()
                raise NotMeasuredError(f"rtpengine does not answer: {process.tail()}") from None
            time.sleep(0.05)


class Client(asyncio.DatagramProtocol):
    """Many requests in flight over one socket."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, asyncio.Future[dict[str, Value]]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def connect(cls) -> Client:
        _, client = await asyncio.get_running_loop().create_datagram_endpoint(cls, remote_addr=CONTROL)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # what create_datagram_endpoint gives

    def datagram_received(self, data: bytes, addr: object) -> None:
        future = self._waiting.pop(data.partition(b" ")[0], None)
        if future is not None and not future.done():
            future.set_result(ng.reply(data))

    async def ask(self, command: dict[str, Value]) -> dict[str, Value]:
        """The reply; NotMeasuredError when it is an error or does not come."""
        assert self._transport is not None
        cookie, data = ng.request(command)
        future: asyncio.Future[dict[str, Value]] = asyncio.get_running_loop().create_future()
        self._waiting[cookie] = future
        for _ in range(SENDINGS):
            self._transport.sendto(data)
            done, _pending = await asyncio.wait([future], timeout=RESEND_S)
            if done:
                break
        else:
            raise NotMeasuredError(f"rtpengine did not answer {command['command']}")
        reply = future.result()
        if reply.get("result") != "ok":
            raise NotMeasuredError(f"rtpengine refused {command['command']}: {reply.get('error-reason', reply)}")
        return reply

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
