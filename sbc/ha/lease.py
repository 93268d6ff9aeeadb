"""The lease in the store: one script, asked over a connection of its own whose every command has a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sbc.ha.election import Ask, Lease
from sbc.store.breaker import Breaker, State
from sbc.store.keys import Keys
from sbc.store.pipe import Pipe, Reply
from sbc.store.script import Script, unknown
from sbc.store.url import StoreAddress

DEADLINE_S = 0.2
ATTEMPT_S = 0.3

Answered = Callable[[Lease | None], None]


class LeaseStore:
    """``node`` is the name that both nodes share, ``me`` that of this one."""

    def __init__(
        self, address: StoreAddress, node: str, me: str, lease_s: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.reason = ""  # why there was no answer last; empty: there was one
        self._keys = Keys(node).lease
        self._me = me
        self._ttl_ms = round(lease_s * 1000)
        self._script = Script("lease")
        self._pipe = Pipe(
            address,
            loop,
            key=self._keys[0],
            strict=True,
            deadline_s=DEADLINE_S,
            attempt_s=ATTEMPT_S,
            breaker=Breaker(first_s=0.05, longest_s=0.25),
            on_ready=lambda: self._script.load(self._pipe),
            on_change=self._changed,
        )

    def start(self) -> None:
        """Begin to connect."""
        self._pipe.start()

    def close(self) -> None:
        self._pipe.close()

    @property
    def doubts(self) -> tuple[str, ...]:
        """What would keep the store from outliving a death of its own, as far as those say who watch it."""
        return self._pipe.finder.doubts if self._pipe.finder is not None else ()

    def ask(self, what: Ask, token: int, done: Answered, to: str = "") -> None:
        """``done`` hears the answer, or None when there is none in time or the store refuses; once, maybe at once."""
        arguments = (*self._keys, what.value, self._me, token, self._ttl_ms, to)

        def replied(reply: Reply) -> None:
            if unknown(reply):
                self._script.send_source(self._pipe, heard, len(self._keys), *arguments)
            else:
                heard(reply)

        def heard(reply: Reply) -> None:
            match reply:
                case [int(mine), bytes(holder), int(latest), int(others)]:
                    self.reason = ""
                    done(Lease(bool(mine), holder.decode("utf-8", "replace"), latest, max(0, others)))
                case _:
                    self.reason = self.reason if self._pipe.is_open and self.reason else str(reply)
                    done(None)

        self._script.send(self._pipe, replied, len(self._keys), *arguments)

    def _changed(self, state: State, reason: str) -> None:
        if state is State.OPEN:
            self.reason = reason
