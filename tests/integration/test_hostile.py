"""Hostile input against a real SBC over UDP: no worker dies, nobody waits, strangers get nothing, logs stay logs."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from pathlib import Path

import pytest

from tests.support.agents import Agent
from tests.support.loopback import CALLEE, CALLER, CORE, OTHER, OUTSIDE, STRANGER, loopback
from tests.support.raw import Raw, status_of
from tests.support.sbc import Sbc, eventually, running
from tests.support.shared import shared_data

SHORT_TIMERS = "timers: { t1_ms: 20, t2_ms: 160, t4_ms: 200 }\n"  # transactions of a flood end within two seconds
SDP = b"v=0\r\no=x 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def own_malformed(port: Raw, to: tuple[str, int]) -> list[bytes]:
    """Malformed datagrams of these tests: made by hand, and sound messages cut short or with octets changed."""
    invite, options = port.request("INVITE", to, body=SDP), port.request("OPTIONS", to)
    by_hand = [
        b"\0" * 40,
        b"\r\n\r\n",
        b"SIP/2.0",
        b"INVITE",
        b"INVITE sip:a@b SIP/2.0\r\n\r\n",
        b"SIP/2.0 200 OK\r\n\r\n",
        b"SIP/2.0 99999999999 OK\r\nVia: x\r\n\r\n",
        b"\xff" * 1400,
        options.replace(b"Content-Length: 0", b"Content-Length: -1"),
        options.replace(b"Content-Length: 0", b"Content-Length: 99999"),
        options.replace(b"CSeq: 1 OPTIONS", b"CSeq: 4294967296 OPTIONS"),
        options.replace(b"SIP/2.0/UDP", b"SIP/2.0/\xc3\x28"),
        options.replace(b"Call-ID:", b"Call-ID:\0"),
        options.replace(b"\r\n", b"\n\r"),
        options.replace(b"\r\n\r\n", b"\r\nX: " + b"a" * 60_000 + b"\r\n\r\n"),
        options.replace(b"\r\n\r\n", b"\r\n" + b"Via: SIP/2.0/UDP x\r\n" * 2000 + b"\r\n"),
        options.replace(b"From: <", b'From: "' + b"\\" * 900 + b"<"),
        invite.replace(b"m=audio 4000", b"m=audio 99999999999999999999"),
        invite.replace(b"c=IN IP4 127.0.0.1", b"c=IN IP6 " + b":" * 300),
        invite.replace(b"m=audio", b"m=" + b"audio " * 900),
    ]
    chance = random.Random(3261)
    cut = [message[: chance.randrange(len(message))] for message in (invite, options) for _ in range(60)]
    changed = []
    for number in range(160):
        octets = bytearray(invite if number % 2 else options)
        for _ in range(1 + number % 8):
            octets[chance.randrange(len(octets))] = chance.randrange(256)
        changed.append(bytes(octets))
    return by_hand + cut + changed


def found_malformed() -> list[bytes]:
    """What the test data has: every SIP file, and the seeds of other protocols, which are no SIP at all."""
    try:
        folders = [shared_data("sip"), shared_data("corpus")]
    except pytest.skip.Exception:
        return []
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [data for data in (path.read_bytes() for path in files) if len(data) < 65_000]


def resident_bytes(sbc: Sbc) -> dict[str, int]:
    """Memory of the SIP workers by name."""
    return {
        name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
        for name, pid in sbc.pids().items()
        if name.startswith("sip")
    }


def test_a_thousand_malformed_datagrams_stop_nobody(tmp_path: Path) -> None:
    """From a configured peer; between and after them an OPTIONS is answered within 100 ms, and memory stays flat."""
    net = loopback(sip=2, more=SHORT_TIMERS)
    to = (OUTSIDE, net.port)
    with (
        running(tmp_path / "sbc", net.text) as sbc,
        Raw(CALLER) as hostile,
        Raw(CALLER) as friend,
        Raw(CALLEE, net.callee_port),  # it is there and says nothing
    ):
        pids = sbc.pids()
        datagrams = itertools.cycle(own_malformed(hostile, to) + found_malformed())

        def thousand() -> None:
            for _ in range(25):
                for data in itertools.islice(datagrams, 40):
                    hostile.send(data, to)
                assert friend.best_ping(to) < 0.1
                hostile.take()

        thousand()
        time.sleep(2)
        before = resident_bytes(sbc)
        for _ in range(4):
            thousand()
        assert friend.best_ping(to) < 0.1
        eventually(lambda: sbc.ask("calls", limit=0)["total"] == 0, 10, "the end of every call")
        time.sleep(2)
        after = resident_bytes(sbc)
        assert sbc.pids() == pids
        assert sbc.total("DATAGRAMS_IN") >= 5000
        assert sbc.total("CORE_FAULTS") == sbc.total("CORE_ERRORS") == 0
        growth = {name: after[name] - before[name] for name in before}
        assert all(growth[name] < before[name] // 20 for name in before), (before, growth)
        started = sbc.total("CALLS_STARTED")
        eventually(lambda: len(sbc.cdrs()) == started, 10, f"{started} CDRs")


@pytest.mark.parametrize("policy", ["drop", "refuse"])
def test_strangers_get_no_state(policy: str, tmp_path: Path) -> None:
    """Requests of unknown sources: silence, or 403 and nothing kept. Each one is counted, and no call begins."""
    net = loopback(sip=2, more=f"unknown_sources: {policy}\n")
    to, inside = (OUTSIDE, net.port), (CORE, net.core_port)
    with (
        running(tmp_path / "sbc", net.text) as sbc,
        Raw(STRANGER) as stranger,
        Raw(CALLER) as lost,  # a peer, but not in the network of the other listener
    ):
        scanner = "User-Agent: friendly-scanner"
        requests = [
            (port, port.request(method, address, body=SDP if method == "INVITE" else b"", more=(scanner,)), address)
            for port, address in ((stranger, to), (stranger, inside), (lost, inside))
            for method in ("INVITE", "OPTIONS", "REGISTER", "BYE", "CANCEL", "MESSAGE", "FROB") * 10
        ]
        # What has no answer under any policy: ACKs, responses, what is no message.
        silent = [stranger.request("ACK", to), b"SIP/2.0 200 OK\r\nVia: x\r\n\r\n", b"\0\1\2", b"\r\n\r\n"] * 10
        answers = []
        for port, data, address in requests:
            port.send(data, address)
            if policy == "refuse":
                answers.append(port.next())
        for data in silent:
            stranger.send(data, to)
        refused, dropped = (len(requests), len(silent)) if policy == "refuse" else (0, len(requests) + len(silent))
        eventually(lambda: sbc.total("UNKNOWN_SOURCE_DROPPED") >= dropped, 5, f"{dropped} dropped")
        time.sleep(0.3)
        assert sbc.total("UNKNOWN_SOURCE_DROPPED") == dropped
        assert sbc.total("UNKNOWN_SOURCE_REFUSED") == refused
        assert stranger.take() == lost.take() == []
        for (_, data, _), answer in zip(requests, answers, strict=False):
            assert status_of(answer) == 403
            assert data.partition(b"Call-ID: ")[2].partition(b"\r")[0] in answer
            assert b"Server:" not in answer
            assert b"User-Agent:" not in answer
        assert sbc.total("CALLS_STARTED") == sbc.total("TRANSACTIONS") == 0
        assert sbc.calls() == sbc.cdrs() == []


def test_a_bye_from_another_peer_does_not_end_a_call(tmp_path: Path) -> None:
    """Every octet of the dialog is right, only the source is another peer's: as if there were no such call."""
    net = loopback(sip=2)
    to = (OUTSIDE, net.port)
    with (
        running(tmp_path / "sbc", net.text) as sbc,
        Agent(CALLEE, net.callee_port) as callee,
        Agent(CALLER) as caller,
        Raw(OTHER) as other,
        Raw(STRANGER) as stranger,
    ):
        call = caller.call(to, "1001")
        eventually(lambda: call.up, 5, "the call is up")
        [answered] = callee.all_calls()
        a_dialog = (f"From: {call.local}", f"To: {call.remote}", f"Call-ID: {call.call_id}")
        b_dialog = (f"From: {answered.local}", f"To: {answered.remote}", f"Call-ID: {answered.call_id}")
        for method in ("BYE", "INVITE", "INFO"):
            for dialog in (a_dialog, b_dialog):
                body = SDP if method == "INVITE" else b""
                other.send(other.request(method, to, body=body, more=(*dialog, f"CSeq: 99 {method}")), to)
                assert status_of(other.next()) == 481
                stranger.send(stranger.request(method, to, body=body, more=(*dialog, f"CSeq: 99 {method}")), to)
        # A CANCEL with the branch of the INVITE, and the ACK that would end the wait for the right one.
        other.send(other.request("CANCEL", to, more=(*a_dialog[:1], *a_dialog[2:], "CSeq: 1 CANCEL")), to)
        assert status_of(other.next()) == 481
        other.send(other.request("ACK", to, more=(*a_dialog, "CSeq: 99 ACK")), to)
        time.sleep(0.3)
        assert stranger.take() == []
        assert sbc.total("WRONG_SOURCE_REFUSED") == 7
        assert [row["state"] for row in sbc.calls()] == ["up"]
        assert answered.got == call.got == []
        asked = caller.hang_up(call)
        eventually(lambda: asked.status != 0, 5, "an answer to the right BYE")
        assert asked.status == 200
        eventually(lambda: answered.ended_by_far, 5, "BYE at the callee")
        eventually(lambda: len(sbc.cdrs()) == 1, 5, "the CDR")
        assert sbc.cdrs()[0]["hangup"] == "a"


