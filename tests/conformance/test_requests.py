"""Requests other than INVITE outside a dialog, as ladders: relayed where the route says, under names of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sbc.b2bua.call import Call, Target
from sbc.b2bua.subjects import OutOfDialogRequest
from sbc.sip import digest
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, OUR_A, OUR_B, TARGET_B, Ladder, Phone, sdp

REGISTRAR = Target(f"sip:{B_HOST}:5070", "outside", peer="carrier-b")
TO_A = Target(f"sip:alice@{A_HOST}:5070", "inside", peer="phones")
DOMAIN = "sip:example.com"
METHODS = ("MESSAGE", "OPTIONS", "INFO", "PUBLISH", "NOTIFY")


def to(target: Target, **options: Any) -> Callable[[Ladder, OutOfDialogRequest], None]:  # Any: of Requests.relay
    """The route that relays everything there."""

    def route(ladder: Ladder, request: OutOfDialogRequest) -> None:
        ladder.core.requests.relay(request, target, ladder.now, **options)

    return route


def across(ladder: Ladder, request: OutOfDialogRequest) -> None:
    """The route between two networks: to the phone that is meant, else to the other side."""
    requests = ladder.core.requests
    phone = requests.binding(request.message.uri, request.source.realm)
    target = phone or (REGISTRAR if request.source.realm == "inside" else TO_A)
    requests.relay(request, target, ladder.now)


def dial_binding(ladder: Ladder, call: Call) -> None:
    """The route of calls from the registrar's side."""
    target = ladder.core.requests.binding(call.ruri, call.a.realm)
    assert target is not None
    ladder.core.dial(call, [target], ladder.now)


def nothing_of(sender: Phone, receiver: Phone, *ours: str) -> None:
    """No octet that the receiver was sent names the sender's side."""
    tokens = {
        sender.host,
        *ours,
        sender.tag,
        f"call-of-{sender.name}",
        f"z9hG4bK{sender.name}1",
        f"Phone-{sender.name}",
    }
    text = b"".join(receiver.all).decode()
    assert receiver.all
    for token in tokens:
        assert token not in text, f"{token} reached {receiver.name}"


# One request, one answer


@pytest.mark.parametrize("method", METHODS)
def test_request_and_answer_cross(method: str) -> None:
    """
    A                  SBC                  B
    |---- MESSAGE ----->|---- MESSAGE ----->|
    |                   |<------ 200 -------|
    |<----- 200 --------|                   |
    """
    f = Ladder(requests=to(TARGET_B))
    leaky = [("X-Internal", A_HOST), ("Route", f"<sip:{OUR_A};lr>"), ("P-Asserted-Identity", f"<sip:a@{A_HOST}>")]
    f.a.request(method, body=b"hello", content_type="text/plain", extra=[*leaky, ("Subject", "greeting")], cseq=7)
    sent = f.b.expect(method)
    assert (sent.uri, sent.body) == (TARGET_B.uri, b"hello")
    assert sent.cseq_number == 7
    assert sent.max_forwards == 69
    assert (sent.get("Subject"), sent.get("Content-Type")) == ("greeting", "text/plain")
    assert sent.get("Contact") is None
    assert (sent.from_().display, str(sent.from_().uri)) == ("Alice A", f"sip:alice@{OUR_B}")
    assert str(sent.to().uri) == f"sip:+4930123@{B_HOST}"
    assert len(sent.vias()) == 1
    f.b.reply(200, to=sent, extra=[("X-Internal", B_HOST)])
    answer = f.a.expect(200)
    assert answer.to_tag not in ("", f.b.tag)
    nothing_of(f.a, f.b, OUR_A)
    nothing_of(f.b, f.a, OUR_B)
    assert f.counts["REQUESTS_RELAYED"] == 1
    f.over()


