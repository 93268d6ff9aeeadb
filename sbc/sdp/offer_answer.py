"""Offer and answer (RFC 3264, RFC 6337) on one leg: who may speak, and the version of what we said."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from media.protocol import Endpoint
from sbc.errors import Fault, SbcError, SdpError
from sbc.sdp.description import SessionDescription
from sbc.sdp.rewrite import Origin, anchored, assemble


class State(Enum):
    """Where the exchange of one dialog stands, seen from us."""

    IDLE = "idle"  # nothing described yet
    OFFERED = "offered"  # we wait for an answer
    OFFERED_AGAIN = "offered again"
    ASKED = "asked"  # the peer waits for our answer
    ASKED_AGAIN = "asked again"
    AGREED = "agreed"


class Event(Enum):
    """What happens to an exchange. FAILED: the request that carried the open offer got a final refusal."""

    OFFER_SENT = "offer sent"
    OFFER_RECEIVED = "offer received"
    ANSWER_SENT = "answer sent"
    ANSWER_RECEIVED = "answer received"
    FAILED = "failed"


OFFER_ANSWER: Final[dict[tuple[State, Event], State]] = {  # RFC 3261 §13.2.1, RFC 3311 §5, RFC 6337 §2
    (State.IDLE, Event.OFFER_SENT): State.OFFERED,
    (State.IDLE, Event.OFFER_RECEIVED): State.ASKED,
    (State.OFFERED, Event.ANSWER_RECEIVED): State.AGREED,
    (State.OFFERED, Event.FAILED): State.IDLE,
    (State.ASKED, Event.ANSWER_SENT): State.AGREED,
    (State.ASKED, Event.FAILED): State.IDLE,
    (State.AGREED, Event.OFFER_SENT): State.OFFERED_AGAIN,
    (State.AGREED, Event.OFFER_RECEIVED): State.ASKED_AGAIN,
    (State.OFFERED_AGAIN, Event.ANSWER_RECEIVED): State.AGREED,
    (State.OFFERED_AGAIN, Event.FAILED): State.AGREED,  # RFC 3264 §8: the former session goes on
    (State.ASKED_AGAIN, Event.ANSWER_SENT): State.AGREED,
    (State.ASKED_AGAIN, Event.FAILED): State.AGREED,
}
# An offer that crosses an open one (RFC 3261 §14.2, RFC 3311 §5.2): 491 when ours is open, 500 with Retry-After
# when theirs is.
_GLARE: Final[dict[State, int]] = {
    State.OFFERED: 491,
    State.OFFERED_AGAIN: 491,
    State.ASKED: 500,
    State.ASKED_AGAIN: 500,
}


class OutOfTurn(SbcError):
    """A description at a moment when none may be sent; ``status`` refuses the request that carried it."""

    fault = Fault.PEER

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"{event.value} while {state.value}")
        self.status = _GLARE.get(state, 488) if event is Event.OFFER_RECEIVED else 488


class Exchange:
    """The offer/answer state of one leg. Repeated answers (the same SDP in 183 and 200) are the caller's to notice."""

    __slots__ = ("state",)

    def __init__(self, state: State = State.IDLE) -> None:
        self.state = state

    def step(self, event: Event) -> State:
        """Move on; raises OutOfTurn and stays where it was when the table has no such row."""
        following = OFFER_ANSWER.get((self.state, event))
        if following is None:
            raise OutOfTurn(self.state, event)
        self.state = following
        return following

    @property
    def is_open(self) -> bool:
        """True while somebody waits for an answer."""
        return self.state not in (State.IDLE, State.AGREED)

    def received(self) -> Event:
        """What a description that comes from the peer now is: the answer to our open offer, or an offer."""
        waiting = self.state in (State.OFFERED, State.OFFERED_AGAIN)
        return Event.ANSWER_RECEIVED if waiting else Event.OFFER_RECEIVED


class LocalDescription:
    """What we said last on one leg, so that the version of o= rises by one with each change and never else (§8).

    ``origin`` belongs into the leg's record; after a restart the text is unknown and the next description counts as
    changed, which costs the peer a comparison and nothing more.
    """

    __slots__ = ("_said", "origin")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._said: str | None = None

    def describe(self, theirs: SessionDescription, endpoints: Sequence[Endpoint], address: str) -> bytes:
        """The other side's description as ours: see :func:`sbc.sdp.rewrite.rewrite`. Raises EndpointMismatch."""
        text = anchored(theirs, endpoints, address)
        if self._said is None:
            self._said = text
        elif text != self._said:
            self._said = text
            self.origin = self.origin._replace(version=self.origin.version + 1)
        return assemble(self.origin, address, text)

    @classmethod
    def resumed(cls, origin: Origin) -> LocalDescription:
        """After a restart: the first description is newer than whatever was said before."""
        return cls(origin._replace(version=origin.version + 1))


def check_answer(offer: SessionDescription, answer: SessionDescription) -> None:
    """RFC 3264 §6: as many m= lines as the offer, of the same kinds, in the same order. Raises SdpError."""
    if len(answer.streams) != len(offer.streams):
        raise SdpError(f"an answer with {len(answer.streams)} m= lines to an offer with {len(offer.streams)}")
    for asked, given in zip(offer.streams, answer.streams, strict=True):
        if asked.kind != given.kind:
            raise SdpError(f"an answer with m={given.kind} where m={asked.kind} was offered")
        if given.port and not asked.port:
            raise SdpError("an answer that takes up a stream which was not offered")
