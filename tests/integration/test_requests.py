"""A phone that registers, writes and watches through a real SBC, and a registrar behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sbc.sip import digest
from sbc.sip.build import reply_to
from sbc.sip.message import Message
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, loopback
from tests.support.raw import Address, Raw
from tests.support.sbc import eventually, running

DOMAIN = "sip:example.com"


class Party:
    """One end: what it sends goes to the SBC's address of its network."""

    def __init__(self, port: Raw, sbc: Address) -> None:
        self.port = port
        self.sbc = sbc

    def ask(self, method: str, uri: str, *more: str, body: bytes = b"") -> None:
        data = self.port.request(method, self.sbc, body=body, more=more)
        _, _, rest = data.partition(b"\r\n")
        self.port.send(f"{method} {uri} SIP/2.0\r\n".encode() + rest, self.sbc)

    def next(self, what: str | int) -> Message:
        """The next message: a request of this method, or a final answer of this status."""
        while True:
            data = self.port.next(5.0)
            assert data, f"{self.port.host} waited for {what} in vain"
            msg = Message.parse(data)
            if msg.is_request or msg.status >= 200:
                got: str | int = msg.method if msg.is_request else msg.status
                assert got == what, data.decode()
                return msg

    def answer(self, request: Message, status: int, headers: Sequence[tuple[str, str]] = (), tag: str = "far") -> None:
        self.port.send(
            reply_to(request, status, to_tag="" if request.to_tag else tag, received=None, headers=headers), self.sbc
        )


def in_dialog(msg: Message, tag: str, cseq: int, method: str) -> tuple[str, ...]:
    """The dialog that a SUBSCRIBE opens, from the side of who got it."""
    return (
        f"From: {msg.get('To')};tag={tag}",
        f"To: {msg.get('From')}",
        f"Call-ID: {msg.call_id}",
        f"CSeq: {cseq} {method}",
    )


