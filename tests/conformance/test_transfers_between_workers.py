"""Transfers of calls that two workers own: the one that is asked takes the other's call over (sbc.b2bua.lodging)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sbc.b2bua.core import Core
from sbc.b2bua.effects import AskWorker, Forward
from sbc.sip.flow import Flow
from sbc.sip.shard import shard_of, shard_of_datagram
from tests.support.attended import call_up, dialog_of, refer_to, take_place
from tests.support.ladder import A_HOST, B_HOST, C_HOST, E_HOST, OUR_A, Ladder, counting_ids, sdp, settings
from tests.support.transfers import TERMINATE, accepted, dial, ends, notified, refer

KEY = b"0123456789abcdef"


class Workers(Ladder):
    """Two workers behind the same sockets: what comes goes to the one that its Call-ID names."""

    def __init__(self, **changes: Any) -> None:  # Any: fields of CoreSettings
        super().__init__(route=dial, transfers=TERMINATE, slots=2, **changes)
        self.changes: dict[str, Any] = {"transfers": TERMINATE, "slots": 2, **changes}  # Any: as above
        self.cores = [self.core, self.made(1, 50)]
        self.deaf = False  # the second answers no question
        self.forwarded = 0

    def made(self, slot: int, seed: int) -> Core:
        return Core(settings(self.peers, slot=slot, **self.changes), counting_ids(seed))

    def deliver(self, data: bytes, flow: Flow) -> None:
        self.core = self.cores[shard_of_datagram(data, KEY) % 2]
        super().deliver(data, flow)

    def after(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [(at, n) for n, core in enumerate(self.cores) if (at := core.next_timer()) is not None and at <= end]
            if not due:
                break
            at, n = min(due)
            self.now = max(self.now, at)
            self.core = self.cores[n]
            self.core.fire(self.now, self.wall)
            self.drain()
        self.now = end

    def drain(self) -> None:
        busy = True
        while busy:
            busy = False
            for core in self.cores:
                self.core = core
                before = len(self.saves) + len(self.media)
                super().drain()
                busy = busy or before != len(self.saves) + len(self.media) or self.pending
                self.pending = False

    pending = False

    def perform(self, effect: object) -> None:
        match effect:
            case Forward(shard, flow, data):
                self.forwarded += 1
                self.pending = True
                self.cores[shard % 2].receive(data, flow, self.now, self.wall)
            case AskWorker(shard, data):
                if not (self.deaf and shard % 2 == 1):
                    self.pending = True
                    self.cores[shard % 2].lodging.told(data, self.now, self.wall)
            case _:
                super().perform(effect)

    def respawn(self, slot: int) -> None:
        """One worker dies, and its successor takes up the records of its shards."""
        kept = [save for save in self.saves if self.records.get(save.key) is save.record]
        self.cores[slot] = self.core = self.made(slot, 70 + slot)
        for save in kept:
            if save.shard % 2 == slot:
                assert self.core.resume(save.record, self.now, self.wall) is not None
        self.drain()

    def nothing_left(self) -> None:
        self.after(200)
        for core in self.cores:
            assert not core.calls
            assert not core.legs
            assert not len(core.layer)
        assert self.peers.open == 0
        assert not [note for note in self.notes if note.event == "fault in the core"], self.notes
        assert self.counts.get("CALLS_ACTIVE", 0) == 0
        ids = [cdr["id"] for cdr in self.cdrs]
        assert len(ids) == len(set(ids)) == self.counts["CALLS_STARTED"]


def call_id_of(slot: int, name: str) -> str:
    """A Call-ID of a phone that leads to this worker."""
    return next(text for n in itertools.count() if shard_of(text := f"{name}-{n}@x", KEY) % 2 == slot)


def up_on(f: Workers, slot: int, caller: Any, called: Any) -> None:  # Any: phones
    caller.dialog = (
        call_id_of(slot, caller.name),
        f"<sip:{caller.name}@{caller.host}>;tag={caller.tag}",
        f"<sip:+4930123@{OUR_A}>",
        f"sip:+4930123@{OUR_A}",
    )
    call_up(f, caller, called)


def two_calls(**changes: Any) -> Workers:  # Any: fields of CoreSettings
    """a and b talk by the first worker, e and c by the second."""
    f = Workers(**changes)
    up_on(f, 0, f.a, f.b)
    up_on(f, 1, f.e, f.c)
    assert [len(core.calls) for core in f.cores] == [1, 1]
    return f


def joined(f: Workers) -> None:
    asked = f.c.expect("INVITE")
    f.c.reply(200, to=asked, body=sdp(C_HOST, 6000, version=2))
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4444))
    f.b.expect("ACK")
    f.c.expect("ACK")
    ends(f.e)
    notified(f.a, 200, "terminated")
    ends(f.a)


def test_attended() -> None:
    """REFER at the first worker, the replaced dialog at the second: it comes over, and its messages find it."""
    f = two_calls()
    refer(f.a, refer_to(f.e))
    accepted(f.a)
    assert [len(core.calls) for core in f.cores] == [2, 0]
    joined(f)
    assert f.forwarded >= 2  # what c and e have answered
    f.c.request("INFO", body=b"Signal=5\r\n", content_type="application/dtmf-relay")
    f.b.reply(200, to=f.b.expect("INFO"))
    f.c.expect(200)
    f.c.request("INVITE", body=sdp(C_HOST, 6000, version=3))
    f.c.expect(100)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4444, version=3))
    f.c.expect(200)
    f.c.ack()
    f.b.expect("ACK")
    f.c.request("BYE")
    f.c.expect(200)
    ends(f.b)
    assert [cdr["resumed"] for cdr in f.cdrs] == [False, False]
    f.nothing_left()


@pytest.mark.parametrize("slot", [0, 1])
def test_either_worker_may_die_after_that(slot: int) -> None:
    """The call is in the journal under its new owner, the note of it under the former one."""
    f = two_calls()
    refer(f.a, refer_to(f.e))
    accepted(f.a)
    joined(f)
    f.respawn(slot)
    assert [len(core.calls) for core in f.cores] == [1, 0]
    f.c.request("INFO", body=b"Signal=5\r\n", content_type="application/dtmf-relay", cseq=60)
    f.b.reply(200, to=f.b.expect("INFO"))
    f.c.expect(200)
    f.c.request("BYE", cseq=61)
    f.c.expect(200)
    ends(f.b)
    f.after(40)
    assert len(f.cdrs) == 2


def test_one_worker_takes_up_what_two_have_left() -> None:
    """The number of workers may change between two starts: there is nobody else to forward to any more."""
    f = two_calls()
    refer(f.a, refer_to(f.e))
    accepted(f.a)
    joined(f)
    kept = [save for save in f.saves if f.records.get(save.key) is save.record]
    assert len(kept) == 2  # the call, and the note of it
    f.changes["slots"] = 1
    f.core = f.made(0, 80)
    f.cores = [f.core, f.core]
    for save in kept:
        assert f.core.resume(save.record, f.now, f.wall) is not None
    f.drain()
    assert len(f.records) == 1
    forwarded = f.forwarded
    f.c.request("BYE", cseq=61)
    f.c.expect(200)
    ends(f.b)
    assert f.forwarded == forwarded


def test_a_note_that_nobody_can_have_written() -> None:
    """Refused, and nothing is forwarded by it."""
    f = two_calls()
    for text in (b'{"away":1}', b'{"away":"x","key":"k","shard":0,"to":9999,"tags":[],"until":1}', b'{"away":'):
        assert f.core.resume(text, f.now, f.wall) is None
    assert f.core.take_counts()["RESUME_REFUSED"] == 3


def test_an_invite_with_replaces_reaches_the_wrong_worker() -> None:
    f = Workers()
    up_on(f, 0, f.a, f.b)
    there = dialog_of(f.a)
    f.e.dialog = (call_id_of(1, "e"), f"<sip:e@{E_HOST}>;tag=te", f"<sip:y@{OUR_A}>", f"sip:y@{OUR_A}")
    take_place(f, f.e, there)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4444))
    f.b.expect("ACK")
    f.e.expect(200)
    ends(f.a)
    f.e.ack()
    assert [len(core.calls) for core in f.cores] == [0, 1]
    f.b.request("BYE")
    f.b.expect(200)
    ends(f.e)
    f.nothing_left()


def test_nobody_has_it() -> None:
    f = two_calls()
    assert f.a.dialog is not None
    nowhere = f"<sip:x@{OUR_A}?Replaces={call_id_of(1, 'zz')}%3Bto-tag%3D1%3Bfrom-tag%3D2>"
    refer(f.a, nowhere.replace("@x", "%40x"))
    f.a.expect(481)


def test_the_other_worker_does_not_answer() -> None:
    """A second later the transferor is told so; its call is what it was."""
    f = two_calls()
    f.deaf = True
    refer(f.a, refer_to(f.e))
    f.a.nothing()
    f.after(1.1)
    f.a.expect(481)
    assert [len(core.calls) for core in f.cores] == [1, 1]


def test_a_call_that_is_changing_stays() -> None:
    """It is not given while an offer is open, and goes on as if nobody had asked."""
    f = two_calls()
    f.c.request("INVITE", body=sdp(C_HOST, 6000, version=2))
    f.c.expect(100)
    again = f.e.expect("INVITE")
    refer(f.a, refer_to(f.e))
    f.a.expect(481)
    f.e.reply(200, to=again, body=sdp(E_HOST, version=2))
    f.c.expect(200)
    f.c.ack()
    f.e.expect("ACK")


def test_a_call_that_was_given_is_given_on() -> None:
    """And back: its messages take the way that the notes tell."""
    f = two_calls()
    refer(f.a, refer_to(f.e))
    accepted(f.a)
    joined(f)
    (call,) = f.cores[0].calls.values()
    # a third line of c's peer takes the place of c, and its INVITE reaches the second worker
    line = f.phones[C_HOST]
    there = dialog_of(f.c)
    former, line.dialog = line.dialog, (call_id_of(1, "l"), f"<sip:l@{C_HOST}>;tag=tl", f"<sip:y@{A_HOST}>", "sip:y@x")
    line.request("INVITE", body=sdp(C_HOST, 7777), extra=[("Replaces", str(there))], cseq=1)
    line.expect(100)
    f.b.reply(200, to=f.b.expect("INVITE"), body=sdp(B_HOST, 4444, version=5))
    f.b.expect("ACK")
    bye, answer = f.c.inbox.popleft(), f.c.inbox.popleft()
    if not bye.is_request:
        bye, answer = answer, bye
    assert (bye.method, answer.status) == ("BYE", 200)
    f.c.reply(200, to=bye)
    line.dialog = (answer.call_id, answer.get("From") or "", answer.get("To") or "", "sip:y@x")
    line.request("ACK", cseq=1)
    assert [len(core.calls) for core in f.cores] == [0, 1]
    assert former is not None
    f.b.request("BYE", cseq=90)
    f.b.expect(200)
    ends(f.c)
    assert f.cdrs[-1]["transferred_from"] == call.key
    f.after(100)
    assert not any(core.calls or core.legs for core in f.cores)
