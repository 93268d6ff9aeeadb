"""Attended transfers and Replaces as ladders (RFC 3891, RFC 5589 §7). ``e`` is the other line of ``a``: same peer."""

from __future__ import annotations

import pytest

from media.protocol import Delete
from sbc.b2bua.call import Target
from sbc.b2bua.profile import profile_of
from sbc.b2bua.settings import MediaProfile, MediaProfiles
from sbc.dialog.replaces import Replaces, parse_replaces, replaces_of
from sbc.errors import SipSyntaxError
from sbc.sip.address import parse_name_addr
from sbc.sip.message import Message
from tests.conformance.test_transfers import (
    PASS,
    accepted,
    ends,
    hang_up,
    ladder,
    later,
    media_of,
    notified,
    refer,
)
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    E_HOST,
    MEDIA_A,
    MEDIA_B,
    OUR_A,
    OUR_B,
    Ladder,
    Phone,
    sdp,
    settings,
)


def call_up(f: Ladder, caller: Phone, called: Phone) -> None:
    """INVITE, 200, ACK."""
    caller.request("INVITE", body=sdp(caller.host))
    caller.expect(100)
    called.expect("INVITE")
    called.reply(200, body=sdp(called.host))
    caller.expect(200)
    caller.ack()
    called.expect("ACK")


def both_up() -> Ladder:
    """a talks to b, e to c."""
    f = ladder()
    call_up(f, f.a, f.b)
    call_up(f, f.e, f.c)
    return f


def dialog_of(phone: Phone) -> Replaces:
    """The dialog of a phone, as we are to be told of it: our tag first."""
    assert phone.dialog is not None
    call_id, local, remote, _ = phone.dialog
    return Replaces(call_id, remote.rpartition("tag=")[2], local.rpartition("tag=")[2])


def refer_to(phone: Phone) -> str:
    return f"<sip:+4930123@{OUR_A}?{dialog_of(phone).in_uri()}>"


def offered(f: Ladder, transferor: Phone, other: Phone, target: Phone) -> Message:
    """REFER until the target has been asked for its offer, and has made it."""
    refer(transferor, refer_to(other))
    accepted(transferor)
    asked = target.expect("INVITE")
    assert asked.to_tag
    assert not asked.body
    target.reply(200, to=asked, body=sdp(target.host, 6000, version=2, codec="8"))
    return asked


TARGET_E = Target(f"sip:+4930123@{E_HOST}:5070", "inside", peer="phones", gateway="e")


# the header


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a@b;to-tag=1;from-tag=2", Replaces("a@b", "1", "2")),
        ("a@b ; from-tag = 2 ;to-tag=1; early-only", Replaces("a@b", "1", "2", True)),
        (
            "98732@sip.example.com;from-tag=r33th4x0r;to-tag=ff87ff",
            Replaces("98732@sip.example.com", "ff87ff", "r33th4x0r"),
        ),
    ],
)
def test_replaces_reads(text: str, value: Replaces) -> None:
    assert parse_replaces(text) == value
    assert parse_replaces(str(value)) == value
    assert replaces_of("Subject=x&" + value.in_uri()) == value


