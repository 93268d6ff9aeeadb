"""What two instances on one machine must not share: folders, names, addresses with their ports."""

from __future__ import annotations

from collections.abc import Iterator

from sbc.config.models import Config

_WILD = ("0.0.0.0", "::")


def clashes(one: Config, other: Config) -> list[str]:
    """A sentence for each thing that both want for themselves; empty: they can run side by side."""
    found = []
    if one.node == other.node:
        found.append(f"node: both are called {one.node}, and a store or a peer would take them for one")
    folders = ("run_dir", "state_dir")
    found += [f"{key}: both use {getattr(one, key)}" for key in folders if getattr(one, key) == getattr(other, key)]
    for key in ("spool", "csv"):
        value = getattr(one.cdr, key)
        if value and value == getattr(other.cdr, key):
            found.append(f"cdr.{key}: both write {value}")
    taken = list(_sockets(other))
    for key, kind, host, low, high in _sockets(one):
        for key_there, kind_there, host_there, low_there, high_there in taken:
            same_host = host == host_there or host in _WILD or host_there in _WILD
            if kind == kind_there and same_host and low <= high_there and low_there <= high:
                ports = str(max(low, low_there)) if low == high or low_there == high_there else f"{low}-{high}"
                found.append(f"{key}: {host} port {ports} ({kind}) is also that of {key_there} of the other one")
    if one.ha is not None and other.ha is not None:
        both = {str(it.address.ip) for it in one.ha.addresses} & {str(it.address.ip) for it in other.ha.addresses}
        found += [f"ha.addresses: {address} is in both groups, and would be on one machine only" for address in both]
    return found


def _sockets(config: Config) -> Iterator[tuple[str, str, str, int, int]]:
    """All that is bound: key, udp or tcp, host, first and last port."""
    for name, realm in config.realms.items():
        for listen in realm.listen:
            kind = "udp" if listen.transport == "udp" else "tcp"
            yield f"realms.{name}.listen", kind, str(listen.host), listen.port, listen.port
        low, high = realm.media.ports
        yield f"realms.{name}.media", "udp", str(realm.media.address), low, high
    if config.ha is not None:
        for path in config.ha.paths:
            host, port = path.local
            yield "ha.paths", "udp", host, port, port  # and TCP, for media
            if config.store == "embedded":
                yield "ha.store_port", "tcp", host, config.ha.store_port, config.ha.store_port
    if config.management.metrics:
        host, _, number = config.management.metrics.rpartition(":")
        yield "management.metrics", "tcp", host.strip("[]"), int(number), int(number)
