"""What happened in a dry run, step by step, each with its place in the routes where there is one.

:class:`Deciding` stands between routes and core: it passes every decision on and notes which line took it.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import sbc
from sbc.b2bua import subjects
from sbc.b2bua.core import Core
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.subjects import Redirects, Target
from sbc.clock import VirtualClock
from sbc.errors import ConfigError, SbcError
from sbc.routing.routes import RouteOverran
from sbc.sip.flow import Flow
from sbc.sip.status import REASONS
from sbc.telemetry.log import Logger

if TYPE_CHECKING:
    from sbc.b2bua.forward import Edit, Requests

_PACKAGE = os.path.dirname(os.path.abspath(sbc.__file__)) + os.sep
BUILTIN = os.path.join(_PACKAGE, "routing", "builtin.py")
_TOLD_OTHERWISE = frozenset(
    {"route raised", "route took too long", "route blocked and was ended"}
)  # in the log as well


@dataclass(slots=True)
class Step:
    """``kind``: ``source``, ``route``, ``decision``, ``nat``, ``message``, ``rule``, ``rejected``, ``log`` or ``end``.
    ``where`` is ``file:line``, '' where no line of routes or configuration did it."""

    at_s: float
    kind: str
    text: str
    where: str = ""


@dataclass(slots=True)
class Seen:
    """A message that crossed the edge of the node. ``sender`` and ``receiver`` are peers, '' for this node."""

    at_s: float
    sender: str
    receiver: str
    data: bytes


@dataclass(slots=True)
class Trace:
    """Everything since :meth:`begin`."""

    clock: VirtualClock
    steps: list[Step] = field(default_factory=list)
    messages: list[Seen] = field(default_factory=list)
    began: float = 0.0

    def begin(self) -> None:
        """Forget what was; a run begins now."""
        self.steps, self.messages, self.began = [], [], self.clock.now

    @property
    def at_s(self) -> float:
        """Seconds since the run began."""
        return self.clock.now - self.began

    def add(self, kind: str, text: str, where: str = "") -> None:
        """Note a step of now."""
        self.steps.append(Step(self.clock.now - self.began, kind, text, where))

    def sentences(self) -> list[str]:
        """One line for each step."""
        return [sentence(step) for step in self.steps]


def sentence(step: Step) -> str:
    """``time  what (where)``."""
    where = f" ({step.where})" if step.where else ""
    return f"{step.at_s:9.3f}  {step.text}{where}"


def is_ours(file: str) -> bool:
    """Whether a source file is of the SBC itself; the built-in routes are routes like any."""
    return (file.startswith(_PACKAGE) and file != BUILTIN) or file.startswith("<")


def here() -> str:
    """``file:line`` of the route code that is being run, '' when there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_ours(frame.f_code.co_filename):
            return f"{_short(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def place_of(error: BaseException) -> str:
    """``file:line`` in the routes where an error came from, '' when it never was there."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not is_ours(file):
            found = f"{_short(file)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def definition(route: object) -> str:
    """``file:line`` of a function's ``def``, '' for one that is compiled."""
    code = getattr(route, "__code__", None)
    if not isinstance(code, CodeType):
        return ""
    line = code.co_firstlineno
    while linecache.getline(code.co_filename, line).lstrip().startswith("@"):
        line += 1
    return f"{_short(code.co_filename)}:{line}"


def _short(file: str) -> str:
    """The file seen from here, where that is shorter."""
    near = os.getcwd() + os.sep
    return file.removeprefix(near)


def name_of(route: object) -> str:
    """What its author calls a route."""
    return getattr(route, "__name__", type(route).__name__)


class TraceLogger(Logger):
    """The log of routes, into the trace that stands in the place of its sink."""

    def _emit(self, level: str, event: str, fields: dict[str, Any]) -> None:  # Any: log fields are free
        if event in _TOLD_OTHERWISE:
            return
        trace = self._logger
        assert isinstance(trace, Trace)
        rest = "".join(f" {k}={v}" for k, v in fields.items() if k not in ("traceback", "call", "request"))
        trace.add("log", f"Log, {level}: {event}{rest}", here())


