"""The message parser: what is read, what is refused and with which answer (RFC 3261 §7, §18.3, §25)."""

from __future__ import annotations

import pytest

from sbc.errors import SipSyntaxError
from sbc.sip.build import reply_to
from sbc.sip.message import Message
from tests.unit.sip.messages import LINES, VIA, request, request_with, response


def refused(data: bytes, *, stream: bool = False) -> SipSyntaxError:
    with pytest.raises(SipSyntaxError) as caught:
        Message.parse(data, stream=stream)
    return caught.value


def test_request_is_read() -> None:
    message = Message.parse(request("Content-Type: application/sdp", "Content-Length: 3", body=b"v=0"))
    assert message.is_request
    assert (message.method, message.uri, message.status, message.reason) == ("INVITE", "sip:bob@example.com", 0, "")
    assert (message.call_id, message.cseq_number, message.cseq_method) == ("c1@192.0.2.1", 1, "INVITE")
    assert (message.from_tag, message.to_tag, message.branch) == ("a1", "", "z9hG4bK1")
    assert message.max_forwards == 70
    assert message.body == b"v=0"
    assert message.top_via.host == "192.0.2.1"
    assert message.from_().display == "Alice"
    assert str(message.to()) == "<sip:bob@example.com>"
    contact = message.contact()
    assert contact is not None
    assert contact.uri.port == 5060


def test_response_is_read() -> None:
    message = Message.parse(response("SIP/2.0 183 Session Progress", To="To: <sip:bob@example.com>;tag=b1"))
    assert not message.is_request
    assert (message.status, message.reason) == (183, "Session Progress")
    assert (message.method, message.uri) == ("", "")
    assert (message.cseq_method, message.to_tag) == ("INVITE", "b1")


@pytest.mark.parametrize("start", ["SIP/2.0 100 ", "SIP/2.0 100", "sip/2.0 100 Trying"])
def test_reason_may_be_empty_and_version_in_any_case(start: str) -> None:
    assert Message.parse(response(start)).status == 100


@pytest.mark.parametrize("name", ["Call-ID", "call-id", "CALL-ID", "i", "I"])
@pytest.mark.parametrize("line", ["Call-ID: x", "i: x", "I : x", "cALL-iD\t:\tx ", "Call-ID:\r\n  x"])
def test_names_match_in_any_case_and_form(name: str, line: str) -> None:
    message = Message.parse(request(Call_ID=line))
    assert message.call_id == message.get(name) == "x"
    assert message.get_all(name) == ["x"]


def test_unknown_headers_match_in_any_case_and_keep_their_spelling() -> None:
    message = Message.parse(request("x-ODD: 1, 2", "X-Odd: 3"))
    assert message.get("X-odd") == "1, 2"
    assert message.get_all("x-odd") == ["1, 2", "3"]
    assert message.items()[-2:] == [("x-ODD", "1, 2"), ("X-Odd", "3")]


def test_items_give_long_names() -> None:
    message = Message.parse(request("k: timer", "s: Lunch"))
    assert message.items()[-2:] == [("Supported", "timer"), ("Subject", "Lunch")]


def test_absent_header() -> None:
    message = Message.parse(request())
    assert message.get("Subject") is None
    assert message.get_all("Subject") == []
    assert message.get("X-None") is None
    assert message.get("no token") is None
    assert message.get("") is None


def test_lists_are_split_outside_quotes_and_brackets() -> None:
    message = Message.parse(
        request(
            'Route: "a, \\", b" <sip:a,b@x;lr>,<sip:y;lr> ;p="q,r",, <sip:z>',
            "Route: <sip:w>",
            "Date: Sat, 13 Nov 2010 23:29:00 GMT",
            "Supported:",
        )
    )
    assert message.get_all("route") == [
        '"a, \\", b" <sip:a,b@x;lr>',
        '<sip:y;lr> ;p="q,r"',
        "<sip:z>",
        "<sip:w>",
    ]
    assert message.get("Route") == '"a, \\", b" <sip:a,b@x;lr>'
    assert message.get("Date") == "Sat, 13 Nov 2010 23:29:00 GMT"
    assert message.get("Supported") == ""
    assert message.get_all("Supported") == []


