"""The life of a connection to the store with its circuit breaker, as a table. No socket, no clock.

While the circuit is closed a lost connection is remade at once and commands wait for it (each no longer than its own
deadline). After ``limit`` failures in a row the circuit opens: commands are refused at once, and one probe after
another, further and further apart, looks whether the store is back.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where the connection is. The circuit is open in OPEN and RETRYING only."""

    OFF = "off"
    CONNECTING = "connecting"  # includes AUTH, SELECT and the PING that proves it
    READY = "ready"
    OPEN = "open"
    RETRYING = "retrying"


class Event(Enum):
    """What happened. The last of a row of failures is TRIPPED in place of LOST or MISSED."""

    START = "start"
    PROVED = "proved"  # the PING was answered
    MISSED = "missed"  # a command's deadline passed without its reply
    LOST = "lost"  # the connection, or an attempt at one, failed
    TRIPPED = "tripped"
    BACKED_OFF = "backed off"
    STOP = "stop"


class Action(Enum):
    """What the pipe is to do, in this order."""

    DROP = "drop"  # close the connection, fail what waits for a reply
    CONNECT = "connect"
    FLUSH = "flush"  # send what waited for the connection
    REFUSE = "refuse"  # fail what waited for the connection
    BACK_OFF = "back off"  # start the timer to the next probe


_D, _C, _F, _R, _B = Action.DROP, Action.CONNECT, Action.FLUSH, Action.REFUSE, Action.BACK_OFF
_S, _E = State, Event

TABLE: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    (_S.OFF, _E.START): (_S.CONNECTING, (_C,)),
    (_S.CONNECTING, _E.PROVED): (_S.READY, (_F,)),
    # what timed out here never left: the attempt under way may still succeed, and has its own deadline
    (_S.CONNECTING, _E.MISSED): (_S.CONNECTING, ()),
    (_S.CONNECTING, _E.LOST): (_S.CONNECTING, (_D, _C)),
    (_S.CONNECTING, _E.TRIPPED): (_S.OPEN, (_D, _R, _B)),
    # a late reply could no longer be told from the next one's, so the connection is remade
    (_S.READY, _E.MISSED): (_S.CONNECTING, (_D, _C)),
    (_S.READY, _E.LOST): (_S.CONNECTING, (_D, _C)),
    (_S.READY, _E.TRIPPED): (_S.OPEN, (_D, _R, _B)),
    (_S.OPEN, _E.BACKED_OFF): (_S.RETRYING, (_C,)),
    (_S.RETRYING, _E.PROVED): (_S.READY, (_F,)),
    (_S.RETRYING, _E.LOST): (_S.OPEN, (_D, _B)),
    (_S.RETRYING, _E.TRIPPED): (_S.OPEN, (_D, _B)),
    **{(state, _E.STOP): (_S.OFF, (_D, _R)) for state in _S},
}


class Breaker:
    """Steps through :data:`TABLE`, counts failures in a row and doubles the back-off.

    ``limit`` failures open the circuit; the first probe comes after ``first_s``, later ones up to ``longest_s`` apart.
    """

    __slots__ = ("_back_off_s", "_failures", "_first_s", "_limit", "_longest_s", "state")

    def __init__(self, limit: int = 3, first_s: float = 0.05, longest_s: float = 2.0) -> None:
        self.state = State.OFF
        self._limit = limit
        self._failures = 0
        self._first_s = first_s
        self._longest_s = longest_s
        self._back_off_s = first_s

    @property
    def is_open(self) -> bool:
        """Whether commands are refused at once."""
        return self.state is not State.READY and self.state is not State.CONNECTING

    def step(self, event: Event) -> tuple[Action, ...]:
        """The actions that ``event`` asks for; none where the table has no such row (a late event of a dead state)."""
        if event is Event.MISSED or event is Event.LOST:
            self._failures += 1
            if self._failures >= self._limit:
                event = Event.TRIPPED
        row = TABLE.get((self.state, event))
        if row is None:
            return ()
        self.state, actions = row
        return actions

    def succeeded(self) -> None:
        """A command got its reply. A PING alone does not count: a store that answers nothing else stays suspect."""
        self._failures = 0
        self._back_off_s = self._first_s

    def next_back_off(self) -> float:
        """Seconds to the next probe; each call doubles the one after it."""
        delay_s = self._back_off_s
        self._back_off_s = min(self._longest_s, delay_s * 2)
        return delay_s
