"""Digest as client (RFC 3261 §22.2-22.3, RFC 8760): a challenged request goes again with what its peer's entry says.

Credentials belong to one peer. They are looked up by the peer of the leg that was challenged, never by what the
challenge says alone, and sent only while that leg leads to an address of the peer: no other leg, branch or realm is
ever offered them. The password is in no journal record: a resumed call is challenged anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sbc.sip.digest import Session, choose, parse_challenges
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

MAX_TRIES = 2  # of one request: one that was challenged by proxy and server both, or whose nonce was stale

Headers = list[tuple[str, str]]


def headers(leg: Leg, method: str, uri: str, body: bytes) -> Headers:
    """What a request on this leg carries once it was challenged: with qop the nonce is counted on (RFC 7616 §3.4)."""
    if leg.sessions is None:
        return []
    return [(session.header, session.answer(method, uri, body)) for session in leg.sessions.values()]


def accept(core: Core, leg: Leg, msg: Message, tries: int) -> bool:
    """Whether a refusal is a challenge that this leg's peer may make, so that the request is to go again, with
    :func:`headers`. ``tries`` counts how often it has gone again already."""
    proxy = msg.status == 407
    if not (proxy or msg.status == 401) or tries >= MAX_TRIES:
        return False
    ours = core.settings.credentials.get(leg.peer)
    if ours is None:
        return False
    at = leg.flow
    source = core.settings.admission.admit(at.listener, at.host, at.port, at.connection)
    if source is None or source.peer != leg.peer:
        core.note("warning", "challenged by an address that is not its peer's", leg.call, leg=leg.name)
        return False
    values = msg.get_all("Proxy-Authenticate" if proxy else "WWW-Authenticate")
    challenge = choose(parse_challenges(values, proxy=proxy), ours.realm)
    sessions = leg.sessions or {}
    if challenge is None or (tries and proxy in sessions and not challenge.stale):
        core.count("CREDENTIALS_REFUSED")
        core.note("warning", "credentials do not help", leg.call, leg=leg.name, peer=leg.peer, status=msg.status)
        return False
    leg.sessions = {**sessions, proxy: Session(challenge, ours, core.ids.token())}
    core.count("CHALLENGES_ANSWERED")
    return True


def renew(sessions: Mapping[bool, Session], msg: Message) -> None:
    """Take from a 2xx the nonce to use from now on, of whoever gives one (RFC 7616 §3.5, RFC 3261 §20.6, RFC 7615)."""
    for proxy, session in sessions.items():
        info = msg.get("Proxy-Authentication-Info" if proxy else "Authentication-Info")
        if info:
            session.renew(info)
