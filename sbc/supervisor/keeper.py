"""The keeper: the first process of a node. It has what must outlive every other process, and sees that there is always
a supervisor; everything that takes a decision is that one's. One thread, no event loop but poll(2).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from sbc import __version__
from sbc.supervisor import folders, inheritance, process
from sbc.supervisor.accepted import AcceptedConfig
from sbc.supervisor.child import Child, Event, Order, State
from sbc.supervisor.kept import Kept
from sbc.supervisor.lifeline import Lifeline
from sbc.supervisor.members import Estate
from sbc.supervisor.notify import Notify
from sbc.supervisor.resize import SeatSockets
from sbc.supervisor.roll import Roll, reap, size_of
from sbc.supervisor.signals import HANDLED, SignalQueue
from sbc.telemetry import log
from sbc.telemetry.counters import WORD_PID, Kind

LOOK_S = 0.5  # how often the supervisor's beat is looked at
SUPERVISOR_BEAT_LIMIT_S = 10.0  # it may be reading a large configuration
DEATHS_IN_A_STOP = 3  # a supervisor that cannot stop the node must not keep it from stopping
EXIT_CRASHED = 70  # EX_SOFTWARE
ORDERLY = frozenset({0, 1})  # exit codes of a supervisor that has ended all that it had
EXIT_UPGRADE = 3  # one of the installed release is to follow, which has been tried
EXIT_BACK = 4  # the new release does not work out: one of the former release is to follow


Supervise = Callable[[Kept, bool], int]  # a supervisor's life; whether the node had served before, and the exit code


def keep(estate: Estate, lock: folders.Lock, supervise: Supervise, *, kind: str = "") -> int:
    """Have a supervisor of this estate until it has stopped the node; returns the exit code."""
    lifeline = Lifeline()
    estate.orphaned = lifeline.is_cut
    rows = len(estate.members) + 1
    roll = Roll(rows, estate.shared.map("roll", size_of(rows)))
    kept = Kept(lock, lifeline, roll, AcceptedConfig(estate.config), Notify(), SeatSockets())
    process.set_title(f"sbc: {kind}keeper")
    try:
        return Keeper(estate, kept, supervise, f"sbc: {kind}supervisor").serve()
    finally:
        kept.release()
        lifeline.close()


class Keeper:
    """Waits for one child and starts it again."""

    def __init__(self, estate: Estate, kept: Kept, supervise: Supervise, title: str) -> None:
        self._estate = estate
        self._kept = kept
        self._supervise = supervise
        self._title = title
        self._log = log.get()
        self._signals = SignalQueue()
        self._child = Child()
        self._pid = 0
        self._served = False
        self._stopping = False
        self._owed: set[int] = set()  # signals for a supervisor that is not there yet
        self._exit_code: int | None = None
        self._is_new = False  # the supervisor is of a release that was installed since we began
        self._looked_s = time.monotonic()
        self._trust_beats_s = 0.0

    def serve(self) -> int:
        """Until the supervisor has stopped the node, or cannot start it."""
        process.become_subreaper()
        self._signals.watch(self._kept.notify.relayed, self._kept.notify.relay)
        self._signals.watch(self._kept.seat_sockets.ours, partial(self._kept.seat_sockets.hear, self._estate))
        for store in self._estate.pair_stores:
            self._signals.watch(store.ours, store.serve)
        gc.collect()
        gc.freeze()  # what exists now is never written again, so all processes of the node go on sharing it
        try:
            self._event(Event.START, time.monotonic())
            while self._exit_code is None:
                for number in self._signals.wait(self._patience()):
                    self._pass_on(number)
                self._reap()
                self._look(time.monotonic())
        finally:
            self._end_what_is_left()
            self._signals.close()
        return self._exit_code

    def _patience(self) -> float:
        if self._child.state is State.BACKOFF:
            return min(LOOK_S, max(0.0, self._child.due_s - time.monotonic()))
        return LOOK_S

    def _pass_on(self, number: int) -> None:
        """What we are told is meant for the supervisor."""
        if number == signal.SIGCHLD:
            return
        if number in (signal.SIGTERM, signal.SIGINT):
            number = signal.SIGTERM
            self._stopping = True
            self._child.due_s = 0.0
        if self._pid:
            os.kill(self._pid, number)
        else:
            self._owed.add(number)

    def _reap(self) -> None:
        orphans = False
        for pid, status in reap(self._kept.roll):
            if pid == self._pid:
                self._ended(status)
            else:
                orphans = True
        if orphans and self._pid:
            os.kill(self._pid, signal.SIGCHLD)

    def _ended(self, status: int) -> None:
        pid, self._pid = self._pid, 0
        came_so_far = self._estate.page.is_ready
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
        if code in (EXIT_UPGRADE, EXIT_BACK):
            self._another(code == EXIT_UPGRADE)
            return
        if code in ORDERLY and (came_so_far or not self._is_new):  # an interpreter that cannot begin ends with 1, too
            self._exit_code = code
            return
        if came_so_far:  # since we looked
            self._served = True
            self._child.on(Event.SERVES, time.monotonic())
        elif self._is_new:
            self._log.error("the supervisor of the installed release does not begin: one of the former release goes on")
            self._is_new = False
        how = process.describe_exit(status)
        self._log.error("supervisor died", pid=pid, how=how, workers=len(self._kept.roll.living()))
        self._event(Event.DIED, time.monotonic())
        if self._stopping:
            self._owed.add(signal.SIGTERM)
            self._child.due_s = 0.0
            if self._child.failures >= DEATHS_IN_A_STOP:
                self._log.error("no supervisor can stop the node, ending everything")
                self._exit_code = EXIT_CRASHED

    def _another(self, is_new: bool) -> None:
        """A supervisor has ended for one of the other release."""
        self._is_new = is_new
        self._child = Child()
        self._child.adopt(State.BACKOFF, 0.0, 0.0)

    def _look(self, now: float) -> None:
        self._kept.notify.alive(now)
        if now - self._looked_s > 2 * LOOK_S + 1.0:
            # We slept ourselves (machine paused): so may the supervisor have. Let it beat first.
            self._trust_beats_s = now + SUPERVISOR_BEAT_LIMIT_S
        self._looked_s = now
        page = self._estate.page
        beat_s = now if now < self._trust_beats_s else page.beat_ns / 1e9
        event = self._child.look(now, beat_s=beat_s, serves=page.is_ready, limit_s=SUPERVISOR_BEAT_LIMIT_S)
        if event is not None:
            self._served |= event is Event.SERVES
            self._event(event, now)

    def _event(self, event: Event, now: float) -> None:
        for order in self._child.on(event, now):
            match order:
                case Order.FORK:
                    self._fork()
                case Order.WAIT:
                    wait_s = max(0.0, self._child.due_s - now)
                    self._log.info("supervisor starts again", wait_s=round(wait_s, 3))
                case Order.HALT:
                    self._log.error("cannot start", reason="the supervisor ended before the node served")
                    self._exit_code = EXIT_CRASHED
                case Order.KILL:
                    silent_s = round(now - self._estate.page.beat_ns / 1e9, 1)
                    self._log.error("supervisor hangs, ending it", pid=self._pid, silent_s=silent_s)
                    os.kill(self._pid, signal.SIGKILL)
                case Order.TERMINATE:
                    pass  # it is told as we are

    def _fork(self) -> None:
        page = self._estate.page
        page.open(Kind.SUPERVISOR, 0, version=__version__)
        # Blocked until the child has forgotten our pipe, or a signal to it would look like one to us.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            if self._is_new:
                pid = inheritance.spawn(inheritance.describe(self._estate, self._kept), "run")
            else:
                pid = os.fork()
                if pid == 0:
                    self._live()
        except OSError as error:
            self._log.error("cannot fork", error=error)
            self._event(Event.DIED, time.monotonic())
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        self._pid = pid
        page.words[WORD_PID] = pid
        for number in self._owed:
            os.kill(pid, number)  # once it has unblocked them
        self._owed.clear()

    def _live(self) -> NoReturn:
        """The whole life of a supervisor."""
        status = EXIT_CRASHED
        try:
            self._signals.forget()
            self._kept.lifeline.let_go()
            self._kept.lifeline.take()
            self._kept.lifeline.arm()
            self._kept.notify.become_sender()
            self._kept.seat_sockets.ours.close()
            for store in self._estate.pair_stores:
                store.let_go()
            # An interrupt at the terminal is for the keeper alone, which passes it on.
            os.setpgid(0, 0)
            process.set_title(self._title)
            settings = self._estate.config.log
            log.configure(settings.level, settings.format, "supervisor")
            status = self._supervise(self._kept, self._served)
        except BaseException as error:
            log.get().exception("supervisor failed", error)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)

    def _end_what_is_left(self) -> None:
        """Nothing is left after a stop; after a failure nobody may outlive us, or hold a port."""
        # The supervisor first: it starts others, and its children are ours once it has been taken in.
        for pid in [self._pid] * bool(self._pid) + self._kept.roll.living():
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
