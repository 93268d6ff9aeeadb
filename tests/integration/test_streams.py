"""Calls over TCP through a real SBC: SIPp on both sides, streams cut anywhere, peers that misuse a connection."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, STRANGER, Loopback, loopback
from tests.support.raw import status_of
from tests.support.sbc import Sbc, eventually, running
from tests.support.tcp import Stream


def stream_site(*, sip: int = 1, callee: str = "tcp", more: str = "") -> Loopback:
    """The loopback site with TCP beside UDP on every listener; the callee is called by ``callee``."""
    net = loopback(sip=sip, more=more)
    text = net.text
    for host, port in ((OUTSIDE, net.port), (CORE, net.core_port)):
        text = text.replace(f"[udp:{host}:{port}]", f"[udp:{host}:{port}, tcp:{host}:{port}]")
    gateway = f"sip:{CALLEE}:{net.callee_port}"
    text = text.replace(f'"{gateway}"', f'"{gateway};transport={callee}"')
    return Loopback(text, net.port, net.core_port, net.callee_port)


def finished(sbc: Sbc, cdrs: int) -> None:
    eventually(lambda: len(sbc.cdrs()) >= cdrs, 10, f"{cdrs} CDRs")
    assert len(sbc.cdrs()) == cdrs
    assert not sbc.calls()
    assert sbc.total("CORE_ERRORS") == sbc.total("CORE_FAULTS") == 0


@pytest.mark.peer("sipp")
@pytest.mark.parametrize(("a", "b"), [("t1", "t1"), ("tn", "t1"), ("t1", "u1"), ("u1", "t1")])
@pytest.mark.parametrize("workers", [1, 2])
def test_calls_by_sipp(tmp_path: Path, a: str, b: str, workers: int) -> None:
    """100 calls, each leg by TCP or UDP: none fails, nothing is sent twice, and two workers share one connection."""
    net = stream_site(sip=workers, callee="tcp" if b[0] == "t" else "udp")
    with running(tmp_path / "sbc", net.text) as sbc:
        with (
            net.callee(tmp_path, "-t", b) as uas,
            net.caller(
                tmp_path, "-t", a, "-r", "50", "-m", "100", "-d", "200", "-l", "60", "-max_socket", "1000"
            ) as uac,
        ):
            counted = uac.finish()
            assert (counted.successful, counted.retransmissions, uas.counted().retransmissions) == (100, 0, 0)
            finished(sbc, 100)
        assert all(cdr["answered"] for cdr in sbc.cdrs())
        assert sbc.total("RETRANSMISSION_OUT") == 0
        if workers == 2 and a == "t1":
            assert sbc.total("HANDED_OVER_OUT") > 0
        assert sbc.total("STREAM_MESSAGES_IN") >= 300


Site = tuple[Loopback, Sbc]


@pytest.fixture(scope="module", params=[1, 2])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    net = stream_site(sip=request.param, more="connections: { per_source: 5 }\n")
    with running(tmp_path_factory.mktemp("streams") / "sbc", net.text) as sbc:
        yield net, sbc


def test_octet_by_octet(site: Site) -> None:
    with Stream(CALLER, (OUTSIDE, site[0].port)) as stream:
        data = stream.request("OPTIONS")
        stream.send(*[data[i : i + 1] for i in range(len(data))])
        assert status_of(stream.next()) == 200


def test_three_messages_in_one_segment_with_pings_between(site: Site) -> None:
    with Stream(CALLER, (OUTSIDE, site[0].port)) as stream:
        asked = [stream.request("OPTIONS") for _ in range(3)]
        stream.send(b"\r\n\r\n".join(asked))
        assert [status_of(stream.next()) for _ in range(3)] == [200, 200, 200]
        assert stream.octets.count(b"\r\n\r\n") >= 3
        stream.send(b"\r\n\r\n")
        before = len(stream.octets)
        eventually(lambda: stream.read(0.1) and len(stream.octets) == before + 2, 2, "a pong")


@pytest.mark.parametrize("length", ["X: 1", "Content-Length: 0\r\nl: 0", "Content-Length: no", "Content-Length: 70000"])
def test_a_broken_length_is_answered_with_400_and_the_connection_ends(site: Site, length: str) -> None:
    with Stream(CALLER, (OUTSIDE, site[0].port)) as stream:
        stream.send(stream.request("OPTIONS") + stream.request("OPTIONS", length=length) + b"x" * 20_000)
        statuses = [status_of(stream.next()), status_of(stream.next())]
        assert sorted(statuses) == [200, 400]  # from two workers, in any order
        assert stream.closed_after(3) < 3


def test_a_slow_message_ends_the_connection_within_5_s(site: Site) -> None:
    with Stream(CALLER, (OUTSIDE, site[0].port)) as slow, Stream(CALLER, (OUTSIDE, site[0].port)) as other:
        start = time.monotonic()
        slow.send(slow.request("OPTIONS")[:-2], slow.request("OPTIONS")[:1])
        assert status_of(slow.next(0.2)) == 0
        other.send(other.request("OPTIONS"))
        assert status_of(other.next()) == 200
        assert slow.closed_after(6) + 0.2 <= 5.1
        assert 4.0 < time.monotonic() - start < 5.1
        other.send(other.request("OPTIONS"))
        assert status_of(other.next()) == 200


def test_one_source_has_so_many_connections_and_a_stranger_none(site: Site) -> None:
    """The limit is each worker's, so two workers may take up to twice as many."""
    net, sbc = site
    workers = len([name for name in sbc.pids() if name.startswith("sip")])
    streams = [Stream(CALLER, (OUTSIDE, net.port)) for _ in range(5 * workers + 4)]
    open_ones = 0
    for stream in streams:
        try:
            stream.send(stream.request("OPTIONS"))
            open_ones += status_of(stream.next(1.0)) == 200
        except ConnectionError:
            pass
    for stream in streams:
        stream.close()
    assert 5 <= open_ones <= 5 * workers
    with Stream(STRANGER, (OUTSIDE, net.port)) as stranger:
        assert stranger.closed_after(2) < 2
    eventually(lambda: _answers(net), 5, "room again")