def test_a_backslash_outside_quotes_is_only_itself() -> None:
    message = Message.parse(request("Route: \\, <sip:x>;p=\\", Via=VIA + ";x=\\"))
    assert message.get_all("Route") == ["\\", "<sip:x>;p=\\"]
    assert message.top_via.params["x"] == "\\"


def test_folds_become_one_blank() -> None:
    message = Message.parse(request("Subject: one \t\r\n \t two\r\n\tthree", "Subject:\r\n \r\n  x"))
    assert message.get_all("Subject") == ["one two three", "x"]


def test_octets_survive_that_are_no_utf8() -> None:
    message = Message.parse(request("Subject: ol\udce9"))
    subject = message.get("Subject")
    assert subject is not None
    assert subject.encode("utf-8", "surrogateescape") == b"ol\xe9"


def test_body_length() -> None:
    assert Message.parse(request(body=b"abc")).body == b"abc"
    assert Message.parse(request("Content-Length: 2", body=b"abc")).body == b"ab"
    assert Message.parse(request("l: 003", body=b"abc"), stream=True).body == b"abc"
    assert refused(request("Content-Length: 4", body=b"abc")).status == 400
    assert refused(request(body=b""), stream=True).status == 400
    assert refused(request("Content-Length: 2", body=b"abc"), stream=True).status == 400


def test_line_ends() -> None:
    assert Message.parse(request().replace(b"\r\n", b"\n")).call_id == "c1@192.0.2.1"
    assert Message.parse(b"\r\n\r\n" + request()).method == "INVITE"
    assert refused(request("Subject: a\rX-Evil: b")).status == 400


def test_datagram_cut_within_headers_loses_its_partial_line_only() -> None:
    cut = request("Content-Lengt")[:-4]
    assert Message.parse(cut).items()[-1][0] == "Contact"
    assert Message.parse(cut).body == b""
    assert refused(cut, stream=True).status == 400
    assert refused(request("Subject: a\r\n b")[:-4] + b"\r\nContent-Length: 5\r\nX").status == 400


def test_every_known_fact_of_the_top_via_only() -> None:
    message = Message.parse(request(Via="Via: SIP/2.0/UDP a;rport\r\nVia: SIP/2.0/TCP b;branch=z9hG4bK2"))
    assert message.branch == ""
    assert [via.transport for via in message.vias()] == ["UDP", "TCP"]


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call-ID", "CSeq"])
def test_what_must_be_there(name: str) -> None:
    error = refused(request(without=(name,)))
    assert error.status == 400
    assert error.droppable == (name == "Via")


def test_max_forwards_may_be_absent() -> None:
    assert Message.parse(request(without=("Max-Forwards",))).max_forwards is None


