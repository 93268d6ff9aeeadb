"""What clients and servers share: a state, its two timers, and the interpreter of the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeVar

from sbc.sip.flow import Flow
from sbc.transaction.tables import EVENTS, NEVER, STATE_NAMES, STATES, TERMINATED, Machine
from sbc.transaction.timers import Timer

if TYPE_CHECKING:
    from sbc.sip.message import Message
    from sbc.transaction.layer import TransactionLayer

T = TypeVar("T", bound="Transaction")
Action = Callable[[T, "Message | None", float], None]
Rows = tuple[tuple[int, tuple[Action[T], ...]] | None, ...]
Timers = tuple[tuple[int, int], ...]


def compile_rows(machine: Machine, actions: dict[int, Action[T]]) -> Rows[T]:
    """The machine's table as a flat tuple by `state * EVENTS + event`; None where nothing happens."""
    rows: list[tuple[int, tuple[Action[T], ...]] | None] = [None] * (STATES * EVENTS)
    for (state, event), (target, names) in machine.table.items():
        rows[state * EVENTS + event] = (target, tuple(actions[name] for name in names))
    return tuple(rows)


def compile_timers(machine: Machine) -> Timers:
    """The machine's timers as a tuple by state."""
    none = machine.timers[TERMINATED]
    return tuple(machine.timers.get(state, none) for state in range(STATES))


class Transaction:
    """One transaction; subclasses set the machine and the actions."""

    __slots__ = ("_delays", "_end", "_interval_s", "_layer", "_queue", "_repeat", "flow", "method", "state")

    _timers: ClassVar[Timers] = ()

    def __init__(self, layer: TransactionLayer, method: str, flow: Flow) -> None:
        self.method = method
        self.flow = flow
        self.state = TERMINATED
        self._layer = layer
        self._queue = layer.timers
        self._delays = layer.delays(flow)
        self._repeat: Timer | None = None
        self._end: Timer | None = None
        self._interval_s = 0.0

    @property
    def terminated(self) -> bool:
        """The layer has forgotten this transaction."""
        return self.state == TERMINATED

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {STATE_NAMES[self.state]}>"

    def _step(self, event: int, message: Message | None, now: float) -> None:
        raise NotImplementedError

    def _leave(self) -> None:
        """Terminated: the layer is to forget this transaction, and it what it holds."""
        raise NotImplementedError

    def _enter(self, state: int, now: float) -> None:
        """Change the state, with its timers: one that the old and the new state both name goes on."""
        old_repeat, old_end = self._timers[self.state]
        repeat, end = self._timers[state]
        self.state = state
        if repeat != old_repeat:
            if self._repeat is not None:
                self._repeat.cancel()
                self._repeat = None
            if repeat >= 0 and self._delays[repeat] != NEVER:
                self._repeat_after(self._delays[repeat], now)
        if end != old_end:
            if self._end is not None:
                self._end.cancel()
                self._end = None
            if end >= 0:
                self._end_after(self._delays[end], now)
        if state == TERMINATED:
            self._leave()

    def _repeat_after(self, delay_s: float, now: float) -> None:
        self._interval_s = delay_s
        self._repeat = self._queue.start(delay_s, self._on_repeat, now)

    def _end_after(self, delay_s: float, now: float) -> None:
        self._end = self._queue.start(delay_s, self._on_end, now)

    def _on_repeat(self, now: float) -> None:
        self._repeat = None
        self._step(self._timers[self.state][0], None, now)

    def _on_end(self, now: float) -> None:
        self._end = None
        self._step(self._timers[self.state][1], None, now)

    def _double(self, message: Message | None, now: float) -> None:
        self._repeat_after(2 * self._interval_s, now)

    def _double_to_t2(self, message: Message | None, now: float) -> None:
        self._repeat_after(min(2 * self._interval_s, self._layer.settings.t2_s), now)

    def _every_t2(self, message: Message | None, now: float) -> None:
        self._repeat_after(self._layer.settings.t2_s, now)

    def _absorb(self, message: Message | None, now: float) -> None:
        self._layer.count("RETRANSMISSION_IN")
