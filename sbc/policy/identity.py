"""Who calls, and who may know: asserted identity, privacy, diversion, by the trust between two realms.

RFC 3325 (P-Asserted-Identity, P-Preferred-Identity), RFC 3323 (Privacy), RFC 5806 (Diversion), RFC 7044 (History-Info),
and Remote-Party-ID as phones still send it. What an untrusted side asserts is not believed, what is asserted is not
told to an untrusted side, and no value keeps a host of the side that it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sbc.errors import SipSyntaxError
from sbc.sip.address import NameAddr, parse_name_addr, quote_display
from sbc.sip.message import Message
from sbc.sip.uri import Uri

ANONYMOUS_HOST = "anonymous.invalid"  # RFC 3323 §4.1.1.3
ANONYMOUS = f'"Anonymous" <sip:anonymous@{ANONYMOUS_HOST}>'
MAX_VALUES = 16  # of a Diversion or History-Info header; more say nothing new

# RFC 3323 §4.2, RFC 3325 §9.3, RFC 7044 §10.1; "critical" is about the others
_PRIVACY = frozenset({"header", "session", "user", "none", "critical", "id", "history"})
# What a user may have written himself (RFC 3323 §4.1.1.3, §5.3), as far as it passes at all.
_OF_USER = frozenset({"subject", "call-info", "organization", "reply-to", "in-reply-to", "user-agent", "server"})
_IDENTITY = frozenset(
    {"p-asserted-identity", "p-preferred-identity", "remote-party-id", "privacy", "diversion", "history-info"}
)
_DIVERSION_PARAMS = ("reason", "counter", "limit", "privacy", "screen")
_HISTORY_PARAMS = ("index", "rc", "mp", "np")
_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~")

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Trust:
    """What a realm is believed, and told. ``preferred``: what its users prefer to be called (P-Preferred-Identity) is
    asserted by us, since they are authenticated there. ``remote_party_id``: it also gets the older header."""

    trusted: bool = False
    preferred: bool = False
    remote_party_id: bool = False


def privacy_of(message: Message) -> frozenset[str]:
    """The privacy that a request asks for, in lower case; values are separated by semicolons (RFC 3323 §4.2)."""
    lines = message.get_all("Privacy")
    if not lines:
        return frozenset()
    return frozenset(value.strip().lower() for line in lines for value in line.replace(",", ";").split(";")) - {""}


def impossible(privacy: frozenset[str]) -> bool:
    """Whether critical privacy is asked for of a kind that we cannot give: 500 (RFC 3323 §5)."""
    return "critical" in privacy and not privacy <= _PRIVACY


def hides_user(privacy: frozenset[str], receiver: Trust) -> bool:
    """Whether the user's own words (From, Subject ...) are to be hidden from this receiver."""
    return "user" in privacy and not receiver.trusted


def without_user(headers: Headers) -> Headers:
    """``headers`` without those in which the user may have named himself."""
    return [item for item in headers if item[0].lower() not in _OF_USER]


def crossing(message: Message, sender: Trust, receiver: Trust, host: str) -> Headers:
    """The identity headers that ``receiver`` gets of a message from ``sender``; ``host`` is ours on that side."""
    if not receiver.trusted or not message.having(_IDENTITY):
        return []
    privacy = privacy_of(message)  # asked for by whoever, kept until somebody untrusted is to be told
    names = list(_asserted(message, sender))
    found: Headers = [("P-Asserted-Identity", rehomed(name, host)) for name in names]
    if sender.trusted:
        remote = _remote_party(message)
        if remote is not None and not names:
            names = [remote]
            found.append(("P-Asserted-Identity", rehomed(remote, host)))
            if (remote.param("privacy") or "").lower() in ("full", "name", "uri"):
                privacy |= {"id"}
        found += _each(message, "Diversion", _DIVERSION_PARAMS, host)
        found += _each(message, "History-Info", _HISTORY_PARAMS, host)
    if names and receiver.remote_party_id:
        hidden = "full" if "id" in privacy else "off"
        found.append(("Remote-Party-ID", f"{rehomed(names[0], host)};party=calling;screen=yes;privacy={hidden}"))
    if privacy:
        found.append(("Privacy", ";".join(sorted(value for value in privacy if _TOKEN.issuperset(value)))))
    return found


def _asserted(message: Message, sender: Trust) -> Iterator[NameAddr]:
    """At most one SIP and one tel identity (RFC 3325 §9.1); the preferred one only where none is asserted."""
    schemes: set[bool] = set()
    for header in ("P-Asserted-Identity", "P-Preferred-Identity"):
        believed = sender.trusted if header == "P-Asserted-Identity" else sender.preferred
        if not believed or schemes:
            continue
        for name in _addresses(message, header):
            telephone = name.uri.scheme == "tel"
            if telephone not in schemes and (telephone or name.uri.is_sip):
                schemes.add(telephone)
                yield name


def _remote_party(message: Message) -> NameAddr | None:
    for name in _addresses(message, "Remote-Party-ID"):
        if (name.param("party") or "calling").lower() == "calling":
            return name
    return None


def _each(message: Message, header: str, params: tuple[str, ...], host: str) -> Headers:
    found = []
    for name in _addresses(message, header):
        text = rehomed(name, host)
        for param in params:
            value = (name.param(param) or "").strip('"')
            if value and _TOKEN.issuperset(value):
                text += f";{param}={value}"
        found.append((header, text))
    return found


def _addresses(message: Message, header: str) -> Iterator[NameAddr]:
    for value in message.get_all(header)[:MAX_VALUES]:
        try:
            yield parse_name_addr(value)
        except SipSyntaxError:
            continue  # one that nobody could use


def rehomed(name: NameAddr, host: str) -> str:
    """An identity for the other side: a global telephone number stays (RFC 3966 §5.1.4), of all else the user part."""
    uri = name.uri
    if uri.scheme == "tel" and (uri.user or "").startswith("+"):
        return _text(name.display, f"tel:{uri.user}")
    return _text(name.display, rehomed_uri(uri, host))


def rehomed_uri(uri: Uri, host: str) -> str:
    """A URI of the other side with our host: the user part stays.

    A telephone URI becomes a SIP URI with ``user=phone`` (RFC 3261 §19.1.6); ``anonymous.invalid`` stays.
    """
    if uri.host == ANONYMOUS_HOST:
        host = ANONYMOUS_HOST
    phone = uri.scheme == "tel" or uri.param("user") == "phone"
    user = f"{uri.user}@" if uri.user else ""
    return f"sip:{user}{host};user=phone" if phone else f"sip:{user}{host}"


def _text(display: str, uri: str) -> str:
    return f"{quote_display(display)} <{uri}>" if display else f"<{uri}>"