def test_register_write_and_watch(tmp_path: Path) -> None:
    net = loopback(sip=2)
    with running(tmp_path / "sbc", net.text) as sbc, Raw(CALLER) as ours, Raw(CALLEE, net.callee_port) as theirs:
        phone, registrar = Party(ours, (OUTSIDE, net.port)), Party(theirs, (CORE, net.core_port))
        aor = ("From: <sip:alice@example.com>;tag=1", "To: <sip:alice@example.com>", "Call-ID: reg", "Expires: 300")

        # REGISTER, 401, REGISTER, 200: the registrar's challenge and the phone's answer are theirs
        phone.ask("REGISTER", DOMAIN, *aor, "CSeq: 1 REGISTER")
        first = registrar.next("REGISTER")
        [challenge] = digest.challenges("example.com", "n1", algorithms=("SHA-256",))
        registrar.answer(first, 401, [("WWW-Authenticate", challenge)])
        given = digest.parse_challenges(phone.next(401).get_all("WWW-Authenticate"), proxy=False)
        session = digest.Session(given[0], digest.Credentials("alice", "secret"), "c1")
        phone.ask("REGISTER", DOMAIN, *aor, "CSeq: 2 REGISTER", f"Authorization: {session.answer('REGISTER', DOMAIN)}")
        second = registrar.next("REGISTER")
        authorization = digest.parse_authorization(second.get("Authorization") or "")
        assert authorization is not None
        assert authorization.uri == second.uri == DOMAIN
        ha1 = digest.ha1("SHA-256", "alice", "example.com", "secret")
        assert digest.verify(authorization, ha1, "REGISTER")
        assert (second.call_id, second.cseq_number) == (first.call_id, 2)
        contact = second.contact()
        assert contact is not None
        assert (contact.uri.host, contact.uri.port) == (CORE, net.core_port)
        registrar.answer(second, 200, [("Contact", f"<{contact.uri}>;expires=300")])
        assert phone.next(200).get("Contact") == f"<sip:raw@{CALLER}:{ours.port}>;expires=300"
        for raw in (first.raw, second.raw):
            assert CALLER.encode() not in raw
            assert OUTSIDE.encode() not in raw

        # the registrar writes to that Contact, by whichever worker its Call-ID falls to
        for number in range(16):
            registrar.ask("MESSAGE", str(contact.uri), f"Call-ID: {number}-of-registrar", body=b"hello")
            sent = phone.next("MESSAGE")
            assert (sent.uri, sent.body) == (f"sip:raw@{CALLER}:{ours.port}", b"hello")
            assert CALLEE.encode() not in sent.raw
            phone.answer(sent, 200)
            registrar.next(200)

        # the phone writes to somebody there
        phone.ask("MESSAGE", f"sip:1002@{OUTSIDE}", body=b"hello")
        sent = registrar.next("MESSAGE")
        assert sent.uri == f"sip:1002@{CALLEE}:{net.callee_port}"
        registrar.answer(sent, 202)
        phone.next(202)

        # and watches somebody: SUBSCRIBE, NOTIFY, the end
        phone.ask("SUBSCRIBE", "sip:1002@example.com", "Event: presence", "Expires: 60")
        asked = registrar.next("SUBSCRIBE")
        target = asked.contact()
        assert target is not None
        here = f"<sip:1002@{CALLEE}:{net.callee_port}>"
        registrar.answer(asked, 200, [("Expires", "60"), ("Contact", here)])
        assert phone.next(200).get("Expires") == "60"
        assert sbc.total("SUBSCRIPTIONS_ACTIVE") == 1
        for cseq, state in ((1, "active;expires=60"), (2, "terminated;reason=noresource")):
            dialog = in_dialog(asked, "far", cseq, "NOTIFY")
            registrar.ask("NOTIFY", str(target.uri), *dialog, "Event: presence", f"Subscription-State: {state}")
            told = phone.next("NOTIFY")
            assert told.get("Subscription-State") == state
            assert CALLEE.encode() not in told.raw
            phone.answer(told, 200)
            registrar.next(200)
        eventually(lambda: sbc.total("SUBSCRIPTIONS_ACTIVE") == 0, 2, "the end of the subscription")
        assert sbc.total("REQUESTS_RELAYED") == 20
        assert sbc.total("CORE_FAULTS") == sbc.total("CORE_ERRORS") == sbc.total("OTHER") == 0
        assert sbc.total("HANDED_OVER_OUT") > 0


def test_bindings_and_subscriptions_outlive_every_worker(tmp_path: Path) -> None:
    """Of bindings there is no table to lose: a worker that has never seen the REGISTER finds the phone. Subscriptions
    are in the journal."""
    net = loopback(sip=2)
    with running(tmp_path / "sbc", net.text) as sbc, Raw(CALLER) as ours, Raw(CALLEE, net.callee_port) as theirs:
        phone, registrar = Party(ours, (OUTSIDE, net.port)), Party(theirs, (CORE, net.core_port))
        phone.ask("REGISTER", DOMAIN, "Expires: 300")
        sent = registrar.next("REGISTER")
        contact = sent.contact()
        assert contact is not None
        registrar.answer(sent, 200)
        phone.next(200)
        phone.ask("SUBSCRIBE", "sip:1002@example.com", "Event: presence", "Expires: 60")
        watched = registrar.next("SUBSCRIBE")
        registrar.answer(watched, 200, [("Expires", "60"), ("Contact", f"<sip:1002@{CALLEE}:{net.callee_port}>")])
        phone.next(200)
        for name, pid in sbc.pids().items():
            if name.startswith("sip"):
                sbc.kill(name)
                sbc.respawned(name, pid)
        eventually(lambda: ours.best_ping((OUTSIDE, net.port)) < 1, 10, "an answer")
        registrar.ask("MESSAGE", str(contact.uri), body=b"still there?")
        phone.answer(phone.next("MESSAGE"), 200)
        registrar.next(200)
        target = watched.contact()
        assert target is not None
        state = "Subscription-State: terminated;reason=noresource"
        registrar.ask("NOTIFY", str(target.uri), *in_dialog(watched, "far", 1, "NOTIFY"), "Event: presence", state)
        phone.answer(phone.next("NOTIFY"), 200)
        registrar.next(200)
