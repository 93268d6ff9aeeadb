"""The two state machines of a call as data: the call itself, and each of its B legs.

A row is ``(state, event): (next state, actions)``. Actions are names of functions that ``core`` binds (see the maps at
the end of :mod:`sbc.b2bua.end` and :mod:`sbc.b2bua.accept`). An event without a row in a state changes nothing: it is
late or repeated, which is what crossing messages are.
"""

from __future__ import annotations

from enum import IntEnum, auto


class CallState(IntEnum):
    """Where a call is. ENDING waits for the statistics of its media; ENDED is forgotten."""

    SETUP = auto()  # the route runs, no branch yet
    RINGING = auto()  # branches are out
    ANSWERING = auto()  # B said 200; media and journal are on their way
    ANSWERED = auto()  # our 200 is out, A's ACK is awaited
    UP = auto()
    ENDING = auto()
    ENDED = auto()


class CallEvent(IntEnum):
    """What happens to a call as a whole."""

    DIAL = auto()
    B_ANSWERED = auto()
    COMMITTED = auto()  # journal and media are ready for the 200
    ACKED = auto()
    REFUSE = auto()  # by a route, by media, or because every branch failed
    CANCEL = auto()
    A_BYE = auto()
    B_BYE = auto()
    JOINED = auto()  # by a leg of another call, which takes A's seat (sbc.b2bua.transfer)
    RELEASE = auto()  # by us: lifetime, management, no ACK, no media
    FINISHED = auto()  # statistics are in, or given up


class CallAction(IntEnum):
    """What a row of CALL does, in order."""

    ACCEPT_A = auto()  # 200 to A, repeated until its ACK (RFC 3261 §13.3.1.4)
    REFUSE_A = auto()  # the failure that the event carries, to A's INVITE
    END_A = auto()  # BYE as soon as RFC 3261 §15 allows it
    END_B = auto()  # every B leg: CANCEL, ACK and BYE, or BYE, by B_LEG
    CLOSE = auto()  # delete media, then the CDR
    FINISH = auto()  # CDR out, record gone


S, E, A = CallState, CallEvent, CallAction

CALL: dict[tuple[CallState, CallEvent], tuple[CallState, tuple[CallAction, ...]]] = {
    (S.SETUP, E.DIAL): (S.RINGING, ()),
    (S.SETUP, E.REFUSE): (S.ENDING, (A.REFUSE_A, A.CLOSE)),
    (S.SETUP, E.CANCEL): (S.ENDING, (A.REFUSE_A, A.CLOSE)),
    (S.SETUP, E.RELEASE): (S.ENDING, (A.REFUSE_A, A.CLOSE)),
    (S.SETUP, E.A_BYE): (S.ENDING, (A.REFUSE_A, A.CLOSE)),
    (S.RINGING, E.DIAL): (S.RINGING, ()),
    (S.RINGING, E.B_ANSWERED): (S.ANSWERING, ()),
    (S.RINGING, E.REFUSE): (S.ENDING, (A.REFUSE_A, A.END_B, A.CLOSE)),
    (S.RINGING, E.CANCEL): (S.ENDING, (A.REFUSE_A, A.END_B, A.CLOSE)),
    (S.RINGING, E.RELEASE): (S.ENDING, (A.REFUSE_A, A.END_B, A.CLOSE)),
    (S.RINGING, E.A_BYE): (S.ENDING, (A.REFUSE_A, A.END_B, A.CLOSE)),  # §15: a caller may end an early dialog by BYE
    (S.ANSWERING, E.COMMITTED): (S.ANSWERED, (A.ACCEPT_A,)),
    (S.ANSWERING, E.JOINED): (S.UP, ()),
    # The CANCEL found no final answer of ours: A gets its 487, and B, which has answered, ACK and BYE by B_LEG.
    (S.ANSWERING, E.CANCEL): (S.ENDING, (A.REFUSE_A, A.END_B, A.CLOSE)),
    (S.ANSWERING, E.REFUSE): (S.ENDING, (A.REFUSE_A, A.END_B, A.CLOSE)),
    (S.ANSWERING, E.RELEASE): (S.ENDING, (A.REFUSE_A, A.END_B, A.CLOSE)),
    (S.ANSWERING, E.A_BYE): (S.ENDING, (A.REFUSE_A, A.END_B, A.CLOSE)),
    (S.ANSWERING, E.B_BYE): (S.ENDING, (A.REFUSE_A, A.END_B, A.CLOSE)),
    (S.ANSWERED, E.ACKED): (S.UP, ()),
    (S.ANSWERED, E.A_BYE): (S.ENDING, (A.END_B, A.CLOSE)),
    (S.ANSWERED, E.B_BYE): (S.ENDING, (A.END_A, A.END_B, A.CLOSE)),
    (S.ANSWERED, E.RELEASE): (S.ENDING, (A.END_A, A.END_B, A.CLOSE)),
    (S.UP, E.A_BYE): (S.ENDING, (A.END_B, A.CLOSE)),
    (S.UP, E.B_BYE): (S.ENDING, (A.END_A, A.CLOSE)),
    (S.UP, E.RELEASE): (S.ENDING, (A.END_A, A.END_B, A.CLOSE)),
    (S.ENDING, E.FINISHED): (S.ENDED, (A.FINISH,)),
}


