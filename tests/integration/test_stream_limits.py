"""What a source may do with its connections: each limit as it is configured, refused, counted, and said in the log."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support.certificates import Authority
from tests.support.loopback import CALLER, OUTSIDE, loopback
from tests.support.raw import status_of
from tests.support.sbc import Sbc, eventually, free_port, running
from tests.support.tcp import Stream

LIMITS = """\
connections:
  per_source: 8
  idle_timeout_s: 2
  message_timeout_s: 0.5
  handshake_timeout_s: 0.8
  message_max_bytes: 4000
  head_max_bytes: 2000
  header_lines_max: 20
"""


class Site:
    """The SBC with a listener of each kind outside; its ports by transport."""

    def __init__(self, sbc: Sbc, ports: dict[str, int]) -> None:
        self.sbc, self.ports = sbc, ports

    def stream(self, transport: str) -> Stream:
        return Stream(CALLER, (OUTSIDE, self.ports[transport]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("limits")
    pair = Authority(directory / "ca", "authority").sign("sbc", f"IP:{OUTSIDE}")
    net = loopback(more=LIMITS)
    ports = {transport: free_port(OUTSIDE) for transport in ("tcp", "tls", "ws", "wss")}
    (directory / "sbc").mkdir()
    shutil.copy(pair.certificate, directory / "sbc" / "sbc.pem")
    shutil.copy(pair.key, directory / "sbc" / "sbc.key")
    listen = ", ".join(f"{transport}:{OUTSIDE}:{port}" for transport, port in ports.items())
    text = net.text.replace(
        f"[udp:{OUTSIDE}:{net.port}]",
        f"[udp:{OUTSIDE}:{net.port}, {listen}]\n    tls: {{ certificate: sbc.pem, key: sbc.key }}",
    )
    with running(directory / "sbc", text) as sbc:
        yield Site(sbc, ports)


LARGE = {
    "the headers are too long": ("Subject: " + "x" * 2000,),
    "too many headers": tuple(f"X-{i}: y" for i in range(30)),
}


@pytest.mark.parametrize("reason", [*LARGE, "the message is too long"])
def test_a_message_beyond_a_limit(site: Site, reason: str) -> None:
    """What was sound before it is served; it gets 400, and the connection ends."""
    before = site.sbc.total("STREAM_OVERSIZE")
    with site.stream("tcp") as stream:
        large = stream.request("OPTIONS", more=LARGE.get(reason, ()), body=b"" if reason in LARGE else b"x" * 4000)
        stream.send(stream.request("OPTIONS") + large + stream.request("OPTIONS"))
        assert [status_of(stream.next()), status_of(stream.next())] == [200, 400]
        assert stream.closed_after(3) < 3
        assert stream.next(0.1) == b""
    assert site.sbc.total("STREAM_OVERSIZE") == before + 1
    eventually(lambda: f"{CALLER}:{stream.port}" in site.sbc.log and reason in site.sbc.log, 2, "a line in the log")


def test_what_is_within_the_limits(site: Site) -> None:
    with site.stream("tcp") as stream:
        stream.send(
            stream.request("OPTIONS", more=("Subject: " + "x" * 1000,)), stream.request("OPTIONS", body=b"x" * 3000)
        )
        assert [status_of(stream.next()), status_of(stream.next())] == [200, 200]


@pytest.mark.parametrize(
    ("transport", "octets", "counter", "limit_s"),
    [
        ("tcp", b"OPTIONS ", "STREAM_TIMEOUTS", 0.5),
        ("tls", b"", "HANDSHAKES_FAILED", 0.8),
        ("tls", b"\x16\x03\x01\x02\x00\x01", "HANDSHAKES_FAILED", 0.8),
        ("wss", b"\x16\x03\x01\x02\x00\x01", "HANDSHAKES_FAILED", 0.8),
        ("ws", b"", "STREAM_TIMEOUTS", 0.8),
        ("ws", b"GET / HTTP/1.1\r\nHost: a\r\n", "STREAM_TIMEOUTS", 0.8),
    ],
)
def test_what_is_not_finished_in_time(site: Site, transport: str, octets: bytes, counter: str, limit_s: float) -> None:
    """Octets that drip in buy no time."""
    before = site.sbc.total(counter)
    with site.stream(transport) as stream:
        start = time.monotonic()
        if octets:
            stream.send(octets)
        assert stream.closed_after(3) < 3
        assert limit_s - 0.1 < time.monotonic() - start < limit_s + 1.2
    # the peer sees the end before the worker has counted and told it
    eventually(lambda: site.sbc.total(counter) == before + 1, 3, f"{counter} one more than {before}")
    event = "handshake failed" if counter == "HANDSHAKES_FAILED" else "not finished in time"
    eventually(lambda: event in site.sbc.log, 3, f"a line in the log: {event}")


@pytest.mark.parametrize(
    ("message", "code"),
    [("x" * 5000, 1009), ("OPTIONS sip:a SIP/2.0\r\n" + "X: y\r\n" * 30 + "\r\n", 1008), ("X" * 2500, 1008)],
    ids=["too long", "too many headers", "headers too long"],
)
def test_websocket_messages_beyond_a_limit(site: Site, message: str, code: int) -> None:
    before = site.sbc.total("STREAM_OVERSIZE")
    url, sip = f"ws://{OUTSIDE}:{site.ports['ws']}/", [Subprotocol("sip")]
    with connect(url, subprotocols=sip, source_address=(CALLER, 0)) as ws:
        ws.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(3)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
    assert site.sbc.total("STREAM_OVERSIZE") == before + 1


def test_connections_of_one_source_and_silent_ones(site: Site) -> None:
    refused = site.sbc.total("CONNECTIONS_REFUSED")
    idle = site.sbc.total("CONNECTIONS_IDLE")
    streams = [site.stream("tcp") for _ in range(12)]
    start = time.monotonic()
    assert sum(stream.closed_after(0.2) < 0.2 for stream in streams[8:]) == 4
    assert site.sbc.total("CONNECTIONS_REFUSED") == refused + 4
    assert "too many" in site.sbc.log
    assert all(stream.closed_after(4) < 4 for stream in streams[:8])
    assert 1.5 < time.monotonic() - start < 3.5
    assert site.sbc.total("CONNECTIONS_IDLE") == idle + 8
    assert "nothing came by it for too long" in site.sbc.log
    for stream in streams:
        stream.close()


def test_nothing_went_wrong_inside(site: Site) -> None:
    assert site.sbc.total("CORE_ERRORS") == site.sbc.total("CORE_FAULTS") == 0
    assert "Traceback" not in site.sbc.log


def test_without_descriptors_connections_are_closed_at_once_and_served_again_afterwards(site: Site) -> None:
    """prlimit on live workers: who has a connection goes on, nobody new waits in vain."""
    workers = [pid for name, pid in site.sbc.pids().items() if name.startswith("sip ")]
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in workers}
    refused = site.sbc.total("CONNECTIONS_REFUSED")
    opened: list[Stream] = []
    with site.stream("tcp") as old:
        old.send(old.request("OPTIONS"))
        assert status_of(old.next()) == 200
        try:
            for pid in workers:
                most = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, before[pid][1]))
            deadline = time.monotonic() + 20
            while not any(stream.ended for stream in opened):
                assert time.monotonic() < deadline
                if len(opened) < 7:  # as many as a source may have
                    opened.append(site.stream("tcp"))
                for stream in opened:
                    stream.read(0.02)
            old.send(old.request("OPTIONS"))
            assert status_of(old.next()) == 200
            eventually(lambda: site.sbc.total("CONNECTIONS_REFUSED") > refused, 5, "a count of it")
        finally:
            for pid, limits in before.items():
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            for stream in opened:
                stream.close()
    with site.stream("tcp") as new:
        new.send(new.request("OPTIONS"))
        assert status_of(new.next(10)) == 200
