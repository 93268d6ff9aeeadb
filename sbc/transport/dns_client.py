"""Asks name servers: one question, one answer, over dnspython on the running event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.nameserver
import dns.resolver
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.NAPTR import NAPTR
from dns.rdtypes.IN.SRV import SRV

from sbc.policy.server_location import Naptr, Question, Record, Srv

TRY_S: Final = 0.4  # until the next name server is asked, or the same again: two tries fit into a call's budget
LIFETIME_S: Final = 4.0  # a late answer still serves the next call
DENIAL_TTL_S: Final = 30.0  # of a denial that does not say


class DnsClient:
    """Answers of the name servers of the system (``/etc/resolv.conf``), or of ``nameservers`` (address, port).

    Every try has a socket, a port and an id of its own; what comes from elsewhere or does not fit the question is
    passed over (RFC 5452), and a truncated answer is asked for again over TCP.
    """

    def __init__(
        self,
        nameservers: Sequence[tuple[str, int]] | None = None,
        *,
        try_s: float = TRY_S,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=nameservers is None)
        except dns.resolver.NoResolverConfiguration:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
        if nameservers is not None:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in nameservers]
        self._resolver.timeout = try_s
        self._lifetime_s = lifetime_s
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def ask(self, question: Question) -> tuple[tuple[Record, ...], float]:
        """The records and their lifetime in seconds; no records where the name or the type does not exist.

        Raises dns.exception.DNSException or OSError when no name server gives an answer.
        """
        try:
            answer = await self._resolver.resolve(
                question.name,
                question.kind,
                raise_on_no_answer=False,
                search=False,
                lifetime=self._lifetime_s,
                backend=self._backend,
            )
        except dns.resolver.NXDOMAIN as denial:
            return (), _denial_ttl(denial)
        records = [_record(rdata) for rdata in answer.rrset or ()]
        return tuple(record for record in records if record is not None), float(answer.chaining_result.minimum_ttl)


def _denial_ttl(denial: dns.resolver.NXDOMAIN) -> float:
    """What the SOA record of a denial says (RFC 2308 §5)."""
    for response in denial.responses().values():  # type: ignore[no-untyped-call]  # dnspython leaves it untyped
        if isinstance(response, dns.message.QueryMessage):
            return float(response.resolve_chaining().minimum_ttl)
    return DENIAL_TTL_S


def _record(rdata: object) -> Record | None:
    match rdata:
        case A() | AAAA():
            return str(rdata.address)
        case SRV():
            return Srv(rdata.priority, rdata.weight, rdata.port, _name(rdata.target.to_text()))
        case NAPTR():
            flags, service, regexp = (_text(part) for part in (rdata.flags, rdata.service, rdata.regexp))
            return Naptr(rdata.order, rdata.preference, flags, service, regexp, _name(rdata.replacement.to_text()))
    return None


def _name(text: str) -> str:
    """As questions have it; '' for the root."""
    return text.removesuffix(".").lower()


def _text(octets: bytes) -> str:
    return octets.decode("latin-1")
