"""Who is let in at a media worker on TCP, and what both sides say where they do not get on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import zmq

from media import protocol
from media.config import Curve
from media.control import Control
from sbc.config.media import MediaHealth
from sbc.media_client.client import MediaPool
from sbc.media_client.nodes import Address
from tests.support.sbc import free_port

HOST = "127.0.0.9"
HEALTH = MediaHealth(probe_interval_s=0.1, disable_s=0.2)
Keys = tuple[bytes, bytes]


def control(port: int, secret: bytes, *clients: bytes) -> Control:
    curve = Curve(secret, frozenset(clients))
    return Control(f"tcp://{HOST}:{port}", lambda *_: protocol.Reply(total=7), lambda *_: None, curve, "media-0")


async def until(serve: Callable[[], object], holds: Callable[[], bool]) -> None:
    """Serve until something holds."""
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        serve()
        await asyncio.sleep(0.01)


def pool(port: int, key: bytes, keys: Keys) -> MediaPool:
    address = Address(f"tcp://{HOST}:{port}", key)
    return MediaPool({"far": address}, asyncio.get_running_loop(), 0.1, health=HEALTH, keys=keys)


async def test_a_client_is_refused_until_its_key_is_known(capfd: pytest.CaptureFixture[str]) -> None:
    port, ours, theirs = free_port(HOST), zmq.curve_keypair(), zmq.curve_keypair()
    node = control(port, theirs[1], zmq.curve_keypair()[0])
    asked = pool(port, theirs[0], ours)
    try:
        await until(lambda: node.drain(0), lambda: asked.describe()[0]["state"] == "down")
        assert asked.describe()[0]["reason"] == "it refuses our key: is it among the clients of that node?"
        assert capfd.readouterr().err == (
            f"warning: media-0: refused media control from 127.0.0.1: its key {ours[0].decode()} is not among"
            " the clients of this node\n"
        )
        node.close()
        node = control(port, theirs[1], ours[0])
        await until(lambda: node.drain(0), lambda: asked.describe()[0]["state"] == "up")
        assert asked.describe()[0]["sessions"] == 7
    finally:
        asked.close()
        node.close()


async def test_a_node_with_another_key_than_we_know_is_not_asked() -> None:
    port, ours, theirs = free_port(HOST), zmq.curve_keypair(), zmq.curve_keypair()
    node = control(port, theirs[1], ours[0])
    asked = pool(port, zmq.curve_keypair()[0], ours)
    try:
        await until(lambda: node.drain(0), lambda: "no handshake" in asked.describe()[0]["reason"])
        assert asked.describe()[0]["sessions"] == 0
    finally:
        asked.close()
        node.close()


async def test_whoever_has_no_key_at_all_gets_no_answer() -> None:
    port, ours, theirs = free_port(HOST), zmq.curve_keypair(), zmq.curve_keypair()
    node = control(port, theirs[1], ours[0])
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(f"tcp://{HOST}:{port}")
        stranger.send_multipart((protocol.VERSION, b"12345678", protocol.encode(protocol.ListSessions())))
        for _ in range(30):
            assert node.drain(0) == 0
            await asyncio.sleep(0.01)
        assert not stranger.poll(0)
    node.close()


async def test_another_version_is_told_of_on_both_sides(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port(HOST)
    node = Control(f"tcp://{HOST}:{port}", lambda *_: protocol.Reply(), lambda *_: None, name="media-0")
    with zmq.Context() as context, context.socket(zmq.DEALER) as older:
        older.setsockopt(zmq.LINGER, 0)
        older.setsockopt(zmq.IDENTITY, b"sbc1/sip-0")
        older.connect(f"tcp://{HOST}:{port}")
        older.send_multipart((b"0", b"12345678", b"{}"))
        await until(lambda: node.drain(0), lambda: bool(older.poll(0)))
        assert older.recv_multipart() == [protocol.VERSION, protocol.NOTIFICATION, b'{"event":"version"}']
        assert capfd.readouterr().err == (
            "warning: media-0: 'sbc1/sip-0' speaks version '0' of media control, this worker"
            f" {protocol.VERSION.decode()!r}: run one release on both sides\n"
        )
    node.close()

    with zmq.Context() as context, context.socket(zmq.ROUTER) as newer:
        newer.setsockopt(zmq.LINGER, 0)
        port = newer.bind_to_random_port(f"tcp://{HOST}")
        asked = pool(port, b"", zmq.curve_keypair())

        def answer() -> None:
            while newer.poll(0):
                newer.send_multipart((newer.recv_multipart()[0], b"9", protocol.NOTIFICATION, b'{"event":"version"}'))

        await until(answer, lambda: asked.describe()[0]["state"] == "down")
        assert asked.describe()[0]["reason"] == (
            f"it speaks version '9' of media control, we {protocol.VERSION.decode()!r}: run one release"
        )
        asked.close()
