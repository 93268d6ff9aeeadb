"""Calls between RTP and SRTP through a relay: what each side is shown, and what then passes."""

from __future__ import annotations

import ipaddress
import os
from typing import Any

import pytest

from media import _datapath
from media.counters import Reason
from media.protocol import Answer, Delete, Offer, Reply, Stream
from media.rules import RuleFlag, pack_address
from media.sdes import OFFERED, read_key, write_key
from media.srtp import Suite
from media.state import state_size
from tests.support.secure import SUITES, TwinKeys, master, rtcp, rtp
from tests.unit.media.test_relay import GATEWAY, PHONE, Bench

CM80, GCM = Suite.AES_CM_128_HMAC_SHA1_80, Suite.AEAD_AES_256_GCM
ADDRESSES = {
    "a": pack_address(ipaddress.ip_address(PHONE), 5000),
    "b1": pack_address(ipaddress.ip_address(GATEWAY), 6000),
    "b2": pack_address(ipaddress.ip_address(GATEWAY), 6000),
}


def key(suite: Suite = CM80, seed: int = 1, tag: int = 1) -> str:
    return write_key(tag, suite, master(suite, seed))


class Call:
    """A leg with the policy ``a`` calls one with the policy ``b``."""

    def __init__(self, a: str, b: str, fd: int = -1) -> None:
        self.policies: dict[str, Any] = {"a": a, "b1": b, "b2": b}  # Any: the literals of the protocol
        self.bench = Bench(fd=fd)
        self.ends: dict[str, TwinKeys] = {}

    def stream(self, leg: str, keys: list[str], protocol: str = "") -> Stream:
        address, port = (PHONE, 5000) if leg == "a" else (GATEWAY, 6000)
        return Stream(address, port, protocol=protocol or ("RTP/SAVP" if keys else "RTP/AVP"), keys=keys)

    def offer(self, keys: list[str], protocol: str = "", giving: str = "a", taking: str = "b1") -> Reply:
        near, far = (("outside" if leg == "a" else "core") for leg in (giving, taking))
        policies = self.policies[giving], self.policies[taking]
        streams = [self.stream(giving, keys, protocol)]
        return self.bench.ask(Offer("s", giving, taking, near, far, streams, "", *policies))

    def answer(self, keys: list[str], protocol: str = "", giving: str = "b1", taking: str = "a") -> Reply:
        return self.bench.ask(Answer("s", giving, taking, [self.stream(giving, keys, protocol)]))

    def hold(self, leg: str, theirs: str, ours: str) -> None:
        """The phone of a leg sends under ``theirs`` and hears what comes under ``ours``."""
        sending, receiving = read_key(theirs), read_key(ours)
        assert sending is not None
        assert receiving is not None
        end = self.ends[leg] = TwinKeys(sending.suite, sending.master)
        for keys in (end.compiled, end.reference):
            _datapath.install(keys.receiving, receiving.suite, receiving.master)

    def passes(self, leg: str, sequence: int, ssrc: int = 1, *, clear: bool = False) -> Reason:
        """One packet of audio of ``leg`` and one of RTCP; FORWARD only where the other phone hears both."""
        for is_rtcp, packet in ((False, rtp(sequence, ssrc=ssrc)), (True, rtcp(ssrc))):
            end = None if clear else self.ends.get(leg)
            sent = packet if end is None else end.protect(packet, is_rtcp=is_rtcp)[1]
            arena, index = self.bench.arena, self.bench.rule(leg)
            source = ADDRESSES[leg]
            if is_rtcp:
                source = source[:2] + (int.from_bytes(source[2:4], "big") + 1).to_bytes(2, "big") + source[4:]
            got = _datapath.inspect(
                arena.rules, arena.keys, arena.webrtc, index, is_rtcp, sent, source, self.bench.now_ns
            )
            if got[0]:
                return Reason(got[0])
            to = next(name for name, other in self.bench.relay.sessions["s"].legs.items() if other.rules[0] == got[1])
            octets = got[5]
            if to in self.ends:
                reason, octets = self.ends[to].unprotect(octets, is_rtcp=is_rtcp)
                assert reason is Reason.FORWARD
            assert octets == packet
        return Reason.FORWARD

    def both_ways(self, sequence: int = 1) -> None:
        for leg in ("a", "b1"):
            for more in range(3):
                assert self.passes(leg, sequence + more) is Reason.FORWARD


