"""What the SIP worker's own code costs a call: ``python -m bench.core_calls [plain|full]``.

One worker, in this process and in virtual time: its sockets, the media worker and the store are stand-ins that answer
at once, so that neither the kernel nor a scheduler nor a busy neighbour is in the figure. Calls overlap as at the given
rate, are held for 100 ms and leave their transactions behind for 32 s, which the warm-up waits for. The best of several
rounds counts. Run it under callgrind, cProfile or py-spy to see where the time goes; ``--calls`` bounds it.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import own, sipp
from media.protocol import messages
from sbc.clock import VirtualClock
from sbc.config.loader import load
from sbc.media_client.nodes import Address, Node
from sbc.store.breaker import State
from sbc.store.pipe import Argument, OnReply, pack
from sbc.telemetry import log
from sbc.telemetry.counters import Kind
from sbc.telemetry.page import Page
from sbc.worker.sip_worker import ANSWER_S, TICK_S, SipWorker
from sbc.worker.slot import SipSlot

WARM_S = 33.0  # of virtual time: until as many transactions end as begin
ROUNDS = 5

_INVITE = b"""\
INVITE sip:+4930123456@%(near)b:5060 SIP/2.0
Via: SIP/2.0/UDP %(caller)b:5062;branch=z9hG4bK-7-%(n)d-0
From: "Anna Caller" <sip:+4989%(n)d@%(caller)b:5062>;tag=7a%(n)d
To: <sip:+4930123456@%(near)b:5060>
Call-ID: %(n)d-7@%(caller)b
CSeq: 1 INVITE
Contact: <sip:anna@%(caller)b:5062>
Max-Forwards: 70
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE
User-Agent: bench-caller
Content-Type: application/sdp
Content-Length: %(length)d

%(sdp)b"""
_LATER = b"""\
%(method)b %(target)b SIP/2.0
Via: SIP/2.0/UDP %(caller)b:5062;branch=z9hG4bK-7-%(n)d-%(cseq)d-%(method)b
From: "Anna Caller" <sip:+4989%(n)d@%(caller)b:5062>;tag=7a%(n)d
%(to)b
Call-ID: %(n)d-7@%(caller)b
CSeq: %(cseq)d %(method)b
Max-Forwards: 70
Content-Length: 0

"""
_OK = b"""\
Contact: <sip:ben@%b:5064>
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE
Server: bench-callee
Content-Type: application/sdp
Content-Length: %d

