"""Audio that goes one way: what a call remembers of it, and what its likely reason is, in plain words."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sbc.b2bua.tables import CallState

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core


def note(core: Core, call: Call, leg: str) -> str:
    """The media plane found that ``leg`` should send and does not, while its peer does. Returns the side, a or b; ""
    where it does not matter: before the answer (many phones send nothing while they hear a ringing tone), or of a leg
    that is none of the call any more."""
    if call.state is not CallState.UP:
        return ""
    side = "a" if leg == call.a.name else "b" if call.b is not None and leg == call.b.name else ""
    if side and side not in call.one_way:
        call.one_way = "".join(sorted(call.one_way + side))
        core.touch(call)
    return side


def why(side: str, event: Mapping[str, Any]) -> str:  # Any: JSON values of the notification, see media.worker
    """The likely reason. ``event`` tells what the leg described, whether it was ever heard, and how many packets of its
    port were refused meanwhile."""
    name = side.upper()
    described = str(event.get("described", ""))
    refused = int(event.get("refused", 0))
    if refused:
        return (
            f"{name} sends nothing that can be believed: {refused} packets came to its port from another address than"
            f" its SDP said ({described or 'none'}), or not under its SRTP key: an address that NAT changed? Media"
            " profile phone-behind-nat learns it"
        )
    if event.get("heard"):
        return f"{name} has stopped sending: muted without saying so, silence suppression, or its network has gone"
    if _is_private(described):
        return (
            f"{name} sends nothing: firewall or NAT on its side? Its SDP said {described}, a private address: is ours"
            " one that it can reach (advertise)?"
        )
    return (
        f"{name} sends nothing: firewall on its side, or our media address cannot be reached from there (advertise)?"
        f" Its SDP said {described or 'no address'}"
    )


def _is_private(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_private
    except ValueError:
        return False
