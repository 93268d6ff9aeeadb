"""A pair of nodes: how each knows the other, what they share, and the addresses that go with the active one."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sbc.config.base import HOST, Model

_ENDPOINT = re.compile(rf"^(?P<host>{HOST}):(?P<port>\d{{1,5}})$")
_VIRTUAL = re.compile(r"^(?P<address>[0-9a-fA-F:.]+/\d{1,3}) on (?P<interface>[^\s/]{1,15})$")


def _endpoint(value: Any) -> Any:  # Any: whatever the YAML held
    if not isinstance(value, str):
        return value
    match = _ENDPOINT.match(value)
    if match is None:
        raise ValueError(f"{value!r} is not address:port, for example 10.9.0.1:7400")
    return (str(ipaddress.ip_address(match["host"].strip("[]"))), int(match["port"]))


def _version(host: str) -> int:
    return ipaddress.ip_address(host).version


Endpoint = Annotated[tuple[str, Annotated[int, Field(ge=1024, le=65535)]], BeforeValidator(_endpoint)]


class HeartbeatPath(Model):
    """One way between the nodes; both name it in the same order of paths, each with its own end as ``local``."""

    local: Endpoint
    peer: Endpoint

    @model_validator(mode="after")
    def _one_version(self) -> HeartbeatPath:
        if _version(self.local[0]) != _version(self.peer[0]):
            raise ValueError("local and peer must both be IPv4 or both IPv6")
        if self.local == self.peer:
            raise ValueError("local and peer are the same: peer is the other node's end")
        return self


class VirtualAddress(Model):
    """Written ``192.0.2.10/24 on eth0``: on the active node only."""

    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    interface: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:  # Any: whatever the YAML held
        if not isinstance(value, str):
            return value
        match = _VIRTUAL.match(value)
        if match is None:
            raise ValueError(f"{value!r} is not address/prefix on interface, for example 192.0.2.10/24 on eth0")
        return {"address": match["address"], "interface": match["interface"]}


def _paths(value: list[HeartbeatPath]) -> list[HeartbeatPath]:
    if len({path.local for path in value}) < len(value):
        raise ValueError("two paths have the same local end: a second path is worth something on another network only")
    return value


class Ha(Model):
    """Without it a node is alone."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,61}$")]  # of this machine, unlike the other one's
    key_file: str  # the same 32 octets or more on both, made with sbc ha keygen
    paths: Annotated[list[HeartbeatPath], Field(min_length=1, max_length=2), AfterValidator(_paths)]
    store_port: Annotated[int, Field(ge=1024, le=65535)] = 7401  # of embedded stores, at the ends of the paths
    addresses: list[VirtualAddress] = []  # none: something else moves them
    # On one of the two: where both start, or sbc ha switch --preferred is said, it is this one that serves. By itself
    # it takes nothing from a node that serves.
    prefers: bool = False
    # Routers, one of each network, that answer ICMP echo: where stores are embedded, only a node that reaches one of
    # them takes over from a silent peer. None: silence is enough.
    witness: Annotated[list[ipaddress.IPv4Address | ipaddress.IPv6Address], Field(max_length=8)] = []
    # Who says which node is active: the lease with heartbeats, or a VRRP daemon by its notify script.
    decided_by: Literal["lease", "keepalived"] = "lease"
    heartbeat_ms: Annotated[int, Field(ge=50, le=5000)] = 200
    misses: Annotated[int, Field(ge=2, le=20)] = 3  # heartbeats in a row, on all paths: then the peer is silent
    lease_ms: Annotated[int, Field(ge=400, le=30_000)] = 1000

    @model_validator(mode="after")
    def _timing(self) -> Ha:
        if self.lease_ms < self.heartbeat_ms * self.misses:
            raise ValueError(
                f"lease_ms: {self.lease_ms} is less than {self.misses} heartbeats of {self.heartbeat_ms} ms: a node"
                " would lose the lease before its peer is known to be silent"
            )
        if self.decided_by == "keepalived" and self.witness:
            raise ValueError("witness: with decided_by: keepalived it is keepalived that decides")
        ours = {end[0] for path in self.paths for end in (path.local, path.peer)}
        ours |= {str(one.address.ip) for one in self.addresses}
        for one in self.witness:
            if str(one) in ours:
                raise ValueError(f"witness: {one} is of one of the two nodes, and would answer only that one")
        if self.decided_by == "keepalived" and self.addresses:
            raise ValueError("addresses: with decided_by: keepalived it is keepalived that has the addresses")
        return self
