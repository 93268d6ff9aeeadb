"""``request.nat`` and ``fix_sdp``: what a route asks of NAT and says about it, with effect for its next line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from media.protocol import Answer, Offer
from sbc.b2bua.settings import RealmSettings
from sbc.policy.nat import NatTest
from sbc.routing import Reply, Request, Routes
from sbc.routing.routes import ReplyRoute, RouteError
from tests.support.ladder import A_HOST, B_HOST, sdp
from tests.support.natted import INSIDE_HOST, INSIDE_PORT, PUBLIC_PORT, Sent, hide
from tests.unit.routing.stage import Stage

OFFER, ANSWER = sdp(INSIDE_HOST), sdp("10.9.9.9")
Act = Callable[[Request], None]


class NatStage(Stage):
    """A stage in realms that leave NAT to the routes; ``act`` is the first that its route does."""

    def __init__(self, act: Act, on_reply: ReplyRoute | None = None, **changes: Any) -> None:  # Any: as for a ladder
        self.sent = Sent()
        self.errors: list[Exception] = []
        routes = Routes()

        @routes.route
        async def main(request: Request) -> None:
            try:
                act(request)
            except Exception as error:
                self.errors.append(error)
                raise
            if request.makes_call:
                await request.call.dial("carrier-b", on_reply=on_reply)
            else:
                await request.relay(request.binding or "carrier-b")

        super().__init__(routes, **changes)
        self.phone = hide(self)

    def perform(self, effect: object) -> None:
        self.sent.note(effect)
        super().perform(effect)

    def call_up(self, answer: bytes = ANSWER) -> None:
        self.set_up(offer=OFFER, answer=answer)
        assert not self.errors, self.errors

    def release(self) -> None:
        self.core.release(self.call, self.now, reason="test")
        self.drain()
        self.over()

    def ends(self) -> None:
        self.b.request("BYE")
        self.b.expect(200)
        bye = self.a.expect("BYE")
        assert bye.uri == f"sip:a@{INSIDE_HOST}:{INSIDE_PORT};line=1"
        self.a.reply(200, to=bye)
        self.over()


def test_what_a_route_asks() -> None:
    seen: dict[str, object] = {}

    def act(request: Request) -> None:
        nat = request.nat
        seen.update(
            any=nat.test("contact-private", "via-ip"),
            number=nat.test(19),
            text=nat.test("64"),
            narrow=nat.test(128),
            found=nat.true_of(),
            behind=nat.is_behind,
            contact=str(nat.contact),
            path=nat.path,
        )

    f = NatStage(act)
    f.call_up()
    f.release()
    assert seen == {
        "any": True,
        "number": True,
        "text": True,
        "narrow": False,
        "found": NatTest(127),
        "behind": False,  # the realm says never, so nobody but the route can say it
        "contact": f"sip:a@{INSIDE_HOST}:{INSIDE_PORT};line=1",
        "path": (INSIDE_HOST, INSIDE_PORT),
    }


def test_a_fixed_contact_is_seen_at_once_and_holds_for_the_dialog() -> None:
    before: list[object] = []

    def act(request: Request) -> None:
        nat = request.nat
        for _ in range(2):
            before.append((nat.is_fixed, nat.is_behind, nat.reason, str(nat.contact), nat.path))
            nat.fix_contact()

    f = NatStage(act)
    f.call_up()
    assert before == [
        (False, False, "", f"sip:a@{INSIDE_HOST}:{INSIDE_PORT};line=1", (INSIDE_HOST, INSIDE_PORT)),
        (True, True, "its route says so", f"sip:a@{A_HOST}:{PUBLIC_PORT};line=1", (A_HOST, PUBLIC_PORT)),
    ]
    assert f.call.describe()["a_nat"] == "its route says so"
    f.a.request("UPDATE", body=OFFER)  # its Contact comes again, and changes nothing
    f.b.reply(200, to=f.b.expect("UPDATE"), body=ANSWER)
    f.a.expect(200)
    f.dies()
    f.phone.public_port = 6222
    f.a.request("INFO")
    f.b.reply(200, to=f.b.expect("INFO"))
    f.a.expect(200)
    f.ends()
    assert f.sent.to(A_HOST, "BYE") == {6222}


@pytest.mark.parametrize("fix", ["fix_register", "fix_contact"])
def test_a_fixed_binding_leads_to_where_the_phone_was_seen(fix: str) -> None:
    paths: list[tuple[str, int]] = []

    def act(request: Request) -> None:
        if request.method == "REGISTER":
            getattr(request.nat, fix)()
            paths.append(request.nat.path)

    f = NatStage(act)
    f.phone.contact = f"<sip:a@{A_HOST}:5062>"  # without the fix it would be called there
    f.a.request("REGISTER", uri="sip:example.com")
    sent = f.b.expect("REGISTER")
    f.b.contact = sent.get("Contact") or ""
    f.b.reply(200, to=sent)
    assert f.a.expect(200).get("Contact") == f"<sip:a@{A_HOST}:5062>"  # to the phone its own
    contact = sent.contact()
    assert contact is not None
    f.b.request("MESSAGE", uri=str(contact.uri))
    message = f.a.expect("MESSAGE")
    assert message.uri == f"sip:a@{A_HOST}:5062"
    f.a.reply(200, to=message)
    f.b.expect(200)
    assert f.sent.to(A_HOST, "MESSAGE") == {PUBLIC_PORT}
    assert paths == [(A_HOST, PUBLIC_PORT)]
    f.over()


VIA = {"inside": RealmSettings("inside", answers_to_via=True), "outside": RealmSettings("outside")}


@pytest.mark.parametrize(("force", "port"), [(True, PUBLIC_PORT), (False, INSIDE_PORT)])
def test_answers_to_the_source_can_be_forced(force: bool, port: int) -> None:
    sources: list[tuple[str, int]] = []

    def act(request: Request) -> None:
        sources.append(request.source)
        if force:
            request.nat.force_rport()

    f = NatStage(act, realms=VIA)
    f.phone.asks_for_rport = False
    f.a.request("MESSAGE", body=b"hello", content_type="text/plain")
    f.b.reply(200, to=f.b.expect("MESSAGE"))
    f.a.expect(200)
    f.call_up()
    f.release()
    assert f.sent.to(A_HOST, "200") - {5070} == {port}
    assert sources == [(A_HOST, PUBLIC_PORT)] * 2


def test_a_repaired_description_is_seen_at_once_and_sent_where_media_are_direct() -> None:
    bodies: list[bytes] = []

    def act(request: Request) -> None:
        request.fix_sdp("11", extra=["a=x-seen:1"], keep_old=True)
        bodies.append(request.body)
        request.call.media.direct()

    f = NatStage(act)
    f.a.request("INVITE", body=OFFER)
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    assert bodies == [invite.body]
    for line in (
        f"o=phone 77 1 IN IP4 {A_HOST}",
        f"c=IN IP4 {A_HOST}",
        f"a=oldcip:{INSIDE_HOST}",
        f"a=oldoip:{INSIDE_HOST}",
        "a=direction:active",
        "a=x-seen:1",
    ):
        assert line.encode() in invite.body.split(b"\r\n"), line
    f.b.reply(200, body=ANSWER)
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    f.dies()
    f.a.request("INVITE", body=sdp(INSIDE_HOST, version=2, direction="sendonly"))
    f.a.expect(100)
    again = f.b.expect("INVITE")  # whatever it describes later is repaired as well
    assert f"c=IN IP4 {A_HOST}".encode() in again.body.split(b"\r\n")
    assert b"a=sendonly" in again.body
    f.b.reply(200, body=ANSWER)
    f.b.expect("ACK") if f.b.inbox else None
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    f.release()


def test_where_media_are_relayed_they_are_sent_to_the_repaired_address() -> None:
    async def mark(reply: Reply) -> None:
        if reply.body:
            reply.fix_sdp("media-ip")
            assert f"c=IN IP4 {B_HOST}".encode() in reply.body
            assert b"oldcip" not in reply.body

    def act(request: Request) -> None:
        request.fix_sdp(2, address="203.0.113.200")
        request.call.media.engage()

    f = NatStage(act, mark)
    f.call_up()
    described = {one.from_leg: one.streams[0].address for one in f.media if isinstance(one, Offer | Answer)}
    assert described == {"a": "203.0.113.200", "b1": B_HOST}
    assert b"oldcip" not in b"".join(f.b.all)
    f.release()
    assert "ROUTE_ERRORS" not in f.counts


PARTS = (
    b"--bo\r\nContent-Type: text/plain\r\n\r\nc=IN IP4 192.168.7.7\r\n--bo\r\n"
    b"Content-Type: application/sdp\r\n\r\n%b\r\n--bo--\r\n"
)


def test_the_other_parts_of_a_body_stay_octet_for_octet() -> None:
    bodies: list[bytes] = []

    def act(request: Request) -> None:
        request.fix_sdp("media-ip")
        bodies.append(request.body)
        request.call.media.direct()

    f = NatStage(act)
    f.a.request("INVITE", body=PARTS % OFFER, content_type="multipart/mixed;boundary=bo")
    f.a.expect(100)
    sent = f.b.expect("INVITE").body
    assert bodies == [sent]
    assert sent == PARTS % OFFER.replace(b"\nc=IN IP4 192.168.7.7", f"\nc=IN IP4 {A_HOST}".encode())
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.refused(486)
    f.over()


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda request: request.nat.test("private"), "no test for NAT"),
        (lambda request: request.nat.test(256), "no sum of tests"),
        (lambda request: request.nat.fix_register(), "fix_contact is for any request"),
        (lambda request: request.fix_sdp(32), "no sum of repairs"),
        (lambda request: request.fix_sdp(2, address="phone.example"), "no IP address"),
        (lambda request: request.fix_sdp(2, extra=["a=x\r\nb"]), "no line of a description"),
    ],
)
def test_what_a_route_may_not_say(act: Act, says: str) -> None:
    f = NatStage(act)
    f.a.request("INVITE", body=OFFER)
    f.a.expect(100)
    f.a.refused(500)
    (error,) = f.errors
    assert isinstance(error, RouteError)
    assert says in str(error)
    f.over()
