"""A leg behind NAT whose port changes in a call is followed, and who only says that he is the leg is not.

Each packet goes through the compiled datapath and its reference, which must agree (tests/parity).
"""

from __future__ import annotations

import ipaddress

import pytest

from media.counters import Reason
from media.rules import BY_PROOF, FOLLOWED, ON_TRUST, RuleFlag, pack_address
from tests.parity.test_datapath import Twin, rtp

MS = 1_000_000
SSRC = 0xA11CE
PUBLIC, SIGNALLED = "192.0.2.2", "192.0.2.1"  # where the signalling of the leg came from, and what it described


class Leg:
    """A phone that sends a packet of 20 ms each 20 ms, which have come by ``port`` so far."""

    def __init__(self, flags: int = RuleFlag.BEHIND_NAT) -> None:
        self.twin = Twin(flags)
        self.now_ns = 5_000_000 * MS
        self.sequence = 65_500
        self.timestamp = 2**32 - 3000
        self.port = 4000
        self.sends(10)
        assert self.rule.rtp_latched == BY_PROOF
        assert self.where() == f"{PUBLIC}:4000"

    @property
    def rule(self):  # type: ignore[no-untyped-def]  # a Rule of ctypes
        return self.twin.compiled[0]

    def where(self) -> str:
        """Where the leg's audio goes."""
        return str(self.rule.rtp_remote)

    def packet(
        self,
        *,
        port: int = 0,
        host: str = PUBLIC,
        ssrc: int = SSRC,
        ahead: int = 0,
        late_ms: int = 0,
        rtcp: bool = False,
    ) -> Reason:
        """The present packet of the phone, or what somebody makes of it."""
        source = pack_address(ipaddress.ip_address(host), port or self.port)
        if rtcp:
            data = bytes.fromhex("80c90001") + SSRC.to_bytes(4, "big")
        else:
            data = rtp(self.sequence + ahead, self.timestamp - 8 * late_ms, ssrc)
        got = self.twin.feed(data, source, self.now_ns, rtcp_port=rtcp)
        assert isinstance(got, Reason)
        return got

    def passes(self, ms: int = 20) -> None:
        """Time, and the packets of the phone, which nobody hears."""
        self.now_ns += ms * MS
        self.sequence += ms // 20
        self.timestamp += ms * 8

    def sends(self, packets: int) -> list[Reason]:
        got = []
        for _ in range(packets):
            self.passes()
            got.append(self.packet())
        return got


def test_another_port_of_the_same_host_is_followed_when_the_former_one_is_silent() -> None:
    leg = Leg()
    leg.port = 41_000
    got = leg.sends(20)
    assert got == [Reason.WRONG_SOURCE] * 13 + [Reason.FORWARD] * 7, "250 ms"
    assert leg.where() == f"{PUBLIC}:41000"
    assert leg.rule.rtp_latched == FOLLOWED
    assert leg.rule.lost_before == 0
    assert leg.rule.max_sequence - leg.rule.base_sequence + 1 - leg.rule.received == 13


def test_after_a_long_silence_too() -> None:
    """Silence suppression outlasts the mapping; the time of the stream has gone on."""
    leg = Leg()
    leg.now_ns += 60_000 * MS
    leg.timestamp += 60_000 * 8
    leg.port = 41_000
    assert leg.sends(20).count(Reason.FORWARD) == 7


def test_a_leg_that_still_speaks_is_not_followed_elsewhere() -> None:
    leg = Leg()
    for _ in range(200):
        leg.passes()
        assert leg.packet() is Reason.FORWARD
        assert leg.packet(port=6666, ahead=1) is Reason.WRONG_SOURCE
    assert leg.where() == f"{PUBLIC}:4000"


def test_nor_one_that_says_something_every_200_ms() -> None:
    leg = Leg()
    for turn in range(200):
        leg.passes()
        if turn % 10 == 0:
            assert leg.packet() is Reason.FORWARD
        assert leg.packet(port=6666, ahead=1) is Reason.WRONG_SOURCE


@pytest.mark.parametrize(
    "lie",
    [
        {"host": "203.0.113.99"},
        {"ssrc": SSRC + 1},
        {"ahead": -200},
        {"ahead": 4000},
        {"late_ms": 150},
        {"late_ms": -150},
    ],
    ids=str,
)
def test_what_is_no_sequel_of_the_stream_is_not_followed(lie: dict[str, int]) -> None:
    leg = Leg()
    for _ in range(100):
        leg.passes()
        assert leg.packet(**{"port": 6666, **lie}) is Reason.WRONG_SOURCE  # type: ignore[arg-type]  # one is a host
    assert leg.sends(1) == [Reason.FORWARD], "the phone is where it was"


def test_ports_that_take_turns_are_not_followed() -> None:
    leg = Leg()
    for turn in range(100):
        leg.passes()
        assert leg.packet(port=6000 + turn % 3) is Reason.WRONG_SOURCE


def test_a_burst_is_no_sequel() -> None:
    """All that the phone would say in a second, within 40 ms."""
    leg = Leg()
    leg.now_ns += 300 * MS
    for ahead in range(1, 50):
        leg.now_ns += MS
        assert leg.packet(port=6666, ahead=ahead, late_ms=-20 * ahead) is Reason.WRONG_SOURCE


def test_the_port_that_was_left_gets_the_leg_back_as_soon_as_it_speaks() -> None:
    """Somebody behind the same NAT who reads along has used a silence of the phone."""
    leg = Leg()
    leg.port = 6666
    assert Reason.FORWARD in leg.sends(20)
    leg.port = 4000
    assert leg.sends(1) == [Reason.FORWARD]
    assert leg.where() == f"{PUBLIC}:4000"
    leg.port = 6666
    assert Reason.FORWARD not in leg.sends(200), "not within four seconds"
    leg.port = 4000
    assert leg.sends(1) == [Reason.FORWARD]


def test_once_in_five_seconds() -> None:
    leg = Leg()
    leg.port = 41_000
    leg.sends(20)
    leg.port = 42_000
    got = leg.sends(300)
    assert 235 <= got.index(Reason.FORWARD) <= 260
    assert leg.where() == f"{PUBLIC}:42000"


def test_rtcp_is_followed_with_it() -> None:
    leg = Leg()
    assert leg.packet(port=4001, rtcp=True) is Reason.FORWARD
    assert leg.packet(port=41_001, rtcp=True) is Reason.WRONG_SOURCE
    leg.port = 41_000
    leg.sends(20)
    assert leg.packet(port=47_007, rtcp=True) is Reason.FORWARD
    assert str(leg.rule.rtcp_remote) == f"{PUBLIC}:47007"
    assert leg.packet(port=41_001, rtcp=True) is Reason.WRONG_SOURCE


def test_not_without_nat() -> None:
    leg = Leg(0)
    leg.port = 41_000
    assert leg.sends(100) == [Reason.WRONG_SOURCE] * 100


def test_who_was_learned_on_trust_is_not_followed() -> None:
    """Nobody vouches for that host, so it gains no way to keep the phone out."""
    leg = Leg()
    rule = leg.twin.reference[0], leg.twin.compiled[0]
    for it in rule:
        it.rtp_latched = 0
    for _ in range(30):
        leg.passes()
        leg.packet(host="203.0.113.99", port=7000)
    assert leg.rule.rtp_latched == ON_TRUST
    for _ in range(30):
        leg.passes()
        assert leg.packet(host="203.0.113.99", port=7001) is Reason.WRONG_SOURCE
    assert leg.packet(host=SIGNALLED, port=4444) is Reason.FORWARD
