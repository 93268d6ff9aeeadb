"""Requests too long for a datagram (RFC 3261 §18.1.1): by TCP, and as a datagram where there is no connection."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.b2bua.effects import Transmit
from sbc.b2bua.settings import ListenerSettings, RealmSettings
from sbc.sip.flow import Flow
from sbc.transaction.oversize import ACK_S, NO_TCP_S
from tests.support.ladder import A_HOST, B_HOST, OUR_A, OUR_B, Ladder, sdp

LONG = sdp(A_HOST) + b"a=x:" + b"y" * 1300 + b"\r\n"
LISTENERS = (
    ListenerSettings("inside", "udp", OUR_A, 5060, OUR_A, 5060),
    ListenerSettings("outside", "udp", "10.0.0.5", 5060, OUR_B, 5060),
    ListenerSettings("outside", "tcp", "10.0.0.9", 5070, OUR_B, 5070),
    ListenerSettings("outside", "tcp", "10.0.0.5", 5061, OUR_B, 5061),
)


class Net(Ladder):
    """The ladder with TCP outside. ``by`` is how B was sent its messages; ``refuses``: B takes no connections."""

    def __init__(self, *, limit: int = 1300, refuses: bool = False, **changes: Any) -> None:  # Any: see Ladder
        changes.setdefault("listeners", LISTENERS)
        realms = {
            "inside": RealmSettings("inside", trusted=True),
            "outside": RealmSettings("outside", datagram_max_bytes=limit),
        }
        super().__init__(realms=realms, **changes)
        self.refuses = refuses
        self.by: list[tuple[str, str]] = []

    def perform(self, effect: object) -> None:
        if isinstance(effect, Transmit) and effect.flow.host == B_HOST:
            self.by.append((effect.data.split(b" ", 1)[0].decode(), effect.flow.transport))
            if effect.flow.transport == "tcp":
                assert effect.flow == Flow(3, "tcp", B_HOST, 5070)
                assert f"\r\nVia: SIP/2.0/TCP {OUR_B}:5061;rport;branch=".encode() in effect.data
                if self.refuses:
                    self.core.transport_failed(effect.flow, self.now)
                    return
            else:
                assert f"\r\nVia: SIP/2.0/UDP {OUR_B}:5060;rport;branch=".encode() in effect.data
        super().perform(effect)

    def call(self) -> None:  # type: ignore[override]  # the property of that name is of no use here
        self.a.dialog = None
        self.a.request("INVITE", body=LONG)
        self.a.expect(100)

    def answer(self) -> None:
        self.b.expect("INVITE")
        self.b.reply(200, body=sdp(B_HOST))
        self.a.expect(200)
        self.a.ack()
        self.b.expect("ACK")


def test_a_long_invite_goes_by_tcp_and_the_short_ones_after_it_as_datagrams() -> None:
    f = Net()
    f.call()
    f.after(5.0)  # a stream loses nothing: it is not sent again
    f.answer()
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    assert f.by == [("INVITE", "tcp"), ("ACK", "udp"), ("BYE", "udp")]
    assert f.counts["OVERSIZE_TCP"] == 1
    f.over()


def test_what_belongs_to_its_transaction_goes_the_same_way() -> None:
    """CANCEL with a Reason, and the ACK to a refusal (§9.1, §17.1.1.3): same branch, same Via, same path."""
    f = Net()
    f.call()
    invite = f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.a.dialog = None
    f.a.request("CANCEL", branch=f.a.branch, extra=[("Reason", "SIP;cause=600")])
    f.a.expect(200)
    f.a.expect(487)
    cancel = f.b.expect("CANCEL")
    assert cancel.get("Via") == invite.get("Via")
    assert cancel.get("Reason")
    f.b.reply(200, to=cancel)
    f.b.reply(487, to=invite)
    f.b.expect("ACK")
    assert f.by == [("INVITE", "tcp"), ("CANCEL", "tcp"), ("ACK", "tcp")]


def test_without_a_connection_it_is_a_datagram_after_all_and_stays_so_for_a_while() -> None:
    f = Net(refuses=True)
    f.call()
    f.after(0.6)  # with the timers of one, too
    assert f.by == [("INVITE", "tcp"), ("INVITE", "udp"), ("INVITE", "udp")]
    assert f.counts["OVERSIZE_FALLBACKS"] == 1
    first = f.b.expect("INVITE")
    assert f.b.expect("INVITE").raw == first.raw
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")

    f.by.clear()
    f.refuses = False
    f.a.request("INVITE", body=LONG + b"a=again\r\n")
    f.a.expect(100)
    f.answer()
    assert f.by == [("INVITE", "udp"), ("ACK", "udp")]
    f.after(NO_TCP_S)
    f.by.clear()
    f.a.request("INVITE", body=LONG + b"a=once more\r\n")
    f.a.expect(100)
    f.answer()
    assert f.by == [("INVITE", "tcp"), ("ACK", "udp")]


def test_a_connection_lost_after_a_response_is_a_failure() -> None:
    """B has the request: it is not sent twice."""
    f = Net()
    f.call()
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.core.transport_failed(Flow(3, "tcp", B_HOST, 5070), f.now)
    f.drain()
    f.b.nothing()
    f.a.refused(503)
    assert "OVERSIZE_FALLBACKS" not in f.counts
    f.over()


@pytest.mark.parametrize("refuses", [False, True])
def test_a_long_ack(refuses: bool) -> None:
    """A late offer's answer leaves in the ACK, which no transaction watches: where the connection fails, the ACK to the
    next 2xx is a datagram."""
    f = Net(refuses=refuses)
    f.a.request("INVITE")
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack(body=LONG)
    if refuses:
        f.b.nothing()
        f.after(0.5)
        f.b.again()
    f.b.expect("ACK")
    udp = [("ACK", "udp")] * refuses
    assert f.by == [("INVITE", "udp"), ("ACK", "tcp"), *udp]


def test_a_connection_that_ends_long_after_an_ack_says_nothing() -> None:
    f = Net()
    f.a.request("INVITE")
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack(body=LONG)
    f.b.expect("ACK")
    f.after(ACK_S + 1)
    f.core.transport_failed(Flow(3, "tcp", B_HOST, 5070), f.now)
    f.a.request("INVITE", body=LONG)
    f.a.expect(100)
    assert f.by[-1] == ("INVITE", "tcp")


@pytest.mark.parametrize(
    ("limit", "listeners"),
    [(0, LISTENERS), (4000, LISTENERS), (1300, LISTENERS[:2])],
    ids=["switched off", "a higher limit", "no TCP there"],
)
def test_datagrams_however_long(limit: int, listeners: tuple[ListenerSettings, ...]) -> None:
    f = Net(limit=limit, listeners=listeners)
    f.call()
    f.answer()
    assert f.by == [("INVITE", "udp"), ("ACK", "udp")]
