"""Who is behind NAT: each test alone, masks as operators write them, messages of real devices."""

from __future__ import annotations

import itertools
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc.policy.nat import (
    ALL_TESTS,
    TEST_NAMES,
    NatTest,
    behind,
    from_client_nat_test,
    is_hidden,
    is_private,
    nat_tests,
    uac_test,
)
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from tests.support.shared import shared_data

PUBLIC, PORT = "203.0.113.9", 5060


def message(via: str = PUBLIC, contact: str = f"<sip:a@{PUBLIC}>") -> Message:
    lines = ["REGISTER sip:example.com SIP/2.0", f"Via: SIP/2.0/UDP {via};branch=z9hG4bK1;rport", "Max-Forwards: 70"]
    lines += ["From: <sip:a@example.com>;tag=1", "To: <sip:a@example.com>", "Call-ID: c", "CSeq: 1 REGISTER"]
    if contact:
        lines.append(f"Contact: {contact}")
    return Message.parse("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode())


def described(*hosts: str) -> bytes:
    return b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\n" + b"".join(
        f"m=audio 4000 RTP/AVP 0\r\nc=IN {'IP6' if ':' in host else 'IP4'} {host}\r\n".encode() for host in hosts
    )


def true_of(
    via: str = PUBLIC,
    contact: str = f"<sip:a@{PUBLIC}>",
    sdp: bytes = b"",
    source: tuple[str, int] = (PUBLIC, PORT),
    tests: int = ALL_TESTS & ~NatTest.CARRIER_GRADE,
    transport: str = "udp",
) -> NatTest:
    return uac_test(message(via, contact), sdp, Flow(0, transport, *source), tests)


T = NatTest
PUBLIC_6, LOCAL_6 = "2001:db8::9", "fd00::9"


@pytest.mark.parametrize(
    ("via", "contact", "sdp", "source", "expected"),
    [
        (PUBLIC, f"<sip:a@{PUBLIC}>", described(PUBLIC), (PUBLIC, 5060), T(0)),
        # 1 and 32 go together unless the source is that very address
        (PUBLIC, "<sip:a@10.255.0.1>", b"", (PUBLIC, 5060), T.CONTACT_PRIVATE | T.CONTACT_IP),
        ("10.0.0.1", "<sip:a@10.0.0.1>", b"", ("10.0.0.1", 5060), T.CONTACT_PRIVATE | T.VIA_PRIVATE),
        (PUBLIC, "<sip:a@172.31.255.255>", b"", (PUBLIC, 5060), T.CONTACT_PRIVATE | T.CONTACT_IP),
        (PUBLIC, "<sip:a@172.32.0.1>", b"", (PUBLIC, 5060), T.CONTACT_IP),
        (PUBLIC, "<sip:a@100.64.3.4>", b"", (PUBLIC, 5060), T.CONTACT_PRIVATE | T.CONTACT_IP),
        (PUBLIC, "<sip:a@100.128.0.1>", b"", (PUBLIC, 5060), T.CONTACT_IP),
        (PUBLIC, "<sip:a@192.0.0.2>", b"", (PUBLIC, 5060), T.CONTACT_IP),  # RFC 6333, which 128 adds
        (PUBLIC, f"<sip:a@{PUBLIC}:5062>", b"", (PUBLIC, 5060), T.CONTACT_PORT),
        (PUBLIC, "<sip:a@phone.example>", b"", (PUBLIC, 5060), T.CONTACT_IP),
        (PUBLIC, "", b"", (PUBLIC, 5060), T(0)),
        (PUBLIC, "*", b"", (PUBLIC, 5060), T(0)),
        ("198.51.100.1", f"<sip:a@{PUBLIC}>", b"", (PUBLIC, 5060), T.VIA_IP),
        ("192.168.1.5", f"<sip:a@{PUBLIC}>", b"", (PUBLIC, 5060), T.VIA_IP | T.VIA_PRIVATE),
        ("abc.invalid", f"<sip:a@{PUBLIC}>", b"", (PUBLIC, 5060), T.VIA_IP),
        (f"{PUBLIC}:5070", f"<sip:a@{PUBLIC}>", b"", (PUBLIC, 5060), T.VIA_PORT),
        (PUBLIC, f"<sip:a@{PUBLIC}>", b"", (PUBLIC, 6111), T.VIA_PORT | T.CONTACT_PORT),
        # a private c= counts wherever it stands, the address of o= never
        (PUBLIC, f"<sip:a@{PUBLIC}>", described(PUBLIC, "192.168.9.9"), (PUBLIC, 5060), T.SDP_PRIVATE),
        (PUBLIC, f"<sip:a@{PUBLIC}>", described("0.0.0.0"), (PUBLIC, 5060), T(0)),
        # IPv6: unique local and link-local addresses are the private ones, however they are written
        (f"[{PUBLIC_6}]", f"<sip:a@[{PUBLIC_6}]>", described(PUBLIC_6), (PUBLIC_6, 5060), T(0)),
        ("[2001:DB8:0::9]", f"<sip:a@[{PUBLIC_6}]>", b"", (PUBLIC_6, 5060), T(0)),
        (
            f"[{LOCAL_6}]",
            "<sip:a@[fe80::1]>",
            described(LOCAL_6),
            (PUBLIC_6, 5060),
            T.CONTACT_PRIVATE | T.CONTACT_IP | T.VIA_IP | T.VIA_PRIVATE | T.SDP_PRIVATE,
        ),
    ],
)
def test_what_is_true(via: str, contact: str, sdp: bytes, source: tuple[str, int], expected: NatTest) -> None:
    assert true_of(via, contact, sdp, source) == expected
    for test in NatTest:  # each by itself says the same
        assert true_of(via, contact, sdp, source, test) == expected & test


