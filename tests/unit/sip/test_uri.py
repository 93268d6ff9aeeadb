"""URIs (RFC 3261 §19.1, RFC 3966), most examples from there."""

from __future__ import annotations

import pytest

from sbc.errors import SipSyntaxError
from sbc.sip.uri import Uri, parse_uri


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sip:example.com", Uri("sip", host="example.com")),
        ("sip:alice@example.com:5060", Uri("sip", "alice", None, "example.com", 5060)),
        ("sips:alice@10.0.0.1:65535", Uri("sips", "alice", None, "10.0.0.1", 65535)),
        ("sip:a:p:q@b", Uri("sip", "a", "p:q", "b")),
        ("sip:a@b;transport=tcp;lr", Uri("sip", "a", None, "b", None, {"transport": "tcp", "lr": None})),
        ("sip:a@b;x=;Y=1?Subject=z&P=%20", Uri("sip", "a", None, "b", None, {"x": "", "Y": "1"}, "Subject=z&P=%20")),
        ("sip:user;par=u%40example.net@example.com", Uri("sip", "user;par=u%40example.net", None, "example.com")),
        ("sip:a?b/c@d", Uri("sip", "a?b/c", None, "d")),
        ("sip:[2001:db8::10:5070]", Uri("sip", host="[2001:db8::10:5070]")),
        ("sip:a@[2001:db8::10]:5070;x", Uri("sip", "a", None, "[2001:db8::10]", 5070, {"x": None})),
        ("sip:+15551230000@b;user=phone", Uri("sip", "+15551230000", None, "b", None, {"user": "phone"})),
        ("tel:+1-201-555-0123;phone-context=x", Uri("tel", "+1-201-555-0123", params={"phone-context": "x"})),
        ("tel:*#21", Uri("tel", "*#21")),
        ("urn:service:sos;x?y@z", Uri("urn", "service:sos;x?y@z")),
        ("sip:sips%3Auser%40example.com@example.net", Uri("sip", "sips%3Auser%40example.com", None, "example.net")),
    ],
)
def test_parse_and_write(text: str, expected: Uri) -> None:
    uri = parse_uri(text)
    assert uri == expected
    assert str(uri) == text


def test_scheme_is_lowered_and_address_bare() -> None:
    uri = parse_uri("SIP:a@[2001:DB8::1]")
    assert uri.scheme == "sip"
    assert uri.is_sip
    assert uri.address == "2001:DB8::1"
    assert parse_uri("sip:a@b").address == "b"


def test_params_are_found_in_any_case() -> None:
    uri = parse_uri("sip:a@b;Transport=TCP;LR;lr=2")
    assert uri.param("transport") == "TCP"
    assert uri.param("lr") == "2"
    assert uri.param("Lr") == ""
    assert uri.param("maddr") is None


def test_replace_leaves_the_original() -> None:
    uri = parse_uri("sip:a:secret@b:1;x?h=1")
    assert str(uri.replace(user="c", host="d", port=2, params={})) == "sip:c:secret@d:2?h=1"
    assert str(uri) == "sip:a:secret@b:1;x?h=1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip",
        "sip:",
        ":a",
        "1sip:a",
        "sip:@b",
        "sip:a@",
        "sip:a@b@c",
        "sip:a@b;x=@c",
        "sip:a b@c",
        "sip:<a>@c",
        "sip:a@b:",
        "sip:a@b:65536",
        "sip:a@b:0x1",
        "sip:a@b:１",
        "sip:a@b:1:2",
        "sip:2001:db8::1",
        "sip:[2001:db8::1",
        "sip:[::1]x",
        "sip:[example.com]",
        "sip:a@b\r\nX: y",
        "sip:a@exämple.com",
        "tel:",
        "tel:+",
        "tel:;x",
        "tel:abc-def-ghi",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        parse_uri(text)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        # RFC 3261 §19.1.4
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", True),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", True),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on", True),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off", False),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            True,
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            True,
        ),
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp", False),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting", False),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4", False),
        ("sip:bob@biloxi.com", "sips:bob@biloxi.com", False),
        ("tel:+1-201-555-0123", "tel:+12015550123", True),
        ("tel:+12015550123", "tel:12015550123", False),
        ("urn:service:sos", "urn:service:sos", True),
    ],
)
def test_equivalence(left: str, right: str, same: bool) -> None:
    assert parse_uri(left).equivalent(parse_uri(right)) is same
    assert parse_uri(right).equivalent(parse_uri(left)) is same
