"""What a SIP worker does when it relieves another one, or is relieved: see :mod:`sbc.worker.relief`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sbc.b2bua.call import Call
from sbc.b2bua.effects import Transmit
from sbc.worker.beginning import Beginning
from sbc.worker.keep_alive import KeepAliveSide
from sbc.worker.media import MediaSide
from sbc.worker.peers import Frame
from sbc.worker.relief import Arriving, Leaving, Parts, Receive


class ReliefSide:
    """``handed_over`` is a turn for what others have handed over; ``divert`` has messages of this worker given to
    another receiver, ``sends`` effects to another performer; ``mute`` stops reading the sockets, ``close_listeners``
    takes no more connections at them, ``stop`` ends the worker."""

    def __init__(
        self,
        parts: Parts,
        beginning: Beginning,
        media: MediaSide,
        keep_alive: KeepAliveSide,
        *,
        handed_over: Callable[[], None],
        divert: Callable[[Receive], None],
        sends: Callable[[Callable[[Transmit], None]], None],
        mute: Callable[[], None],
        close_listeners: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._beginning = beginning
        self._media = media
        self._keep_alive = keep_alive
        self._handed_over = handed_over
        self._divert = divert
        self._sends = sends
        self._mute = mute
        self._close_listeners = close_listeners
        self._stop = stop
        self._leaving: Leaving | None = None
        self._arriving: Arriving | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether calls of our shards may be with another worker."""
        return self._leaving is not None or self._arriving is not None

    async def comes_to_serve(self, stopped: asyncio.Future[None]) -> bool:
        """Wait until this worker is to serve; False where it is to stop."""
        return await (self._arrive(stopped) if self._parts.slot.relieves else self._beginning.stand_by(stopped))

    async def _arrive(self, stopped: asyncio.Future[None]) -> bool:
        """Be ready to relieve another worker, and wait until it gives its sockets up."""
        self._arriving = Arriving(self._parts, self._handed, self._media.notified)
        begins = self._arriving.begins
        await self._beginning.prepare()
        self._divert(self._arriving.receive)
        self._parts.loop.add_reader(self._parts.hand_over.fileno(), self._handed_over)
        self._parts.slot.page.ready()
        await asyncio.wait([begins, stopped], return_when=asyncio.FIRST_COMPLETED)
        return not stopped.done()

    def told(self, frame: Frame) -> None:
        """Something from those that we relieve."""
        if self._arriving is not None:
            self._arriving.told(frame)

    def signalled(self, limit_s: float) -> None:
        """Another worker is ready to relieve this one, which ends after ``limit_s`` at the latest; or this one has
        relieved others, and they have ended."""
        if self._arriving is not None:
            self._arriving.alone()
            self._arriving = None
            self._divert(self._parts.receive)
            self._beginning.look_for_more()
            return
        leaving = Leaving(self._parts, self._stop)
        if self._leaving is not None or not leaving.may_begin():
            return
        self._leaving = leaving
        self._sends(leaving.transmit)
        self._divert(leaving.receive)
        self._media.leave(leaving.news)
        self._keep_alive.leave()
        if leaving.is_read_by_another(self._parts.slot.seat):
            self._mute()
        else:
            self._close_listeners()
        leaving.begin(limit_s)

    def _handed(self, record: bytes) -> list[str]:
        """Take up a call that another worker has handed over; the Call-IDs of its legs."""
        now, wall = self._parts.now(), self._parts.wall()
        call = self._parts.core.resume(record, now, wall)
        self._parts.core.fire(now, wall)  # the journal is to know whose it is
        self._parts.wake()
        if not isinstance(call, Call):
            return []
        call.resumed = False  # nothing of it was lost
        return [leg.dialog.call_id for leg in call.legs()]
