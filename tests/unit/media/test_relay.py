"""Offer, answer and delete on a relay whose sockets are a fake: each test is an exchange of descriptions."""

from __future__ import annotations

import ipaddress
import os
from random import Random
from typing import Any

import pytest

from media import reference_datapath
from media.config import RealmInterface
from media.counters import Handled, MediaCounter, Reason
from media.player import PlayerState
from media.protocol import Answer, Delete, Drain, Endpoint, Engage, ListSessions, Offer, Query, Reply, Stream
from media.relay import Relay
from media.rules import NO_RULE, Feature, RuleFlag, pack_address
from media.state import Arena, state_size
from tests.support.fake_sockets import FakeSockets

S = 10**9
PHONE, GATEWAY, STRANGER = "192.0.2.10", "198.51.100.5", "203.0.113.99"


class Bench:
    """A relay of two realms with a virtual clock."""

    def __init__(
        self, *, capacity: int = 8, nat: str = "auto", fd: int = -1, ports: int = 20, room: int = 10_000
    ) -> None:
        self.arena = Arena(fd, capacity)
        self.sockets = FakeSockets(self.arena, room)
        self.counts: dict[MediaCounter, int] = {}
        self.now_ns = 1000 * S
        realms = {
            "core": RealmInterface("10.0.0.1", "", (30000, 30000 + ports - 1)),
            "outside": RealmInterface("10.1.0.1", "203.0.113.1", (40000, 40000 + ports - 1), nat),  # type: ignore[arg-type]  # a parametrised literal
        }
        self.relay = Relay(realms, self.arena, self.sockets, Random(1), self.count, worker="m0")

    def count(self, counter: MediaCounter, amount: int) -> None:
        self.counts[counter] = self.counts.get(counter, 0) + amount

    def ask(self, request: object) -> Reply:
        return self.relay.handle(request, b"sip-0", self.now_ns)  # type: ignore[arg-type]  # any request of the protocol

    def offer(self, to: str = "b1", streams: list[Stream] | None = None, **more: Any) -> Reply:  # Any: fields of Offer
        return self.ask(Offer("s", "a", to, "outside", "core", streams or [Stream(PHONE, 5000)], **more))

    def answer(self, leg: str = "b1", streams: list[Stream] | None = None) -> Reply:
        return self.ask(Answer("s", leg, "a", streams or [Stream(GATEWAY, 6000)]))

    def rule(self, leg: str, stream: int = 0) -> int:
        return self.relay.sessions["s"].legs[leg].rules[stream]

    def packet(
        self, leg: str, host: str, port: int, sequence: int = 1, *, rtcp: bool = False, ssrc: int = 0
    ) -> tuple[Reason | Handled, str]:
        """One packet to the port that faces ``leg``; the verdict, and the address that it would be sent to."""
        rtp = bytes([0x80, 8]) + sequence.to_bytes(2, "big") + bytes(4) + ssrc.to_bytes(4, "big") + bytes(160)
        data = bytes.fromhex("80c90001aabbccdd") if rtcp else rtp
        source = pack_address(ipaddress.ip_address(host), port)
        rules = self.arena.rules
        self.now_ns += 20_000_000
        verdict = reference_datapath.inspect(
            rules, self.arena.keys, self.arena.webrtc, self.rule(leg), rtcp, data, source, self.now_ns
        )
        if verdict.reason is not Reason.FORWARD:
            return verdict.reason, ""
        target = rules[verdict.target]
        return verdict.reason, str(target.rtcp_remote if rtcp else target.rtp_remote)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_offer_and_answer_give_advertised_endpoints_and_forward(bench: Bench) -> None:
    offered, answered = bench.offer(), bench.answer()
    facing_b, facing_a = offered.endpoints[0], answered.endpoints[0]
    assert (facing_b.address, facing_a.address) == ("10.0.0.1", "203.0.113.1")
    assert facing_b.port % 2 == facing_a.port % 2 == 0
    assert facing_a.rtcp_port == facing_a.port + 1
    assert offered.worker == "m0"
    assert bench.packet("a", PHONE, 5000) == (Reason.FORWARD, f"{GATEWAY}:6000")
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, f"{PHONE}:5000")
    assert bench.packet("a", PHONE, 5001, rtcp=True) == (Reason.FORWARD, f"{GATEWAY}:6001")


