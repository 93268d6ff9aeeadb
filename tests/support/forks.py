"""Calls to several targets at once: how tests make them, and what their phones do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sbc.b2bua.call import Target
from tests.support.ladder import (
    A_HOST,
    TARGET_B,
    TARGET_C,
    Ladder,
    Phone,
    sdp,
)

BOTH = (TARGET_B, TARGET_C)


def dialling(*targets: Target | Sequence[Target], **options: Any) -> Ladder:  # Any: options of dial
    """A ladder whose calls go to these targets."""
    return Ladder(route=lambda f, call: f.core.dial(call, targets, f.now, **options))


def ringing(*phones: str, f: Ladder, offer: bool = True, extra: Sequence[tuple[str, str]] = ()) -> None:
    """A calls, and these phones get its INVITE."""
    f.a.request("INVITE", body=sdp(A_HOST) if offer else b"", extra=extra)
    f.a.expect(100)
    for name in phones:
        getattr(f, name).expect("INVITE")


def refuse(phone: Phone, status: int, extra: Sequence[tuple[str, str]] = ()) -> None:
    phone.reply(status, extra=extra)
    phone.expect("ACK")


def cancelled(phone: Phone) -> str | None:
    """The phone is told to stop, and does; what the reason is."""
    cancel = phone.expect("CANCEL")
    phone.reply(200, to=cancel)
    phone.reply(487)
    phone.expect("ACK")
    return cancel.get("Reason")


def hang_up(f: Ladder, callee: Phone) -> None:
    f.a.request("BYE")
    f.a.expect(200)
    callee.reply(200, to=callee.expect("BYE"))


def attempts(f: Ladder) -> list[tuple[str, str, int]]:
    return [(one["gateway"], one["leg"], one["status"]) for one in f.cdr["attempts"]]


# one INVITE of ours, several early dialogs


def reliably(phone: Phone, tag: str, rseq: int, body: bytes, route: str) -> None:
    phone.reply(
        183,
        tag=tag,
        body=body,
        extra=[("Require", "100rel"), ("RSeq", str(rseq)), ("Record-Route", f"<sip:{route};lr>")],
    )


# redirects


def redirect(phone: Phone, *contacts: str, status: int = 302) -> None:
    refuse(phone, status, [("Contact", contact) for contact in contacts])