@pytest.mark.parametrize(
    "text", ["", "a@b", "a@b;to-tag=1", ";to-tag=1;from-tag=2", "a b;to-tag=1;from-tag=2", "a;to-tag;from-tag=2"]
)
def test_replaces_that_names_no_dialog(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        parse_replaces(text)


def test_no_replaces_in_a_uri() -> None:
    assert replaces_of("") is None
    assert replaces_of("Subject=Replaces") is None


# attended


def test_attended() -> None:
    """Both calls are ours: b takes the seat of e, both lines of the transferor end, and each call has its record."""
    f = both_up()
    del f.media[:]
    offered(f, f.a, f.e, f.c)
    again = f.b.expect("INVITE")
    assert media_of(again) == MEDIA_B
    assert b"RTP/AVP 8" in again.body
    f.b.reply(200, to=again, body=sdp(B_HOST, 4444, codec="8"))
    f.b.expect("ACK")
    ack = f.c.expect("ACK")
    assert media_of(ack) == MEDIA_B
    assert b"RTP/AVP 8" in ack.body
    ends(f.e)
    notified(f.a, 200, "terminated;reason=noresource")
    ends(f.a)
    old, new = f.cdr, f.call
    assert (old["transferred_to"], new.transferred_from) == (new.key, old["id"])
    assert [leg.dialog.call_id for leg in (new.a, new.b) if leg] == [f.b.dialog[0], f.c.dialog[0]]  # type: ignore[index]  # both have one
    assert [(it.session == new.key, it.leg) for it in f.media if isinstance(it, Delete)] == [(True, "a"), (False, "")]
    f.b.request("INFO", body=b"Signal=5\r\n", content_type="application/dtmf-relay", cseq=70)
    f.c.reply(200, to=f.c.expect("INFO"))
    f.b.expect(200)
    hang_up(f, f.c, f.b)
    assert f.cdrs[1]["id"] == new.key
    assert (f.cdrs[1]["a_peer"], f.cdrs[1]["b_peer"]) == ("carrier-b", "carrier-c")


def test_a_leg_keeps_its_media_profile_in_a_call_that_was_made_under_another() -> None:
    """b takes the seat of e, who called under the profile of its own peer; a successor knows that, too."""
    own = MediaProfile(dscp=46)
    f = ladder(media_profiles=MediaProfiles({"default": MediaProfile(dscp=8)}, {"carrier-b": own}))
    call_up(f, f.a, f.b)
    call_up(f, f.e, f.c)
    offered(f, f.a, f.e, f.c)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4444, codec="8"))
    for _ in range(2):
        (call,) = (call for call in f.core.calls.values() if call.a.peer == "carrier-b")
        assert profile_of(f.core, call, call.a) == own
        f.dies()


def test_attended_of_a_called_party() -> None:
    """b, which was called by a, refers a to c, which b's peer has called. The seat is on the B side of the first."""
    f = ladder()
    call_up(f, f.a, f.b)
    line = Phone(f, "b", B_HOST, 1)  # b's other call: to e
    f.route = lambda f, call: f.core.dial(call, [TARGET_E], f.now)
    line.tag, line.inbox = "tag-of-line", f.b.inbox
    line.request("INVITE", body=sdp(B_HOST))
    line.expect(100)
    f.e.expect("INVITE")
    f.e.reply(200, body=sdp(E_HOST))
    line.expect(200)
    line.ack()
    f.e.expect("ACK")
    offered(f, f.b, line, f.e)
    f.a.reply(200, to=f.a.expect("INVITE"), body=sdp(A_HOST, 4444, codec="8"))
    f.a.expect("ACK")
    f.e.expect("ACK")
    ends(f.b)
    notified(f.b, 200, "terminated")
    ends(f.b)
    hang_up(f, f.a, f.e)
    assert len(f.cdrs) == 2


def test_the_target_cannot_make_an_offer() -> None:
    f = both_up()
    refer(f.a, refer_to(f.e))
    accepted(f.a)
    f.c.reply(488, to=f.c.expect("INVITE"))
    f.c.expect("ACK")
    notified(f.a, 488, "terminated")
    f.b.nothing()
    assert sorted(call.state.name for call in f.core.calls.values()) == ["UP", "UP"]


