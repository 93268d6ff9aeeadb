"""Where the answers to datagrams go (RFC 3261 §18.2.1, §18.2.2, RFC 3581 §4), by the form of the Via."""

from __future__ import annotations

import pytest

from sbc.b2bua.effects import Transmit
from sbc.b2bua.settings import RealmSettings
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, OUR_A, Ladder

SEEN_PORT = 40_000


class Wire(Ladder):
    """The ladder, with the path of everything that is sent."""

    def __init__(self, *, answers_to_via: bool, nat: str = "never") -> None:
        realms = {
            "inside": RealmSettings("inside", nat=nat, answers_to_via=answers_to_via),  # type: ignore[arg-type]  # a literal
            "outside": RealmSettings("outside"),
        }
        super().__init__(realms=realms)
        self.sent: list[tuple[Flow, Message]] = []

    def perform(self, effect: object) -> None:
        if isinstance(effect, Transmit):
            self.sent.append((effect.flow, Message.parse(effect.data)))
        super().perform(effect)

    def ask(self, via: str, method: str = "OPTIONS") -> tuple[Flow, Message]:
        self.sent.clear()
        lines = [
            f"{method} sip:{OUR_A} SIP/2.0",
            f"Via: SIP/2.0/UDP {via};branch=z9hG4bK{len(via)}{method}",
            "Max-Forwards: 70",
            "From: <sip:a@x>;tag=a",
            f"To: <sip:{OUR_A}>",
            f"Call-ID: {via}",
            f"CSeq: 1 {method}",
            "Content-Length: 0",
        ]
        self.deliver("\r\n".join([*lines, "", ""]).encode(), Flow(0, "udp", A_HOST, SEEN_PORT))
        return self.sent[-1]


@pytest.mark.parametrize(
    ("via", "port", "told"),
    [
        (f"{A_HOST}:5070", 5070, ""),
        (A_HOST, 5060, ""),
        ("10.9.9.9:5070", 5070, A_HOST),
        ("gw.example", 5060, A_HOST),
        (f"{A_HOST}:5070;rport", SEEN_PORT, A_HOST),
        ("gw.example;rport", SEEN_PORT, A_HOST),
        ("[2001:db8::1]:5070;rport", SEEN_PORT, A_HOST),
        (f"{A_HOST}:5070;received=203.0.113.5", 5070, A_HOST),  # what the sender claims leads nowhere
        ("gw.example:5070;maddr=203.0.113.5", 5070, A_HOST),
    ],
)
def test_by_the_form_of_the_via(via: str, port: int, told: str) -> None:
    """The address is always the one that it came from; the port as RFC 3261 says, where the realm wants that."""
    for strict in (True, False):
        flow, answer = Wire(answers_to_via=strict).ask(via)
        assert (answer.status, flow.host) == (200, A_HOST)
        assert flow.port == (port if strict else SEEN_PORT)
        assert (answer.top_via.received or "") in (told, A_HOST)
        if told:
            assert answer.top_via.received == told
        assert answer.top_via.rport == (SEEN_PORT if ";rport" in via else None)


def test_a_refusal_is_repeated_to_the_same_place() -> None:
    f = Wire(answers_to_via=True)
    first = f.ask(f"{A_HOST}:5070", "FOO")
    again = f.ask(f"{A_HOST}:5070", "FOO")
    assert first[1].raw == again[1].raw
    assert first[0] == again[0] == Flow(0, "udp", A_HOST, 5070)
