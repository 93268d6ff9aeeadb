"""Keep-alive pings of one worker, and what all workers must know of phones that do not answer."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from sbc.b2bua.binding import Binding
from sbc.b2bua.core import Core
from sbc.b2bua.effects import BindingChanged
from sbc.config.models import Config
from sbc.services.keep_alive import KeepAlive
from sbc.sip.flow import Flow
from sbc.worker.peers import BINDING, Frame, HandOver
from sbc.worker.settings import keep_alive_settings
from sbc.worker.slot import SipSlot


class KeepAliveSide:
    """``wake`` asks for a turn of the worker, in which the core's effects are performed."""

    def __init__(
        self,
        slot: SipSlot,
        core: Core,
        hand_over: HandOver,
        *,
        now: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._slot = slot
        self._hand_over = hand_over
        self._now = now
        self._wake = wake
        self._service = KeepAlive(core)

    def configure(self, config: Config) -> None:
        """Ping as this configuration says."""
        self._service.configure(keep_alive_settings(config), self._now())
        self._wake()

    def leave(self) -> None:
        """Another worker pings from now on."""
        self._service.configure((), self._now())

    def changed(self, effect: BindingChanged) -> None:
        """Every other worker must know; one whose queue is full calls a phone in vain."""
        data = orjson.dumps([effect.uri, list(effect.flow), effect.lost_s])
        self._slot.seats.look()
        for slot in self._slot.seats.numbers:
            if slot != self._slot.slot:
                self._hand_over.give(slot, 0, "", 0, data, BINDING)

    def take(self, frame: Frame) -> None:
        """Another worker tells."""
        uri, flow, lost_s = orjson.loads(frame.data)
        self._service.told(Binding(uri, Flow(*flow)), lost_s, self._now())
