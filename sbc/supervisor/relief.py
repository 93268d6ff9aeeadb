"""SIP workers that relieve others while calls go on, as the supervisor sees it; what they do is in
:mod:`sbc.worker.relief`."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from enum import Enum, auto

from sbc.supervisor.child import State
from sbc.supervisor.members import Member
from sbc.telemetry import log
from sbc.telemetry.counters import WORD_SPARE
from sbc.telemetry.page import LEAVING
from sbc.worker.seats import NOBODY, RELIEVES, SERVES, Seats

START_LIMIT_S = 40.0  # for the successors, all together
GRACE_S = 10.0  # beyond the time that a worker gives itself


class Phase(Enum):
    STARTING = auto()  # the successors
    LEAVING = auto()  # those that are relieved
    DONE = auto()
    FAILED = auto()  # and all is as it was


class Relief:
    """One of them at a time. ``sip`` are the SIP workers of the node by their numbers; ``limit_s`` is how long those
    that are relieved may go on with calls that they cannot hand over."""

    def __init__(self, sip: Sequence[Member], seats: Seats, limit_s: float) -> None:
        self._sip = sip
        self._seats = seats
        self._limit_s = limit_s
        self._former = 0
        self._deadline = 0.0
        self._log = log.get()
        self.phase = Phase.DONE
        self.successors: list[Member] = []
        self.leavers: list[Member] = []
        self.reason = ""

    def begin(self, numbers: Sequence[int], now: float) -> None:
        """Have these numbers have the seats, in this order; those of them that have none now must be free."""
        seats = self._seats
        seats.look()
        self._former = seats.version
        seats.prepare(numbers)
        self.leavers = [self._sip[number] for number in seats.numbers if number not in numbers]
        self.successors = [self._sip[number] for number in numbers if number not in seats.numbers]
        for member in self.successors:
            member.seat = list(numbers).index(member.slot)
            seats.mark(member.slot, RELIEVES)
            member.child.failures = 0
            member.child.adopt(State.BACKOFF, now, now)
        self.phase, self._deadline = Phase.STARTING, now + START_LIMIT_S

    def resume(self, now: float) -> None:
        """Go on with what a former supervisor has begun: its members are adopted, those without a process are due."""
        if not self._sip:  # a node of media workers alone
            return
        seats = self._seats
        seats.look()
        for seat, number in enumerate(seats.numbers):
            self._sip[number].seat = seat
        self._former = seats.version
        prepared = seats.prepared
        coming = [self._sip[number] for number in prepared if number not in seats.numbers and seats.relieves(number)]
        if coming:  # those that they relieve have not given up their sockets, though they may have been told to
            self.successors = coming
            self.leavers = [self._sip[number] for number in seats.numbers if number not in prepared]
            for member in coming:
                member.seat = prepared.index(member.slot)
                member.child.state = member.child.state if member.pid else State.STOPPED
            self.phase, self._deadline = Phase.STARTING, now + START_LIMIT_S
        else:
            self.successors = [self._sip[number] for number in seats.numbers if seats.relieves(number)]
            self.leavers = [member for member in self._sip if member.slot not in seats.numbers and member.pid]
            for member in self.leavers:
                member.child.state = State.DRAINING
            if self.successors or self.leavers:
                self.phase, self._deadline = Phase.LEAVING, now + self._limit_s + GRACE_S
        for member in self._sip:
            if member.slot not in seats.numbers and not member.pid and member not in coming:
                self._retire(member)

    def died(self, member: Member) -> None:
        """A process has ended, and its child is about to be told so."""
        if member in self.successors:
            if self.phase is Phase.STARTING:
                said = member.last_words.read()
                self.reason = self.reason or f"{member.name} ended before it was ready" + (f": {said}" if said else "")
                member.child.state = State.DRAINING  # it does not start again
            elif self.phase is Phase.LEAVING:
                # Its own successor finds in the journal what it had, as after any death.
                self._log.warning("those that it relieves end with it", worker=member.name)
                for leaver in self.leavers:
                    leaver.send(signal.SIGKILL)
                self._seats.mark(member.slot, SERVES)
        elif member not in self.leavers and member.slot not in self._seats.numbers:
            self._retire(member)

    def look(self, now: float) -> None:
        """Go on as far as it has come."""
        if self.phase is Phase.STARTING:
            if all(member.child.state is State.READY for member in self.successors):
                self._signal_leavers(now)
            elif now > self._deadline or any(m.child.state is State.STOPPED for m in self.successors):
                self._give_up()
        elif self.phase is Phase.LEAVING:
            if all(member.child.state is State.STOPPED for member in self.leavers):
                self._end()
            elif now > self._deadline:
                self._deadline = now + GRACE_S
                for member in self.leavers:
                    member.send(signal.SIGKILL)

    def _signal_leavers(self, now: float) -> None:
        self.phase, self._deadline = Phase.LEAVING, now + self._limit_s + GRACE_S
        for member in self.leavers:
            if member.child.state is State.READY:
                member.send(signal.SIGUSR1)
            else:  # it has died just now: the journal has what it had
                member.send(signal.SIGKILL)
            member.child.state = State.DRAINING if member.pid else State.STOPPED
            member.page.words[WORD_SPARE] = LEAVING

    def _give_up(self) -> None:
        self.phase = Phase.FAILED
        self.reason = self.reason or f"a SIP worker was not ready within {START_LIMIT_S:.0f} s"
        for member in self.successors:
            if member.pid:
                member.child.state = State.DRAINING
                member.send(signal.SIGKILL)
            else:
                self._retire(member)
        self.successors, self.leavers = [], []
        self._log.error("SIP workers are not relieved: the present ones go on", reason=self.reason)

    def _end(self) -> None:
        self.phase = Phase.DONE
        self._seats.turn(self._former)
        self._seats.look()
        for member in self.leavers:
            self._retire(member)
        for member in self.successors:
            self._seats.mark(member.slot, SERVES)
            if member.child.state is State.READY:
                member.send(signal.SIGUSR1)
        self._log.info(
            "SIP workers relieved",
            former=[member.name for member in self.leavers],
            now=[member.name for member in self.successors],
        )
        self.successors, self.leavers = [], []

    def _retire(self, member: Member) -> None:
        member.child.state = State.STOPPED
        member.page.retire()
        self._seats.mark(member.slot, NOBODY)

    def free(self) -> list[int]:
        """Numbers of workers that there are none of."""
        return [member.slot for member in self._sip if member.child.state is State.STOPPED and member.page.is_spare]
