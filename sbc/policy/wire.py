"""What is done to the messages of one peer where they come in and where they leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sbc.policy.draft import Draft
from sbc.policy.header_rules import Context, HeaderRules, Refusal
from sbc.policy.number_plan import Numbers

if TYPE_CHECKING:
    from sbc.config.models import Config


@dataclass(frozen=True, slots=True)
class WirePolicy:
    """``inbound`` and ``outbound``: the rules of the peer's realm, then its own. ``numbers``: how it writes them."""

    inbound: HeaderRules
    outbound: HeaderRules
    numbers: Numbers | None = None

    def arriving(self, draft: Draft, context: Context) -> Refusal | None:
        """Rules see the message as it came; what is behind them sees numbers as E.164."""
        refusal = self.inbound.apply(draft, context)
        if refusal is None and self.numbers is not None:
            self.numbers.arriving(draft, context.addresses, context.told)
        return refusal

    def leaving(self, draft: Draft, context: Context) -> None:
        """Rules see the message as the peer will."""
        if self.numbers is not None:
            self.numbers.leaving(draft, context.addresses, context.told)
        self.outbound.apply(draft, context)


def policies(config: Config) -> Mapping[str, WirePolicy]:
    """By peer, for those that have any."""
    plans = {name: Numbers(name, plan) for name, plan in config.number_plans.items()}
    found = {}
    for name, peer in config.peers.items():
        realm = config.realms[peer.realm]
        of_realm, own = realm.header_rules, peer.header_rules
        inbound = HeaderRules((*of_realm.inbound, *own.inbound), config.header_rules)
        outbound = HeaderRules((*of_realm.outbound, *own.outbound), config.header_rules)
        numbers = plans.get(peer.number_plan or realm.number_plan)
        if inbound or outbound or numbers is not None:
            found[name] = WirePolicy(inbound, outbound, numbers)
    return found
