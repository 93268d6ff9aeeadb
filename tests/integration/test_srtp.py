"""SRTP through a real SBC: our agents with libsrtp on both sides, and baresip, whose SRTP is libre's own."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.audio import Audio
from tests.support.baresip import LOUD, Baresip
from tests.support.callers import site
from tests.support.loopback import CALLEE, CALLER, loopback
from tests.support.netns import Lab
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
    media: {{ address: {OUTSIDE}, ports: 40000-40999, srtp: {policies[0]} }}
  core:
    listen: [udp:{CORE}:5060]
    media: {{ address: {CORE}, ports: 30000-30999, srtp: {policies[1]} }}
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
