"""rtpengine in user space (no kernel module), and its ng control protocol: bencode over UDP with a cookie."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from pathlib import Path
from typing import Union, cast

from bench.figures import NotMeasuredError
from bench.machine import require_program
from bench.processes import Process

ADDRESS = "127.0.2.10"
CONTROL = ("127.0.2.10", 2223)
THREADS = 1
# The protocol runs over UDP: the client sends again with the same cookie, and rtpengine answers from its cache.
SENDINGS, RESEND_S = 10, 0.5

Value = Union[str, int, list["Value"], dict[str, "Value"]]  # noqa: UP007 - a string cannot be joined with |


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
            if ask({"command": "ping"}, timeout_s=0.3).get("result") == "pong":
                return process
        except OSError:
            if time.monotonic() > deadline:
                process.stop()
                raise NotMeasuredError(f"rtpengine does not answer: {process.tail()}") from None
            time.sleep(0.05)


def encode(value: Value) -> bytes:
    """Bencode (dictionary keys sorted)."""
    match value:
        case int():
            return b"i%de" % value
        case str():
            raw = value.encode()
            return b"%d:%b" % (len(raw), raw)
        case list():
            return b"l%be" % b"".join(map(encode, value))
        case dict():
            return b"d%be" % b"".join(encode(key) + encode(value[key]) for key in sorted(value))


def decode(data: bytes) -> Value:
    """Read one bencoded value; ValueError when it is none."""
    value, end = _decode(data, 0)
    if end != len(data):
        raise ValueError("octets after the value")
    return value


def _decode(data: bytes, at: int) -> tuple[Value, int]:
    lead = data[at : at + 1]
    if lead == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if lead == b"l":
        items: list[Value] = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = _decode(data, at)
            items.append(item)
        return items, at + 1
    if lead == b"d":
        pairs: dict[str, Value] = {}
        at += 1
        while data[at : at + 1] != b"e":
            key, at = _decode(data, at)
            pairs[str(key)], at = _decode(data, at)
        return pairs, at + 1
    colon = data.index(b":", at)
    start, size = colon + 1, int(data[at:colon])
    return data[start : start + size].decode(errors="surrogateescape"), start + size


_cookies = itertools.count(1)


def _request(command: dict[str, Value]) -> tuple[bytes, bytes]:
    cookie = b"c%d" % next(_cookies)
    return cookie, cookie + b" " + encode(command)


def _reply(data: bytes) -> dict[str, Value]:
    reply = decode(data.partition(b" ")[2])
    if not isinstance(reply, dict):
        raise ValueError("not an ng reply")
    return reply


def ask(command: dict[str, Value], timeout_s: float = 2.0) -> dict[str, Value]:
    """One request, one reply; OSError when none comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(CONTROL)
        sock.send(_request(command)[1])
        return _reply(sock.recv(65536))


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
            future.set_result(_reply(data))

    async def ask(self, command: dict[str, Value]) -> dict[str, Value]:
        """The reply; NotMeasuredError when it is an error or does not come."""
        assert self._transport is not None
        cookie, data = _request(command)
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
