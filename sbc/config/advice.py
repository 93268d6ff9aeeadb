"""What is allowed, and yet hardly meant: told by ``sbc check``, and in the way of nothing."""

from __future__ import annotations

from sbc.config.models import Config
from sbc.config.store_url import ENOUGH, Cluster, Sentinels, parse_store_url
from sbc.errors import ConfigError


def advice(config: Config) -> list[str]:
    """A sentence each, for a configuration without faults."""
    if config.store == "none":
        return []
    try:
        via = parse_store_url(config.store, config.run_dir).via
    except ConfigError:
        return []  # a fault, which is told as one
    found = []
    count = len(via.ends) if via is not None else 0
    if isinstance(via, Sentinels) and count < ENOUGH:
        found.append(
            f"store: {'one sentinel is' if count == 1 else f'{count} sentinels are'} named: a master that dies is"
            f" replaced when most of the sentinels agree, so run {ENOUGH} on {ENOUGH} machines, and name them all"
        )
    if isinstance(via, Cluster) and count < ENOUGH:
        found.append(
            f"store: {'one node' if count == 1 else f'{count} nodes'} of the cluster {'is' if count == 1 else 'are'}"
            f" named: name {ENOUGH} or more, since a start finds the others by one that is alive"
        )
    return found
