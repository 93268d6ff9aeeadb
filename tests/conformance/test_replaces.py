"""INVITE with Replaces as ladders (RFC 3891): who takes whose place, and pickup of a call that rings."""

from __future__ import annotations

import pytest

from sbc.dialog.replaces import Replaces
from tests.support.attended import call_up, dialog_of, picks_up, ringing, take_place
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    E_HOST,
    MEDIA_A,
    MEDIA_B,
    OUR_A,
    Phone,
    sdp,
)
from tests.support.transfers import (
    ends,
    hang_up,
    ladder,
    media_of,
)


def test_a_new_caller_takes_the_place_of_a_dialog() -> None:
    """RFC 3891 §1: re-INVITE to the other party, 200 to the new one, BYE to the one that was replaced."""
    f = ladder()
    call_up(f, f.a, f.b)
    take_place(f, f.e, dialog_of(f.a))
    again = f.b.expect("INVITE")
    assert media_of(again) == MEDIA_B
    f.e.nothing()
    f.b.reply(200, to=again, body=sdp(B_HOST, 4444))
    f.b.expect("ACK")
    answer = f.e.expect(200)
    assert media_of(answer) == MEDIA_A
    ends(f.a)
    f.e.ack()
    assert (f.cdr["note"], f.cdr["transferred_to"]) == ("transferred", f.call.key)
    f.e.request("INFO", body=b"Signal=5\r\n", content_type="application/dtmf-relay")
    f.b.reply(200, to=f.b.expect("INFO"))
    f.e.expect(200)
    hang_up(f, f.b, f.e)
    assert len(f.cdrs) == 2
    assert f.cdrs[1]["answered"] is True


def test_a_new_caller_without_an_offer() -> None:
    """The other party offers, and the new one's ACK answers."""
    f = ladder()
    call_up(f, f.a, f.b)
    take_place(f, f.e, dialog_of(f.a), offer=False)
    asked = f.b.expect("INVITE")
    assert not asked.body
    f.b.reply(200, to=asked, body=sdp(B_HOST, 4444, version=2, codec="8"))
    assert b"RTP/AVP 8" in f.e.expect(200).body
    ends(f.a)
    f.b.nothing()
    f.e.ack(body=sdp(E_HOST, 5555, codec="8"))
    assert b"RTP/AVP 8" in f.b.expect("ACK").body
    hang_up(f, f.e, f.b)


def test_the_other_party_refuses_the_new_one() -> None:
    f = ladder()
    call_up(f, f.a, f.b)
    take_place(f, f.e, dialog_of(f.a))
    f.b.reply(488, to=f.b.expect("INVITE"))
    f.b.expect("ACK")
    f.e.refused(488)
    f.a.nothing()
    hang_up(f, f.a, f.b)


def test_the_new_caller_gives_up() -> None:
    """487 to it; what the other party has been offered is taken back."""
    f = ladder()
    call_up(f, f.a, f.b)
    take_place(f, f.e, dialog_of(f.a))
    again = f.b.expect("INVITE")
    f.e.cancel()
    f.e.expect(200)
    f.e.refused(487)
    f.b.reply(200, to=again, body=sdp(B_HOST, 4444))
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST))
    f.b.expect("ACK")
    hang_up(f, f.a, f.b)


def test_the_replaced_one_hangs_up_meanwhile() -> None:
    f = ladder()
    call_up(f, f.a, f.b)
    take_place(f, f.e, dialog_of(f.a))
    again = f.b.expect("INVITE")
    f.a.request("BYE")
    f.a.expect(200)
    f.b.nothing()
    f.b.reply(200, to=again, body=sdp(B_HOST, 4444))
    f.b.expect("ACK")
    f.e.expect(200)
    f.e.ack()
    f.a.nothing()
    hang_up(f, f.e, f.b)


def test_who_may_not_take_a_place() -> None:
    """RFC 3891 §3: 481 without such a dialog, and to anybody but its own peer; 486 where only an early one is meant."""
    f = ladder()
    call_up(f, f.a, f.b)
    there = dialog_of(f.a)
    for n, (phone, replaces, status) in enumerate(
        [
            (f.e, there._replace(call_id="x@y"), 481),
            (f.e, there._replace(from_tag="x"), 481),
            (f.e, Replaces(there.call_id, there.from_tag, there.to_tag), 481),
            (f.e, there._replace(early_only=True), 486),
            (f.c, there, 481),
        ]
    ):
        phone.dialog = (f"id-{n}", f"<sip:x@{phone.host}>;tag=t{n}", f"<sip:y@{OUR_A}>", f"sip:y@{OUR_A}")
        phone.request("INVITE", body=sdp(phone.host), extra=[("Replaces", str(replaces))])
        phone.expect(100)
        phone.expect(status)
        phone.request("ACK", branch=phone.branch, cseq=phone.cseq)
    f.a.nothing()
    f.b.nothing()
    f.after(40)
    f.a.request("BYE")
    f.a.expect(200)
    ends(f.b)
    f.over()


