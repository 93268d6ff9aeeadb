"""Attended transfers in ladders: calls that are up, and dialogs that name each other."""

from __future__ import annotations

from sbc.b2bua.call import Target
from sbc.dialog.replaces import Replaces
from sbc.sip.message import Message
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    E_HOST,
    OUR_A,
    Ladder,
    Phone,
    sdp,
)
from tests.support.transfers import (
    accepted,
    ladder,
    refer,
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


# INVITE with Replaces


def take_place(f: Ladder, caller: Phone, replaces: Replaces, *, offer: bool = True) -> None:
    caller.request("INVITE", body=sdp(caller.host, 5555) if offer else b"", extra=[("Replaces", str(replaces))])
    caller.expect(100)


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