def shown(reply: Reply) -> tuple[str, list[str]]:
    assert reply.ok, reply
    (endpoint,) = reply.endpoints
    return endpoint.protocol, endpoint.keys


def by_suite(keys: list[str], suite: Suite) -> str:
    (found,) = (value for value in keys if f" {suite.name} " in value)
    return found


def test_rtp_to_srtp() -> None:
    call = Call("off", "required")
    protocol, offered = shown(call.offer([]))
    assert protocol == "RTP/SAVP"
    assert [value.split()[1] for value in offered] == [suite.name for suite in OFFERED]
    assert len({value.split()[0] for value in offered}) == len({value.split()[2] for value in offered}) == len(OFFERED)
    mine = key(tag=int(by_suite(offered, CM80).split()[0]))
    assert shown(call.answer([mine])) == ("RTP/AVP", [])
    call.hold("b1", mine, by_suite(offered, CM80))
    call.both_ways()
    assert call.passes("b1", 9, clear=True) is Reason.AUTH_FAILED


@pytest.mark.parametrize("suite", SUITES)
def test_srtp_to_rtp(suite: Suite) -> None:
    call = Call("optional", "off")
    mine = key(suite, tag=5)
    assert shown(call.offer(["1 SOMETHING_NEW inline:abc", mine, key(CM80, 9, 6)])) == ("RTP/AVP", [])
    protocol, answered = shown(call.answer([]))
    assert protocol == "RTP/SAVP"
    assert [value.split()[:2] for value in answered] == [["5", suite.name]]
    call.hold("a", mine, answered[0])
    call.both_ways(65_534)


def test_from_one_key_and_suite_to_another() -> None:
    call = Call("required", "required")
    mine, theirs = key(Suite.AES_256_CM_HMAC_SHA1_32, 1), key(GCM, 2, 6)
    _, offered = shown(call.offer([mine]))
    _, answered = shown(call.answer([theirs]))
    assert not {mine, theirs} & {*offered, *answered}
    call.hold("a", mine, answered[0])
    call.hold("b1", theirs, by_suite(offered, GCM))
    call.both_ways()


def test_keys_pass_where_both_sides_say_so() -> None:
    call = Call("pass", "pass")
    mine, theirs = key(seed=1) + "|2^20|1:4", key(seed=2)
    assert shown(call.offer([mine])) == ("", [mine])
    assert shown(call.answer([theirs])) == ("", [theirs])
    assert call.passes("a", 1) is Reason.FORWARD  # octet for octet, RTCP too
    assert not any(bytes(call.bench.arena.keys[call.bench.rule("a")].sending.master))


def test_pass_on_one_side_is_optional() -> None:
    call = Call("pass", "off")
    assert shown(call.offer([key()])) == ("RTP/AVP", [])
    assert shown(call.answer([]))[0] == "RTP/SAVP"


@pytest.mark.parametrize("accepted", [True, False])
def test_opportunistic_towards_the_called_side(accepted: bool) -> None:
    """RFC 8643: RTP/AVP with keys; a phone that knows nothing of it answers without."""
    call = Call("off", "optional")
    protocol, offered = shown(call.offer([]))
    assert protocol == "RTP/AVP"
    mine = key(tag=1)
    assert shown(call.answer([mine] if accepted else [], "RTP/AVP")) == ("RTP/AVP", [])
    if accepted:
        call.hold("b1", mine, by_suite(offered, CM80))
    call.both_ways()


@pytest.mark.parametrize(("policy", "secure"), [("off", False), ("optional", True), ("required", True)])
def test_opportunistic_from_the_calling_side(policy: str, secure: bool) -> None:
    call = Call(policy, "off")
    mine = key()
    assert shown(call.offer([mine], "RTP/AVP")) == ("RTP/AVP" if secure else "", [])
    protocol, answered = shown(call.answer([]))
    assert protocol == ("RTP/AVP" if secure else "")
    assert len(answered) == secure
    if secure:
        call.hold("a", mine, answered[0])
    call.both_ways()


