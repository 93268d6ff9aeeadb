"""What a worker that relieves another one does with messages, until that one has handed everything over."""

from __future__ import annotations

import asyncio
from typing import Any

from sbc.sip.flow import Flow
from sbc.worker.peers import HANDING, RECEIVED, Frame
from sbc.worker.relief import Arriving, Parts
from sbc.worker.seats import RELIEVES, Seats

FLOW = Flow(0, "udp", "192.0.2.1", 5060)


def message(call_id: str) -> bytes:
    return f"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: {call_id}\r\n\r\n".encode()


class Others:
    """In the place of the hand-over: what was given, as (worker, kind, data)."""

    def __init__(self) -> None:
        self.given: list[tuple[int, int, bytes]] = []

    def give(self, slot: int, _listener: int, _host: str, _port: int, data: bytes, kind: int, _connection: int) -> bool:
        self.given.append((slot, kind, data))
        return True


class Scene:
    """Worker 2 relieves worker 0 on the first of two seats."""

    def __init__(self) -> None:
        seats = Seats(2)
        seats.prepare([2, 1])
        seats.mark(2, RELIEVES)
        self.others = Others()
        self.received: list[bytes] = []
        self.unread: list[bytes] = []
        # Any: no more of these is asked for
        slot: Any = type("Slot", (), {"seats": seats, "slot": 2})
        others: Any = self.others
        unused: Any = None
        parts = Parts(
            slot,
            core=unused,
            journal=unused,
            hand_over=others,
            loop=asyncio.get_running_loop(),
            now=lambda: 1.0,
            wall=lambda: 2.0,
            receive=lambda data, *_: self.received.append(data),
            look=self.look,
            transmit=unused,
            after_input=unused,
            wake=unused,
        )
        self.arriving = Arriving(parts, resume=lambda record: record.decode().split(), news=lambda *_: None)

    def look(self) -> None:
        while self.unread:
            self.told(self.unread.pop(0))

    def told(self, data: bytes) -> None:
        self.arriving.told(Frame(HANDING, 0, 0, "", 0, 0, data))

    def receive(self, call_id: str) -> None:
        self.arriving.receive(message(call_id), FLOW, 1.0, 2.0)


async def test_what_the_other_one_still_has_is_passed_on_and_what_it_hands_over_is_ours() -> None:
    at = Scene()
    at.told(b"Sringing@a\nup@a\nup@b")
    assert not at.arriving.begins.done()
    at.told(b"G")
    assert at.arriving.begins.done()
    for call_id in ("new@a", "ringing@a", "up@b"):
        at.receive(call_id)
    assert at.received == [message("new@a")]
    assert at.others.given == [(0, RECEIVED, message("ringing@a")), (0, RECEIVED, message("up@b"))]
    at.told(b"Cup@a up@b")
    at.receive("up@b")
    assert at.received == [message("new@a"), message("up@b")]
    assert at.arriving.taken == 2


async def test_what_comes_before_the_sockets_are_ours_waits() -> None:
    at = Scene()
    at.receive("early@a")
    at.receive("theirs@a")
    assert not at.received
    at.told(b"Stheirs@a")
    at.told(b"G")
    assert at.received == [message("early@a")]
    assert at.others.given == [(0, RECEIVED, message("theirs@a"))]


async def test_an_answer_that_is_faster_than_the_word_of_its_request() -> None:
    """The other one has sent a request with a Call-ID of its own, and said so; we have not looked since."""
    at = Scene()
    at.told(b"G")
    at.unread.append(b"Sbranch@b")
    at.receive("branch@b")
    assert not at.received
    assert at.others.given == [(0, RECEIVED, message("branch@b"))]


async def test_when_the_other_one_has_ended_everything_is_ours() -> None:
    at = Scene()
    at.told(b"Sringing@a")
    at.arriving.alone()
    assert at.arriving.begins.done(), "it has died before it could give up its sockets"
    at.receive("ringing@a")
    assert at.received == [message("ringing@a")]