@pytest.mark.parametrize("name", ["From", "To", "Call-ID", "CSeq", "Max-Forwards"])
def test_what_may_be_there_once(name: str) -> None:
    assert refused(request(LINES[name])).status == 400


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: 0\r\nl: 0",
        "Content-Length: -1",
        "Content-Length: 1 2",
        "Content-Length: 4294967301",
        "Content-Length:",
        "Content-Length: 0x0",
        "Expires: 1\r\nExpires: 2",
        "NoColon",
        ": empty name",
        "Bad Name: x",
        "To\x01: x",
        "X-\u00e9: x",
        "X-Nul: a\x00b",
    ],
)
def test_broken_lines(line: str) -> None:
    error = refused(request(line))
    assert error.status == 400
    assert not error.droppable


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("CSeq", "CSeq: 1 BYE"),
        ("CSeq", "CSeq: 2147483648 INVITE"),
        ("CSeq", "CSeq: -1 INVITE"),
        ("CSeq", "CSeq: 1"),
        ("CSeq", "CSeq: 1INVITE"),
        ("CSeq", "CSeq: 1 invite"),
        ("Max-Forwards", "Max-Forwards: 256"),
        ("Max-Forwards", "Max-Forwards: x"),
        ("Call-ID", "Call-ID: a b"),
        ("Call-ID", "Call-ID:"),
        ("Call-ID", "Call-ID: a\x7f"),
        ("To", 'To: "Bob <sip:bob@example.com>'),
        ("To", "To: Bob, B <sip:bob@example.com>"),
        ("To", "To: <sip:bob@example.com"),
        ("To", "To: sip:bob@example.com?Subject=x"),
        ("To", "To: <sip:bob@example.com>;tag=1;tag=2"),
        ("To", "To: <sip:bob@example.com>, <sip:carol@example.com>"),
        ("To", 'To: "Bob"'),
        ("From", "From: <sip:bob@exa mple.com>;tag=1"),
        ("From", 'From: <sip:bob@example.com>;tag="'),
        ("From", "From: <sip:a@b@c>"),
        ("From", "From: <tel:+;ext=>"),
        ("Contact", "Contact: <sip:a@b>;;"),
        ("Contact", "Contact: *, <sip:a@b>"),
        ("Contact", "Contact: sip:a@b:99999"),
        ("Contact", "Contact:"),
    ],
)
def test_broken_fields_deserve_400(name: str, line: str) -> None:
    error = refused(request_with(name, line))
    assert error.status == 400
    assert not error.droppable


@pytest.mark.parametrize(
    "via",
    [
        "Via: SIP/2.0/UDP",
        "Via: SIP/2.0 192.0.2.1",
        "Via: SIP/2.0/UDP [2001:db8::1",
        "Via: SIP/2.0/UDP 192.0.2.1:port",
        "Via: SIP/2.0/UDP192.0.2.1",
        "Via: SIP/2.0/UDP 192.0.2.1 junk;branch=x",
        "Via:",
        "Via: SIP/2.0/UDP a\x00b",
    ],
)
def test_without_a_usable_top_via_nothing_can_be_answered(via: str) -> None:
    assert refused(request(Via=via)).droppable
    assert Message.parse_lenient(request(Via=via)) is None


@pytest.mark.parametrize("via", [VIA + ";;", VIA + ', x"', VIA + ';received="', VIA + ";branch=2", VIA + "\r\nVia: x"])
def test_with_a_usable_sent_by_a_broken_via_is_answered(via: str) -> None:
    error = refused(request(Via=via))
    assert (error.status, error.droppable) == (400, False)


@pytest.mark.parametrize(
    ("start", "status"),
    [
        ("INVITE sip:bob@example.com SIP/7.0", 505),
        ("INVITE sip:bob@example.com SIP/2.00", 505),
        ("INVITE sip:" + "b" * 2100 + "@example.com SIP/2.0", 414),
        ("INVITE sip:bob@example.com; lr SIP/2.0", 400),
        ("INVITE <sip:bob@example.com> SIP/2.0", 400),
        ("INVITE  sip:bob@example.com SIP/2.0", 400),
        ("INVITE sip:bob@example.com  SIP/2.0", 400),
        ("INVITE sip:bob@example.com SIP/2.0 ", 400),
        ("INVITE sip:bob@example.com", 400),
        ("INVITE sip:bob@example.com?Route=x SIP/2.0", 400),
        ("INVITE sip:2001:db8::10 SIP/2.0", 400),
        ("INVITE sip:[2001:db8::10 SIP/2.0", 400),
        ("INVITE sip:@example.com SIP/2.0", 400),
        ("INVITE sip: SIP/2.0", 400),
        ("INVITE bob SIP/2.0", 400),
        ("INVITE tel:;phone-context= SIP/2.0", 400),
        ("M" * 65 + " sip:bob@example.com SIP/2.0", 400),
    ],
)
def test_broken_request_lines(start: str, status: int) -> None:
    error = refused(request(start=start))
    assert (error.status, error.droppable) == (status, False)