ROUTES = """\
from sbc.routing import BadMessage, Request, Routes
from sbc.telemetry import log

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    call = request.call
    call.node.log.info("heard", agent=request.headers.get("User-Agent"), caller=str(request.from_))
    await request.reject(404)


@routes.error_route
async def tell(bad: BadMessage) -> None:
    log.get().info("heard", octets=bad.data)
    await bad.reply(bad.error.status)
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_message_cannot_write_log_lines(form: str, tmp_path: Path) -> None:
    """As many lines as messages, in both forms, whatever the messages hold, and one row each in database and CSV."""
    (tmp_path / "loud.py").write_text(ROUTES)
    csv = tmp_path / "cdr.csv"
    more = f"routes: {tmp_path}/loud.py\ncdr: {{ csv: {csv} }}\nlog: {{ format: {form} }}\n"
    net = loopback(more=more)
    to = (OUTSIDE, net.port)
    with running(tmp_path / "sbc", net.text) as sbc, Raw(CALLER) as port:
        texts = [
            "\x1b[2J\x1b]0;owned\x07 =cmd|calc %n%s ${jndi:x}",
            '2026-01-01 CRITICAL fake","level":"error',
            "\u2028next\u2029\u0085line\u202eesrever",
            "\udcff\udcfe\udcc0",
            "folded\r\n 2026-01-01 CRITICAL fake",
            "{caller} %(caller)s [bold red]x[/]",
        ]
        agents = [port.request("INVITE", to, more=(f"User-Agent: {text}",)) for text in texts]
        names = [
            port.request("INVITE", to, more=(f'From: "{name}" <sip:=%0d%0a%1b[2J;x@h>;tag=t{number}',))
            for number, name in enumerate(texts[2:4])
        ]
        messages = agents + names + attack_26()
        calls = 0
        for data in messages:
            status = final_of(data, to)
            assert status in (400, 404)
            calls += status == 404
        assert calls == len(agents) + len(names)
        eventually(lambda: len(sbc.cdrs()) == calls, 10, f"{calls} CDRs")
        eventually(lambda: csv.exists() and csv.read_bytes().count(b"\n") == calls + 1, 10, "rows in the CSV file")
        text = sbc.log
    lines = text.split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)
    heard = [line for line in lines if "heard" in line]
    assert len(heard) == len(messages)
    if form == "json":
        rows = [json.loads(line) for line in lines]
        assert sum(row["event"] == "heard" for row in rows) == len(messages)
        assert {row["level"] for row in rows if row["event"] == "heard"} == {"info"}
    assert csv.read_bytes().decode().replace("\r\n", "").isprintable()


def attack_26() -> list[bytes]:
    """The log injection of the test data, where it is."""
    try:
        return [shared_data("sip", "attacks", "a26-log-injection.sip").read_bytes()]
    except pytest.skip.Exception:
        return []


def final_of(data: bytes, to: tuple[str, int]) -> int:
    """The status of the final answer to this message, sent from a port of its own."""
    with Raw(CALLER) as port:
        port.send(data, to)
        status = 100
        while 0 < status < 200:
            status = status_of(port.next(5))
        return status
