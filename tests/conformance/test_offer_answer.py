"""Offer and answer through the SBC (RFC 3264, RFC 3311, RFC 6337): every pattern, 100rel on neither, one or both legs.

The patterns are those of RFC 6337 table 1; they are named by where the offer and the answer travel.
"""

from __future__ import annotations

import pytest

from sbc.b2bua.settings import RealmSettings
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, MEDIA_A, MEDIA_B, Ladder, Phone, sdp

RELIABLE = ["neither", "a", "b", "both"]
VIDEO = "m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"


class Dance:
    """A call whose legs speak 100rel, or do not: ``who`` is one of RELIABLE."""

    def __init__(self, who: str, *, offer: bool = True) -> None:
        self.a_reliable, self.b_reliable = who in ("a", "both"), who in ("b", "both")
        realms = {
            "inside": RealmSettings("inside", trusted=True),
            "outside": RealmSettings("outside", reliable="always" if who == "b" else "follow"),
        }
        self.f = f = Ladder(realms=realms)
        self.rseq = 0
        extra = [("Require", "100rel")] if self.a_reliable else []
        f.a.request("INVITE", body=sdp(A_HOST) if offer else b"", extra=extra)
        f.a.expect(100)
        self.invite = f.b.expect("INVITE")

    def b_rings(self, status: int, body: bytes = b"", answer: bytes = b"") -> Message:
        """B's provisional, acknowledged by us, and the one that A gets and acknowledges with ``answer``."""
        f = self.f
        extra = []
        if self.b_reliable:
            self.rseq += 1
            extra = [("Require", "100rel"), ("RSeq", str(self.rseq))]
        f.b.reply(status, to=self.invite, body=body, extra=extra)
        if self.b_reliable and not answer:
            f.b.reply(200, to=f.b.expect("PRACK"))
        told = f.a.expect(status)
        assert (told.get("RSeq") is not None) == self.a_reliable
        if self.a_reliable:
            f.a.request("PRACK", body=answer, extra=[("RAck", f"{told.get('RSeq')} 1 INVITE")])
            f.a.expect(200)
        return told

    def b_answers(self, body: bytes = b"", answer: bytes = b"") -> tuple[Message, Message]:
        """200 and ACK, as each side gets them."""
        f = self.f
        f.b.reply(200, to=self.invite, body=body)
        ok = f.a.expect(200)
        f.a.ack(body=answer, cseq=1)
        return ok, f.b.expect("ACK")

    def over(self) -> None:
        f = self.f
        f.a.request("BYE")
        f.a.expect(200)
        f.b.reply(200, to=f.b.expect("BYE"))
        assert f.cdr["answered"] is True
        f.over()


def ours(body: bytes, address: str) -> bool:
    """Whether a description is anchored at this address of ours, and tells no other."""
    return f"c=IN IP4 {address}".encode() in body and A_HOST.encode() not in body and B_HOST.encode() not in body


@pytest.mark.parametrize("who", RELIABLE)
def test_offer_in_invite_answer_in_2xx(who: str) -> None:
    """RFC 6337 table 1, pattern 1; the ringing says nothing of media."""
    call = Dance(who)
    assert ours(call.invite.body, MEDIA_B)
    assert call.b_rings(180).body == b""
    ok, ack = call.b_answers(sdp(B_HOST))
    assert ours(ok.body, MEDIA_A)
    assert ack.body == b""
    call.over()


@pytest.mark.parametrize("who", ["neither", "a"])
def test_offer_in_2xx_answer_in_ack(who: str) -> None:
    """Pattern 2. B is offered 100rel only where A could answer an early offer: see pattern 4."""
    call = Dance(who, offer=False)
    assert call.invite.body == b""
    assert call.b_rings(180).body == b""
    ok, ack = call.b_answers(sdp(B_HOST), sdp(A_HOST))
    assert ours(ok.body, MEDIA_A)
    assert ours(ack.body, MEDIA_B)
    call.over()


@pytest.mark.parametrize("who", RELIABLE)
def test_offer_in_invite_answer_in_provisional(who: str) -> None:
    """Pattern 3. The answer goes to A as it can be had there: once and for good in a reliable 183, else as a preview in
    183 and as the answer in 200, whatever B did."""
    call = Dance(who)
    early = call.b_rings(183, sdp(B_HOST))
    assert ours(early.body, MEDIA_A)
    ok, _ = call.b_answers(b"" if call.b_reliable else sdp(B_HOST))
    assert ok.body == (b"" if call.a_reliable else early.body)
    call.over()


