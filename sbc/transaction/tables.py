"""The four transaction machines of RFC 3261 §17 with RFC 6026, as data.

A row is `(state, event): (next state, actions)`. A pair that is in no row must be in the machine's IGNORED set; a test
counts them. `timers` names for each state the timer that repeats a message and the one that bounds the state: entering
a state starts them, leaving it stops them, and a timer that both states name goes on.

Actions run in order, after the state and its timers are set. What calls the transaction user stands last, since the
user may act on the transaction at once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sbc.transaction.timers import Settings

# States
CALLING: Final = 0
CANCEL_PENDING: Final = 1  # Calling, and the user wants to cancel: §9.1 lets CANCEL leave only after a provisional
TRYING: Final = 2
PROCEEDING: Final = 3
CANCELLING: Final = 4  # Proceeding, and CANCEL was sent: 64*T1 for the final response (§9.1)
ACCEPTED: Final = 5  # RFC 6026
COMPLETED: Final = 6
CONFIRMED: Final = 7
TERMINATED: Final = 8
STATE_NAMES: Final = (
    *("Calling", "CancelPending", "Trying", "Proceeding", "Cancelling"),
    *("Accepted", "Completed", "Confirmed", "Terminated"),
)
STATES: Final = len(STATE_NAMES)

# Events. The first three are responses: received by a client, given by the user of a server.
PROVISIONAL: Final = 0  # 1xx
SUCCESS: Final = 1  # 2xx
FAILURE: Final = 2  # 3xx to 6xx
REQUEST: Final = 3  # the request came again
ACK: Final = 4
CANCEL: Final = 5  # the user gives up
TRANSPORT_ERROR: Final = 6
TIMER_A: Final = 7
TIMER_B: Final = 8
TIMER_C: Final = 9
TIMER_D: Final = 10
TIMER_E: Final = 11
TIMER_F: Final = 12
TIMER_G: Final = 13
TIMER_H: Final = 14
TIMER_I: Final = 15
TIMER_J: Final = 16
TIMER_K: Final = 17
TIMER_L: Final = 18
TIMER_M: Final = 19
TIMER_CANCEL: Final = 20  # 64*T1 after CANCEL (§9.1 names no letter for it)
EVENT_NAMES: Final = (
    *("1xx", "2xx", "3xx-6xx", "request", "ACK", "cancel", "transport error"),
    *(f"Timer {letter}" for letter in "ABCDEFGHIJKLM"),
    "Timer after CANCEL",
)
EVENTS: Final = len(EVENT_NAMES)

# Actions
SEND: Final = 0  # the response that the user gave, kept for retransmission
RETRANSMIT: Final = 1  # what was sent last, if anything
DOUBLE: Final = 2  # repeat after twice the interval
DOUBLE_TO_T2: Final = 3  # the same, at most T2
EVERY_T2: Final = 4
ABSORB: Final = 5  # a retransmission came in
SEND_ACK: Final = 6
SEND_CANCEL: Final = 7
RESTART_C: Final = 8
RELEASE: Final = 9  # what was sent will not be needed again
PASS_UP: Final = 10  # the response, to the user
TIMED_OUT: Final = 11
FAILED: Final = 12  # tell the user of a transport error
LAST_ACTIONS: Final = frozenset((PASS_UP, TIMED_OUT, FAILED))  # those that call the user

Table = dict[tuple[int, int], tuple[int, tuple[int, ...]]]
NONE: Final = -1  # no timer


class Machine(NamedTuple):
    """One transaction machine; `timers` is (repeating, bounding) by state."""

    name: str
    initial: int
    table: Table
    timers: dict[int, tuple[int, int]]
    ignored: frozenset[tuple[int, int]]


INVITE_CLIENT: Final = Machine(  # RFC 3261 figure 5, RFC 6026 §7.2, CANCEL of §9.1, Timer C of §16.6
    "INVITE client",
    CALLING,
    {
        (CALLING, PROVISIONAL): (PROCEEDING, (PASS_UP,)),
        (CALLING, SUCCESS): (ACCEPTED, (RELEASE, PASS_UP)),
        (CALLING, FAILURE): (COMPLETED, (SEND_ACK, PASS_UP)),
        (CALLING, TIMER_A): (CALLING, (RETRANSMIT, DOUBLE)),
        (CALLING, TIMER_B): (TERMINATED, (TIMED_OUT,)),
        (CALLING, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (CALLING, CANCEL): (CANCEL_PENDING, ()),
        (CANCEL_PENDING, PROVISIONAL): (CANCELLING, (SEND_CANCEL, PASS_UP)),
        (CANCEL_PENDING, SUCCESS): (ACCEPTED, (RELEASE, PASS_UP)),
        (CANCEL_PENDING, FAILURE): (COMPLETED, (SEND_ACK, PASS_UP)),
        (CANCEL_PENDING, TIMER_A): (CANCEL_PENDING, (RETRANSMIT, DOUBLE)),
        (CANCEL_PENDING, TIMER_B): (TERMINATED, (TIMED_OUT,)),
        (CANCEL_PENDING, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (PROCEEDING, PROVISIONAL): (PROCEEDING, (RESTART_C, PASS_UP)),
        (PROCEEDING, SUCCESS): (ACCEPTED, (RELEASE, PASS_UP)),
        (PROCEEDING, FAILURE): (COMPLETED, (SEND_ACK, PASS_UP)),
        # The user is to cancel; one that does not is told again rather than left with a call that never ends.
        (PROCEEDING, TIMER_C): (PROCEEDING, (RESTART_C, TIMED_OUT)),
        (PROCEEDING, CANCEL): (CANCELLING, (SEND_CANCEL,)),
        (PROCEEDING, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (CANCELLING, PROVISIONAL): (CANCELLING, (PASS_UP,)),
        (CANCELLING, SUCCESS): (ACCEPTED, (RELEASE, PASS_UP)),
        (CANCELLING, FAILURE): (COMPLETED, (SEND_ACK, PASS_UP)),
        (CANCELLING, TIMER_CANCEL): (TERMINATED, (TIMED_OUT,)),
        (CANCELLING, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (ACCEPTED, SUCCESS): (ACCEPTED, (PASS_UP,)),  # again, or of another fork: its dialog acknowledges it
        (ACCEPTED, TIMER_M): (TERMINATED, ()),
        (COMPLETED, FAILURE): (COMPLETED, (ABSORB, SEND_ACK)),
        (COMPLETED, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (COMPLETED, TIMER_D): (TERMINATED, ()),
    },
    {
        CALLING: (TIMER_A, TIMER_B),
        CANCEL_PENDING: (TIMER_A, TIMER_B),
        PROCEEDING: (NONE, TIMER_C),
        CANCELLING: (NONE, TIMER_CANCEL),
        ACCEPTED: (NONE, TIMER_M),
        COMPLETED: (NONE, TIMER_D),
        TERMINATED: (NONE, NONE),
    },
    frozenset(
        {
            (CANCEL_PENDING, CANCEL),
            (CANCELLING, CANCEL),
            (ACCEPTED, CANCEL),  # §9.1: never after a final response
            (COMPLETED, CANCEL),
            (ACCEPTED, PROVISIONAL),
            (ACCEPTED, FAILURE),
            (ACCEPTED, TRANSPORT_ERROR),
            (COMPLETED, PROVISIONAL),
            (COMPLETED, SUCCESS),
        }
    ),
)

NON_INVITE_CLIENT: Final = Machine(  # RFC 3261 figure 6
    "non-INVITE client",
    TRYING,
    {
        (TRYING, PROVISIONAL): (PROCEEDING, (PASS_UP,)),
        (TRYING, SUCCESS): (COMPLETED, (RELEASE, PASS_UP)),
        (TRYING, FAILURE): (COMPLETED, (RELEASE, PASS_UP)),
        (TRYING, TIMER_E): (TRYING, (RETRANSMIT, DOUBLE_TO_T2)),
        (TRYING, TIMER_F): (TERMINATED, (TIMED_OUT,)),
        (TRYING, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (PROCEEDING, PROVISIONAL): (PROCEEDING, (PASS_UP,)),
        (PROCEEDING, SUCCESS): (COMPLETED, (RELEASE, PASS_UP)),
        (PROCEEDING, FAILURE): (COMPLETED, (RELEASE, PASS_UP)),
        (PROCEEDING, TIMER_E): (PROCEEDING, (RETRANSMIT, EVERY_T2)),
        (PROCEEDING, TIMER_F): (TERMINATED, (TIMED_OUT,)),
        (PROCEEDING, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (COMPLETED, SUCCESS): (COMPLETED, (ABSORB,)),
        (COMPLETED, FAILURE): (COMPLETED, (ABSORB,)),
        (COMPLETED, TIMER_K): (TERMINATED, ()),
    },
    {
        TRYING: (TIMER_E, TIMER_F),
        PROCEEDING: (TIMER_E, TIMER_F),
        COMPLETED: (NONE, TIMER_K),
        TERMINATED: (NONE, NONE),
    },
    frozenset(
        {
            (TRYING, CANCEL),  # §9.1: only INVITE is cancelled
            (PROCEEDING, CANCEL),
            (COMPLETED, CANCEL),
            (COMPLETED, PROVISIONAL),
            (COMPLETED, TRANSPORT_ERROR),
        }
    ),
)

INVITE_SERVER: Final = Machine(  # RFC 3261 figure 7, RFC 6026 §7.1
    "INVITE server",
    PROCEEDING,
    {
        (PROCEEDING, REQUEST): (PROCEEDING, (ABSORB, RETRANSMIT)),
        (PROCEEDING, PROVISIONAL): (PROCEEDING, (SEND,)),
        (PROCEEDING, SUCCESS): (ACCEPTED, (SEND, RELEASE)),
        (PROCEEDING, FAILURE): (COMPLETED, (SEND,)),
        (PROCEEDING, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (ACCEPTED, REQUEST): (ACCEPTED, (ABSORB,)),
        (ACCEPTED, SUCCESS): (ACCEPTED, (SEND, RELEASE)),  # the dialog repeats its 2xx, §13.3.1.4
        (ACCEPTED, TIMER_L): (TERMINATED, ()),
        (COMPLETED, REQUEST): (COMPLETED, (ABSORB, RETRANSMIT)),
        (COMPLETED, ACK): (CONFIRMED, (RELEASE,)),
        (COMPLETED, TIMER_G): (COMPLETED, (RETRANSMIT, DOUBLE_TO_T2)),
        (COMPLETED, TIMER_H): (TERMINATED, (TIMED_OUT,)),
        (COMPLETED, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (CONFIRMED, ACK): (CONFIRMED, (ABSORB,)),
        (CONFIRMED, TIMER_I): (TERMINATED, ()),
    },
    {
        PROCEEDING: (NONE, NONE),
        ACCEPTED: (NONE, TIMER_L),
        COMPLETED: (TIMER_G, TIMER_H),
        CONFIRMED: (NONE, TIMER_I),
        TERMINATED: (NONE, NONE),
    },
    frozenset(
        {
            (PROCEEDING, ACK),
            (ACCEPTED, ACK),  # the layer hands it to the user before it comes here
            (ACCEPTED, PROVISIONAL),
            (ACCEPTED, FAILURE),
            (ACCEPTED, TRANSPORT_ERROR),  # the 2xx is the dialog's to repeat
            (COMPLETED, PROVISIONAL),
            (COMPLETED, SUCCESS),
            (COMPLETED, FAILURE),
            (CONFIRMED, REQUEST),
            (CONFIRMED, PROVISIONAL),
            (CONFIRMED, SUCCESS),
            (CONFIRMED, FAILURE),
            (CONFIRMED, TRANSPORT_ERROR),
        }
    ),
)

NON_INVITE_SERVER: Final = Machine(  # RFC 3261 figure 8
    "non-INVITE server",
    TRYING,
    {
        (TRYING, REQUEST): (TRYING, (ABSORB,)),
        (TRYING, PROVISIONAL): (PROCEEDING, (SEND,)),
        (TRYING, SUCCESS): (COMPLETED, (SEND,)),
        (TRYING, FAILURE): (COMPLETED, (SEND,)),
        (TRYING, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (PROCEEDING, REQUEST): (PROCEEDING, (ABSORB, RETRANSMIT)),
        (PROCEEDING, PROVISIONAL): (PROCEEDING, (SEND,)),
        (PROCEEDING, SUCCESS): (COMPLETED, (SEND,)),
        (PROCEEDING, FAILURE): (COMPLETED, (SEND,)),
        (PROCEEDING, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
        (COMPLETED, REQUEST): (COMPLETED, (ABSORB, RETRANSMIT)),
        (COMPLETED, TIMER_J): (TERMINATED, ()),
        (COMPLETED, TRANSPORT_ERROR): (TERMINATED, (FAILED,)),
    },
    {
        TRYING: (NONE, NONE),
        PROCEEDING: (NONE, NONE),
        COMPLETED: (NONE, TIMER_J),
        TERMINATED: (NONE, NONE),
    },
    frozenset({(COMPLETED, PROVISIONAL), (COMPLETED, SUCCESS), (COMPLETED, FAILURE)}),
)

NEVER: Final = -1.0


def durations(settings: Settings, *, reliable: bool) -> tuple[float, ...]:
    """Seconds of each timer by event (RFC 3261 table 4, RFC 6026 §7); NEVER where it is not started.

    On a reliable transport nothing is repeated, and the states that only absorb repetitions end at once.
    """
    t1, long = settings.t1_s, 64 * settings.t1_s
    by_event = dict.fromkeys(range(EVENTS), NEVER)
    by_event |= {TIMER_B: long, TIMER_C: settings.timer_c_s, TIMER_F: long, TIMER_H: long}
    by_event |= {TIMER_L: long, TIMER_M: long, TIMER_CANCEL: long}
    if reliable:
        by_event |= {TIMER_D: 0.0, TIMER_I: 0.0, TIMER_J: 0.0, TIMER_K: 0.0}
    else:
        by_event |= {TIMER_A: t1, TIMER_E: t1, TIMER_G: t1}
        # Timer D is "at least 32 s" and is to outlast the peer's Timer H, which runs on the peer's T1
        by_event |= {TIMER_D: max(32.0, long), TIMER_I: settings.t4_s, TIMER_J: long, TIMER_K: settings.t4_s}
    return tuple(by_event[event] for event in range(EVENTS))