def test_the_moved_party_cannot_take_the_offer() -> None:
    """The target's offer is answered with what held before, and everybody is where he was."""
    f = both_up()
    before = next(leg.sdp_out for leg in f.core.legs.values() if leg.flow.host == C_HOST)
    offered(f, f.a, f.e, f.c)
    f.b.reply(488, to=f.b.expect("INVITE"))
    f.b.expect("ACK")
    assert f.c.expect("ACK").body == before
    notified(f.a, 488, "terminated")
    f.e.request("INVITE", body=sdp(E_HOST, version=2))
    f.e.expect(100)
    f.c.reply(200, to=f.c.expect("INVITE"), body=sdp(C_HOST, version=3))
    f.e.expect(200)
    f.e.ack()
    f.c.expect("ACK")
    for x, y in ((f.a, f.b), (f.e, f.c)):
        x.request("BYE", cseq=90)
        x.expect(200)
        ends(y)
    f.over()


def test_the_target_is_changing_its_session() -> None:
    """491, and again after a while."""
    f = both_up()
    refer(f.a, refer_to(f.e))
    accepted(f.a)
    f.c.reply(491, to=f.c.expect("INVITE"))
    f.c.expect("ACK")
    asked = later(f, f.c)
    f.c.reply(200, to=asked, body=sdp(C_HOST, 6000, version=2))
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4444))
    f.b.expect("ACK")
    f.c.expect("ACK")
    ends(f.e)
    notified(f.a, 200, "terminated")
    ends(f.a)
    hang_up(f, f.c, f.b)


@pytest.mark.parametrize("success", [True, False])
def test_the_transferor_hangs_up_both_lines(success: bool) -> None:
    """At once, as many phones do: the two others come together, or each is released."""
    f = both_up()
    offered(f, f.a, f.e, f.c)
    again = f.b.expect("INVITE")
    for line in (f.e, f.a):
        line.request("BYE")
        line.expect(200)
    f.b.nothing()
    f.c.nothing()
    if success:
        f.b.reply(200, to=again, body=sdp(B_HOST, 4444))
        f.b.expect("ACK")
        f.c.expect("ACK")
        notified(f.a, 200, "terminated")
        hang_up(f, f.b, f.c)
    else:
        f.b.reply(488, to=again)
        f.b.expect("ACK")
        f.c.expect("ACK")
        notified(f.a, 488, "terminated")
        ends(f.b)
        ends(f.c)
        f.over()
    assert len(f.cdrs) == 2


def test_the_target_hangs_up() -> None:
    f = both_up()
    offered(f, f.a, f.e, f.c)
    again = f.b.expect("INVITE")
    f.c.request("BYE")
    f.c.expect(200)
    f.c.expect("ACK")
    ends(f.e)
    notified(f.a, 480, "terminated")
    f.b.reply(200, to=again, body=sdp(B_HOST, 4444))
    f.b.expect("ACK")
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST))  # what it had before
    f.b.expect("ACK")
    hang_up(f, f.a, f.b)


def test_the_moved_party_hangs_up() -> None:
    f = both_up()
    offered(f, f.a, f.e, f.c)
    f.b.expect("INVITE")
    f.b.request("BYE")
    f.b.expect(200)
    assert f.c.expect("ACK").body
    ends(f.a)
    notified(f.a, 487, "terminated")
    hang_up(f, f.e, f.c)


def test_a_call_cannot_be_transferred_into_itself() -> None:
    f = ladder()
    call_up(f, f.a, f.b)
    refer(f.a, refer_to(f.a))
    f.a.expect(481)
    hang_up(f, f.a, f.b)


def test_the_dialog_of_another_peer_cannot_be_named() -> None:
    """RFC 3891 §3: whoever has learned its tags."""
    f = both_up()
    refer(f.b, refer_to(f.e))
    f.b.expect(481)
    f.c.nothing()


def test_an_attended_transfer_survives_its_worker() -> None:
    f = both_up()
    offered(f, f.a, f.e, f.c)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4444, codec="8"))
    f.b.expect("ACK")
    f.c.expect("ACK")
    ends(f.e)
    notified(f.a, 200, "terminated")
    ends(f.a)
    f.dies()
    f.b.request("INVITE", body=sdp(B_HOST, 4444, version=3), cseq=60)
    f.b.expect(100)
    f.c.reply(200, to=f.c.expect("INVITE"), body=sdp(C_HOST, 6000, version=3))
    f.b.expect(200)
    f.b.request("ACK", cseq=60)
    f.c.expect("ACK")
    hang_up(f, f.c, f.b)