def test_offer_in_provisional_answer_in_prack() -> None:
    """Pattern 4: only where both legs are reliable."""
    call = Dance("both", offer=False)
    f = call.f
    told = call.b_rings(183, sdp(B_HOST), sdp(A_HOST))
    assert ours(told.body, MEDIA_A)
    prack = f.b.expect("PRACK")
    assert ours(prack.body, MEDIA_B)
    f.b.reply(200, to=prack)
    ok, ack = call.b_answers()
    assert (ok.body, ack.body) == (b"", b"")
    call.over()


def test_description_in_an_unreliable_provisional_is_no_offer() -> None:
    """RFC 6337 §3.1.1: B's 183 to an INVITE without offer has a description that means nothing yet; A is spared it."""
    call = Dance("a", offer=False)
    assert call.b_rings(183, sdp(B_HOST)).body == b""
    ok, ack = call.b_answers(sdp(B_HOST), sdp(A_HOST))
    assert ours(ok.body, MEDIA_A)
    assert ours(ack.body, MEDIA_B)
    call.over()


def test_offer_in_prack_answer_in_its_2xx() -> None:
    """Pattern 5, as an UPDATE on B's leg."""
    call = Dance("both")
    f = call.f
    f.b.reply(183, body=sdp(B_HOST), extra=[("Require", "100rel"), ("RSeq", "1")])
    f.b.reply(200, to=f.b.expect("PRACK"))
    told = f.a.expect(183)
    f.a.request("PRACK", body=sdp(A_HOST, 4100, version=2), extra=[("RAck", f"{told.get('RSeq')} 1 INVITE")])
    update = f.b.expect("UPDATE")
    assert ours(update.body, MEDIA_B)
    f.b.reply(200, to=update, body=sdp(B_HOST, 4200, version=2))
    assert ours(f.a.expect(200).body, MEDIA_A)
    ok, _ = call.b_answers()
    assert ok.body == b""
    call.over()


def test_offer_in_prack_where_b_has_no_session_yet() -> None:
    """B's leg is not reliable, so no UPDATE can go there: the PRACK is refused with 500, and A may ask again later."""
    call = Dance("a")
    f = call.f
    f.b.reply(183, to=call.invite, body=sdp(B_HOST))
    told = f.a.expect(183)
    f.a.request("PRACK", body=sdp(A_HOST, 4100, version=2), extra=[("RAck", f"{told.get('RSeq')} 1 INVITE")])
    assert f.a.expect(500).get("Retry-After") is not None
    f.b.nothing()
    call.b_answers(sdp(B_HOST))
    call.over()


@pytest.mark.parametrize("who", RELIABLE)
@pytest.mark.parametrize("side", ["a", "b"])
def test_update_before_the_answer(who: str, side: str) -> None:
    """Pattern 6, early: RFC 3311 §5.1 allows it once the first offer is answered, which takes both legs."""
    call = Dance(who)
    f = call.f
    call.b_rings(183, sdp(B_HOST))
    one, other = (f.a, f.b) if side == "a" else (f.b, f.a)
    if side == "b":
        assert one.dialog is not None
    one.request("UPDATE", body=sdp(one.host, 4300, version=2))
    if who == "both":
        update = other.expect("UPDATE")
        other.reply(200, to=update, body=sdp(other.host, 4400, version=2))
        assert one.expect(200).body
    else:
        assert one.inbox[0].status in (491, 500)
        one.inbox.clear()
        other.nothing()
    call.b_answers(sdp(B_HOST))
    call.over()


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_offer_in_an_established_dialog(side: str, method: str) -> None:
    """Patterns 1 and 6, established: accepted, then refused, which leaves everything as it was."""
    f = Ladder()
    f.set_up()
    one, other = (f.a, f.b) if side == "a" else (f.b, f.a)
    before = f.call.a.sdp_out, f.call.b and f.call.b.sdp_out
    for status in (488, 200):
        one.request(method, body=sdp(one.host, 4600, version=2, direction="sendonly"))
        if method == "INVITE":
            one.expect(100)
        offer = other.expect(method)
        assert b"a=sendonly" in offer.body
        body = sdp(other.host, version=2, direction="recvonly") if status == 200 else b""
        other.reply(status, to=offer, body=body)
        if method == "INVITE":
            if status == 200:
                answer = one.expect(200)
                one.ack()
                other.expect("ACK")
            else:
                other.expect("ACK")
                answer = one.refused(488)
        else:
            answer = one.expect(status)
        if status == 200:
            assert b"a=recvonly" in answer.body
        else:
            assert (f.call.a.sdp_out, f.call.b and f.call.b.sdp_out) == before
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


