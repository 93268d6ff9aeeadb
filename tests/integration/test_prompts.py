"""Announcements, music on hold and recording of a whole SBC: its routes, profiles and commands, and what is heard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.agents import Agent, UaCall
from tests.support.ends import Phone, run
from tests.support.loopback import CALLEE, CALLER, OUTSIDE, loopback
from tests.support.sbc import Sbc, eventually, running
from tests.support.waves import alaw, level, read_wav, tone, write_wav

ROUTES = """\
from sbc.routing import Request, Routes

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    if request.called_number == "7000":
        return await request.call.announce("gone.wav", then=404)
    if request.called_number == "1000":
        return await request.call.announce("gone.wav", then=connect)
    await connect(request)


async def connect(request: Request) -> None:
    request.call.media.engage()
    await request.call.dial("pbx")
"""
MORE = """\
routes: routes.py
media: { prompts: prompts, recordings: recordings }
media_profiles:
  recorded: { music: music.wav, record: wav }
"""


class Site:
    """A running SBC, two agents, and the ends of their audio."""

    def __init__(self, sbc: Sbc, port: int, caller: Agent, callee: Agent, ends: tuple[Phone, Phone]) -> None:
        self.sbc, self.port, self.caller, self.callee, self.ends = sbc, port, caller, callee, ends

    def connect(self, number: str) -> tuple[UaCall, UaCall]:
        a = self.caller.call((OUTSIDE, self.port), number)
        eventually(lambda: a.up, 5, "an answer")
        b = next(call for call in self.callee.calls.values() if call.number == number)
        for end, call in zip(self.ends, (a, b), strict=True):
            end.far_host, end.far = call.far_audio
        return a, b


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("prompts") / "sbc"
    (folder / "prompts").mkdir(parents=True)
    write_wav(folder / "prompts" / "gone.wav", tone(440, 0.5))
    write_wav(folder / "prompts" / "music.wav", tone(600, 3))
    (folder / "routes.py").write_text(ROUTES)
    net = loopback()
    ends = Phone(CALLER), Phone(CALLEE)
    text = net.text.replace("calls_to: pbx }", "calls_to: pbx, profile: recorded }", 1) + MORE
    with (
        running(folder, text) as sbc,
        Agent(CALLER, audio_port=lambda: ends[0].port, codec="8 PCMA/8000") as caller,
        Agent(CALLEE, net.callee_port, audio_port=lambda: ends[1].port, codec="8 PCMA/8000") as callee,
    ):
        yield Site(sbc, net.port, caller, callee, ends)
    for end in ends:
        end.socket.close()


def heard(site: Site, seconds: float, who: int = 0) -> list[int]:
    """What an end hears from now on."""
    run(site.ends, 0.1)
    site.ends[who].heard.clear()
    run(site.ends, seconds)
    return site.ends[who].audio()


def test_a_caller_hears_why_and_is_refused(site: Site) -> None:
    call = site.caller.call((OUTSIDE, site.port), "7000")
    run(site.ends, 3.0, until=25)
    assert len(site.ends[0].heard) == 25
    assert level(site.ends[0].audio()[:3600], 440) == pytest.approx(10_000, rel=0.05)
    eventually(lambda: call.asked["INVITE"].status == 404, 3, "the refusal")
    site.ends[0].heard.clear()


def test_after_an_announcement_the_call_is_connected_and_recorded(site: Site) -> None:
    """Then held, with music; an operator plays something; and all of it is found in the recording but the music."""
    a_end, b_end = site.ends
    a, b = site.connect("1000")
    a_end.clip, b_end.clip = alaw(tone(800, 1)), alaw(tone(1000, 1))
    assert level(heard(site, 0.4), 1000) > 9000
    site.callee.modify(b, "sendonly")
    eventually(lambda: b.far_direction == "recvonly", 5, "the hold")
    assert a.far_direction == "sendonly"
    held = heard(site, 0.5)
    assert level(held, 600) > 9000 > 300 > level(held, 1000)
    site.callee.modify(b, "sendrecv")
    eventually(lambda: b.far_direction == "sendrecv", 5, "the resume")
    again = heard(site, 0.4)
    assert level(again, 1000) > 9000 > 300 > level(again, 600)
    (row,) = site.sbc.ask("calls")["calls"]
    answer = site.sbc.ask("play", key=row["key"], leg="b", file="music.wav")
    assert answer["leg"] == "b"
    assert level(heard(site, 0.4, who=1), 600) > 9000
    with pytest.raises(AssertionError, match=r"leg b1 hears music\.wav"):
        site.sbc.ask("media_move", key=row["key"], direct=True)
    site.sbc.ask("play", key=row["key"], leg="b")
    with pytest.raises(AssertionError, match="the call is recorded"):
        site.sbc.ask("media_move", key=row["key"], direct=True)
    assert level(heard(site, 0.4, who=1), 800) > 9000
    with pytest.raises(AssertionError, match="cannot be read"):
        site.sbc.ask("play", key=row["key"], leg="b", file="other.wav")
    with pytest.raises(AssertionError, match="no call"):
        site.sbc.ask("record", key="nobody")
    answer = site.sbc.ask("record", key=row["key"], on=False)
    file = answer["file"]
    assert file.endswith(f"-{row['key']}.wav")
    path = site.sbc.directory / "recordings" / file
    eventually(lambda: "a recording is complete" in site.sbc.log, 5, "the end of the recording")
    left, right = read_wav(path)
    assert level(left[2400:4800], 800) > 9000 < level(right[2400:4800], 1000)
    assert level(right, 600) < 300
    site.caller.hang_up(a)
    eventually(lambda: not site.sbc.calls(), 5, "the end of the call")
    eventually(lambda: any(cdr["recording"] == file for cdr in site.sbc.cdrs()), 5, "its record")
