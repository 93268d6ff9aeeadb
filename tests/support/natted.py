"""A ladder whose phone A is behind NAT: what it writes of itself is private, and it is seen at another port."""

from __future__ import annotations

from typing import Any

from sbc.b2bua.effects import Transmit
from sbc.sip.flow import Flow
from tests.support.ladder import A_HOST, Ladder, Phone

INSIDE_HOST, INSIDE_PORT = "192.168.7.7", 5062
PUBLIC_PORT = 6111


class HiddenPhone(Phone):
    """A phone that believes to be at ``via``; ``public_port`` is where its NAT lets us see it."""

    via = f"{INSIDE_HOST}:{INSIDE_PORT}"
    public_port = PUBLIC_PORT
    asks_for_rport = True

    def _send(self, data: bytes) -> None:
        data = data.replace(f"Via: SIP/2.0/UDP {self.host}:5070".encode(), f"Via: SIP/2.0/UDP {self.via}".encode())
        if not self.asks_for_rport:
            data = data.replace(b";rport", b"", 1)
        self.sent = data
        self.ladder.deliver(data, Flow(self.listener, "udp", self.host, self.public_port))


def hide(ladder: Ladder, contact: str = f"<sip:a@{INSIDE_HOST}:{INSIDE_PORT};line=1>") -> HiddenPhone:
    """Put A behind NAT."""
    phone = HiddenPhone(ladder, "a", A_HOST, 0)
    phone.contact = contact
    ladder.a = ladder.phones[A_HOST] = phone
    return phone


class Sent:
    """Where a ladder sends: what its ``perform`` is given goes through :meth:`note`."""

    def __init__(self) -> None:
        self.flows: list[tuple[str, int, str]] = []

    def note(self, effect: Any) -> None:  # Any: an effect
        if isinstance(effect, Transmit):
            first = effect.data.split(b" ", 2)
            self.flows.append((effect.flow.host, effect.flow.port, first[1 if first[0] == b"SIP/2.0" else 0].decode()))

    def to(self, host: str, what: str) -> set[int]:
        """The ports of ``host`` that messages of this method or status went to."""
        return {port for one, port, said in self.flows if (one, said) == (host, what)}
