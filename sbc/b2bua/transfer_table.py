"""A transfer's states, events and actions as data; :mod:`sbc.b2bua.transfer` says what they do."""

from __future__ import annotations

from enum import IntEnum, auto


class State(IntEnum):
    """Where a transfer is."""

    ASKED = auto()  # nobody has decided yet
    CALLING = auto()  # the target rings, or is asked for an offer
    JOINING = auto()  # the target has offered: the moved leg is to answer
    OVER = auto()


class Event(IntEnum):
    """What happens to it."""

    ACCEPT = auto()  # a route has dialled, or the other dialog was found
    PROGRESS = auto()  # a provisional answer of the target
    OFFER = auto()  # the target's
    GLARE = auto()  # 491, or a change under way: again later
    RETRY = auto()
    ANSWER = auto()  # the moved leg has accepted, and the media plane too
    FAIL = auto()  # with a status
    LEAVE = auto()  # the transferor hangs up


class Action(IntEnum):
    """What is done about it."""

    ADMIT = auto()  # 202 to the REFER, and the first NOTIFY
    ASK = auto()  # the target of an established call for an offer
    TELL = auto()  # the transferor how it goes
    INVITE = auto()  # the moved leg, with the target's offer
    BACK_OFF = auto()
    MOVE = auto()  # the leg into its new call
    SUCCEED = auto()  # tell, and end what is left behind
    REPORT = auto()  # the failure: to the REFER, or by NOTIFY
    UNDO = auto()  # give the target up; whoever has lost his partner meanwhile is released
    PART = auto()  # the transferor's leg is over, its call is not


S, E, A = State, Event, Action

TRANSFER: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    (S.ASKED, E.ACCEPT): (S.CALLING, (A.ADMIT, A.ASK)),
    (S.ASKED, E.FAIL): (S.OVER, (A.REPORT, A.UNDO)),
    (S.ASKED, E.LEAVE): (S.ASKED, (A.PART,)),
    (S.CALLING, E.PROGRESS): (S.CALLING, (A.TELL,)),
    (S.CALLING, E.GLARE): (S.CALLING, (A.BACK_OFF,)),
    (S.CALLING, E.RETRY): (S.CALLING, (A.ASK,)),
    (S.CALLING, E.OFFER): (S.JOINING, (A.INVITE,)),
    (S.CALLING, E.FAIL): (S.OVER, (A.REPORT, A.UNDO)),
    (S.CALLING, E.LEAVE): (S.CALLING, (A.PART,)),
    (S.JOINING, E.GLARE): (S.JOINING, (A.BACK_OFF,)),
    (S.JOINING, E.RETRY): (S.JOINING, (A.INVITE,)),
    (S.JOINING, E.ANSWER): (S.OVER, (A.MOVE, A.SUCCEED)),
    (S.JOINING, E.FAIL): (S.OVER, (A.REPORT, A.UNDO)),
    (S.JOINING, E.LEAVE): (S.JOINING, (A.PART,)),
}
