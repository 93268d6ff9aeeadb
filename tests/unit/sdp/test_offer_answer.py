"""Offer and answer on one leg: whose turn it is, and when the version of o= rises."""

from __future__ import annotations

import pytest

from media.protocol import Endpoint
from sbc.errors import SdpError
from sbc.sdp.description import SessionDescription
from sbc.sdp.offer_answer import OFFER_ANSWER, Event, Exchange, LocalDescription, OutOfTurn, State, check_answer
from sbc.sdp.rewrite import Origin

HEAD = "v=0\r\no=- {} {} IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
HERE = [Endpoint("203.0.113.9", 40000, 40001)]


def sdp(*media: str, session: int = 1, version: int = 1) -> SessionDescription:
    text = HEAD.format(session, version) + "".join(line + "\r\n" for line in media)
    return SessionDescription.parse(text.encode())


def version_of(body: bytes) -> int:
    return int(body.split(b"\r\n")[1].split(b" ")[2])


@pytest.mark.parametrize(
    "events",
    [
        (Event.OFFER_SENT, Event.ANSWER_RECEIVED),
        (Event.OFFER_RECEIVED, Event.ANSWER_SENT),
        (Event.OFFER_SENT, Event.ANSWER_RECEIVED, Event.OFFER_RECEIVED, Event.ANSWER_SENT),
        (Event.OFFER_SENT, Event.ANSWER_RECEIVED, Event.OFFER_SENT, Event.FAILED, Event.OFFER_RECEIVED, Event.FAILED),
    ],
)
def test_exchanges_that_end_in_agreement(events: tuple[Event, ...]) -> None:
    exchange = Exchange()
    for event in events:
        exchange.step(event)
    assert exchange.state is State.AGREED
    assert not exchange.is_open


def test_a_first_offer_that_fails_leaves_nothing() -> None:
    exchange = Exchange()
    exchange.step(Event.OFFER_SENT)
    assert exchange.is_open
    assert exchange.step(Event.FAILED) is State.IDLE


@pytest.mark.parametrize(
    ("before", "event", "status"),
    [
        (Event.OFFER_SENT, Event.OFFER_RECEIVED, 491),
        (Event.OFFER_RECEIVED, Event.OFFER_RECEIVED, 500),
        (Event.OFFER_RECEIVED, Event.ANSWER_RECEIVED, 488),
        (Event.OFFER_SENT, Event.ANSWER_SENT, 488),
    ],
)
def test_glare_and_answers_to_nothing(before: Event, event: Event, status: int) -> None:
    exchange = Exchange()
    state = exchange.step(before)
    with pytest.raises(OutOfTurn) as refusal:
        exchange.step(event)
    assert refusal.value.status == status
    assert exchange.state is state


def test_every_state_can_be_left() -> None:
    assert {state for state, _ in OFFER_ANSWER} == set(State)


def test_a_description_that_comes_is_an_answer_only_to_our_offer() -> None:
    exchange = Exchange()
    assert exchange.received() is Event.OFFER_RECEIVED
    exchange.step(Event.OFFER_SENT)
    assert exchange.received() is Event.ANSWER_RECEIVED


def test_the_version_rises_with_changes_only() -> None:
    said = LocalDescription(Origin("-", 9, 5))
    first = said.describe(sdp("m=audio 4000 RTP/AVP 0"), HERE, "203.0.113.9")
    assert version_of(first) == 5
    # another port and version of theirs is no change of ours
    assert said.describe(sdp("m=audio 4444 RTP/AVP 0", version=8), HERE, "203.0.113.9") == first
    held = said.describe(sdp("m=audio 4000 RTP/AVP 0", "a=sendonly"), HERE, "203.0.113.9")
    assert version_of(held) == 6
    assert version_of(said.describe(sdp("m=audio 4000 RTP/AVP 0"), HERE, "203.0.113.9")) == 7
    assert said.origin == Origin("-", 9, 7)
    resumed = LocalDescription.resumed(said.origin)
    assert version_of(resumed.describe(sdp("m=audio 4000 RTP/AVP 0"), HERE, "203.0.113.9")) == 8


def test_answers_must_fit_their_offer() -> None:
    offer = sdp("m=audio 4000 RTP/AVP 0", "m=video 0 RTP/AVP 31")
    check_answer(offer, sdp("m=audio 5000 RTP/AVP 0", "m=video 0 RTP/AVP 31"))
    for wrong in (
        sdp("m=audio 5000 RTP/AVP 0"),
        sdp("m=video 0 RTP/AVP 31", "m=audio 5000 RTP/AVP 0"),
        sdp("m=audio 5000 RTP/AVP 0", "m=video 6000 RTP/AVP 31"),
    ):
        with pytest.raises(SdpError):
            check_answer(offer, wrong)
