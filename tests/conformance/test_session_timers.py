"""Session timers on each leg (RFC 4028), in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.dialog.session_timer import Policy
from tests.support.ladder import A_HOST, B_HOST, Ladder, Phone, sdp

TIMER = ("Supported", "timer")
UPDATES = ("Allow", "INVITE, ACK, BYE, CANCEL, UPDATE")


def ladder(**changes: Any) -> Ladder:  # Any: fields of CoreSettings
    return Ladder(session_timers=Policy(1800, 90), **changes)


def set_up(f: Ladder, a: list[tuple[str, str]], b: list[tuple[str, str]]) -> tuple[str | None, str | None]:
    """An answered call; the Session-Expires that B was asked for and the one that A was told."""
    f.a.request("INVITE", body=sdp(A_HOST), extra=a)
    f.a.expect(100)
    asked = f.b.expect("INVITE").get("Session-Expires")
    f.b.reply(200, body=sdp(B_HOST), extra=b)
    told = f.a.expect(200).get("Session-Expires")
    f.a.ack()
    f.b.expect("ACK")
    return asked, told


def waited(f: Ladder, phone: Phone, limit_s: float) -> bool:
    """Let time pass until something comes to this phone, in steps shorter than T1."""
    end = f.now + limit_s
    while not phone.inbox and f.now < end:
        f.after(0.1)
    return bool(phone.inbox)


def hung_up(f: Ladder) -> None:
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))


def hang_up(f: Ladder) -> None:
    hung_up(f)
    f.over()


def ended_by_us(f: Ladder, note: str) -> None:
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.reply(200, to=f.b.expect("BYE"))
    assert (f.cdr["hangup"], f.cdr["note"], f.cdr["cause"]) == ("sbc", note, 102)
    f.over()


def test_we_refresh_both_legs_each_in_its_way() -> None:
    """A allows UPDATE, B knows neither UPDATE nor timers and gets a re-INVITE with the very description it had.

    A                  SBC                  B
    |<----- UPDATE -----|   at 900 s        |
    |------ 200 ------->|                   |
    |                   |----- INVITE ----->|
    |                   |<------ 200 -------|
    |                   |------ ACK ------->|
    """
    f = ladder()
    asked, told = set_up(f, [TIMER, UPDATES], [])
    assert (asked, told) == ("1800;refresher=uac", "1800;refresher=uas")
    first = f.b.invite
    assert first is not None
    media = len(f.media)
    for _ in range(3):
        f.after(899)
        f.a.nothing()
        f.b.nothing()
        f.after(1.1)
        update = f.a.expect("UPDATE")
        assert (update.body, update.get("Session-Expires")) == (b"", "1800;refresher=uac")
        assert update.get_all("Supported") == ["timer"]
        f.a.reply(200, to=update, extra=[("Session-Expires", "1800;refresher=uac"), TIMER])
        invite = f.b.expect("INVITE")
        assert invite.to_tag
        assert invite.body == first.body
        f.b.reply(200, to=invite, body=sdp(B_HOST))
        f.b.expect("ACK")
        f.b.again()  # our ACK was lost
        f.b.expect("ACK")
    assert len(f.media) == media
    assert f.counts["SESSION_REFRESHES"] == 6
    hang_up(f)


def test_the_peer_refreshes_by_update() -> None:
    """A refreshes its own leg: B hears nothing of it, and 422 meets an interval that is too short."""
    f = ladder()
    _, told = set_up(f, [TIMER, ("Session-Expires", "600;refresher=uac")], [("Session-Expires", "1800;refresher=uac")])
    assert told == "600;refresher=uac"
    for _ in range(4):
        f.after(200)
        f.a.request("UPDATE", extra=[TIMER, ("Session-Expires", "600;refresher=uac")])
        answer = f.a.expect(200)
        assert (answer.get("Session-Expires"), answer.get("Require")) == ("600;refresher=uac", "timer")
        f.b.nothing()
    f.a.request("UPDATE", extra=[TIMER, ("Session-Expires", "60")])
    assert f.a.expect(422).get("Min-SE") == "90"
    f.after(100.1)  # 900 s in all: ours on the other leg
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST))
    f.b.expect("ACK")
    hang_up(f)


def test_the_peer_refreshes_by_reinvite() -> None:
    """It passes through, and refreshes both legs."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "600;refresher=uac")], [TIMER, ("Session-Expires", "1800;refresher=uac")])
    first = f.b.invite
    assert first is not None
    f.after(300)
    f.a.request("INVITE", body=sdp(A_HOST), extra=[TIMER, ("Session-Expires", "600;refresher=uac")])
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    assert (invite.body, invite.get("Session-Expires")) == (first.body, "1800;refresher=uac")
    f.b.reply(200, to=invite, body=sdp(B_HOST), extra=[("Session-Expires", "1800;refresher=uac")])
    assert f.a.expect(200).get("Session-Expires") == "600;refresher=uac"
    f.a.ack()
    f.b.expect("ACK")
    f.after(567)
    f.a.nothing()
    f.b.nothing()
    f.after(2)  # 600 - 32 s after the last one
    ended_by_us(f, "session expired on leg a")