def test_messages_both_ways() -> None:
    f = Ladder(requests=across)
    for sender, receiver in ((f.a, f.b), (f.b, f.a)):
        sender.request("MESSAGE", body=b"hello", content_type="text/plain")
        receiver.reply(202, to=receiver.expect("MESSAGE"))
        sender.expect(202)
    f.over()


def test_the_same_call_id_in_is_the_same_call_id_out() -> None:
    """RFC 3261 §10.2: a registrar orders by Call-ID and CSeq; another sender's, or side's, gets another."""
    f = Ladder(requests=across)
    seen = []
    for phone, other in ((f.a, f.b), (f.a, f.b), (f.b, f.a)):
        phone.request("MESSAGE")
        sent = other.expect("MESSAGE")
        seen.append((sent.call_id, sent.cseq_number))
        other.reply(200, to=sent)
        phone.expect(200)
    assert seen[0][0] == seen[1][0] != seen[2][0]
    assert seen[0][1] < seen[1][1]
    assert len(seen[0][0]) == 24
    f.over()


def test_lost_request_and_lost_answer_are_repeated() -> None:
    f = Ladder(requests=to(TARGET_B))
    f.lose_next = 1
    f.a.request("MESSAGE", body=b"hello", content_type="text/plain")
    f.b.nothing()
    f.a.again()  # absorbed: ours is repeated by its own timer
    f.b.nothing()
    f.after(0.5)
    sent = f.b.expect("MESSAGE")
    f.lose_next = 1
    f.b.reply(200, to=sent)
    f.a.nothing()
    f.b.again()  # absorbed
    f.a.nothing()
    f.a.again()
    f.a.expect(200)
    f.b.nothing()
    f.over()


def test_silence_is_told_while_the_sender_still_waits() -> None:
    """408 before A's own Timer F (64*T1 = 32 s); an answer that comes after it reaches nobody (RFC 4320)."""
    f = Ladder(requests=to(TARGET_B))
    f.a.request("MESSAGE")
    sent = f.b.expect("MESSAGE")
    f.after(30.9)
    f.a.nothing()
    f.after(0.2)
    f.a.expect(408)
    f.b.inbox.clear()
    f.b.reply(200, to=sent)
    f.a.nothing()
    assert f.counts["REQUEST_TIMEOUTS"] == 1
    f.over()


def test_unreachable_is_503() -> None:
    f = Ladder(requests=to(TARGET_B))
    f.a.request("MESSAGE")
    f.b.expect("MESSAGE")
    f.core.transport_failed(next(iter(f.core.layer._clients.values())).flow, f.now)
    f.drain()
    f.a.expect(503)
    f.over()


@pytest.mark.parametrize(
    ("came", "goes"), [(302, 480), (404, 404), (423, 423), (486, 486), (503, 503), (603, 603), (401, 403), (407, 403)]
)
def test_failures_cross_without_what_names_their_sender(came: int, goes: int) -> None:
    """OPTIONS: a challenge is for whom the credentials of this method do not pass, so it becomes 403."""
    f = Ladder(requests=to(TARGET_B))
    f.a.request("OPTIONS", uri=f"sip:bob@{OUR_A}")
    challenge = ("WWW-Authenticate", 'Digest realm="b", nonce="x"')
    f.b.reply(came, to=f.b.expect("OPTIONS"), extra=[("Retry-After", f"30 ({B_HOST})"), challenge])
    answer = f.a.expect(goes)
    assert answer.get("Retry-After") == "30"
    assert answer.get("WWW-Authenticate") is None
    nothing_of(f.b, f.a, OUR_B)
    f.over()


def test_options_through_keeps_addresses_back() -> None:
    """The description in a 200 to OPTIONS (RFC 3261 §11.2) names B's address; what we can do is ours to say."""
    f = Ladder(requests=to(TARGET_B))
    f.a.request("OPTIONS", uri=f"sip:bob@{OUR_A}", extra=[("Accept", "application/sdp")])
    sent = f.b.expect("OPTIONS")
    assert sent.get("Accept") == "application/sdp"
    f.b.reply(200, to=sent, body=sdp(B_HOST), extra=[("Allow", "FROB")])
    answer = f.a.expect(200)
    assert (answer.body, answer.get("Content-Type")) == (b"", None)
    assert "FROB" not in answer.get_all("Allow")
    assert "INVITE" in answer.get_all("Allow")
    nothing_of(f.b, f.a, OUR_B)
    f.over()