def _answers(net: Loopback) -> bool:
    with Stream(CALLER, (OUTSIDE, net.port)) as stream:
        try:
            stream.send(stream.request("OPTIONS"))
        except ConnectionError:
            return False
        return status_of(stream.next(1.0)) == 200


def test_a_peer_that_does_not_read_is_let_go(site: Site) -> None:
    """Answers of 256 kB and what the kernel holds wait at most; others are not held up."""
    net, sbc = site
    with Stream(CALLER, (OUTSIDE, net.port), receive_bytes=4096) as deaf:
        try:
            for _ in range(100):
                deaf.send(b"".join(deaf.request("OPTIONS", more=("Subject: " + "x" * 500,)) for _ in range(400)))
        except OSError:
            pass
        else:
            pytest.fail("everything was taken")
    assert sbc.total("STREAM_QUEUE_FULL") == 1
    with Stream(CALLER, (OUTSIDE, net.port)) as other:
        other.send(other.request("OPTIONS"))
        assert status_of(other.next()) == 200


def test_slow_connections_hold_nobody_up(tmp_path: Path) -> None:
    """90 connections with an unfinished message each: all are closed within 5 s, and meanwhile others get their answers
    in no time; one that says nothing at all is closed after the idle timeout."""
    net = stream_site(more="connections: { per_source: 95, idle_timeout_s: 2 }\n")
    with running(tmp_path / "sbc", net.text) as sbc:
        slow = [Stream(CALLER, (OUTSIDE, net.port)) for _ in range(90)]
        silent = Stream(CALLER, (OUTSIDE, net.port))
        start = time.monotonic()
        for stream in slow:
            stream.send(stream.request("OPTIONS")[:1])
        took = []
        with Stream(CALLER, (OUTSIDE, net.port)) as other:
            while time.monotonic() - start < 4.0:
                asked = time.monotonic()
                other.send(other.request("OPTIONS"))
                assert status_of(other.next()) == 200
                took.append(time.monotonic() - asked)
                for stream in slow:  # a further octet does not buy time, nor does it break the message
                    stream.send(b"O")
                time.sleep(0.1)
        took.sort()
        assert took[-1] < 0.5
        assert took[len(took) // 2] < 0.05, took
        assert all(stream.closed_after(2) < 2 for stream in slow)
        assert time.monotonic() - start < 5.5
        assert sbc.total("STREAM_TIMEOUTS") == 90
        assert silent.closed_after(1) < 1
        for stream in (*slow, silent):
            stream.close()


def test_nothing_went_wrong_inside(site: Site) -> None:
    _, sbc = site
    assert sbc.total("CORE_ERRORS") == sbc.total("CORE_FAULTS") == 0
    assert "Traceback" not in sbc.log
    assert os.path.exists(sbc.directory)
