"""The same messages over TCP: as a whole, octet by octet, and cut off in the middle.

On a stream, Content-Length alone says where a message ends (RFC 3261 §18.3), so what it says decides before anything
else is read, and some rows of ``expectations.csv`` differ from those for datagrams:

- none, several or none that is a number: 400 and the end of the connection; a response is only dropped. This holds for
  valid messages, too: what comes behind them cannot be told apart.
- more than there is: the rest is waited for, for as long as a message has, then the connection is closed without an
  answer. 400, as for a datagram, would be wrong: it may still come.
- less than there is: what is left begins the next message. The first has its own outcome, whatever the next is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.support.expectations import DATA, DROP, PATIENCE_S, Bench, How, Row, benched, case, judge, rows
from tests.support.loopback import CALLER, OUTSIDE
from tests.support.raw import Raw, status_of
from tests.support.sbc import eventually
from tests.support.tcp import Stream

MESSAGE_S = 0.5


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    limits = f"connections: {{ message_timeout_s: {MESSAGE_S} }}\n"
    with benched(tmp_path_factory.mktemp("by-stream") / "sbc", more=limits) as made:
        yield made


def framing(data: bytes) -> str:
    """What a stream makes of these octets, as told above: ``sound``, ``broken``, ``short`` (the rest is waited for),
    ``long`` (more follows), or ``noise``, which has no end of headers."""
    head, end, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not end:
        return "noise"
    values = re.findall(rb"^(?:content-length|l)[ \t]*:(.*(?:\r\n[ \t].*)*)", head, re.M | re.I)
    if len(values) != 1 or not values[0].strip().isdigit() or len(values[0].strip()) > 9:
        return "broken"
    missing = int(values[0]) - len(body)
    return "short" if missing > 0 else "long" if missing < 0 else "sound"


def allowed_by_stream(row: Row, data: bytes) -> set[int | str]:
    match framing(data):
        case "broken":
            return {DROP} if data.startswith(b"SIP/") or DROP in row.allowed else {400}
        case "short" | "noise":
            return {DROP}
        case _:
            return row.allowed


# Two requests, so two outcomes in any order: see the test of its own.
ONE_EACH = [row for row in rows() if not row.file.endswith("/dblreq.dat")]


@pytest.mark.parametrize("row", [case(row) for row in ONE_EACH])
@pytest.mark.parametrize("how", ["whole", "octets"])
def test_outcome(row: Row, how: How, bench: Bench) -> None:
    data = (DATA / row.file).read_bytes()
    allowed = allowed_by_stream(row, data)
    waits = framing(data) in ("short", "noise")
    start = time.monotonic()
    seen = bench.play(data, 0.3 if DROP in allowed and not waits else PATIENCE_S, how)
    if waits and data.strip(b"\r\n"):
        assert seen.closed, "an unfinished message must not wait for ever"
        assert time.monotonic() - start < MESSAGE_S + 1.5
    if row.kind == "valid" and framing(data) in ("sound", "long"):
        assert seen.what not in (400, 500), f"a valid message got {seen.what}:\n{seen.answer!r}"
    with Raw(CALLER) as caller:
        assert caller.best_ping((OUTSIDE, bench.net.port)) < 0.1
    assert bench.sbc.pids() == bench.pids
    judge(row, seen, allowed)


def test_the_second_request_of_dblreq_is_a_message_of_its_own(bench: Bench) -> None:
    with Stream(CALLER, (OUTSIDE, bench.net.port)) as stream:
        stream.send((DATA / "sip/rfc4475/dblreq.dat").read_bytes())
        ended = eventually_answered(stream, bench)
    assert ended == {"REGISTER", "INVITE"}


def eventually_answered(stream: Stream, bench: Bench) -> set[str]:
    """The methods whose requests got a final answer within 3 s; the callee refuses what reaches it."""
    methods: set[str] = set()
    end = time.monotonic() + 3
    while time.monotonic() < end and len(methods) < 2:
        bench.refuse_all()
        for message, _ in stream.take():
            if status_of(message) >= 200:
                methods.add(message.split(b"\r\nCSeq:", 1)[1].split(b"\r\n", 1)[0].split()[1].decode())
        time.sleep(0.02)
    return methods


def test_what_is_cut_off_is_as_if_it_never_came(bench: Bench) -> None:
    """Each file up to its middle, then the end of the connection: no answer, no call, and nothing is left."""
    bench.callee.take()
    before = bench.sbc.total("CALLS_STARTED")
    whole = 0
    for row in rows():
        data = (DATA / row.file).read_bytes()
        half = data[: len(data) // 2]
        if framing(half) in ("sound", "long"):  # that is more than a cut message
            whole += 1
            continue
        with Stream(CALLER, (OUTSIDE, bench.net.port)) as stream:
            stream.send(half)
            stream.close()
    assert whole < 5
    with Stream(CALLER, (OUTSIDE, bench.net.port)) as stream:
        stream.send(stream.request("OPTIONS"))
        assert status_of(stream.next()) == 200
    assert not [message for message, _ in bench.callee.take() if not message.startswith(b"SIP/2.0")]
    assert bench.sbc.total("CALLS_STARTED") == before
    assert bench.sbc.pids() == bench.pids


def test_nothing_went_wrong_inside(bench: Bench) -> None:
    started = bench.sbc.total("CALLS_STARTED")
    assert started > 0
    eventually(lambda: len(bench.sbc.cdrs()) == started, 10, f"{started} CDRs")
    assert not re.search("15551230000|X-Billing|X-Trusted", repr(bench.sbc.cdrs()))
    assert repr(bench.sbc.cdrs()).isprintable()
    assert bench.sbc.total("CORE_ERRORS") == bench.sbc.total("CORE_FAULTS") == 0
    assert "Traceback" not in bench.sbc.log