@pytest.mark.parametrize(("tests", "expected"), [(1, 0), (129, 1), (4, 0), (132, 4), (8, 0), (136, 8), (128, 0)])
def test_128_widens_the_other_three_and_is_no_test_itself(tests: int, expected: int) -> None:
    assert true_of("192.0.0.4", "<sip:a@192.0.0.2>", described("192.0.0.7"), tests=tests) == expected


def test_default_ports_are_those_of_the_transport() -> None:
    port_tests = NatTest.VIA_PORT | NatTest.CONTACT_PORT
    assert true_of(source=(PUBLIC, 5061), transport="tls", tests=port_tests) == 0
    assert true_of(source=(PUBLIC, 5061), transport="tcp", tests=port_tests) == port_tests


@given(st.lists(st.sampled_from(list(NatTest)), max_size=8))
def test_masks_in_every_way_of_writing_them(tests: list[NatTest]) -> None:
    wanted = reduce(lambda a, b: a | b, tests, NatTest(0))
    names = [next(name for name, test in TEST_NAMES.items() if test is one) for one in tests]
    assert nat_tests(tests) == nat_tests(names) == nat_tests([int(wanted)]) == nat_tests([str(int(wanted))]) == wanted
    if names:
        assert nat_tests([", ".join(names)]) == nat_tests(["|".join(names).upper()]) == wanted


@pytest.mark.parametrize("test", ["private", "256", "-1", 256, -1, "0x13", "1 9", ""])
def test_a_mask_that_is_none(test: str | int) -> None:
    with pytest.raises(ValueError, match="for NAT"):
        nat_tests([test])


def test_19_is_decimal() -> None:
    assert nat_tests(["19"]) == T.CONTACT_PRIVATE | T.VIA_IP | T.VIA_PORT


@pytest.mark.parametrize(
    ("mask", "expected"), [(0, 0), (1, 1), (2, 2 + 16), (3, 19), (4, 4), (7, 23), (8, 32), (15, 55)]
)
def test_masks_of_client_nat_test(mask: int, expected: int) -> None:
    assert from_client_nat_test(mask) == expected


@pytest.mark.parametrize("mask", [-1, 16])
def test_a_mask_that_client_nat_test_does_not_have(mask: int) -> None:
    with pytest.raises(ValueError, match="client_nat_test"):
        from_client_nat_test(mask)


