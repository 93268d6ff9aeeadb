"""A leg with DTLS-SRTP that joins another session and keeps its port, its ICE and its association (RFC 8842)."""

from __future__ import annotations

from typing import Any

import pytest

from media.counters import MediaCounter
from media.protocol import (
    Answer,
    Conversion,
    Delete,
    Drain,
    Endpoint,
    Join,
    Offer,
    Processing,
    Reply,
    Seat,
    Stream,
    Way,
)
from media.rules import NO_RULE
from media.session import decode
from tests.unit.media.test_dtls import HOME, PHONE, Bench, Browser

TARGET = Stream("198.51.100.6", 7100)
SEAT = Seat("a", ("s", "a"))


class Transfer(Bench):
    """A browser talks to a phone in session s, and is to talk to another one in session t."""

    def __init__(self, **more: Any) -> None:  # Any: of a stream
        super().__init__()
        self.browser = Browser()
        self.shown = self.begin(self.browser, **more)
        assert self.exchange(self.browser)
        assert self.keyed_as(self.browser)
        self.own = self.rule()

    def target_offers(self, seat: Seat | None = SEAT, **more: Any) -> Reply:  # Any: fields of Offer
        fields: dict[str, Any] = {"to_srtp": "dtls", "to_ice": "lite", "seat": seat, **more}  # Any: as above
        return self.ask(Offer("t", "b1", "a", "core", "outside", [TARGET], **fields))

    def browser_answers(self, stream: Stream | None = None, processing: list[Processing] | None = None) -> None:
        described = stream or self.browser.stream("active")
        assert self.ask(Answer("t", "a", "b1", [described], processing=processing or [])).ok

    def join(self, *, offered: bool = False) -> None:
        reply = self.ask(Join("t", SEAT, offered))
        assert reply.ok, reply.reason

    def peers(self, leg: str, session: str) -> int:
        return self.arena.rules[self.rule(leg, session)].peer


@pytest.fixture
def calls() -> Transfer:
    return Transfer()


def same(one: Endpoint, other: Endpoint) -> bool:
    """One transport."""
    return (one.port, one.ice, one.fingerprint) == (other.port, other.ice, other.fingerprint)


def test_the_transport_goes_with_the_leg(calls: Transfer) -> None:
    started = calls.counts[MediaCounter.DTLS_STARTED]
    offered = calls.target_offers().endpoints[0]
    assert same(offered, calls.shown)
    assert (offered.setup, offered.protocol) == ("actpass", "UDP/TLS/RTP/SAVPF")
    calls.browser_answers()
    assert calls.rule() == calls.own, "until it joins it is where it was"
    calls.join()
    assert calls.rule(session="t") == calls.own
    assert calls.keyed_as(calls.browser, session="t")
    assert calls.counts[MediaCounter.DTLS_STARTED] == started
    assert calls.peers("a", "t") == calls.rule("b1", "t")
    assert calls.peers("b1", "t") == calls.own
    assert calls.peers("b1", "s") == calls.peers("a", "s") == NO_RULE
    assert calls.arena.rules[calls.own].slot == calls.relay.sessions["t"].slot
    assert calls.ask(Delete("s")).ok
    assert calls.keyed_as(calls.browser, session="t"), "what it left is not its own any more"
    hold = calls.ask(Offer("t", "b1", "a", "core", "outside", [TARGET], to_srtp="dtls", to_ice="lite"))
    assert same(hold.endpoints[0], calls.shown)


def test_what_was_counted_stays_in_the_call_that_it_was_counted_in(calls: Transfer) -> None:
    rule = calls.arena.rules[calls.own]
    rule.packets_in, rule.packets_out, rule.ssrc, rule.has_ssrc, rule.max_sequence = 70, 60, 5, 1, 70
    rule.base_sequence, rule.received = 1, 69
    calls.target_offers()
    calls.browser_answers()
    calls.join()
    (left,) = calls.ask(Delete("s")).stats["a"]
    assert (left.packets_in, left.packets_out, left.lost) == (70, 60, 1)
    (joined,) = calls.ask(Delete("t")).stats["a"]
    assert (joined.packets_in, joined.packets_out, joined.lost) == (0, 0, 0)
    assert joined.remote == "192.0.2.10:5000"


def test_a_transfer_that_fails_changes_nothing(calls: Transfer) -> None:
    calls.target_offers()
    calls.browser_answers()
    assert calls.ask(Delete("t")).ok
    assert calls.rule() == calls.own
    assert calls.keyed_as(calls.browser)
    assert calls.peers("a", "s") == calls.rule("b1")
    again = calls.ask(Offer("s", "b1", "a", "core", "outside", [PHONE], to_srtp="dtls", to_ice="lite"))
    assert same(again.endpoints[0], calls.shown)


