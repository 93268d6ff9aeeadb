"""Whatever the parties of two calls and of their transfers do, in whatever order: everything ends, and once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sbc.b2bua.call import Call
from tests.support.attended import dialog_of
from tests.support.ladder import B_HOST, E_HOST, OUR_A, TARGET_B, TARGET_C, Ladder, Phone, sdp
from tests.support.transfers import PASS, TERMINATE
from tests.support.turmoil import Turmoil

Step = Callable[[Ladder], None]


def dial(f: Ladder, call: Call) -> None:
    to_c = call.joining is not None or call.a.flow.host == E_HOST
    f.core.dial(call, [TARGET_C if to_c else TARGET_B], f.now)


def answer(phone: Phone, method: str, status: int, *, body: bool = False) -> None:
    """Answer the newest request of this method, again if need be."""
    for msg in reversed(phone.inbox):
        if msg.is_request and msg.method == method:
            phone.reply(status, to=msg, body=sdp(phone.host, version=phone.cseq + 2) if body else b"")
            return


def say(phone: Phone, method: str, *, body: bool = False, extra: list[tuple[str, str]] | None = None) -> None:
    """A request in the dialog, once the phone knows one."""
    if phone.dialog is not None:
        phone.request(method, body=sdp(phone.host, version=phone.cseq + 3) if body else b"", extra=extra or [])


def up(f: Ladder, caller: Phone, called: Phone) -> None:
    caller.request("INVITE", body=sdp(caller.host))
    caller.expect(100)
    called.expect("INVITE")
    called.reply(200, body=sdp(called.host))
    caller.expect(200)
    caller.ack()
    called.expect("ACK")


def refer(phone: Phone, *, to: Phone | None = None, silent: bool = False) -> None:
    where = f"?{dialog_of(to).in_uri()}" if to is not None and to.dialog is not None else ""
    extra = [("Refer-To", f"<sip:+4930999@{OUR_A}{where}>")]
    say(phone, "REFER", extra=[*extra, ("Refer-Sub", "false")] if silent else extra)


def take_place(f: Ladder, of: Phone, *, body: bool = True) -> None:
    """A third line of the phones, once."""
    if of.dialog is not None and not f.d.all:
        line = Phone(f, "line", E_HOST, 0)
        f.d.all.append(b"used")
        line.inbox = f.d.inbox
        line.request("INVITE", body=sdp(E_HOST, 5555) if body else b"", extra=[("Replaces", str(dialog_of(of)))])


def acks(phone: Phone, *, body: bool = False) -> None:
    if phone.dialog is not None:
        phone.request("ACK", body=sdp(phone.host) if body else b"", cseq=phone.cseq)


def hold_media(f: Ladder) -> None:
    if f.held_media is None:
        f.held_media = []


def lose(f: Ladder) -> None:
    f.lose_next += 1


def release(f: Ladder) -> None:
    for call in list(f.core.calls.values()):
        f.core.release(call, f.now, reason="test")
    f.drain()


STEPS: dict[str, Step] = {
    "a refers": lambda f: refer(f.a),
    "b refers": lambda f: refer(f.b),
    "b refers silently": lambda f: refer(f.b, silent=True),
    "c refers": lambda f: refer(f.c),
    "a refers to e's": lambda f: refer(f.a, to=f.e),
    "e refers to a's": lambda f: refer(f.e, to=f.a),
    "a line takes a's place": lambda f: take_place(f, f.a),
    "a line takes e's place": lambda f: take_place(f, f.e, body=False),
    "media waits": hold_media,
    "media goes on": lambda f: f.release_media(),
    "a datagram is lost": lose,
    "we release": release,
    "0.3 s": lambda f: f.after(0.3),
    "3 s": lambda f: f.after(3),
    "40 s": lambda f: f.after(40),
}


def _of(name: str) -> dict[str, Step]:
    def phone(f: Ladder) -> Phone:
        found: Phone = getattr(f, name)
        return found

    return {
        f"{name} rings": lambda f: answer(phone(f), "INVITE", 180),
        f"{name} accepts": lambda f: answer(phone(f), "INVITE", 200, body=True),
        f"{name} accepts without a word": lambda f: answer(phone(f), "INVITE", 200),
        f"{name} is busy": lambda f: answer(phone(f), "INVITE", 486),
        f"{name} has glare": lambda f: answer(phone(f), "INVITE", 491),
        f"{name} knows of nothing": lambda f: answer(phone(f), "INVITE", 481),
        f"{name} takes a NOTIFY": lambda f: answer(phone(f), "NOTIFY", 200),
        f"{name} refuses a NOTIFY": lambda f: answer(phone(f), "NOTIFY", 481),
        f"{name} takes a BYE": lambda f: answer(phone(f), "BYE", 200),
        f"{name} takes a REFER": lambda f: answer(phone(f), "REFER", 202),
        f"{name} offers": lambda f: say(phone(f), "INVITE", body=True),
        f"{name} infos": lambda f: say(phone(f), "INFO"),
        f"{name} byes": lambda f: say(phone(f), "BYE"),
        f"{name} acks": lambda f: acks(phone(f)),
        f"{name} acks with an answer": lambda f: acks(phone(f), body=True),
    }


for _name in "abce":
    STEPS |= _of(_name)

BEGINNINGS = [
    ["b refers"],
    ["b refers", "c accepts"],
    ["b refers", "c accepts", "a accepts"],
    ["a refers", "c rings", "c accepts"],
    ["a refers to e's"],
    ["a refers to e's", "c accepts"],
    ["a refers to e's", "c accepts", "b accepts"],
    ["e refers to a's", "b accepts", "c accepts"],
    ["a line takes a's place"],
    ["a line takes a's place", "b accepts"],
    ["a line takes e's place", "c accepts"],
    ["b refers", "c accepts", "a accepts", "c refers"],
]


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    steps=st.builds(list.__add__, st.sampled_from(BEGINNINGS), st.lists(st.sampled_from(sorted(STEPS)), max_size=16)),
    second=st.booleans(),
)
@example(steps=["b refers", "b byes", "c accepts", "a has glare", "40 s"], second=False)
@example(steps=["a refers to e's", "c accepts", "e byes", "a byes", "b is busy"], second=True)
@example(steps=["a refers to e's", "media waits", "c accepts", "c byes", "media goes on", "b accepts"], second=True)
@example(steps=["b refers", "c accepts", "media waits", "a accepts", "a byes", "media goes on"], second=True)
@example(steps=["b refers", "c accepts", "a accepts", "a byes"], second=True)
def test_everything_ends_once(steps: list[str], second: bool) -> None:
    f = Turmoil(route=dial, transfers=TERMINATE)
    up(f, f.a, f.b)
    if second:
        up(f, f.e, f.c)
    for step in steps:
        STEPS[step](f)
    settle(f)


def settle(f: Turmoil) -> None:
    """From here on all phones are silent, and every helper works again."""
    f.lose_next = 0
    f.release_media()
    f.drain()
    f.after(500)
    for call in f.core.calls.values():
        assert call.state.name == "UP", call.describe()  # only an answered call may live on
        assert call.moving is None
        assert call.joining is None
        for leg in (call.a, call.b):
            assert leg is not None
            assert leg.call is call
            assert f.core.legs.get(leg.dialog.local_tag) is leg
    sitting = {leg for call in f.core.calls.values() for leg in (call.a, call.b)}
    assert set(f.core.legs.values()) <= sitting  # no orphan
    release(f)
    f.check()
    assert not f.media_legs, f.media_legs
    went = {cdr["id"]: cdr["transferred_to"] for cdr in f.cdrs if cdr["transferred_to"]}
    for cdr in f.cdrs:
        assert went.get(cdr["transferred_from"], cdr["id"]) == cdr["id"] or not cdr["answered"] or cdr["note"]


@hypothesis_settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=16))
def test_everything_ends_once_where_refers_pass(steps: list[str]) -> None:
    f = Turmoil(route=dial, transfers=PASS)
    up(f, f.a, f.b)
    up(f, f.e, f.c)
    for step in ["a refers", *steps]:
        STEPS[step](f)
    settle(f)


@pytest.mark.parametrize("beginning", BEGINNINGS, ids=" ".join)
def test_a_worker_dies_at_each_of_these(beginning: list[str]) -> None:
    """Whatever was up is up again or ends, and every call has one record."""
    f = Turmoil(route=dial, transfers=TERMINATE)
    up(f, f.a, f.b)
    up(f, f.e, f.c)
    for step in beginning:
        STEPS[step](f)
    f.dies()
    f.after(60)
    for call in f.core.calls.values():
        assert call.state.name in ("UP", "ANSWERED")
    release(f)
    f.after(200)
    assert not f.core.calls
    assert not f.core.legs
    ids = [cdr["id"] for cdr in f.cdrs]
    assert len(ids) == len(set(ids))


def pick_up(f: Ladder) -> None:
    """Another phone of b's peer, once b has rung."""
    if f.b.dialog is not None and not f.d.all:
        f.d.all.append(b"used")
        line = Phone(f, "line", B_HOST, 1)
        line.inbox = f.b.inbox
        line.request("INVITE", body=sdp(B_HOST, 5555), extra=[("Replaces", str(dialog_of(f.b)))])
        f.d.sent = line.sent


