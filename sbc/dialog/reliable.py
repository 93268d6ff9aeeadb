"""Reliable provisional responses (RFC 3262): their order at the UAC, their numbers and repetition at the UAS.

Sans-IO and without timers of its own: the caller sends, and asks :meth:`Sent.next_delay_s` when to send again.
"""

from __future__ import annotations

from sbc.sip.message import Message

MAX_FIRST_RSEQ = 0x7FFF_FFFF  # §3: chosen from 1 to 2**31 - 1
_MAX_RSEQ = 0xFFFF_FFFF
MAX_DIALOGS = 8  # early dialogs of one INVITE that may send us reliable responses


def rseq_of(response: Message) -> int:
    """The RSeq of a provisional response that is to be acknowledged; 0 for one that is not reliable."""
    if not 100 < response.status < 200:
        return 0
    if not any(tag.lower() == "100rel" for tag in response.get_all("Require")):
        return 0
    return _number(response.get("RSeq") or "")


def rack_of(prack: Message) -> tuple[int, int, str] | None:
    """The RAck of a PRACK: RSeq, CSeq number and method of the response that it acknowledges (§7.2)."""
    parts = (prack.get("RAck") or "").split()
    if len(parts) != 3:
        return None
    rseq, cseq = _number(parts[0]), _number(parts[1])
    return (rseq, cseq, parts[2]) if rseq else None


class Received:
    """The UAC's side: which reliable responses to one INVITE were taken, for each early dialog (§4)."""

    __slots__ = ("_last",)

    def __init__(self, last: dict[str, int] | None = None) -> None:
        self._last = last or {}

    @property
    def last(self) -> dict[str, int]:
        """The RSeq that was taken last, by the To tag of its dialog: what another process goes on from."""
        return self._last

    def take(self, response: Message, rseq: int) -> bool:
        """Whether this response is the next in its dialog, hence to be acknowledged and used.

        False: it comes again, or one before it was lost and comes again; either way it is to be ignored.
        """
        tag = response.to_tag
        last = self._last.get(tag)
        if last is None:
            if not tag or len(self._last) >= MAX_DIALOGS:
                return False
        elif rseq != last + 1:
            return False
        self._last[tag] = rseq
        return True


class Sent:
    """The UAS's side: one reliable response at a time (§3), repeated from T1 on until its PRACK, for 64*T1."""

    __slots__ = ("_interval_s", "_rseq", "_t1_s", "deadline", "open")

    def __init__(self, first_rseq: int, t1_s: float) -> None:
        self._rseq = first_rseq - 1
        self._t1_s = t1_s
        self._interval_s = 0.0
        self.deadline = 0.0
        self.open = False  # a response waits for its PRACK

    @property
    def last(self) -> int:
        """The RSeq that was used last; one below the first where none was."""
        return self._rseq

    def number(self, now: float) -> int:
        """The RSeq of a response that leaves now. Not while another one is :attr:`open`."""
        self._rseq += 1
        self._interval_s = self._t1_s
        self.deadline = now + 64 * self._t1_s
        self.open = True
        return self._rseq

    def next_delay_s(self, now: float) -> float:
        """How long to wait from now until it is sent again, or given up: then 0 at the deadline."""
        delay_s = min(self._interval_s, self.deadline - now)
        self._interval_s *= 2
        return max(delay_s, 0.0)

    def acknowledged_by(self, rseq: int) -> bool:
        """Take a PRACK; False when it is for nothing that waits: 481 (§3)."""
        if not self.open or rseq != self._rseq:
            return False
        self.open = False
        return True


def _number(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return 0
    number = int(text)
    return number if number <= _MAX_RSEQ else 0
