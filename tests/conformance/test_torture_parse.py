"""RFC 4475, RFC 5118, captured and hostile messages: the parser's part of what expectations.csv asks of a server."""

from __future__ import annotations

import csv
import re

import pytest

from sbc.errors import SipSyntaxError
from sbc.sip.build import build_request, build_response, reply_to
from sbc.sip.message import Message, peek_call_id
from sbc.sip.uri import parse_uri
from tests.support.shared import shared_data

DATA = shared_data()
with (DATA / "expectations.csv").open(newline="") as table:
    ROWS = {row["file"]: row for row in csv.DictReader(table) if row["file"].startswith("sip/")}

# The file begins in the middle of a message: its start line was in an earlier TCP segment of the capture.
NOT_A_MESSAGE = {"sip/real/zoiper-tcp-01-register.sip"}

# Files of class lenient: either answer is allowed, and this is ours.
OURS = {
    "sip/rfc4475/lwsruri.dat": 400,
    "sip/rfc4475/escruri.dat": 400,
    "sip/rfc4475/baddate.dat": None,
    "sip/rfc4475/baddn.dat": 400,
    "sip/real/sipps-compact-01-invite.sip": None,
}

# Files of class attack that must not get past the parser.
STOPPED = {
    "a01": 400,
    "a08": 400,
    "a11": 414,
    "a12": 400,
    "a13": 400,
    "a15": 400,
    "a16": 400,
    "a26": 400,
    "a27": 400,
    "a35": 400,
    "a36": 400,
}
DROPPED = ("a14", "a28", "a41", "a42", "a43", "a44", "a45", "a46")


def files(kind: str) -> list[str]:
    return [name for name, row in ROWS.items() if row["class"] == kind and name not in NOT_A_MESSAGE]


def octets(name: str) -> bytes:
    return (DATA / name).read_bytes()


def outcome(name: str) -> int | None:
    """None where the message is accepted; the status of its answer; 0 where it is dropped."""
    try:
        Message.parse(octets(name))
    except SipSyntaxError as error:
        return 0 if error.droppable else error.status
    return None


def test_the_table_is_there() -> None:
    assert len(ROWS) > 100
    assert all((DATA / name).exists() for name in ROWS)


@pytest.mark.parametrize("name", files("valid"))
def test_valid_is_read_whole(name: str) -> None:
    message = Message.parse(octets(name))
    assert message.from_().tag == message.from_tag
    assert message.to().tag == message.to_tag
    assert message.top_via.branch == message.branch
    assert message.vias()
    message.contact()
    if message.is_request:
        assert str(parse_uri(message.uri)).lower() == message.uri.lower()
    assert peek_call_id(message.raw) == message.call_id.encode()


@pytest.mark.parametrize("name", files("valid"))
def test_valid_survives_being_built_anew(name: str) -> None:
    message = Message.parse(octets(name))
    headers = message.items()
    if any("\0" in value for _, value in headers):
        # A NUL is never written, even where RFC 4475 §3.1.1.2 shows that it may be read.
        with pytest.raises(SipSyntaxError):
            build_request(message.method, message.uri, headers)
        return
    if message.is_request:
        again = Message.parse(build_request(message.method, message.uri, headers, message.body))
        assert (again.method, again.uri) == (message.method, message.uri)
    else:
        again = Message.parse(build_response(message.status, message.reason, headers, message.body))
        assert (again.status, again.reason) == (message.status, message.reason)
    assert again.body == message.body

    def others(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [pair for pair in pairs if pair[0] != "Content-Length"]

    assert others(again.items()) == others(headers)
    assert again.branch == message.branch
    assert (again.from_tag, again.to_tag) == (message.from_tag, message.to_tag)


@pytest.mark.parametrize("name", files("invalid"))
def test_invalid_is_refused(name: str) -> None:
    expected = ROWS[name]["expect"]
    result = outcome(name)
    if match := re.search(r"\b(400|505)\b", expected):
        assert result == int(match[1]) or ("drop" in expected and result == 0)
    else:
        assert "drop" in expected
        assert result == 0


@pytest.mark.parametrize("name", files("lenient"))
def test_lenient_always_gets_the_same_answer(name: str) -> None:
    assert outcome(name) == OURS[name]


@pytest.mark.parametrize("name", files("attack"))
def test_attacks(name: str) -> None:
    number = name.rsplit("/", 1)[1][:3]
    if number in DROPPED:
        assert outcome(name) == 0
    else:
        assert outcome(name) == STOPPED.get(number)


@pytest.mark.parametrize("name", [name for name in ROWS if outcome(name) not in (None, 0)])
def test_what_is_refused_can_be_answered(name: str) -> None:
    broken = Message.parse_lenient(octets(name))
    assert broken is not None
    answer = reply_to(broken, 400, to_tag="x", received=("192.0.2.99", 5099))
    head = answer.split(b"\r\n\r\n")[0]
    assert answer.endswith(b"\r\nContent-Length: 0\r\n\r\n")
    assert b";received=192.0.2.99" in head.split(b"\r\n")[1]
    assert b"\n" not in head.replace(b"\r\n", b"")


def test_wsinv_in_detail() -> None:
    message = Message.parse(octets("sip/rfc4475/wsinv.dat"))
    assert (message.cseq_number, message.max_forwards) == (9, 68)
    assert (message.from_tag, message.to_tag, message.branch) == ("98asjd8", "1918181833n", "390skdjuw")
    assert [str(via) for via in message.vias()] == [
        "SIP/2.0/UDP 192.0.2.2;branch=390skdjuw",
        "SIP/2.0/TCP spindle.example.com;branch=z9hG4bK9ikj8",
        "SIP/2.0/UDP 192.168.255.111;branch=z9hG4bK30239",
    ]
    assert message.from_().display == 'J Rosenberg \\"'
    assert message.get("s") == ""
    assert message.get("NewFangledHeader") == "newfangled value continued newfangled value"
    assert message.get("UnknownHeaderWithUnusualValue") == ";;,,;;,;"
    contact = message.contact()
    assert contact is not None
    assert (contact.display, contact.param("q"), contact.param("newparam")) == ('Quoted string ""', "0.33", "newvalue")


def test_hosts_and_ports_of_rfc5118() -> None:
    ambiguous = parse_uri(Message.parse(octets("sip/rfc5118/port-ambiguous.dat")).uri)
    assert (ambiguous.address, ambiguous.port) == ("2001:db8::10:5070", None)
    plain = parse_uri(Message.parse(octets("sip/rfc5118/port-unambiguous.dat")).uri)
    assert (plain.address, plain.port) == ("2001:db8::10", 5070)
    via = Message.parse(octets("sip/rfc5118/via-received-param-with-delim.dat")).top_via
    assert via.received == "2001:db8::9:255"


def test_smuggled_headers_are_seen_under_their_name() -> None:
    message = Message.parse(octets("sip/attacks/a07-smuggle-space-before-colon.sip"))
    assert message.get("X-Trusted-Peer") == "1"
    assert message.get("P-Asserted-Identity") == "<sip:+15551230000@carrier.example>"
    assert message.get("X-Billing-Account") == "42"
