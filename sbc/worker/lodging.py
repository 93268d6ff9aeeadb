"""What workers say to each other of calls that one of them is to have from the other, and what comes for those."""

from __future__ import annotations

from collections.abc import Callable

from sbc.b2bua.effects import AskWorker, Forward
from sbc.worker.peers import LODGING, RECEIVED, HandOver
from sbc.worker.slot import SipSlot


class LodgingSide:
    """Performs the effects of :mod:`sbc.b2bua.lodging`; what is lost on the way its sender misses in time."""

    def __init__(self, slot: SipSlot, hand_over: HandOver, count: Callable[[str], None]) -> None:
        self._seats = slot.seats
        self._hand_over = hand_over
        self._count = count

    def forward(self, effect: Forward) -> None:
        """A message for a call that another worker has."""
        flow = effect.flow
        slot = self._seats.owner(effect.shard)
        given = self._hand_over.give(slot, flow.listener, flow.host, flow.port, effect.data, RECEIVED, flow.connection)
        self._count("HANDED_OVER_OUT" if given else "HAND_OVER_FAILED")

    def ask(self, effect: AskWorker) -> None:
        """A question, or the answer to one."""
        if not self._hand_over.give(self._seats.owner(effect.shard), 0, "", 0, effect.data, LODGING):
            self._count("HAND_OVER_FAILED")