def test_ping_of_ours_is_not_for_the_route() -> None:
    f = Ladder(requests=to(TARGET_B))
    f.a.request("OPTIONS", uri=f"sip:{OUR_A}")
    f.a.expect(200)
    f.a.request("OPTIONS", uri=f"sip:bob@{OUR_A}")
    f.b.reply(404, to=f.b.expect("OPTIONS"))
    f.a.expect(404)
    f.a.request("OPTIONS", uri=f"sip:bob@{OUR_A}", extra=[("Max-Forwards", "0")])
    f.over()


# What the route decides


def test_route_answers_itself() -> None:
    def route(ladder: Ladder, request: OutOfDialogRequest) -> None:
        requests = ladder.core.requests
        requests.answer(request, 202, ladder.now, reason="Kept", headers=[("Expires", "5")], body=b"ok")
        assert not requests.relay(request, TARGET_B, ladder.now)
        requests.answer(request, 500, ladder.now)

    f = Ladder(requests=route)
    f.a.request("MESSAGE")
    answer = f.a.expect(202)
    assert (answer.reason, answer.get("Expires"), answer.body) == ("Kept", "5", b"ok")
    f.b.nothing()
    f.over()


UNDECIDED = {
    405: ("REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE"),
    403: ("REFER",),
    481: ("INFO", "NOTIFY", "BYE", "PRACK"),
    501: ("FROB",),
    200: ("OPTIONS",),
}


@pytest.mark.parametrize(("method", "status"), [(m, status) for status, methods in UNDECIDED.items() for m in methods])
def test_undecided_is_refused_by_method(method: str, status: int) -> None:
    f = Ladder()
    f.a.request(method)
    answer = f.a.expect(status)
    if status not in (403, 481):
        assert answer.get("Allow")
    f.b.nothing()
    f.over()


def test_route_that_raises_is_500() -> None:
    def route(ladder: Ladder, request: OutOfDialogRequest) -> None:
        raise ValueError("no such table")

    f = Ladder(requests=route)
    f.a.request("MESSAGE")
    f.a.expect(500)
    assert f.counts["ROUTE_ERRORS"] == 1
    f.over()


def test_route_that_never_ends_is_408() -> None:
    f = Ladder(requests=to(TARGET_B))
    f.held_routes = []
    f.a.request("MESSAGE")
    f.after(31.1)
    f.a.expect(408)
    for effect in f.held_routes:
        f.run(effect)
    f.drain()
    f.b.nothing()
    f.over()


@pytest.mark.parametrize(
    "target", [Target("sip:b@gateway.example", "outside"), Target(f"sip:b@{B_HOST}", "nowhere"), Target("x", "outside")]
)
def test_target_that_leads_nowhere_is_503(target: Target) -> None:
    f = Ladder(requests=to(target))
    f.a.request("MESSAGE")
    f.a.expect(503)
    f.over()


def test_header_changes_of_the_route_and_its_own_uri() -> None:
    f = Ladder(requests=to(TARGET_B, uri="sip:bob@example.org", edit=lambda headers: headers.append(("X-Trunk", "7"))))
    f.a.request("MESSAGE")
    sent = f.b.expect("MESSAGE")
    assert (sent.uri, sent.get("X-Trunk"), str(sent.to().uri)) == (
        "sip:bob@example.org",
        "7",
        "sip:+4930123@example.org",
    )
    f.b.reply(200, to=sent)
    f.a.expect(200)
    f.over()


