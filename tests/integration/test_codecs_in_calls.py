"""Calls whose sides have no codec in common, and digits that they want differently, through a whole SBC."""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import Agent, UaCall
from tests.support.ends import Phone, run
from tests.support.loopback import CALLEE, CALLER, OUTSIDE, loopback
from tests.support.sbc import Sbc, eventually, running
from tests.support.waves import alaw, level, tone

EVENT = 101
HEARD_S = 1.0


@contextlib.contextmanager
def connected(
    folder: Path, profiles: str, caller_codec: str, callee_codec: str
) -> Iterator[tuple[Sbc, tuple[Agent, Agent], tuple[UaCall, UaCall], tuple[Phone, Phone]]]:
    """A call from the peer ``carrier`` to the peer ``pbx``, with the ends of its audio."""
    net = loopback()
    ends = Phone(CALLER), Phone(CALLEE)
    text = net.text.replace("calls_to: pbx }", "calls_to: pbx, profile: near }", 1)
    text = text.replace("direction: from_pbx,", "direction: from_pbx, profile: far,")
    with (
        running(folder, f"{text}media_profiles:\n{profiles}") as sbc,
        Agent(CALLER, audio_port=lambda: ends[0].port, codec=caller_codec) as caller,
        Agent(CALLEE, net.callee_port, audio_port=lambda: ends[1].port, codec=callee_codec) as callee,
    ):
        a = caller.call((OUTSIDE, net.port), "1001")
        eventually(lambda: a.up, 5, "an answer")
        (b,) = callee.calls.values()
        for end, call in zip(ends, (a, b), strict=True):
            end.far_host, end.far = call.far_audio
        yield sbc, (caller, callee), (a, b), ends
        caller.hang_up(a)
        eventually(lambda: not sbc.calls(), 5, "the end of the call")
        assert sbc.total("CORE_ERRORS") == sbc.total("CORE_FAULTS") == 0
    for end in ends:
        end.socket.close()


def echo(ends: tuple[Phone, Phone], to: tuple[str, int], seconds: float) -> None:
    """The near end talks; what the far one gets goes back as it came."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        known = len(ends[1].heard)
        run(ends, 0.02)
        for _, data in ends[1].heard[known:]:
            ends[1].socket.sendto(data, to)


@pytest.mark.parametrize("codec", ["96 opus/48000/2", "9 G722/8000", "0 PCMU/8000"])
def test_audio_comes_back_from_a_side_with_another_codec(tmp_path: Path, codec: str) -> None:
    number, name = codec.partition("/")[0].split()
    profiles = f"  near: {{}}\n  far: {{ transcode: [{name}] }}\n"
    with connected(tmp_path / "sbc", profiles, "8 PCMA/8000", codec) as (_, _, _, ends):
        near, far = ends
        near.clip = alaw(tone(1000, 1))
        back_to, far.far = (far.far_host, far.far), 0  # it sends nothing of its own
        echo(ends, back_to, 0.6)
        assert {data[1] & 127 for _, data in far.heard} == {int(number)}
        near.heard.clear()
        echo(ends, back_to, HEARD_S)
        assert {data[1] & 127 for _, data in near.heard} == {8}
        back = near.audio()
        assert len(back) > 6000
        assert level(back, 1000) > 7000
        assert level(back, 1700) < 300


def press(end: Phone, digit: int) -> None:
    """One key, by RFC 4733 events of 80 ms."""
    begin = end.sent * 160
    for number, (duration, last) in enumerate([(160, 0), (320, 0), (480, 0), (640, 1), (640, 1), (640, 1)]):
        marker = 128 if number == 0 else 0
        head = struct.pack("!BBHII", 0x80, marker | EVENT, end.sent & 0xFFFF, begin, end.port)
        end.socket.sendto(head + struct.pack("!BBH", digit, last << 7 | 10, duration), (end.far_host, end.far))
        end.sent += 1
        time.sleep(0.01)


def test_digits_become_info_and_info_becomes_digits(tmp_path: Path) -> None:
    profiles = "  near: { dtmf: rfc4733 }\n  far: { dtmf: info }\n"
    both = f"8 PCMA/8000, {EVENT} telephone-event/8000"
    with connected(tmp_path / "sbc", profiles, both, "8 PCMA/8000") as (_, (_, callee), (_, b), ends):
        near, far = ends
        near.clip = far.clip = alaw(tone(600, 1))
        run(ends, 0.2)
        for digit in (5, 11):
            press(near, digit)
        eventually(lambda: len(b.informed) == 2, 3, "the digits by INFO")
        assert [body.split("\r\n")[0] for body in b.informed] == ["Signal=5", "Signal=#"]
        assert not any(data[1] & 127 == EVENT for _, data in far.heard), "they came by INFO, and only so"
        near.heard.clear()
        asked = callee.inform(b, "7")
        run(ends, 0.5)
        eventually(lambda: asked.status == 200, 2, "an answer to the INFO")
        events = [data for _, data in near.heard if data[1] & 127 == EVENT]
        assert {data[12] for data in events} == {7}
        assert sum(data[13] >> 7 for data in events) == 3, "three times the end (RFC 4733 §2.5.1.4)"
        numbers = [struct.unpack_from("!H", data, 2)[0] for _, data in near.heard]
        assert all((later - earlier) & 0xFFFF == 1 for earlier, later in itertools.pairwise(numbers))
        assert len({data[8:12] for _, data in near.heard}) == 1, "one SSRC for both"
