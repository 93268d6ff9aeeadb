"""The service examples of RFC 5359, each through the SBC: A is Alice, B and C are on the other side of us.

Services of a phone (hold, conference) are dialogs of its own that cross; services of a proxy (forwarding, screening,
find-me) are what a route decides. ``docs/conformance.md`` names what is not served.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sbc.b2bua.call import Call
from sbc.sip.message import Message
from tests.conformance.test_subscriptions import ACTIVE, EVENT, TERMINATED, accepted, notify, relay_b
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    MEDIA_A,
    OUR_A,
    TARGET_B,
    TARGET_C,
    Ladder,
    Phone,
    hunt,
    sdp,
)

CAROL = f"sip:carol@{OUR_A}"


def by_name(ladder: Ladder, call: Call) -> None:
    """Carol is C, everybody else is B."""
    ladder.core.dial(call, [TARGET_C if "carol" in call.ruri else TARGET_B], ladder.now)


def answered(caller: Phone, callee: Phone, uri: str = "") -> None:
    """A call of two phones."""
    caller.request("INVITE", body=sdp(caller.host), uri=uri)
    caller.expect(100)
    callee.expect("INVITE")
    callee.reply(180)
    caller.expect(180)
    callee.reply(200, body=sdp(callee.host))
    caller.expect(200)
    caller.ack()
    callee.expect("ACK")


def changed(sender: Phone, receiver: Phone, offer: bytes, answer: bytes) -> tuple[Message, Message]:
    """re-INVITE, 200, ACK; the offer and the answer as they arrived."""
    sender.request("INVITE", body=offer)
    sender.expect(100)
    invite = receiver.expect("INVITE")
    receiver.reply(200, to=invite, body=answer)
    ok = sender.expect(200)
    sender.ack()
    receiver.expect("ACK")
    return invite, ok


def ended(sender: Phone, receiver: Phone) -> None:
    sender.request("BYE")
    sender.expect(200)
    receiver.reply(200, to=receiver.expect("BYE"))


def test_consultation_hold() -> None:
    """RFC 5359 §2.2: A holds B, talks to C, hangs up there, and takes B back.

    A                  SBC                  B         C
    |-- INVITE (hold) ->|-- INVITE (hold) ->|         |
    |<----- 200 --------|<------ 200 -------|         |
    |---- INVITE ------>|------- INVITE ------------->|   another call
    |<----- 200 --------|<------- 200 ----------------|
    |------ BYE ------->|-------- BYE --------------->|
    |---- INVITE ------>|---- INVITE ------>|         |   sendrecv
    |<----- 200 --------|<------ 200 -------|         |
    """
    f = Ladder(route=by_name)
    f.set_up()
    invite, ok = changed(
        f.a,
        f.b,
        sdp(A_HOST, version=2, direction="sendonly"),
        sdp(B_HOST, version=2, direction="recvonly"),
    )
    assert b"a=sendonly" in invite.body
    assert b"a=recvonly" in ok.body
    second = f.line(f.a, "a2")
    answered(second, f.c, CAROL)
    assert len(f.core.calls) == 2
    ended(second, f.c)
    invite, _ = changed(f.a, f.b, sdp(A_HOST, version=3), sdp(B_HOST, version=3))
    assert b"a=sendrecv" in invite.body
    ended(f.a, f.b)
    assert [cdr["b_peer"] for cdr in f.cdrs] == ["carrier-c", "carrier-b"]
    f.over()


def test_music_on_hold() -> None:
    """RFC 5359 §2.3: B offers A the description of a music server in its own place; A hears it from us.

    A                  SBC                  B        music (C)
    |                   |                   |-- INVITE ->|   no offer
    |                   |                   |<-- 200 ----|   offer
    |<---- INVITE ------|<- INVITE (music) -|            |
    |------ 200 ------->|------ 200 ------->|            |
    |<----- ACK --------|<------ ACK -------|--- ACK --->|   A's answer
    """
    f = Ladder()
    f.set_up()
    music = sdp(C_HOST, 5900, version=9, direction="sendonly").replace(b"o=phone 77", b"o=music 88")
    invite, ok = changed(f.b, f.a, music, sdp(A_HOST, version=2, direction="recvonly"))
    assert (b"a=sendonly" in invite.body, MEDIA_A.encode() in invite.body) == (True, True)
    assert C_HOST.encode() not in b"".join(f.a.all)
    assert (f.media[-2].streams[0].address, f.media[-2].streams[0].port) == (C_HOST, 5900)
    assert b"a=recvonly" in ok.body
    changed(f.b, f.a, sdp(B_HOST, version=3), sdp(A_HOST, version=3))
    assert f.media[-2].streams[0].address == B_HOST
    ended(f.a, f.b)
    f.over()


@pytest.mark.parametrize("why", ["unconditional", "busy", "no answer"])
def test_call_forwarding(why: str) -> None:
    """RFC 5359 §2.7, §2.8, §2.9: the route sends the call to C, at once, when B is busy, or when B does not answer.

    A                  SBC                  B         C
    |---- INVITE ------>|---- INVITE ------>|         |
    |                   |<- 486, or CANCEL->|         |
    |                   |------- INVITE ------------->|
    |<----- 200 --------|<------- 200 ----------------|
    """

    def route(ladder: Ladder, call: Call) -> None:
        def to_c(ladder: Ladder, call: Call) -> None:
            ladder.core.dial(call, [TARGET_C], ladder.now)

        if why == "unconditional":
            to_c(ladder, call)
        else:
            ladder.core.dial(call, [replace(TARGET_B, timeout_s=12)], ladder.now, on_failure=to_c)

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    if why == "unconditional":
        f.b.nothing()
    else:
        f.b.expect("INVITE")
        f.b.reply(180)
        f.a.expect(180)
        if why == "busy":
            f.b.reply(486)
        else:
            f.after(12)
            f.b.reply(200, to=f.b.expect("CANCEL"))
            f.b.reply(487)
        f.b.expect("ACK")
    f.c.expect("INVITE")
    f.c.reply(180)
    f.a.expect(180)
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    f.b.nothing()
    ended(f.a, f.c)
    tried = {"unconditional": [200], "busy": [486, 200], "no answer": [408, 200]}[why]
    assert [attempt["status"] for attempt in f.cdr["attempts"]] == tried
    f.over()


def test_conference_third_party_is_added() -> None:
    """RFC 5359 §2.10: A talks to B, becomes a focus (its Contact says so) and calls C; it mixes by itself."""
    f = Ladder(route=by_name)
    f.set_up()
    f.a.contact = f"<sip:conference@{A_HOST}:5070>;isfocus"
    changed(f.a, f.b, sdp(A_HOST, 4002, version=2), sdp(B_HOST))
    second = f.line(f.a, "a2")
    second.contact = f.a.contact
    answered(second, f.c, CAROL)
    sessions = {request.session for request in f.media}
    assert len(sessions) == 2  # two calls to us, with media of their own
    f.b.request("BYE")
    f.b.expect(200)
    bye = f.a.expect("BYE")
    assert bye.uri == f"sip:conference@{A_HOST}:5070"
    f.a.reply(200, to=bye)
    ended(f.c, second)
    f.over()


def test_conference_third_party_joins() -> None:
    """RFC 5359 §2.11 needs Join (RFC 3911): it names a dialog of the other side, which we do not map, so we say that we
    do not know it (420), and where it is not required the header stays behind and the call is a call."""
    f = Ladder()
    f.set_up()
    assert f.a.dialog is not None
    join = ("Join", f"{f.a.dialog[0]};to-tag=1;from-tag={f.a.tag}")
    second = f.line(f.a, "a2")
    second.request("INVITE", body=sdp(A_HOST), extra=[join, ("Require", "join")])
    assert second.refused(420).get_all("Unsupported") == ["join"]
    third = f.line(f.a, "a3")
    third.request("INVITE", body=sdp(A_HOST), extra=[join])
    third.expect(100)
    invite = f.b.expect("INVITE")
    assert invite.get("Join") is None
    f.b.reply(486)
    f.b.expect("ACK")
    third.refused(486)
    ended(f.a, f.b)
    f.over()


def test_find_me() -> None:
    """RFC 5359 §2.12: one place after the other, until somebody answers.

    A                  SBC                  B         C
    |---- INVITE ------>|---- INVITE ------>|         |
    |<----- 180 --------|<------ 180 -------|         |
    |                   |<------ 480 -------|         |
    |                   |------- INVITE ------------->|
    |<----- 180 --------|<------- 180 ----------------|
    |<----- 200 --------|<------- 200 ----------------|
    """
    f = Ladder(route=hunt)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    first = f.a.expect(180)
    f.b.reply(480)
    f.b.expect("ACK")
    f.c.expect("INVITE")
    f.c.reply(180)
    second = f.a.expect(180)
    assert first.to_tag == second.to_tag  # to A there is one callee: us
    f.c.reply(200, body=sdp(C_HOST))
    f.a.expect(200)
    f.a.ack()
    f.c.expect("ACK")
    ended(f.c, f.a)
    f.over()


@pytest.mark.parametrize("status", [403, 603])
def test_call_screening(status: int) -> None:
    """RFC 5359 §2.13 and §2.14: a route refuses a caller, or a called number, and B hears nothing."""

    def route(ladder: Ladder, call: Call) -> None:
        if "alice" in call.from_uri or "carol" in call.ruri:
            ladder.core.reject(call, status, ladder.now)
        else:
            ladder.core.dial(call, [TARGET_B], ladder.now)

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST), uri=CAROL)
    f.a.expect(100)
    f.a.refused(status)
    f.b.nothing()
    f.c.nothing()
    assert (f.cdr["status"], f.cdr["hangup"], f.cdr["attempts"]) == (status, "sbc", [])
    f.over()


def test_automatic_redial() -> None:
    """RFC 5359 §2.17: B is busy, A watches B's dialogs, and calls again when they are over.

    A                  SBC                  B
    |---- INVITE ------>|---- INVITE ------>|
    |<----- 486 --------|<------ 486 -------|
    |--- SUBSCRIBE ---->|--- SUBSCRIBE ---->|
    |<---- NOTIFY ------|<----- NOTIFY -----|   confirmed
    |<---- NOTIFY ------|<----- NOTIFY -----|   terminated
    |---- INVITE ------>|---- INVITE ------>|
    |<----- 200 --------|<------ 200 -------|
    """
    f = Ladder(requests=relay_b)
    caller = f.line(f.a, "a2")
    caller.request("INVITE", body=sdp(A_HOST))
    caller.expect(100)
    f.b.expect("INVITE")
    f.b.reply(486)
    f.b.expect("ACK")
    caller.refused(486)
    accepted(f)
    for subscription, state in ((ACTIVE, b"<state>confirmed</state>"), (TERMINATED, b"<state>terminated</state>")):
        notify(f.b, subscription, b"<dialog-info>" + state + b"</dialog-info>")
        told = f.a.expect("NOTIFY")
        assert (state in told.body, told.get("Event")) == (True, EVENT[1])
        f.a.reply(200, to=told)
        f.b.expect(200)
    again = f.line(f.a, "a3")
    answered(again, f.b)
    ended(again, f.b)
    f.over()


def test_click_to_dial() -> None:
    """RFC 5359 §2.18 is a REFER outside a dialog: it would have us, or B, call whom a stranger names. Refused."""
    f = Ladder()
    f.a.request("REFER", extra=[("Refer-To", f"<sip:carol@{C_HOST}>"), ("Contact", f"<sip:a@{A_HOST}>")])
    f.a.expect(403)
    f.b.nothing()
    f.c.nothing()
    f.over()
