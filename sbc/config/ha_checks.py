"""Whether what a pair of nodes needs fits the rest of the configuration and this machine."""

from __future__ import annotations

import os
from pathlib import Path

from sbc.config.models import Config
from sbc.config.source import Source
from sbc.config.store_url import parse_store_url
from sbc.errors import ConfigError

KEY_BYTES = 32


def check(config: Config, read: Source) -> None:
    """Add every fault of ``ha``."""
    ha = config.ha
    if ha is None:
        return
    _key(ha.key_file, read)
    if config.store == "none":
        read.fault(("store",), "a pair needs a store: the node that takes over resumes the calls from there")
    elif config.store == "embedded":
        if len(ha.paths) < 2 and ha.decided_by == "lease":
            read.fault(("ha", "paths"), "with store: embedded heartbeats alone decide, so there must be two paths")
    elif config.store.startswith("unix://"):
        read.fault(
            ("store",),
            "a pair needs a store that both nodes reach, by redis://, sentinel:// or cluster://, or embedded",
        )
    else:
        _place_of_store(config, read)
    if ha.witness and config.store not in ("embedded", "none"):
        read.fault(("ha", "witness"), "the store is the witness here: witness is for store: embedded")
    for number, virtual in enumerate(ha.addresses):
        if not os.path.exists(f"/sys/class/net/{virtual.interface}"):
            read.fault(("ha", "addresses", number), f"there is no interface '{virtual.interface}' on this machine")


def _key(path: str, read: Source) -> None:
    try:
        length = len(Path(path).read_bytes().strip())
    except OSError as error:
        if isinstance(error, PermissionError) and os.geteuid():
            return  # a worker that takes a reload over: only the supervisor reads it
        reason = (error.strerror or str(error)).lower()
        hint = ": make it with sbc ha keygen, and copy it to the other node" if not os.path.exists(path) else ""
        read.fault(("ha", "key_file"), f"cannot read {path}: {reason}{hint}")
        return
    if length < KEY_BYTES:
        read.fault(("ha", "key_file"), f"{path} holds {length} octets, and a key has at least {KEY_BYTES}")


def _place_of_store(config: Config, read: Source) -> None:
    """The store is a witness: one on either node would die with it, and then nobody could tell."""
    assert config.ha is not None
    try:
        address = parse_store_url(config.store, config.run_dir)
    except ConfigError:
        return  # told as a fault of the store
    sides = [{path.local[0] for path in config.ha.paths} | {"localhost", "127.0.0.1", "::1"}]
    sides.append({path.peer[0] for path in config.ha.paths})
    hosts = [host for host, _ in address.via.ends] if address.via is not None else [address.host]
    for side in sides:
        here = [host for host in hosts if host in side]
        if len(here) * 2 <= len(hosts):
            continue
        if address.via is None:
            text = (
                f"{here[0]} is one of the two nodes: a store there dies with it; use one elsewhere, or store: embedded,"
                " which keeps a copy on each"
            )
        else:
            text = (
                f"{len(here)} of the {len(hosts)} hosts are on one of the two nodes: without it the others are no"
                " majority, and replace no master; put one of them on a third machine"
            )
        read.fault(("store",), text)