@pytest.mark.parametrize(
    ("policy", "keys", "protocol"),
    [
        ("off", [key()], "RTP/SAVP"),
        ("required", [], "RTP/AVP"),
        ("required", [], "RTP/SAVP"),
        ("optional", ["1 F8_128_HMAC_SHA1_80 inline:abc"], "RTP/SAVP"),
        ("required", ["1 F8_128_HMAC_SHA1_80 inline:abc"], "RTP/AVP"),
        ("pass", [], "UDP/TLS/RTP/SAVPF"),
    ],
)
def test_an_offer_that_the_policy_refuses(policy: str, keys: list[str], protocol: str) -> None:
    call = Call(policy, policy)
    refused = call.offer(keys, protocol)
    assert (refused.ok, refused.code) == (False, "unsupported")
    assert call.bench.relay.sessions == {}
    assert not any(value and value in refused.reason for line in keys for value in line.split()[2:])


@pytest.mark.parametrize(("keys", "protocol"), [([], "RTP/AVP"), ([], "RTP/SAVP"), (["1 X inline:y"], "RTP/SAVP")])
def test_no_answer_downgrades_what_is_required(keys: list[str], protocol: str) -> None:
    call = Call("off", "required")
    call.offer([])
    refused = call.answer(keys, protocol)
    assert (refused.ok, refused.code) == (False, "unsupported")
    assert call.passes("a", 1, clear=True) is Reason.NO_PEER
    assert call.answer([key(tag=1)]).ok  # another branch of a forking proxy answers better


def test_srtp_answers_an_offer_of_rtp() -> None:
    call = Call("off", "off")
    call.offer([])
    assert call.answer([key()]).code == "unsupported"


def test_feedback_stays_as_the_other_side_has_it() -> None:
    call = Call("off", "required")
    assert shown(call.offer([], "RTP/AVPF"))[0] == "RTP/SAVPF"
    assert shown(call.answer([key()], "RTP/SAVPF"))[0] == "RTP/AVPF"


def test_nothing_in_clear_before_the_answer() -> None:
    call = Call("off", "required")
    call.offer([])
    call.bench.arena.rules[call.bench.rule("b1")].flags |= RuleFlag.BEHIND_NAT
    assert call.passes("b1", 1, clear=True) is Reason.NO_KEY


def secured(a: str = "required", b: str = "off", fd: int = -1) -> tuple[Call, str, str]:
    """A call between SRTP and RTP that talks; the keys of A and of ours towards it."""
    call = Call(a, b, fd)
    mine = key()
    call.offer([mine])
    _, (ours,) = shown(call.answer([]))
    call.hold("a", mine, ours)
    call.both_ways(100)
    return call, mine, ours


def test_an_offer_of_the_same_key_changes_nothing() -> None:
    call, mine, ours = secured()
    call.offer([mine])
    call.both_ways(200)
    assert shown(call.answer([]))[1] == [ours]
    call.both_ways(300)


def test_a_new_key_of_the_caller() -> None:
    """Both directions get a new context; until the answer the former ones hold."""
    call, _, ours = secured()
    new = key(seed=2, tag=3)
    call.offer([new])
    call.both_ways(200)
    overtaken = call.ends["a"].protect(rtp(210))[1]
    protocol, (again,) = shown(call.answer([]))
    assert (protocol, again.split()[0]) == ("RTP/SAVP", "3")
    assert again.split()[2] != ours.split()[2]
    call.hold("a", new, again)
    call.both_ways(300)
    arena, index = call.bench.arena, call.bench.rule("a")
    assert (
        _datapath.inspect(arena.rules, arena.keys, arena.webrtc, index, False, overtaken, ADDRESSES["a"], 1)[0]
        == Reason.FORWARD
    )


def test_another_suite_never_brings_a_used_key_back() -> None:
    call, mine, ours = secured()
    seen = {ours.split()[2]}
    for turn, suite in enumerate((GCM, CM80, GCM, CM80)):
        mine = key(suite, 10 + turn)
        call.offer([mine])
        _, (ours,) = shown(call.answer([]))
        assert ours.split()[2] not in seen
        seen.add(ours.split()[2])
        call.hold("a", mine, ours)
        call.both_ways(1000 * (turn + 1))


