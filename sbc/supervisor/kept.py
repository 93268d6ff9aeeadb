"""What the keeper has of its own, and every supervisor is given beside the estate."""

from __future__ import annotations

from dataclasses import dataclass

from sbc.supervisor import folders
from sbc.supervisor.accepted import AcceptedConfig
from sbc.supervisor.lifeline import Lifeline
from sbc.supervisor.notify import Notify
from sbc.supervisor.resize import SeatSockets
from sbc.supervisor.roll import Roll


@dataclass(frozen=True, slots=True)
class Kept:
    """See above."""

    lock: folders.Lock
    lifeline: Lifeline
    roll: Roll  # a row for each member, by its place, and the last one for the proof of a reload
    accepted: AcceptedConfig
    notify: Notify
    seat_sockets: SeatSockets

    def release(self) -> None:
        """In a child of a supervisor, before it is anything else; the lifeline it keeps."""
        self.lock.close()
        self.roll.close()
        self.accepted.close()
        self.notify.close()
        self.seat_sockets.close()