@pytest.mark.parametrize(
    "uri", ["urn:service:sos", "soap.beep://192.0.2.103:3002", "tel:+1-201-555-0123", "sips:a;b?c@[2001:db8::1]:5061;x"]
)
def test_unknown_schemes_and_odd_uris_are_for_the_core_to_judge(uri: str) -> None:
    assert Message.parse(request(start=f"INVITE {uri} SIP/2.0")).uri == uri


@pytest.mark.parametrize("start", ["SIP/2.0 99 x", "SIP/2.0 700 x", "SIP/2.0 2000 x", "SIP/1.0 200 OK", "SIP/2.0 x OK"])
def test_broken_status_lines_are_dropped(start: str) -> None:
    assert refused(response(start)).droppable


def test_any_broken_response_is_dropped() -> None:
    assert refused(response(Via=VIA + ";;")).droppable
    assert refused(response(CSeq="CSeq: 9292394834772304023312 OPTIONS")).droppable


def test_an_ack_is_never_answered() -> None:
    error = refused(request(start="ACK sip:bob@example.com SIP/2.0", CSeq="CSeq: 1 INVITE"))
    assert error.droppable


@pytest.mark.parametrize(
    "data", [b"", b"\r\n\r\n", b"\0\0\0\0", b"x", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\n \n\n"]
)
def test_noise_is_dropped(data: bytes) -> None:
    assert refused(data).droppable


def test_limits() -> None:
    spare = 200 - len(LINES)
    assert len(Message.parse(request(*["Z: 1"] * spare)).items()) == 200
    assert refused(request(*["Z: 1"] * (spare + 1))).status == 400
    assert refused(request(body=b"x" * 65536)).status == 513
    whole = request(body=b"x" * (65535 - len(request())))
    assert Message.parse(whole).body.endswith(b"x")


def test_nul_may_stand_in_a_quoted_pair_only() -> None:
    assert Message.parse(request(To='To: "a\\\x00" <sip:bob@example.com>')).to().display == "a\x00"
    assert refused(request(To='To: "a\x00" <sip:bob@example.com>')).status == 400
    assert refused(request("Subject: \\\x00")).status == 400
    assert refused(request(start="INVITE sip:b\x00b@example.com SIP/2.0")).status == 400
    assert Message.parse(request(body=b"a\0b")).body == b"a\0b"


def test_lenient_reading_survives_a_fold_with_a_lone_return() -> None:
    message = Message.parse_lenient(request("Subject: a\r\n b\rc", "Priority: urgent"))
    assert message is not None
    assert message.get("Subject") is None
    assert message.get("Priority") == "urgent"


def test_lenient_reading_serves_the_answer() -> None:
    broken = request("NoColon", "To: <sip:again@example.com>", without=("From",), CSeq="CSeq: x INVITE")
    message = Message.parse_lenient(broken)
    assert message is not None
    assert (message.from_tag, message.cseq_number, message.cseq_method, message.body) == ("", 0, "", b"")
    assert reply_to(message, 400, to_tag="b1", received=("192.0.2.9", 5062)) == (
        b"SIP/2.0 400 Bad Request\r\n"
        b"Via: SIP/2.0/UDP 192.0.2.1:5060;received=192.0.2.9;branch=z9hG4bK1;rport=5062\r\n"
        b"To: <sip:bob@example.com>;tag=b1\r\n"
        b"Call-ID: c1@192.0.2.1\r\n"
        b"CSeq: x INVITE\r\n"
        b"Content-Length: 0\r\n\r\n"
    )


def test_a_message_cannot_be_made_or_changed() -> None:
    message = Message.parse(request())
    with pytest.raises(AttributeError):
        message.status = 200  # type: ignore[misc]  # the promise under test
    with pytest.raises(TypeError):
        Message()
