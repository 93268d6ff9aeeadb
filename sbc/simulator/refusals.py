"""Why something did not go on, as a sentence."""

from __future__ import annotations

from typing import Final

from sbc.b2bua.effects import Note
from sbc.b2bua.subjects import Attempt
from sbc.config.models import Config
from sbc.policy.admission import Admission
from sbc.simulator.trace import phrase
from sbc.sip.flow import Flow
from sbc.telemetry.counters import Counter

_SENTENCES: Final[dict[str, str]] = {
    "MAX_CALLS_REFUSED": "The call is refused: its peer is at max_calls or max_cps.",
    "ROUTE_UNDECIDED": "The route ended without a decision, so the call is refused with 500.",
    "ROUTE_TIMEOUTS": "The route took longer than it may.",
    "SDP_REFUSED": "",  # the note says why
    "ROUTE_ERRORS": "",
}
# Counters that say why something did not go on; their own texts are sentences about many.
_REASONS: Final = frozenset(
    {
        *("MALFORMED_DROPPED", "MALFORMED_REFUSED", "METHOD_REFUSED", "EXTENSION_REFUSED", "MAX_FORWARDS_REFUSED"),
        *("LOOP_REFUSED", "DIALOG_UNKNOWN", "CSEQ_REFUSED", "WRONG_SOURCE_REFUSED", "GLARE_REFUSED"),
        *("UNKNOWN_SOURCE_REFUSED", "SESSION_INTERVAL_REFUSED", "CREDENTIALS_REFUSED", "TRANSFERS_REFUSED"),
        *("DRAINING_REFUSED", "OVERLOAD_REFUSED", "SUBSCRIPTIONS_REFUSED", "REQUEST_TIMEOUTS"),
        *("DIALOG_EXPIRED", "SESSION_EXPIRED", "PRACK_MISSING", "ACK_MISSING"),
        *("CORE_FAULTS", "MEDIA_REFUSED", "RESOLVE_FAILED"),
    }
)


def counted(name: str) -> str:
    """What a counter of this name says, '' for one that says nothing about the call."""
    said = _SENTENCES.get(name)
    if said is None and name in _REASONS:
        return f"Counted as {name.lower()}: {Counter[name].text}"
    return said or ""


def noted(note: Note) -> str:
    """A note of the core."""
    fields = ", ".join([f"{name} {value}" for name, value in note.fields.items() if value != ""])
    return f"{note.event[:1].upper()}{note.event[1:]}{': ' if fields else ''}{fields}."


def failed(attempt: Attempt) -> str:
    """What became of a target."""
    status = attempt.status
    if status == 487:
        return f"{attempt.gateway} is out: its branch was cancelled."
    if attempt.followed:
        return f"{attempt.gateway} redirects with {phrase(status)}: its Contacts are tried."
    if status == 408 and attempt.pdd_ms < 0:
        return f"{attempt.gateway} is out: no answer in time (408). Another target may be tried."
    if attempt.may_fail_over:
        return f"{attempt.gateway} is out: {phrase(status)}. Another target may be tried."
    if status < 400:
        return f"{attempt.gateway} is out: {phrase(status)}, and redirects are not followed there."
    if status >= 600:
        return f"{attempt.gateway} is out: {phrase(status)}, which ends the whole list."
    return f"{attempt.gateway} is out: {phrase(status)}. That is an answer about the call, no fault of the target."


def stranger(config: Config, flow: Flow) -> str:
    """Nobody knows this source."""
    realm, _ = config.listeners[flow.listener]
    said = f"{flow.host} is no peer of realm {realm}"
    admission = Admission(config.peers, config.realms)
    for number, (other, _) in enumerate(config.listeners):
        if other != realm and (source := admission.admit(number, flow.host, flow.port)) is not None:
            said += f" (in realm {other} it is peer {source.peer})"
            break
    if config.unknown_sources == "refuse":
        return f"{said}: it is refused with 403 (unknown_sources: refuse)."
    return f"{said}: what it sends is dropped without an answer (unknown_sources: drop)."
