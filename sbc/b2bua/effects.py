"""What the core asks its shell to do. The core only ever appends to a queue; the shell drains it after each input.

Those of which a call has several say how they are made: what a dataclass writes by itself is interpreted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from media import protocol
from sbc.b2bua.call import Target
from sbc.b2bua.trunk import Trunk
from sbc.sip.flow import Flow


class RouteKind(Enum):
    """Which of the route types a RunRoute effect asks for (timer and startup routes, and other events, run without the
    core)."""

    REQUEST = "route"
    BRANCH = "branch_route"
    FAILURE = "failure_route"
    REPLY = "onreply_route"
    ERROR = "error_route"
    LOCAL = "local_route"
    # event routes of which the core knows; nothing happens for them where the operator has none
    ANSWERED = "event_route call.answered"
    ENDED = "event_route call.ended"
    OUTLIVED = "event_route call.lifetime"
    REGISTERED = "event_route phone.registered"

    __hash__ = object.__hash__  # that of Enum is interpreted, and every message asks whether a route is there


@dataclass(slots=True, init=False)
class Transmit:
    """Send these octets along this flow."""

    flow: Flow
    data: bytes

    def __init__(self, flow: Flow, data: bytes) -> None:
        self.flow = flow
        self.data = data


@dataclass(slots=True, init=False)
class RunRoute:
    """Run a route on ``subject``; when it has ended, the shell calls ``core.route_done(effect, error, now)``.

    ``subject`` by kind: REQUEST a Call (or an OutOfDialogRequest), BRANCH a Branch, FAILURE a Call, REPLY a ReplyEvent,
    ERROR a BadMessage, LOCAL a LocalRequest, ANSWERED a Call, ENDED an Ended, OUTLIVED an Outlived, REGISTERED a
    Registered: all in :mod:`sbc.b2bua.subjects`.
    ``hook`` is the author's function armed on the call (``on_branch`` ...), or None for the module's registered one.
    """

    kind: RouteKind
    subject: Any  # Any: one of these classes, told apart by kind
    hook: Any  # Any: an opaque reference that the core only carries from dial() to here

    def __init__(self, kind: RouteKind, subject: Any, hook: Any = None) -> None:
        self.kind = kind
        self.subject = subject
        self.hook = hook


@dataclass(slots=True, init=False)
class MediaCommand:
    """Send a request to a media worker; answer with ``core.media_done(request_id, reply, now)``, always, in time.

    ``node`` is the worker to which the session is pinned, empty to let the pool choose (within ``media_set``).
    """

    request_id: int
    request: protocol.Request
    node: str
    media_set: str

    def __init__(self, request_id: int, request: protocol.Request, node: str = "", media_set: str = "") -> None:
        self.request_id = request_id
        self.request = request
        self.node = node
        self.media_set = media_set


@dataclass(slots=True, init=False)
class SaveCall:
    """Write the record of a call, or of a subscription, to the journal. With ``wait`` the shell calls
    ``core.saved(key, version, ok, now)`` once it is stored, refused, or ``commit_timeout`` has passed, whichever is
    first. ``lodged``: another worker of this node, which may have started after us, gave us the call."""

    key: str
    shard: int
    version: int
    record: bytes
    wait: bool
    lodged: bool

    def __init__(
        self, key: str, shard: int, version: int, record: bytes, wait: bool = False, lodged: bool = False
    ) -> None:
        self.key = key
        self.shard = shard
        self.version = version
        self.record = record
        self.wait = wait
        self.lodged = lodged


@dataclass(slots=True, init=False)
class FinishCall:
    """The call is over: write its CDR to the outbox and remove its record, both or neither."""

    key: str
    shard: int
    cdr: dict[str, Any]  # Any: JSON values, fields named in sbc/b2bua/cdr.py
    saved: bool  # False: no record was ever written, only the CDR is to go out
    lodged: bool  # as in SaveCall

    def __init__(  # Any: as above
        self, key: str, shard: int, cdr: dict[str, Any], saved: bool, lodged: bool = False
    ) -> None:
        self.key = key
        self.shard = shard
        self.cdr = cdr
        self.saved = saved
        self.lodged = lodged


@dataclass(slots=True)
class DropRecord:
    """A subscription is over: remove its record; there is no CDR."""

    key: str
    shard: int


@dataclass(slots=True)
class ServerFailed:
    """The server at ``flow``, one of those that a host name stands for, did not serve us: let others go first."""

    flow: Flow


@dataclass(slots=True)
class Forward:
    """Give these octets, which came along this flow, to the worker that owns ``shard``, as if it had received them."""

    shard: int
    flow: Flow
    data: bytes


@dataclass(slots=True)
class AskWorker:
    """Give this to the core of the worker that owns ``shard``: ``core.lodging.told(data, now, wall)``."""

    shard: int
    data: bytes


@dataclass(slots=True)
class Note:
    """A line for the log, bound to a call."""

    level: str
    event: str
    call_key: str = ""
    fields: dict[str, Any] = field(default_factory=dict)  # Any: JSON values


@dataclass(slots=True)
class LocateRegistrar:
    """Look up the servers of a peer's registrar; when they are known, or are not, the shell calls
    ``registrations.located(peer, flows, now)``."""

    peer: str
    target: Target


@dataclass(slots=True)
class BindingChanged:
    """The phone with this Contact at the end of this flow is lost for so many seconds, or, with 0, is there again: tell
    every worker (:mod:`sbc.services.keep_alive`)."""

    uri: str
    flow: Flow
    lost_s: float


@dataclass(slots=True)
class TrunkChanged:
    """What calls must know of a registered peer is another now, in every worker."""

    peer: str
    trunk: Trunk


Effect = (
    Transmit
    | RunRoute
    | MediaCommand
    | SaveCall
    | FinishCall
    | DropRecord
    | ServerFailed
    | Note
    | Forward
    | AskWorker
    | LocateRegistrar
    | TrunkChanged
    | BindingChanged
)
