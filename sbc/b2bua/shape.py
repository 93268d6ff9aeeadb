"""What the other side gets to see: every message of ours is made from an allow-list, never copied and cleaned.

Nothing that names one side (address, host, Via, Call-ID, tag, Contact, User-Agent) is in what these functions return,
because each part is either ours or passes for a stated reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.errors import SipSyntaxError
from sbc.sip.address import NameAddr, parse_name_addr, quote_display
from sbc.sip.message import Message
from sbc.sip.uri import Uri, parse_uri

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, MESSAGE, NOTIFY, SUBSCRIBE"
ALLOWED_HEADER = ("Allow", ALLOW)
SDP_TYPE = ("Content-Type", "application/sdp")
# Methods that cross a dialog with their headers and body.
RELAYED_METHODS = frozenset({"INFO", "OPTIONS", "MESSAGE", "NOTIFY", "SUBSCRIBE"})
# What belongs to such a request besides the pass list of the settings: no value of these can name a host.
METHOD_HEADERS: dict[str, tuple[str, ...]] = {
    "INFO": ("Info-Package",),
    "NOTIFY": ("Event", "Subscription-State"),
    "SUBSCRIBE": ("Event", "Expires"),
}
ANONYMOUS_HOST = "anonymous.invalid"  # RFC 3323 §4.1.1.3

Headers = list[tuple[str, str]]


def pass_headers(core: Core, message: Message, leg: Leg, *, also: tuple[str, ...] = ()) -> Headers:
    """The headers of ``message`` that may cross to ``leg``, and our product name there if it has one."""
    allowed = core.pass_headers
    found = message.having(allowed.union([name.lower() for name in also]) if also else allowed)
    agent = core.settings.realms[leg.realm].user_agent
    if agent:
        found.append(("User-Agent" if message.is_request else "Server", agent))
    return found


def without_content(headers: Headers) -> Headers:
    """``headers`` for a message whose body stays behind."""
    return [item for item in headers if not item[0].startswith("Content-")]


def rehomed(name: NameAddr, host: str) -> str:
    """A From or To value for the other side: the display name and the user stay, the host is ``host``.

    A telephone URI becomes a SIP URI with ``user=phone`` (RFC 3261 §19.1.6); ``anonymous.invalid`` stays.
    """
    return _text(name.display, rehomed_uri(name.uri, host))


def rehomed_uri(uri: Uri, host: str) -> str:
    """The URI part of :func:`rehomed`."""
    if uri.host == ANONYMOUS_HOST:
        host = ANONYMOUS_HOST
    phone = uri.scheme == "tel" or uri.param("user") == "phone"
    user = f"{uri.user}@" if uri.user else ""
    return f"sip:{user}{host};user=phone" if phone else f"sip:{user}{host}"


def _text(display: str, uri: str) -> str:
    return f"{quote_display(display)} <{uri}>" if display else f"<{uri}>"


def asserted_identity(core: Core, message: Message, sender: Leg, receiver: Leg, host: str) -> Headers:
    """P-Asserted-Identity and Privacy (RFC 3325), between trusted realms only, with our host in SIP URIs."""
    realms = core.settings.realms
    if not (realms[sender.realm].trusted and realms[receiver.realm].trusted):
        return []
    found = []
    for value in message.get_all("P-Asserted-Identity"):
        try:
            name = parse_name_addr(value)
        except SipSyntaxError:
            continue
        uri = str(name.uri) if name.uri.scheme == "tel" else rehomed_uri(name.uri, host)
        found.append(("P-Asserted-Identity", _text(name.display, uri)))
    if found and (privacy := message.get("Privacy")):
        found.append(("Privacy", privacy))
    return found


def q850_reason(message: Message) -> Headers:
    """The Q.850 cause of a Reason header (RFC 3326), rebuilt without its text, which may name a host."""
    for value in message.get_all("Reason"):
        protocol, *params = [part.strip() for part in value.split(";")]
        if protocol.upper() != "Q.850":
            continue
        for param in params:
            name, _, number = param.partition("=")
            if name.strip().lower() == "cause" and number.strip().isdigit() and len(number.strip()) <= 3:
                return [("Reason", f"Q.850;cause={int(number)}")]
    return []


def relayed_status(status: int) -> int:
    """The status that A sees for a failure of B's.

    A redirection would need B's Contact, and a challenge is addressed to us, not to A: neither crosses. 3xx becomes
    480, 401 and 407 become 403.
    """
    if status < 400:
        return 480
    return 403 if status in (401, 407) else status


def is_sdp(message: Message) -> bool:
    """Whether the body is a session description (RFC 3261 §20.15: the type is compared without case)."""
    content = message.get("Content-Type")
    if content is None or not message.body:
        return False
    return content == "application/sdp" or content.partition(";")[0].strip().lower() == "application/sdp"


def target_host(uri: str) -> str:
    """The host of a Request-URI, for the To of the leg that it opens. Raises SipSyntaxError."""
    return parse_uri(uri).host