def test_replaces_is_refused_by_policy() -> None:
    f = ladder(transfers={})
    call_up(f, f.a, f.b)
    take_place(f, f.e, dialog_of(f.a))
    f.e.refused(481)
    hang_up(f, f.a, f.b)


def test_a_dialog_that_is_over() -> None:
    """RFC 3891 §3: 603."""
    f = ladder()
    call_up(f, f.a, f.b)
    there = dialog_of(f.b)
    f.a.request("BYE")
    f.a.expect(200)
    f.b.expect("BYE")  # not answered yet
    f.c.nothing()
    line = Phone(f, "b", B_HOST, 1)
    line.tag, line.inbox = "tag-of-line", f.b.inbox
    take_place(f, line, there)
    line.refused(603)


def test_two_at_once() -> None:
    """491 to the second."""
    f = ladder()
    call_up(f, f.a, f.b)
    take_place(f, f.e, dialog_of(f.a))
    f.b.expect("INVITE")
    f.e.dialog = ("other", f"<sip:x@{E_HOST}>;tag=other", f"<sip:y@{OUR_A}>", f"sip:y@{OUR_A}")
    take_place(f, f.e, dialog_of(f.a))
    f.e.expect(491)


@pytest.mark.parametrize("extra", ["", ";early-only"])
@pytest.mark.parametrize("engage", [True, False])
def test_pickup(extra: str, engage: bool) -> None:
    """RFC 5359 §2.16, RFC 3891 §3: the phone that rings gets CANCEL, the caller and who picks up their answers."""
    f = ladder(engage=engage)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    line = picks_up(f, extra=extra)
    cancel = f.b.expect("CANCEL")
    assert cancel.get("Reason") == 'SIP;cause=200;text="Call completed elsewhere"'
    f.b.reply(200, to=cancel)
    answer = line.expect(200)
    assert media_of(answer) == (MEDIA_B if engage else A_HOST)
    line.ack()
    f.b.reply(487)
    f.b.expect("ACK")
    assert media_of(f.a.expect(200)) == (MEDIA_A if engage else B_HOST)
    f.a.ack()
    f.a.request("INFO", body=b"Signal=5\r\n", content_type="application/dtmf-relay")
    line.reply(200, to=line.expect("INFO"))
    f.a.expect(200)
    (picked,) = f.cdrs
    assert (picked["note"], picked["transferred_to"]) == ("picked up another call", f.call.key)
    f.dies()
    line.request("BYE", cseq=50)
    line.expect(200)
    ends(f.a)
    f.after(100)
    assert f.cdrs[-1]["transferred_from"] == picked["id"]
    assert [try_["status"] for try_ in f.cdrs[-1]["attempts"]] == [487, 200]
    assert not f.core.legs


def test_pickup_without_a_codec_in_common() -> None:
    f = ringing()
    there = dialog_of(f.b)
    line = Phone(f, "line", B_HOST, 1)
    line.inbox = f.b.inbox
    body = sdp(B_HOST).replace(b"PCMU/8000", b"opus/48000/2").replace(b"AVP 0", b"AVP 96").replace(b":0 ", b":96 ")
    line.request("INVITE", body=body, extra=[("Replaces", str(there))])
    line.expect(100)
    line.expect(488)


def test_pickup_without_an_offer() -> None:
    f = ringing()
    picks_up(f, offer=False).expect(488)
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)


def test_a_ringing_call_of_our_callers_is_not_replaced() -> None:
    """RFC 3891 §3: an early dialog that we have not begun: 481."""
    f = ringing()
    assert f.a.dialog is not None
    take_place(f, f.e, dialog_of(f.a))
    f.e.refused(481)
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)


@pytest.mark.parametrize("who", ["b answers", "a cancels", "the line cancels"])
def test_pickup_meets_another_event(who: str) -> None:
    """While the media plane works: whoever was first wins, and every call ends once."""
    f = ringing()
    f.held_media = []
    there = dialog_of(f.b)
    line = Phone(f, "line", B_HOST, 1)
    line.inbox = f.b.inbox
    line.request("INVITE", body=sdp(B_HOST, 5555), extra=[("Replaces", str(there))])
    line.expect(100)
    if who == "b answers":
        f.b.reply(200, body=sdp(B_HOST))
    elif who == "a cancels":
        f.a.cancel()
        f.a.expect(200)
        f.a.refused(487)
        f.b.reply(200, to=f.b.expect("CANCEL"))
        f.b.reply(487)
        f.b.expect("ACK")
    else:
        line.cancel()
        line.expect(200)
    f.release_media()
    f.release_media()
    if who == "the line cancels":
        line.refused(487)
        f.b.reply(200, body=sdp(B_HOST))
        f.a.expect(200)
        f.a.ack()
        f.b.expect("ACK")
        hang_up(f, f.a, f.b)
    elif who == "b answers":
        line.refused(481)
        f.a.expect(200)
        f.a.ack()
        f.b.expect("ACK")
        hang_up(f, f.a, f.b)
    else:
        line.refused(481)
        f.over()
    assert len(f.cdrs) == 2
