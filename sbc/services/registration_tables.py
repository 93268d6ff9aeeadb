"""One trunk registration as a table: which event leads where, and what is done about it.

``EXPIRED`` is the end of the binding that the registrar granted; it may come in any state that a binding outlives.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class State(Enum):
    """The values are what operators read."""

    UNREGISTERED = "unregistered"  # its turn has not come yet
    REGISTERING = "registering"
    REGISTERED = "registered"
    REFRESHING = "refreshing"  # registered, and a new REGISTER is under way
    LAPSING = "lapsing"  # registered still, but the refresh failed
    FAILED = "failed"  # no server of the registrar served us: tried again soon
    REFUSED = "refused"  # the registrar does not want us as we are: tried again, but rarely
    LEAVING = "leaving"  # to be ended as soon as the REGISTER that is under way is answered
    UNREGISTERING = "unregistering"
    ENDED = "ended"


class Event(Enum):
    """What happens to it."""

    DUE = auto()  # the time to register or refresh has come
    FOUND = auto()  # the servers of the registrar are known
    AGAIN = auto()  # the same server wants another REGISTER: with credentials, or for longer (401, 407, 423)
    NEXT = auto()  # this server did not serve us, there is another
    UNAVAILABLE = auto()  # none did
    REFUSED = auto()
    ACCEPTED = auto()
    EXPIRED = auto()
    STOP = auto()


class Action(Enum):
    """What is done, in order."""

    LOCATE = auto()
    SEND = auto()
    BIND = auto()  # take down what was granted, and come back before it expires
    UNBIND = auto()
    BACK_OFF = auto()
    REST = auto()  # the long back-off of a refusal
    REMOVE = auto()  # REGISTER with Expires 0
    END = auto()


# A state in which calls from the registrar reach us.
BOUND: Final = frozenset({State.REGISTERED, State.REFRESHING, State.LAPSING})
# What an operator is told of, once per change; the others only pass.
SETTLED: Final = frozenset({State.REGISTERED, State.LAPSING, State.FAILED, State.REFUSED, State.ENDED})

_S, _E, _A = State, Event, Action
REGISTRATION: Final[dict[tuple[State, Event], tuple[State, tuple[Action, ...]]]] = {
    (_S.UNREGISTERED, _E.DUE): (_S.REGISTERING, (_A.LOCATE,)),
    (_S.UNREGISTERED, _E.STOP): (_S.ENDED, (_A.END,)),
    #
    (_S.REGISTERING, _E.FOUND): (_S.REGISTERING, (_A.SEND,)),
    (_S.REGISTERING, _E.AGAIN): (_S.REGISTERING, (_A.SEND,)),
    (_S.REGISTERING, _E.NEXT): (_S.REGISTERING, (_A.SEND,)),
    (_S.REGISTERING, _E.ACCEPTED): (_S.REGISTERED, (_A.BIND,)),
    (_S.REGISTERING, _E.UNAVAILABLE): (_S.FAILED, (_A.BACK_OFF,)),
    (_S.REGISTERING, _E.REFUSED): (_S.REFUSED, (_A.REST,)),
    (_S.REGISTERING, _E.STOP): (_S.LEAVING, ()),
    #
    (_S.REGISTERED, _E.DUE): (_S.REFRESHING, (_A.LOCATE,)),
    (_S.REGISTERED, _E.EXPIRED): (_S.FAILED, (_A.UNBIND,)),
    (_S.REGISTERED, _E.STOP): (_S.UNREGISTERING, (_A.REMOVE,)),
    #
    (_S.REFRESHING, _E.FOUND): (_S.REFRESHING, (_A.SEND,)),
    (_S.REFRESHING, _E.AGAIN): (_S.REFRESHING, (_A.SEND,)),
    (_S.REFRESHING, _E.NEXT): (_S.REFRESHING, (_A.SEND,)),
    (_S.REFRESHING, _E.ACCEPTED): (_S.REGISTERED, (_A.BIND,)),
    (_S.REFRESHING, _E.UNAVAILABLE): (_S.LAPSING, (_A.BACK_OFF,)),
    (_S.REFRESHING, _E.REFUSED): (_S.REFUSED, (_A.UNBIND, _A.REST)),
    (_S.REFRESHING, _E.EXPIRED): (_S.REGISTERING, (_A.UNBIND,)),
    (_S.REFRESHING, _E.STOP): (_S.LEAVING, ()),
    #
    (_S.LAPSING, _E.DUE): (_S.REFRESHING, (_A.LOCATE,)),
    (_S.LAPSING, _E.EXPIRED): (_S.FAILED, (_A.UNBIND,)),
    (_S.LAPSING, _E.STOP): (_S.UNREGISTERING, (_A.REMOVE,)),
    #
    (_S.FAILED, _E.DUE): (_S.REGISTERING, (_A.LOCATE,)),
    (_S.FAILED, _E.STOP): (_S.ENDED, (_A.END,)),
    (_S.REFUSED, _E.DUE): (_S.REGISTERING, (_A.LOCATE,)),
    (_S.REFUSED, _E.STOP): (_S.ENDED, (_A.END,)),
    # RFC 3261 §10.2: no new REGISTER before the last one is answered. What is found only now was never asked.
    (_S.LEAVING, _E.FOUND): (_S.UNREGISTERING, (_A.REMOVE,)),
    (_S.LEAVING, _E.AGAIN): (_S.UNREGISTERING, (_A.REMOVE,)),
    (_S.LEAVING, _E.ACCEPTED): (_S.UNREGISTERING, (_A.BIND, _A.REMOVE)),
    (_S.LEAVING, _E.NEXT): (_S.ENDED, (_A.END,)),
    (_S.LEAVING, _E.UNAVAILABLE): (_S.ENDED, (_A.END,)),
    (_S.LEAVING, _E.REFUSED): (_S.ENDED, (_A.END,)),
    (_S.LEAVING, _E.EXPIRED): (_S.LEAVING, (_A.UNBIND,)),
    #
    (_S.UNREGISTERING, _E.AGAIN): (_S.UNREGISTERING, (_A.REMOVE,)),
    (_S.UNREGISTERING, _E.ACCEPTED): (_S.ENDED, (_A.END,)),
    (_S.UNREGISTERING, _E.NEXT): (_S.ENDED, (_A.END,)),
    (_S.UNREGISTERING, _E.UNAVAILABLE): (_S.ENDED, (_A.END,)),
    (_S.UNREGISTERING, _E.REFUSED): (_S.ENDED, (_A.END,)),
}
