"""The supervisor: forks, reaps, restarts, reloads, drains. One thread, no event loop but poll(2). It is the keeper's
child, and takes over what a former one has started.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from sbc import __version__
from sbc.config import loader
from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.routing.versions import Versions
from sbc.supervisor import embedded_store, folders, process, sockets
from sbc.supervisor.adoption import adopt, proof_under_way, take_in_the_lost
from sbc.supervisor.attention import Attention
from sbc.supervisor.child import BEAT_LIMIT_S, BEAT_LIMITS_S, Event, Group, Order, Shutdown, State
from sbc.supervisor.keeper import EXIT_CRASHED, keep
from sbc.supervisor.kept import Kept
from sbc.supervisor.members import CAPABILITIES, KINDS, Entries, Estate, Member, real_entries
from sbc.supervisor.proof import LIMIT_S, prove
from sbc.supervisor.relief import Relief
from sbc.supervisor.reload import restart_only
from sbc.supervisor.resize import Resize, objections
from sbc.supervisor.roll import reap
from sbc.supervisor.signals import HANDLED, SignalQueue
from sbc.supervisor.upgrade import Upgrade
from sbc.telemetry import log
from sbc.telemetry.counters import WORD_PID, Counter, Kind

LOOK_S = 0.5  # how often beats are looked at
LOOK_STARTING_S = 0.01  # while a child is starting
SUSPICIOUS_S = 0.3  # a silence in which a child is looked at more closely
OOM_SCORE = -900
# The node serves calls once these do; the control worker has a database library to load, and CDRs wait for it.
SERVING = (Group.STORE, Group.MEDIA, Group.SIP)
EXIT_BOOT_FAILED = 1


def run(config_path: str, config: Config, entries: Entries | None = None) -> int:
    """Run the node until it is told to stop; returns the exit code. Raises ConfigError before anything was started."""
    log.configure(config.log.level, config.log.format, "keeper")
    folders.prepare(config)
    lock = folders.Lock(config.run_dir)
    process.raise_file_limit()
    process.oom_score(OOM_SCORE)
    if config.store == "embedded":
        embedded_store.find_server()
        embedded_store.clear(config)
    if config.routes:
        versions_of(config).adopt(config.routes)
    # Media keys are kept from the start: a reload may name the first media node elsewhere.
    keys = folders.media_keys(config.state_dir, folders.shared_key(config))
    estate = Estate(config, config_path, folders.shard_key(config), entries or real_entries(), keys)
    try:
        return keep(estate, lock, lambda kept, served: Supervisor(estate, kept, served).serve())
    finally:
        estate.close()


def live_on(estate: Estate, kept: Kept) -> int:
    """Be the supervisor of a node that another release has started, in a process of the keeper's; the exit code."""
    log.configure(estate.config.log.level, estate.config.log.format, "supervisor")
    try:
        kept.lifeline.take()
        kept.lifeline.arm()
        kept.notify.become_sender()
        os.setpgid(0, 0)
        process.set_title("sbc: supervisor")
        estate.page.tell_version(__version__)
        kept.accepted.write(estate.config)
        return Supervisor(estate, kept, True).serve()
    except BaseException as error:
        log.get().exception("supervisor failed", error)
        return EXIT_CRASHED


def versions_of(config: Config) -> Versions:
    """The versions of the routes, in the hands of the user that workers are."""
    account = folders.account_of(config)
    return Versions(config.state_dir, None if account is None else (account.pw_uid, account.pw_gid))


@dataclass(slots=True)
class Proof:
    """A reload that is being proven by a child of its own."""

    pid: int
    config: Config
    attempt: int  # the last one before it
    deadline_s: float
    is_late: bool = False
    again: bool = False  # another reload was asked for meanwhile


