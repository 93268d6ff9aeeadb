"""Which targets are tried at once, and which after: groups, preferences, the servers of a name, and redirects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sbc.b2bua.call import Call, Group, Groups, Target
from sbc.b2bua.effects import ServerFailed
from sbc.b2bua.leg import flow_to
from sbc.b2bua.tables import OPEN
from sbc.errors import SbcError, SipSyntaxError
from sbc.sdp.address import ip_literal
from sbc.sip.address import NameAddr, parse_name_addr
from sbc.sip.message import Message
from sbc.sip.uri import NO_PARAMS, Uri, parse_uri

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

MAX_AT_ONCE: Final = 10  # branches of one call that ring at the same time
MAX_CONTACTS = 10  # of redirects, in one call: further ones are not tried
BREADTH: Final = 60  # of a request that does not say, once it is forked (RFC 5393 §5.3)
MAX_ROUNDS = 10  # of one request through this node, however different

_REDIRECTS = frozenset({300, 301, 302})  # 305 and 380 ask for something else than another target
_KEPT_PARAMS = frozenset({"user", "transport"})  # of a Contact; others steer where a request goes, or mean nothing here


def groups_of(targets: Sequence[Target | Sequence[Target]]) -> Groups:
    """``targets`` as the core keeps them. Raises ValueError for none, for an empty group and for one that is too large.

    A group of one is that target.
    """
    if not targets:
        raise ValueError("dial needs a target")
    found: list[Group] = []
    for item in targets:
        if isinstance(item, Target):
            found.append(item)
            continue
        if not 0 < len(item) <= MAX_AT_ONCE:
            raise ValueError(f"{len(item)} targets at once: a group has from 1 to {MAX_AT_ONCE}")
        found.append(item[0] if len(item) == 1 else tuple(item))
    return tuple(found)


def by_q(targets: Iterable[Target]) -> list[list[Target]]:
    """The targets by preference (RFC 3261 §16.6): those with the highest ``q`` first, and those of equal ``q`` at once.

    Raises ValueError for a ``q`` that is not within 0 to 1.
    """
    groups: dict[float, list[Target]] = {}
    for target in targets:
        if not 0 <= target.q <= 1:
            raise ValueError(f"{target.uri}: q = {target.q} is not within 0 to 1")
        groups.setdefault(target.q, []).append(target)
    return [groups[q] for q in sorted(groups, reverse=True)]


def next_server(core: Core, leg: Leg) -> Target | None:
    """The target that takes the place of one whose server has failed: the next server of its name (RFC 3263 §4.3).

    None: there is none, or the failure is another one: an answer of the user or the service is an answer.
    """
    target, attempt = leg.target, leg.attempt
    assert target is not None
    assert attempt is not None
    silent = attempt.status == 408 and attempt.pdd_ms < 0
    if not target.servers or leg.uac is None or not (silent or attempt.status == 503):
        return None
    core.emit(ServerFailed(target.servers[0]))
    return replace(target, servers=target.servers[1:]) if len(target.servers) > 1 else None


def redirected(core: Core, leg: Leg, msg: Message) -> list[list[Target]]:
    """The Contacts of a redirect as targets by preference (RFC 3261 §8.1.3.4), where it may be followed.

    They lead only to addresses of configured peers: of the peer that redirects, or of any in its realm, as it or the
    dial allows. None was tried before in this call.
    """
    call = leg.call
    allowed = call.follow_redirects or core.settings.follow_redirects.get(leg.peer, "never")
    if msg.status not in _REDIRECTS or allowed == "never":
        return []
    targets: list[Target] = []
    tried = [parse_uri(attempt.uri) for attempt in call.attempts]
    for value in msg.get_all("Contact"):
        if call.redirects >= MAX_CONTACTS:
            core.note("warning", "too many redirects", call, leg=leg.name)
            break
        try:
            contact = parse_name_addr(value)
            uri = _to_be_called(contact.uri)
            if any(uri.equivalent(former) for former in tried):
                continue
            target = _target(core, leg, uri, allowed)
        except (SbcError, KeyError) as error:
            core.note("warning", "redirect not followed", call, leg=leg.name, contact=value, reason=str(error))
            continue
        tried.append(uri)
        targets.append(replace(target, q=_q(contact)))
        call.redirects += 1
    return by_q(targets)


def _to_be_called(contact: Uri) -> Uri:
    """The Request-URI that a Contact asks for."""
    if contact.scheme != "sip" or not contact.host:
        raise SipSyntaxError(f"{contact.scheme}: only SIP URIs are followed")
    kept = {name.lower(): value for name, value in contact.params.items() if name.lower() in _KEPT_PARAMS}
    return contact._replace(password=None, params=kept or NO_PARAMS, headers="")


def _target(core: Core, leg: Leg, uri: Uri, allowed: str) -> Target:
    """The target that a Contact is. Raises SipSyntaxError where it leads to nobody whom it may lead to."""
    former = leg.target
    assert former is not None
    there = parse_uri(former.uri)
    if not ip_literal(uri.address):
        if uri.host.lower() != there.host.lower() or uri.port != there.port:
            raise SipSyntaxError(f"{uri.host} is no address, and not the name that was dialled")
        return replace(former, uri=str(uri))
    flow = flow_to(core, uri, leg.realm)
    source = core.settings.admission.admit(flow.listener, flow.host, flow.port, flow.connection)
    if source is None or core.requests.is_ours(uri):
        raise SipSyntaxError(f"{uri.address} is an address of no peer in realm {leg.realm}")
    if allowed == "peer" and source.peer != leg.peer:
        raise SipSyntaxError(f"{uri.address} is an address of peer {source.peer}, not of {leg.peer or 'any'}")
    return Target(str(uri), leg.realm, flow, source.peer, former.timeout_s, source.peer)


def _q(contact: NameAddr) -> float:
    """The preference of a Contact; 1 where it says none that could be read."""
    try:
        q = float(contact.param("q") or 1)
    except ValueError:
        return 1.0
    return q if 0 <= q <= 1 else 1.0


def is_loop(core: Core, msg: Message, peer: str) -> bool:
    """Whether an INVITE is one of ours that proxies have brought back, and its question was asked before: the same
    Request-URI by the same peer, whose answer would be the same again (RFC 3261 §16.3 step 4).

    One that comes back otherwise is a spiral, and a call. Call-ID and From tag tell: a proxy keeps them, and by the
    Call-ID whatever comes back reaches the worker that sent it. Behind a B2BUA only Max-Forwards ends a loop.
    """
    asked = msg
    for _ in range(MAX_ROUNDS):
        leg = core.legs.get(asked.from_tag)
        if leg is None or leg.dialog.call_id != asked.call_id or leg.call.request is None or leg is leg.call.a:
            return False
        asked = leg.call.request
        came = asked.uri if leg.call.changes is None else leg.call.ruri  # before a route changed it
        if leg.call.a.peer == peer and came == msg.uri:
            return True
    return True


def room(call: Call) -> int:
    """How many further branches may ring now."""
    return max(0, MAX_AT_ONCE - sum(leg.state in OPEN for leg in call.branches))


def breadth_of(call: Call) -> int:
    """The Max-Breadth of A's INVITE: how many branches may come of it at once, here and further on (RFC 5393 §5).
    0: it does not say; -1: none."""
    assert call.request is not None  # only a resumed call has none, and that one was answered
    text = call.request.get("Max-Breadth")
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 6):
        return 0
    return int(text) or -1


def share(branches: int, breadth: int) -> tuple[int, int]:
    """How many of so many branches may be tried at once, and the Max-Breadth of each; 0 leaves that open."""
    if not branches or (branches == 1 and not breadth):
        return branches, 0
    at_once = min(branches, breadth or BREADTH)
    return at_once, (breadth or BREADTH) // at_once