class LegState(IntEnum):
    """Where a B leg is, as the UAC of its INVITE."""

    IDLE = auto()  # made, not sent
    CALLING = auto()
    EARLY = auto()
    ANSWERED = auto()  # 200 came; its ACK waits for A's
    CONFIRMED = auto()
    CANCELLED = auto()  # we gave it up; a final answer is awaited
    ENDED = auto()


class LegEvent(IntEnum):
    """What happens to a B leg."""

    SEND = auto()
    PROVISIONAL = auto()
    SUCCESS = auto()  # a 2xx, new or repeated
    FAILURE = auto()  # a final answer of 300 and above, or a transaction that died without one
    TIMEOUT = auto()  # it rings for too long: the transaction lives and wants CANCEL
    ACK = auto()  # the answer is complete: let B know
    END = auto()  # we end this leg
    BYE = auto()  # B ended it


class LegAction(IntEnum):
    """What a row of B_LEG does, in order."""

    SEND_INVITE = auto()
    RELAY = auto()  # a provisional towards A
    ANSWER = auto()  # begin to answer A
    FAIL = auto()  # note the failure; the route's turn
    CANCEL = auto()
    ACK = auto()
    ACK_AGAIN = auto()  # the same ACK (§13.2.2.4: for each 2xx that arrives)
    BYE = auto()
    FORGET = auto()  # no dialog came of it


LS, LE, LA = LegState, LegEvent, LegAction

OPEN = (LS.IDLE, LS.CALLING, LS.EARLY)  # it may still answer


B_LEG: dict[tuple[LegState, LegEvent], tuple[LegState, tuple[LegAction, ...]]] = {
    (LS.IDLE, LE.SEND): (LS.CALLING, (LA.SEND_INVITE,)),
    (LS.IDLE, LE.FAILURE): (LS.ENDED, (LA.FAIL, LA.FORGET)),  # refused by media, or dropped by the branch route
    (LS.IDLE, LE.END): (LS.ENDED, (LA.FORGET,)),
    (LS.CALLING, LE.PROVISIONAL): (LS.EARLY, (LA.RELAY,)),
    (LS.CALLING, LE.SUCCESS): (LS.ANSWERED, (LA.ANSWER,)),
    (LS.CALLING, LE.FAILURE): (LS.ENDED, (LA.FAIL, LA.FORGET)),
    (LS.CALLING, LE.TIMEOUT): (LS.CANCELLED, (LA.CANCEL, LA.FAIL)),
    (LS.CALLING, LE.END): (LS.CANCELLED, (LA.CANCEL,)),  # the layer holds it until a provisional came (§9.1)
    (LS.EARLY, LE.PROVISIONAL): (LS.EARLY, (LA.RELAY,)),
    (LS.EARLY, LE.SUCCESS): (LS.ANSWERED, (LA.ANSWER,)),
    (LS.EARLY, LE.FAILURE): (LS.ENDED, (LA.FAIL, LA.FORGET)),
    (LS.EARLY, LE.TIMEOUT): (LS.CANCELLED, (LA.CANCEL, LA.FAIL)),
    (LS.EARLY, LE.END): (LS.CANCELLED, (LA.CANCEL,)),
    (LS.EARLY, LE.BYE): (LS.CANCELLED, (LA.CANCEL, LA.FAIL)),  # §15: not allowed of a callee; believe it all the same
    (LS.CANCELLED, LE.SUCCESS): (LS.ENDED, (LA.ACK, LA.BYE)),  # the 200 crossed our CANCEL
    (LS.CANCELLED, LE.FAILURE): (LS.ENDED, (LA.FORGET,)),
    (LS.ANSWERED, LE.SUCCESS): (LS.ANSWERED, ()),  # repeated: A's ACK is still to come
    (LS.ANSWERED, LE.ACK): (LS.CONFIRMED, (LA.ACK,)),
    (LS.ANSWERED, LE.END): (LS.ENDED, (LA.ACK, LA.BYE)),
    (LS.ANSWERED, LE.BYE): (LS.ENDED, (LA.ACK, LA.FORGET)),
    (LS.CONFIRMED, LE.SUCCESS): (LS.CONFIRMED, (LA.ACK_AGAIN,)),
    (LS.CONFIRMED, LE.END): (LS.ENDED, (LA.BYE,)),
    (LS.CONFIRMED, LE.BYE): (LS.ENDED, (LA.FORGET,)),
    (LS.ENDED, LE.SUCCESS): (LS.ENDED, (LA.ACK_AGAIN,)),
}
