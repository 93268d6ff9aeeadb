"""What is done to the messages of one peer where they come in and where they leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sbc.policy.header_rules import HeaderRules

if TYPE_CHECKING:
    from sbc.config.models import Config


@dataclass(frozen=True, slots=True)
class WirePolicy:
    """``inbound`` and ``outbound``: the rules of the peer's realm, then its own."""

    inbound: HeaderRules
    outbound: HeaderRules


def policies(config: Config) -> Mapping[str, WirePolicy]:
    """By peer, for those that have any."""
    found = {}
    for name, peer in config.peers.items():
        of_realm, own = config.realms[peer.realm].header_rules, peer.header_rules
        inbound = HeaderRules((*of_realm.inbound, *own.inbound), config.header_rules)
        outbound = HeaderRules((*of_realm.outbound, *own.outbound), config.header_rules)
        if inbound or outbound:
            found[name] = WirePolicy(inbound, outbound)
    return found