# Hold, RFC 3264 §8.4


def reoffered(one: Phone, other: Phone, offer: bytes, answer: bytes) -> tuple[bytes, bytes]:
    """re-INVITE, 200, ACK; both descriptions as they arrived."""
    one.request("INVITE", body=offer)
    one.expect(100)
    invite = other.expect("INVITE")
    other.reply(200, to=invite, body=answer)
    ok = one.expect(200)
    one.ack()
    other.expect("ACK")
    return invite.body, ok.body


def direction(body: bytes) -> str:
    """The direction of the only stream."""
    found = [
        line for line in body.decode().split("\r\n") if line[2:] in ("sendrecv", "sendonly", "recvonly", "inactive")
    ]
    return found[0][2:]


@pytest.mark.parametrize(("hold", "answer"), [("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive",) * 2])
@pytest.mark.parametrize("side", ["a", "b"])
def test_hold_by_direction(side: str, hold: str, answer: str) -> None:
    f = Ladder()
    f.set_up()
    one, other = (f.a, f.b) if side == "a" else (f.b, f.a)
    for wanted, given in ((hold, answer), ("sendrecv", "sendrecv")):
        offered, answered = reoffered(
            one, other, sdp(one.host, version=2, direction=wanted), sdp(other.host, version=2, direction=given)
        )
        assert (direction(offered), direction(answered)) == (wanted, given)
        told = [f.media[-2].streams[0].direction, f.media[-1].streams[0].direction]
        assert told == [wanted, given]
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


@pytest.mark.parametrize("side", ["a", "b"])
def test_hold_by_null_address(side: str) -> None:
    """RFC 2543 as old gateways send it: c=0.0.0.0 stays a hold for the other side, and tells it no address."""
    f = Ladder()
    f.set_up()
    one, other = (f.a, f.b) if side == "a" else (f.b, f.a)
    held = sdp(one.host, version=2).replace(f"c=IN IP4 {one.host}".encode(), b"c=IN IP4 0.0.0.0")
    offered, _ = reoffered(one, other, held, sdp(other.host, version=2, direction="recvonly"))
    assert b"c=IN IP4 0.0.0.0" in offered
    offered, _ = reoffered(one, other, sdp(one.host, version=3), sdp(other.host, version=3))
    assert b"0.0.0.0" not in offered
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


def test_hold_from_both_sides() -> None:
    """Each holds, each resumes: what is said crosses as it was said, and o= rises by one with each change."""
    f = Ladder()
    f.set_up()
    steps: list[tuple[Phone, Phone, str, str]] = [
        (f.a, f.b, "sendonly", "recvonly"),
        (f.b, f.a, "inactive", "inactive"),
        (f.a, f.b, "recvonly", "sendonly"),
        (f.b, f.a, "sendrecv", "sendrecv"),
    ]
    versions = []
    for number, (one, other, wanted, given) in enumerate(steps, 2):
        offered, answered = reoffered(
            one,
            other,
            sdp(one.host, version=number, direction=wanted),
            sdp(other.host, version=number, direction=given),
        )
        assert (direction(offered), direction(answered)) == (wanted, given)
        versions.append(version(offered if one is f.a else answered))
    assert [it - versions[0] for it in versions] == [0, 1, 2, 3]
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


def version(body: bytes) -> int:
    """The version of o=."""
    return int(body.partition(b"o=")[2].partition(b"\r\n")[0].split()[2])


def test_the_version_rises_only_with_a_change() -> None:
    """RFC 3264 §8: B's own o= may rise as it likes; ours does when what we say differs, and never falls."""
    f = Ladder()
    f.set_up()
    assert f.b.invite is not None
    first = version(f.b.invite.body)
    same, _ = reoffered(f.a, f.b, sdp(A_HOST, version=17), sdp(B_HOST, version=18))
    assert version(same) == first
    assert same == f.b.invite.body
    other, _ = reoffered(f.a, f.b, sdp(A_HOST, version=19, codec="8"), sdp(B_HOST, version=20, codec="8"))
    assert version(other) == first + 1
    back, _ = reoffered(f.a, f.b, sdp(A_HOST, version=21), sdp(B_HOST, version=22))
    assert version(back) == first + 2
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