@pytest.mark.parametrize("uri", ["mailto:bob@example.com", "sips:bob@example.com"])
def test_scheme_that_is_not_ours_is_416(uri: str) -> None:
    f = Ladder(requests=to(TARGET_B))
    f.a.request("MESSAGE", uri=uri)
    f.a.expect(416)
    f.over()


# REGISTER


def register(
    phone: Phone, *, expires: str = "600", contact: str = "", extra: list[tuple[str, str]] | None = None
) -> None:
    """A REGISTER for alice@example.com; its To is changed on the way out."""
    phone.contact = contact or phone.contact
    former = phone._send

    def send(data: bytes) -> None:
        text = data.replace(f"<sip:alice@{phone.host}>".encode(), b"<sip:alice@example.com>")
        former(text.replace(f"To: <sip:+4930123@{OUR_A}>".encode(), b"To: <sip:alice@example.com>"))

    phone._send = send  # type: ignore[method-assign]  # for this one message
    try:
        phone.request("REGISTER", uri=DOMAIN, extra=[("Expires", expires), *(extra or [])])
    finally:
        phone._send = former  # type: ignore[method-assign]  # as it was


def registered(f: Ladder, contact: str = "") -> Message:
    """A has registered at B; the REGISTER that B got."""
    register(f.a, contact=contact)
    sent = f.b.expect("REGISTER")
    f.b.contact = f"{sent.get('Contact')};expires=600"
    f.b.reply(200, to=sent)
    f.a.expect(200)
    return sent


def test_register_with_digest() -> None:
    """
    A                  SBC              B (registrar)
    |---- REGISTER ---->|---- REGISTER ---->|
    |<----- 401 --------|<------ 401 -------|   the registrar's realm and nonce, as given
    |---- REGISTER ---->|---- REGISTER ---->|   A's credentials, as given: they hold
    |<----- 200 --------|<------ 200 -------|   A finds its own Contact
    """
    f = Ladder(requests=to(REGISTRAR))
    f.a.contact = f'"Alice" <sip:alice@{A_HOST}:5070;ob>;+sip.instance="<urn:uuid:1>"'
    register(f.a)
    first = f.b.expect("REGISTER")
    [challenge] = digest.challenges("example.com", "nonce-of-b", algorithms=("MD5",), opaque="o")
    f.b.reply(401, to=first, extra=[("WWW-Authenticate", f'{challenge}, domain="sip:{B_HOST}"')])
    asked = f.a.expect(401)
    [given] = digest.parse_challenges(asked.get_all("WWW-Authenticate"), proxy=False)
    assert (given.realm, given.nonce, given.opaque) == ("example.com", "nonce-of-b", "o")

    session = digest.Session(given, digest.Credentials("alice", "secret"), "cnonce")
    register(f.a, extra=[(session.header, session.answer("REGISTER", DOMAIN))])
    second = f.b.expect("REGISTER")
    assert (second.call_id, second.cseq_number) == (first.call_id, first.cseq_number + 1)
    assert second.uri == DOMAIN  # what A signed
    assert (str(second.to().uri), str(second.from_().uri)) == ("sip:alice@example.com", "sip:alice@example.com")
    authorization = digest.parse_authorization(second.get("Authorization") or "")
    assert authorization is not None
    assert authorization.uri == second.uri
    assert digest.verify(authorization, digest.ha1("MD5", "alice", "example.com", "secret"), "REGISTER")

    assert (second.get("Contact") or "").endswith(f"@{OUR_B}:5060>")
    assert second.get("Contact") == first.get("Contact")
    f.b.contact = f"{second.get('Contact')};expires=480;q=0.5, <sip:alice@10.9.9.9:5060>;expires=99"
    f.b.reply(200, to=second, extra=[("Expires", "480"), ("Service-Route", f"<sip:{B_HOST};lr>"), ("Date", "now")])
    answer = f.a.expect(200)
    assert answer.get_all("Contact") == [f"<sip:alice@{A_HOST}:5070;ob>;expires=480;q=0.5"]
    assert (answer.get("Expires"), answer.get("Date")) == ("480", "now")
    nothing_of(f.a, f.b, OUR_A)
    nothing_of(f.b, f.a, OUR_B, "10.9.9.9", "Service-Route")
    f.over()


