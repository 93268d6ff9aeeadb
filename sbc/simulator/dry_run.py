"""One dry run: a call or a message goes in, everybody else answers by script, and the report says what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sbc.simulator.party import CODECS, Line, Party
from sbc.simulator.report import Attempted, Report
from sbc.simulator.script import Scripts
from sbc.simulator.stage import Stage, is_address
from sbc.simulator.trace import phrase
from sbc.sip.message import Message

LIMIT_S = 3600.0  # of virtual time until the caller must have heard the end of it
END_S = 300.0  # until everything is over after that


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried.

    ``call``: a number, or a URI as it is; or ``message``, octets as they are to come in. ``source``: the name of a
    peer, or ``address`` or ``address:port``; ``listener`` as :meth:`Stage.source` takes it. ``answers``: by peer or
    host, see :mod:`sbc.simulator.script`; all others answer ``otherwise``. ``at_s``: wall-clock time, None for now.
    ``present``: calls that peers have already. ``talk_s``: then the caller hangs up. ``cancel_s``: the caller gives up
    after so long without an answer. ``lookups``: what routes find, see :mod:`sbc.simulator.lookups`.
    """

    source: str
    call: str = ""
    message: bytes = b""
    listener: str = ""
    caller: str = "1000"
    method: str = "INVITE"
    headers: Sequence[tuple[str, str]] = ()
    codecs: Sequence[str] = CODECS
    answers: Mapping[str, str] = field(default_factory=dict)
    otherwise: str = "180+200"
    at_s: float | None = None
    present: Mapping[str, int] = field(default_factory=dict)
    talk_s: float = 1.0
    cancel_s: float | None = None
    lookups: Mapping[str, Any] = field(default_factory=dict)  # Any: see there


def run(stage: Stage, trial: Trial) -> Report:
    """Try it on an idle node. Raises ValueError for a trial that makes no sense, with a sentence."""
    stage.begin(trial.at_s)
    stage.lookups.trial = trial.lookups
    scripts = Scripts(trial.answers, trial.otherwise)
    caller = stage.source(trial.source, trial.listener)
    for name in (*scripts.names, *trial.present):
        if name not in stage.config.peers and not (name in scripts.names and is_address(name)):
            known = ", ".join(stage.config.peers) or "none"
            raise ValueError(f"no peer {name!r} is configured; there are: {known}")
    for name, calls in trial.present.items():
        for _ in range(calls):
            stage.admission.count_call(name)
    try:
        return _Run(stage, trial, scripts, caller).report()
    finally:
        for name, calls in trial.present.items():
            for _ in range(calls):
                stage.admission.close_call(name)


class _Run:
    def __init__(self, stage: Stage, trial: Trial, scripts: Scripts, caller: Party) -> None:
        self.stage = stage
        self.trial = trial
        self.scripts = scripts
        self.caller = caller
        self.final: Message | None = None
        self.method = trial.method
        stage.on_message = self._heard

    def _heard(self, party: Party, line: Line, msg: Message) -> None:
        """The caller waits for the end of it; whoever else gets something follows its script."""
        if msg.is_request or party is not self.caller or msg.call_id != party.opened:
            self.scripts.follow(party, line, msg)
        elif msg.status >= 200 and self.final is None and msg.cseq_method == self.method:
            self.final = msg

    def report(self) -> Report:
        """Run it."""
        stage, trial, caller = self.stage, self.trial, self.caller
        _introduce(stage, caller)
        caller.codecs = trial.codecs
        self._begin()
        if trial.cancel_s is not None and self.method == "INVITE":
            stage.at(stage.clock.now + trial.cancel_s, self._cancel)
        stage.run_until(lambda: self.final is not None, LIMIT_S)
        final = self.final
        attempts = stage.attempts
        if final is not None and self.method == "INVITE" and 200 <= final.status < 300:
            stage.run_until(lambda: not stage.core.calls, trial.talk_s)
            if stage.core.calls:
                caller.turns_to(caller.opened)
                caller.hangs_up()
        stage.run_until(lambda: not stage.core.calls, END_S)
        status = final.status if final is not None else 0
        if final is None:
            stage.trace.add("end", f"{caller.name} hears nothing.")
        by = next((one.gateway for one in attempts if 200 <= one.status < 300), "")
        if not by and final is not None and 200 <= status < 300:
            by = _answering(stage, caller)
        stage.trace.add("end", _ended(caller.name, status, by, final))
        return Report(
            status=status,
            reason=final.reason if final is not None else "",
            by=by,
            attempts=[Attempted(one.gateway, one.uri, one.status) for one in attempts],
            steps=stage.trace.steps,
            messages=stage.trace.messages,
            cdr=stage.cdrs[0] if stage.cdrs else None,
            counts=dict(stage.counts),
        )

    def _begin(self) -> None:
        trial, caller = self.trial, self.caller
        if trial.message:
            head = Message.parse_lenient(trial.message)
            self.method = head.method if head is not None else ""
            caller.sends_as_it_is(trial.message)
        elif trial.call:
            caller.calls(trial.call, caller=trial.caller, headers=trial.headers, method=trial.method)
        else:
            raise ValueError("say a number, a URI or a message to try")

    def _cancel(self) -> None:
        if self.final is None:
            self.caller.turns_to(self.caller.opened)
            self.caller.cancels()


def _introduce(stage: Stage, caller: Party) -> None:
    flow = caller.flow
    realm = stage.config.listeners[flow.listener][0]
    if caller.is_known:
        peer = stage.config.peers[caller.name]
        direction = f", direction {peer.direction}" if peer.direction else ""
        networks = ", ".join(str(network) for network in peer.addresses)
        if peer.match is not None:
            networks += f"; {peer.match}"
        said = f"{flow.host} on {stage.listener_text(flow.listener)} is peer {caller.name} ({networks}), "
        stage.trace.add("source", f"{said}realm {realm}{direction}.")


def _answering(stage: Stage, caller: Party) -> str:
    """Who gave the last 2xx to the node; '' for nobody."""
    for seen in reversed(stage.trace.messages):
        if not seen.receiver and seen.sender != caller.name and seen.data.startswith(b"SIP/2.0 2"):
            return seen.sender
    return ""


def _ended(caller: str, status: int, by: str, final: Message | None) -> str:
    if final is None:
        return "Result: no answer."
    if 200 <= status < 300:
        return f"Result: {phrase(status, final.reason)}, answered by {by or 'this node'}."
    return f"Result: {caller} is refused with {phrase(status, final.reason)}."