def test_before_the_answer_nothing_is_forwarded(bench: Bench) -> None:
    bench.offer()
    assert bench.packet("a", PHONE, 5000)[0] is Reason.NO_PEER


def test_another_port_of_the_signalled_host_is_learned_once(bench: Bench) -> None:
    bench.offer()
    bench.answer()
    assert bench.packet("a", PHONE, 5555)[0] is Reason.FORWARD
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, f"{PHONE}:5555")
    assert bench.packet("a", PHONE, 5556)[0] is Reason.WRONG_SOURCE
    assert bench.packet("a", STRANGER, 5555)[0] is Reason.WRONG_SOURCE


def test_the_last_packets_of_a_former_port_do_not_keep_the_new_one_out(bench: Bench) -> None:
    """A gateway moves a call to another port of the same host: what still comes from the old one comes first."""
    bench.offer()
    bench.answer()
    bench.packet("b1", GATEWAY, 6000)
    bench.offer()
    bench.answer(streams=[Stream(GATEWAY, 6100)])
    assert bench.packet("b1", GATEWAY, 6000, 2)[0] is Reason.FORWARD
    assert bench.packet("b1", GATEWAY, 6100, 77)[0] is Reason.FORWARD
    assert bench.packet("a", PHONE, 5000) == (Reason.FORWARD, f"{GATEWAY}:6100")
    assert bench.packet("b1", GATEWAY, 6000, 3)[0] is Reason.WRONG_SOURCE, "for good"
    assert bench.packet("b1", GATEWAY, 6100, 78)[0] is Reason.FORWARD


def test_behind_nat_what_is_signalled_does_not_win(bench: Bench) -> None:
    """A private address that was only ever described may be anybody's."""
    bench.offer(streams=[Stream("192.168.1.20", 5000)], from_signalling="203.0.113.50")
    bench.answer()
    assert bench.packet("a", "203.0.113.50", 9000)[0] is Reason.FORWARD
    assert bench.packet("a", "192.168.1.20", 5000)[0] is Reason.WRONG_SOURCE


def test_what_the_leg_says_goes_before_its_realm() -> None:
    for nat, latch, learned in (("always", "fixed", False), ("never", "learn", True), ("never", "signalled", False)):
        bench = Bench(nat=nat)
        bench.offer(from_latch=latch)
        bench.answer()
        verdict = [bench.packet("a", STRANGER, 9000, sequence)[0] for sequence in (1, 2, 3)][-1]
        assert (verdict is Reason.FORWARD) is learned, (nat, latch)
    bench = Bench(nat="never")
    bench.offer(streams=[Stream("192.168.1.20", 5000)], from_signalling="203.0.113.50", from_latch="signalled")
    bench.answer()
    assert bench.packet("a", "203.0.113.50", 9000)[0] is Reason.FORWARD


def test_sockets_that_face_a_leg_bear_its_mark_and_lose_it_with_the_call() -> None:
    fd = os.memfd_create("state")
    os.ftruncate(fd, state_size(8))
    bench = Bench(fd=fd, ports=2)
    bench.offer(to_dscp=46)

    def marks(of: Bench) -> list[int]:
        return [of.sockets.dscp[of.arena.rules[of.rule(leg)].rtp_fd] for leg in ("a", "b1")]

    assert marks(bench) == [0, 46]
    heir = Bench(fd=fd, ports=2)
    heir.relay.resume(heir.now_ns)
    assert marks(heir) == [0, 46], "a successor marks its sockets, too"
    heir.ask(Delete("s"))
    heir.now_ns += 10 * S
    heir.offer()
    assert marks(heir) == [0, 0], "the pair is the same: there is one"


def test_an_offer_may_say_how_long_silence_may_last() -> None:
    fd = os.memfd_create("state")
    os.ftruncate(fd, state_size(8))
    bench = Bench(fd=fd)
    bench.offer(silence_s=20.0)
    bench.answer()
    start = bench.now_ns
    assert bench.relay.silence.found(start + 19 * S, 60 * S, 100) == []
    assert [s.id for s, _ in bench.relay.silence.found(start + 25 * S, 60 * S, 100)] == ["s"]
    heir = Bench(fd=fd)
    heir.relay.resume(heir.now_ns)
    assert heir.relay.sessions["s"].silence_s == 20.0, "a successor knows it too"


