"""The flows of RFC 3665 that :mod:`tests.conformance.test_ladders` and its kin do not show, each through the SBC.

RFC 3665 draws two users and their proxies. Here the users are A and B, the proxies are ours or stand on either side
of us. ``docs/conformance.md`` names the test of every flow.
"""

from __future__ import annotations

from sbc.sip import digest
from tests.conformance.test_requests import DOMAIN, REGISTRAR, nothing_of, register, registered, to
from tests.support.ladder import A_HOST, B_HOST, C_HOST, OUR_A, OUR_B, TARGET_B, Ladder, hunt, sdp


def test_update_of_a_contact_list() -> None:
    """RFC 3665 §2.2: A adds a second address; the registrar lists both, each as A wrote it.

    A                  SBC              B (registrar)
    |---- REGISTER ---->|---- REGISTER ---->|
    |<----- 200 --------|<------ 200 -------|
    """
    f = Ladder(requests=to(REGISTRAR))
    first = registered(f, f"<sip:alice@{A_HOST}:5070>").contact()
    register(f.a, contact=f"<sip:alice@{A_HOST}:5080;transport=tcp>")
    sent = f.b.expect("REGISTER")
    second = sent.contact()
    assert first is not None
    assert second is not None
    assert first.uri.user != second.uri.user
    f.b.contact = f"<{first.uri}>;expires=500, <{second.uri}>;expires=600"
    f.b.reply(200, to=sent)
    assert f.a.expect(200).get_all("Contact") == [
        f"<sip:alice@{A_HOST}:5070>;expires=500",
        f"<sip:alice@{A_HOST}:5080;transport=tcp>;expires=600",
    ]
    nothing_of(f.a, f.b, OUR_A)
    f.over()


def test_request_for_the_current_contact_list() -> None:
    """RFC 3665 §2.3: a REGISTER without Contact asks, and changes nothing."""
    f = Ladder(requests=to(REGISTRAR))
    known = registered(f, f"<sip:alice@{A_HOST}:5070>").contact()
    assert known is not None
    send, line = f.a._send, f"Contact: {f.a.contact}\r\n".encode()
    f.a._send = lambda data: send(data.replace(line, b""))  # type: ignore[method-assign]  # for this message
    f.a.request("REGISTER", uri=DOMAIN)
    sent = f.b.expect("REGISTER")
    assert sent.get("Contact") is None
    f.b.contact = f"<{known.uri}>;expires=321"
    f.b.reply(200, to=sent)
    assert f.a.expect(200).get_all("Contact") == [f"<sip:alice@{A_HOST}:5070>;expires=321"]
    f.over()


def test_registration_with_wrong_credentials() -> None:
    """RFC 3665 §2.5: the registrar challenges anew; both challenges reach A, and A's wrong answer reaches it.

    A                  SBC              B (registrar)
    |---- REGISTER ---->|---- REGISTER ---->|
    |<----- 401 --------|<------ 401 -------|
    |---- REGISTER ---->|---- REGISTER ---->|   a wrong response
    |<----- 401 --------|<------ 401 -------|
    """
    f = Ladder(requests=to(REGISTRAR))
    extra: list[tuple[str, str]] = []
    for nonce in ("first", "second"):
        register(f.a, extra=extra)
        sent = f.b.expect("REGISTER")
        assert sent.get_all("Authorization") == [value for _, value in extra]
        [challenge] = digest.challenges("example.com", nonce, algorithms=("MD5",))
        f.b.reply(401, to=sent, extra=[("WWW-Authenticate", challenge)])
        [given] = digest.parse_challenges(f.a.expect(401).get_all("WWW-Authenticate"), proxy=False)
        assert given.nonce == nonce
        session = digest.Session(given, digest.Credentials("alice", "wrong"), "cnonce")
        extra = [(session.header, session.answer("REGISTER", DOMAIN))]
    f.over()


