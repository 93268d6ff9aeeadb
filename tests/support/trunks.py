"""A registrar for trunks in virtual time: what it answers, and what it expects of us."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sbc.b2bua.effects import LocateRegistrar, ServerFailed, TrunkChanged
from sbc.services.trunk_registration import START_S, Registrations, TrunkSettings
from sbc.sip.digest import Credentials, challenges, ha1, parse_authorization, verify
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from tests.support.ladder import B_HOST, OUR_B, Ladder, Phone

OURS = Credentials("trunk-7", "sesame", "carrier.example")


CONTACT = f"<sip:4930700@{OUR_B}:5060>"


B = TrunkSettings(
    peer="carrier-b",
    realm="outside",
    registrar="sip:carrier.example",
    proxy=f"sip:{B_HOST}:5070",
    aor="sip:4930700@carrier.example",
    contact_user="4930700",
    expires_s=3600,
    credentials=OURS,
)


NAMED = replace(B, proxy="sip:carrier.example")


class Trunks(Ladder):
    """A ladder whose node registers; ``servers`` is what the DNS says of any registrar."""

    def __init__(self, *wanted: TrunkSettings, **changes: Any) -> None:  # Any: as Ladder
        self.registrations: Registrations | None = None
        super().__init__(**changes)
        self.servers: list[Flow] | None = []  # None: the answer does not come
        self.failed: list[Flow] = []
        self.registrations = Registrations(self.core)
        self.registrations.configure(wanted, self.now)
        self.after(START_S + 0.1)

    def perform(self, effect: object) -> None:
        assert self.registrations is not None
        match effect:
            case ServerFailed(flow):
                self.failed.append(flow)
            case LocateRegistrar(peer):
                if self.servers is not None:
                    self.registrations.located(peer, self.servers, self.now)
            case TrunkChanged(peer, trunk):
                self.core.trunks[peer] = trunk
            case _:
                super().perform(effect)

    def configure(self, *wanted: TrunkSettings) -> None:
        assert self.registrations is not None
        self.registrations.configure(wanted, self.now)
        self.drain()

    def leave(self) -> None:
        assert self.registrations is not None
        self.registrations.leave(self.now)
        self.drain()

    def register(self, phone: Phone, least_s: float, most_s: float) -> Message:
        """The REGISTER that comes between these times from now, and none before."""
        self.after(least_s)
        phone.nothing()
        end = self.now + most_s - least_s
        while not phone.inbox and self.now < end:
            self.after(0.25)
        return phone.expect("REGISTER")

    @property
    def left(self) -> bool:
        assert self.registrations is not None
        return self.registrations.left

    @property
    def one(self) -> dict[str, Any]:  # Any: JSON values
        assert self.registrations is not None
        (found,) = self.registrations.describe(self.now)
        return found

    @property
    def said(self) -> list[tuple[str, str]]:
        """Level and event of each line in the log."""
        return [(note.level, note.event) for note in self.notes]


def accept(phone: Phone, request: Message, *, expires: int = 3600, extra: list[tuple[str, str]] | None = None) -> None:
    contact, _, _ = (request.get("Contact") or "").partition(";expires")
    answer(phone, request, 200, [("Contact", f"{contact};expires={expires}"), *(extra or [])])


def answer(phone: Phone, request: Message, status: int, extra: list[tuple[str, str]]) -> None:
    """A registrar's answer: it has no Contact of its own."""
    lines = [
        f"SIP/2.0 {status} Said",
        *(f"Via: {via}" for via in request.get_all("Via")),
        f"From: {request.get('From')}",
        f"To: {request.get('To')};tag=registrar",
        f"Call-ID: {request.call_id}",
        f"CSeq: {request.cseq_number} REGISTER",
        *(f"{name}: {value}" for name, value in extra),
        "Content-Length: 0",
    ]
    phone._send(("\r\n".join(lines) + "\r\n\r\n").encode())


def challenge(phone: Phone, request: Message, nonce: str = "n1", *, status: int = 401, **fields: Any) -> None:
    """Any: fields of sbc.sip.digest.challenges."""
    name = "Proxy-Authenticate" if status == 407 else "WWW-Authenticate"
    fields.setdefault("algorithms", ("MD5",))
    values = challenges(fields.pop("realm", OURS.realm), nonce, **fields)
    answer(phone, request, status, [(name, value) for value in values])


def assert_ours(request: Message, nonce: str = "n1", nc: int = 1, *, header: str = "Authorization") -> None:
    (value,) = request.get_all(header)
    answer = parse_authorization(value)
    assert answer is not None
    assert (answer.username, answer.realm, answer.nonce, answer.nc) == (OURS.username, OURS.realm, nonce, nc)
    assert answer.uri == request.uri
    assert verify(answer, ha1(answer.hash, OURS.username, OURS.realm, OURS.password), "REGISTER")


def registered(**changes: Any) -> Trunks:  # Any: as Ladder
    f = Trunks(B, **changes)
    challenge(f.b, f.b.expect("REGISTER"))
    accept(f.b, f.b.expect("REGISTER"))
    assert f.one["state"] == "registered"
    return f
