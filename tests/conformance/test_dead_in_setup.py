"""A worker dies while calls are being set up: callers are told, callees are cancelled or hung up on, and each call that
had been in setup for a while has its record."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from media.protocol import Delete
from sbc.b2bua import setup_snapshot
from sbc.b2bua.call import Call
from sbc.b2bua.core import Core
from sbc.b2bua.records import Left
from sbc.policy.admission import Source
from sbc.sip.digest import Credentials
from tests.support.hostile import ANYTHING
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    C_HOST,
    STRANGER,
    TARGET_B,
    TARGET_C,
    Ladder,
    Phone,
    counting_ids,
    hunt,
    sdp,
)


def ringing(seconds: float = 0.5, **options: Any) -> Ladder:  # Any: of Ladder
    """A call that b has been ringing for, for so long."""
    f = Ladder(**options)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.after(seconds)
    return f


def gives_up(phone: Phone) -> None:
    """A callee that is cancelled."""
    invite = phone.invite
    cancel = phone.expect("CANCEL")
    assert invite is not None
    assert (cancel.branch, cancel.cseq_number, cancel.uri) == (invite.branch, invite.cseq_number, invite.uri)
    assert [cancel.get(name) for name in ("Via", "From", "To")] == [invite.get(name) for name in ("Via", "From", "To")]
    assert cancel.get("Reason") == "Q.850;cause=41"
    phone.reply(200, to=cancel)
    phone.reply(487)
    phone.expect("ACK")


def test_a_call_that_rings_ends_on_both_sides() -> None:
    f = ringing()
    key = f.call.key
    f.after(3)
    f.dies()
    refusal = f.a.refused(500)
    assert refusal.get("Reason") == "Q.850;cause=41"
    assert refusal.to_tag == (f.a.dialog or ("",) * 4)[2].partition("tag=")[2], "the tag that A knows from the 180"
    gives_up(f.b)
    assert f.media[-1] == Delete(key)
    cdr = f.cdr
    assert (cdr["id"], cdr["status"], cdr["answered"], cdr["hangup"], cdr["cause"]) == (key, 500, False, "sbc", 41)
    assert cdr["note"] == "the worker died while the call was being set up"
    assert cdr["setup_s"] == pytest.approx(3.5)
    assert cdr["end"] - cdr["start"] == pytest.approx(3.5)
    assert (cdr["a_peer"], cdr["b_peer"], cdr["resumed"]) == ("phones", "carrier-b", True)
    assert [(a["gateway"], a["status"], a["pdd_ms"]) for a in cdr["attempts"]] == [("gw-b", 487, 0)]
    assert (cdr["a_call_id"], cdr["media_node"]) == (refusal.call_id, "media-0")
    assert f.counts["SETUPS_LOST"] == 1
    f.over()
    assert not f.records


def test_a_callee_that_has_answered_meanwhile_gets_ack_and_bye() -> None:
    f = ringing()
    f.dies()
    f.a.refused(500)
    f.b.expect("CANCEL")
    f.b.reply(200, body=sdp(B_HOST))
    f.b.expect("ACK")
    bye = f.b.expect("BYE")
    f.b.reply(200, to=bye)
    assert not f.cdr["answered"]
    f.over()


def test_a_caller_that_gives_up_or_repeats_meanwhile_gets_one_final_answer() -> None:
    f = ringing()
    f.dies()
    f.a.expect(500)
    f.a.again()
    f.a.expect(500)
    f.a.cancel()
    assert f.a.expect(200).cseq_method == "CANCEL"
    f.a.nothing()
    gives_up(f.b)
    f.after(40)
    assert {msg.status for msg in f.a.inbox} == {500}, "until its ACK, which never came"
    f.over()


def test_every_branch_is_cancelled() -> None:
    def both(f: Ladder, call: Call) -> None:
        f.core.dial(call, [(TARGET_B, TARGET_C)], f.now)

    f = Ladder(route=both)
    f.a.request("INVITE", body=sdp(A_HOST))
    for phone in (f.b, f.c):
        phone.expect("INVITE")
        phone.reply(180)
    f.after(1)
    f.dies()
    f.a.expect(100)
    f.a.expect(180)
    f.a.expect(180)
    f.a.refused(500)
    gives_up(f.b)
    gives_up(f.c)
    assert [a["status"] for a in f.cdr["attempts"]] == [487, 487]
    f.over()


def test_the_branch_that_rings_now_is_the_one_that_is_cancelled() -> None:
    f = ringing(route=hunt)
    f.b.reply(503)
    f.b.expect("ACK")
    f.c.expect("INVITE")
    f.dies()
    f.a.refused(500)
    f.b.nothing()
    gives_up(f.c)
    assert [a["status"] for a in f.cdr["attempts"]] == [503, 487]
    assert f.cdr["b_peer"] == "carrier-c"
    f.over()


def test_a_call_whose_route_has_not_decided_is_refused() -> None:
    f = Ladder()
    f.held_routes = []
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.after(1)
    assert len(f.records) == 1
    f.held_routes = None
    f.dies()
    f.a.refused(500)
    assert f.cdr["attempts"] == []
    f.over()


def test_credentials_of_the_invite_go_along() -> None:
    """RFC 3261 §22.1: a CANCEL cannot be challenged; §13.2.2.4: the ACK has the credentials of the INVITE."""
    f = Ladder(credentials={"carrier-b": Credentials("us", "secret")})
    f.a.request("INVITE", body=sdp(A_HOST))
    f.b.expect("INVITE")
    challenge = 'Digest realm="x", nonce="n", algorithm=MD5, qop="auth"'
    f.b.reply(401, extra=[("WWW-Authenticate", challenge)])
    f.b.expect("ACK")
    asked = f.b.expect("INVITE")
    f.b.reply(180)
    f.after(1)
    f.dies()
    cancel = f.b.expect("CANCEL")
    assert cancel.cseq_number == 2
    assert cancel.get("Authorization") == asked.get("Authorization") is not None
    f.b.reply(200, body=sdp(B_HOST))
    assert f.b.expect("ACK").get("Authorization") == asked.get("Authorization")
    f.b.reply(200, to=f.b.expect("BYE"))


def test_it_may_die_again() -> None:
    f = ringing()
    f.held_media = []
    f.dies()  # the media plane has said nothing yet: no CDR
    assert not f.cdrs
    f.dies()
    f.release_media()
    f.a.refused(500)
    f.a.expect(500)
    assert len(f.cdrs) == 1
    assert not f.records


# What is written, and when


def test_a_quick_call_is_written_once() -> None:
    f = Ladder()
    f.set_up()
    assert [save.wait for save in f.saves[:1]] == [True]
    assert not any(setup_snapshot.is_one(save.record) for save in f.saves)
    f.after(10)
    assert not any(setup_snapshot.is_one(save.record) for save in f.saves)


def test_a_slow_call_is_written_when_it_is_slow_and_when_a_branch_changes() -> None:
    f = Ladder(route=hunt)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.b.expect("INVITE")
    f.after(0.29)
    assert not f.saves
    f.after(0.2)
    assert len(f.saves) == 1
    f.b.reply(183)
    f.b.reply(183)
    assert len(f.saves) == 2, "once, for the first"
    f.b.reply(503)
    f.c.expect("INVITE")
    assert len(f.saves) == 4, "one is over, another one is out"
    f.after(20)
    assert len(f.saves) == 4
    f.c.reply(200, body=sdp(C_HOST))
    assert [setup_snapshot.is_one(save.record) for save in f.saves[:5]] == [True] * 4 + [False]
    assert [save.version for save in f.saves] == sorted({save.version for save in f.saves})


def test_a_record_is_small() -> None:
    f = ringing()
    (save,) = f.saves
    assert len(save.record) < 1200


def test_none_is_written_where_that_is_not_wanted() -> None:
    f = ringing(5, setup_record_after_s=0.0)
    assert not f.saves


def test_a_store_that_was_emptied_gets_it_again() -> None:
    f = ringing()
    (save,) = f.core.records(f.now)
    assert setup_snapshot.is_one(save.record)
    assert save.version == f.saves[-1].version + 1


# Calls of which nothing was written


def test_an_answer_to_a_lost_call_gets_ack_and_bye() -> None:
    f = ringing(0.1)
    f.dies()
    f.a.nothing()
    f.b.nothing()
    f.b.reply(200, body=sdp(B_HOST))
    ack = f.b.expect("ACK")
    bye = f.b.expect("BYE")
    assert f.b.invite is not None
    for request, number in ((ack, 1), (bye, 102)):
        assert (request.uri, request.call_id, request.cseq_number) == ("sip:b@198.51.100.20:5070", bye.call_id, number)
        assert request.get("From") == f.b.invite.get("From")
        assert request.to_tag == f.b.tag
    f.b.reply(200, body=sdp(B_HOST))  # again
    f.b.expect("ACK")
    f.b.nothing()
    f.b.reply(200, to=bye)
    f.b.nothing()
    assert f.counts["STRAY_ANSWERS_ENDED"] == 1
    f.over()


def test_not_before_all_calls_are_known() -> None:
    f = ringing(0.1)
    f.dies()
    f.core.incomplete = True
    f.b.reply(200, body=sdp(B_HOST))
    f.b.nothing()


def test_requests_of_a_call_that_the_journal_still_has_wait() -> None:
    """A 481 would end a call that comes back in a moment; who has asked asks again."""
    f = Ladder()
    f.set_up()
    stored = dict(f.records)
    f.records.clear()  # the store does not answer yet
    f.dies()
    f.core.awaits_until = f.now + 10
    f.b.request("BYE")
    f.b.nothing()
    f.a.nothing()
    assert f.counts["DIALOG_AWAITED"] == 1
    f.after(5)
    for record in stored.values():
        assert f.core.resume(record, f.now, f.wall) is not None
    f.b.again()
    f.b.expect(200)
    f.a.reply(200, to=f.a.expect("BYE"))
    f.over()


def test_requests_of_no_call_do_not_wait_for_ever() -> None:
    f = Ladder()
    f.set_up()
    f.records.clear()
    f.dies()
    f.core.awaits_until = f.now + 10
    f.b.request("BYE")
    f.b.nothing()
    f.after(10)
    f.b.again()
    f.b.expect(481)


@pytest.mark.parametrize("what", ["stranger", "call-id", "tag", "branch", "second via", "host", "no to-tag", "486"])
def test_nothing_else_is_answered(what: str) -> None:
    f = ringing(0.1)
    f.dies()
    invite = f.b.invite
    assert invite is not None
    f.lose_next = 1
    f.b.reply(200, body=sdp(B_HOST))
    assert len(f.lost) == 1, "this one would be answered"
    f.lost.clear()
    text, f.b.all = f.b.sent.decode(), []
    f.dies()
    changes = {
        "call-id": (invite.call_id, "x" + invite.call_id),
        "tag": (f"tag={invite.from_tag}", "tag=abc"),
        "branch": (invite.branch, invite.branch + "x"),
        "second via": ("Via:", "Via: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bKx\r\nVia:"),
        "host": ("198.51.100.1:5060;rport;branch", "198.51.100.9:5060;rport;branch"),
        "no to-tag": (f";tag={f.b.tag}", ""),
        "486": ("SIP/2.0 200", "SIP/2.0 486"),
    }
    if what == "stranger":
        f.b.host = STRANGER
    else:
        old, new = changes[what]
        assert old in text
        text = text.replace(old, new, 1)
    f.b._send(text.encode())
    assert not f.b.all
    assert "STRAY_ANSWERS_ENDED" not in {k for k in f.counts if f.counts[k] > 1}


def test_it_goes_to_no_address_but_the_peers() -> None:
    """A Contact elsewhere is not heeded; one of the same peer is."""
    f = ringing(0.1)
    f.dies()
    f.b.contact = f"<sip:b@{STRANGER}:5070>"
    f.b.reply(200, body=sdp(B_HOST))
    assert f.b.expect("ACK").uri == f"sip:b@{STRANGER}:5070"
    f.b.expect("BYE")
    f = ringing(0.1)
    f.peers.sources[1, C_HOST] = Source("carrier-b", "outside", "from_carrier")
    f.dies()
    f.b.contact = f"<sip:b@{C_HOST}:5070>"
    f.b.reply(200, body=sdp(B_HOST))
    f.b.nothing()
    f.c.expect("ACK")
    f.c.expect("BYE")


def test_not_often() -> None:
    f = ringing(0.1)
    f.dies()
    for _ in range(150):
        f.b.reply(200, body=sdp(B_HOST))
    assert len(f.b.inbox) == 101  # an ACK each, and one BYE
    f.after(1)
    f.b.inbox.clear()
    f.b.reply(200, body=sdp(B_HOST))
    f.b.expect("ACK")


# A call that had ended


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_call_that_was_hung_up_ends_when_its_bye_is_answered(side: str) -> None:
    """The worker answers a BYE, sends the other side one, and dies before the record is gone."""
    f = Ladder()
    f.set_up()
    one, other = (f.a, f.b) if side == "a" else (f.b, f.a)
    f.held_media = []
    one.request("BYE")
    one.expect(200)
    bye = other.expect("BYE")
    f.dies()
    f.held_media = None
    assert f.call.state.name == "UP"
    other.reply(200, to=bye)
    assert f.cdr["answered"]
    assert (f.cdr["hangup"], f.cdr["cause"]) == (side, 16)
    assert f.cdr["note"] == "it had been hung up when its worker died"
    one.reply(481, to=one.expect("BYE"))  # whoever hung up has no such call
    other.nothing()
    assert f.counts["CALLS_FOUND_ENDED"] == 1
    f.over()


def test_nobody_else_can_end_a_call_that_way() -> None:
    f = Ladder()
    f.set_up()
    f.held_media = []
    f.a.request("BYE")
    bye = f.b.expect("BYE")
    f.dies()
    f.c.reply(200, to=bye)
    assert f.call.state.name == "UP"
    f.b.reply(100, to=bye)
    assert f.call.state.name == "UP"
    f.b._send(f.b.sent.replace(b"SIP/2.0 100", b"SIP/2.0 200").replace(b"tag-of-b", b"tag-of-c"))
    assert f.call.state.name == "UP"


# Records that lie


F = ringing()
GOOD: dict[str, Any] = orjson.loads(F.saves[-1].record)  # Any: JSON values
PATHS: list[tuple[str | int, ...]] = [(name,) for name in GOOD]
PATHS += [("a", name) for name in GOOD["a"]] + [("b", 0, name) for name in GOOD["b"][0]]
INVITE = GOOD["b"][0]["invite"]
HOSTILE = st.one_of(
    ANYTHING,
    st.sampled_from([[GOOD["b"][0]] * 2, [GOOD["b"][0]] * 99, INVITE, GOOD["a"]["invite"], GOOD["a"], GOOD["b"][0]]),
    st.sampled_from([INVITE[:40], INVITE.replace("INVITE", "BYE"), INVITE.replace("branch=", "x="), INVITE + INVITE]),
)


def test_the_record_itself_is_good() -> None:
    core = Core(F.core.settings, counting_ids(8))
    assert core.resume(orjson.dumps(GOOD), F.now, F.wall) is not None
    assert core.resume(orjson.dumps(GOOD), F.now, F.wall) is None, "it is here already"


@hypothesis_settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(PATHS), value=HOSTILE)
def test_a_hostile_value_is_refused_or_does_no_harm(path: tuple[Any, ...], value: object) -> None:  # Any: JSON keys
    raw = orjson.loads(orjson.dumps(GOOD))
    holder = raw
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    core = Core(F.core.settings, counting_ids(7))
    call = core.resume(orjson.dumps(raw), F.now, F.wall)
    if call is None or isinstance(call, Left):
        assert not core.calls
        assert not core.legs
        assert not len(core.layer)
    assert not core.take_counts().get("CORE_FAULTS")


@hypothesis_settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, len(F.saves[-1].record) - 1))
def test_a_truncated_record_is_refused(cut: int) -> None:
    core = Core(F.core.settings, counting_ids(7))
    assert core.resume(F.saves[-1].record[:cut], F.now, F.wall) is None
    assert not core.calls
