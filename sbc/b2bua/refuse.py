"""What gets no call: strangers, octets that are no message, methods and extensions that we do not serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sbc.b2bua import extensions, shape
from sbc.b2bua.connect import SCHEMES
from sbc.b2bua.effects import RouteKind, RunRoute
from sbc.b2bua.subjects import BadMessage
from sbc.errors import SipSyntaxError
from sbc.sip.build import reply_to
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.sip.stun import binding_response
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.settings import Source

# Known methods that need a dialog, or that a later service answers (registrar, presence, messaging).
KNOWN_METHODS = frozenset(
    {
        *("INVITE", "BYE", "OPTIONS", "INFO", "UPDATE", "MESSAGE", "NOTIFY"),
        *("REGISTER", "SUBSCRIBE", "PUBLISH", "REFER", "PRACK"),
    }
)
_RESPONSE = b"SIP/2.0 "


def stranger(core: Core, data: bytes, flow: Flow) -> None:
    """A source that is no peer's gets no state, and by default no answer either (RFC 3261 §26.3.2.4)."""
    if core.settings.unknown_sources == "refuse" and not data.startswith(_RESPONSE):
        request = Message.parse_lenient(data)
        if request is not None and request.method != "ACK":
            core.count("UNKNOWN_SOURCE_REFUSED")
            core.transmit(flow, stateless(core, request, 403, flow))
            return
    core.count("UNKNOWN_SOURCE_DROPPED")


def stateless(
    core: Core,
    request: Message,
    status: int,
    flow: Flow,
    reason: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> bytes:
    """An answer without a transaction; never longer than a few lines, so that nobody is amplified."""
    received = (flow.host, flow.port)
    return reply_to(request, status, reason=reason, to_tag=core.stateless_tag, received=received, headers=headers)


def overloaded(core: Core, msg: Message, flow: Flow) -> None:
    """A new call that there is no time for: refused before it costs anything (RFC 3261 §21.5.4)."""
    core.count("OVERLOAD_REFUSED")
    core.transmit(flow, stateless(core, msg, 503, flow, headers=(shape.RETRY_AFTER,)))


def malformed(core: Core, data: bytes, flow: Flow, source: Source, error: SipSyntaxError, now: float) -> None:
    """Octets from a peer that do not parse: the error route decides, or the status of the error answers."""
    if not data.strip(b"\r\n\0"):  # RFC 5626 §4.4.1 and what phones send to keep a NAT binding open
        core.count("KEEPALIVE")
        return
    if data[0] < 2 and flow.transport == "udp" and (response := binding_response(data, flow.host, flow.port)):
        core.count("KEEPALIVE")
        core.transmit(flow, response)
        return
    answerable = not error.droppable and Message.parse_lenient(data) is not None
    bad = BadMessage(data, flow, source, error, answerable)
    if RouteKind.ERROR in core.settings.routes:
        core.emit(RunRoute(RouteKind.ERROR, bad))
    elif answerable:
        core.reply_bad(bad, error.status, now)
    else:
        core.count("MALFORMED_DROPPED")


def reply_bad(core: Core, bad: BadMessage, status: int, reason: str | None = None) -> None:
    """Answer such octets once, where enough of them can be read."""
    if bad.answered or not bad.answerable:
        return
    request = Message.parse_lenient(bad.data)
    if request is None:
        return
    bad.answered = True
    core.count("MALFORMED_REFUSED")
    core.transmit(bad.flow, stateless(core, request, status, bad.flow, reason))


def unacceptable(core: Core, msg: Message, tx: ServerTransaction, now: float) -> bool:
    """Refuse what RFC 3261 §8.2 has a UAS refuse before it looks any further; True when that was done."""
    if msg.max_forwards == 0 and msg.method != "OPTIONS":  # §16.3: an OPTIONS that ends here is for us (§11.2)
        core.count("MAX_FORWARDS_REFUSED")
        core.refuse(tx, 483, now)
        return True
    if core.layer.is_merged(msg):
        core.count("LOOP_REFUSED")
        core.refuse(tx, 482, now)
        return True
    if msg.method not in ("ACK", "CANCEL"):
        required = extensions.unsupported(core.settings, core.settings.listeners[tx.flow.listener].realm, msg)
        if required:
            core.count("EXTENSION_REFUSED")
            core.refuse(tx, 420, now, [("Unsupported", ", ".join(required))])
            return True
    return False


def out_of_dialog(core: Core, msg: Message, tx: ServerTransaction, now: float) -> None:
    """A request other than INVITE without a dialog. OPTIONS is a ping and is answered; services for the other methods
    will be asked here."""
    method = msg.method
    if method == "OPTIONS":
        if msg.uri[:4].lower() not in SCHEMES:  # §8.2.2.1
            core.refuse(tx, 416, now)
            return
        headers = [shape.ALLOWED_HEADER, ("Accept", "application/sdp")]
        agent = core.settings.realms[core.settings.listeners[tx.flow.listener].realm].user_agent
        if agent:
            headers.append(("Server", agent))
        core.respond(tx, 200, now, headers, to_tag=core.stateless_tag)
        return
    if method in ("BYE", "INFO", "UPDATE", "NOTIFY", "PRACK"):
        core.count("DIALOG_UNKNOWN")
        core.refuse(tx, 481, now)
        return
    if method == "REFER":  # there is no call to refer anybody from, and a new one would be anybody's to place
        core.count("TRANSFERS_REFUSED")
        core.refuse(tx, 403, now)
        return
    core.count("METHOD_REFUSED")
    core.refuse(tx, 405 if method in KNOWN_METHODS else 501, now, [shape.ALLOWED_HEADER])