@pytest.mark.parametrize(("interval", "left"), [(600, 32), (93, 31), (90, 30)])
def test_bye_when_the_peer_does_not_refresh(interval: int, left: int) -> None:
    """§10: min(32 s, a third of the interval) before the session expires."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", f"{interval};refresher=uac")], [("Session-Expires", "1800;refresher=uac")])
    f.after(interval - left - 0.1)
    f.a.nothing()
    f.b.nothing()
    f.after(0.2)
    assert f.counts["SESSION_EXPIRED"] == 1
    ended_by_us(f, "session expired on leg a")


def test_a_dead_peer_is_found() -> None:
    """Nobody answers our refresh: BYE to both sides after 64*T1."""
    f = ladder()
    set_up(f, [TIMER, UPDATES], [TIMER, ("Session-Expires", "1800;refresher=uas")])
    f.after(900.1)
    f.a.expect("UPDATE")
    f.after(32)
    while f.a.inbox and f.a.inbox[0].method == "UPDATE":
        f.a.expect("UPDATE")
    ended_by_us(f, "408 to session refresh on leg a")


def test_481_to_a_refresh_ends_the_call() -> None:
    f = ladder()
    set_up(f, [TIMER, UPDATES], [TIMER, ("Session-Expires", "1800;refresher=uas")])
    f.after(900.1)
    f.a.reply(481, to=f.a.expect("UPDATE"))
    ended_by_us(f, "481 to session refresh on leg a")


def test_a_call_that_an_old_snapshot_of_the_store_brought_back_ends_with_its_refresh() -> None:
    """Both sides have hung up long ago, and say so. Its second CDR has the first one's id, and is not kept."""
    f = ladder()
    set_up(f, [TIMER, UPDATES], [TIMER, UPDATES, ("Session-Expires", "1800;refresher=uas")])
    snapshot, media = dict(f.records), dict(f.media_legs)
    hung_up(f)
    (first,) = f.cdrs
    f.records, f.media_legs = snapshot, media
    f.dies()
    f.after(900.1)
    f.a.reply(481, to=f.a.expect("UPDATE"))
    for phone in (f.a, f.b):
        phone.reply(481, to=phone.expect("BYE"))
    f.over()
    _, second = f.cdrs
    assert (second["id"], second["note"]) == (first["id"], "481 to session refresh on leg a")


def test_422_raises_the_interval_of_the_invite() -> None:
    """§7.3: the same call, the next CSeq, the interval that B wants; A hears nothing of it."""
    f = ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[TIMER])
    f.a.expect(100)
    first = f.b.expect("INVITE")
    f.b.reply(422, extra=[("Min-SE", "3600")])
    f.b.expect("ACK")
    second = f.b.expect("INVITE")
    f.a.nothing()
    assert (second.get("Session-Expires"), second.get("Min-SE")) == ("3600;refresher=uac", "3600")
    assert (second.call_id, second.from_tag, second.to_tag) == (first.call_id, first.from_tag, "")
    assert second.cseq_number == first.cseq_number + 1
    assert (second.body, second.branch != first.branch) == (first.body, True)
    f.b.reply(200, body=sdp(B_HOST), extra=[("Session-Expires", "3600;refresher=uac")])
    assert f.a.expect(200).get("Session-Expires") == "1800;refresher=uas"
    f.a.ack()
    assert f.b.expect("ACK").cseq_number == second.cseq_number
    hang_up(f)


def test_422_again_and_again_is_a_failure() -> None:
    f = ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    for _ in range(2):
        f.b.expect("INVITE")
        f.b.reply(422, extra=[("Min-SE", "3600")])
        f.b.expect("ACK")
    f.b.nothing()
    f.a.refused(422)
    f.over()


