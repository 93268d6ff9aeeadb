"""A node with callers and callees on both sides of it: calls that are up, with audio, while something is done to it."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from media import protocol
from sbc.selftest.agents import Agent, Asked, UaCall
from sbc.selftest.apart import small_disk
from sbc.selftest.measure import Failed, Measures
from sbc.selftest.node import CALLEE, CALLER, OUTSIDE, Node, wait
from sbc.selftest.store import Store
from sbc.selftest.talk import BEFORE_S, INTERVAL_S, Stream, Talk
from sbc.selftest.wall_clock import WallClock

PACE_S = 0.008
CONTROL_S = 1.0
AGEING_S = 0.00005  # per packet, so that a relay loses none: libsrtp would lose count
CALLS = 20
AWAY_S = 3.0  # that the store is away, where nobody wants it longer


@dataclass(frozen=True, slots=True)
class Setup:
    """What a row needs: a store that is not the node's child (of this kind), SRTP on both sides, a clock that can be
    set, a disk of so many octets for CDRs, settings of the configuration; two nodes; a store that lies on both of them;
    releases of their own that can be replaced; no node, as the row starts something else that stands in its place."""

    own_store: bool | type[Store] = False
    secure: bool = False
    clock: bool = False
    small_disk: int = 0
    settings: dict[str, object] = field(default_factory=dict)
    pair: bool = False
    watched: bool = False
    releases: bool = False
    no_node: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """Both sides of a call, and their audio."""

    a: UaCall
    b: UaCall
    streams: tuple[Stream, Stream] | tuple[()] = ()


class Site:
    """``folder`` is for what the row likes; ``calls`` is how many calls a row should have up."""

    def __init__(
        self,
        folder: Path,
        node: Node,
        store: Store | None,
        ends: tuple[Agent, Agent, Talk, Talk],
        *,
        is_apart: bool = False,
    ) -> None:
        self.folder = folder
        self.node = node
        self._store = store
        self.caller, self.callee, self._near, self._far = ends
        self.calls = CALLS
        self.seed = 1
        self.minutes = 1.0
        self.away_s = AWAY_S
        self.run = 0
        self.clock: WallClock | None = None  # of a setup with ``clock``
        self.is_apart = is_apart  # what is mounted is seen by this process and its children only
        self._number = 0
        self._answered: set[str] = set()  # Call-IDs of all calls that came up

    @property
    def store(self) -> Store:
        """The store of a setup with ``own_store``."""
        assert self._store is not None
        return self._store

    @property
    def spool_folder(self) -> Path:
        """Where the node of a setup with ``small_disk`` keeps its CDRs."""
        return self.folder / "spool"

    # -- calls

    def invite(self, *, rings: bool = False) -> UaCall:
        """One INVITE; a call that only rings is to a number with a 2 in front."""
        self._number += 1
        return self.caller.call((OUTSIDE, self.node.port), f"{2 if rings else 1}{self._number:06}")

    def establish(self, count: int, *, talk: bool = True, limit_s: float = 15.0) -> list[Call]:
        """So many calls, answered and acknowledged, with audio. Failed when one does not come up."""
        placed = self._place(count)
        wait(lambda: all(call.up or call.asked["INVITE"].status for call in placed), limit_s, f"{count} calls answered")
        refused = Counter(call.asked["INVITE"].status for call in placed if not call.up)
        if refused:
            raise Failed(f"of {count} new calls these were refused: {dict(refused)}")
        far = self._far_calls()
        wait(lambda: all(far[call.number].up for call in placed), limit_s, f"{count} calls acknowledged")
        self._answered.update(call.call_id for call in placed)
        return [self._talking(call, far[call.number]) if talk else Call(call, far[call.number]) for call in placed]

    def ring(self, count: int) -> list[Call]:
        """So many calls that ring on both sides, and are answered by :meth:`Agent.answer` only."""
        placed = self._place(count, rings=True)
        wait(lambda: all(call.ringing for call in placed), 15, f"{count} calls ringing")
        far = self._far_calls()
        return [Call(call, far[call.number]) for call in placed]

    def _place(self, count: int, *, rings: bool = False) -> list[UaCall]:
        placed = []
        for _ in range(count):
            placed.append(self.invite(rings=rings))
            time.sleep(PACE_S)
        return placed

    def _far_calls(self) -> dict[str, UaCall]:
        return {call.number: call for call in self.callee.all_calls()}

    def _talking(self, a: UaCall, b: UaCall) -> Call:
        streams = self._near.stream(a.audio_port), self._far.stream(b.audio_port)
        for stream, side in zip(streams, (a, b), strict=True):
            stream.call = a.number.encode().ljust(8, b"\0")[:8]
            if side.key:
                stream.secure(side.key, side.far_key)
            stream.far = side.far_audio
        return Call(a, b, streams)

    def forget(self, calls: Sequence[Call]) -> None:
        """These are lost, and that is how it should be: no record is expected."""
        self._answered.difference_update(call.a.call_id for call in calls)

    def expect_records(self, calls: Iterable[UaCall]) -> None:
        """These callers have been answered."""
        self._answered.update(call.call_id for call in calls)

    def hang_up(self, calls: Sequence[Call]) -> list[Asked]:
        """BYE for all of these, from the caller for one half and from the callee for the other."""
        return [
            self.caller.hang_up(call.a) if n % 2 == 0 else self.callee.hang_up(call.b) for n, call in enumerate(calls)
        ]

    def end(
        self, calls: Sequence[Call], measures: Measures, *, max_s: float | None = None, what: str = "BYE answered"
    ) -> None:
        """BYE for all of these, each to be answered with 200 and to reach the other side."""
        asked = self.hang_up(calls)
        wait(lambda: all(one.status for one in asked), 35, "an answer to each BYE")
        others = [call.b if n % 2 == 0 else call.a for n, call in enumerate(calls)]
        refused = Counter(one.status for one in asked if one.status != 200)
        measures.expect(not refused, f"of {len(asked)} BYEs these were refused: {dict(refused)}")
        measures.add(what, (one.took_s for one in asked), max_s=max_s)
        if not refused:
            wait(lambda: all(call.ended_by_far for call in others), 10, "each BYE at the other side")
        self.silence(calls)

    def tidy(self) -> None:
        """Give back the ports of all calls that have ended: many come and go in a long row."""
        for agent, talk in ((self.caller, self._near), (self.callee, self._far)):
            talk.close_streams(call.audio_port for call in agent.all_calls() if call.has_ended)

    def silence(self, calls: Sequence[Call]) -> None:
        """Their audio ends, and their ports are given back."""
        self._near.close_streams(call.a.audio_port for call in calls if call.streams)
        self._far.close_streams(call.b.audio_port for call in calls if call.streams)

    # -- audio

    @property
    def talks(self) -> tuple[Talk, Talk]:
        """Where the callers' streams are, and the callees'."""
        return self._near, self._far

    def age(self, calls: Sequence[Call], rollovers: int) -> None:
        """As after so many rollovers of the sequence number of each stream, without the hours that they take."""
        streams = [stream for call in calls for stream in call.streams]
        with self._silence():
            while streams and streams[0].sent >> 16 < rollovers:
                for stream in streams:
                    stream.age()
                time.sleep(len(streams) * AGEING_S)

    def prepare(self, calls: Sequence[Call], seconds: float) -> None:
        """Encrypt what is to be sent in so many seconds before it is due: that time is to be the SBC's."""
        with self._silence():
            for call in calls:
                for stream in call.streams:
                    stream.prepare(round(seconds / INTERVAL_S))

    @contextmanager
    def _silence(self) -> Iterator[None]:
        for talk in (self._near, self._far):
            talk.be_silent(True)
        try:
            yield
        finally:
            for talk in (self._near, self._far):
                talk.be_silent(False)

    def media_ports(self, calls: Sequence[Call]) -> list[tuple[str, int]]:
        """Where the SBC has the audio of these calls."""
        return [stream.far for call in calls for stream in call.streams if stream.far is not None]

    def control(self, calls: Sequence[Call], measures: Measures) -> None:
        """The same gaps without a fault, for comparison: what this machine does to packets anyway."""
        wait(lambda: all(stream.heard for call in calls for stream in call.streams), 5, "audio both ways in each call")
        start = time.time()
        time.sleep(CONTROL_S)
        measures.add("gap, no fault", self.gaps(calls, start, time.time()))

    def gaps(self, calls: Sequence[Call], start: float, end: float) -> list[float]:
        return [stream.gap(start, end) for call in calls for stream in call.streams]

    def heard_again(self, calls: Sequence[Call], since: float, limit_s: float) -> None:
        """Wait until each stream has brought some packets after ``since`` (wall clock)."""
        waiting = [stream for call in calls for stream in call.streams]

        def heard() -> bool:
            waiting[:] = [stream for stream in waiting if not stream.heard_since(since, 5)]
            return not waiting

        wait(heard, limit_s, "audio in each call")

    def measure_gap(
        self,
        calls: Sequence[Call],
        fault_at: float,
        measures: Measures,
        *,
        max_s: float,
        p99_s: float | None = None,
        p50_s: float | None = None,
        what: str = "gap",
    ) -> None:
        """The gaps from before the fault until now, and what was lost, came twice, or came to the wrong call."""
        end = time.time() - INTERVAL_S
        streams = [stream for call in calls for stream in call.streams]
        measures.add(what, self.gaps(calls, fault_at - BEFORE_S, end), max_s=max_s, p99_s=p99_s, p50_s=p50_s)
        losses = [stream.losses(fault_at - BEFORE_S, end) for stream in streams]
        lost, again = (sum(part) for part in zip(*losses, strict=True)) if losses else (0, 0)
        measures.note(f"run {measures.runs}: packets lost {lost}, twice {again}, of {len(streams)} streams")
        measures.expect(not any(stream.foreign for stream in streams), "a packet came to the wrong call")
        measures.expect(not any(stream.forged for stream in streams), "SRTP came that could not be authenticated")

    # -- afterwards

    def settled(self, measures: Measures, limit_s: float = 20.0) -> None:
        """No call and no media session is left, and each call that was answered has exactly one record."""
        wait(lambda: not self.node.calls(), limit_s, "the end of the last call")
        wait(lambda: self._answered <= self.recorded().keys(), limit_s, "a record of each call")
        twice = [call for call, rows in self.recorded().items() if rows > 1]
        measures.expect(not twice, f"{len(twice)} calls have more than one record")
        wait(lambda: self.media_sessions() == 0, limit_s, "the end of the last media session")

    def recorded(self) -> Counter[str]:
        """How many records there are, by the caller's Call-ID."""
        return Counter(str(cdr["a_call_id"]) for cdr in self.node.cdrs())

    @property
    def answered(self) -> set[str]:
        return self._answered

    def media_sessions(self) -> int:
        """How many sessions the media workers have, by their own account."""
        return media_sessions(self.node.folder / "run")


