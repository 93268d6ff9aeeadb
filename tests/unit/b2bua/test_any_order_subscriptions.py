"""Subscriptions and relayed requests under any order of messages, losses, silence and deaths: each ends, none stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sbc.b2bua.subjects import OutOfDialogRequest
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, OUR_A, OUR_B, TARGET_B, Ladder, Phone

EVENT = ("Event", "presence")
STEPS = (
    *("a subscribes", "a refreshes", "a ends it", "a sends a message", "a answers 200", "a answers 481", "a is silent"),
    *("b answers 200", "b answers 202 without expires", "b answers 401", "b answers 481", "b notifies", "b terminates"),
    *("b notifies as a fork", "a repeats", "b repeats", "the next is lost", "a second", "a minute", "the worker dies"),
)


def relay(ladder: Ladder, request: OutOfDialogRequest) -> None:
    ladder.core.requests.relay(request, TARGET_B, ladder.now)


class Players:
    """Two phones that do what a step says, as far as they can."""

    def __init__(self) -> None:
        self.f = Ladder(requests=relay)
        self.asked: Message | None = None  # the SUBSCRIBE that makes b's dialog

    def play(self, step: str) -> None:
        f = self.f
        a, b = f.a, f.b
        match step.split():
            case ["a", "subscribes"]:
                a.dialog = None
                a.request("SUBSCRIBE", extra=[EVENT, ("Expires", "60")])
            case ["a", "sends", *_]:
                former, a.dialog = a.dialog, None
                a.request("MESSAGE", body=b"hello", content_type="text/plain")
                a.dialog = former
            case ["a", "refreshes"] | ["a", "ends", "it"]:
                self.join()
                if a.dialog is not None:
                    a.request("SUBSCRIBE", extra=[EVENT, ("Expires", "60" if "refreshes" in step else "0")])
            case ["a", "is", "silent"]:
                a.inbox.clear()
            case ["a", "answers", status]:
                self.answer(a, int(status))
            case ["b", "answers", status, *rest]:
                self.answer(b, int(status), () if rest else (("Expires", "60"),))
            case ["b", "notifies"]:
                self.notify("active;expires=60")
            case ["b", "terminates"]:
                self.notify("terminated;reason=noresource")
            case ["b", "notifies", "as", *_]:
                self.notify("active", tag="fork")
            case [who, "repeats"]:
                phone = a if who == "a" else b
                if phone.sent:
                    phone.again()
            case ["the", "next", *_]:
                f.lose_next = 1
            case ["a", "second"]:
                f.after(1.0)
            case ["a", "minute"]:
                f.after(60.0)
            case _:
                f.dies()

    def join(self) -> None:
        """A is in the dialog of the last 2xx that it got to a SUBSCRIBE."""
        for data in reversed(self.f.a.all):
            msg = Message.parse(data)
            contact = msg.contact()
            if not msg.is_request and msg.cseq_method == "SUBSCRIBE" and msg.status < 300 and contact is not None:
                self.f.a.dialog = (msg.call_id, msg.get("From") or "", msg.get("To") or "", str(contact.uri))
                return

    def answer(self, phone: Phone, status: int, extra: tuple[tuple[str, str], ...] = ()) -> None:
        for msg in tuple(phone.inbox):
            phone.inbox.remove(msg)
            if msg.is_request:
                if phone is self.f.b and msg.method == "SUBSCRIBE":
                    self.asked = msg
                phone.reply(status, to=msg, extra=extra)
                return

    def notify(self, state: str, tag: str = "") -> None:
        b, asked = self.f.b, self.asked
        for msg in b.inbox:
            if msg.is_request and msg.method == "SUBSCRIBE" and not msg.to_tag:
                asked = msg
        if asked is None:
            return
        contact = asked.contact()
        assert contact is not None
        to = asked.get("To") or ""
        ours = to if asked.to_tag else f"{to};tag={tag or b.tag}"
        b.dialog = (asked.call_id, ours, asked.get("From") or "", str(contact.uri))
        b.request("NOTIFY", extra=[EVENT, ("Subscription-State", state)])


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=30))
def test_everything_ends(steps: list[str]) -> None:
    players = Players()
    f = players.f
    for step in ("a subscribes", *steps):
        players.play(step)
    f.lose_next = 0
    f.after(300.0)  # 60 s, Timer N, and the NOTIFY that says so
    f.over()
    assert not f.records
    for sender, receiver, ours in ((f.a, f.b, OUR_A), (f.b, f.a, OUR_B)):
        text = b"".join(receiver.all).decode()
        for token in (A_HOST if sender is f.a else B_HOST, ours, sender.tag, f"call-of-{sender.name}"):
            assert token not in text