def test_registrar_calls_the_phone_through_us() -> None:
    """INVITE, MESSAGE and OPTIONS to the Contact that the registrar holds reach the phone, after a restart too."""
    f = Ladder(requests=across, route=dial_binding)
    contact = registered(f, f"<sip:alice@{A_HOST}:5070;ob>").contact()
    assert contact is not None
    f.dies()
    for method in ("MESSAGE", "OPTIONS", "NOTIFY"):
        f.b.request(method, uri=str(contact.uri))
        sent = f.a.expect(method)
        assert sent.uri == f"sip:alice@{A_HOST}:5070;ob"
        f.a.reply(200, to=sent)
        f.b.expect(200)
    f.b.request("INVITE", uri=str(contact.uri), body=sdp(B_HOST))
    f.b.expect(100)
    invite = f.a.expect("INVITE")
    assert invite.uri == f"sip:alice@{A_HOST}:5070;ob"
    f.a.reply(486)
    f.a.expect("ACK")
    f.b.refused(486)
    f.over()


def test_binding_leads_to_where_the_phone_was_seen() -> None:
    """Behind a NAT the Contact is a private address: what matters is where the REGISTER came from."""
    f = Ladder(requests=across)
    contact = registered(f, "<sip:alice@192.168.7.7:5062>").contact()
    assert contact is not None
    f.b.request("MESSAGE", uri=str(contact.uri))
    sent = f.a.expect("MESSAGE")
    assert sent.uri == "sip:alice@192.168.7.7:5062"
    f.a.reply(200, to=sent)
    f.b.expect(200)
    f.over()


def test_binding_opens_only_where_it_was_given_out() -> None:
    f = Ladder(requests=across)
    contact = registered(f).contact()
    assert contact is not None
    requests = f.core.requests
    assert requests.binding(str(contact.uri), "outside") is not None
    assert requests.binding(str(contact.uri), "inside") is None
    user = contact.uri.user or ""
    for other in (user[:-1], user[1:], user.swapcase(), "A" * len(user), "+49301234567", "x" * 2000, "ä" * 60):
        assert requests.binding(f"sip:{other}@{OUR_B}", "outside") is None
    assert requests.binding(f"sip:{OUR_B}", "outside") is None
    assert requests.binding("tel:+49301234567", "outside") is None
    assert requests.is_ours(contact.uri)
    f.over()


def test_unregister_and_star() -> None:
    """RFC 3261 §10.2.2: the same Contact with expires=0, or all at once."""
    f = Ladder(requests=to(REGISTRAR))
    first = registered(f)
    register(f.a, contact=f"{f.a.contact};expires=0")
    sent = f.b.expect("REGISTER")
    assert sent.get("Contact") == f"{first.get('Contact')};expires=0"
    f.b.contact = f"<sip:someone@{B_HOST}>"
    f.b.reply(200, to=sent)
    assert f.a.expect(200).get("Contact") is None
    register(f.a, contact="*", expires="0")
    sent = f.b.expect("REGISTER")
    assert sent.get("Contact") == "*"
    f.b.reply(200, to=sent)
    f.a.expect(200)
    f.over()


@pytest.mark.parametrize(
    ("contact", "expires", "status"),
    [
        ("*", "60", 400),
        ("*, <sip:alice@192.0.2.10>", "0", 400),
        ("<sip:alice@192.0.2.10", "60", 400),
        (f"<sip:{'a' * 300}@192.0.2.10>", "60", 400),
        (", ".join(f"<sip:{n}@192.0.2.10>" for n in range(11)), "60", 403),
    ],
)
def test_register_that_is_refused_at_the_door(contact: str, expires: str, status: int) -> None:
    f = Ladder(requests=to(REGISTRAR))
    register(f.a, contact=contact, expires=expires)
    f.a.expect(status)
    f.b.nothing()
    f.over()