class Deciding:
    """:class:`sbc.routing.node.Decisions` that notes each of them in a trace, then has the core carry it out."""

    def __init__(self, core: Core, trace: Trace) -> None:
        self.core = core
        self.requests: Any = DecidingRequests(core.requests, trace)  # Any: in the place of Requests
        self._trace = trace

    @property
    def calls(self) -> Mapping[str, subjects.Call]:
        return self.core.calls

    def listener_of(self, realm: str, transport: str, host: str) -> int:
        return self.core.listener_of(realm, transport, host)

    def dial(
        self,
        call: subjects.Call,
        targets: Sequence[Target | Sequence[Target]],
        now: float,
        *,
        follow_redirects: Redirects | None = None,
        on_branch: Any = None,  # Any: opaque to the core, in these three
        on_reply: Any = None,
        on_failure: Any = None,
    ) -> None:
        said = f"Dials {_targets(targets)}; {_media(call)}"
        if call.changes is not None and call.changes.edits:
            said += f"; headers changed: {_changes(call.changes.edits)}"
        armed = (("each branch", on_branch), ("each reply", on_reply), ("when all fail", on_failure))
        said += "".join([f"; {when}: {name_of(one)}" for when, one in armed if one is not None])
        self._trace.add("decision", said + ".", here())
        self.core.dial(
            call,
            targets,
            now,
            follow_redirects=follow_redirects,
            on_branch=on_branch,
            on_reply=on_reply,
            on_failure=on_failure,
        )

    def move_media(
        self, call: subjects.Call, profile: str | None, then: Callable[[str, float], None], now: float
    ) -> str:
        what = "Lets the media go directly" if profile is None else f"Has the media relayed under profile {profile}"
        self._trace.add("decision", f"{what}.", here())
        return self.core.move_media(call, profile, then, now)

    def dial_next(self, call: subjects.Call, now: float, *, on_failure: Any = None) -> bool:  # Any: as there
        group = call.targets[call.next_target] if call.has_next else ()
        said = f"Goes on to {_targets([group])}." if group else "Would go on to the next target, but none is left."
        self._trace.add("decision", said, here())
        return self.core.dial_next(call, now, on_failure=on_failure)

    def drop(self, call: subjects.Call, now: float) -> None:
        self._trace.add("decision", "Drops the call: it gets no answer.", here())
        self.core.drop(call, now)

    def reject(
        self,
        call: subjects.Call,
        status: int,
        now: float,
        *,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._trace.add("decision", f"Rejects the call with {phrase(status, reason)}{_with(headers)}.", here())
        self.core.reject(call, status, now, reason=reason, headers=headers)

    def release(self, call: subjects.Call, now: float, *, reason: str, cause: int = 16, status: int = 500) -> None:
        self._trace.add("decision", f"Ends the call: {reason} (cause {cause}).", here())
        self.core.release(call, now, reason=reason, cause=cause, status=status)

    def reply_bad(self, bad: subjects.BadMessage, status: int, now: float, *, reason: str | None = None) -> None:
        self._trace.add("decision", f"Answers {phrase(status, reason or '')}.", here())
        self.core.reply_bad(bad, status, now, reason=reason)

    def route_done(self, effect: RunRoute, error: BaseException | None, now: float) -> None:
        if error is not None:
            cause = error.__cause__ or error
            kind = "" if isinstance(cause, SbcError) else f"{type(cause).__name__}: "
            what, where = "raised", place_of(cause)
            if isinstance(cause, RouteOverran):
                what, where = "was ended", where or _short(cause.where)
            self._trace.add("rejected", f"The {effect.kind.value} {what}: {kind}{cause}.", where)
        elif effect.kind is RouteKind.BRANCH and effect.subject.dropped:
            self._trace.add("rejected", f"The branch to {effect.subject.leg.attempt.gateway} was dropped by its route.")
        self.core.route_done(effect, error, now)


class DecidingRequests:
    """The same for requests that make no call (:class:`sbc.b2bua.forward.Requests`)."""

    def __init__(self, requests: Requests, trace: Trace) -> None:
        self._requests = requests
        self._trace = trace

    def __getattr__(self, name: str) -> Any:  # Any: whatever Requests has
        return getattr(self._requests, name)

    def relay(
        self,
        subject: subjects.OutOfDialogRequest,
        target: Target,
        now: float,
        *,
        uri: str = "",
        edit: Edit | None = None,
    ) -> bool:
        """As there."""
        self._trace.add("decision", f"Relays the {subject.message.method} to {_target(target)}.", here())
        relayed = self._requests.relay(subject, target, now, uri=uri, edit=edit)
        if subject.nat:
            self._trace.add("nat", nat_sentence(subject.source.peer, subject.nat, subject.tx.seen))
        return relayed

    def drop(self, subject: subjects.OutOfDialogRequest, now: float) -> None:
        """As there."""
        self._trace.add("decision", f"Drops the {subject.message.method}: it gets no answer.", here())
        self._requests.drop(subject, now)

    def answer(
        self,
        subject: subjects.OutOfDialogRequest,
        status: int,
        now: float,
        *,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        said = f"Answers the {subject.message.method} with {phrase(status, reason)}{_with(headers)}."
        self._trace.add("decision", said, here())
        self._requests.answer(subject, status, now, reason=reason, headers=headers, body=body)


def phrase(status: int, reason: str = "") -> str:
    """``503 Service Unavailable``."""
    return f"{status} {reason or REASONS.get(status, '')}".rstrip()


def nat_sentence(who: str, why: str, seen: Flow) -> str:
    """That somebody is taken to be behind NAT, and what follows."""
    host = f"[{seen.host}]" if ":" in seen.host else seen.host
    return f"{who or seen.host} is taken to be behind NAT: {why}. What is for it goes to {host}:{seen.port}."


def _target(target: Target) -> str:
    name = target.gateway or target.peer
    return f"{name} ({target.uri})" if name else target.uri


def _targets(groups: Sequence[Target | Sequence[Target]]) -> str:
    said = [
        _target(group) if isinstance(group, Target) else " and ".join([_target(one) for one in group]) + " at once"
        for group in groups
    ]
    return ", then ".join(said)


def _changes(edits: Sequence[tuple[str, str | None]]) -> str:
    """Header changes as they come out in the end."""
    found: dict[str, list[str]] = {}
    for name, value in edits:
        if value is None:
            found[name] = []
        else:
            found.setdefault(name, []).append(value)
    said = [f"{name}: {', '.join(values)}" if values else f"{name} removed" for name, values in found.items()]
    return ", ".join(said)


def _media(call: subjects.Call) -> str:
    if call.media_profile is None:
        return "media are direct"
    where = f", media set {call.media_set}" if call.media_set and call.media_set != "local" else ""
    return f"media are relayed under profile {call.media_profile}{where}"


def _with(headers: Sequence[tuple[str, str]]) -> str:
    return f" with {', '.join([f'{name}: {value}' for name, value in headers])}" if headers else ""


def faults(error: Exception) -> Iterator[str]:
    """What was wrong, a sentence each."""
    if isinstance(error, ConfigError):
        yield from error.faults
    else:
        where = place_of(error)
        yield f"{where}: {type(error).__name__}: {error}" if where else f"{type(error).__name__}: {error}"
