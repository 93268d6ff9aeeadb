"""Whatever arrives, the parser gives a Message or a SipSyntaxError; and what it accepts holds together."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbc.errors import SipSyntaxError
from sbc.sip import address, uri, via
from sbc.sip.address import parse_name_addr
from sbc.sip.build import build_request, build_response, reply_to
from sbc.sip.message import Message, peek_call_id
from sbc.sip.shard import shard_of, shard_of_datagram
from sbc.sip.uri import parse_uri
from sbc.sip.via import parse_via
from tests.support.shared import shared_data
from tests.unit.sip.messages import request, response

KEY = b"0123456789abcdef"
EXAMPLES = int(os.environ.get("SBC_FUZZ_EXAMPLES", "0"))  # of each test, for python -m tests.fuzz.run

SEEDS = [
    request("Content-Length: 3", 'Route: <sip:a;lr>, "x" <sip:b>', body=b"v=0"),
    request("Subject: a\r\n b", From='From: "\\"" <sip:a;b?c=d@e>;tag=1 ; x = "y;"', Contact="m: *"),
    response(
        "SIP/2.0 200 OK", To="t: <tel:+1;x=y>;tag=2", Via="v: SIP / 2.0 /UDP [::1]:5 ;rport;received=1,SIP/2.0/TCP b"
    ),
]
PIECES = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b";", b",", b'"', b"<", b">", b"\\", b"=", b"@", b"?", b"[", b"]"]
PIECES += [
    b"\0",
    b"\xff",
    b"%",
    b"*",
    b"/",
    b"SIP/2.0",
    b"sip:",
    b"tel:",
    b"tag=",
    b"rport",
    b"Via: ",
    b"i:",
    b"4294967296",
]


def parsed(data: bytes) -> Message | SipSyntaxError:
    try:
        return Message.parse(data)
    except SipSyntaxError as error:
        return error


def hold_together(data: bytes) -> None:
    """The properties that every message has."""
    message = parsed(data)
    if isinstance(message, SipSyntaxError):
        lenient = Message.parse_lenient(data)
        assert message.droppable == (lenient is None)
        if lenient is not None:
            lenient.items()
            answer = reply_to(lenient, 400, to_tag="t", received=("2001:db8::1", 5060))
            assert b"\n" not in answer.replace(b"\r\n", b"")
        peek_call_id(data)
        return
    assert peek_call_id(data) == message.call_id.encode()
    assert shard_of_datagram(data, KEY) == shard_of(message.call_id, KEY)
    assert message.from_().tag == message.from_tag
    assert message.to().tag == message.to_tag
    assert message.vias()
    assert message.top_via.branch == message.branch
    contact = message.contact()
    assert contact is None or parse_name_addr(str(contact)) == contact
    headers = message.items()
    for name, value in headers:
        assert message.get(name) is not None
        assert "\n" not in value
    if not any("\0" in value for _, value in headers):
        if message.is_request:
            parse_uri(message.uri)
            built = build_request(message.method, message.uri, headers, message.body)
            if message.method != "ACK":
                Message.parse(reply_to(message, 200, to_tag="t", received=("192.0.2.1", 5060)))
        else:
            built = build_response(message.status, message.reason, headers, message.body)
        again = Message.parse(built, stream=True)
        assert [h for h in again.items() if h[0] != "Content-Length"] == [
            h for h in headers if h[0] != "Content-Length"
        ]
        assert (again.from_tag, again.to_tag, again.branch, again.body) == (
            message.from_tag,
            message.to_tag,
            message.branch,
            message.body,
        )


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        take = draw(st.integers(0, 12))
        data[at : at + take] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
    return bytes(data)


@settings(max_examples=EXAMPLES or 1500, deadline=None)
@given(mutated())
def test_mutated_messages(data: bytes) -> None:
    hold_together(data)


@settings(max_examples=EXAMPLES or 300, deadline=None)
@given(st.binary(max_size=300))
def test_any_octets(data: bytes) -> None:
    hold_together(data)


TEXT = st.text(
    alphabet=st.sampled_from(list(' \t"<>;,:=@?[]\\%*/.-+ab1\xe9\udcff\0\n')) | st.sampled_from("sip:"), max_size=40
)


@settings(max_examples=EXAMPLES or 1000, deadline=None)
@given(TEXT)
def test_parts(text: str) -> None:
    for parse in (parse_uri, parse_name_addr, parse_via):
        for prefix in ("", "sip:", "sip:a@b;", "<sip:a>;", "SIP/2.0/UDP a;"):
            try:
                value = parse(prefix + text)
            except SipSyntaxError:
                continue
            assert parse(str(value)) == value


@settings(max_examples=EXAMPLES or 1500, deadline=None)
@given(TEXT)
def test_the_short_way_is_the_long_way(text: str) -> None:
    for module, parse in ((uri, parse_uri), (address, parse_name_addr), (via, parse_via)):
        for prefix in ("", "sip:", "sips:a@", "sip:a@b;", "<sip:", '"a" <sip:a@b>', "a <sip:a@b>;", "SIP/2.0/UDP a;"):
            assert outcome(parse, prefix + text) == outcome(module._parse_any, prefix + text)


def outcome(parse: Callable[[str], object], text: str) -> object:
    try:
        return parse(text)
    except SipSyntaxError:
        return None


@settings(max_examples=EXAMPLES or 300, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_built_headers_stay_on_their_line(name: str, value: str) -> None:
    try:
        built = build_request("INFO", "sip:a@b", [(name, value)])
    except (SipSyntaxError, UnicodeEncodeError):
        return
    assert built.count(b"\r\n") in (3, 4)
    assert built.replace(b"\r\n", b"").count(b"\n") == 0


@pytest.mark.parametrize("folder", ["sip/rfc4475", "sip/rfc5118", "sip/real", "sip/attacks"])
def test_files_cut_and_damaged(folder: str) -> None:
    random_source = random.Random(4475)
    for path in sorted(shared_data(folder).iterdir()):
        data = path.read_bytes()[:4096]
        hold_together(data)
        for _ in range(25):
            hold_together(data[: random_source.randrange(len(data) + 1)])
            damaged = bytearray(data)
            for _ in range(random_source.randrange(1, 5)):
                damaged[random_source.randrange(len(damaged))] = random_source.choice(b'\r\n\0 \t:;,"<>\\=@A\xff')
            hold_together(bytes(damaged))


def test_corpus_of_other_protocols_is_noise() -> None:
    for path in sorted(shared_data("corpus").rglob("*")):
        if path.is_file():
            hold_together(path.read_bytes())
