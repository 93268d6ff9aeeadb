"""Outgoing messages: octets, what is refused, and responses (RFC 3261 §8.2.6, RFC 3581)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request, build_response, reply_to
from sbc.sip.message import Message
from tests.unit.sip.messages import VIA, request


def top_via_of_reply(via: str, source: tuple[str, int] | None) -> str:
    reply = reply_to(Message.parse(request(Via=via)), 200, received=source)
    return reply.split(b"\r\n")[1].decode().removeprefix("Via: ")


def test_request() -> None:
    assert build_request("BYE", "sip:bob@example.com", [("Subject", "ol\udce9 é")], b"abc") == (
        b"BYE sip:bob@example.com SIP/2.0\r\nSubject: ol\xe9 \xc3\xa9\r\nContent-Length: 3\r\n\r\nabc"
    )


def test_response() -> None:
    assert build_response(183, "Session Progress", [("RSeq", "1")]) == (
        b"SIP/2.0 183 Session Progress\r\nRSeq: 1\r\nContent-Length: 0\r\n\r\n"
    )
    with pytest.raises(ValueError, match="no SIP status"):
        build_response(700, "", [])


def test_content_length_is_ours_alone() -> None:
    built = build_request("INFO", "sip:b", [("content-length", "99"), ("l", "98"), ("Subject", "x")], b"ab")
    assert built == b"INFO sip:b SIP/2.0\r\nSubject: x\r\nContent-Length: 2\r\n\r\nab"


def test_headers_may_come_from_a_generator_that_builds_itself() -> None:
    def headers() -> Iterator[tuple[str, str]]:
        yield "Subject", "outer"
        assert b"inner" in build_request("INFO", "sip:b", [("Subject", "inner")])
        yield "Priority", "normal"

    assert build_request("INFO", "sip:b", headers()) == (
        b"INFO sip:b SIP/2.0\r\nSubject: outer\r\nPriority: normal\r\nContent-Length: 0\r\n\r\n"
    )


def test_large_messages_outgrow_the_stack() -> None:
    headers = [(f"X-{i}", "v" * 997) for i in range(40)]
    built = build_request("MESSAGE", "sip:b@c", [*headers, ("Via", "x")], b"b" * 20000)
    assert built.count(b"v" * 997) == 40
    assert built.endswith(b"\r\nVia: x\r\nContent-Length: 20000\r\n\r\n" + b"b" * 20000)


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "a\r\nX-Evil: 1", "é\n"])
def test_nothing_can_be_smuggled(bad: str) -> None:
    parsed = Message.parse(request())
    builds: list[Callable[[], bytes]] = [
        lambda: build_request("INFO", "sip:b", [("Subject", bad)]),
        lambda: build_request("INFO", "sip:b", [(bad, "x")]),
        lambda: build_request("INFO", "sip:" + bad, []),
        lambda: build_request("INFO" + bad, "sip:b", []),
        lambda: build_response(200, bad, []),
        lambda: reply_to(parsed, 200, reason=bad, received=None),
        lambda: reply_to(parsed, 200, to_tag=bad, received=None),
        lambda: reply_to(parsed, 200, received=("192.0.2.9" + bad, 5060)),
    ]
    for build in builds:
        with pytest.raises(SipSyntaxError):
            build()


@pytest.mark.parametrize("name", ["", "a b", "a:", "é", "a\t"])
def test_names_are_tokens(name: str) -> None:
    with pytest.raises(SipSyntaxError):
        build_request("INFO", "sip:b", [(name, "x")])
    with pytest.raises(SipSyntaxError):
        build_request(name, "sip:b", [])


@pytest.mark.parametrize("uri", ["", "sip:a b", "sip:b>", 'sip:"'])
def test_request_uri_is_one_word(uri: str) -> None:
    with pytest.raises(SipSyntaxError):
        build_request("INFO", uri, [])


@pytest.mark.parametrize(
    ("via", "source", "expected"),
    [
        ("SIP/2.0/UDP 192.0.2.1;branch=1", ("192.0.2.1", 5060), "SIP/2.0/UDP 192.0.2.1;branch=1"),
        ("SIP/2.0/UDP 192.0.2.1;branch=1", ("192.0.2.2", 9), "SIP/2.0/UDP 192.0.2.1;received=192.0.2.2;branch=1"),
        ("SIP/2.0/UDP host:5;branch=1", ("192.0.2.2", 9), "SIP/2.0/UDP host:5;received=192.0.2.2;branch=1"),
        ("SIP/2.0/UDP 192.0.2.1;rport", ("192.0.2.1", 9), "SIP/2.0/UDP 192.0.2.1;received=192.0.2.1;rport=9"),
        ("SIP/2.0/UDP a;RPORT ;branch=1", ("192.0.2.1", 9), "SIP/2.0/UDP a;received=192.0.2.1;RPORT=9 ;branch=1"),
        ("SIP/2.0/UDP a;rport=7", ("192.0.2.1", 9), "SIP/2.0/UDP a;received=192.0.2.1;rport=7"),
        ("SIP/2.0/UDP a;received=6.6.6.6;rport;x", ("1.2.3.4", 9), "SIP/2.0/UDP a;received=1.2.3.4;rport=9;x"),
        ("SIP/2.0/UDP a;rport;received=6.6.6.6;x", ("1.2.3.4", 9), "SIP/2.0/UDP a;received=1.2.3.4;rport=9;x"),
        ("SIP/2.0/UDP a;received=6.6.6.6", ("1.2.3.4", 9), "SIP/2.0/UDP a;received=1.2.3.4"),
        (
            "SIP/2.0/UDP [2001:db8::1]:5;rport",
            ("2001:db8::1", 9),
            "SIP/2.0/UDP [2001:db8::1]:5;received=2001:db8::1;rport=9",
        ),
        ("SIP/2.0/UDP [2001:db8::1];x", ("2001:db8::1", 9), "SIP/2.0/UDP [2001:db8::1];x"),
        (
            "SIP/2.0/UDP a;rport, SIP/2.0/TCP b;rport",
            ("1.2.3.4", 9),
            "SIP/2.0/UDP a;received=1.2.3.4;rport=9, SIP/2.0/TCP b;rport",
        ),
        ("SIP / 2.0\r\n / UDP a ;\r\n rport", ("1.2.3.4", 9), "SIP / 2.0 / UDP a;received=1.2.3.4 ; rport=9"),
        ("SIP/2.0/UDP a;rport", None, "SIP/2.0/UDP a;rport"),
    ],
)
def test_source_in_the_top_via(via: str, source: tuple[str, int] | None, expected: str) -> None:
    assert top_via_of_reply("Via: " + via, source) == expected


def test_reply_copies_what_belongs_to_the_transaction() -> None:
    message = Message.parse(
        request(
            "v: SIP/2.0/TCP 192.0.2.7;branch=z9hG4bK0",
            "Record-Route: <sip:192.0.2.7;lr>",
            "Timestamp: 54",
            start="OPTIONS sip:bob@example.com SIP/2.0",
            CSeq="CSeq: 7 OPTIONS",
            From="f: Alice\r\n <sip:alice@example.com>;tag=a1",
        )
    )
    assert reply_to(message, 404, to_tag="b1", received=None, headers=[("Server", "x")], body=b"no") == (
        b"SIP/2.0 404 Not Found\r\n"
        b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\n"
        b"Via: SIP/2.0/TCP 192.0.2.7;branch=z9hG4bK0\r\n"
        b"From: Alice <sip:alice@example.com>;tag=a1\r\n"
        b"To: <sip:bob@example.com>;tag=b1\r\n"
        b"Call-ID: c1@192.0.2.1\r\n"
        b"CSeq: 7 OPTIONS\r\n"
        b"Server: x\r\n"
        b"Content-Length: 2\r\n\r\nno"
    )
    assert b"\r\nTimestamp: 54\r\n" in reply_to(message, 100, received=None)


def test_a_to_tag_that_is_there_stays() -> None:
    message = Message.parse(request(To="To: <sip:bob@example.com>;tag=b0"))
    assert b"To: <sip:bob@example.com>;tag=b0\r\n" in reply_to(message, 200, to_tag="b1", received=None)


def test_unregistered_status_takes_the_phrase_of_its_class() -> None:
    assert reply_to(Message.parse(request()), 499, received=None).startswith(b"SIP/2.0 499 Bad Request\r\n")


def test_responses_have_no_reply() -> None:
    response = Message.parse(reply_to(Message.parse(request(Via=VIA)), 200, received=None))
    with pytest.raises(ValueError, match="no reply"):
        reply_to(response, 200, received=None)
