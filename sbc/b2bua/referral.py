"""A REFER that another side is to carry out, and its NOTIFYs: what of them crosses, and under which number.

The subscription that a REFER makes goes by the CSeq of that REFER (RFC 3515 §2.4.6), which is another on each leg.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbc.b2bua import shape
from sbc.b2bua.notifier import SIPFRAG, status_line
from sbc.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from sbc.b2bua.leg import Leg

Headers = list[tuple[str, str]]


def crossing(other: Leg, tx: ServerTransaction, cseq: int) -> Headers:
    """The headers of a REFER that crosses to ``other`` as number ``cseq``, by which the NOTIFYs of ``other`` go."""
    if other.refers is None:
        other.refers = {}
    other.refers[cseq] = tx.request.cseq_number
    headers = tx.user
    return list(headers) if isinstance(headers, list) else []


def event_across(leg: Leg, other: Leg, headers: Headers) -> Headers:
    """``headers`` of a NOTIFY or SUBSCRIBE from ``leg``, with the number of a REFER as ``other`` knows it."""
    return [(name, _event(leg, other, value) if name == "Event" else value) for name, value in headers]


def _event(leg: Leg, other: Leg, value: str) -> str:
    package, _, params = value.partition(";")
    if package.strip().lower() != "refer" or "id=" not in params:
        return value
    number = params.partition("id=")[2].partition(";")[0].strip()
    known = {str(ours): theirs for ours, theirs in (leg.refers or {}).items()}
    known |= {str(theirs): ours for ours, theirs in (other.refers or {}).items()}
    return f"refer;id={known[number]}" if number in known else value


def without_details(headers: Headers, body: bytes) -> tuple[Headers, bytes]:
    """A NOTIFY whose body tells how a referred call fares: only the status of that crosses, in our words."""
    content = next((value for name, value in headers if name == "Content-Type"), "")
    if content.partition(";")[0].strip().lower() != "message/sipfrag":
        return headers, body
    version, _, rest = body.partition(b" ")
    status = rest[:3]
    kept = shape.without_content(headers)
    if version != b"SIP/2.0" or not status.isdigit() or not 100 <= int(status) <= 699:
        return kept, b""
    return [*kept, ("Content-Type", SIPFRAG)], status_line(int(status))