def test_a_leg_that_is_asked_for_an_offer_keeps_it_too(calls: Transfer) -> None:
    """And is answered when it has joined."""
    described = calls.browser.stream()
    request = Offer("t", "a", "b1", "outside", "core", [described], from_srtp="dtls", from_ice="lite", seat=SEAT)
    assert calls.ask(request).ok
    calls.join(offered=True)
    answered = calls.ask(Answer("t", "b1", "a", [TARGET])).endpoints[0]
    assert same(answered, calls.shown)
    assert answered.setup == "passive"
    assert calls.keyed_as(calls.browser, session="t")
    assert calls.peers("b1", "t") == calls.own


def test_whoever_comes_with_another_certificate_begins_anew(calls: Transfer) -> None:
    calls.target_offers()
    other = Browser()
    calls.browser_answers(other.stream("active"))
    calls.join()
    calls.now_ns += 2 * 10**9
    assert calls.exchange(other, "t", HOME)
    assert calls.keyed_as(other, session="t")


@pytest.mark.parametrize("offered", [False, True])
def test_credentials_of_ice_that_changed_are_taken(calls: Transfer, offered: bool) -> None:
    """An offer with others is a restart, so ours are others, too."""
    before = calls.shown.ice
    if offered:
        stream = calls.browser.stream(ufrag="wxyz")
        calls.ask(Offer("t", "a", "b1", "outside", "core", [stream], from_srtp="dtls", from_ice="lite", seat=SEAT))
    else:
        calls.target_offers()
        calls.browser_answers(calls.browser.stream("active", "wxyz"))
    calls.join(offered=offered)
    leg = calls.arena.webrtc[calls.own]
    assert bytes(leg.present.theirs)[: leg.present.theirs_bytes] == b"wxyz"
    shown = calls.ask(Offer("t", "b1", "a", "core", "outside", [TARGET], to_srtp="dtls", to_ice="lite")).endpoints[0]
    assert (shown.ice == before) == (not offered)
    assert calls.keyed_as(calls.browser, session="t")


def test_payloads_are_changed_as_agreed_in_the_new_call(calls: Transfer) -> None:
    way = Way([Conversion(0, 8)])
    calls.target_offers()
    calls.browser_answers(processing=[Processing(to_answerer=way)])
    calls.join()
    process = calls.arena.processes[calls.own]
    assert (process.count, process.formats[0].number, process.formats[0].to) == (1, 0, 8)
    assert calls.arena.rules[calls.own].features & 4
    assert not calls.arena.rules[calls.rule()].features & 4


def test_other_realms_and_plain_legs_get_transports_of_their_own(calls: Transfer) -> None:
    plain = calls.ask(Offer("u", "b1", "a", "core", "outside", [TARGET], seat=SEAT)).endpoints[0]
    assert plain.port != calls.shown.port
    elsewhere = calls.ask(
        Offer("v", "b1", "a", "outside", "core", [TARGET], to_srtp="dtls", to_ice="lite", seat=SEAT)
    ).endpoints[0]
    assert not same(elsewhere, calls.shown)
    nobody = calls.target_offers(Seat("a", ("gone", "a"))).endpoints[0]
    assert nobody.port not in (0, calls.shown.port)
    for session in ("u", "v"):
        assert calls.ask(Join(session, SEAT)).ok
    assert calls.rule() == calls.own


def test_what_is_not_there_is_refused(calls: Transfer) -> None:
    calls.target_offers()
    for request in (
        Join("t", Seat("z", ("s", "a"))),
        Join("t", Seat("a", ("s", "z"))),
        Join("t", Seat("a", ("t", "a"))),
    ):
        assert calls.ask(request).code == "unknown_leg"
    assert calls.ask(Join("z", SEAT)).code == "unknown_session"


def test_a_worker_that_drains_lets_its_legs_change_calls(calls: Transfer) -> None:
    calls.ask(Drain())
    assert calls.target_offers(None).code == "draining"
    assert calls.target_offers(Seat("a", ("gone", "a"))).code == "draining"
    assert same(calls.target_offers().endpoints[0], calls.shown)


def test_a_successor_finds_the_leg_in_its_new_call(calls: Transfer) -> None:
    calls.target_offers()
    calls.browser_answers()
    calls.join()
    found, half_written = calls.arena.scan()
    sessions = {session.id: session for slot, blob in found.items() if (session := decode(slot, blob, 256))}
    assert half_written == 0
    assert sessions["t"].legs["a"].rules == [calls.own]
    assert not {calls.own}.intersection(sessions["s"].all_rules())