def test_an_invite_with_too_short_an_interval_is_refused() -> None:
    """§9; but 422 means nothing to a caller that does not know timers (a proxy wrote it), who gets what we grant."""
    f = ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[TIMER, ("Session-Expires", "30")])
    assert f.a.refused(422).get("Min-SE") == "90"
    assert not f.core.calls
    assert f.counts["SESSION_INTERVAL_REFUSED"] == 1
    f = ladder()
    _, told = set_up(f, [("Session-Expires", "30")], [])
    assert told == "90;refresher=uas"
    hang_up(f)


def test_refused_update_becomes_a_reinvite() -> None:
    f = ladder()
    set_up(f, [TIMER, UPDATES], [TIMER, ("Session-Expires", "1800;refresher=uas")])
    f.after(900.1)
    f.a.reply(405, to=f.a.expect("UPDATE"))
    f.after(0.1)
    invite = f.a.expect("INVITE")
    f.a.reply(200, to=invite, body=sdp(A_HOST))
    f.a.expect("ACK")
    hang_up(f)


def test_glare_with_a_refresh() -> None:
    """Our re-INVITE and the peer's cross: both get 491, ours comes again after a back-off, the call lives."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "1800;refresher=uac")], [])
    f.after(900.1)
    ours = f.b.expect("INVITE")
    f.b.request("INVITE", body=sdp(B_HOST))
    f.b.refused(491)
    f.a.request("INVITE", body=sdp(A_HOST))  # the other leg's re-INVITE would go to B as well
    f.a.expect(491)
    f.a.request("ACK", branch=f.a.branch, cseq=f.a.cseq)
    f.b.reply(491, to=ours)
    f.b.expect("ACK")
    f.after(2.0)
    f.b.nothing()
    assert waited(f, f.b, 2.1)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST))
    f.b.expect("ACK")
    hang_up(f)


def test_a_refresh_that_fails_for_now() -> None:
    """500 is no end: tried again at half of what is left, and BYE in time when it never succeeds."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "3600;refresher=uac")], [])
    f.after(900.1)
    tries = 0
    for _ in range(12):
        if f.b.inbox and f.b.inbox[0].method == "BYE":
            break
        if f.b.inbox:
            f.b.reply(500, to=f.b.expect("INVITE"))
            f.b.expect("ACK")
            tries += 1
        waited(f, f.b, 900)
    assert tries >= 3
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.reply(200, to=f.b.expect("BYE"))
    assert f.cdr["note"] in ("session expired on leg b1", "session expired on leg a")
    f.over()


@pytest.mark.parametrize("allow", [True, False])
def test_timers_survive_the_worker(allow: bool) -> None:
    """kill -9 at 600 s: the refresh still comes at 900 s, and expiry is still watched."""
    f = ladder(boot="of both workers")
    set_up(f, [TIMER, *([UPDATES] if allow else [])], [TIMER, ("Session-Expires", "900;refresher=uas")])
    f.after(600)
    f.dies()
    f.after(267)
    f.a.nothing()
    f.b.nothing()
    f.after(2)
    ended_by_us(f, "session expired on leg b1")
    f = ladder()
    set_up(f, [TIMER, *([UPDATES] if allow else [])], [TIMER, ("Session-Expires", "1800;refresher=uas")])
    f.after(600)
    f.dies()
    f.after(299)
    f.a.nothing()
    assert waited(f, f.a, 1.2)
    f.a.reply(200, to=f.a.expect("UPDATE" if allow else "INVITE"), body=b"" if allow else sdp(A_HOST))
    if not allow:
        f.a.expect("ACK")
    hang_up(f)