def test_a_stranger_is_never_learned_without_nat() -> None:
    bench = Bench(nat="never")
    bench.offer()
    bench.answer()
    for sequence in range(10):
        assert bench.packet("a", STRANGER, 7000, sequence)[0] is Reason.WRONG_SOURCE
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, f"{PHONE}:5000")


def test_behind_nat_a_foreign_source_is_learned_after_three_packets_and_a_silence(bench: Bench) -> None:
    bench.offer(streams=[Stream("192.168.1.20", 5000)], from_signalling="203.0.113.50")
    bench.answer()
    for sequence in (1, 2, 3):
        assert bench.packet("a", STRANGER, 7000, sequence)[0] is Reason.FORWARD
    for sequence in range(4, 13):  # one in 20 ms
        assert bench.packet("a", STRANGER, 7000, sequence)[0] is Reason.UNLATCHED_LIMIT
    assert not bench.arena.rules[bench.rule("a")].rtp_latched
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, "192.168.1.20:5000")
    assert bench.packet("a", STRANGER, 7000, 13)[0] is Reason.FORWARD
    assert bench.packet("b1", GATEWAY, 6000, 2) == (Reason.FORWARD, f"{STRANGER}:7000")


def test_who_was_learned_on_trust_gives_way_to_a_host_that_signalling_vouches_for(bench: Bench) -> None:
    bench.offer(streams=[Stream("192.168.1.20", 5000)], from_signalling="203.0.113.50")
    bench.answer()
    for sequence in range(20):
        bench.now_ns += S // 10
        bench.packet("a", STRANGER, 7000, sequence)
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, f"{STRANGER}:7000")
    assert bench.packet("a", "198.51.100.99", 7000)[0] is Reason.WRONG_SOURCE, "another stranger"
    assert bench.packet("a", "203.0.113.50", 9000)[0] is Reason.FORWARD
    assert bench.packet("b1", GATEWAY, 6000, 2) == (Reason.FORWARD, "203.0.113.50:9000")
    assert bench.packet("a", STRANGER, 7000, 21)[0] is Reason.WRONG_SOURCE
    assert bench.packet("a", "203.0.113.50", 9001)[0] is Reason.WRONG_SOURCE, "for good"


def test_a_stranger_is_not_learned_before_the_answer(bench: Bench) -> None:
    bench.offer(streams=[Stream("192.168.1.20", 5000)], from_signalling="203.0.113.50")
    for sequence in range(50):
        bench.now_ns += S // 10
        assert bench.packet("a", STRANGER, 7000, sequence)[0] is Reason.NO_PEER
    bench.answer()
    got = [bench.packet("a", STRANGER, 7000, sequence)[0] for sequence in range(50, 62)]
    assert got == [Reason.FORWARD] * 3 + [Reason.UNLATCHED_LIMIT] * 9


def test_a_spray_before_the_latch_gets_three_packets_through_and_the_phone_still_latches(bench: Bench) -> None:
    bench.offer(streams=[Stream("192.168.1.20", 5000)], from_signalling="203.0.113.50")
    bench.answer()
    got = [bench.packet("a", STRANGER, 7000 + n, n * 7)[0] for n in range(50)]
    assert got.count(Reason.FORWARD) == 3
    assert got.count(Reason.UNLATCHED_LIMIT) == 47
    assert bench.packet("a", "203.0.113.50", 9000)[0] is Reason.FORWARD, "its signalling vouches for this host"
    assert [bench.packet("a", STRANGER, 7000, n)[0] for n in range(5)] == [Reason.WRONG_SOURCE] * 5
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, "203.0.113.50:9000")


def test_rtcp_must_come_from_the_host_that_rtp_was_latched_to(bench: Bench) -> None:
    bench.offer()
    bench.answer()
    bench.packet("a", PHONE, 5000)
    assert bench.packet("a", STRANGER, 5001, rtcp=True)[0] is Reason.WRONG_SOURCE
    assert bench.packet("a", PHONE, 5009, rtcp=True)[0] is Reason.FORWARD
    assert bench.packet("b1", GATEWAY, 6001, rtcp=True) == (Reason.FORWARD, f"{PHONE}:5009")
    assert bench.packet("a", PHONE, 5001, rtcp=True)[0] is Reason.WRONG_SOURCE


