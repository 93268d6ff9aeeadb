"""The call: an A leg, its branches on the B side, media, and what its routes have said about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sbc.b2bua.scope import Scope
from sbc.b2bua.tables import CallState
from sbc.sip.flow import Flow

if TYPE_CHECKING:
    from media.protocol import StreamStats
    from sbc.b2bua.announce import Announcement
    from sbc.b2bua.changes import Changes
    from sbc.b2bua.effects import RouteKind, RunRoute
    from sbc.b2bua.leg import Leg
    from sbc.b2bua.reanchor import Reanchor
    from sbc.b2bua.transfer import Transfer
    from sbc.dialog.dialog import Dialog
    from sbc.sip.message import Message
    from sbc.transaction.timers import Timer

# Failures of one target that another target may well not share (RFC 3261 §21: 408, 5xx that are not about the request).
# 486, 600 and 603 are answers of the called user: nobody is asked again.
FAIL_OVER_STATUSES = frozenset({408, 480, 500, 502, 503, 504})


Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a branch goes.

    ``uri`` is the Request-URI, SIP with a user part as it is to be sent; its host must be an IP literal unless ``flow``
    says where to send it. ``realm`` chooses the listener (the realm's first) unless ``flow`` does. ``peer`` is the
    configured peer behind the target ('' for none), ``gateway`` its name in CDRs. ``timeout_s``: the branch fails with
    408 when it has no final answer after so long; 0 leaves that to Timer C.
    """

    uri: str
    realm: str
    flow: Flow | None = None
    peer: str = ""
    timeout_s: float = 0.0
    gateway: str = ""
    q: float = 1.0
    servers: tuple[Flow, ...] = ()

    @property
    def path(self) -> Flow | None:
        """Where it is sent; None where that follows from its URI."""
        return self.servers[0] if self.servers else self.flow


Group = Target | tuple[Target, ...]
Groups = tuple[Group, ...]
# Whose Contacts are tried where a target redirects: nobody's, those of the peer that redirects, or those of any peer in
# its realm.
Redirects = Literal["never", "peer", "realm"]


@dataclass(slots=True, init=False)  # see effects
class Attempt:
    """What became of one branch: ``status`` 0 while open, ``pdd_ms`` the time to the first reply above 100, or -1.

    Branches that were tried at once have the same ``group``. ``followed``: it was a redirect, and its Contacts were
    tried instead. ``flags`` and ``variables`` are the author's, kept as long as the call has no final answer.
    """

    gateway: str
    uri: str
    leg: str
    status: int
    pdd_ms: int
    started: float
    group: int
    followed: bool
    scope: Scope | None = field(repr=False, compare=False)
    fail_over: frozenset[int] = field(repr=False)

    def __init__(
        self,
        gateway: str,
        uri: str,
        leg: str,
        status: int = 0,
        pdd_ms: int = -1,
        *,
        started: float = 0.0,
        group: int = 1,
        followed: bool = False,
    ) -> None:
        self.gateway = gateway
        self.uri = uri
        self.leg = leg
        self.status = status
        self.pdd_ms = pdd_ms
        self.started = started
        self.group = group
        self.followed = followed
        self.scope = None
        self.fail_over = FAIL_OVER_STATUSES

    @property
    def flags(self) -> set[str]:
        """Names that routes have set for this branch."""
        if self.scope is None:
            self.scope = Scope()
        return self.scope.flags

    @property
    def variables(self) -> dict[str, Any]:  # Any: of the author's choice
        """What routes keep for this branch."""
        if self.scope is None:
            self.scope = Scope()
        return self.scope.variables

    @property
    def may_fail_over(self) -> bool:
        """Whether another target may be tried for this failure."""
        return self.status in self.fail_over


class Outcome(NamedTuple):
    """How a call ends: the final status for A, who ended it (``a``, ``b`` or ``sbc``), its Q.850 cause (0: by status).

    ``reason`` is a phrase for the status line, ``note`` a sentence for the CDR, ``at`` when it was over, 0 for now.
    """

    status: int
    by: str
    cause: int = 0
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    note: str = ""
    at: float = 0.0


