"""Blind transfers in ladders: what phones send, and what they expect."""

from __future__ import annotations

from typing import Any

from sbc.b2bua.call import Call
from sbc.sip.message import Message
from tests.support.ladder import (
    C_HOST,
    E_HOST,
    MEDIA_A,
    MEDIA_B,
    OUR_A,
    TARGET_B,
    TARGET_C,
    Ladder,
    Phone,
    sdp,
)

TERMINATE = dict.fromkeys(("phones", "carrier-b", "carrier-c"), "terminate")


PASS = dict.fromkeys(TERMINATE, "pass")


def dial(f: Ladder, call: Call) -> None:
    """Who is called by a phone gets b; the target of a transfer, and whoever e calls, is c."""
    to_c = call.joining is not None or call.a.flow.host == E_HOST
    f.core.dial(call, [TARGET_C if to_c else TARGET_B], f.now)


def ladder(**changes: Any) -> Ladder:  # Any: what Ladder takes
    return Ladder(**{"route": dial, "transfers": TERMINATE, **changes})


def refer(sender: Phone, to: str = "", *, by: str = "", extra: list[tuple[str, str]] | None = None) -> None:
    headers = [("Refer-To", to or f"<sip:+4930999@{OUR_A}>"), ("Referred-By", by or f"<sip:boss@{sender.host}>")]
    sender.request("REFER", extra=headers + (extra or []))


def notified(phone: Phone, status: int, state: str) -> Message:
    """The next message is a NOTIFY of this status; it is answered."""
    notify = phone.expect("NOTIFY")
    assert notify.body.startswith(f"SIP/2.0 {status} ".encode())
    assert notify.body.count(b"\r\n") == 1
    assert notify.get("Content-Type") == "message/sipfrag;version=2.0"
    assert (notify.get("Event") or "").startswith("refer;id=")
    assert (notify.get("Subscription-State") or "").startswith(state)
    phone.reply(200, to=notify)
    return notify


def ends(phone: Phone) -> None:
    """BYE comes, and is answered."""
    phone.reply(200, to=phone.expect("BYE"))


def media_of(message: Message) -> str:
    """The address in c=."""
    return message.body.decode().partition("c=IN IP4 ")[2].partition("\r\n")[0]


def accepted(sender: Phone) -> None:
    """202 and the first NOTIFY."""
    assert sender.expect(202).contact() is not None
    notified(sender, 100, "active;expires=")


def blind(f: Ladder, transferor: Phone, moved: Phone) -> Message:
    """A transfer until the target rings; returns what the target got."""
    refer(transferor)
    accepted(transferor)
    invite = f.c.expect("INVITE")
    moved.nothing()
    f.c.reply(180)
    notified(transferor, 180, "active;expires=")
    return invite


def joined(f: Ladder, moved: Phone) -> None:
    """The target answers with an offer, the moved party gets it, and its answer goes to the target."""
    f.c.reply(200, body=sdp(C_HOST, 6000, codec="8"))
    again = moved.expect("INVITE")
    assert media_of(again) == (MEDIA_A if moved is f.a else MEDIA_B)
    assert b"RTP/AVP 8" in again.body
    moved.reply(200, to=again, body=sdp(moved.host, 4444, codec="8"))
    moved.expect("ACK")
    ack = f.c.expect("ACK")
    assert media_of(ack) == MEDIA_B
    assert b"RTP/AVP 8" in ack.body


def later(f: Ladder, phone: Phone) -> Message:
    """The re-INVITE that comes within the time of a glare."""
    for _ in range(41):
        if phone.inbox:
            break
        f.after(0.1)
    return phone.expect("INVITE")


def hang_up(f: Ladder, first: Phone, second: Phone) -> None:
    first.request("BYE", cseq=first.cseq + 100)
    first.expect(200)
    ends(second)
    f.over()
