"""RFC 3261 §12 for one side of a dialog."""

from __future__ import annotations

import pytest

from sbc.dialog.dialog import Dialog, Sequence, without_tag
from sbc.errors import SipSyntaxError
from sbc.sip.message import Message


def message(start: str, *headers: str) -> Message:
    lines = [
        start,
        "Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK1",
        "From: <sip:alice@192.0.2.10>;tag=at",
        "To: <sip:bob@198.51.100.20>;tag=bt",
        "Call-ID: c1",
        "CSeq: 7 INVITE",
        *headers,
        "Content-Length: 0",
        "",
        "",
    ]
    return Message.parse("\r\n".join(lines).encode())


def uac() -> Dialog:
    dialog = Dialog("c1", "<sip:alice@192.0.2.10>", "at", "<sip:bob@198.51.100.20>", "<sip:at@192.0.2.1:5060>")
    dialog.remote_target = "sip:bob@198.51.100.20"
    return dialog


def test_uas_side() -> None:
    """§12.1.1: the caller's tag, CSeq, Contact, and Record-Route in the order of the request."""
    dialog = Dialog("c1", "<sip:bob@198.51.100.20>", "bt", "<sip:alice@192.0.2.10>", "<sip:bt@192.0.2.1>")
    dialog.accept(
        message(
            "INVITE sip:bob@192.0.2.1 SIP/2.0",
            "Contact: <sip:alice@192.0.2.10:5070>",
            "Record-Route: <sip:p1;lr>, <sip:p2;lr>",
        )
    )
    assert (dialog.remote_tag, dialog.remote_cseq) == ("at", 7)
    assert dialog.remote_target == "sip:alice@192.0.2.10:5070"
    assert dialog.route_set == ("<sip:p1;lr>", "<sip:p2;lr>")


def test_uac_side() -> None:
    """§12.1.2: the callee's tag, Contact, and Record-Route reversed."""
    dialog = uac()
    dialog.establish(
        message("SIP/2.0 200 OK", "Contact: <sip:bob@198.51.100.21>", "Record-Route: <sip:p1;lr>, <sip:p2;lr>")
    )
    assert (dialog.remote_tag, dialog.remote_target) == ("bt", "sip:bob@198.51.100.21")
    assert dialog.route_set == ("<sip:p2;lr>", "<sip:p1;lr>")


def test_loose_route() -> None:
    """§12.2.1.1: the target is the Request-URI, the next hop the first route."""
    dialog = uac()
    dialog.route_set = ("<sip:p1.example:5071;lr>", "<sip:p2.example;lr>")
    uri, headers = dialog.headers("BYE", 3, "V")
    assert uri == "sip:bob@198.51.100.20"
    assert [value for name, value in headers if name == "Route"] == list(dialog.route_set)
    assert (dialog.next_hop.host, dialog.next_hop.port) == ("p1.example", 5071)


def test_strict_route() -> None:
    """§12.2.1.1: the strict router is the Request-URI, the target the last route."""
    dialog = uac()
    dialog.route_set = ("<sip:p1.example>", "<sip:p2.example;lr>")
    uri, headers = dialog.headers("BYE", 3, "V")
    assert uri == "sip:p1.example"
    routes = [value for name, value in headers if name == "Route"]
    assert routes == ["<sip:p2.example;lr>", "<sip:bob@198.51.100.20>"]
    assert dialog.next_hop.host == "p1.example"


def test_headers_of_a_request() -> None:
    dialog = uac()
    dialog.remote_tag = "bt"
    assert dialog.headers("INFO", dialog.next_cseq(), "SIP/2.0/UDP h;branch=z9hG4bKx", 33) == (
        "sip:bob@198.51.100.20",
        [
            ("Via", "SIP/2.0/UDP h;branch=z9hG4bKx"),
            ("Max-Forwards", "33"),
            ("From", "<sip:alice@192.0.2.10>;tag=at"),
            ("To", "<sip:bob@198.51.100.20>;tag=bt"),
            ("Call-ID", "c1"),
            ("CSeq", "1 INFO"),
        ],
    )


def test_sequence() -> None:
    """§12.2.2: equal or lower is old, any higher number is in order."""
    dialog = uac()
    assert dialog.check_sequence(5) is Sequence.IN_ORDER
    assert dialog.check_sequence(5) is Sequence.OLD
    assert dialog.check_sequence(4) is Sequence.OLD
    assert dialog.check_sequence(500) is Sequence.IN_ORDER
    assert dialog.check_sequence(6) is Sequence.OLD


def test_target_refresh() -> None:
    """§12.2: only a Contact that differs changes anything."""
    dialog = uac()
    assert dialog.next_hop.host == "198.51.100.20"
    assert dialog.refresh_target(message("SIP/2.0 200 OK", "Contact: <sip:bob@198.51.100.99>"))
    assert dialog.next_hop.host == "198.51.100.99"
    for contact in ("Contact: <sip:bob@198.51.100.99>", "X: y"):
        assert not dialog.refresh_target(message("SIP/2.0 200 OK", contact))
    assert dialog.remote_target == "sip:bob@198.51.100.99"


def test_next_hop_of_nonsense() -> None:
    dialog = uac()
    dialog.remote_target = "not a uri"
    with pytest.raises(SipSyntaxError):
        _ = dialog.next_hop


def test_matches() -> None:
    """§12: Call-ID and both tags; the local one has found the dialog."""
    dialog = Dialog("c1", "<sip:bob@198.51.100.20>", "bt", "<sip:alice@192.0.2.10>", "")
    dialog.remote_tag = "at"
    request = message("INVITE sip:bob@192.0.2.1 SIP/2.0")
    assert dialog.matches(request)
    dialog.remote_tag = "other"
    assert not dialog.matches(request)
    dialog.remote_tag, dialog.call_id = "at", "c2"
    assert not dialog.matches(request)


@pytest.mark.parametrize(
    ("value", "bare"),
    [
        ("<sip:a@h>;tag=1", "<sip:a@h>"),
        ('"A;tag=no" <sip:a@h;tag=no>;x=1; TAG = 2', '"A;tag=no" <sip:a@h;tag=no>;x=1'),
        ("sip:a@h;tag=1", "sip:a@h"),
        ("<sip:a@h>", "<sip:a@h>"),
        ('"Andr\udce9" <sip:a@h>;tag=1', '"Andr\udce9" <sip:a@h>'),
    ],
)
def test_without_tag(value: str, bare: str) -> None:
    assert without_tag(value) == bare