class Call:
    """One call. Routes read it, and set ``media_profile``, ``media_set``, ``variables``, ``flags`` and ``lifetime_s``.

    ``media_profile`` None: SDP passes octet for octet, media flows directly. ``key`` names the call in the journal, in
    the CDR and as media session. ``variables`` hold JSON values and survive a resume, as do ``flags``.
    """

    __slots__ = (
        "a",
        "admitted_peers",
        "announcing",
        "answer_wall",
        "answered_at",
        "attempts",
        "b",
        "best_reply",
        "body",
        "branches",
        "cancel_reason",
        "cause",
        "changes",
        "decided",
        "ended_at",
        "flags",
        "follow_redirects",
        "from_uri",
        "further",
        "group",
        "has_media",
        "heard",
        "hung_up_by",
        "joining",
        "key",
        "lifetime_s",
        "lifetime_timer",
        "lodged",
        "media_lacking",
        "media_node",
        "media_pending",
        "media_profile",
        "media_set",
        "media_stats",
        "moving",
        "next_target",
        "offer_from",
        "on_branch",
        "on_failure",
        "on_reply",
        "one_way",
        "pending_route",
        "recording",
        "redirects",
        "request",
        "resumed",
        "route_kinds",
        "routes",
        "ruri",
        "saved",
        "shard",
        "start_wall",
        "started_at",
        "state",
        "status",
        "status_text",
        "switching",
        "targets",
        "to_uri",
        "transaction",
        "transferred_from",
        "transferred_to",
        "unsettled",
        "variables",
        "version",
    )

    def __init__(self, key: str, shard: int, a: Leg, now: float, wall: float) -> None:
        self.key = key
        self.shard = shard
        self.a = a
        self.branches: list[Leg] = []  # in order of their making: b1, b2 ...
        # The branch that answered. Before that: the one that A hears, else the last that was made or rang.
        self.b: Leg | None = None
        self.heard: Dialog | None = None  # the early dialog of a branch whose description A has
        self.state = CallState.SETUP
        self.request: Message | None = None  # the initial INVITE; None in a resumed call
        self.body = b""  # the offer that the INVITE carried
        self.from_uri = ""
        self.to_uri = ""
        self.ruri = ""
        # what routes decide
        self.changes: Changes | None = None  # of the request; None: it is as it came
        self.media_profile: str | None = None
        self.media_set = ""
        self.variables: dict[str, Any] = {}  # Any: JSON values of the route author
        self.flags: set[str] = set()
        self.transaction: Scope | None = None  # what routes keep until the INVITE has its final answer
        self.lifetime_s = 0.0  # 0: the node's
        self.targets: Groups = ()  # those of one group are tried at once
        self.next_target = 0
        self.group = 0  # how many groups were tried
        self.follow_redirects: Redirects | None = None  # None: as the peer is configured
        # Groups to be tried before the next target: Contacts of redirects, and what was too many at once.
        self.further: list[Group] = []
        self.redirects = 0  # how many Contacts of redirects were taken
        # Any: opaque route functions, carried from dial() into RunRoute effects
        self.on_branch: Any = None
        self.on_reply: Any = None
        self.on_failure: Any = None
        self.decided = False
        self.pending_route: RunRoute | None = None
        # A call ends with the routes that it began with, whatever is reloaded meanwhile.
        self.route_kinds: frozenset[RouteKind] = frozenset()  # those that are asked for where it armed none
        self.routes: Any = None  # Any: opaque to the core; None: those that serve now
        # media
        self.media_lacking = False  # no media worker could take it: another node may, or we may later
        self.media_node = ""
        self.media_pending = 0  # requests to the media plane under way
        self.has_media = False  # a session was opened, so it must be deleted
        self.recording = ""  # the file that it is recorded to, as the media worker calls it
        self.announcing: Announcement | None = None  # what A hears before anybody has answered
        self.media_stats: dict[str, list[StreamStats]] = {}  # of sessions that it had before
        self.switching: Reanchor | None = None  # its media are about to leave the relay, or to come back
        self.unsettled = False  # that was under way in a worker that is dead
        self.offer_from: Leg | None = None  # who made the offer that nobody has answered yet (RFC 3264 §4)
        # life
        self.started_at = now
        self.start_wall = wall
        self.answered_at = 0.0
        self.answer_wall = 0.0
        self.ended_at = 0.0
        self.lifetime_timer: Timer | None = None
        self.admitted_peers: tuple[str, ...] = ()
        self.moving: Transfer | None = None  # a leg of this call is to leave it
        self.joining: Transfer | None = None  # a leg of another call is to join it
        self.transferred_from = ""  # the key of the call that a leg came from
        self.transferred_to = ""  # the key of the call that a leg went on in
        self.one_way = ""  # the sides (a, b) that once sent nothing while the other one did
        self.resumed = False
        # outcome
        self.attempts: list[Attempt] = []
        self.best_reply: tuple[int, Headers] = (0, [])  # status and headers of the best failure so far
        self.status = 0
        self.status_text = ""
        self.hung_up_by = ""
        self.cause = 0
        self.cancel_reason: tuple[tuple[str, str], ...] = ()  # what A's CANCEL gives as its reason
        # journal
        self.version = 0
        self.saved = False
        self.lodged = False  # another worker gave it to us

    @property
    def direction(self) -> str:
        """The direction of the A side's peer, as configured."""
        return self.a.direction

    @property
    def has_next(self) -> bool:
        """Whether a target of the last ``dial`` is left. None is after a 6xx (RFC 3261 §16.7 step 5)."""
        return self.next_target < len(self.targets)

    @property
    def best_status(self) -> int:
        """The status of the best final answer so far (RFC 3261 §16.7 step 6): a 6xx, else the lowest class; 0: none.

        Within a class the target that was dialled first wins. Those that A can be told nothing of come last in it: 408
        and 503, which mean no answer, challenges of ours, and redirects, which count as 480; one that was followed
        does not count.
        """
        finals = [attempt.status for attempt in self.attempts if attempt.status >= 300 and not attempt.followed]
        return min(finals, key=_preference) if finals else 0

    @property
    def may_fail_over(self) -> bool:
        """Whether another target may be tried after what the last group said."""
        return all(one.may_fail_over or one.followed for one in self.attempts if one.group == self.group)

    def forget_scopes(self) -> None:
        """The INVITE has its final answer: what routes kept for it and its branches is gone."""
        self.transaction = None
        for attempt in self.attempts:
            attempt.scope = None

    def legs(self) -> Iterator[Leg]:
        """The A leg, then every branch that was made."""
        yield self.a
        yield from self.branches

    def other(self, leg: Leg) -> Leg | None:
        """The leg at the other end of the call from ``leg``."""
        return self.b if leg is self.a else self.a

    def describe(self) -> dict[str, Any]:  # Any: JSON values
        """What ``sbc calls`` shows of a call."""
        b = self.b
        return {
            "key": self.key,
            "state": self.state.name.lower(),
            "since": self.start_wall,
            "answered": self.answer_wall,
            "from": self.from_uri,
            "to": self.to_uri,
            "a_peer": self.a.peer,
            "b_peer": b.peer if b else "",
            "a_realm": self.a.realm,
            "b_realm": b.realm if b else "",
            "direction": self.direction,
            "a_call_id": self.a.dialog.call_id,
            "b_call_id": b.dialog.call_id if b else "",
            "media_node": self.media_node,
            "recording": self.recording,
            "one_way": self.one_way,
            "a_nat": self.a.nat,
            "b_nat": b.nat if b else "",
            "media": "" if b is None else "relayed" if self.media_profile is not None else "direct",
            "resumed": self.resumed,
        }


_HOLLOW = frozenset({401, 407, 408, 503})


def _preference(status: int) -> tuple[int, bool]:
    """Sort key of RFC 3261 §16.7 step 6."""
    if status >= 600:
        return (0, False)
    return (max(status // 100, 4), status < 400 or status in _HOLLOW)
