"""Whatever the two sides say, in whatever order, with messages lost and repeated: everything ends, and once."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sbc.dialog.session_timer import Policy
from tests.support.ladder import A_HOST, C_HOST, D_HOST, Ladder, Phone, hunt, ring_all, sdp


def answer_last(phone: Phone, status: int, *, body: bool = False) -> None:
    """Answer the newest request that this phone was sent, whatever it is."""
    for msg in reversed(phone.inbox):
        if msg.is_request and msg.method not in ("ACK", "CANCEL"):
            phone.reply(status, to=msg, body=sdp(phone.host, version=phone.cseq + 2) if body else b"")
            return


def invite_reply(phone: Phone, status: int, *, body: bool = False, tag: str = "", contact: str = "") -> None:
    """Answer the first INVITE, again if need be."""
    for msg in phone.inbox:
        if msg.is_request and msg.method == "INVITE" and not msg.to_tag:
            extra = [("Contact", contact)] if contact else []
            phone.reply(status, to=msg, body=sdp(phone.host) if body else b"", tag=tag, extra=extra)
            return


def in_dialog(phone: Phone, method: str, *, body: bool = False) -> None:
    """A request in the dialog, once the phone knows one."""
    if phone.dialog is None:
        for msg in phone.inbox:
            if not msg.is_request and msg.cseq_method == "INVITE" and 100 < msg.status < 300:
                contact = (msg.get("Contact") or "").partition("<")[2].partition(">")[0]
                phone.dialog = (msg.call_id, msg.get("From") or "", msg.get("To") or "", contact)
    if phone.dialog is not None:
        phone.request(method, body=sdp(phone.host, version=phone.cseq + 3) if body else b"")


def first_invite(f: Ladder, *, offer: bool, reliable: str = "") -> None:
    if f.a.cseq == 0:
        extra = [(reliable, "100rel")] if reliable else []
        f.a.request("INVITE", body=sdp(A_HOST) if offer else b"", extra=extra)


def reliably(phone: Phone, status: int, *, body: bool = False, tag: str = "") -> None:
    """A reliable provisional, with the next RSeq."""
    for msg in phone.inbox:
        if msg.is_request and msg.method == "INVITE" and not msg.to_tag:
            phone.rseq = getattr(phone, "rseq", 0) + 1  # type: ignore[attr-defined]  # only these steps know of it
            extra = [("Require", "100rel"), ("RSeq", str(phone.rseq))]  # type: ignore[attr-defined]  # as above
            phone.reply(status, to=msg, body=sdp(phone.host) if body else b"", extra=extra, tag=tag)
            return


def prack(phone: Phone, *, body: bool = False) -> None:
    """Acknowledge the newest reliable provisional, perhaps again."""
    for msg in reversed(phone.inbox):
        if not msg.is_request and msg.get("RSeq"):
            in_dialog(phone, "OPTIONS")
            content = sdp(phone.host, version=phone.cseq + 3) if body else b""
            phone.request("PRACK", body=content, extra=[("RAck", f"{msg.get('RSeq')} {msg.cseq_number} INVITE")])
            return


def again(phone: Phone) -> None:
    if phone.sent:
        phone.again()


def cancel(phone: Phone) -> None:
    if hasattr(phone, "branch"):
        phone.cancel()


def ack_refusals(phone: Phone) -> None:
    """ACK every failure to an INVITE, as a phone does."""
    for msg in list(phone.inbox):
        if not msg.is_request and msg.cseq_method == "INVITE" and msg.status >= 300:
            dialog = phone.dialog
            phone.dialog = (msg.call_id, msg.get("From") or "", msg.get("To") or "", "sip:x@192.0.2.1")
            phone.request("ACK", branch=msg.branch, cseq=msg.cseq_number)
            phone.dialog = dialog


def hold_media(f: Ladder) -> None:
    if f.held_media is None:
        f.held_media = []


def lose(f: Ladder) -> None:
    f.lose_next += 1


def journal(f: Ladder) -> None:
    """The journal confirms what it was last given."""
    f.hold_journal = not f.hold_journal
    if f.saves:
        f.core.saved(f.saves[-1].key, f.saves[-1].version, True, f.now)
        f.drain()


def release(f: Ladder) -> None:
    for call in list(f.core.calls.values()):
        f.core.release(call, f.now, reason="test")
    f.drain()


STEPS: dict[str, Callable[[Ladder], None]] = {
    "a invites": lambda f: first_invite(f, offer=True),
    "a invites without offer": lambda f: first_invite(f, offer=False),
    "a again": lambda f: again(f.a),
    "a cancels": lambda f: cancel(f.a),
    "a acks": lambda f: in_dialog(f.a, "ACK"),
    "a acks with answer": lambda f: in_dialog(f.a, "ACK", body=True),
    "a acks refusals": lambda f: ack_refusals(f.a),
    "a byes": lambda f: in_dialog(f.a, "BYE"),
    "a reinvites": lambda f: in_dialog(f.a, "INVITE", body=True),
    "a reinvites without offer": lambda f: in_dialog(f.a, "INVITE"),
    "a updates": lambda f: in_dialog(f.a, "UPDATE", body=True),
    "a infos": lambda f: in_dialog(f.a, "INFO"),
    "a answers 200": lambda f: answer_last(f.a, 200, body=True),
    "a answers 491": lambda f: answer_last(f.a, 491),
    "b 100": lambda f: invite_reply(f.b, 100),
    "a invites 100rel": lambda f: first_invite(f, offer=True, reliable="Supported"),
    "a requires 100rel": lambda f: first_invite(f, offer=True, reliable="Require"),
    "a invites 100rel without offer": lambda f: first_invite(f, offer=False, reliable="Supported"),
    "b 180": lambda f: invite_reply(f.b, 180),
    "a pracks": lambda f: prack(f.a),
    "a pracks with offer": lambda f: prack(f.a, body=True),
    "a updates with offer": lambda f: in_dialog(f.a, "UPDATE", body=True),
    "b 180 reliable": lambda f: reliably(f.b, 180),
    "b 183 reliable": lambda f: reliably(f.b, 183, body=True),
    "c 183 reliable": lambda f: reliably(f.c, 183, body=True),
    "b 183": lambda f: invite_reply(f.b, 183, body=True),
    "b 200": lambda f: invite_reply(f.b, 200, body=True),
    "b 200 without answer": lambda f: invite_reply(f.b, 200),
    "b 486": lambda f: invite_reply(f.b, 486),
    "b 503": lambda f: invite_reply(f.b, 503),
    "b again": lambda f: again(f.b),
    "b byes": lambda f: in_dialog(f.b, "BYE"),
    "b acks": lambda f: in_dialog(f.b, "ACK"),
    "b acks refusals": lambda f: ack_refusals(f.b),
    "b reinvites": lambda f: in_dialog(f.b, "INVITE", body=True),
    "b updates": lambda f: in_dialog(f.b, "UPDATE"),
    "b answers 200": lambda f: answer_last(f.b, 200, body=True),
    "b answers 481": lambda f: answer_last(f.b, 481),
    "b 183 of a fork": lambda f: invite_reply(f.b, 183, body=True, tag="fork"),
    "b 183 of a fork, reliable": lambda f: reliably(f.b, 183, body=True, tag="fork"),
    "b 199 of a fork": lambda f: invite_reply(f.b, 199, tag="fork"),
    "b 200 of a fork": lambda f: invite_reply(f.b, 200, body=True, tag="fork"),
    "b 603": lambda f: invite_reply(f.b, 603),
    "b 302 to c and d": lambda f: invite_reply(f.b, 302, contact=f"<sip:1@{C_HOST}:5070>;q=0.1,<sip:1@{D_HOST}:5070>"),
    "c 180": lambda f: invite_reply(f.c, 180),
    "c 183": lambda f: invite_reply(f.c, 183, body=True),
    "c again": lambda f: again(f.c),
    "c byes": lambda f: in_dialog(f.c, "BYE"),
    "c updates with offer": lambda f: in_dialog(f.c, "UPDATE", body=True),
    "c 503": lambda f: invite_reply(f.c, 503),
    "d 183": lambda f: invite_reply(f.d, 183, body=True),
    "d 200": lambda f: invite_reply(f.d, 200, body=True),
    "d 486": lambda f: invite_reply(f.d, 486),
    "c 200": lambda f: invite_reply(f.c, 200, body=True),
    "c 486": lambda f: invite_reply(f.c, 486),
    "media waits": hold_media,
    "media goes on": lambda f: f.release_media(),
    "journal": journal,
    "a datagram is lost": lose,
    "we release": release,
    "0.3 s": lambda f: f.after(0.3),
    "3 s": lambda f: f.after(3),
    "40 s": lambda f: f.after(40),
}


# Where a run begins: random steps alone seldom reach an answered call.
BEGINNINGS = [
    [],
    ["a invites", "b 180"],
    ["a invites", "b 503"],
    ["a invites", "b 200"],
    ["a requires 100rel", "b 183"],
    ["a invites 100rel", "b 183 reliable"],
    ["a invites 100rel", "b 183 reliable", "a pracks"],
    ["a invites 100rel without offer", "b 183 reliable"],
    ["a invites without offer", "b 200"],
    ["a invites", "b 200", "a acks"],
    ["a invites", "b 200", "a acks", "a reinvites"],
    ["a invites", "b 200", "a acks", "b reinvites"],
    ["a invites", "b 183", "c 183"],
    ["a invites", "b 183", "c 200"],
    ["a invites 100rel", "b 183 reliable", "c 183 reliable"],
    ["a invites 100rel", "b 183 reliable", "b 183 of a fork, reliable", "a pracks"],
    ["a invites", "b 503", "c 503", "d 183"],
    ["a invites", "b 302 to c and d", "c 180"],
    ["a invites without offer", "b 180", "c 200"],
    ["a invites", "media waits", "b 183", "c 183"],
]


@hypothesis_settings(max_examples=1000, deadline=None)
@given(
    steps=st.builds(list.__add__, st.sampled_from(BEGINNINGS), st.lists(st.sampled_from(sorted(STEPS)), max_size=20)),
    timers=st.booleans(),
    parallel=st.booleans(),
)
@example(steps=["b 180", "b 200", "a acks", "b reinvites", "a byes", "a answers 200"], timers=False, parallel=False)
@example(steps=["b 183", "media waits", "b 200", "a cancels", "media goes on", "b again"], timers=False, parallel=False)
@example(
    steps=["b 200", "a acks", "a reinvites", "b byes", "b answers 200", "a answers 200"], timers=False, parallel=False
)
@example(steps=["a invites 100rel", "b 183 reliable", "a pracks with offer"], timers=False, parallel=False)
@example(steps=["a invites", "b 183", "journal", "b 200", "a acks"], timers=False, parallel=False)
@example(steps=["b 503", "c 200", "b 200", "a acks", "a byes"], timers=False, parallel=False)
@example(steps=["b 200", "a reinvites", "b byes", "a acks"], timers=False, parallel=False)
def test_everything_ends_once(steps: list[str], timers: bool, parallel: bool) -> None:
    f = Ladder(route=ring_all if parallel else hunt, session_timers=Policy(90 if timers else 0))
    if not any(step.startswith(("a invites", "a requires")) for step in steps):
        steps = ["a invites", *steps]
    for step in steps:
        STEPS[step](f)
    # From here on both phones are silent, and every helper works again.
    f.lose_next = 0
    f.hold_journal = False
    f.release_media()
    for save in f.saves:
        f.core.saved(save.key, save.version, True, f.now)
    f.drain()
    f.after(300)
    for call in f.core.calls.values():
        assert call.state.name == "UP", call.describe()  # only an answered call may live on
    f.only_two_legs()
    release(f)
    f.over()
    assert len(f.cdrs) == f.counts.get("CALLS_STARTED", 0)
    assert len({cdr["id"] for cdr in f.cdrs}) == len(f.cdrs)
    assert f.counts.get("CORE_FAULTS", 0) == 0
