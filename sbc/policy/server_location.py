"""Locating SIP servers (RFC 3263): from a URI to an ordered list of transport, address and port. Sans-IO.

:func:`locate` is a generator that yields the DNS questions of one step, all to be asked at once, is sent their answers
in the same order, and returns the servers. Whoever drives it looks in a cache, asks a name server, or reads a test.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple

from sbc.errors import ResolveError
from sbc.sip.uri import Uri

SERVERS_MAX: Final = 8  # servers that one URI may lead to: nobody waits for a ninth
RECORDS_MAX: Final = 8  # SRV records followed; a hostile zone may hold thousands

_SERVICES: Final = {"sips+d2t": "tls", "sip+d2u": "udp", "sip+d2t": "tcp"}  # of NAPTR records, RFC 3263 §4.1
_SRV_PREFIXES: Final = {"tls": "_sips._tcp.", "udp": "_sip._udp.", "tcp": "_sip._tcp."}
_PORTS: Final = {"udp": 5060, "tcp": 5060, "tls": 5061}
_NAME_MAX: Final = 253  # octets of a host name (RFC 1035 §2.3.4)


class Question(NamedTuple):
    """A DNS name in lower case without its final dot, and the record type: NAPTR, SRV, A or AAAA."""

    name: str
    kind: str


class Naptr(NamedTuple):
    """RFC 3403 §4.1."""

    order: int
    preference: int
    flags: str
    service: str
    regexp: str
    replacement: str


class Srv(NamedTuple):
    """RFC 2782; the root as ``target`` ('') says that there is no such service."""

    priority: int
    weight: int
    port: int
    target: str


Record = Naptr | Srv | str  # a str is an address
# Empty: the name or the type does not exist. None: nobody could tell.
Answer = tuple[Record, ...] | None


class Path(NamedTuple):
    """What the asking side can speak: a transport (``udp``, ``tcp`` or ``tls``) over IP version 4 or 6."""

    transport: str
    version: int


class Server(NamedTuple):
    """Where to send: ``host`` is a canonical IP literal without brackets."""

    transport: str
    host: str
    port: int


Location = Generator[tuple[Question, ...], Sequence[Answer], list[Server]]


def is_name(host: str) -> bool:
    """Whether a host without brackets must be looked up: the last label of a name begins with a letter (RFC 3261 §25.1)
    and no name holds a colon."""
    return ":" not in host and not host.rpartition(".")[2][:1].isdigit()


def locate(uri: Uri, paths: Sequence[Path], draw: Callable[[], float]) -> Location:
    """Find the servers of a sip or sips URI, best first, reachable over ``paths`` (in order of liking).

    ``draw`` gives numbers of [0, 1) for the choice by weight. Raises ResolveError when there is no server, when none
    of ``paths`` will do, and when the DNS cannot tell. A name whose NAPTR records nobody can tell is looked up without
    them; one whose SRV records nobody can tell is not: its A records may name a web server.
    """
    name = (uri.param("maddr") or uri.address).strip("[]")
    transports = _transports(uri, paths)
    if not is_name(name):
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            raise ResolveError(f"{name[:64]!r} is no address") from None
        transport, version = transports[0], address.version
        if Path(transport, version) not in paths:
            raise ResolveError(f"{name}: no listener for {transport} over IPv{version}")
        return [Server(transport, str(address), uri.port or _PORTS[transport])]
    name = name.rstrip(".").lower()
    if not name or len(name) > _NAME_MAX:
        raise ResolveError(f"{name[:64]!r} is no host name")

    if uri.port:
        return (yield from _addresses([Srv(0, 0, uri.port, name)], [transports[0]], paths, name))
    services: list[tuple[str, str]] = []  # transport, name of its SRV records
    if uri.param("transport") is None:
        (answer,) = yield (Question(name, "NAPTR"),)
        services = _services(answer or (), transports)
    if not services:
        services = [(transport, _SRV_PREFIXES[transport] + name) for transport in transports]

    answers = yield tuple(Question(service, "SRV") for _, service in services)
    chosen: list[Srv] = []
    over: list[str] = []
    known = False  # whether SRV records exist at all, be it to say that there is no service
    for (transport, _), answer in zip(services, answers, strict=True):
        records = [record for record in answer or () if isinstance(record, Srv)]
        known = known or bool(records)
        usable = [record for record in records if record.target and record.port]
        for record in by_weight(usable, draw)[:RECORDS_MAX]:
            chosen.append(record)
            over.append(transport)
    if not chosen:
        if known:
            raise ResolveError(f"{name}: its SRV records say that there is no such service")
        if None in answers:
            raise ResolveError(f"{name}: no name server answers")
        # RFC 3263 §4.1, §4.2: neither NAPTR nor SRV, so the default transport at the default port.
        chosen, over = [Srv(0, 0, _PORTS[transports[0]], name)], [transports[0]]
    return (yield from _addresses(chosen, over, paths, name))


def by_weight(records: Iterable[Srv], draw: Callable[[], float]) -> list[Srv]:
    """SRV records in the order in which to try them: by priority, within one by chance in proportion to the weight
    (RFC 2782). Those of weight 0 stand first in the running sum, so that they are hardly ever chosen."""
    ordered: list[Srv] = []
    groups: dict[int, list[Srv]] = {}
    for record in records:
        groups.setdefault(record.priority, []).append(record)
    for priority in sorted(groups):
        group = sorted(groups[priority], key=lambda record: record.weight > 0)
        total = sum(record.weight for record in group)
        while len(group) > 1:
            mark = int(draw() * (total + 1))  # 0 to the sum, both included
            running = accumulate(record.weight for record in group)
            chosen = group.pop(next(index for index, weight in enumerate(running) if weight >= mark))
            total -= chosen.weight
            ordered.append(chosen)
        ordered += group
    return ordered


def _transports(uri: Uri, paths: Sequence[Path]) -> list[str]:
    """The transports that the URI leaves open, the default first (RFC 3263 §4.1)."""
    ours = [transport for transport in dict.fromkeys(path.transport for path in paths) if transport in _PORTS]
    secure = uri.scheme == "sips"
    wanted = uri.param("transport")
    if wanted is not None:
        wanted = wanted.lower()
        if secure and wanted == "tcp":  # RFC 3261 §26.2.2: TLS over it
            wanted = "tls"
        if wanted not in ours or (secure and wanted != "tls"):
            raise ResolveError(f"{uri.host}: no listener for {wanted}")
        return [wanted]
    open_to = [transport for transport in ours if not secure or transport == "tls"]
    if not open_to:
        raise ResolveError(f"{uri.host}: no listener for {uri.scheme}")
    default = "tls" if secure else "udp"
    open_to.sort(key=lambda transport: transport != default)
    return open_to


def _services(records: Iterable[Record], transports: Sequence[str]) -> list[tuple[str, str]]:
    """What NAPTR records offer of these transports, in their order: transport and name of the SRV records.

    The later ones serve when all servers of the first have failed.
    """
    found: list[tuple[str, str]] = []
    for record in sorted(record for record in records if isinstance(record, Naptr)):
        transport = _SERVICES.get(record.service.lower(), "")
        usable = record.flags.lower() == "s" and not record.regexp and record.replacement
        if usable and transport in transports and (transport, record.replacement) not in found:
            found.append((transport, record.replacement))
    return found[:SERVERS_MAX]


def _addresses(chosen: Sequence[Srv], over: Sequence[str], paths: Sequence[Path], name: str) -> Location:
    """The addresses of hosts, all asked for at once, in the order of the hosts."""
    questions: dict[Question, None] = {}
    for record, transport in zip(chosen, over, strict=True):
        for path in paths:
            if path.transport == transport:
                questions[Question(record.target, "A" if path.version == 4 else "AAAA")] = None
    answers = dict(zip(questions, (yield tuple(questions)), strict=True))
    servers: dict[Server, None] = {}
    for record, transport in zip(chosen, over, strict=True):
        for path in paths:
            if path.transport != transport:
                continue
            answer = answers.get(Question(record.target, "A" if path.version == 4 else "AAAA"))
            for host in answer or ():
                if isinstance(host, str) and (address := _unicast(host, path.version)):
                    servers[Server(transport, address, record.port)] = None
    if not servers:
        if None in answers.values():
            raise ResolveError(f"{name}: no name server answers")
        raise ResolveError(f"{name}: no address to reach it at")
    return list(servers)[:SERVERS_MAX]


@lru_cache(4096)
def _unicast(host: str, version: int) -> str:
    """The canonical form of an address that one host can have; '' for another."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if address.version != version or address.is_unspecified or address.is_multicast:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        return "" if address.ipv4_mapped else str(address)
    return "" if address == ipaddress.IPv4Address("255.255.255.255") else str(address)