def test_the_called_side_keeps_its_key_over_offers_to_it() -> None:
    call = Call("off", "required")
    _, offered = shown(call.offer([]))
    mine = key(tag=1)
    call.answer([mine])
    call.hold("b1", mine, by_suite(offered, CM80))
    call.both_ways()
    _, again = shown(call.offer([]))
    assert set(again) == set(offered)
    assert again[0] == by_suite(offered, CM80)
    call.answer([mine])
    call.both_ways(200)


@pytest.mark.parametrize("suite", [CM80, GCM, Suite.AES_CM_128_HMAC_SHA1_32])
def test_the_calling_side_is_offered_first_what_is_in_force(suite: Suite) -> None:
    """So that a phone that takes the first which it knows keeps what it has, when the other side holds: baresip before
    its pull request 2975 answers with another suite, and does not use it."""
    call = Call("required", "off")
    mine = key(suite)
    call.offer([mine])
    _, (ours,) = shown(call.answer([]))
    call.hold("a", mine, ours)
    call.both_ways()
    _, offered = shown(call.offer([], giving="b1", taking="a"))
    assert offered[0].split()[1:] == ours.split()[1:]
    call.answer([key(suite, tag=int(offered[0].split()[0]))], giving="a", taking="b1")
    call.both_ways(200)


def test_a_refused_offer_leaves_the_keys() -> None:
    call, _, _ = secured()
    assert not call.offer([], "RTP/AVP").ok
    call.both_ways(200)


def test_from_srtp_to_rtp_and_back() -> None:
    call, mine, ours = secured("optional")
    call.offer([])
    assert shown(call.answer([])) == ("RTP/AVP", [])
    del call.ends["a"]
    call.both_ways(200)
    assert not any(bytes(call.bench.arena.keys[call.bench.rule("a")]))
    call.offer([mine])
    _, (again,) = shown(call.answer([]))
    assert again != ours
    call.hold("a", mine, again)
    call.both_ways(300)


def test_forks_have_keys_of_their_own() -> None:
    call = Call("off", "required")
    _, first = shown(call.offer([], taking="b1"))
    _, second = shown(call.offer([], taking="b2"))
    assert not {*first} & {*second}
    one, two = key(seed=1, tag=1), key(seed=2, tag=1)
    call.answer([one], giving="b1")
    call.answer([two], giving="b2")
    call.hold("b2", two, by_suite(second, CM80))
    assert call.passes("a", 1) is Reason.FORWARD
    assert call.passes("b2", 1) is Reason.FORWARD


def test_a_stream_that_is_refused_keeps_its_protocol() -> None:
    call = Call("required", "off")
    streams = [call.stream("a", [key()]), Stream(PHONE, 5002, "video", "RTP/SAVP", keys=[key(seed=2)])]
    call.bench.ask(Offer("s", "a", "b1", "outside", "core", streams, from_srtp="required"))
    answers = [call.stream("b1", []), Stream(GATEWAY, 0, "video")]
    reply = call.bench.ask(Answer("s", "b1", "a", answers))
    assert [(e.protocol, e.port != 0, len(e.keys)) for e in reply.endpoints] == [
        ("RTP/SAVP", True, 1),
        ("RTP/SAVP", False, 0),
    ]


def test_a_successor_keeps_what_was_offered() -> None:
    """The worker dies while the phone rings: the key that the phone answers is still the one that it was shown."""
    fd = os.memfd_create("state")
    os.ftruncate(fd, state_size(8))
    try:
        first = Call("required", "required", fd)
        mine, theirs = key(), key(GCM, 2, 6)
        _, offered = shown(first.offer([mine]))
        call = Call("required", "required", fd)
        assert call.bench.relay.resume(call.bench.now_ns) == (1, 0)
        _, (answered,) = shown(call.answer([theirs]))
        call.hold("a", mine, answered)
        call.hold("b1", theirs, by_suite(offered, GCM))
        call.both_ways()
        call.bench.ask(Delete("s"))
        assert not any(bytes(call.bench.arena.keys))
    finally:
        os.close(fd)


