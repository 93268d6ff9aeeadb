"""What a message must have come by, besides its address, to be of a peer; and which of several peers is the nearest.

Of the peers that an address belongs to, the one with the longest prefix counts; of those with the same network, the one
that asks for more: for a certificate before a port, before a listener, before a transport, before nothing. Two that ask
for the same kinds of things must not both be able to be meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

IDENTITY_BITS = 23
Ports = tuple[int, int]


def _ports(value: Any) -> Any:  # Any: whatever the YAML held
    """``5060`` or ``5060-5070`` as lowest and highest."""
    low, dash, high = str(value).partition("-")
    if isinstance(value, bool | float) or not low.isdecimal() or not (high.isdecimal() or not dash):
        raise ValueError(f"{value!r} is neither a port nor a range, for example 5060 or 5060-5070")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"{value}: ports are 1-65535, the lower one first")
    return (first, last)


def _name(value: Any) -> Any:  # Any: whatever the YAML held
    if not isinstance(value, str):
        return value
    name = value.lower().removesuffix(".")
    labels = name.removeprefix("*.").split(".")
    if not all(label and all(c.isalnum() or c in "-_" for c in label) for label in labels):
        raise ValueError(f"{value!r} is no name of a certificate, for example sip.example.com or *.example.com")
    return name


def _list(value: Any) -> Any:  # Any: whatever the YAML held
    return value if isinstance(value, list) or value is None else [value]


class Match(BaseModel):
    """All that is named here must be so, in one of its ways."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # of the source; of a connection that the peer made it says little
    ports: Annotated[list[Annotated[Ports, BeforeValidator(_ports)]], BeforeValidator(_list)] = []
    transports: Annotated[list[Literal["udp", "tcp", "tls", "ws", "wss"]], BeforeValidator(_list)] = []
    listeners: Annotated[list[str], BeforeValidator(_list)] = []  # of its realm, as listen has them
    # names in the certificate that the other side has shown and proved (verify: peer)
    certificate: Annotated[list[Annotated[str, BeforeValidator(_name)]], BeforeValidator(_list)] = []

    @model_validator(mode="after")
    def _something(self) -> Match:
        if not (self.ports or self.transports or self.listeners or self.certificate):
            raise ValueError("name ports, transports, listeners or certificate: without them leave match out")
        return self

    def __str__(self) -> str:
        """In words, for the trace of a dry run."""
        ports = [str(low) if low == high else f"{low}-{high}" for low, high in self.ports]
        said = [
            f"{one} {' or '.join(values)}"
            for one, values in (
                ("certificate", self.certificate),
                ("port", ports),
                ("listener", self.listeners),
                ("transport", self.transports),
            )
            if values
        ]
        return ", ".join(said)


def rank(match: Match | None) -> tuple[bool, bool, bool, bool]:
    """How near a peer is: the greater one goes first."""
    if match is None:
        return (False, False, False, False)
    return (bool(match.certificate), bool(match.ports), bool(match.listeners), bool(match.transports))


def ambiguous(one: Match | None, other: Match | None) -> bool:
    """Whether two peers of the same network could both be meant, and neither is the nearer one."""
    if rank(one) != rank(other):
        return False
    if one is None or other is None:
        return True
    return (
        _meet([one.certificate, other.certificate], _same_name)
        and _meet([one.ports, other.ports], lambda a, b: a[0] <= b[1] and b[0] <= a[1])
        and _meet([one.listeners, other.listeners], lambda a, b: a == b)
        and _meet([one.transports, other.transports], lambda a, b: a == b)
    )


def _meet(both: Sequence[Sequence[Any]], same: Any) -> bool:  # Any: values of one kind, and what compares them
    first, second = both
    return not first or any(same(a, b) for a in first for b in second)


def _same_name(one: str, other: str) -> bool:
    return covers(one, other) or covers(other, one)


def covers(pattern: str, name: str) -> bool:
    """Whether a configured name, perhaps ``*.`` and more, stands for this one (RFC 6125 §6.4.3)."""
    name = name.lower().removesuffix(".")
    return pattern == name or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:] and "." in name)


def identity(realm: str, name: str) -> int:
    """The number by which a configured certificate name is known in the number of a connection: the same in every
    process, and after a reload; above 0."""
    digest = blake2b(f"{realm} {name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % ((1 << IDENTITY_BITS) - 1) + 1
