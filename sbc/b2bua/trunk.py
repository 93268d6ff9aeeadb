"""What calls must know of a peer at which we are registered (:mod:`sbc.services.trunk_registration`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sbc.errors import SbcError
from sbc.sip.flow import Flow

if TYPE_CHECKING:
    from sbc.b2bua.call import Target
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg


class Trunk(NamedTuple):
    """``flow``: the server that took the registration. ``routes``: its Service-Route (RFC 3608), by which requests of
    ours go."""

    registered: bool
    flow: Flow | None = None
    routes: tuple[str, ...] = ()


UNREGISTERED = Trunk(False)


def placed(core: Core, target: Target) -> Target:
    """The target as a registration has it: where a Service-Route was given, by the server that gave it (RFC 3608 §6.1),
    before others of its name. Raises SbcError for a peer that must be registered and is not."""
    trunk = core.trunks.get(target.peer, UNREGISTERED)
    if not trunk.registered:
        if target.peer in core.settings.registration_required:
            raise SbcError(f"not registered at {target.peer}")
        return target
    flow, servers = trunk.flow, target.servers
    if not trunk.routes or flow is None:
        return target
    if not servers:
        return replace(target, flow=flow)
    if flow in servers:
        return replace(target, servers=(flow, *(server for server in servers if server != flow)))
    return target


def preload(core: Core, leg: Leg) -> None:
    """The first request of a leg carries the Service-Route of its peer as Route."""
    trunk = core.trunks.get(leg.peer)
    leg.dialog.start(trunk.routes if trunk is not None and trunk.registered and leg.flow == trunk.flow else ())