# m= lines, RFC 3264 §6 and §8


def lines(body: bytes) -> list[str]:
    """The m= lines without their ports, a zero port excepted."""
    found = []
    for line in body.decode().split("\r\n"):
        if line.startswith("m="):
            kind, port, *rest = line.split()
            found.append(" ".join([kind, "0" if port == "0" else "*", *rest]))
    return found


def with_video(body: bytes, port: int) -> bytes:
    return body + VIDEO.format(port=port).encode()


def test_streams_keep_their_number_and_order() -> None:
    """A stream is added, refused by port 0, taken away by port 0, and its place kept and used again (§8.1 to §8.3)."""
    f = Ladder()
    f.set_up()
    audio, gone, video = "m=audio * RTP/AVP 0", "m=video 0 RTP/AVP 96", "m=video * RTP/AVP 96"
    for offered_port, answered_port, seen in (
        (4002, 0, (video, gone)),
        (4002, 4202, (video, video)),
        (0, 0, (gone, gone)),
        (4004, 4204, (video, video)),
    ):
        offered, answered = reoffered(
            f.a,
            f.b,
            with_video(sdp(A_HOST, version=2), offered_port),
            with_video(sdp(B_HOST, version=2), answered_port),
        )
        assert (lines(offered), lines(answered)) == ([audio, seen[0]], [audio, seen[1]])
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


def test_an_answer_with_another_number_of_streams() -> None:
    """§6: such an answer answers nothing. In the first exchange the call fails on both sides, later it stays."""
    f = Ladder()
    f.a.request("INVITE", body=with_video(sdp(A_HOST), 4002))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.refused(488)
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()
    f = Ladder()
    f.set_up()
    f.a.request("INVITE", body=with_video(sdp(A_HOST, version=2), 4002))
    f.a.expect(100)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, version=2))
    f.a.refused(488)
    f.b.expect("ACK")
    assert f.call.state.name == "UP"
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


def test_every_stream_rejected() -> None:
    """RFC 6337 §5.3: an answer that takes nothing is an answer."""
    f = Ladder()
    f.set_up(answer=sdp(B_HOST).replace(b"m=audio 4000", b"m=audio 0"))
    assert f.call.a.sdp_out.count(b"m=audio 0 ") == 1
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


def test_unknown_attributes_are_kept() -> None:
    """§4: what we do not know is not ours to judge."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST) + b"a=quux:17 some\r\na=fmtp:0 x=1\r\n")
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    assert b"a=quux:17 some\r\n" in invite.body
    assert b"a=fmtp:0 x=1\r\n" in invite.body
    f.core.release(f.call, f.now, reason="test")
    f.drain()


def test_late_offer_in_every_state() -> None:
    """An INVITE without offer opens the call, takes it off hold, and is refused, from either side."""
    f = Ladder()
    f.a.request("INVITE")
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack(body=sdp(A_HOST))
    f.b.expect("ACK")
    reoffered(f.a, f.b, sdp(A_HOST, version=2, direction="sendonly"), sdp(B_HOST, version=2, direction="recvonly"))
    for one, other in ((f.a, f.b), (f.b, f.a)):
        one.request("INVITE")
        one.expect(100)
        invite = other.expect("INVITE")
        assert invite.body == b""
        other.reply(200, to=invite, body=sdp(other.host, version=4))
        assert direction(one.expect(200).body) == "sendrecv"
        one.ack(body=sdp(one.host, version=4))
        assert direction(other.expect("ACK").body) == "sendrecv"
        one.request("INVITE")
        one.expect(100)
        other.reply(603, to=other.expect("INVITE"))
        other.expect("ACK")
        one.refused(603)
    assert f.call.offer_from is None
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()


def test_a_late_offer_that_is_never_answered() -> None:
    """The ACK brings no answer: media stay as they were, and the next offer is free to come."""
    f = Ladder()
    f.set_up()
    before = [f.call.a.sdp_out, f.call.b and f.call.b.sdp_out]
    f.a.request("INVITE")
    f.a.expect(100)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4700, version=2, direction="sendonly"))
    f.a.expect(200)
    f.a.ack()
    assert f.b.expect("ACK").body == b""
    assert [f.call.a.sdp_out, f.call.b and f.call.b.sdp_out] == before
    reoffered(f.b, f.a, sdp(B_HOST, version=3), sdp(A_HOST, version=3))
    f.core.release(f.call, f.now, reason="test")
    f.drain()
    f.over()
