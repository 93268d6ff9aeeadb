"""Reader and Writer on real sockets of the loopback interface."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from sbc.worker._datagrams import Reader, Writer


def bound(family: int, address: str) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.bind((address, 0))
    except OSError:
        made.close()
        pytest.skip(f"this machine cannot bind {address}")
    return made


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["ipv4", "ipv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket, str]]:
    family, address = request.param
    with closing(bound(family, address)) as left, closing(bound(family, address)) as right:
        yield left, right, address


def port_of(made: socket.socket) -> int:
    return int(made.getsockname()[1])


def test_batches_arrive_in_order_with_their_source(pair: tuple[socket.socket, socket.socket, str]) -> None:
    left, right, address = pair
    writer, reader = Writer(left.fileno()), Reader(right.fileno(), batch=32)
    sent = [b"%d" % i * (i % 50 + 1) for i in range(100)]
    assert writer.send([(data, address, port_of(right)) for data in sent]) == 100
    batches = [reader.read() for _ in range(5)]
    assert [len(batch) for batch in batches] == [32, 32, 32, 4, 0]
    assert [item for batch in batches for item in batch] == [(data, address, port_of(left)) for data in sent]


def test_how_long_the_oldest_has_waited_is_told(pair: tuple[socket.socket, socket.socket, str]) -> None:
    left, right, address = pair
    reader = Reader(right.fileno(), batch=2)
    writer = Writer(left.fileno())
    began = time.monotonic()
    writer.send([(b"1", address, port_of(right))])
    time.sleep(0.1)
    writer.send([(b"2", address, port_of(right)), (b"3", address, port_of(right))])
    assert len(reader.read()) == 2
    assert 0.09 < reader.waited_s <= time.monotonic() - began + 0.01
    first = reader.waited_s
    assert len(reader.read()) == 1
    assert reader.waited_s < first
    assert reader.read() == []
    assert reader.waited_s == 0


def test_large_and_empty_datagrams(pair: tuple[socket.socket, socket.socket, str]) -> None:
    left, right, address = pair
    reader = Reader(right.fileno())
    assert Writer(left.fileno()).send([(b"", address, port_of(right)), (b"x" * 65000, address, port_of(right))]) == 2
    assert [len(data) for data, _, _ in reader.read()] == [0, 65000]


def test_unsendable_items_are_counted_and_the_rest_is_sent(pair: tuple[socket.socket, socket.socket, str]) -> None:
    left, right, address = pair
    writer = Writer(left.fileno())
    port = port_of(right)
    items = [
        (b"1", address, port),
        (b"2", "not-an-address", port),
        (b"3", "", port),
        (b"4", address, 0),
        (b"5", address, 65536),
        (b"6" * 65536, address, port),
        (b"7", "ａ", port),
        (b"8", address, port),
    ]
    assert writer.send(items) == 2
    assert (writer.failed, writer.dropped) == (6, 0)
    assert [data for data, _, _ in Reader(right.fileno()).read()] == [b"1", b"8"]


def test_an_icmp_error_is_never_raised() -> None:
    with closing(bound(socket.AF_INET, "127.0.0.1")) as left, closing(bound(socket.AF_INET, "127.0.0.1")) as gone:
        port = port_of(gone)
        gone.close()
        left.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_RECVERR", 11), 1)
        reader, writer = Reader(left.fileno()), Writer(left.fileno())
        writer.send([(b"x", "127.0.0.1", port)])
        assert reader.read() == []
        assert reader.errors == 1
        writer.send([(b"x", "127.0.0.1", port)])
        # The pending error of the first does not stop the second, which goes elsewhere.
        assert writer.send([(b"y", "127.0.0.1", port_of(left))]) == 1
        assert [data for data, _, _ in reader.read()] == [b"y"]


def test_a_full_queue_drops_and_counts() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with closing(left), closing(right), pytest.raises(ValueError, match="neither"):
        Writer(left.fileno())
    with closing(bound(socket.AF_INET, "127.0.0.1")) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        writer = Writer(sender.fileno())
        items = [(b"x" * 60000, "127.0.0.1", port_of(sender))] * 4
        assert writer.send(items) + writer.dropped + writer.failed == 4


def test_ipv4_on_an_ipv6_socket_is_shown_as_ipv4() -> None:
    with closing(bound(socket.AF_INET6, "::")) as both, closing(bound(socket.AF_INET, "127.0.0.1")) as plain:
        Writer(plain.fileno()).send([(b"a", "127.0.0.1", port_of(both))])
        [(data, host, port)] = Reader(both.fileno()).read()
        assert (data, host, port) == (b"a", "127.0.0.1", port_of(plain))
        assert Writer(both.fileno()).send([(b"b", host, port)]) == 1
        assert plain.recvfrom(10) == (b"b", ("127.0.0.1", port_of(both)))


def test_a_closed_descriptor_is_an_error() -> None:
    made = bound(socket.AF_INET, "127.0.0.1")
    reader, writer = Reader(made.fileno()), Writer(made.fileno())
    made.close()
    with pytest.raises(OSError, match="failed"):
        reader.read()
    with pytest.raises(OSError, match="failed"):
        writer.send([(b"x", "127.0.0.1", 5060)])
    with pytest.raises(OSError, match="not a bound socket"):
        Reader(-1)