def test_a_repeated_answer_does_not_reopen_the_latch_but_a_new_offer_does(bench: Bench) -> None:
    bench.offer()
    bench.answer()
    bench.packet("b1", GATEWAY, 6000)
    bench.answer()  # 200 after 183, the same description
    assert bench.packet("b1", GATEWAY, 6666)[0] is Reason.WRONG_SOURCE
    before = {leg.name: list(leg.rules) for leg in bench.relay.sessions["s"].legs.values()}
    again = bench.offer()
    assert again.ok
    assert {leg.name: list(leg.rules) for leg in bench.relay.sessions["s"].legs.values()} == before
    assert bench.packet("a", PHONE, 5000)[0] is Reason.FORWARD, "audio goes on during a re-INVITE"
    bench.answer()
    assert bench.packet("b1", GATEWAY, 6666)[0] is Reason.FORWARD


def test_a_moved_endpoint_is_sent_to_at_once(bench: Bench) -> None:
    bench.offer()
    bench.answer()
    bench.packet("a", PHONE, 5000)
    bench.offer(streams=[Stream("192.0.2.77", 5500)])
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, "192.0.2.77:5500")


def test_the_b_side_may_offer(bench: Bench) -> None:
    bench.offer()
    bench.answer()
    offered = bench.ask(Offer("s", "b1", "a", "core", "outside", [Stream(GATEWAY, 6100)]))
    assert offered.endpoints[0].address == "203.0.113.1"
    assert bench.ask(Answer("s", "a", "b1", [Stream(PHONE, 5000)])).ok
    assert bench.packet("a", PHONE, 5000) == (Reason.FORWARD, f"{GATEWAY}:6100")


def test_null_address_hold_sends_nothing(bench: Bench) -> None:
    bench.offer()
    bench.answer()
    bench.offer(streams=[Stream("0.0.0.0", 5000)])
    assert bench.packet("b1", GATEWAY, 6000)[0] is Reason.NO_REMOTE


def test_rejected_streams_keep_their_index_and_free_their_ports(bench: Bench) -> None:
    video = Stream(PHONE, 5004, kind="video", clock_rate_hz=90000)
    offered = bench.offer(streams=[Stream(PHONE, 0), Stream(PHONE, 5002), video])
    assert [endpoint.port > 0 for endpoint in offered.endpoints] == [False, True, True]
    answered = bench.answer(streams=[Stream(GATEWAY, 0), Stream(GATEWAY, 6002), Stream(GATEWAY, 0)])
    assert [endpoint.port > 0 for endpoint in answered.endpoints] == [False, True, False]
    assert len(bench.sockets.bound) == 2
    assert bench.answer(streams=[Stream(GATEWAY, 6002)]).code == "malformed"


def test_a_stream_of_the_other_ip_version_is_declined_while_another_will_do(bench: Bench) -> None:
    """RFC 5118 §4.8: audio on IPv4, video on IPv6, in an offer and in an answer."""
    mixed = [Stream(PHONE, 5000), Stream("2001:db8::1", 6024, kind="video")]
    offered = bench.offer(streams=mixed)
    assert offered.endpoints is not None
    assert [bool(endpoint.port) for endpoint in offered.endpoints] == [True, False]
    answered = bench.answer(streams=[Stream(GATEWAY, 6000), Stream(GATEWAY, 0)])
    assert answered.endpoints is not None
    assert [bool(endpoint.port) for endpoint in answered.endpoints] == [True, False]
    assert bench.answer(streams=[Stream("2001:db8::2", 6000), Stream(GATEWAY, 0)]).code == "unsupported"


def test_forks_have_their_own_endpoints_and_the_last_answer_wins(bench: Bench) -> None:
    first, second = bench.offer("b1"), bench.offer("b2")
    assert first.endpoints[0].port != second.endpoints[0].port
    shown = bench.answer("b1").endpoints  # early media
    assert bench.packet("b1", GATEWAY, 6000)[0] is Reason.FORWARD
    assert bench.answer("b2", [Stream("198.51.100.6", 6000)]).endpoints == shown
    assert bench.packet("a", PHONE, 5000) == (Reason.FORWARD, "198.51.100.6:6000")
    assert bench.packet("b1", GATEWAY, 6000, 2)[0] is Reason.NO_PEER
    deleted = bench.ask(Delete("s", "b1"))
    assert list(deleted.stats) == ["b1"]
    assert deleted.stats["b1"][0].packets_in == 2
    assert len(bench.sockets.bound) == 2
    assert bench.packet("a", PHONE, 5000, 2)[0] is Reason.FORWARD
    assert bench.answer("b1").code == "unknown_leg", "a late answer of a loser"


