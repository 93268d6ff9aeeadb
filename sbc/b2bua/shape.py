"""What the other side gets to see: every message of ours is made from an allow-list, never copied and cleaned.

Nothing that names one side (address, host, Via, Call-ID, tag, Contact, User-Agent) is in what these functions return,
because each part is either ours or passes for a stated reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.errors import SipSyntaxError
from sbc.policy import identity
from sbc.sip.address import NameAddr, quote_display
from sbc.sip.message import Message
from sbc.sip.multipart import Part, is_multipart, parts_of, replaced

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, MESSAGE, NOTIFY, SUBSCRIBE, REFER"
RETRY_AFTER = ("Retry-After", "5")  # of calls that there is no room for
ALLOWED_HEADER = ("Allow", ALLOW)
SDP_TYPE = ("Content-Type", "application/sdp")
READABLE = (("Accept", "application/sdp"), ("Accept-Encoding", "identity"))  # of a 415 (RFC 3261 §8.2.3)
# Methods that cross a dialog with their headers and body.
RELAYED_METHODS = frozenset({"INFO", "OPTIONS", "MESSAGE", "NOTIFY", "SUBSCRIBE"})
# What belongs to such a request besides the pass list of the settings: no value of these can name a host.
METHOD_HEADERS: dict[str, tuple[str, ...]] = {
    "INFO": ("Info-Package",),
    "NOTIFY": ("Event", "Subscription-State"),
    "SUBSCRIBE": ("Event", "Expires"),
}

Headers = list[tuple[str, str]]


def pass_headers(core: Core, message: Message, leg: Leg, *, also: tuple[str, ...] = ()) -> Headers:
    """The headers of ``message`` that may cross to ``leg``, and our product name there if it has one."""
    allowed = core.passing[leg.realm]
    found = message.having(allowed.union([name.lower() for name in also]) if also else allowed)
    if found and message.is_request and identity.hides_user(identity.privacy_of(message), core.trust[leg.realm]):
        found = identity.without_user(found)
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
    uri = identity.rehomed_uri(name.uri, host)
    return f"{quote_display(name.display)} <{uri}>" if name.display else f"<{uri}>"


def asserted_identity(core: Core, message: Message, sender: Leg, receiver: Leg) -> Headers:
    """Who calls, who diverted, and what of it is private, by the trust of both realms."""
    told = core.trust[receiver.realm]
    if not told.trusted:
        return []
    return identity.crossing(message, core.trust[sender.realm], told, core.hosts[receiver.flow.listener])


def q850_reason(message: Message) -> Headers:
    """The Q.850 cause of a Reason header (RFC 3326), rebuilt without its text, which may name a host."""
    return _reason(message, "Q.850")


def _reason(message: Message, wanted: str) -> Headers:
    for value in message.get_all("Reason"):
        protocol, *params = [part.strip() for part in value.split(";")]
        if protocol.upper() != wanted:
            continue
        for param in params:
            name, _, number = param.partition("=")
            number = number.strip()
            if name.strip().lower() == "cause" and number.isascii() and number.isdigit() and len(number) <= 3:
                return [("Reason", f"{wanted};cause={int(number)}")]
    return []


def reasons(message: Message) -> Headers:
    """The Reason of a CANCEL for the other side: causes of Q.850 and of SIP (answered elsewhere, RFC 3326 §2)."""
    return q850_reason(message) + _reason(message, "SIP")


def relayed_status(status: int) -> int:
    """The status that A sees for a failure of B's.

    A redirection would need B's Contact, and a challenge is addressed to us, not to A: neither crosses. 3xx becomes
    480, 401 and 407 become 403.
    """
    if status < 400:
        return 480
    return 403 if status in (401, 407) else status


def description(message: Message) -> bytes:
    """The session description of a message, also where it is one part among others; b"" without one."""
    body, content = message.body, message.get("Content-Type")
    if not body or content is None:
        return b""
    if content.partition(";")[0].strip().lower() == "application/sdp":  # RFC 3261 §20.15: without case
        return body
    part = _described_part(content, body)
    return b"" if part is None else body[part.start : part.end]


def is_sdp(message: Message) -> bool:
    """Whether the message brings a session description."""
    return bool(description(message))


def is_readable(message: Message) -> bool:
    """Whether the body of an INVITE is of a kind that we can serve: nothing, a description, or parts; not encoded."""
    if not message.body:
        return True
    if (message.get("Content-Encoding") or "identity").lower() != "identity":
        return False
    if is_sdp(message):
        return True
    content = message.get("Content-Type") or ""
    try:
        return is_multipart(content) and bool(parts_of(content, message.body))
    except SipSyntaxError:
        return False


def with_description(message: Message, sdp: bytes) -> bytes:
    """The body for the other side: ``sdp`` for the description of ``message``, its other parts octet for octet."""
    content = message.get("Content-Type")
    if content is None or not is_multipart(content):
        return sdp
    part = _described_part(content, message.body)
    return message.body if part is None else replaced(message.body, part, sdp)


def _described_part(content_type: str, body: bytes) -> Part | None:
    if not is_multipart(content_type):
        return None
    try:
        return next((part for part in parts_of(content_type, body) if part.type == "application/sdp"), None)
    except SipSyntaxError:
        return None