%b"""
_SDP = b"""\
v=0
o=%(user)b 2890844526 2890844526 IN IP4 %(host)b
s=-
c=IN IP4 %(host)b
t=0 0
m=audio %(port)d RTP/AVP %(formats)b
a=rtpmap:8 PCMA/8000
%(more)ba=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=sendrecv
"""


def _crlf(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


class _Loop:
    """The little of an event loop that the worker touches, in virtual time."""

    def __init__(self, clock: VirtualClock) -> None:
        self.time = clock.monotonic
        self._ready: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._later: list[tuple[float, int, _Handle]] = []
        self._order = itertools.count()

    def call_soon(self, call: Callable[..., object], *arguments: object) -> None:
        self._ready.append((call, arguments))

    def call_later(self, delay_s: float, call: Callable[..., object], *arguments: object) -> _Handle:
        return self.call_at(self.time() + delay_s, call, *arguments)

    def call_at(self, when: float, call: Callable[..., object], *arguments: object) -> _Handle:
        handle = _Handle(call, arguments)
        heapq.heappush(self._later, (when, next(self._order), handle))
        return handle

    def add_reader(self, *_: object) -> None:
        pass

    def remove_reader(self, *_: object) -> None:
        pass

    def create_future(self) -> None:
        pass

    def turn(self) -> None:
        """What is due, then what that made ready."""
        now = self.time()
        while self._later and self._later[0][0] <= now:
            handle = heapq.heappop(self._later)[2]
            if handle.call is not None:
                handle.call(*handle.arguments)
        while self._ready:
            call, arguments = self._ready.popleft()
            call(*arguments)


class _Handle:
    def __init__(self, call: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.call: Callable[..., object] | None = call
        self.arguments = arguments

    def cancel(self) -> None:
        self.call = None


class _Wire:
    """Reader and Writer of one listener."""

    errors = 0
    waited_s = 0.0

    def __init__(self) -> None:
        self.towards_us: list[tuple[bytes, str, int]] = []
        self.sent: list[bytes] = []

    def read(self) -> list[tuple[bytes, str, int]]:
        taken, self.towards_us = self.towards_us, []
        return taken

    def send(self, items: list[tuple[bytes, str, int]]) -> int:
        self.sent += [item[0] for item in items]
        return len(items)


class _MediaLink:
    """A media worker that has answered by the next tick."""

    _ENDPOINT = b'{"ok":true,"endpoints":[{"address":"%b","port":40000,"rtcp_port":40001}],"worker":"media-0"}'
    _STREAM = (
        b'[{"packets_in":5,"bytes_in":860,"packets_out":5,"bytes_out":860,"rtcp_in":0,"rtcp_out":0,"lost":0,'
        b'"reordered":0,"duplicates":0,"jitter_ms":0.0,"mos":0.0,"refused":0,"remote":"127.0.1.21:6000",'
        b'"latched":false,"last_packet_age_ms":-1}]'
    )

    def __init__(self) -> None:
        self._outbox: list[tuple[bytes, bytes]] = []
        self._replies: list[tuple[bytes, bytes]] = []

    def send(self, request_id: bytes, body: bytes) -> None:
        self._outbox.append((request_id, body))

    def flush(self) -> list[bytes]:
        for request_id, body in self._outbox:
            if body.startswith(b'{"do":"delete"'):
                reply = b'{"ok":true,"stats":{"a":%b,"b1":%b},"worker":"media-0"}' % (self._STREAM, self._STREAM)
            else:
                host = own.CALLEE_SIDE if body.startswith(b'{"do":"offer"') else own.CALLER_SIDE
                reply = self._ENDPOINT % host.encode()
            self._replies.append((request_id, reply))
        self._outbox.clear()
        return []

    def receive(self) -> list[list[bytes]]:
        replies, self._replies = self._replies, []
        return [list(frames) for frames in messages(replies)]

    def watch(self, on: bool) -> None:
        pass

    def close(self) -> None:
        pass


class _Store:
    """A store that has taken everything by the next tick."""

    is_open = False
    state = State.READY

    def __init__(self) -> None:
        self._waiting: list[tuple[OnReply, object]] = []
        self._serial = itertools.count(1)

    def send(self, on_reply: OnReply, *command: Argument) -> None:
        self.send_packed(on_reply, pack(*command))

    def send_packed(self, on_reply: OnReply, command: bytes) -> None:
        finish = b"\r\n$3\r\ncdr\r\n" in command
        self._waiting.append((on_reply, b"1-%d" % next(self._serial) if finish else 1))

    def flush(self) -> bool:
        return bool(self._waiting)

    def poll(self) -> None:
        waiting, self._waiting = self._waiting, []
        for on_reply, reply in waiting:
            on_reply(reply)


class Bench:
    """A worker, and the phones on both sides of it."""

    def __init__(self, directory: Path, *, full: bool, rate: float) -> None:
        for name in ("run", "state"):
            (directory / name).mkdir()
        config = own.write_config(directory, full=full)
        self.clock = VirtualClock()
        self.loop = _Loop(self.clock)
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for sock in self._sockets:
            sock.bind(("127.0.0.1", 0))
        pair = self._pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        page = Page()
        page.open(Kind.SIP, 1)
        log.configure("warning", "json", "sip 0")
        slot = SipSlot(
            slot=0,
            count=1,
            config=load(config),
            config_path=str(config),
            sockets=self._sockets,
            inbox=pair[0],
            hand_over=[pair[1]],
            page=page,
            media_endpoints={},
            store_url="unix:///nowhere",
            shard_key=b"0123456789abcdef",
        )
        # Any: stand-ins take the place of what belongs to the worker alone
        worker: Any = SipWorker(slot, self.loop, clock=self.clock)  # type: ignore[arg-type]  # a stand-in
        self.worker = worker
        self.page = page
        self.near, self.far = _Wire(), _Wire()
        self.worker._datagrams._readers = {0: self.near, 1: self.far}
        self.worker._datagrams._writers = {0: self.near, 1: self.far}
        self.worker._listens = True
        self.worker._ticking = True  # as under load; a tick asks for the next one
        self.loop.call_later(TICK_S, self.worker._tick)
        node = Node("media-0", Address(""))
        node.link = _MediaLink()  # type: ignore[assignment]  # a stand-in
        self.worker.media._nodes["media-0"] = node
        self.worker.media._members["local"] = [(node, 1)]
        self.store = _Store()
        if full:
            self.worker.journal._pipe = self.store
        self._interval_s = 1 / rate
        self._next_call_at = self.clock.now
        self._number = 0
        self._agenda: deque[tuple[float, Callable[[bytes], None], bytes]] = deque()  # in 20 ms
        self._hang_ups: deque[tuple[float, Callable[[bytes], None], bytes]] = deque()  # in 100 ms
        self.finished = 0
        self.spent_ns = 0
        caller, near = sipp.CALLER.encode(), own.CALLER_SIDE.encode()
        callee = sipp.CALLEE.encode()
        rtpmap = b"a=rtpmap:0 PCMU/8000\n"
        offer = {b"user": b"anna", b"host": caller, b"port": 6000, b"formats": b"8 0 101", b"more": rtpmap}
        answer = {b"user": b"ben", b"host": callee, b"port": 7000, b"formats": b"8 101", b"more": b""}
        sdp = _crlf(_SDP % offer)
        self._values: dict[bytes, object] = {b"caller": caller, b"near": near, b"sdp": sdp, b"length": len(sdp)}
        sdp = _crlf(_SDP % answer)
        self._ok = _crlf(_OK % (callee, len(sdp), b"%b")) % sdp
        self._ringing = _crlf(b"Contact: <sip:ben@%b:5064>\nContent-Length: 0\n\n" % callee)
        self._invite, self._later = _crlf(_INVITE), _crlf(_LATER)

    def close(self) -> None:
        self.worker.media.close()
        for sock in (*self._sockets, *self._pair):
            sock.close()

    def run(self, calls: int) -> float:
        """Let so many calls end; microseconds of the worker for each."""
        spent, finished = self.spent_ns, self.finished
        while self.finished - finished < calls:
            self._tick()
        return (self.spent_ns - spent) / 1000 / (self.finished - finished)

    def warm(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while self.clock.now < until:
            self._tick()

    def _tick(self) -> None:
        self.clock.advance(ANSWER_S)
        now = self.clock.now
        for agenda in (self._agenda, self._hang_ups):
            while agenda and agenda[0][0] <= now:
                _, act, message = agenda.popleft()
                act(message)
        while self._next_call_at <= now:
            self._next_call_at += self._interval_s
            self._number += 1
            self._call(self._invite % {**self._values, b"n": self._number})
        began = time.thread_time_ns()
        self.loop.turn()
        self.worker._garbage.measured(1.0, now)
        self.spent_ns += time.thread_time_ns() - began
        sent, self.near.sent = self.near.sent, []
        for message in sent:
            self._at_caller(message)
        sent, self.far.sent = self.far.sent, []
        for message in sent:
            self._at_callee(message)

    # the phones

    def _call(self, message: bytes) -> None:
        self.near.towards_us.append((message, sipp.CALLER, sipp.CALLER_PORT))

    def _answer(self, message: bytes) -> None:
        self.far.towards_us.append((message, sipp.CALLEE, sipp.CALLEE_PORT))

    def _at_caller(self, message: bytes) -> None:
        if not message.startswith(b"SIP/2.0 200"):
            if message[:9] != b"SIP/2.0 1":
                raise AssertionError(message.decode())
            return
        if b"BYE\r\n" in message:
            self.finished += 1
            return
        to, call_id = _line(message, b"\r\nTo: "), _line(message, b"\r\nCall-ID: ")
        target = _line(message, b"\r\nContact: <").partition(b"<")[2].rstrip(b">")
        values = {**self._values, b"n": int(call_id[9:].partition(b"-")[0]), b"to": to, b"target": target}
        self._call(self._later % {**values, b"cseq": 1, b"method": b"ACK"})
        bye = self._later % {**values, b"cseq": 2, b"method": b"BYE"}
        self._hang_ups.append((self.clock.now + 0.1, self._call, bye))

    def _at_callee(self, message: bytes) -> None:
        if message.startswith(b"ACK"):
            return
        head = [_line(message, name) for name in (b"\r\nVia: ", b"\r\nFrom: ")]
        tail = [_line(message, name) for name in (b"\r\nCall-ID: ", b"\r\nCSeq: ")]
        to = _line(message, b"\r\nTo: ")
        if message.startswith(b"BYE"):
            self._answer(b"\r\n".join([b"SIP/2.0 200 OK", *head, to, *tail, b"Content-Length: 0\r\n\r\n"]))
            return
        self._answer(b"\r\n".join([b"SIP/2.0 100 Trying", *head, to, *tail, b"Content-Length: 0\r\n\r\n"]))
        to += b";tag=7b%d" % self._number
        self._answer(b"\r\n".join([b"SIP/2.0 180 Ringing", *head, to, *tail, self._ringing]))
        answer = b"\r\n".join([b"SIP/2.0 200 OK", *head, to, *tail, self._ok])
        self._agenda.append((self.clock.now + 0.02, self._answer, answer))


def _line(message: bytes, name: bytes) -> bytes:
    start = message.index(name) + 2
    return message[start : message.index(b"\r\n", start)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.core_calls", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("job", choices=("plain", "full"), nargs="?", default="full")
    parser.add_argument("--calls", type=int, default=2000, help="of each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rate", type=float, default=300.0, help="calls/s: how many fall into one tick")
    parser.add_argument("--warm", type=float, default=WARM_S, help="seconds of virtual time before the first round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-core-") as directory:
        bench = Bench(Path(directory), full=arguments.job == "full", rate=arguments.rate)
        bench.warm(arguments.warm)
        bench.worker._garbage.start()
        rounds = [bench.run(arguments.calls) for _ in range(arguments.rounds)]
        faults = {name: n for name, n in bench.page.values().items() if n and name.name in _FAULTS}
        bench.close()
    print(f"{arguments.job}: {min(rounds):.1f} us/call of {', '.join(f'{us:.1f}' for us in rounds)}")
    if faults:
        raise SystemExit(f"not clean: {faults}")


_FAULTS = frozenset({"CORE_ERRORS", "CORE_FAULTS", "ROUTE_ERRORS", "RETRANSMISSION_OUT", "CALLS_FAILED", "STORE_DOWN"})

if __name__ == "__main__":
    main()