def test_session_through_two_proxies() -> None:
    """RFC 3665 §3.2: a proxy on either side records its route; each stays on its side, in each direction.

    A      P1          SBC           P2      B
    |------|- INVITE -->|-- INVITE ---|------>|
    |<-----|-- 180 -----|<--- 180 ----|-------|
    |<-----|-- 200 -----|<--- 200 ----|-------|
    |------|--- ACK --->|---- ACK ----|------>|
    |<-----|--- BYE ----|<--- BYE ----|-------|
    |------|--- 200 --->|---- 200 ----|------>|
    """
    f = Ladder()
    p1, p2 = f"<sip:{A_HOST}:5071;lr>", f"<sip:{B_HOST}:5072;lr>"
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Record-Route", p1)])
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    assert (invite.get("Record-Route"), invite.get("Route"), len(invite.vias())) == (None, None, 1)
    f.b.reply(180, extra=[("Record-Route", p2)])
    assert f.a.expect(180).get_all("Record-Route") == [p1]
    f.b.reply(200, body=sdp(B_HOST), extra=[("Record-Route", p2)])
    assert f.a.expect(200).get_all("Record-Route") == [p1]
    f.a.ack()
    ack = f.b.expect("ACK")
    assert (ack.uri, ack.get_all("Route")) == (f"sip:b@{B_HOST}:5070", [p2])
    f.b.request("BYE")
    f.b.expect(200)
    bye = f.a.expect("BYE")
    assert (bye.uri, bye.get_all("Route")) == (f"sip:a@{A_HOST}:5070", [p1])
    f.a.reply(200, to=bye)
    nothing_of(f.a, f.b, OUR_A)
    nothing_of(f.b, f.a, OUR_B)
    f.over()


def test_the_first_gateway_is_silent() -> None:
    """RFC 3665 §3.4, with the SBC where the caller chooses between two proxies: the second one is asked.

    A                  SBC                  B         C
    |---- INVITE ------>|---- INVITE ------>|         |   seven times, 32 s
    |<----- 100 --------|------- INVITE ------------->|
    |<----- 200 --------|<------- 200 ----------------|
    |------ ACK ------->|-------- ACK --------------->|
    """
    f = Ladder(route=hunt)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.after(32.1)
    f.c.expect("INVITE")
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    f.a.request("BYE")
    f.a.expect(200)
    f.c.reply(200, to=f.c.expect("BYE"))
    assert [(it["gateway"], it["status"]) for it in f.cdr["attempts"]] == [("gw-b", 408), ("gw-c", 200)]
    f.over()


def test_redirected_with_the_answer_in_ack() -> None:
    """RFC 3665 §3.6: B redirects a call without offer to C, whose 200 makes the offer. A hears nothing of B's Contact.

    A                  SBC                  B         C
    |---- INVITE ------>|---- INVITE ------>|         |   no description
    |                   |<------ 302 -------|         |
    |                   |------- INVITE ------------->|
    |<----- 200 --------|<------- 200 ----------------|   offer
    |------ ACK ------->|-------- ACK --------------->|   answer
    """
    f = Ladder(route=lambda f, call: f.core.dial(call, [TARGET_B], f.now, follow_redirects="realm"))
    f.a.request("INVITE")
    f.a.expect(100)
    assert f.b.expect("INVITE").body == b""
    f.b.contact = f"<sip:bob@{C_HOST}:5070>"
    f.b.reply(302)
    f.b.expect("ACK")
    invite = f.c.expect("INVITE")
    assert (invite.uri, invite.body) == (f"sip:bob@{C_HOST}:5070", b"")
    f.c.reply(180)
    f.a.expect(180)
    f.c.reply(200, body=sdp(C_HOST))
    assert f.a.expect(200).body
    f.a.ack(body=sdp(A_HOST))
    assert f.c.expect("ACK").body
    f.a.request("BYE")
    f.a.expect(200)
    f.c.reply(200, to=f.c.expect("BYE"))
    nothing_of(f.c, f.a, OUR_B, B_HOST)
    f.over()


def test_the_address_changes_in_mid_call() -> None:
    """RFC 3665 §3.7: B moves, and says so by re-INVITE with a new Contact and description.

    A                  SBC                  B
    |<---- INVITE ------|<----- INVITE -----|   from its new address
    |------ 200 ------->|------- 200 ------>|
    |<----- ACK --------|<------ ACK -------|
    |------ BYE ------->|------- BYE ------>|   to the new address
    """
    f = Ladder()
    f.set_up()
    told = f.call.a.sdp_out
    f.b.contact = f"<sip:b@{B_HOST}:5099>"
    f.b.request("INVITE", body=sdp(B_HOST, 4900, version=2))
    f.b.expect(100)
    invite = f.a.expect("INVITE")
    assert invite.body == told  # A sends to us as before: only our side of the media moves
    assert f.media[-1].streams[0].port == 4900
    f.a.reply(200, to=invite, body=sdp(A_HOST))
    f.b.expect(200)
    f.b.ack()
    f.a.expect("ACK")
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    assert bye.uri == f"sip:b@{B_HOST}:5099"
    f.b.reply(200, to=bye)
    f.over()


def test_temporarily_unavailable() -> None:
    """RFC 3665 §3.11."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.after(8)
    f.b.reply(480, extra=[("Retry-After", "120 (in a meeting)")])
    f.b.expect("ACK")
    assert f.a.refused(480).get("Retry-After") == "120"
    assert (f.cdr["status"], f.cdr["hangup"]) == (480, "b")
    f.over()
