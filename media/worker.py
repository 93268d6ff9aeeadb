"""A media worker: one thread that relays packets and, when it is woken for it, answers control requests."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import time
from types import FrameType
from typing import Any

from media._datapath import CONTROL, EVENTS, SIGNAL, Datapath
from media.beforehand import Beforehand
from media.clips import Clips
from media.config import PAGE_WORDS, MediaConfig
from media.control import REQUESTS_PER_DRAIN, Control
from media.conversion import load_codecs, told
from media.counters import WORD_HEARTBEAT_NS, WORD_PID, WORD_READY, WORD_START_NS, MediaCounter
from media.dtls import Dtls
from media.features import Features
from media.files import Clerk
from media.kept_pairs import KeptPairs
from media.playing import Playing
from media.ports import BufferedRandom
from media.recording import Recordings
from media.relay import Relay
from media.session import Session
from media.state import Arena

TICK_MS = 100
PREPARE_NS = 300_000_000
SOON_MS = 1
NEVER = 1_000_000_000
FEW_SESSIONS = 200  # at so few the collector is done before a packet is late
GARBAGE_REST_S = 600.0
SWEEP_PER_TICK = 500  # sessions looked at for silence
DTLS_PER_ROUND = 4  # datagrams of handshakes; each takes up to 0.5 ms, in which no packet is relayed


def _raise_descriptor_limit(name: str, config: MediaConfig) -> None:
    """Allow what full capacity takes, as far as we may; tells where that is less."""
    # two pairs for a session of one stream; some wait between two calls
    wanted = config.capacity * 4 + config.capacity // 2 * len(config.realms) + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((wanted, max(hard, wanted)), (min(wanted, hard), hard)):
        if soft >= limit[0]:
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            break
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed < wanted:
        config.say(
            "warning",
            f"{name}: the limit of {allowed} open files ends media at about {allowed // 4} calls of one stream;"
            f" {config.capacity} take {wanted} (LimitNOFILE of the service, ulimit -n)",
        )


class Worker:
    """The parts of one worker process, wired. ``run`` relays until ``stop``."""

    def __init__(self, config: MediaConfig) -> None:
        self.page = config.page if config.page is not None else memoryview(bytearray(8 * PAGE_WORDS)).cast("Q")
        self.config = config
        self.stopping = False
        self._garbage_at_ns = time.monotonic_ns() + int(GARBAGE_REST_S * 1e9)
        name = f"media-{config.slot}"
        self.arena = Arena(config.state_fd, config.capacity)
        load_codecs()
        arena = self.arena
        self.datapath = Datapath(
            arena.rules,
            arena.keys,
            arena.webrtc,
            self.page,
            config.collect_us,
            arena.players,
            arena.quality,
            arena.processes,
        )
        if config.bind_freely:
            self.datapath.bind_freely()
        self.control: Control | None = None
        self._untold: list[tuple[bytes, dict[str, Any]]] = []  # while there is no control
        self.clerk = Clerk()
        datapath, clerk, random = self.datapath, self.clerk, BufferedRandom()
        clips = Clips(config.prompts, clerk)
        playing = Playing(arena, datapath, clips, random, self._tell, self.count)
        recordings = Recordings(
            arena, config.recordings, config.realms, clerk, datapath.tap_into, self._tell, self.count
        )
        self.features = Features(arena, playing, recordings)
        self.kept = KeptPairs(datapath, config.pairs_fd) if config.pairs_fd >= 0 else None
        self.relay = Relay(
            config.realms,
            self.arena,
            self.kept or datapath,
            random,
            self.count,
            worker=name,
            quarantine_s=config.quarantine_s,
            features=self.features,
            fingerprint=lambda: self.dtls.fingerprint(),
        )
        self.dtls = Dtls(self.arena, self.datapath.send, self.count)
        self._name = name
        self._taking_over = False
        if self.kept is not None:
            self.relay.allocation.inherit(self.kept.restore())
            if not (self.arena.resumed or config.idle()):
                self.relay.allocation.settle(time.monotonic_ns())
        if self.arena.resumed and not config.idle():
            self._resume()
        else:
            self._taking_over = config.idle()  # if it is so no more once signals are heard
        self._beforehand = Beforehand(arena, self.relay.allocation) if config.idle() else None
        self._prepared_ns = 0
        self._show_levels()
        self.control = Control(config.endpoint, self.relay.handle, self.count, config.curve, name, config.say)
        for fd in self.control.fds:
            self.datapath.watch(fd, CONTROL)
        self.datapath.watch(self.clerk.fd, EVENTS)

    def count(self, counter: MediaCounter, amount: int) -> None:
        """Add to a counter of the page."""
        self.page[counter] += amount

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Signal handler: leave the loop after the present round."""
        self.stopping = True

    def take_over(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Signal handler: go on with the sessions that somebody has written into the arena of this idle worker."""
        self._taking_over = True

    def _resume(self) -> None:
        """Go on with what lies in the arena, whoever has left it there."""
        begun_ns = time.monotonic_ns()
        resumed, lost = self.relay.resume(begun_ns, self._beat)
        self.relay.allocation.changed += (i for session in self.relay.sessions.values() for i in session.all_rules())
        if resumed or lost:
            took_ms = (time.monotonic_ns() - begun_ns) / 1e6
            self.config.say("info", f"{self._name}: resumed {resumed} sessions in {took_ms:.0f} ms, gave up {lost}")

    def _take_over(self) -> None:
        self._taking_over = False
        if self.relay.sessions or self.config.idle():
            return
        self._beforehand = None
        self.dtls.forget_identity()
        self._resume()
        self._show_levels()

    def run(self) -> None:
        """Relay and answer until stopped. Sessions stay in the arena for a successor."""
        next_tick_ns = 0
        control = self.control
        assert control is not None  # made with the worker
        self.page[WORD_READY] = 1
        is_asked = False  # more than was answered yet
        while not self.stopping:
            now_ns = self._beat()
            if now_ns >= next_tick_ns:
                self._tick(now_ns)
                next_tick_ns = now_ns + TICK_MS * 1_000_000
            woken = self.datapath.run(SOON_MS if is_asked else TICK_MS)
            now_ns = self._beat()
            if self._taking_over:
                self._take_over()
            if is_asked or woken & CONTROL:
                is_asked = control.drain(now_ns) >= REQUESTS_PER_DRAIN
            if woken & EVENTS:
                self._report_latches()
                self._report_features()
                self._report_digits()
                control.drain(now_ns)
                for index, source, data in self.datapath.take(DTLS_PER_ROUND):
                    self.dtls.receive(index, source, data, now_ns)
            if self.relay.allocation.changed:
                self._look(now_ns)

    def _beat(self) -> int:
        """Say that this loop goes round: the supervisor ends whoever does not for a second. The time, in ns."""
        self.config.look()
        now_ns = self.page[WORD_HEARTBEAT_NS] = time.monotonic_ns()
        return now_ns

    def _tick(self, now_ns: int) -> None:
        self.relay.allocation.tidy(now_ns)
        if self._beforehand is not None and now_ns - self._prepared_ns >= PREPARE_NS:
            self._prepared_ns = now_ns
            self._beforehand.look()
        self._show_levels()
        for index in self.datapath.sample(now_ns, round(self.config.one_way_s)):
            self._report_one_way(index, now_ns)
        silence_ns, hold_ns = int(self.config.media_timeout_s * 1e9), int(self.config.hold_timeout_s * 1e9)
        for session, silent_s in self.relay.silence.found(now_ns, silence_ns, SWEEP_PER_TICK, hold_ns):
            self.count(MediaCounter.MEDIA_TIMEOUTS, 1)
            event: dict[str, object] = {"event": "timeout", "session": session.id, "silent_s": round(silent_s, 1)}
            self._tell(session, event)
        self.dtls.tick(now_ns)
        if self.control is not None:
            self.control.drain(now_ns)
        if now_ns >= self._garbage_at_ns and len(self.relay.sessions) <= FEW_SESSIONS:
            self._garbage_at_ns = now_ns + int(GARBAGE_REST_S * 1e9)
            gc.collect()

    def _look(self, now_ns: int) -> None:
        """Some legs were described, or are elsewhere now: their handshakes may have to begin or to end."""
        changed, self.relay.allocation.changed = self.relay.allocation.changed, []
        for index in changed:
            self.dtls.look(index, now_ns)

    def _report_one_way(self, index: int, now_ns: int) -> None:
        """A leg should send and does not, while its peer does."""
        rule, quality = self.arena.rules[index], self.arena.quality[index]
        session = self.relay.by_slot.get(rule.slot)
        leg = session.leg_of(index) if session is not None else None
        if session is None or leg is None:
            return
        self.count(MediaCounter.ONE_WAY, 1)
        silent_ns = now_ns - max(quality.heard_ns, quality.expected_ns)
        event: dict[str, object] = {"event": "one_way", "session": session.id, "leg": leg.name}
        event |= {"stream": leg.rules.index(index), "silent_s": round(silent_ns / 1e9), "heard": quality.heard_ns > 0}
        event |= {"described": str(rule.rtp_signalled), "remote": str(rule.rtp_remote), "port": rule.local_port}
        event["refused"] = (rule.refused - quality.refused) & 0xFFFFFFFF
        self._tell(session, event)

    def _show_levels(self) -> None:
        """Gauges: a page may still hold those of a predecessor."""
        for counter, level in self.relay.gauges().items():
            self.page[counter] = level

    def _report_latches(self) -> None:
        for index in self.datapath.events():
            self.relay.allocation.changed.append(index)
            rule = self.arena.rules[index]
            session = self.relay.by_slot.get(rule.slot)
            leg = session.leg_of(index) if session is not None else None
            if session is not None and leg is not None:
                event: dict[str, object] = {"event": "latched", "session": session.id, "leg": leg.name}
                event |= {"stream": leg.rules.index(index), "remote": str(rule.rtp_remote)}
                self._tell(session, event)

    def _report_features(self) -> None:
        """What has ended, or can begin, since the files or the clips said so."""
        self.clerk.heard()
        playing = self.features.playing
        playing.loaded(self._session_of)
        playing.over(self.datapath.ended(), self._session_of)
        self.features.recordings.take()

    def _session_of(self, index: int) -> Session | None:
        return self.relay.by_slot.get(self.arena.rules[index].slot)

    def _tell(self, session: Session, event: dict[str, Any]) -> None:  # Any: JSON values
        """Notify the owner of a session, as soon as there is a way to."""
        self._untold.append((session.owner, event))
        if self.control is not None:
            for owner, one in self._untold:
                self.control.notify(owner, one)
            self._untold.clear()

    def _report_digits(self) -> None:
        for session, event in told(self.arena, self.relay.by_slot, self.datapath.heard()):
            self.count(MediaCounter.DIGITS_HEARD, 1)
            self._tell(session, event)

    def close(self) -> None:
        """Close all sockets; the arena keeps its content, and recordings what they have."""
        self.clerk.close(self.features.recordings.close)
        if self.control is not None:
            self.control.close()
        if self.kept is not None:
            self.kept.close()
        self.datapath.close()


def run(config: MediaConfig) -> int:
    """Be media worker ``config.slot`` until SIGTERM or SIGINT; returns the exit code."""
    _raise_descriptor_limit(f"media-{config.slot}", config)
    worker = Worker(config)
    worker.page[WORD_PID] = os.getpid()
    worker.page[WORD_START_NS] = worker.page[WORD_START_NS] or time.time_ns()
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    worker.datapath.watch(reader.fileno(), SIGNAL)
    # What lives now lives long, and requests leave no cycles behind. The collector, which stops every stream, is to
    # look at what is young alone; at the rest when hardly a session is there.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, NEVER, NEVER)
    old_wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handlers = {signal.SIGTERM: worker.stop, signal.SIGINT: worker.stop, signal.SIGUSR1: worker.take_over}
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        worker.run()
    finally:
        signal.set_wakeup_fd(old_wakeup)
        for number, handler in old.items():
            signal.signal(number, handler)
        worker.close()
        reader.close()
        writer.close()
    return 0
