"""Whether a request came from behind NAT: eight tests on what it says of its sender and where it was seen.

The numbers are those of the ``nat_uac_test`` that operators of SIP proxies know, so that a mask can be taken over as it
is; :func:`from_client_nat_test` translates those of the other module for NAT that they know. :func:`behind` is the
cautious judgement, for a policy that acts of its own accord.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from enum import IntFlag
from functools import lru_cache
from typing import Final

from sbc.errors import SipSyntaxError
from sbc.masks import mask_of
from sbc.sdp.address import ip_literal
from sbc.sip.flow import Flow
from sbc.sip.message import Message


class NatTest(IntFlag):
    """The tests of ``nat_uac_test``, by number."""

    CONTACT_PRIVATE = 1  # the host of the Contact is a private address
    VIA_IP = 2  # the top Via names another host than the source
    VIA_PRIVATE = 4  # the host of the top Via is a private address
    SDP_PRIVATE = 8  # a c= line of the description has a private address
    VIA_PORT = 16  # the top Via names another port than the source
    CONTACT_IP = 32  # the Contact names another host than the source
    CONTACT_PORT = 64  # the Contact names another port than the source
    CARRIER_GRADE = 128  # 1, 4 and 8 count addresses of RFC 6333 as private, too; no test of its own


ALL_TESTS: Final = NatTest(255)

# By our name, and by the name that the configuration of an OpenSIPS gives it.
TEST_NAMES: Final = {
    "contact-private": NatTest.CONTACT_PRIVATE,
    "private-contact": NatTest.CONTACT_PRIVATE,
    "via-ip": NatTest.VIA_IP,
    "diff-ip-src-via": NatTest.VIA_IP,
    "via-private": NatTest.VIA_PRIVATE,
    "private-via": NatTest.VIA_PRIVATE,
    "sdp-private": NatTest.SDP_PRIVATE,
    "private-sdp": NatTest.SDP_PRIVATE,
    "via-port": NatTest.VIA_PORT,
    "diff-port-src-via": NatTest.VIA_PORT,
    "contact-ip": NatTest.CONTACT_IP,
    "diff-ip-src-contact": NatTest.CONTACT_IP,
    "contact-port": NatTest.CONTACT_PORT,
    "diff-port-src-contact": NatTest.CONTACT_PORT,
    "carrier-grade": NatTest.CARRIER_GRADE,
    "carrier-grade-nat": NatTest.CARRIER_GRADE,
}

_OF_CLIENT_NAT_TEST: Final = {
    1: NatTest.CONTACT_PRIVATE,
    2: NatTest.VIA_IP | NatTest.VIA_PORT,
    4: NatTest.VIA_PRIVATE,
    8: NatTest.CONTACT_IP,
}

# RFC 1918, RFC 6598; for IPv6 unique local (RFC 4193) and link-local addresses
_PRIVATE: Final = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10"),
    )
)
_CARRIER_GRADE: Final = (ipaddress.ip_network("192.0.0.0/29"),)  # RFC 6333 §5.7
# What besides nobody elsewhere can reach: this host, and link-local addresses (RFC 3927)
_NOWHERE: Final = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "::1/128", "::/128")))
_DEFAULT_PORTS: Final = {"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 80, "wss": 443}


def nat_tests(given: Iterable[str | int]) -> NatTest:
    """The tests that these name. Raises ValueError (:func:`sbc.masks.mask_of`)."""
    return mask_of(given, TEST_NAMES, NatTest, ("test for NAT", "tests for NAT"))


def from_client_nat_test(mask: int) -> NatTest:
    """The tests that a mask of ``client_nat_test`` stands for: 1 a private Contact, 2 another address or port in the
    Via, 4 a private Via, 8 another address in the Contact. Raises ValueError for another number."""
    if not 0 <= mask <= 15:
        raise ValueError(f"{mask} is no sum of tests of client_nat_test: they are 1, 2, 4 and 8")
    found = NatTest(0)
    for number, tests in _OF_CLIENT_NAT_TEST.items():
        if mask & number:
            found |= tests
    return found


@lru_cache(maxsize=8192)  # bounded; the same hosts come again and again
def is_private(host: str, carrier_grade: bool = False) -> bool:
    """Whether a host is an address of a private network: RFC 1918 and 6598, for IPv6 unique local and link-local ones;
    with ``carrier_grade`` also the addresses of RFC 6333. A host name is none."""
    literal = ip_literal(_bare(host))
    if not literal:
        return False
    address = ipaddress.ip_address(literal)
    return any(address in network for network in (_PRIVATE + _CARRIER_GRADE if carrier_grade else _PRIVATE))


@lru_cache(maxsize=8192)
def is_hidden(host: str) -> bool:
    """Whether nobody beyond its own network can reach a host: a private address, one of RFC 6333, a loopback or
    link-local one. A host name is none."""
    literal = ip_literal(_bare(host))
    if not literal:
        return False
    address = ipaddress.ip_address(literal)
    return any(address in network for network in _PRIVATE + _CARRIER_GRADE + _NOWHERE)


def uac_test(message: Message, described: bytes, source: Flow, tests: int) -> NatTest:
    """Those of ``tests`` that are true of a request that came along ``source``; ``described`` is its session
    description, b"" for none.

    A host name is another host than any address. A port that is not written is the default one of the transport. What
    a message lacks makes no test true. CARRIER_GRADE is never among those that are true.
    """
    found = NatTest(0)
    wide = bool(tests & NatTest.CARRIER_GRADE)
    if tests & (NatTest.CONTACT_PRIVATE | NatTest.CONTACT_IP | NatTest.CONTACT_PORT):
        where = _contact(message, source.transport)
        if where is not None:
            host, port = where
            if is_private(host, wide):
                found |= NatTest.CONTACT_PRIVATE
            if not _same(host, source.host):
                found |= NatTest.CONTACT_IP
            if port != source.port:
                found |= NatTest.CONTACT_PORT
    if tests & (NatTest.VIA_IP | NatTest.VIA_PRIVATE | NatTest.VIA_PORT):
        via = message.top_via
        if not _same(via.host, source.host):
            found |= NatTest.VIA_IP
        if is_private(via.host, wide):
            found |= NatTest.VIA_PRIVATE
        if (via.port or _DEFAULT_PORTS.get(source.transport, 5060)) != source.port:
            found |= NatTest.VIA_PORT
    if tests & NatTest.SDP_PRIVATE and any(is_private(host, wide) for host in connections(described)):
        found |= NatTest.SDP_PRIVATE
    return found & NatTest(tests)


def connections(described: bytes) -> Iterable[str]:
    """The hosts of all c= lines of a description."""
    for line in described.splitlines():
        if line[:2] == b"c=":
            words = line[2:].split()
            if len(words) == 3:
                yield words[2].partition(b"/")[0].decode("ascii", "replace")


def behind(contact: str, via: str, source: str) -> str:
    """Why a sender that was seen at ``source`` is taken to be behind NAT, as the end of a sentence; '' where nothing
    says so. ``contact`` and ``via`` are hosts, '' for none.

    Only what cannot be otherwise counts: a Contact that nobody can reach from here, or such a Via beside a Contact that
    names the source itself or no address. A Contact elsewhere that can be reached is believed: it may be a gateway that
    does not listen where it sends from.
    """
    return behind_by_contact(contact, source) or behind_by_via(via, contact, source)


def behind_by_contact(contact: str, source: str, what: str = "Contact") -> str:
    """That part of :func:`behind` which a Contact, or a route in its place, tells."""
    if is_hidden(contact) and not _same(contact, source):
        return f"its {what} {contact} is private and it was seen at {source}"
    return ""


def behind_by_via(via: str, contact: str, source: str) -> str:
    """That part of :func:`behind` which the Via tells."""
    if is_hidden(via) and not _same(via, source) and (_same(contact, source) or not ip_literal(_bare(contact))):
        return f"its Via {via} is private and it was seen at {source}"
    return ""


def host_of_contact(message: Message) -> str:
    """The host of the first Contact, '' where there is none that can be read."""
    found = _contact(message, "udp")
    return found[0] if found is not None else ""


def _contact(message: Message, transport: str) -> tuple[str, int] | None:
    try:
        contact = message.contact()  # the first of several
    except SipSyntaxError:
        return None
    if contact is None or not contact.uri.host:
        return None
    return contact.uri.host, contact.uri.port or _DEFAULT_PORTS.get(transport, 5060)


def _same(host: str, source: str) -> bool:
    bare = _bare(host)
    return bare == source or ip_literal(bare) == (ip_literal(source) or source)


def _bare(host: str) -> str:
    return host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
