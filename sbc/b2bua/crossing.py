"""What of a relayed request and its answer crosses to the other side, besides what the dialog or transaction needs.

As in :mod:`sbc.b2bua.shape`, all of it is by allow-list. What is signed end to end passes as it is, digest credentials
one way and challenges the other, since neither side can make it anew for the other.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from sbc.b2bua import shape
from sbc.b2bua.relay import relayed_failure
from sbc.b2bua.shape import Headers
from sbc.policy import identity
from sbc.sip.address import NameAddr
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from sbc.sip.uri import Uri, parse_uri

if TYPE_CHECKING:
    from sbc.b2bua.core import Core

# Methods whose sender proves himself to the far end.
AUTHENTICATED = frozenset({"MESSAGE", "PUBLISH", "REGISTER", "SUBSCRIBE"})
# Methods for the server of a domain: a domain name that the sender asks for is no topology but what it is about.
OF_A_DOMAIN = frozenset({"PUBLISH", "REGISTER", "SUBSCRIBE"})
# Methods about an address of record of the sender's own.
OF_THE_SENDER = frozenset({"PUBLISH", "REGISTER"})

_CREDENTIALS = ("Authorization", "Proxy-Authorization")
_CHALLENGES = ("WWW-Authenticate", "Proxy-Authenticate")
# What crosses besides the pass list of the settings. No value of these can name a host, save those that are signed.
_REQUEST: dict[str, frozenset[str]] = {
    "MESSAGE": frozenset({"Expires", "Date", *_CREDENTIALS}),
    "NOTIFY": frozenset({"Event", "Subscription-State"}),
    "PUBLISH": frozenset({"Event", "Expires", "SIP-If-Match", *_CREDENTIALS}),
    "REGISTER": frozenset({"Expires", *_CREDENTIALS}),
    "SUBSCRIBE": frozenset({"Event", "Expires", *_CREDENTIALS}),
}
_SUCCESS: dict[str, frozenset[str]] = {
    "MESSAGE": frozenset({"Expires", "Date", "Authentication-Info"}),
    "PUBLISH": frozenset({"Expires", "SIP-ETag", "Authentication-Info"}),
    "REGISTER": frozenset({"Expires", "Date", "Authentication-Info"}),
    "SUBSCRIBE": frozenset({"Expires", "Authentication-Info"}),
}
_FAILURE = frozenset({"Accept", "Allow-Events", "Min-Expires"})

_NONE: frozenset[str] = frozenset()


class Addresses(NamedTuple):
    """How a relayed request names its parties: Request-URI, From and To without tags."""

    uri: str
    sender: str
    receiver: str


def headers_of(core: Core, msg: Message, realm: str) -> Headers:
    """The headers of a request or of a 2xx that may cross into ``realm``, and our product name there if it has one."""
    allowed = core.passing[realm]
    also = (_REQUEST if msg.is_request else _SUCCESS).get(msg.cseq_method, _NONE)
    found = [item for item in msg.items() if item[0] in also or item[0].lower() in allowed]
    if found and msg.is_request and is_hidden(core, msg, realm):
        found = identity.without_user(found)
    agent = core.settings.realms[realm].user_agent
    if agent:
        found.append(("User-Agent" if msg.is_request else "Server", agent))
    return found


def is_hidden(core: Core, msg: Message, realm: str) -> bool:
    """Whether the sender does not want to be known there (RFC 3323 §4.2). Whose own record it is about must say so."""
    return msg.method not in OF_THE_SENDER and identity.hides_user(identity.privacy_of(msg), core.trust[realm])


def asserted_identity(core: Core, msg: Message, sender: str, flow: Flow) -> Headers:
    """Who sends it, by the trust of his realm and of the one that ``flow`` leads to (RFC 3325 §5: any but REGISTER)."""
    if msg.method == "REGISTER":
        return []
    listener = core.settings.listeners[flow.listener]
    return identity.crossing(msg, core.trust[sender], core.trust[listener.realm], core.hosts[flow.listener])


def failure(msg: Message) -> tuple[int, Headers]:
    """Status and headers by which the failure of such a request crosses."""
    method = msg.cseq_method
    status, headers = relayed_failure(msg)
    wanted = _FAILURE
    if method in AUTHENTICATED and msg.status in (401, 407):
        status = msg.status
        wanted = _FAILURE.union(_CHALLENGES)
    for name, value in msg.items():
        if name in wanted:
            headers.append((name, without_domain(value) if name in _CHALLENGES else value))
    return status, headers


def without_domain(challenge: str) -> str:
    """A challenge without its ``domain`` (RFC 7616 §3.3): URIs of that side, and no part of what is signed."""
    if "domain" not in challenge.lower():
        return challenge
    scheme, blank, params = challenge.partition(" ")
    kept = [item for item in _items(params) if item.partition("=")[0].strip().lower() != "domain"]
    return scheme + blank + ",".join(kept).lstrip(" \t")


def _items(params: str) -> list[str]:
    """What stands between the commas outside quotes."""
    items, start, quoted, escaped = [], 0, False, False
    for at, char in enumerate(params):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = quoted
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            items.append(params[start:at])
            start = at + 1
    return [*items, params[start:]]


def addresses(core: Core, msg: Message, flow: Flow, to: Uri, uri: str = "") -> Addresses:
    """How ``msg`` is addressed along ``flow``: to ``uri`` if that is given, else to the URI of the target, ``to``, with
    the domain that the sender asked for where the method is :data:`OF_A_DOMAIN`."""
    asked = parse_uri(msg.uri)
    sender, receiver = msg.from_(), msg.to()
    domain = asked.host if msg.method in OF_A_DOMAIN and not uri and _is_name(asked.address) else ""
    if domain:
        uri = f"sip:{asked.user}@{domain}" if asked.user else f"sip:{domain}"
    elif not uri:
        uri = str(to)
    if msg.method == "REGISTER":  # RFC 3261 §10.2
        uri = str(parse_uri(uri)._replace(user=None, password=None))
    there = parse_uri(uri).host or flow.host

    def home(name: NameAddr, otherwise: str) -> str:
        return shape.rehomed(name, domain if domain and name.uri.host.lower() == domain.lower() else otherwise)

    # Who registers or publishes speaks of his own address of record, which is of the far side.
    own = msg.method in OF_THE_SENDER and sender.uri.host.lower() == receiver.uri.host.lower()
    if is_hidden(core, msg, core.settings.listeners[flow.listener].realm):
        return Addresses(uri, identity.ANONYMOUS, home(receiver, there))
    return Addresses(uri, home(sender, there if own else core.hosts[flow.listener]), home(receiver, there))


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host)
    return False
