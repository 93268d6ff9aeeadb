"""The key by which the index tells transactions apart is the one that the decoded headers give."""

from __future__ import annotations

import pytest

from sbc.sip.message import Message
from sbc.transaction.server import is_unique

VIAS = [
    "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKone",
    "sip/2.0/udp 192.0.2.1:5060;branch=z9hG4bKone;rport",
    "SIP / 2.0 / UDP Host.Example : 5060 ;rport;branch=z9hG4bKone",
    "SIP/2.0/TCP [2001:DB8::1]:5060;branch=z9hG4bKone, SIP/2.0/UDP a;branch=z9hG4bKtwo",
    "SIP/2.0/UDP\r\n 192.0.2.1;branch=z9hG4bKone",
    "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK",
    "SIP/2.0/UDP 192.0.2.1;branch=Z9HG4BKone",
    "SIP/2.0/UDP 192.0.2.1",
    "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK" + "x" * 400,
    "SIP/2.0/UDP " + "h" * 250 + ";branch=z9hG4bKone",
]


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize("method", ["INVITE", "ACK"])
def test_a_key_is_branch_sent_by_and_method(via: str, method: str) -> None:
    message = Message.parse(
        f"INVITE sip:a@b SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag=a\r\nTo: <sip:c@d>\r\nCall-ID: x\r\n"
        "CSeq: 1 INVITE\r\n\r\n".encode()
    )
    branch = message.branch
    sent_by = "".join((message.get("Via") or "").partition(";")[0].split()).lower()
    assert message.transaction_key(method) == (f"{branch} {sent_by} {method}" if is_unique(branch) else "")


def test_headers_by_a_set_of_names() -> None:
    lines = ["s: one", "SUBJECT: two", "x-A: three", "Via: SIP/2.0/UDP h;branch=z9hG4bKx", "Content-Type: a/b"]
    text = "OPTIONS sip:a@b SIP/2.0\r\n" + "\r\n".join(lines) + "\r\nf: <sip:a@b>;tag=a\r\nt: <sip:c@d>\r\ni: x\r\n"
    message = Message.parse((text + "CSeq: 1 OPTIONS\r\n\r\n").encode())
    names = frozenset({"subject", "x-a", "content-type"})
    assert message.having(names) == [item for item in message.items() if item[0].lower() in names]
    assert message.having(names)[0] == ("Subject", "one")
    assert message.having(frozenset()) == []
