"""Ladders of calls that a proxy behind us forks: one branch of ours with several early dialogs."""

from __future__ import annotations

from tests.support.forks import dialling, hang_up, reliably, ringing
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    MEDIA_A,
    MEDIA_B,
    TARGET_B,
    Ladder,
    sdp,
)


def test_early_dialogs_of_a_fork_downstream() -> None:
    """RFC 5407 §3.3: each has its own PRACK, CSeq and route; the second one answers; the first comes too late."""
    f = dialling(TARGET_B)
    ringing("b", f=f, extra=[("Supported", "100rel")])
    reliably(f.b, "one", 100, sdp(B_HOST), f"{B_HOST}:5070")
    prack = f.b.expect("PRACK")
    assert (prack.to_tag, prack.get("RAck"), prack.cseq_number) == ("one", "100 1 INVITE", 2)
    f.b.reply(200, to=prack)
    heard = f.a.expect(183)
    assert heard.body
    f.a.request("PRACK", extra=[("RAck", f"{heard.get('RSeq')} {heard.cseq_number} INVITE")])
    f.a.expect(200)
    reliably(f.b, "two", 500, sdp(B_HOST, 4002, codec="8"), f"{B_HOST}:5070;fork=two")
    prack = f.b.expect("PRACK")
    assert (prack.to_tag, prack.get("RAck"), prack.cseq_number) == ("two", "500 1 INVITE", 2)
    assert prack.get("Route") == f"<sip:{B_HOST}:5070;fork=two;lr>"
    f.b.reply(200, to=prack)
    progress = f.a.expect(183)
    assert progress.body == b""
    assert progress.to_tag == heard.to_tag  # A has one early dialog
    f.a.request("PRACK", extra=[("RAck", f"{progress.get('RSeq')} {progress.cseq_number} INVITE")])
    f.a.expect(200)

    f.a.request("UPDATE", body=sdp(A_HOST, version=2))  # goes to the one that A hears
    update = f.b.expect("UPDATE")
    assert (update.to_tag, update.cseq_number) == ("one", 3)
    f.b.reply(200, to=update, body=sdp(B_HOST, version=2))
    f.a.expect(200)

    f.b.reply(200, tag="two")
    assert f.a.expect(200).body == b""
    f.a.ack(cseq=1)
    ack = f.b.expect("ACK")
    assert (ack.to_tag, ack.get("Route")) == ("two", None)  # the 2xx has the last word on the route
    f.b.reply(200, tag="one", body=sdp(B_HOST))
    ack, bye = f.b.expect("ACK"), f.b.expect("BYE")
    assert (ack.to_tag, bye.to_tag, ack.cseq_number, bye.cseq_number) == ("one", "one", 1, 4)
    f.b.reply(200, to=bye)
    f.b.reply(200, tag="one", body=sdp(B_HOST))  # again: its ACK was lost
    f.b.expect("ACK")
    f.b.nothing()
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    assert (bye.to_tag, bye.cseq_number) == ("two", 3)
    f.b.reply(200, to=bye)
    f.over()


def test_an_offer_of_the_second_fork() -> None:
    """A made no offer; the first early dialog only rings, the second makes one reliably: A answers that in PRACK."""
    f = dialling(TARGET_B)
    ringing("b", f=f, offer=False, extra=[("Supported", "100rel")])
    f.b.reply(180, tag="one")
    f.a.expect(180)
    reliably(f.b, "two", 500, sdp(B_HOST), f"{B_HOST}:5070")
    offer = f.a.expect(183)
    assert MEDIA_A.encode() in offer.body
    f.b.nothing()
    reliably(f.b, "three", 900, sdp(B_HOST, 4004), f"{B_HOST}:5070")  # A can answer no second one
    f.b.nothing()
    f.a.request("PRACK", body=sdp(A_HOST), extra=[("RAck", f"{offer.get('RSeq')} {offer.cseq_number} INVITE")])
    prack = f.b.expect("PRACK")
    assert (prack.to_tag, MEDIA_B.encode() in prack.body) == ("two", True)
    f.b.reply(200, to=prack)
    f.a.expect(200)
    f.a.expect(183)
    f.b.reply(200, tag="two")
    assert f.a.expect(200).body == b""
    f.a.ack(cseq=1)
    assert f.b.expect("ACK").to_tag == "two"
    hang_up(f, f.b)
    f.over()


def fork_request(f: Ladder, tag: str, method: str, cseq: int, body: bytes = b"") -> None:
    """A request of b in the early dialog that has this tag."""
    invite = f.b.invite
    assert invite is not None
    contact = (invite.get("Contact") or "").partition("<")[2].partition(">")[0]
    f.b.dialog = (invite.call_id, f"{invite.get('To')};tag={tag}", invite.get("From") or "", contact)
    f.b.request(method, cseq=cseq, body=body)


def test_requests_of_the_early_dialogs_of_a_fork() -> None:
    f = dialling(TARGET_B)
    ringing("b", f=f)
    f.b.reply(183, tag="one", body=sdp(B_HOST))
    f.b.reply(183, tag="two", body=sdp(B_HOST, 4002))
    assert f.a.expect(183).body
    assert f.a.expect(183).body == b""
    fork_request(f, "two", "UPDATE", 1)
    f.b.expect(200)
    fork_request(f, "one", "INFO", 1)  # its own numbers: not out of order
    f.a.reply(200, to=f.a.expect("INFO"))
    f.b.expect(200)
    fork_request(f, "two", "UPDATE", 2, sdp(B_HOST, 4002, version=2))
    f.b.expect(491)
    fork_request(f, "two", "INFO", 2)
    f.b.expect(500)
    fork_request(f, "two", "INFO", 3)
    f.a.reply(200, to=f.a.expect("INFO"))
    f.b.expect(200)
    fork_request(f, "three", "UPDATE", 1)
    f.b.expect(481)
    f.b.reply(200, tag="one", body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    fork_request(f, "two", "UPDATE", 4)
    f.b.expect(481)
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_an_early_dialog_that_is_over() -> None:
    """199 (RFC 6228) is not for A, whose early dialog lives; A then hears the other fork."""
    f = dialling(TARGET_B)
    ringing("b", f=f)
    f.b.reply(183, tag="one", body=sdp(B_HOST))
    f.b.reply(183, tag="two", body=sdp(B_HOST, 4002, codec="8"))
    f.a.expect(183)
    f.a.expect(183)
    f.b.reply(199, tag="one")
    assert b"RTP/AVP 8" in f.a.expect(183).body
    f.b.reply(199, tag="three")
    f.a.nothing()
    f.b.reply(200, tag="two")
    assert b"RTP/AVP 8" in f.a.expect(200).body
    f.a.ack()
    assert f.b.expect("ACK").to_tag == "two"
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()
