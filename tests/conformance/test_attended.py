"""Attended transfers as ladders (RFC 5589 §7). ``e`` is the other line of ``a``: same peer."""

from __future__ import annotations

import pytest

from media.protocol import Delete
from sbc.b2bua.profile import profile_of
from sbc.b2bua.settings import MediaProfile, MediaProfiles
from sbc.dialog.replaces import Replaces, parse_replaces, replaces_of
from sbc.errors import SipSyntaxError
from sbc.sip.address import parse_name_addr
from tests.support.attended import TARGET_E, both_up, call_up, offered, refer_to
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    E_HOST,
    MEDIA_A,
    MEDIA_B,
    OUR_A,
    OUR_B,
    Phone,
    sdp,
    settings,
)
from tests.support.transfers import (
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