def test_a_refused_offer_is_not_what_we_refresh_with() -> None:
    """RFC 3261 §14.1: after 488 the description in force is the one before, o= included; the next change rises."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "3600;refresher=uac")], [])
    first = f.b.invite
    assert first is not None
    f.a.request("INVITE", body=sdp(A_HOST, version=2, codec="18"), extra=[TIMER])
    f.a.expect(100)
    refused = f.b.expect("INVITE")
    assert refused.body != first.body
    f.b.reply(488, to=refused)
    f.b.expect("ACK")
    f.a.refused(488)
    f.after(900.1)
    refresh = f.b.expect("INVITE")
    assert refresh.body == first.body
    f.b.reply(200, to=refresh, body=sdp(B_HOST))
    f.b.expect("ACK")
    f.a.request("INVITE", body=sdp(A_HOST, version=3, direction="sendonly"), extra=[TIMER])
    f.a.expect(100)
    changed = f.b.expect("INVITE")
    assert _version(changed.body) == _version(first.body) + 2
    f.b.reply(200, to=changed, body=sdp(B_HOST, version=2, direction="recvonly"))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    hang_up(f)


def test_media_follow_an_answer_that_differs() -> None:
    """B moved without telling: the answer to our refresh says where, media goes there, A is asked nothing."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "3600;refresher=uac")], [])
    told = f.call.a.sdp_out, f.call.a.sdp_version
    f.after(900.1)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4900, version=2))
    f.b.expect("ACK")
    assert f.media[-1].streams[0].port == 4900
    assert (f.call.a.sdp_out, f.call.a.sdp_version) == told
    f.a.nothing()
    hang_up(f)


def test_without_timers_nothing_is_said_or_done() -> None:
    f = Ladder()
    asked, told = set_up(f, [TIMER, ("Session-Expires", "90;refresher=uac")], [("Session-Expires", "90")])
    assert (asked, told) == (None, None)
    f.after(4000)
    f.a.nothing()
    f.b.nothing()
    hang_up(f)


@pytest.mark.parametrize("value", ["", "abc", "-5", "99999999999999999999", "90;refresher", "90;refresher=both", "²"])
def test_nonsense_counts_as_absent(value: str) -> None:
    f = ladder()
    _, told = set_up(f, [TIMER, ("Session-Expires", value), ("Min-SE", value)], [("Session-Expires", value)])
    assert told is not None
    assert told.endswith(";refresher=uas")
    hang_up(f)


def test_the_call_ends_during_a_refresh() -> None:
    """BYE crosses our re-INVITE: its 200 still gets an ACK, and nothing is left."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "3600;refresher=uac")], [])
    f.after(900.1)
    invite = f.b.expect("INVITE")
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    f.b.reply(200, to=invite, body=sdp(B_HOST))
    f.b.expect("ACK")
    f.b.reply(200, to=bye)
    f.over()


def test_headers_stay_on_their_side() -> None:
    """A's own interval is not B's."""
    f = ladder()
    asked, _ = set_up(f, [TIMER, ("Session-Expires", "777;refresher=uac"), ("Min-SE", "333")], [])
    assert asked == "1800;refresher=uac"
    assert b"777" not in _sip(f.b)
    hang_up(f)


def _sip(phone: Phone) -> bytes:
    return b"".join(data.partition(b"\r\n\r\n")[0] for data in phone.all)


def _version(body: bytes) -> int:
    return int(body.partition(b"o=")[2].partition(b"\r\n")[0].split()[2])


def test_each_leg_has_an_interval_of_its_own() -> None:
    """A's session lasts 200 s and we refresh it, B's lasts 600 s and B does: neither hears of the other's."""
    f = ladder()
    _, told = set_up(
        f,
        [TIMER, UPDATES, ("Session-Expires", "200;refresher=uas")],
        [("Session-Expires", "600;refresher=uas"), ("Require", "timer")],
    )
    assert told == "200;refresher=uas"
    ours = theirs = 0
    for second in range(1, 1501):
        f.after(1)
        if f.a.inbox:
            update = f.a.expect("UPDATE")
            assert update.get("Session-Expires") == "200;refresher=uac"
            f.a.reply(200, to=update, extra=[("Session-Expires", "200;refresher=uac")])
            ours += 1
        f.b.nothing()
        if second % 300 == 0:
            f.b.request("UPDATE", extra=[TIMER, ("Session-Expires", "600;refresher=uac")])
            assert f.b.expect(200).get("Session-Expires") == "600;refresher=uac"
            theirs += 1
    assert (ours, theirs) == (15, 5)
    hang_up(f)


