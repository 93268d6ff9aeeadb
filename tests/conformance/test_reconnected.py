"""A phone whose connection is gone connects and registers anew: its calls are reached by the new connection."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.b2bua.binding import Binding
from sbc.b2bua.effects import BindingChanged, Transmit
from sbc.b2bua.settings import ListenerSettings
from sbc.services.keep_alive import KeepAlive
from sbc.sip.flow import Flow
from tests.conformance.test_nat import across
from tests.support.ladder import A_HOST, B_HOST, E_HOST, OUR_A, OUR_B, Ladder, Phone, sdp

LISTENERS = (
    ListenerSettings("inside", "tls", OUR_A, 5061, OUR_A, 5061),
    ListenerSettings("outside", "udp", "10.0.0.5", 5060, OUR_B, 5060),
)
FIRST, SECOND = 1001, 1002
FIRST_PORT, SECOND_PORT = 40_001, 40_002
OWN = f"<sip:a@{A_HOST}:5061;transport=tls>"


class Connected(Phone):
    """A phone behind a connection."""

    connection, port, seen_at = FIRST, FIRST_PORT, A_HOST

    def _send(self, data: bytes) -> None:
        self.sent = data
        self.ladder.deliver(data, Flow(0, "tls", self.seen_at, self.port, self.connection))


class ReconnectLadder(Ladder):
    """``used`` has the connections that requests to A left by, ``told`` what other workers hear."""

    def __init__(self) -> None:
        self.used: list[int] = []
        self.told: list[BindingChanged] = []
        super().__init__(requests=across, listeners=LISTENERS)
        self.phone = Connected(self, "a", A_HOST, 0)
        self.phone.contact = OWN
        self.a = self.phones[A_HOST] = self.phone
        self.keep_alive = KeepAlive(self.core)

    def perform(self, effect: Any) -> None:  # Any: an effect
        if isinstance(effect, BindingChanged):
            self.told.append(effect)
            return
        if isinstance(effect, Transmit) and effect.flow.listener == 0 and not effect.data.startswith(b"SIP/2.0"):
            self.used.append(effect.flow.connection)
        super().perform(effect)

    def connects_anew(self) -> None:
        self.phone.connection, self.phone.port = SECOND, SECOND_PORT

    def register(self, *, bound: bool = True) -> None:
        """A registers at B, apart from its call."""
        dialog = self.a.dialog
        self.a.dialog = ("register", f"<sip:a@{OUR_A}>;tag=r", f"<sip:a@{OUR_A}>", "sip:example.com")
        self.a.request("REGISTER", extra=[("Expires", "300")])
        sent = self.b.expect("REGISTER")
        contact = (sent.get("Contact") or "") + ";expires=300"
        self.b.reply(200, to=sent, extra=[("Contact", contact if bound else f"<sip:other@{B_HOST}>")])
        self.a.expect(200)
        self.a.dialog = dialog

    def b_hangs_up(self) -> int:
        """The connection by which A gets the BYE."""
        self.used.clear()
        self.b.request("BYE")
        self.b.expect(200)
        bye = self.a.expect("BYE")
        self.a.reply(200, to=bye)
        self.over()
        return self.used[0]


def test_a_registration_by_a_new_connection_moves_calls_there() -> None:
    """
    A                    SBC               B
    |===== a call ========|=================|
    |  (its connection breaks, A has a new one)
    |---- REGISTER ------>|---- REGISTER -->|
    |<------ 200 ---------|<----- 200 ------|
    |                     |<----- BYE ------|
    |<------ BYE ---------|                 |   by the new connection
    """
    f = ReconnectLadder()
    f.set_up()
    f.register()
    f.connects_anew()
    f.register()
    assert f.call.a.flow == Flow(0, "tls", A_HOST, SECOND_PORT, SECOND)
    assert f.counts["DIALOGS_RECONNECTED"] == 1
    assert f.b_hangs_up() == SECOND


def test_a_call_that_was_resumed_as_well() -> None:
    f = ReconnectLadder()
    f.set_up()
    f.dies()
    f.keep_alive = KeepAlive(f.core)
    f.connects_anew()
    f.register()
    assert f.b_hangs_up() == SECOND


def test_another_worker_is_told_and_moves_its_calls() -> None:
    f = ReconnectLadder()
    f.set_up()
    f.keep_alive.told(Binding(OWN[1:-1], Flow(0, "tls", A_HOST, SECOND_PORT, SECOND)), 0.0, f.now)
    assert f.b_hangs_up() == SECOND


def test_a_refresh_is_no_news() -> None:
    f = ReconnectLadder()
    for _ in range(3):
        f.register()
    assert [(one.flow.connection, one.lost_s) for one in f.told] == [(FIRST, 0.0)]
    f.connects_anew()
    f.register()
    assert [one.flow for one in f.told[1:]] == [Flow(0, "tls", A_HOST, SECOND_PORT, SECOND)]
    f.over()


def test_a_contact_with_the_port_of_its_connection_is_known_by_the_next_one() -> None:
    f = ReconnectLadder()
    f.phone.contact = f"<sip:a@{A_HOST}:{FIRST_PORT};transport=tls>"
    f.set_up()
    f.connects_anew()
    f.phone.contact = f"<sip:a@{A_HOST}:{SECOND_PORT};transport=tls;ob>"
    f.register()
    assert f.b_hangs_up() == SECOND


@pytest.mark.parametrize(
    ("contact", "seen_at", "bound"),
    [
        (f"<sip:b@{A_HOST}:5061;transport=tls>", A_HOST, True),
        (f"<sip:a@{A_HOST}:5071;transport=tls>", A_HOST, True),
        (OWN, E_HOST, True),
        (OWN, A_HOST, False),
    ],
    ids=["another user", "another port", "another source", "not bound"],
)
def test_whoever_else_registers_gets_no_call_of_others(contact: str, seen_at: str, bound: bool) -> None:
    f = ReconnectLadder()
    f.set_up()
    f.connects_anew()
    f.phone.contact, f.phone.seen_at = contact, seen_at
    f.phones[seen_at] = f.phone
    f.register(bound=bound)
    assert f.call.a.flow.connection == FIRST
    assert "DIALOGS_RECONNECTED" not in f.counts
    f.phone.contact, f.phone.seen_at = OWN, A_HOST
    assert f.b_hangs_up() == FIRST


def test_the_next_request_in_a_call_moves_it_too() -> None:
    f = ReconnectLadder()
    f.set_up()
    f.connects_anew()
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    assert f.b_hangs_up() == SECOND


@pytest.mark.parametrize("method", ["INVITE", "INFO"])
def test_a_request_that_finds_no_connection_does_not_end_the_call(method: str) -> None:
    """RFC 3261 §8.1.3.1: it is answered with 503, and by RFC 5057 §5.1 that is about this request alone."""
    f = ReconnectLadder()
    f.set_up()
    f.b.request(method, body=sdp(B_HOST, version=2) if method == "INVITE" else b"")
    assert f.a.expect(method)
    f.core.transport_failed(f.call.a.out(f.core), f.now)
    f.drain()
    if method == "INVITE":
        f.b.expect(100)
        f.b.refused(503)
    else:
        f.b.expect(503)
    assert len(f.core.calls) == 1
    f.connects_anew()
    f.register()
    assert f.b_hangs_up() == SECOND