def media_sessions(run_dir: Path) -> int:
    """How many sessions the media workers of a node have, by their own account. Failed where one does not say so."""
    found = 0
    for path in sorted(run_dir.glob("media-*.sock")):
        with zmq.Context() as context, context.socket(zmq.DEALER) as question:
            question.setsockopt(zmq.LINGER, 0)
            question.connect(f"ipc://{path}")
            question.send_multipart((protocol.VERSION, b"selftest", protocol.encode(protocol.ListSessions())))
            if not question.poll(3000):
                raise Failed(f"{path.name} does not say what sessions it has")
            found += protocol.decode_reply(question.recv_multipart()[2]).total
    return found


@contextmanager
def site(folder: Path, setup: Setup, *, is_apart: bool) -> Iterator[Site]:
    """A node with both ends until the end of the block; then nothing of it is left.

    ``is_apart``: as root, on a network and with mounts of our own (:mod:`sbc.selftest.apart`).
    """
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        kind = setup.own_store if isinstance(setup.own_store, type) else Store
        store = kind(folder) if setup.own_store else None
        settings = dict(setup.settings)
        if store is not None:
            stack.callback(store.kill)
            store.start()
            settings["store"] = store.url
        if setup.secure:
            settings["srtp"] = "required"
        if setup.small_disk:
            settings["spool"] = folder / "spool"
            if is_apart:
                stack.enter_context(small_disk(folder / "spool", setup.small_disk))
        node = Node(folder / "node", **settings)
        clock = WallClock(node.folder) if setup.clock else None
        if clock is not None:
            clock.build()
            node.has_clock(clock)
        near, far = stack.enter_context(Talk(CALLER, 0)), stack.enter_context(Talk(CALLEE, 1))
        caller = stack.enter_context(Agent(CALLER, audio_port=near.open, secure=setup.secure))
        callee = stack.enter_context(Agent(CALLEE, node.callee_port, audio_port=far.open, secure=setup.secure))
        made = Site(folder, node, store, (caller, callee, near, far), is_apart=is_apart)
        made.clock = clock
        stack.callback(node.close)
        if not setup.no_node:
            node.start()
        yield made
