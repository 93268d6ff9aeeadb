"""Keep-alives by STUN on a SIP socket; the addresses are the vectors of RFC 5769 §2.2 and §2.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc.sip.flow import Flow
from sbc.sip.stun import binding_response
from tests.support.ladder import A_HOST, Ladder
from tests.support.shared import shared_data

TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
REQUEST = bytes.fromhex("000100002112a442") + TRANSACTION


@pytest.mark.parametrize(
    ("host", "value"),
    [
        ("192.0.2.1", "0001a147e112a643"),
        ("2001:db8:1234:5678:11:2233:4455:6677", "0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"),
    ],
)
def test_it_says_where_it_came_from(host: str, value: str) -> None:
    answer = binding_response(REQUEST, host, 32853)
    assert answer is not None
    attribute = bytes.fromhex("0020") + (len(value) // 2).to_bytes(2, "big") + bytes.fromhex(value)
    head = bytes.fromhex("0101") + len(attribute).to_bytes(2, "big") + bytes.fromhex("2112a442") + TRANSACTION
    assert answer == head + attribute


@pytest.mark.parametrize(
    "data",
    [
        b"",
        REQUEST[:-1],
        REQUEST + b"\0\0\0\0",
        b"\x01\x01" + REQUEST[2:],
        REQUEST[:4] + b"\0\0\0\0" + TRANSACTION,  # RFC 3489
        REQUEST[:2] + b"\0\x08" + REQUEST[4:] + bytes.fromhex("0006000461626364"),  # somebody's credentials
        REQUEST[:2] + b"\0\x08" + REQUEST[4:] + bytes.fromhex("8022000561626364"),  # an attribute that lies
    ],
)
def test_what_is_no_keep_alive_gets_nothing(data: bytes) -> None:
    assert binding_response(data, "192.0.2.1", 5060) is None


def test_an_optional_attribute_is_passed_over() -> None:
    data = REQUEST[:2] + b"\0\x0c" + REQUEST[4:] + bytes.fromhex("80220005616263646500 0000".replace(" ", ""))
    assert binding_response(data, "192.0.2.1", 5060) is not None


@given(st.binary(max_size=120))
def test_noise(data: bytes) -> None:
    binding_response(data, "192.0.2.1", 5060)
    binding_response(REQUEST[:2] + len(data).to_bytes(2, "big") + REQUEST[4:] + data, "::1", 5060)


def test_a_peer_is_answered_and_a_stranger_is_not() -> None:
    data = (shared_data("sip") / "attacks" / "a43-stun-on-sip-port.sip").read_bytes()
    f = Ladder()
    sent = []
    f.perform = lambda effect: sent.append(effect)  # type: ignore[method-assign]  # to see the octets
    f.deliver(data, Flow(0, "udp", A_HOST, 5070))
    assert len(sent) == 1
    assert f.counts["KEEPALIVE"] == 1
    f.deliver(data, Flow(0, "udp", "203.0.113.66", 5070))
    assert len(sent) == 1