@pytest.mark.parametrize(
    ("host", "private", "hidden"),
    [
        ("10.0.0.0", True, True),
        ("192.168.255.255", True, True),
        ("[fd12::1]", True, True),
        ("::ffff:10.0.0.1", True, True),
        ("192.0.0.2", False, True),
        ("169.254.1.1", False, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("192.0.2.1", False, False),
        ("phone.example", False, False),
        ("", False, False),
    ],
)
def test_addresses(host: str, private: bool, hidden: bool) -> None:
    assert (is_private(host), is_hidden(host)) == (private, hidden)


@pytest.mark.parametrize(
    ("contact", "via", "source", "why"),
    [
        ("10.1.1.1", "10.1.1.1", PUBLIC, "its Contact 10.1.1.1 is private and it was seen at 203.0.113.9"),
        ("10.1.1.1", "10.1.1.1", "10.1.1.1", ""),  # in our own private network
        ("10.1.1.1", "10.1.1.1", "10.7.7.7", "its Contact 10.1.1.1 is private and it was seen at 10.7.7.7"),
        # an ALG, or STUN, has repaired the Contact: the port in it may be right or not
        (PUBLIC, "192.168.1.2", PUBLIC, "its Via 192.168.1.2 is private and it was seen at 203.0.113.9"),
        ("", "192.168.1.2", PUBLIC, "its Via 192.168.1.2 is private and it was seen at 203.0.113.9"),
        ("198.51.100.7", "192.168.1.2", PUBLIC, ""),  # a gateway that wants to be called elsewhere
        ("198.51.100.7", "198.51.100.8", PUBLIC, ""),
        (PUBLIC, PUBLIC, PUBLIC, ""),
        ("[fd00::1]", "[fd00::1]", PUBLIC_6, f"its Contact [fd00::1] is private and it was seen at {PUBLIC_6}"),
        (f"[{PUBLIC_6}]", f"[{PUBLIC_6}]", PUBLIC_6, ""),
    ],
)
def test_the_cautious_judgement(contact: str, via: str, source: str, why: str) -> None:
    assert behind(contact, via, source) == why


REAL = {
    # name: what is true where it came from another, public address and port
    "microsip-3.22-01-invite.sip": T(127),
    "snom360-utf8-displayname-invite.sip": T(127),
    "sipps-sdp-01-invite.sip": T(127),
    "pjsua-2.10-register-compact.sip": T(127) & ~T.SDP_PRIVATE,
    "huawei-softx3000-03-register.sip": T(127) & ~T.SDP_PRIVATE,
    "zoiper-3.3-01-publish.sip": T(127) & ~T.SDP_PRIVATE,
    # a public proxy in front: only the source differs
    "tandberg-67-register-tcp-via.sip": T.VIA_IP | T.VIA_PORT | T.CONTACT_IP | T.CONTACT_PORT,
    "mixed-req-01-invite.sip": T.VIA_IP | T.VIA_PORT | T.CONTACT_IP | T.CONTACT_PORT,
}


@pytest.mark.parametrize("name", REAL)
def test_messages_of_real_devices(name: str) -> None:
    msg = Message.parse((shared_data("sip", "real") / name).read_bytes())
    assert uac_test(msg, msg.body, Flow(0, "udp", PUBLIC, 40_001), 127) == REAL[name]
    at_home = Flow(0, "udp", msg.top_via.host, msg.top_via.port or 5060)
    assert not uac_test(msg, msg.body, at_home, 2 | 16)
    contact = msg.contact()
    assert contact is not None
    assert bool(behind(contact.uri.host, msg.top_via.host, PUBLIC)) is (REAL[name] == REAL[name] | T.CONTACT_PRIVATE)


def test_every_sum_is_the_union_of_its_tests() -> None:
    args = ("192.168.1.5:5070", "<sip:a@10.0.0.1:5099>", described("10.0.0.1"))
    for mask in itertools.chain(range(0, 128, 7), (19, 127)):
        assert true_of(*args, tests=mask) == mask
