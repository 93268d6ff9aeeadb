"""Who the sources and the destinations of a script are: the peers and directions that its conditions speak of.

A chain of ``src_ip == ...`` becomes addresses of peers with a direction, and the condition a question for that
direction. Addresses that the script never tells apart are one peer. A literal destination is the gateway of a peer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sbc.importer.tree import (
    Address,
    Assign,
    Binary,
    Call,
    Do,
    Expression,
    If,
    Literal,
    Name,
    Not,
    Script,
    Statement,
    Variable,
    expressions,
    statements,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_DIRECTION: Final = re.compile(r"\bfrom_\w+")
_DESTINATION: Final = re.compile(
    r"^(?:sips?:|(?P<before>udp|tcp|tls|wss?):)?(?:[^@\s]*@)?(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>\d{1,5}))?"
    r"(?P<params>(?:;[^\s]*)?)$"
)
# Functions whose first argument says where a request goes.
DESTINATIONS: Final = frozenset(
    {
        *("forward", "t_relay", "rewritehost", "rewritehostport", "rewriteuri", "sethost", "sethostport", "seturi"),
        *("setdsturi", "set_dsturi"),
    }
)
SELF: Final = "myself"


@dataclass(frozen=True, slots=True)
class Destination:
    """A literal place to send requests to."""

    host: str
    port: int
    transport: str
    line: int

    @property
    def uri(self) -> str:
        """As a gateway is written."""
        port = f":{self.port}" if self.port != 5060 else ""
        transport = f";transport={self.transport}" if self.transport not in ("", "udp") else ""
        return f"sip:{self.host}{port}{transport}"

    @property
    def address(self) -> str | None:
        """The IP address; None for a host name."""
        try:
            return str(ipaddress.ip_address(self.host.strip("[]")))
        except ValueError:
            return None


@dataclass(slots=True)
class Peer:
    """A peer of the configuration that is made. ``lines`` are where the script names it."""

    name: str
    addresses: list[str]
    direction: str
    lines: list[int]
    gateway: str = ""


@dataclass(slots=True)
class Peers:
    """What the script knows of the world. ``own`` are the addresses that it listens on."""

    script: Script
    own: tuple[str, ...]
    peers: list[Peer] = field(default_factory=list)
    names: list[Destination] = field(default_factory=list)  # destinations that are host names
    _conditions: dict[frozenset[Network], tuple[str, int]] = field(default_factory=dict)
    _directions: dict[Network, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for block in self.script.blocks:
            for one in statements(block.body):
                if isinstance(one, If):
                    self._look(one)
        self._form()

    def directions(self, networks: frozenset[Network]) -> list[str]:
        """The directions of all sources that are among these addresses."""
        found = {name for network, name in self._directions.items() if _within(network, networks)}
        return sorted(found)

    def sources(self, condition: Expression) -> tuple[frozenset[Network], bool] | None:
        """The networks that a condition asks the source for, and whether it asks for any other; None where it does
        not ask for the source alone."""
        if isinstance(condition, Binary) and condition.sign in ("==", "!=") and is_source(condition.left):
            networks = self._networks(condition.right)
            return (networks, condition.sign == "!=") if networks else None
        if isinstance(condition, Binary) and condition.sign == "or":
            left, right = self.sources(condition.left), self.sources(condition.right)
            if left is not None and right is not None and not left[1] and not right[1]:
                return left[0] | right[0], False
        return None

    def _networks(self, value: Expression) -> frozenset[Network]:
        if isinstance(value, Name) and value.text == SELF:
            return frozenset(ipaddress.ip_network(host) for host in self.own)
        text = value.text if isinstance(value, Address) else value.value if isinstance(value, Literal) else ""
        try:
            return frozenset({ipaddress.ip_network(text, strict=False)})
        except (ValueError, TypeError):
            return frozenset()

    def _look(self, one: If) -> None:
        """Note what a condition asks the source for, the longest chains first, and what the script calls it."""
        for part in _parts(one.condition):
            asked = self.sources(part)
            if asked is not None:
                self._conditions.setdefault(asked[0], (self._called(one), part.line))

    def _called(self, one: If) -> str:
        """``from_...`` in a comment beside the condition, or as the route that it leads to; '' for neither."""
        last = one.then[0].line if one.then else one.line
        comments = " ".join(self.script.comments.get(line, "") for line in range(one.line, last + 1))
        match = _DIRECTION.search(comments)
        if match is not None:
            return match[0]
        for inner in one.then:
            if isinstance(inner, Do) and inner.call.name == "route" and inner.call.arguments:
                name = inner.call.arguments[0]
                called = name.text if isinstance(name, Name) else name.value if isinstance(name, Literal) else ""
                if isinstance(called, str) and called.startswith("from_"):
                    return called
        return ""

    def _form(self) -> None:
        """Make peers of the addresses that the script does not tell apart, and of its destinations."""
        networks = sorted({one for asked in self._conditions for one in asked}, key=lambda n: (n.version, n))
        classes: dict[frozenset[frozenset[Network]], list[Network]] = {}
        for network in networks:
            asking = frozenset(asked for asked in self._conditions if _within(network, asked))
            classes.setdefault(asking, []).append(network)
        targets = {found.address: found for found in self._destinations() if found.address is not None}
        taken: set[str] = set()
        for asking, members in classes.items():
            said = [self._conditions[asked] for asked in asking]
            lines = sorted({line for _, line in said})
            own = {name for name, _ in said if name} if len(asking) == 1 else set()
            direction = own.pop() if own else "from_" + _word(str(members[0]))
            direction = _free(direction, taken)
            for network in members:
                self._directions[network] = direction
            gateways = [n for n in members if n.num_addresses == 1 and str(n.network_address) in targets]
            rest = [n for n in members if n not in gateways]
            name = direction.removeprefix("from_").replace("_", "-")
            for network in gateways:
                peer = name if len(members) == 1 else f"{name}-{_word(str(network.network_address)).replace('_', '-')}"
                gateway = targets.pop(str(network.network_address)).uri
                self.peers.append(Peer(peer, [str(network.network_address)], direction, lines, gateway))
            if rest:
                self.peers.append(Peer(name, [_shown(network) for network in rest], direction, lines))
        for address, target in targets.items():
            name = "to-" + _word(address).replace("_", "-")
            self.peers.append(Peer(name, [address], _free("from_" + _word(address), taken), [target.line], target.uri))

    def _destinations(self) -> Iterator[Destination]:
        """Every literal destination; host names are kept apart."""
        for block in self.script.blocks:
            for one in statements(block.body):
                for found in _destinations_of(one):
                    if found.address is not None:
                        if found.address not in self.own:
                            yield found
                    elif found.host not in {other.host for other in self.names}:
                        self.names.append(found)


def is_source(one: Expression) -> bool:
    """Whether it is the address that a message came from."""
    return (isinstance(one, Name) and one.text == "src_ip") or (isinstance(one, Variable) and one.text == "$si")


def destination(text: str, line: int) -> Destination | None:
    """A URI, ``transport:host:port`` or ``host:port`` as a place to send to; None for what is none."""
    match = _DESTINATION.match(text)
    if match is None:
        return None
    port = int(match["port"] or 5060)
    transport = re.search(r";transport=(\w+)", match["params"].lower())
    if not 0 < port < 65536:
        return None
    return Destination(match["host"], port, transport[1] if transport else match["before"] or "", line)


def _destinations_of(one: Statement) -> Iterator[Destination]:
    found: list[tuple[str, int]] = []
    if isinstance(one, Assign) and one.target.text in ("$du", "$rd", "$ru") and isinstance(one.value, Literal):
        found.append((str(one.value.value), one.line))
    conditions = one.condition if isinstance(one, If) else one.call if isinstance(one, Do) else None
    calls = [inner for inner in expressions(conditions) if isinstance(inner, Call)]
    found += [(_argument(call), call.line) for call in calls if call.name in DESTINATIONS and call.arguments]
    for text, line in found:
        place = destination(text, line) if text and "$" not in text else None
        if place is not None:
            yield place


def _argument(call: Call) -> str:
    """The first argument as text; an address with a port behind it is one."""
    first = call.arguments[0]
    text = ""
    if isinstance(first, Literal):
        text = str(first.value)
    elif isinstance(first, Address | Name):
        text = first.text
    if isinstance(first, Address) and len(call.arguments) > 1 and isinstance(call.arguments[1], Literal):
        text += f":{call.arguments[1].value}"
    return "" if text.startswith("0x") or text.isdigit() else text


def _parts(condition: Expression) -> Iterator[Expression]:
    """The largest parts of a condition that may ask for a source."""
    if isinstance(condition, Not):
        yield from _parts(condition.operand)
    elif isinstance(condition, Binary) and condition.sign == "or":
        chain = list(_chain(condition))
        if all(isinstance(one, Binary) and one.sign == "==" and is_source(one.left) for one in chain):
            yield condition
        else:
            for one in chain:
                yield from _parts(one)
    elif isinstance(condition, Binary) and condition.sign == "and":
        yield from _parts(condition.left)
        yield from _parts(condition.right)
    else:
        yield condition


def _chain(condition: Expression) -> Iterator[Expression]:
    if isinstance(condition, Binary) and condition.sign == "or":
        yield from _chain(condition.left)
        yield from _chain(condition.right)
    else:
        yield condition


def _within(network: Network, among: frozenset[Network]) -> bool:
    return any(network.version == other.version and network.subnet_of(other) for other in among)  # type: ignore[arg-type]  # both of one version


def _shown(network: Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _word(text: str) -> str:
    return re.sub(r"\W+", "_", text.removesuffix("/32").removesuffix("/128")).strip("_")


def _free(name: str, taken: set[str]) -> str:
    """A name that is not taken yet, and is from now on."""
    number, found = 2, name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found