def test_rtcp_mux_when_both_sides_said_so(bench: Bench) -> None:
    bench.offer(streams=[Stream(PHONE, 5000, rtcp_mux=True)])
    bench.answer(streams=[Stream(GATEWAY, 6000, rtcp_mux=True)])
    rules = bench.arena.rules
    assert rules[bench.rule("a")].flags & rules[bench.rule("b1")].flags & RuleFlag.RTCP_MUX
    bench.offer(streams=[Stream(PHONE, 5000, rtcp_mux=True)])
    bench.answer(streams=[Stream(GATEWAY, 6000)])
    assert not rules[bench.rule("a")].flags & RuleFlag.RTCP_MUX


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Answer("s", "b1", "a", []), "unknown_session"),
        (Delete("s"), "unknown_session"),
        (Query("s"), "unknown_session"),
        (Offer("s", "a", "b1", "moon", "core", []), "unknown_realm"),
        (Offer("s", "a", "a", "core", "core", []), "malformed"),
        (Offer("", "a", "b", "core", "core", []), "malformed"),
        (Offer("s", "a", "b1", "core", "core", [Stream("example.org", 4000)]), "malformed"),
        (Offer("s", "a", "b1", "core", "core", [Stream(PHONE, 70000)]), "malformed"),
        (Offer("s", "a", "b1", "core", "core", [Stream(PHONE, 4000)] * 17), "malformed"),
        (Offer("s", "a", "b1", "core", "core", [Stream("224.0.0.1", 4000)]), "unsupported"),
        (Offer("s", "a", "b1", "core", "core", [Stream("2001:db8::1", 4000)]), "unsupported"),
        (Offer("s", "a", "b1", "core", "core", [Stream(PHONE, 4000, protocol="udptl")]), "unsupported"),
    ],
)
def test_refusals_leave_nothing_behind(bench: Bench, request_: object, code: str) -> None:
    reply = bench.ask(request_)
    assert (reply.ok, reply.code) == (False, code)
    assert reply.reason
    assert not bench.relay.sessions
    assert not bench.sockets.bound


def test_no_ports_is_refused_whole_and_ports_come_back_after_quarantine() -> None:
    bench = Bench(ports=4)  # two pairs on each side
    for name in ("x", "y"):
        assert bench.ask(Offer(name, "a", "b1", "outside", "core", [Stream(PHONE, 5000)])).ok
    refused = bench.offer()
    assert (refused.code, refused.elsewhere) == ("no_ports", True)
    assert len(bench.sockets.bound) == 4
    assert bench.ask(Delete("x")).ok
    bench.now_ns += 1_900_000_000
    assert bench.offer().code == "no_ports"
    bench.now_ns += 200_000_000
    assert bench.offer().ok


def test_ports_of_other_programs_are_passed_over() -> None:
    bench = Bench(ports=10)
    bench.sockets.taken = {30000, 30002, 30004, 30006}
    assert bench.offer().endpoints == [Endpoint("10.0.0.1", 30008, 30009)]


def test_when_descriptors_run_out_idle_pairs_of_either_side_make_room() -> None:
    bench = Bench(room=6)
    for name in ("x", "y", "z"):
        assert bench.ask(Offer(name, "a", "b1", "outside", "core", [Stream(PHONE, 5000)])).ok
    refused = bench.offer()
    assert (refused.code, refused.elsewhere) == ("no_ports", True)
    assert "Too many open files" in refused.reason
    assert bench.counts[MediaCounter.DESCRIPTORS_EXHAUSTED] == 1
    assert len(bench.sockets.bound) == 6, "nothing is left of the refused one"
    assert bench.ask(Delete("x")).ok
    waiting = set(bench.sockets.open_ports.values()) - set(bench.sockets.bound.values())
    assert len(waiting) == 2
    assert bench.offer().ok, "what waits out its quarantine gives up its sockets"
    assert len(bench.sockets.open_ports) == 6
    assert waiting.isdisjoint(bench.sockets.bound.values()), "and goes on waiting"


def test_full_draining_and_engage(bench: Bench) -> None:
    for n in range(8):
        assert bench.ask(Engage(f"e{n}")).ok
    assert bench.ask(Engage("e9")).code == "full"
    assert bench.ask(Delete("e0")).ok
    assert bench.ask(Drain()).total == 7
    assert bench.ask(Engage("e9")).code == "draining"
    assert bench.ask(Engage("e1")).ok, "one that is here already"
    assert bench.ask(Drain(on=False)).ok
    listed = bench.ask(ListSessions(offset=1, limit=2))
    assert (listed.sessions, listed.total) == (["e2", "e3"], 7)


