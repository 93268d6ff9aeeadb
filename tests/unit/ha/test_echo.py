"""What routers are asked, and what counts as an answer."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from sbc.ha.addresses import checksum
from sbc.ha.witness import Witness, cookie_in, echo

COOKIE = bytes(range(16))


def test_a_request_is_an_echo_with_a_checksum() -> None:
    octets = echo(4, 7, COOKIE)
    assert octets[:2] == b"\x08\x00"
    assert checksum(octets) == 0
    assert octets[6:8] == b"\x00\x07"
    assert echo(6, 7, COOKIE)[:4] == b"\x80\x00\x00\x00"


def test_only_a_reply_with_the_octets_counts() -> None:
    reply = b"\x00" + echo(4, 7, COOKIE)[1:]
    header = b"\x46" + bytes(23)  # with an option
    assert cookie_in(4, reply, has_header=False) == COOKIE
    assert cookie_in(4, header + reply, has_header=True) == COOKIE
    assert cookie_in(6, b"\x81" + echo(6, 7, COOKIE)[1:], has_header=False) == COOKIE
    for other in (echo(4, 7, COOKIE), b"\x03\x01" + reply[2:], reply[:7], b"", header):
        assert cookie_in(4, other, has_header=False) == b""
    assert cookie_in(4, b"", has_header=True) == b""


async def test_who_is_there_answers_and_who_is_not_asked_does_not() -> None:
    loop = asyncio.get_running_loop()
    answers = asyncio.Semaphore(0)
    witness = Witness([ip_address("127.0.0.1"), ip_address("127.0.0.9")], loop, answers.release)
    witness.start()
    if witness.fault:
        pytest.skip(witness.fault)
    try:
        began = loop.time()
        assert witness.silent(began, 1) == ["127.0.0.1", "127.0.0.9"]
        witness.ask()
        async with asyncio.timeout(10):
            await answers.acquire()
            await answers.acquire()
        assert witness.silent(loop.time(), 10) == []
        assert witness.silent(loop.time() + 10, 5) == ["127.0.0.1", "127.0.0.9"]
    finally:
        witness.close()


async def test_a_machine_that_lets_nobody_ask_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("sbc.ha.witness.socket.socket", refuse)
    witness = Witness([ip_address("127.0.0.1")], asyncio.get_running_loop(), lambda: None)
    witness.start()
    assert "ping_group_range" in witness.fault
    witness.ask()
    witness.close()