def test_register_query_without_contact() -> None:
    f = Ladder(requests=to(REGISTRAR))
    register(f.a, contact="<sip:x@y>")
    f.b.reply(423, to=f.b.expect("REGISTER"), extra=[("Min-Expires", "900")])
    assert f.a.expect(423).get("Min-Expires") == "900"
    f.over()


def test_address_as_domain_becomes_the_registrars() -> None:
    f = Ladder(requests=to(REGISTRAR))
    f.a.request("REGISTER", uri=f"sip:{OUR_A}")
    sent = f.b.expect("REGISTER")
    assert sent.uri == f"sip:{B_HOST}:5070"
    assert str(sent.to().uri) == f"sip:+4930123@{B_HOST}"
    f.b.reply(200, to=sent)
    f.a.expect(200)
    nothing_of(f.a, f.b, OUR_A)
    f.over()


def test_publish_by_its_etag() -> None:
    """RFC 3903: SIP-ETag to the publisher, SIP-If-Match to the server, challenges and credentials end to end."""
    f = Ladder(requests=to(REGISTRAR))
    f.a.request("PUBLISH", uri="sip:alice@example.com", body=b"<presence/>", content_type="application/pidf+xml",
                extra=[("Event", "presence"), ("Expires", "3600")])  # fmt: skip
    sent = f.b.expect("PUBLISH")
    assert (sent.uri, sent.get("Event"), sent.get("Expires")) == ("sip:alice@example.com", "presence", "3600")
    f.b.reply(200, to=sent, extra=[("SIP-ETag", "dx200xyz"), ("Expires", "1800")])
    answer = f.a.expect(200)
    assert (answer.get("SIP-ETag"), answer.get("Expires")) == ("dx200xyz", "1800")
    f.a.request("PUBLISH", uri="sip:alice@example.com", extra=[("Event", "presence"), ("SIP-If-Match", "dx200xyz")])
    sent = f.b.expect("PUBLISH")
    assert sent.get("SIP-If-Match") == "dx200xyz"
    f.b.reply(407, to=sent, extra=[("Proxy-Authenticate", 'Digest realm="b", nonce="n"')])
    assert f.a.expect(407).get("Proxy-Authenticate") == 'Digest realm="b", nonce="n"'
    f.over()