def test_plain_calls_touch_no_keys() -> None:
    call = Call("off", "off")
    assert shown(call.offer([])) == ("", [])
    assert shown(call.answer([])) == ("", [])
    call.both_ways()
    assert not any(bytes(call.bench.arena.keys))


BROWSER = "UDP/TLS/RTP/SAVPF"
PRINT = "sha-256 " + ":".join(["AB"] * 32)


def of_browser(protocol: str = BROWSER) -> Stream:
    return Stream("0.0.0.0", 9, protocol=protocol, fingerprints=[PRINT], setup="actpass", rtcp_mux=True)


@pytest.mark.parametrize("protocol", [BROWSER, "UDP/TLS/RTP/SAVP", "RTP/SAVPF"])
@pytest.mark.parametrize(("policy", "plain"), [("off", "RTP/AVP"), ("required", "RTP/SAVP")])
def test_each_leg_has_the_protocol_that_it_knows(protocol: str, policy: str, plain: str) -> None:
    """A browser always has feedback (AVPF); the other leg has it where it has offered it."""
    bench = Bench()
    offered = bench.offer(streams=[of_browser(protocol)], from_srtp="dtls", to_srtp=policy)
    assert offered.endpoints[0].protocol == plain
    keys = offered.endpoints[0].keys
    answered = bench.answer(streams=[Stream(GATEWAY, 6000, protocol=plain, keys=keys[:1])])
    assert (answered.endpoints[0].protocol, answered.endpoints[0].setup) == (protocol, "passive")
    assert answered.endpoints[0].keys == []


@pytest.mark.parametrize("profile", ["RTP/AVP", "RTP/AVPF"])
def test_a_phone_that_calls_a_browser_is_answered_in_its_own_protocol(profile: str) -> None:
    bench = Bench()
    offered = bench.offer(streams=[Stream(PHONE, 5000, protocol=profile)], to_srtp="dtls")
    assert (offered.endpoints[0].protocol, offered.endpoints[0].setup) == (BROWSER, "actpass")
    answer = of_browser()
    answer.setup = "active"
    assert bench.answer(streams=[answer]).endpoints[0].protocol == profile
    again = bench.ask(Offer("s", "b1", "a", "core", "outside", [of_browser()], from_srtp="dtls"))
    assert again.endpoints[0].protocol == profile


def test_a_browser_that_is_refused_hears_its_protocol_again() -> None:
    bench = Bench()
    bench.offer(streams=[of_browser()], from_srtp="dtls")
    assert bench.answer(streams=[Stream(GATEWAY, 0)]).endpoints[0].protocol == BROWSER


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "takes an a=fingerprint"),
        (["sha-1 " + ":".join(["AB"] * 20)], "sha-256"),
        (["sha-256 AB:CD"], "2 octets"),
        (["sha-256 zz"], "hexadecimal"),
        ([PRINT.replace("AB", f"{n:02X}") for n in range(5)], "more than 4"),
    ],
)
def test_fingerprints_that_prove_nothing_are_refused(values: list[str], said: str) -> None:
    bench, stream = Bench(), of_browser()
    stream.fingerprints = values
    reply = bench.offer(streams=[stream], from_srtp="dtls")
    assert not reply.ok
    assert said in reply.reason


def test_of_several_hashes_the_best_counts() -> None:
    bench, stream = Bench(), of_browser()
    best = "sha-512 " + ":".join(["CD"] * 64)
    stream.fingerprints = ["md5 00", PRINT, best, PRINT.replace("AB", "01")]
    assert bench.offer(streams=[stream], from_srtp="dtls").ok
    leg = bench.arena.webrtc[bench.rule("a")]
    assert (leg.prints, bytes(leg.fingerprint[0])) == (1, b"\xcd" * 64)


def test_sdes_is_no_answer_to_an_offer_of_dtls() -> None:
    bench = Bench()
    bench.offer(to_srtp="dtls")
    reply = bench.answer(streams=[Stream(GATEWAY, 6000, protocol="RTP/SAVP", keys=[key()])])
    assert (reply.ok, reply.code) == (False, "unsupported")