@pytest.mark.parametrize("method", ["UPDATE", "INVITE"])
def test_422_to_a_refresh_raises_the_interval_of_that_leg(method: str) -> None:
    """§7.4 with §7.3: B wants more in mid-call; it gets it at once, and A's leg stays as it was."""
    f = ladder()
    allow = [UPDATES] if method == "UPDATE" else []
    set_up(
        f,
        [TIMER, ("Session-Expires", "1800;refresher=uac")],
        [TIMER, *allow, ("Session-Expires", "1800;refresher=uac")],
    )
    f.after(900.1)
    refused = f.b.expect(method)
    f.b.reply(422, to=refused, extra=[("Min-SE", "2400")])
    if method == "INVITE":
        f.b.expect("ACK")
    f.after(0.1)
    again = f.b.expect(method)
    assert (again.get("Session-Expires"), again.get("Min-SE")) == ("2400;refresher=uac", "2400")
    assert again.cseq_number == refused.cseq_number + 1
    f.b.reply(
        200,
        to=again,
        body=sdp(B_HOST) if method == "INVITE" else b"",
        extra=[("Session-Expires", "2400;refresher=uac")],
    )
    if method == "INVITE":
        f.b.expect("ACK")
    assert f.call.a.session is not None
    assert f.call.a.session.interval_s == 1800
    hang_up(f)


def test_422_for_ever_is_no_end_of_the_call_and_no_flood() -> None:
    """B wants a little more each time: we give in four times, and try again at half of what is left of the session."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "3600;refresher=uac")], [TIMER, UPDATES])
    f.after(900.1)
    for number in range(5):
        f.b.reply(422, to=f.b.expect("UPDATE"), extra=[("Min-SE", str(2000 + number))])
        f.after(0.1)
    f.b.nothing()
    f.after(430)
    f.b.nothing()
    assert waited(f, f.b, 6)
    update = f.b.expect("UPDATE")
    assert update.get("Session-Expires") == "2003;refresher=uac"
    f.b.reply(200, to=update, extra=[("Session-Expires", "2003;refresher=uac")])
    hang_up(f)


def test_422_to_a_reinvite_that_crosses() -> None:
    """A re-INVITEs with its own interval, B wants more than ours: we ask B again, A hears only of the outcome."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "900;refresher=uac")], [TIMER, ("Session-Expires", "1800;refresher=uac")])
    f.a.request("INVITE", body=sdp(A_HOST, version=2), extra=[TIMER, ("Session-Expires", "900;refresher=uac")])
    f.a.expect(100)
    first = f.b.expect("INVITE")
    f.b.reply(422, to=first, extra=[("Min-SE", "3600")])
    f.b.expect("ACK")
    second = f.b.expect("INVITE")
    assert (second.get("Session-Expires"), second.body) == ("3600;refresher=uac", first.body)
    f.b.reply(200, to=second, body=sdp(B_HOST), extra=[("Session-Expires", "3600;refresher=uac")])
    assert f.a.expect(200).get("Session-Expires") == "900;refresher=uac"
    f.a.ack()
    f.b.expect("ACK")
    hang_up(f)


def test_the_refresher_changes_in_mid_call() -> None:
    """§7.4: whoever sends the refresh may name another refresher; from then on it is the other's duty."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "600;refresher=uac")], [TIMER, ("Session-Expires", "1800;refresher=uas")])
    f.after(100)
    f.a.request("UPDATE", extra=[TIMER, UPDATES, ("Session-Expires", "600;refresher=uas")])
    assert f.a.expect(200).get("Session-Expires") == "600;refresher=uas"
    f.after(299)
    f.a.nothing()
    f.after(1.1)
    update = f.a.expect("UPDATE")
    f.a.reply(200, to=update, extra=[("Session-Expires", "600;refresher=uas")])  # and back to A
    f.after(500)
    f.a.nothing()
    f.after(69)
    ended_by_us(f, "session expired on leg a")


def test_our_refresh_waits_for_a_change_that_is_under_way() -> None:
    """B is to be refreshed by re-INVITE while A's own is with it: ours would only meet 491."""
    f = ladder()
    set_up(f, [TIMER, ("Session-Expires", "3600;refresher=uac")], [])
    f.after(890)
    f.a.request("INVITE", body=sdp(A_HOST, version=2, direction="sendonly"), extra=[TIMER])
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    f.b.reply(180, to=invite)
    f.after(12)
    f.b.nothing()
    f.b.reply(486, to=invite)
    f.b.expect("ACK")
    f.a.refused(486)
    assert waited(f, f.b, 5)
    refresh = f.b.expect("INVITE")
    assert f.call.b is not None
    assert refresh.body == f.call.b.sdp_out
    f.b.reply(200, to=refresh, body=sdp(B_HOST))
    f.b.expect("ACK")
    hang_up(f)
