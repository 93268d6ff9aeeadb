"""REFER at the door (RFC 3515): what it asks for, and whether it is refused, passed on, or done by us.

By the ``transfers`` of its sender's peer: ``refuse`` answers 603; ``pass`` sends it to the other side, which calls
the target itself, with everything in it that names this side written anew; ``terminate`` makes us that side's agent:
:mod:`sbc.b2bua.transfer`. Outside a dialog a REFER is refused (:mod:`sbc.b2bua.refuse`): nobody is there to refer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sbc.b2bua import replaces, shape, transfer
from sbc.b2bua.relay import receive as relay
from sbc.b2bua.tables import CallState
from sbc.dialog.replaces import Replaces, replaces_of
from sbc.errors import SipSyntaxError
from sbc.sip.address import NameAddr, parse_name_addr
from sbc.sip.message import Message
from sbc.sip.uri import Uri
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

Headers = list[tuple[str, str]]


class Wish(NamedTuple):
    """What a REFER asks for: a call to ``uri``, in the place of a dialog where ``replaces`` names one.

    ``silent``: its sender wants no subscription (RFC 4488).
    """

    uri: Uri
    replaces: Replaces | None
    referred_by: NameAddr | None
    silent: bool


def read(msg: Message) -> Wish:
    """Raises SipSyntaxError with the status that the REFER deserves."""
    value = msg.get("Refer-To")
    if value is None:  # RFC 3515 §2.4.2; that there are not two is the parser's care
        raise SipSyntaxError("REFER without Refer-To")
    uri = parse_name_addr(value).uri
    if uri.scheme not in ("sip", "tel"):
        raise SipSyntaxError("a Refer-To that is no call over SIP", 416)
    if (uri.param("method") or "INVITE") != "INVITE":
        raise SipSyntaxError("a REFER to something else than a call", 603)
    by = msg.get("Referred-By")
    silent = (msg.get("Refer-Sub") or "").partition(";")[0].strip().lower() == "false"
    return Wish(uri._replace(headers=""), replaces_of(uri.headers), parse_name_addr(by) if by else None, silent)


def receive(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> None:
    """A REFER inside a dialog."""
    policy = core.settings.transfers.get(leg.peer, "refuse")
    if policy == "refuse":
        core.count("TRANSFERS_REFUSED")
        core.refuse(tx, 603, now, established=True)
        return
    try:
        wish = read(msg)
    except SipSyntaxError as error:
        core.count("TRANSFERS_REFUSED")
        core.refuse(tx, error.status, now, established=True)
        return
    if leg.call.state is not CallState.UP or leg.call.moving is not None or leg.call.joining is not None:
        core.count("GLARE_REFUSED")
        core.refuse(tx, 491, now, established=True)
    elif wish.replaces is None:
        _serve(core, leg, wish, tx, policy, None, now)
    else:
        then = partial(_serve, core, leg, wish, tx, policy)
        replaces.find(core, wish.replaces, leg.peer, leg.call.shard, then, now)


def _serve(core: Core, leg: Leg, wish: Wish, tx: ServerTransaction, policy: str, place: Leg | None, now: float) -> None:
    """``place`` is our side of the dialog that is to be replaced, None where there is none."""
    if leg.call.state is not CallState.UP or leg.call.moving is not None:  # meanwhile
        core.refuse(tx, 481, now, established=True)
    elif wish.replaces is not None and (place is None or place.call is leg.call):
        core.count("TRANSFERS_REFUSED")
        core.refuse(tx, 481, now, established=True)
    elif policy == "terminate":
        transfer.begin(core, leg, wish, tx, place, now)
    else:
        _pass_on(core, leg, wish, tx, place, now)


def _pass_on(core: Core, leg: Leg, wish: Wish, tx: ServerTransaction, place: Leg | None, now: float) -> None:
    core.count("TRANSFERS_PASSED")
    other = leg.call.other(leg)
    if other is not None:
        tx.user = _headers(core, wish, other, place)
    relay(core, leg, tx.request, tx, now)


def pass_on(core: Core, subject: transfer.Transfer, now: float) -> bool:
    """A route leaves it to the other side after all. False: it is decided otherwise already."""
    wish, by = subject.wish, subject.by
    tx = subject.withdraw()
    if tx is None or wish is None:
        return False
    _pass_on(core, by, wish, tx, None, now)
    return True


def _headers(core: Core, wish: Wish, other: Leg, place: Leg | None) -> Headers:
    """What the other side gets of a REFER: our own host there, so that its call comes to us again."""
    host = core.hosts[other.flow.listener]
    target = NameAddr("", wish.uri)
    uri = shape.rehomed(target, host)
    if place is not None:
        uri = f"{uri[:-1]}?{replaces.alias(place).in_uri()}>"
    headers = [("Refer-To", uri)]
    if wish.referred_by is not None:
        headers.append(("Referred-By", shape.rehomed(wish.referred_by, host)))
    if wish.silent:
        headers.append(("Refer-Sub", "false"))
    return headers


def resubscribe(core: Core, leg: Leg, msg: Message, tx: ServerTransaction, now: float) -> bool:
    """A SUBSCRIBE about a REFER that we serve (RFC 3515 §2.4.4): True when it was one, and is answered."""
    moving = leg.call.moving
    notifier = moving.notifier if moving is not None and leg is moving.by else None
    if notifier is None or not notifier.is_for(msg.get("Event") or ""):
        return False
    asked = (msg.get("Expires") or "").strip()
    expires_s = notifier.renew(int(asked) if asked.isdigit() and len(asked) < 10 else 3600, now)
    core.respond(tx, 200, now, [("Contact", leg.dialog.contact), ("Expires", str(expires_s))])
    return True