def test_credentials_stay_behind_in_a_call() -> None:
    """Nobody's credentials or challenges cross the two legs of a call."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Authorization", 'Digest username="a"')])
    f.a.expect(100)
    assert f.b.expect("INVITE").get("Authorization") is None
    f.b.reply(401, extra=[("WWW-Authenticate", 'Digest realm="b", nonce="n"')])
    f.b.expect("ACK")
    assert f.a.refused(403).get("WWW-Authenticate") is None
    f.over()


@pytest.mark.parametrize("lost", [False, True])
def test_subscription_inside_a_call(lost: bool) -> None:
    """SUBSCRIBE and NOTIFY in the call's dialog cross as others do; their failure is not the call's end."""
    f = Ladder()
    f.set_up()
    f.a.request("SUBSCRIBE", extra=[("Event", "refer;id=1"), ("Expires", "60")])
    asked = f.b.expect("SUBSCRIBE")
    assert (asked.get("Event"), asked.get("Expires")) == ("refer;id=1", "60")
    f.b.reply(200, to=asked, extra=[("Expires", "50")])
    answer = f.a.expect(200)
    assert answer.get("Expires") == "50"
    assert answer.contact() is not None
    f.b.request("NOTIFY", extra=[("Event", "refer;id=1"), ("Subscription-State", "active;expires=50")])
    sent = f.a.expect("NOTIFY")
    assert sent.get("Subscription-State") == "active;expires=50"
    if lost:
        f.after(33)
        f.a.inbox.clear()
        f.b.expect(408)
    else:
        f.a.reply(481, to=sent)
        f.b.expect(481)
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    assert f.cdr["hangup"] == "a"
    f.over()


# Headers that a request or an answer may bring along, each naming the side it comes from
LEAKY = (
    ("Via", "SIP/2.0/UDP {host}:5099;branch=z9hG4bK{mark}"),
    ("Record-Route", "<sip:{host}:5070;lr;{mark}=1>"),
    ("Route", "<sip:{host}:5070;lr;{mark}=1>"),
    ("Path", "<sip:{mark}@{host};lr>"),
    ("Service-Route", "<sip:{mark}@{host};lr>"),
    ("P-Asserted-Identity", "<sip:{mark}@{host}>"),
    ("P-Associated-URI", "<sip:{mark}@{host}>"),
    ("P-Preferred-Identity", "<sip:{mark}@{host}>"),
    ("Remote-Party-ID", "<sip:{mark}@{host}>"),
    ("Reply-To", "<sip:{mark}@{host}>"),
    ("Warning", '399 {host} "{mark}"'),
    ("Reason", 'SIP;cause=200;text="{mark} at {host}"'),
    ("Call-Info", "<http://{host}/{mark}>"),
    ("Error-Info", "<http://{host}/{mark}>"),
    ("Organization", "{mark}"),
    ("X-Internal", "{host} {mark}"),
    ("In-Reply-To", "{mark}@{host}"),
    ("Supported", "{mark}"),
    ("WWW-Authenticate", 'Digest domain="sip:{host}/{mark}", realm="r", nonce="n"'),
    ("Proxy-Authenticate", 'Digest realm="r", nonce="n", Domain = "sip:{host} \\", {mark}"'),
)


@pytest.mark.parametrize("status", [200, 302, 401, 407, 423, 489])
@pytest.mark.parametrize("method", [*METHODS, "REGISTER", "SUBSCRIBE"])
def test_no_header_names_the_side_it_came_from(method: str, status: int) -> None:
    f = Ladder(requests=to(TARGET_B))

    def extra(phone: Phone) -> list[tuple[str, str]]:
        return [(name, value.format(host=phone.host, mark=f"mark-{phone.name}")) for name, value in LEAKY]

    f.a.request(method, extra=[*extra(f.a), ("Event", "presence"), ("Expires", "60"), ("User-Agent", "mark-a")])
    sent = f.b.expect(method)
    f.b.reply(status, to=sent, extra=[*extra(f.b), ("Server", "mark-b"), ("Expires", "60")])
    f.a.inbox.clear()
    nothing_of(f.a, f.b, OUR_A, "mark-a")
    nothing_of(f.b, f.a, OUR_B, "mark-b")
    f.after(200)  # a subscription ends by itself
    f.over()


@pytest.mark.parametrize(
    ("came", "goes"),
    [
        ('Digest realm="a", nonce="b"', 'Digest realm="a", nonce="b"'),
        ('Digest realm="domain", nonce="b"', 'Digest realm="domain", nonce="b"'),
        ('Digest domain="x", realm="a, domain=y", qop="auth"', 'Digest realm="a, domain=y", qop="auth"'),
        ('Digest realm="a\\", domain=\\"z", domain=w', 'Digest realm="a\\", domain=\\"z"'),
        ("Domain", "Domain"),
        ("Digest domain" + " " * 5000 + "," * 5000, "Digest " + "," * 4999),
    ],
)
def test_domain_of_a_challenge_stays_behind(came: str, goes: str) -> None:
    f = Ladder(requests=to(TARGET_B))
    f.a.request("MESSAGE")
    f.b.reply(401, to=f.b.expect("MESSAGE"), extra=[("WWW-Authenticate", came)])
    assert f.a.expect(401).get("WWW-Authenticate") == goes.strip()
    f.over()