class Supervisor:
    """One node's processes. ``serve`` returns when all of them have ended; ``served`` tells whether a former supervisor
    had got the node so far."""

    def __init__(self, estate: Estate, kept: Kept, served: bool) -> None:
        if served:
            estate.accept(kept.accepted.read() or loader.check(estate.config_path)[0] or estate.config)
        self.estate = estate
        self.members = estate.members
        self._kept = kept
        self._roll = kept.roll
        self._log = log.get()
        self._notify = kept.notify
        self._signals = SignalQueue()
        self._account = folders.account_of(estate.config)
        for row, member in enumerate(self.members):
            member.row = row
        sip = [member for member in self.members if member.group is Group.SIP]
        self.relief = Relief(sip, estate.seats, estate.config.timers.invite_timeout_s)
        self._upgrade = Upgrade(estate, kept, self.relief)
        self._resize = Resize(estate, self.relief, kept.seat_sockets)
        self._shutdown: Shutdown | None = None
        self._exit_code = 0
        self._booted = served
        self._looked_s = time.monotonic()
        self._attention = Attention(self._looked_s)
        self._proof: Proof | None = None
        self._is_abandoned = False

    def serve(self) -> int:
        """Start or take over everything, and keep it running until a stop or a failed boot."""
        gc.collect()
        gc.freeze()  # what exists now is never written again, so workers go on sharing it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        if self._booted:
            self._adopt()
        self._start()
        while (self._shutdown is None or not self._shutdown.done) and self._upgrade.exit_code is None:
            for number in self._signals.wait(self._patience()):
                self._on_signal(number)
            self._reap()
            self._look(time.monotonic())
        self._end_what_is_left()
        self._signals.close()
        if self._upgrade.exit_code is not None:
            return self._upgrade.exit_code
        self._log.info("stopped")
        return self._exit_code

    def _adopt(self) -> None:
        """What former supervisors of this node have left."""
        config = self.estate.config
        log.configure(config.log.level, config.log.format, "supervisor")
        known = config if self._kept.accepted.is_told else None
        living, dead = adopt(self.members, self._roll, known, time.monotonic())
        if self._upgrade.begin_to_replace(living):
            self._log.info("took over from the former release", workers=len(living), version=__version__)
        else:
            self._log.warning("took over from a supervisor that died", workers=len(living))
        self.relief.resume(time.monotonic())
        for member, status in dead:
            self._died(member, status)
        for member in living:
            if member.config is None and member.child.state is State.READY:
                self._refresh(member)
        self._serving()
        if (attempt := proof_under_way(self._roll)) is not None:
            self._resume_reload(attempt)

    def _start(self) -> None:
        for member in self.members:
            if self._shutdown is None and member.child.state is State.STOPPED and not member.page.is_spare:
                self._event(member, Event.START, time.monotonic())
                if member.group is Group.STORE and member.pid:
                    self._await_store(member)

    def _await_store(self, member: Member) -> None:
        try:
            embedded_store.wait_until_it_answers(self.estate.config, member.pid)
        except ConfigError as error:
            self._halt(str(error))

    def _patience(self) -> float:
        """How long to wait for a signal: less while a child starts, and not beyond the next start that is due, or the
        moment at which a child that does not beat again is to be ended."""
        now = time.monotonic()
        wait = LOOK_S
        for member in self.members:
            if member.child.state in (State.BOOTING, State.STARTING):
                wait = min(wait, LOOK_STARTING_S)
            elif member.child.state is State.BACKOFF:
                wait = min(wait, member.child.due_s - now)
            elif (left := self._heard_s(member, now) + _limit_s(member) - now) > 0.0:
                wait = min(wait, left + LOOK_STARTING_S)
        self._attention.sleep(self._looked_s + wait)
        return max(0.0, wait)

    def _heard_s(self, member: Member, now: float) -> float:
        """When a child was last known to be well."""
        if member.group is Group.STORE:  # it has no page; its deadlines are with those who ask it
            return now
        return self._attention.heard_s(member.row, member.page.beat_ns / 1e9)

    # --- what happens

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT if self._kept.lifeline.is_cut():
                self._abandoned()
            case signal.SIGTERM | signal.SIGINT:
                self._stop(time.monotonic())
            case signal.SIGHUP:
                self._reload()
            case signal.SIGUSR1:
                self._dump()
            case signal.SIGUSR2:
                self._begin_upgrade()
            case _:
                pass  # SIGCHLD: the loop reaps after every wake-up

    def _reap(self) -> None:
        for pid, status in reap(self._roll):
            if self._proof is not None and self._proof.pid == pid:
                is_late = self._proof.is_late
                how = f"took longer than {LIMIT_S:.0f} s" if is_late else f"ended with {process.describe_exit(status)}"
                self._proven(self._proof, how)
            elif self._upgrade.ended(pid, status):
                pass
            elif (own := next((m for m in self.members if m.pid == pid), None)) is not None:
                self._died(own, status)
        if self._is_abandoned:
            take_in_the_lost(self.members, self._roll)
        for member in self.members:
            if member.pidfd >= 0 and (end := self._roll.ended(member.row)) is not None:
                self._died(member, end)

    def _died(self, member: Member, status: int) -> None:
        """Say it once, with what the worker held, and let the table decide."""
        how = process.describe_exit(status)
        draining = member.child.state is State.DRAINING or self.estate.falls_silent or member.replaced
        said = member.last_words.read()
        fields = {"worker": member.name, "pid": member.pid, "how": how, "reason": said}
        if member.group is Group.SIP:
            fields["calls"] = member.page.get(Counter.CALLS_ACTIVE)
        fields = {name: value for name, value in fields.items() if value != ""}
        (self._log.info if draining else self._log.error)("worker ended" if draining else "worker died", **fields)
        member.forget()
        self._roll.clear(member.row)
        if member.group is Group.SIP:
            self.relief.died(member)
        reason = f"{member.name} ended before it served ({how})" + (f": {said}" if said else "")
        self._event(member, Event.DIED, time.monotonic(), reason)

    def _look(self, now: float) -> None:
        """Beats, starts that are due, and the progress of a stop."""
        self._attention.look(now)
        self._looked_s = now
        self.estate.page.beat()
        if self._proof is not None and now > self._proof.deadline_s:
            self._proof.is_late = True
            self._end_proof()
        for member in self.members:
            serves = member.group is Group.STORE or member.page.is_ready
            beat_s = self._heard_s(member, now)
            if now - beat_s > SUSPICIOUS_S and member.pid:
                beat_s = self._attention.saw(member.row, now, *process.want_of_processor(member.pid))
            event = member.child.look(now, beat_s=beat_s, serves=serves, limit_s=_limit_s(member))
            if event is not None:
                self._event(member, event, now)
            if event is Event.SERVES and member.config is not self.estate.config:
                self._refresh(member)  # a reload came while it was starting
                self._all_told()
        if self._shutdown is None:
            self.relief.look(now)
            self._resize.look()
            self._upgrade.look(now)
        if self._shutdown is not None:
            alive = frozenset(m.group for m in self.members if m.child.state is not State.STOPPED)
            self._tell(self._shutdown.step(now, alive), now)
        elif not self._booted and all(
            m.child.state is State.READY for m in self.members if m.group in SERVING and not m.page.is_spare
        ):
            self._booted = True
            self._serving()
        elif self._booted and self._proof is None and Versions(self.estate.config.state_dir).has_wish:
            self._reload()  # by the control worker, which may be of a user that cannot send us a signal

    def _serving(self) -> None:
        config = self.estate.config
        listeners = [sockets.text(listen) for _, listen in config.listeners]
        self.estate.page.ready()
        self._log.info("serving", listeners=listeners, sip=self.estate.sip_count, media=self.estate.media_count)
        self._notify.ready(f"serving on {', '.join(listeners)}")

    # --- orders

    def _event(self, member: Member, event: Event, now: float, reason: str = "") -> None:
        for order in member.child.on(event, now):
            match order:
                case Order.FORK:
                    self._fork(member)
                case Order.WAIT:
                    wait_s = max(0.0, member.child.due_s - now)
                    if wait_s:
                        self._log.info("worker starts again", worker=member.name, wait_s=round(wait_s, 3))
                case Order.HALT:
                    self._halt(reason)
                case Order.TERMINATE:
                    self._kill(member, signal.SIGTERM)
                case Order.KILL:
                    self._end(member, event, now)

    def _end(self, member: Member, event: Event, now: float) -> None:
        if event is Event.HUNG:
            self.estate.page.add(Counter.WORKER_HUNG)
            silent_s = round(now - member.page.beat_ns / 1e9, 1)
            self._log.error("worker hangs, ending it", worker=member.name, pid=member.pid, silent_s=silent_s)
        else:
            self._log.warning("worker takes too long to stop, ending it", worker=member.name, pid=member.pid)
        self._kill(member, signal.SIGKILL)

    def _kill(self, member: Member, number: signal.Signals) -> None:
        if number == signal.SIGTERM:
            if member.was_stopped:  # by a former supervisor; a second time would hurry it
                member.was_stopped = False
                return
            self._roll.set_note(member.row, 1)
        member.send(number)

    def _halt(self, reason: str) -> None:
        if self._shutdown is None:
            self._log.error("cannot start", reason=reason)
            self._exit_code = EXIT_BOOT_FAILED
            self._shutdown = Shutdown(drain_s=0.0)

    def _stop(self, now: float) -> None:
        if self._shutdown is not None:
            self._log.warning("stopping at once")
            self._tell(self._shutdown.hurry(now), now)
            return
        drain_s = self.estate.config.timers.drain_timeout_s
        calls = sum(m.page.get(Counter.CALLS_ACTIVE) for m in self.members if m.group is Group.SIP)
        self._log.info("stopping: new calls are refused, present ones may end", calls=calls, drain_s=drain_s)
        self._notify.stopping()
        for member in self.members:
            if member.group is Group.HA:
                self._kill(member, signal.SIGUSR1)  # the other node is to have the calls, if it can
        self._shutdown = Shutdown(drain_s)

    def _tell(self, events: list[tuple[Group, Event]], now: float) -> None:
        for group, event in events:
            for member in self.members:
                if member.group is group:
                    self._event(member, event, now)

    def _end_what_is_left(self) -> None:
        """Of the members nobody is left after a stop."""
        if self._proof is not None:
            self._end_proof()
            os.waitpid(self._proof.pid, 0)
            self._proof = None

    def _abandoned(self) -> None:
        """The keeper has died, and all workers were told as we were: no port may be held when the node starts again."""
        if not self._is_abandoned:
            self._is_abandoned = True
            self._log.error("the keeper died, ending everything")
            self._exit_code = EXIT_BOOT_FAILED
            self._shutdown = Shutdown(drain_s=0.0)

    def _begin_upgrade(self) -> None:
        if self._shutdown is None and not self._upgrade.is_under_way:
            is_busy = self._proof is not None or not self._booted
            self._upgrade.attempt("a reload is being proven" if is_busy else "")

    def _reload(self) -> None:
        """Prove the new configuration first; until it is proven, and whenever it is not, the old one serves."""
        if self._shutdown is not None:
            return
        if self._proof is not None:
            self._proof.again = True
            return
        self._notify.reloading()
        estate = self.estate
        config, faults = loader.check(estate.config_path)
        reasons = [str(fault) for fault in faults]
        if config is not None and not reasons:
            reasons = restart_only(estate.config, config)
            busy = "a release takes over" if self._upgrade.is_under_way else ""
            reasons += objections(estate, self.relief, config, busy)
        versions = versions_of(estate.config)
        if config is None or reasons:
            if versions.has_wish:
                versions.take_wish()
                versions.refuse(reasons)
            self._refuse(reasons)
        elif config.routes or config.dry_runs or versions.has_wish:
            self._prove(config, versions)
        else:
            self._take_over(config)

    def _take_over(self, config: Config) -> None:
        self.estate.accept(config)
        self._kept.accepted.write(config)
        self.estate.page.add(Counter.RELOADS)
        log.configure(config.log.level, config.log.format, "supervisor")
        for member in self.members:
            if member.child.state is State.READY:
                self._refresh(member)
        self._all_told()
        self._log.info("configuration reloaded")
        self._resize.begin(config, time.monotonic())
        self._notify.ready("serving")

    def _refuse(self, reasons: Sequence[str]) -> None:
        self.estate.page.add(Counter.RELOADS_REFUSED)
        self._log.error("configuration refused, the old one serves on", faults=list(reasons))
        self._notify.ready("serving")

    # --- the proof of routes

    def _prove(self, config: Config, versions: Versions) -> None:
        """Have a child try the routes: their code runs in no process that anything depends on."""
        parent = os.getpid()
        attempt = versions.read().attempt
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                self._live_proof(config, versions, attempt, parent)
        except OSError as error:
            self._refuse([f"cannot fork: {error}"])
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        self._proof = Proof(pid, config, attempt, time.monotonic() + LIMIT_S)

    def _live_proof(self, config: Config, versions: Versions, attempt: int, parent: int) -> NoReturn:
        status = EXIT_CRASHED
        try:
            self._begin_life("sbc: routes", self._roll.rows - 1, parent, note=attempt)
            self.estate.release()
            process.die_with_parent(parent, signal.SIGKILL)
            self._kept.lifeline.arm(signal.SIGKILL)
            os.nice(10)
            status = 0 if prove(config, versions) else 1
        except BaseException as error:
            with suppress(ConfigError):
                versions.refuse([f"the routes could not be tried: {type(error).__name__}: {error}"])
        finally:
            os._exit(status)

    def _end_proof(self) -> None:
        """With what it has started."""
        assert self._proof is not None
        with suppress(ProcessLookupError):
            os.killpg(self._proof.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):  # before it had a group of its own
            os.kill(self._proof.pid, signal.SIGKILL)

    def _resume_reload(self, attempt: int) -> None:
        """The one that a former supervisor did not see to its end: it may have been taken, else it is refused."""
        config, faults = loader.check(self.estate.config_path)
        if config is None or faults or restart_only(self.estate.config, config):
            config = self.estate.config
        self._proven(Proof(0, config, attempt, 0.0), "was ended with the supervisor")

    def _proven(self, proof: Proof, how: str) -> None:
        self._proof = None
        self._roll.clear(self._roll.rows - 1)
        versions = versions_of(self.estate.config)
        index = versions.read()
        if index.attempt == proof.attempt:  # it never came to say anything
            versions.refuse([f"the process that tried them {how}"])
            index = versions.read()
        if self._shutdown is None:
            if index.refused:
                self._refuse(index.refused)
            else:
                self._take_over(proof.config)
            if proof.again:
                self._reload()

    def _refresh(self, member: Member) -> None:
        """Have a worker read the configuration again; media workers hold nothing that a reload may change."""
        member.config = self.estate.config
        if member.group in (Group.SIP, Group.CONTROL):
            self._kill(member, signal.SIGHUP)

    def _all_told(self) -> None:
        """Whether that is so, for a supervisor after us."""
        if all(member.config is self.estate.config for member in self.members if member.pid):
            self._kept.accepted.told()

    def _dump(self) -> None:
        """The state of every child, for the log."""
        now = time.monotonic()
        for member in self.members:
            if member.page.is_spare:
                continue
            child = member.child
            self._log.info(
                "state",
                worker=member.name,
                pid=member.pid,
                state=child.state.value,
                age_s=round(now - child.started_s, 1),
                beat_age_s=None if member.group is Group.STORE else round(now - member.page.beat_ns / 1e9, 2),
                restarts=member.page.restarts,
                failures=child.failures,
            )

    # --- forking

    def _fork(self, member: Member) -> None:
        if member.child.state is State.STARTING:
            self.estate.page.add(Counter.WORKER_RESPAWNS)
        member.page.open(KINDS.get(member.group, Kind.SUPERVISOR), 0, version=__version__)
        member.last_words.write("")
        member.config = self.estate.config
        parent = os.getpid()
        # Blocked until the child has forgotten our pipe, or a signal to it would look like one to us.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                self._live(member, parent)
        except OSError as error:
            self._log.error("cannot fork", worker=member.name, error=error)
            self._event(member, Event.DIED, time.monotonic(), f"cannot fork: {error}")
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        member.pid = pid
        member.page.words[WORD_PID] = pid
        self._log.debug("worker started", worker=member.name, pid=pid)

    def _begin_life(self, title: str, row: int, parent: int, *, note: int = 0, capabilities: int = 0) -> None:
        """What a child does before all else."""
        self._roll.begin(row, os.getpid(), time.monotonic_ns(), note)
        if os.getppid() != parent:  # nobody is to find two of us
            os._exit(0)
        self._signals.forget()
        self._kept.lifeline.take()
        self._kept.release()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        # An interrupt at the terminal is for the keeper alone, and the node stops in order.
        os.setpgid(0, 0)
        process.set_title(title)
        process.oom_score(0)
        if capabilities:  # the process that must renew a lease in time
            process.go_before_others()
        process.become(self._account, capabilities)

    def _live(self, member: Member, parent: int) -> NoReturn:
        """The whole life of a child: nothing of the supervisor's stack runs in it afterwards."""
        status = EXIT_CRASHED
        try:
            may = CAPABILITIES.get(member.group, 0)
            self._begin_life(f"sbc: {member.name}", member.row, parent, capabilities=may)
            self._kept.lifeline.arm(over_exec=member.group is Group.STORE)
            settings = self.estate.config.log
            page = member.page
            log.configure(
                settings.level, settings.format, member.name, on_lost=lambda: page.add(Counter.LOG_LINES_LOST)
            )
            status = self.estate.run(member)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException as error:
            member.last_words.write(str(error) or type(error).__name__)
            if not isinstance(error, ConfigError | KeyboardInterrupt):
                log.get().exception("worker failed", error)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)


def _limit_s(member: Member) -> float:
    return BEAT_LIMITS_S.get(member.group, BEAT_LIMIT_S)