def test_a_call_that_was_joined_may_be_transferred_again() -> None:
    """Names of media legs stay different, and the record says whence."""
    f = both_up()
    offered(f, f.a, f.e, f.c)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4444, codec="8"))
    f.b.expect("ACK")
    f.c.expect("ACK")
    ends(f.e)
    notified(f.a, 200, "terminated")
    ends(f.a)
    f.route = lambda f, call: f.core.dial(call, [TARGET_E], f.now)
    f.b.cseq = 80
    refer(f.b)
    accepted(f.b)
    f.e.expect("INVITE")
    f.e.dialog = None
    f.e.reply(200, body=sdp(E_HOST, 7000))
    again = f.c.expect("INVITE")
    f.c.reply(200, to=again, body=sdp(C_HOST, 6000, version=9))
    f.c.expect("ACK")
    assert media_of(f.e.expect("ACK")) == MEDIA_A
    notified(f.b, 200, "terminated")
    ends(f.b)
    f.c.request("BYE", cseq=90)
    f.c.expect(200)
    ends(f.e)
    f.over()
    assert [cdr["transferred_from"] for cdr in f.cdrs] == ["", f.cdrs[0]["id"], f.cdrs[1]["id"]]
    assert [cdr["transferred_to"] for cdr in f.cdrs] == [f.cdrs[1]["id"], f.cdrs[2]["id"], ""]


# pass: the other side calls with an alias of ours


def test_replaces_passes_as_an_alias() -> None:
    f = both_up()
    f.core.reconfigure(settings(f.peers, transfers=PASS))
    refer(f.a, refer_to(f.e))
    request = f.b.expect("REFER")
    wire = request.raw.decode()
    assert f.e.dialog is not None
    assert f.e.dialog[0] not in wire
    assert f.e.tag not in wire
    assert OUR_A not in wire
    f.b.reply(202, to=request)
    f.a.expect(202)
    target = parse_name_addr(request.get("Refer-To") or "").uri
    assert target.host == OUR_B
    replaces = replaces_of(target.headers)
    # b calls, as it was told
    line = Phone(f, "b", B_HOST, 1)
    line.tag, line.inbox = "tag-of-line", f.b.inbox
    line.request("INVITE", body=sdp(B_HOST, 4444), extra=[("Replaces", str(replaces))])
    line.expect(100)
    asked = f.c.expect("INVITE")
    f.c.reply(200, to=asked, body=sdp(C_HOST, 6000, version=2))
    f.c.expect("ACK")
    ends(f.e)
    line.expect(200)
    line.ack()
    line.request("BYE", cseq=9)
    line.expect(200)
    ends(f.c)
    hang_up(f, f.a, f.b)


# INVITE with Replaces


def take_place(f: Ladder, caller: Phone, replaces: Replaces, *, offer: bool = True) -> None:
    caller.request("INVITE", body=sdp(caller.host, 5555) if offer else b"", extra=[("Replaces", str(replaces))])
    caller.expect(100)


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


# pickup of a call that rings


def ringing() -> Ladder:
    """a calls b, which rings. Both b and whoever picks up are of one peer."""
    f = ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    return f


def picks_up(f: Ladder, *, codec: str = "0", offer: bool = True, extra: str = "") -> Phone:
    """Another phone behind b's address."""
    there = dialog_of(f.b)
    line = Phone(f, "line", B_HOST, 1)
    line.inbox = f.b.inbox
    body = sdp(B_HOST, 5555, codec=codec) if offer else b""
    line.request("INVITE", body=body, extra=[("Replaces", str(there) + extra)])
    line.expect(100)
    return line


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
