"""What leaves the core: effects for the shell in their order, counts, questions to media workers, responses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from media.protocol import Reply
from media.protocol import Request as MediaRequest
from sbc.b2bua.effects import Effect, MediaCommand, Note, RunRoute, Transmit
from sbc.b2bua.facing import Facing
from sbc.sip.build import reply_to
from sbc.sip.flow import Flow
from sbc.sip.ids import Ids
from sbc.transaction.server import ServerTransaction
from sbc.transaction.timers import TimerQueue

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.wire import Wire


class Output(Facing):
    """``ids`` makes identifiers, ``timers`` hold what is due later. The shell drains :meth:`poll` after each input."""

    def __init__(self, ids: Ids) -> None:
        super().__init__()
        self.ids = ids
        self.timers = TimerQueue()
        self._effects: deque[Effect] = deque()
        self._counts: dict[str, int] = {}
        self._media: dict[int, tuple[Call, Callable[[Reply, float], None]]] = {}
        # Media workers cache replies by request id, so a respawned worker must not begin where its former self began.
        self._media_id = int.from_bytes(ids.token()[:7].encode(), "big") << 7
        self._wall_offset = 0.0
        self.wire: Wire | None = None  # None: nobody has rules for messages

    def poll(self) -> Effect | None:
        """The next thing to do, in order; None: nothing."""
        return self._effects.popleft() if self._effects else None

    def take_counts(self) -> dict[str, int]:
        """What to add to the counters of these names (:class:`sbc.telemetry.counters.Counter`) since the last time:
        no effects, because nobody waits for them and a message has several."""
        counts = self._counts
        if counts:
            self._counts = {}
        return counts

    def emit(self, effect: Effect) -> None:
        """Ask the shell."""
        self._effects.append(effect)

    def transmit(self, flow: Flow, data: bytes) -> None:
        """Send octets."""
        self._effects.append(Transmit(flow, data))

    def count(self, counter: str, amount: int = 1) -> None:
        """Count an event."""
        counts = self._counts
        counts[counter] = counts.get(counter, 0) + amount

    def note(self, level: str, event: str, call: Call | None, **fields: Any) -> None:  # Any: JSON values
        """Say something worth a line in the log."""
        self._effects.append(Note(level, event, call.key if call is not None else "", fields))

    def run_route(self, call: Call, effect: RunRoute) -> None:
        """Ask for a route; one that decides about the whole call holds up what would end it."""
        if effect.subject is call:
            call.pending_route = effect
        self._effects.append(effect)

    def ask(self, call: Call, request: MediaRequest, then: Callable[[Reply, float], None], now: float) -> None:
        """Ask a media worker; ``then`` gets its reply, always."""
        self._media_id += 1
        self._media[self._media_id] = (call, then)
        call.media_pending += 1
        self._effects.append(MediaCommand(self._media_id, request, call.media_node, call.media_set))

    def response(
        self,
        tx: ServerTransaction,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        to_tag: str = "",
        reason: str = "",
    ) -> bytes:
        """A response to the request of ``tx``; ``reason`` '' is the standard phrase."""
        flow = tx.flow
        data = reply_to(
            tx.request,
            status,
            reason=reason or None,
            to_tag=to_tag,
            received=(flow.host, flow.port),
            headers=headers,
            body=body,
        )
        return data if self.wire is None else self.wire.reply(data, flow)

    def respond(
        self,
        tx: ServerTransaction,
        status: int,
        now: float,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        to_tag: str = "",
        reason: str = "",
    ) -> None:
        """Build that response and send it through its transaction."""
        tx.respond(status, self.response(tx, status, headers, body, to_tag, reason), now)

    def refuse(
        self,
        tx: ServerTransaction,
        status: int,
        now: float,
        headers: Iterable[tuple[str, str]] = (),
        *,
        established: bool = False,
    ) -> None:
        """Refuse a request; ``established``: its To has a tag already."""
        self.respond(tx, status, now, headers, to_tag="" if established else self.ids.tag())

    def wall(self, now: float) -> float:
        """Wall-clock seconds of a monotonic time."""
        return now + self._wall_offset

    def session_id(self) -> int:
        """An o= session id."""
        return int.from_bytes(self.ids.token()[:7].encode(), "big")