def line_acks(f: Ladder) -> None:
    """Who has picked up acknowledges, as soon as there is something."""
    for msg in f.b.inbox:
        if not msg.is_request and msg.status == 200 and msg.call_id.startswith("call-of-line"):
            line = Phone(f, "line", B_HOST, 1)
            line.dialog = (msg.call_id, msg.get("From") or "", msg.get("To") or "", "sip:x@192.0.2.1")
            line.request("ACK", cseq=1)
            return


PICKUP: dict[str, Step] = {
    **STEPS,
    "a line picks up": pick_up,
    "the line acks": line_acks,
    "a cancels": lambda f: f.a.cancel() if f.a.branch else None,
}


@hypothesis_settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.sampled_from(sorted(PICKUP)), max_size=14), at=st.integers(0, 3))
@example(steps=["media waits", "a line picks up", "b accepts", "media goes on"], at=0)
@example(steps=["a line picks up", "a acks", "a byes"], at=0)
@example(steps=["a line picks up", "a acks", "the line acks", "a refers"], at=0)
def test_everything_ends_once_where_a_call_is_picked_up(steps: list[str], at: int) -> None:
    f = Turmoil(route=dial, transfers=TERMINATE)
    f.a.request("INVITE", body=sdp(f.a.host))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    for step in [*steps[:at], "a line picks up", *steps[at:]]:
        PICKUP[step](f)
    settle(f)
