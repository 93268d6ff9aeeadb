"""Another number of SIP workers on a node that serves: all of them are relieved by as many as there are to be.

Sockets belong to seats. Those of a new seat are bound before its worker begins, those of a seat that is no more are
read by the worker that had it, until that has ended. The keeper has all of them too, and is told.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.supervisor import sockets
from sbc.supervisor.members import Estate, worker_counts
from sbc.supervisor.relief import Phase, Relief
from sbc.telemetry import log

MESSAGE_BYTES = 4096
MOST_LISTENERS = 250  # of one message


class SeatSockets:
    """A way for listeners of seats from the supervisor to the keeper; ``ours`` is the keeper's end."""

    def __init__(self, theirs: socket.socket | None = None) -> None:
        """``theirs``: in a process that has that end alone."""
        if theirs is None:
            self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.ours.setblocking(False)
        else:
            self.ours, self.theirs = socket.socket(), theirs
            self.ours.close()

    def tell(self, seat: int, listeners: Sequence[socket.socket]) -> None:
        """In the supervisor: these are the seat's from now on."""
        fds = [sock.fileno() for sock in listeners]
        socket.send_fds(self.theirs, [json.dumps({"seat": seat, "listeners": len(fds)}).encode()], fds)

    def hear(self, estate: Estate) -> None:
        """In the keeper, when ``ours`` is readable."""
        try:
            data, fds, _, _ = socket.recv_fds(self.ours, MESSAGE_BYTES, MOST_LISTENERS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        if data:
            replace(estate, json.loads(data)["seat"], [socket.socket(fileno=fd) for fd in fds])

    def close(self) -> None:
        """In a process that has nothing to do with it."""
        self.ours.close()
        self.theirs.close()


def replace(estate: Estate, seat: int, listeners: list[socket.socket]) -> None:
    """The listeners of a seat are these; what was there is closed."""
    row = estate.sockets[seat]
    for sock in row.listeners:
        sock.close()
    row.listeners = listeners


def objections(estate: Estate, relief: Relief, config: Config, busy: str) -> list[str]:
    """Why the number of SIP workers cannot become that of ``config`` now; a sentence each."""
    count, wanted = len(estate.seats.numbers), worker_counts(config)[0]
    if wanted == count:
        return []
    if busy or relief.phase in (Phase.STARTING, Phase.LEAVING):
        return [f"workers.sip: {busy or 'SIP workers are being relieved'}: try again when that is done"]
    if estate.is_passive:
        return ["workers.sip: this node of the pair is passive: start it anew, which costs no call"]
    if wanted > len(relief.free()):
        return [f"workers.sip: {wanted} are too many for a change without a restart, which takes {len(relief.free())}"]
    return []


class Resize:
    """One supervisor's part of it."""

    def __init__(self, estate: Estate, relief: Relief, keeper: SeatSockets) -> None:
        self._estate = estate
        self._relief = relief
        self._keeper = keeper
        self._log = log.get()
        self._former = 0  # seats; 0: nothing is under way
        self._wanted = 0

    def begin(self, config: Config, now: float) -> None:
        """Have as many SIP workers as ``config`` says."""
        seats, wanted = self._estate.seats, worker_counts(config)[0]
        seats.look()
        former = len(seats.numbers)
        if wanted == former:
            return
        try:
            for seat in range(former, wanted):
                self._give(seat, sockets.bind_one_more(config))
        except ConfigError as error:
            self._drop(former)
            self._log.error("the number of SIP workers stays as it is", faults=error.faults)
            return
        self._former, self._wanted = former, wanted
        self._log.info("the number of SIP workers changes", former=former, wanted=wanted)
        self._relief.begin(self._relief.free()[:wanted], now)

    def look(self) -> None:
        """Go on as far as it has come."""
        if not self._former:
            return
        if self._relief.phase is Phase.STARTING:
            return
        # With the successors there, only those who had them read the sockets of seats that are no more; or, where the
        # successors did not come, nobody those of new seats.
        self._drop(self._former if self._relief.phase is Phase.FAILED else self._wanted)
        self._former = 0

    def _give(self, seat: int, listeners: list[socket.socket]) -> None:
        replace(self._estate, seat, listeners)
        self._keeper.tell(seat, listeners)

    def _drop(self, first: int) -> None:
        for seat in range(first, len(self._estate.sockets)):
            if self._estate.sockets[seat].listeners:
                self._give(seat, [])
