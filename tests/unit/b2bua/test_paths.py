"""By which path requests inside a dialog leave: transport, address and connection (RFC 3261 §12.2.1.1, RFC 3263 §4)."""

from __future__ import annotations

import pytest

from sbc.b2bua.core import Core
from sbc.b2bua.leg import Leg, transport_of
from sbc.b2bua.settings import ListenerSettings, RealmSettings
from sbc.dialog.dialog import Dialog
from sbc.sip.flow import Flow
from sbc.sip.uri import parse_uri
from tests.support.ladder import Peers, counting_ids, settings

LISTENERS = tuple(
    ListenerSettings("out", transport, "192.0.2.7", 5060, "192.0.2.7", 5060)
    for transport in ("udp", "tcp", "tls", "ws")
)
UDP = Flow(0, "udp", "192.0.2.1", 40_000)
TCP = Flow(1, "tcp", "192.0.2.1", 40_000, 7)
WS = Flow(3, "ws", "192.0.2.1", 40_000, 8)


def out(flow: Flow, contact: str, nat: str = "never") -> Flow:
    realm = RealmSettings("out", nat=nat)  # type: ignore[arg-type]  # one of its literals
    core = Core(settings(Peers(), listeners=LISTENERS, realms={"out": realm}), counting_ids())
    dialog = Dialog("c", "<sip:a@b>", "t", "<sip:c@d>", "")
    dialog.remote_target = contact
    return Leg("a", dialog, flow, "out", "").out(core)


@pytest.mark.parametrize(
    ("flow", "contact", "expected"),
    [
        (UDP, "sip:p@192.0.2.1:5070", Flow(0, "udp", "192.0.2.1", 5070)),
        (UDP, "sip:p@192.0.2.9", Flow(0, "udp", "192.0.2.9", 5060)),
        (UDP, "sip:p@192.0.2.1;transport=tcp", Flow(1, "tcp", "192.0.2.1", 5060)),
        (UDP, "sip:p@192.0.2.1:5070;transport=sctp", Flow(0, "udp", "192.0.2.1", 5070)),
        (UDP, "sips:p@192.0.2.1", Flow(2, "tls", "192.0.2.1", 5061)),
        # the connection is used while it lives; the address is for afterwards
        (TCP, "sip:p@192.0.2.1:5070;transport=tcp", Flow(1, "tcp", "192.0.2.1", 5070, 7)),
        (TCP, "sip:p@192.0.2.1:5070", Flow(1, "tcp", "192.0.2.1", 5070, 7)),
        (TCP, "sip:p@192.0.2.9:5070;transport=tcp", Flow(1, "tcp", "192.0.2.9", 5070, 0)),
        (TCP, "sip:p@192.0.2.1:5070;transport=UDP", Flow(0, "udp", "192.0.2.1", 5070)),
        (TCP, "sip:p@phone.example;transport=tcp", TCP),
        # nobody connects to a browser
        (WS, "sip:p@abc.invalid;transport=ws", WS),
        (WS, "sip:p@192.168.1.5:5060;transport=ws", WS),
    ],
)
def test_path(flow: Flow, contact: str, expected: Flow) -> None:
    assert out(flow, contact) == expected


def test_behind_nat_it_is_where_the_other_side_was_seen() -> None:
    assert out(TCP, "sip:p@10.0.0.9;transport=udp", "auto") == TCP
    assert out(TCP, "sip:p@192.0.2.1:5070;transport=udp", "always") == TCP


@pytest.mark.parametrize(
    ("uri", "transport"),
    [("sip:a@b", ""), ("sip:a@b;Transport=TCP", "tcp"), ("sips:a@b", "tls"), ("sips:a@b;transport=tcp", "tls")],
)
def test_what_a_uri_asks_for(uri: str, transport: str) -> None:
    assert transport_of(parse_uri(uri)) == transport