def test_ten_thousand_calls_leak_nothing(bench: Bench) -> None:
    free = len(bench.arena.free_rules), len(bench.arena.free_slots)
    for _ in range(10_000):
        assert bench.offer("b1").ok
        assert bench.answer().ok
        assert bench.ask(Delete("s")).ok
        bench.now_ns += S
    assert (len(bench.arena.free_rules), len(bench.arena.free_slots)) == free
    assert not bench.sockets.bound
    assert not bench.relay.by_slot
    assert bench.sockets.opens == len(bench.sockets.open_ports) == bench.relay.gauges()[MediaCounter.PORTS_BOUND]


def test_silence_is_named_once_per_time_out(bench: Bench) -> None:
    bench.offer()
    assert bench.relay.silence.found(bench.now_ns + 100 * S, 60 * S, 100) == [], "not answered yet: signalling ends it"
    bench.now_ns += 101 * S
    bench.answer()
    start = bench.now_ns
    assert bench.relay.silence.found(start + 59 * S, 60 * S, 100) == []
    assert [(s.id, silent) for s, silent in bench.relay.silence.found(start + 70 * S, 60 * S, 100)] == [("s", 70.0)]
    assert bench.relay.silence.found(start + 80 * S, 60 * S, 100) == []
    bench.now_ns = start + 90 * S
    bench.packet("a", PHONE, 5000)
    assert bench.relay.silence.found(start + 140 * S, 60 * S, 100) == []
    assert [s.id for s, _ in bench.relay.silence.found(start + 160 * S, 60 * S, 100)] == ["s"]


def test_who_hears_music_may_be_silent(bench: Bench) -> None:
    bench.offer()
    bench.answer()
    (index,) = bench.relay.sessions["s"].legs["a"].rules
    start = bench.now_ns
    bench.arena.rules[index].features = Feature.PLAYING
    bench.arena.players[index].state = PlayerState.PLAYING
    assert bench.relay.silence.found(start + 70 * S, 60 * S, 100) == []
    bench.arena.players[index].state = PlayerState.IDLE
    assert [s.id for s, _ in bench.relay.silence.found(start + 80 * S, 60 * S, 100)] == ["s"]


def test_peers_are_mutual_after_every_answer(bench: Bench) -> None:
    bench.offer("b1")
    bench.offer("b2")
    for leg in ("b1", "b2", "b1"):
        bench.answer(leg)
        rules = bench.arena.rules
        used = bench.relay.sessions["s"].all_rules()
        assert all(rules[rules[i].peer].peer == i for i in used if rules[i].peer != NO_RULE)
        assert rules[bench.rule("a")].peer == bench.rule(leg)


def test_what_an_offer_takes_away_stays_until_its_answer(bench: Bench) -> None:
    """RFC 3261 §14.1: the offer may be refused, and then all is as it was, on the same ports."""
    two = [Stream(PHONE, 5000), Stream(PHONE, 5002, "video")]
    bench.offer(streams=two)
    bench.answer(streams=[Stream(GATEWAY, 6000), Stream(GATEWAY, 6002, "video")])
    before = bench.rule("a", 1), bench.rule("b1", 1)
    shown = bench.offer(streams=[Stream(PHONE, 5010), Stream("", 0, "video"), Stream(PHONE, 5020)])
    assert [endpoint.port != 0 for endpoint in shown.endpoints] == [True, False, True]
    assert (bench.rule("a", 1), bench.rule("b1", 1)) == before
    again = bench.offer(streams=two)  # refused: what was in force, said again
    assert all(endpoint.port for endpoint in again.endpoints)
    assert len(again.endpoints) == 2
    assert len(bench.sockets.bound) == 4
    assert bench.packet("b1", GATEWAY, 6000) == (Reason.FORWARD, f"{PHONE}:5000")
    bench.offer(streams=[Stream(PHONE, 5000), Stream("", 0, "video")])
    answered = bench.answer(streams=[Stream(GATEWAY, 6000), Stream(GATEWAY, 6002, "video")])  # a port where it may not
    assert answered.endpoints[1].port == 0
    assert len(bench.sockets.bound) == 2
