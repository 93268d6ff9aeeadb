"""ICE credentials, one port and consent at a relay with fake sockets; checks go through the reference datapath."""

from __future__ import annotations

import ipaddress

import pytest

from media import reference_datapath
from media.counters import Handled, Reason
from media.protocol import Answer, Delete, Endpoint, Ice, Offer, Stream
from media.rules import Feature, RuleFlag, pack_address
from media.webrtc import CONSENT_NS
from tests.support.stun import Agent, error_code
from tests.unit.media.test_relay import GATEWAY, PHONE, Bench, S

THEIRS = Ice("abcd", "w" * 22)
HOME, OTHER = (pack_address(ipaddress.ip_address("192.0.2.10"), port) for port in (5000, 6000))


class IceBench(Bench):
    """Leg a may have ICE, leg b1 never has."""

    def call(self, theirs: Ice | None = THEIRS, *, policy: str = "lite", host: str = "0.0.0.0") -> Endpoint:
        """Leg a calls; what it is shown."""
        stream = Stream(host, 9, ice=theirs, rtcp_mux=True)
        offered = self.ask(Offer("s", "a", "b1", "outside", "core", [stream], from_ice=policy))  # type: ignore[arg-type]  # a parameter
        assert offered.ok, offered.reason
        assert offered.endpoints[0].ice is None
        answered = self.answer()
        assert answered.ok, answered.reason
        return answered.endpoints[0]

    def receive(self, leg: str, data: bytes, source: bytes) -> tuple[Reason | Handled, bytes]:
        arena = self.arena
        verdict = reference_datapath.inspect(
            arena.rules, arena.keys, arena.webrtc, self.rule(leg), False, data, source, self.now_ns
        )
        return verdict.reason, verdict.data

    def check(self, shown: Ice | None, source: bytes = HOME, theirs: str = "abcd", *, nominate: bool = True) -> int:
        """0 for a success, or the code of the error."""
        assert shown is not None
        agent = Agent(shown.ufrag, shown.password, theirs)
        reason, answer = self.receive("a", agent.check(nominate=nominate), source)
        assert reason is Handled.ANSWERED
        return 0 if answer[:2] == b"\1\1" else error_code(answer)

    def place(self) -> str:
        return str(self.arena.rules[self.rule("a")].rtp_remote)


@pytest.fixture
def bench() -> IceBench:
    return IceBench()


def test_a_leg_with_ice_is_shown_credentials_and_one_port(bench: IceBench) -> None:
    shown = bench.call()
    assert shown.ice is not None
    assert (len(shown.ice.ufrag), len(shown.ice.password)) == (8, 24)
    assert shown.rtcp_port == shown.port
    assert bench.call() == shown  # a re-offer that changes nothing


def test_credentials_are_different_for_every_leg(bench: IceBench) -> None:
    first = bench.call().ice
    other = IceBench().call().ice
    assert first is not None
    assert other is not None
    assert (first.ufrag, first.password) != (other.ufrag, other.password)


def test_what_a_leg_with_ice_describes_is_sent_nothing(bench: IceBench) -> None:
    """RFC 8445 §19.5.1: its description may name a victim."""
    bench.call(host="203.0.113.99")
    assert bench.packet("b1", GATEWAY, 6000)[0] is Reason.NO_REMOTE
    assert bench.packet("a", "203.0.113.99", 9)[0] is Reason.WRONG_SOURCE


def test_a_description_of_another_ip_version_is_no_hindrance(bench: IceBench) -> None:
    assert bench.call(host="2001:db8::1").ice is not None


def test_a_check_says_where_and_media_follow(bench: IceBench) -> None:
    shown = bench.call()
    assert bench.check(shown.ice) == 0
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, "192.0.2.10:5000")
    bench.check(shown.ice, OTHER)
    assert bench.packet("b1", GATEWAY, 6000, 2) == (Reason.FORWARD, "192.0.2.10:6000")


def test_a_new_offer_leaves_the_leg_where_it_is(bench: IceBench) -> None:
    shown = bench.call()
    bench.check(shown.ice)
    bench.call()
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, "192.0.2.10:5000")


def test_an_ice_restart_gives_new_credentials_and_moves_with_the_first_new_check(bench: IceBench) -> None:
    shown = bench.call()
    bench.check(shown.ice)
    again = bench.call(Ice("efgh", "v" * 22))
    assert again.ice != shown.ice
    assert bench.check(shown.ice) == 0  # until the new ones are used
    assert bench.place() == "192.0.2.10:5000"
    assert bench.check(again.ice, OTHER, "efgh", nominate=False) == 0
    assert bench.place() == "192.0.2.10:6000"
    assert bench.check(shown.ice) == 401


