"""SRTP through a real SBC: our agents with libsrtp on both sides, and baresip, whose SRTP is libre's own."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sbc.selftest.netns import Lab
from tests.support.audio import Audio, Stream
from tests.support.baresip import LOUD, Baresip
from tests.support.callers import Pair, site
from tests.support.loopback import CALLEE, CALLER, loopback
from tests.support.sbc import eventually, running

PHONE_A, OUTSIDE, CORE, PHONE_B = "10.81.1.2", "10.81.1.1", "10.81.2.1", "10.81.2.2"


def test_from_one_key_to_another(tmp_path: Path) -> None:
    """SRTP on both sides under keys of their own: audio both ways, and no key of one side reaches the other."""
    net = loopback(sip=1, media=1)
    text = net.text.replace("9999 }", "9999, srtp: required }")
    with (
        Audio(CALLER) as near,
        Audio(CALLEE) as far,
        site(tmp_path, replace(net, text=text), near.open, far.open, secure="ab") as at,
    ):
        pairs = at.establish(3)
        for pair in pairs:
            a, b = near.streams[pair.a.audio_port], far.streams[pair.b.audio_port]
            assert len({pair.a.key, pair.a.far_key, pair.b.key, pair.b.far_key}) == 4
            for stream, call in ((a, pair.a), (b, pair.b)):
                stream.far = call.far_audio
                stream.secure(call.key, call.far_key)
        near.talk()
        far.talk()
        streams = [*near.streams.values(), *far.streams.values()]
        eventually(lambda: all(len(stream.heard) > 50 for stream in streams), 5, "audio both ways in each call")
        assert [stream.forged for stream in streams] == [0] * 6
        log = at.sbc.log
        assert not [key for pair in pairs for key in (pair.a.key, pair.a.far_key, pair.b.key) if key in log]
        at.end(pairs)
        at.settled(3)


@pytest.mark.parametrize("secure", ["ab", "a", "b"])
def test_hold_and_resume(tmp_path: Path, secure: str) -> None:
    """In one call the caller holds, in one the callee, in one nobody: what the far side hears in each phase, and that
    contexts and keys outlive the offers inside the dialog (a packet that the other end cannot read is ``forged``)."""
    net = loopback(sip=1, media=1)
    text = net.text
    for leg, ports in (("a", "10000-19999"), ("b", "20000-29999")):
        if leg in secure:
            text = text.replace(f"ports: {ports} }}", f"ports: {ports}, srtp: required }}")
    with (
        Audio(CALLER) as near,
        Audio(CALLEE) as far,
        site(tmp_path, replace(net, text=text), near.open, far.open, secure=secure) as at,
    ):
        pairs = at.establish(3)
        ends = [Ends(pair, near.streams[pair.a.audio_port], far.streams[pair.b.audio_port]) for pair in pairs]
        for call in ends:
            call.a.far, call.b.far = call.pair.a.far_audio, call.pair.b.far_audio
            for stream, side in ((call.a, call.pair.a), (call.b, call.pair.b)):
                assert bool(side.key) == bool(side.far_key)
                if side.key:
                    stream.secure(side.key, side.far_key)
            call.a.age(1)
            call.b.age(1)
        keys = [(pair.a.far_key, pair.b.far_key) for pair in pairs]
        near.talk()
        far.talk()
        assert heard_next(ends) == [(True, True)] * 3

        held, answering = [(at.caller, pairs[0].a), (at.callee, pairs[1].b)], [pairs[0].b, pairs[1].a]
        for agent, side in held:
            agent.modify(side, "sendonly")
        eventually(lambda: all(side.far_direction == "recvonly" for _, side in held), 5, "answers to the holds")
        assert [call.far_direction for call in answering] == ["sendonly"] * 2
        ends[0].b.far = ends[1].a.far = None  # who is held stays silent, who holds may play music
        assert heard_next(ends) == [(False, True), (True, False), (True, True)]

        for agent, side in held:
            agent.modify(side, "sendrecv")
        eventually(lambda: all(side.far_direction == "sendrecv" for _, side in held), 5, "answers to the resumes")
        assert [call.far_direction for call in answering] == ["sendrecv"] * 2
        for call in ends:
            call.a.far, call.b.far = call.pair.a.far_audio, call.pair.b.far_audio
        assert heard_next(ends) == [(True, True)] * 3

        assert [(pair.a.far_key, pair.b.far_key) for pair in pairs] == keys
        assert [call.a.forged + call.b.forged for call in ends] == [0] * 3
        at.end(pairs)
        at.settled(3)


@dataclass(frozen=True, slots=True)
class Ends:
    """One call and the audio of both its sides."""

    pair: Pair
    a: Stream
    b: Stream


def heard_next(ends: Sequence[Ends]) -> list[tuple[bool, bool]]:
    """Whether the a side and the b side of each call hear anything from now on; who does hears nearly all of it."""
    time.sleep(0.2)  # what is on its way
    before = [(len(call.a.heard), len(call.b.heard)) for call in ends]
    time.sleep(1.0)
    found = []
    for call, counts in zip(ends, before, strict=True):
        heard = [len(stream.heard) - count for stream, count in zip((call.a, call.b), counts, strict=True)]
        assert all(count == 0 or count > 30 for count in heard), heard
        found.append((heard[0] > 0, heard[1] > 0))
    return found


def test_a_caller_without_keys_is_refused(tmp_path: Path) -> None:
    net = loopback(sip=1, media=1)
    text = net.text.replace("ports: 10000-19999 }", "ports: 10000-19999, srtp: required }")
    with site(tmp_path, replace(net, text=text)) as at:
        (call,) = at.place(1)
        eventually(lambda: call.asked["INVITE"].status != 0, 5, "an answer")
        assert call.asked["INVITE"].status == 488
        at.settled(1)


@pytest.mark.peer("baresip", "ip", "root")
@pytest.mark.parametrize(
    ("outside", "core", "policies"),
    [
        ("", "srtp-mand", ("off", "required")),
        ("srtp-mand", "", ("required", "off")),
        ("srtp-mand", "srtp-mand", ("required", "required")),
        ("srtp-mand", "srtp-mand", ("pass", "pass")),
        ("srtp", "srtp", ("optional", "optional")),
        ("", "", ("optional", "optional")),
    ],
)
def test_baresip(tmp_path: Path, outside: str, core: str, policies: tuple[str, str]) -> None:
    """Both hear the other's tone."""
    config = f"""\
workers: {{ sip: 1, media: 1 }}
store: none
realms:
  outside:
    listen: [udp:{OUTSIDE}:5060]
    media: {{ address: {OUTSIDE}, ports: 10000-10999, srtp: {policies[0]} }}
  core:
    listen: [udp:{CORE}:5060]
    media: {{ address: {CORE}, ports: 20000-20999, srtp: {policies[1]} }}
    trusted: true
peers:
  carrier: {{ realm: outside, addresses: {PHONE_A}, calls_to: pbx }}
  pbx: {{ realm: core, addresses: {PHONE_B}, gateway: "sip:b@{PHONE_B}:5060" }}
"""
    with Lab() as lab:
        for host in ("a", "sbc", "b"):
            lab.host(host)
        lab.wire("a", f"{PHONE_A}/24", "sbc", f"{OUTSIDE}/24")
        lab.wire("b", f"{PHONE_B}/24", "sbc", f"{CORE}/24")
        with (
            running(tmp_path / "sbc", config, prefix=lab.inside("sbc")),
            Baresip(tmp_path, lab, "a", "a", PHONE_A, tone_hz=440, account=account(outside)) as a,
            Baresip(tmp_path, lab, "b", "b", PHONE_B, tone_hz=1000, account=account(core)) as b,
        ):
            a.dial(f"sip:phone@{OUTSIDE}")
            a.expect("CALL_ESTABLISHED")
            b.expect("CALL_ESTABLISHED")
            time.sleep(2.0)
            a.command("hangup")
            b.expect("CALL_CLOSED")
            for phone, encryption in ((a, outside), (b, core)):
                assert bool(re.search("SRTP is Enabled", phone.log)) == bool(encryption)
        assert a.heard(1000) > LOUD * 0.8
        assert b.heard(440) > LOUD * 0.8


def account(encryption: str) -> str:
    return f"regint=0;mediaenc={encryption}" if encryption else "regint=0"
