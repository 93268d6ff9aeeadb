"""SRTP by SDES (RFC 4568, RFC 8643) through the core and the session table of a media worker."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest

from media.config import RealmInterface
from media.protocol import Reply
from media.relay import Relay
from media.state import Arena
from sbc.b2bua.effects import MediaCommand
from sbc.b2bua.settings import SrtpPolicies
from sbc.sip.message import Message
from tests.support.fake_sockets import FakeSockets
from tests.support.ladder import A_HOST, B_HOST, MEDIA_A, MEDIA_B, Ladder, sdp

KEY_A = "1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4"
KEY_A2 = "2 AES_CM_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5QUJDREUwMTIzNDU2Nzg5QUJjZGVm"
KEY_B = "{tag} AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR"


class SecureLadder(Ladder):
    """A ladder whose media plane is real, but for its sockets."""

    def __init__(self, a: str, b: str, peers: dict[str, Any] | None = None) -> None:  # Any: literals of the protocol
        policies: dict[str, Any] = {"inside": a, "outside": b}  # Any: as above
        super().__init__(srtp=SrtpPolicies(policies, peers or {}))
        arena = Arena(-1, 8)
        realms = {
            "inside": RealmInterface(MEDIA_A, ports=(30000, 30099)),
            "outside": RealmInterface(MEDIA_B, ports=(30000, 30099)),
        }
        self.relay = Relay(realms, arena, FakeSockets(arena), Random(1), lambda counter, amount: None, worker="media-0")

    def answer_media(self, command: MediaCommand) -> Reply:
        return self.relay.handle(command.request, b"sip-0", int(self.now * 1e9))


def secure(host: str, key: str, protocol: str = "RTP/SAVP", **more: Any) -> bytes:  # Any: arguments of sdp
    text = sdp(host, **more).decode().replace("RTP/AVP", protocol)
    return (text + f"a=crypto:{key}\r\n" if key else text).encode()


def media_line(msg: Message) -> str:
    return next(line for line in msg.body.decode().split("\r\n") if line.startswith("m="))


def keys_of(msg: Message) -> list[str]:
    return re.findall(r"^a=crypto:(.*)\r$", msg.body.decode(), re.MULTILINE)


def answering(invite: Message) -> str:
    """B's key for the offer that it was sent."""
    tag = next(line.split()[0] for line in keys_of(invite) if " AES_CM_128_HMAC_SHA1_80 " in line)
    return KEY_B.format(tag=tag)


def established(f: SecureLadder, offer: bytes, answer: str, protocol: str = "RTP/AVP") -> tuple[Message, Message]:
    """B's INVITE and A's 200."""
    f.a.request("INVITE", body=offer)
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    key = answering(invite) if answer == "key" else answer
    f.b.reply(200, body=secure(B_HOST, key, protocol))
    ok = f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    return invite, ok


def test_rtp_inside_srtp_outside() -> None:
    f = SecureLadder("off", "required")
    invite, ok = established(f, sdp(A_HOST), "key", "RTP/SAVP")
    assert re.fullmatch(r"m=audio 30\d\d\d RTP/SAVP 0", media_line(invite))
    assert len(keys_of(invite)) == 3
    assert re.fullmatch(r"m=audio 30\d\d\d RTP/AVP 0", media_line(ok))
    assert keys_of(ok) == []
    for phone, foreign in ((f.a, [*keys_of(invite), "PS1uQ"]), (f.b, [])):
        seen = b"".join(phone.all).decode()
        assert not [key for key in foreign if key.split()[-1] in seen]
    assert not [note for note in f.notes if "inline" in str(note)]


def test_srtp_inside_rtp_outside_and_a_new_key() -> None:
    f = SecureLadder("optional", "off")
    invite, ok = established(f, secure(A_HOST, KEY_A), "")
    assert media_line(invite).endswith("RTP/AVP 0")
    assert keys_of(invite) == []
    assert media_line(ok).endswith("RTP/SAVP 0")
    (ours,) = keys_of(ok)
    assert ours.startswith("1 AES_CM_128_HMAC_SHA1_80 inline:")
    f.a.request("INVITE", body=secure(A_HOST, KEY_A2, version=2))
    f.a.expect(100)
    again = f.b.expect("INVITE")
    assert again.body == invite.body  # B has no part in it
    f.b.reply(200, body=sdp(B_HOST))
    (new,) = keys_of(f.a.expect(200))
    assert new.startswith("2 AES_CM_128_HMAC_SHA1_80 inline:")
    assert new.split()[2] != ours.split()[2]


@pytest.mark.parametrize("accepts", [True, False])
def test_opportunistic(accepts: bool) -> None:
    f = SecureLadder("off", "optional")
    invite, ok = established(f, sdp(A_HOST), "key" if accepts else "")
    assert media_line(invite).endswith("RTP/AVP 0")
    assert len(keys_of(invite)) == 3
    assert media_line(ok).endswith("RTP/AVP 0")
    assert keys_of(ok) == []


def test_a_peer_has_a_policy_of_its_own() -> None:
    f = SecureLadder("off", "off", {"carrier-b": "required"})
    invite, _ = established(f, sdp(A_HOST), "key", "RTP/SAVP")
    assert media_line(invite).endswith("RTP/SAVP 0")


def test_keys_pass_between_the_ends() -> None:
    f = SecureLadder("pass", "pass")
    invite, ok = established(f, secure(A_HOST, KEY_A), KEY_B.format(tag=1), "RTP/SAVP")
    assert keys_of(invite) == [KEY_A]
    assert keys_of(ok) == [KEY_B.format(tag=1)]


@pytest.mark.parametrize(
    ("policy", "offer"),
    [
        ("off", secure(A_HOST, KEY_A)),
        ("required", sdp(A_HOST)),
        ("optional", secure(A_HOST, "1 F8_128_HMAC_SHA1_80 inline:abc")),
        ("required", secure(A_HOST, "", "UDP/TLS/RTP/SAVPF")),
    ],
)
def test_488_for_what_the_policy_refuses(policy: str, offer: bytes) -> None:
    f = SecureLadder(policy, "off")
    f.a.request("INVITE", body=offer)
    f.a.expect(100)
    f.a.refused(488)
    f.b.nothing()


def test_a_downgrade_in_the_answer_ends_the_attempt() -> None:
    f = SecureLadder("off", "required")
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    assert f.a.inbox[0].status >= 400
    assert f.relay.sessions == {}