def test_the_called_leg_is_offered_ice_and_may_decline_it(bench: IceBench) -> None:
    offer = Offer("s", "b1", "a", "core", "outside", [Stream(GATEWAY, 6000)], to_ice="lite")
    shown = bench.ask(offer).endpoints[0]
    assert shown.ice is not None
    assert shown.rtcp_port == shown.port
    assert bench.check(shown.ice, theirs="whoever") == 0  # a check may overtake the answer
    answered = bench.ask(Answer("s", "a", "b1", [Stream("192.0.2.10", 5000, ice=THEIRS)]))
    assert answered.endpoints[0].rtcp_port == answered.endpoints[0].port + 1
    assert bench.check(shown.ice, theirs="whoever") == 401
    assert bench.check(shown.ice) == 0
    assert bench.ask(offer).endpoints[0].ice == shown.ice
    declined = bench.ask(Answer("s", "a", "b1", [Stream(PHONE, 5000)]))
    assert declined.ok
    assert bench.arena.rules[bench.rule("a")].features == 0
    assert not any(bytes(bench.arena.webrtc[bench.rule("a")]))
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, f"{PHONE}:5000")


def test_without_the_policy_ice_is_not_heeded(bench: IceBench) -> None:
    shown = bench.call(policy="off", host=PHONE)
    assert (shown.ice, shown.rtcp_port) == (None, shown.port + 1)
    assert bench.arena.rules[bench.rule("a")].features == 0


def test_rtcp_changes_ports_between_the_legs(bench: IceBench) -> None:
    shown = bench.call()
    bench.check(shown.ice)
    rules = bench.arena.rules
    assert rules[bench.rule("a")].flags & RuleFlag.RTCP_MUX
    assert not rules[bench.rule("b1")].flags & RuleFlag.RTCP_MUX
    report = bytes.fromhex("80c90001aabbccdd")
    arena = bench.arena
    there = reference_datapath.inspect(
        rules, arena.keys, arena.webrtc, bench.rule("a"), False, report, HOME, bench.now_ns
    )
    assert (there.reason, there.rtcp, there.from_rtp_port) == (Reason.FORWARD, True, False)
    source = pack_address(ipaddress.ip_address(GATEWAY), 6001)
    back = reference_datapath.inspect(
        rules, arena.keys, arena.webrtc, bench.rule("b1"), True, report, source, bench.now_ns
    )
    assert (back.reason, back.rtcp, back.from_rtp_port) == (Reason.FORWARD, True, True)


def test_a_leg_without_consent_is_silent_whatever_the_other_sends(bench: IceBench) -> None:
    shown = bench.call()
    bench.check(shown.ice)
    for _ in range(12):
        bench.now_ns += 10 * S
        bench.packet("b1", GATEWAY, 6000)
    named = bench.relay.silence.found(bench.now_ns, 60 * S, 100)
    assert [(session.id, round(silence)) for session, silence in named] == [("s", 120)]


def test_a_leg_with_consent_is_not(bench: IceBench) -> None:
    shown = bench.call()
    for _ in range(12):
        bench.now_ns += 10 * S
        bench.check(shown.ice)
        bench.packet("b1", GATEWAY, 6000)
    assert bench.relay.silence.found(bench.now_ns, 60 * S, 100) == []
    assert CONSENT_NS == 30 * S


@pytest.mark.parametrize("theirs", [Ice("abc", "w" * 22), Ice("abcd", "w" * 21), Ice("a" * 257, "w" * 22)])
def test_credentials_that_break_the_grammar_are_refused_before_anything_changes(bench: IceBench, theirs: Ice) -> None:
    offer = Offer("s", "a", "b1", "outside", "core", [Stream("0.0.0.0", 9, ice=theirs)], from_ice="lite")
    reply = bench.ask(offer)
    assert (reply.ok, reply.code) == (False, "malformed")
    assert bench.relay.sessions == {}


def test_what_belonged_to_a_call_is_gone_with_it(bench: IceBench) -> None:
    bench.call()
    index = bench.rule("a")
    assert bench.arena.rules[index].features == Feature.ICE
    bench.ask(Delete("s"))
    assert bench.arena.rules[index].features == 0
    assert not any(bytes(bench.arena.webrtc[index]))


def test_a_browser_that_never_checks_is_no_held_call(bench: IceBench) -> None:
    """Nobody knows where it is, as with the null address of a hold; but it is to speak."""
    bench.call()
    late = bench.now_ns + 70 * 10**9
    assert len(bench.relay.silence.found(late, 60 * 10**9, 100, 3600 * 10**9)) == 1
