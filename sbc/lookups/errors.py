"""Why a look-up gave nothing. A route that does not catch them fails like any other that raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.errors import Fault, SbcError

if TYPE_CHECKING:
    from sbc.lookups.asking import HttpAnswer


class LookupFailed(SbcError):
    """There is no usable answer. The text says what was asked, and why there is none; it holds no password."""

    fault = Fault.PEER
    status = 503

    def __init__(self, asked: str, why: str) -> None:
        super().__init__(f"{asked}: {why}")
        self.asked = asked


class LookupTimeout(LookupFailed):
    """None came in time. What was asked for may have been done all the same."""


class ServerAway(LookupFailed):
    """Nobody was asked: the server gave no usable answer for some time, or too much waits for it already."""


class HttpStatus(LookupFailed):
    """The server refused: a status that is neither 2xx nor allowed. ``answer`` has all of it."""

    def __init__(self, asked: str, answer: HttpAnswer) -> None:
        place = answer.headers.get("location")
        where = f" to {place}; redirects are not followed" if place and 300 <= answer.status < 400 else ""
        super().__init__(asked, f"the server answered {answer.status}{where}")
        self.answer = answer


class LookupUnknown(SbcError):
    """A route asks something that is not configured, or in a way that cannot be sent."""

    fault = Fault.CONFIG
    status = 500
