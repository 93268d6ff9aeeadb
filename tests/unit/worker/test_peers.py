"""Frames between workers."""

from __future__ import annotations

import socket

import pytest

from sbc.worker.peers import FAILED, RECEIVED, SEND, Frame, HandOver, pack, unpack


@pytest.mark.parametrize("kind", [RECEIVED, SEND, FAILED])
@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_a_frame_comes_back_as_it_was(kind: int, host: str) -> None:
    frame = Frame(kind, 63, 200, host, 65_535, (63 << 40) | (1 << 40) - 1, b"x" * 65_535)
    assert unpack(pack(*frame)) == frame


@pytest.mark.parametrize("octets", [b"", b"\0" * 12])
def test_what_is_no_frame_is_refused(octets: bytes) -> None:
    with pytest.raises(ValueError, match="no head"):
        unpack(octets)


def test_a_full_queue_says_so_and_keeps_the_order() -> None:
    read, write = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with read, write:
        write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        hand_over = HandOver(1, read, [write])
        given = 0
        while hand_over.give(0, 2, "192.0.2.1", 5060, b"%d" % given):
            given += 1
            assert given < 1000
        taken = list(hand_over.take())
        assert [frame.data for frame in taken] == [b"%d" % n for n in range(len(taken))]
        assert {(frame.kind, frame.slot, frame.listener, frame.connection) for frame in taken} == {(RECEIVED, 1, 2, 0)}
        assert hand_over.give(0, 2, "192.0.2.1", 5060, b"again", SEND, 1 << 40)
