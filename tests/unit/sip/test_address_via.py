"""Addresses and Vias (RFC 3261 §20.10, §20.42, RFC 3581, RFC 5118)."""

from __future__ import annotations

import pytest

from sbc.errors import SipSyntaxError
from sbc.sip.address import NameAddr, parse_name_addr
from sbc.sip.uri import parse_uri
from sbc.sip.via import Via, parse_via


@pytest.mark.parametrize(
    ("text", "display", "uri", "params", "written"),
    [
        ("sip:a@b;tag=1", "", "sip:a@b", {"tag": "1"}, "<sip:a@b>;tag=1"),
        ("<sip:a@b;lr?x=y> ; tag = 1", "", "sip:a@b;lr?x=y", {"tag": "1"}, "<sip:a@b;lr?x=y>;tag=1"),
        ("Alice B. <sip:a@b>", "Alice B.", "sip:a@b", {}, "Alice B. <sip:a@b>"),
        ('"Alice"<sip:a@b>;x', "Alice", "sip:a@b", {"x": None}, "Alice <sip:a@b>;x"),
        ('"a, \\"b\\" \\\\" <sip:a@b>', 'a, "b" \\', "sip:a@b", {}, '"a, \\"b\\" \\\\" <sip:a@b>'),
        ('\\"arik\\" <sip:a@b>', '"arik"', "sip:a@b", {}, '"\\"arik\\"" <sip:a@b>'),
        ('" a"<sip:a@b>', " a", "sip:a@b", {}, '" a" <sip:a@b>'),
        ("Verkauf (Köln) <sip:a@b>", "Verkauf (Köln)", "sip:a@b", {}, '"Verkauf (Köln)" <sip:a@b>'),
        ("<tel:+1555;ext=2>;tag=q", "", "tel:+1555;ext=2", {"tag": "q"}, "<tel:+1555;ext=2>;tag=q"),
        ('sip:a@b;x="<;>"', "", "sip:a@b", {"x": '"<;>"'}, '<sip:a@b>;x="<;>"'),
        (
            '<sip:a@b>;x="a;\\"b";tag=1;tag=2',
            "",
            "sip:a@b",
            {"x": '"a;\\"b"', "tag": "1"},
            '<sip:a@b>;x="a;\\"b";tag=1',
        ),
    ],
)
def test_address(text: str, display: str, uri: str, params: dict[str, str | None], written: str) -> None:
    address = parse_name_addr(text)
    assert address == NameAddr(display, parse_uri(uri), params)
    assert str(address) == written
    assert parse_name_addr(written) == address


def test_address_tag_and_replace() -> None:
    address = parse_name_addr("<sip:a@b>;TAG=1;q=0.5")
    assert address.tag == "1"
    assert address.param("Q") == "0.5"
    assert parse_name_addr("<sip:a@b>").tag == ""
    assert str(address.replace(display="x", params={})) == "x <sip:a@b>"


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"a <sip:a@b>',
        '"a"',
        '"a" sip:a@b',
        "a, b <sip:a@b>",
        "<sip:a@b",
        "<>",
        "sip:a@b?x=y",
        "sip:a@b,sip:c@d",
        "<sip:a@b> x",
        "<sip:a@b>;",
        "<sip:a@b>;=x",
        '<sip:a@b>;x="',
        '<sip:a@b>;x="a"b',
        "<sip:a@b>;x=a b",
        "*",
    ],
)
def test_addresses_refused(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        parse_name_addr(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SIP/2.0/UDP 192.0.2.1", Via("UDP", "192.0.2.1")),
        ("SIP/2.0/UDP a:5060;branch=z;rport", Via("UDP", "a", 5060, {"branch": "z", "rport": None})),
        ("SIP/2.0/WSS a.invalid:65000", Via("WSS", "a.invalid", 65000)),
        ("SIP/2.0/TLS-SCTP [::1]:5;x=[::2]", Via("TLS-SCTP", "[::1]", 5, {"x": "[::2]"})),
    ],
)
def test_via(text: str, expected: Via) -> None:
    assert parse_via(text) == expected
    assert str(parse_via(text)) == text


@pytest.mark.parametrize("text", ["SIP / 2.0 / udp \t a : 5 ; branch = z", "SIP/2.0/UDP\ta:5;branch=z"])
def test_via_with_blanks(text: str) -> None:
    assert str(parse_via(text)) == "SIP/2.0/UDP a:5;branch=z"


def test_via_properties() -> None:
    via = parse_via("SIP/2.0/UDP a;Branch=z;received=[2001:db8::9];RPORT=7")
    assert (via.branch, via.received, via.rport) == ("z", "2001:db8::9", 7)
    assert via.response_address() == ("2001:db8::9", 7)
    bare = parse_via("SIP/2.0/TLS [::1];rport")
    assert (bare.branch, bare.received, bare.rport) == ("", None, 0)
    assert bare.response_address() == ("::1", 5061)
    assert parse_via("SIP/2.0/UDP a:9;maddr=239.0.0.1").response_address() == ("239.0.0.1", 9)
    assert parse_via("SIP/2.0/UDP a").rport is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0 a",
        "SIP/2.0/ a",
        "/2.0/UDP a",
        "SIP/2.0/UDP a b",
        "SIP/2.0/UDP a:x",
        "SIP/2.0/UDP a;;",
    ],
)
def test_vias_refused(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        parse_via(text)
