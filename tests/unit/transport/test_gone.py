"""Where a message goes whose connection is gone."""

from __future__ import annotations

import pytest

from sbc.sip.flow import Flow
from sbc.transport.streams import _without_connection

FLOW = Flow(1, "tcp", "192.0.2.9", 40_000, 5)


@pytest.mark.parametrize(
    ("via", "expected"),
    [
        ("192.0.2.1:5070;branch=z9hG4bKa", ("192.0.2.9", 5070)),
        ("phone.example;branch=z9hG4bKa;received=192.0.2.7", ("192.0.2.7", 5060)),
        ("[2001:db8::1]:5070;branch=z9hG4bKa;received=2001:db8::7;rport=40000", ("2001:db8::7", 5070)),
    ],
)
def test_a_response_goes_to_the_source_of_its_request_at_the_port_of_its_via(
    via: str, expected: tuple[str, int]
) -> None:
    """RFC 3261 §18.2.2: not to the port that the lost connection came from."""
    lines = [f"Via: SIP/2.0/TCP {via}", "From: <sip:a@b>;tag=1", "To: <sip:c@d>;tag=2", "Call-ID: x", "CSeq: 1 INVITE"]
    data = "\r\n".join(["SIP/2.0 200 OK", *lines, "Content-Length: 0", "", ""]).encode()
    assert _without_connection(FLOW, data) == expected


def test_a_request_goes_to_the_address_of_its_flow() -> None:
    assert _without_connection(FLOW, b"BYE sip:a@b SIP/2.0\r\n\r\n") == ("192.0.2.9", 40_000)
