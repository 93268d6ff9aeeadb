"""Port pairs of one realm: even RTP, odd RTCP (RFC 3550 §11), drawn at random, each at most once, with quarantine.

To open the sockets of a pair costs several times what the rest of a call costs, so a pair stays bound when its call
has ended: what comes late meets no closed port and no other call, it is dropped and counted.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import deque
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Final, Protocol

SPARE: Final = 64  # bound pairs to choose among, before another is bound: who is to guess has so many to guess from
FRESH_EVERY: Final = 32  # one call in so many gets a port out of the whole range, so that those in use wander
ATTEMPTS: Final = 16  # at ports that another program holds, or that a stranger floods
SHUT_AT_ONCE: Final = 2  # pairs that one call closes for being too many
UNKNOWN: Final = -1  # a DSCP: whatever it is, it is none that a call asks for
_WANTING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # of which less use would help


class BufferedRandom(SystemRandom):
    """The system's random source, asked once for many numbers; only ``random`` is buffered."""

    def __init__(self) -> None:
        self._drawn: list[float] = []
        super().__init__()

    def random(self) -> float:
        """As Random.random: 0 or more, below 1."""
        if not self._drawn:
            self._drawn = [(word >> 11) * 2.0**-53 for word in struct.unpack("=256Q", os.urandom(2048))]
        return self._drawn.pop()


class NoPortError(Exception):
    """No pair can be had; the text says why. ``wanting``: for want of descriptors, which others may be holding."""

    def __init__(self, reason: str, *, wanting: bool = False) -> None:
        super().__init__(reason)
        self.wanting = wanting


class Sockets(Protocol):
    """What opens pairs and lends them to rules: media._datapath.Datapath, or a fake."""

    def open(self, local: bytes, dscp: int = 0) -> int: ...

    def mark(self, pair: int, dscp: int) -> int: ...

    def shut(self, pair: int) -> int: ...

    def attach(self, pair: int, index: int) -> int: ...

    def resume(self, pair: int, index: int) -> int: ...

    def detach(self, index: int) -> int: ...

    def attend(self, index: int) -> bool: ...

    def forget(self, index: int) -> None: ...


class PortPool:
    """All even ports of an inclusive range whose odd neighbour is in it too; every operation is O(1).

    ``local`` gives the packed address of a port. A pair is free and unbound, lent to a rule, in quarantine, or idle:
    free and bound, at most ``keep`` of them. A pair that comes back is lent again only ``quarantine_s`` later, and what
    had arrived by then is dropped, so that late packets of one call never meet the next one. Which pair is drawn is
    random: spraying a range finds a call only by luck. Times are monotonic seconds and do not run backwards.
    """

    def __init__(
        self,
        local: Callable[[int], bytes],
        ports: tuple[int, int],
        quarantine_s: float,
        random: Random,
        sockets: Sockets,
        keep: int = 512,
    ) -> None:
        low, high = ports
        self._range = range(low + low % 2, high, 2)
        self._unbound = list(self._range)
        self._idle: list[int] = []
        self._quarantine: deque[tuple[float, int]] = deque()  # until when, pairs
        self._shut_early: deque[tuple[float, int]] = (
            deque()
        )  # until when, ports: in quarantine too, but without sockets
        self._bound: set[int] = set()  # pairs with sockets
        self._adopted: set[int] = set()  # ports, until settled
        self._inherited: dict[int, int] = {}  # pairs by port, until adopted or settled
        self._marked: dict[int, int] = {}  # DSCP of pairs that have one
        self._strays: set[int] = set()  # pairs from outside the range: closed when they come back
        self._local = local
        self._quarantine_s = quarantine_s
        self._keep = keep
        self._random = random
        self._sockets = sockets
        self._turn = 0

    def lend(self, index: int, now: float, dscp: int = 0) -> None:
        """Attach a free pair to a rule, with this DSCP on what it sends; raises NoPortError."""
        if self._inherited:  # and nobody has asked for it
            self.settle(now)
        self.ripen(now, SHUT_AT_ONCE)
        self._turn += 1
        fresh = len(self._idle) < SPARE or self._turn % FRESH_EVERY == 0
        for _ in range(ATTEMPTS):
            pair = self._draw(fresh)
            if not self._sockets.attach(pair, index):
                if dscp or self._marked:
                    self._mark(pair, dscp)
                return
            self._quarantine.append((now + self._quarantine_s, pair))
        raise NoPortError("the free ports are being flooded")

    def release(self, index: int, now: float) -> None:
        """Take the pair of a rule back, into quarantine; a rule without one is ignored."""
        pair = self._sockets.detach(index)
        if pair >= 0:
            self._quarantine.append((now + self._quarantine_s, pair))

    def ripen(self, now: float, limit: int) -> None:
        """Free the pairs whose quarantine is over; of those that are more than to be kept, ``limit`` are closed."""
        quarantine = self._quarantine
        while quarantine and quarantine[0][0] <= now:
            pair = quarantine[0][1]
            if len(self._idle) < self._keep and pair not in self._strays:
                self._idle.append(pair)
            elif limit:
                limit -= 1
                self._unbound += self._shut(pair)
            else:
                break
            quarantine.popleft()
        while self._shut_early and self._shut_early[0][0] <= now:
            self._unbound.append(self._shut_early.popleft()[1])

    def shed(self, limit: int) -> int:
        """Close up to ``limit`` pairs that no call has, for others who want descriptors; returns how many that was."""
        for done in range(limit):
            if self._idle:
                self._unbound += self._shut(self._idle.pop())
            elif self._quarantine:
                until, pair = self._quarantine.popleft()
                self._shut_early += ((until, port) for port in self._shut(pair))
            else:
                return done
        return limit

    def claims(self, local: bytes) -> bool:
        """Whether a packed address is one of ours."""
        port = int.from_bytes(local[2:4], "big")
        return port in self._range and self._local(port) == local

    def shares(self, local: bytes) -> bool:
        """The same whatever the port."""
        return self._local(int.from_bytes(local[2:4], "big")) == local

    def inherit(self, port: int, pair: int) -> None:
        """A predecessor has bound this pair; whoever wants just that one asks before anything is lent."""
        self._bound.add(pair)
        self._marked[pair] = UNKNOWN
        self._inherited[port] = pair

    def prepare(self, port: int) -> None:
        """Somebody may take this pair over some day: bind it, as if inherited. What cannot be bound now may be then."""
        if port not in self._inherited:
            pair = self._bind(port)
            if pair >= 0:
                self._inherited[port] = pair

    def spare(self, port: int) -> None:
        """Nobody will: close it."""
        pair = self._inherited.pop(port, -1)
        if pair >= 0:
            self._bound.remove(pair)
            self._marked.pop(pair, None)
            self._sockets.shut(pair)

    def adopt(self, index: int, port: int, dscp: int = 0) -> int:
        """Attach exactly this pair, as a predecessor had it, even from outside the range; what waits there is relayed.
        Returns 0 or an errno. ``settle`` must follow before anything is lent.
        """
        pair = self._inherited.pop(port, -1)
        if pair < 0:
            pair = self._bind(port)
        if pair < 0:
            return -pair
        if port in self._range:
            self._adopted.add(port)
        else:
            self._strays.add(pair)
        if dscp or pair in self._marked:
            self._mark(pair, dscp)
        return self._sockets.resume(pair, index)

    def disown(self, index: int) -> None:
        """Close what was adopted for a rule."""
        pair = self._sockets.detach(index)
        if pair >= 0:
            self._bound.remove(pair)
            self._marked.pop(pair, None)
            self._strays.discard(pair)
            self._adopted.discard(self._sockets.shut(pair))

    def settle(self, now: float) -> None:
        """What was adopted is free no more; what was inherited and not adopted is, after a quarantine."""
        for port, pair in self._inherited.items():
            self._quarantine.append((now + self._quarantine_s, pair))
            if port in self._range:
                self._adopted.add(port)
            else:
                self._strays.add(pair)
        self._inherited.clear()
        self._unbound = [port for port in self._unbound if port not in self._adopted]
        self._adopted.clear()

    def _mark(self, pair: int, dscp: int) -> None:
        """A mark that cannot be set costs the call nothing but its mark."""
        if self._marked.get(pair, 0) != dscp and not self._sockets.mark(pair, dscp):
            if dscp:
                self._marked[pair] = dscp
            else:
                del self._marked[pair]

    def _bind(self, port: int) -> int:
        """The pair, or minus an errno."""
        pair = self._sockets.open(self._local(port))
        if pair >= 0:
            self._bound.add(pair)
        return pair

    def _shut(self, pair: int) -> tuple[int, ...]:
        """Close a pair; the port that it had, if it is one of the range."""
        self._bound.remove(pair)
        self._marked.pop(pair, None)
        port = self._sockets.shut(pair)
        if pair in self._strays:
            self._strays.remove(pair)
            return ()
        return (port,)

    def _draw(self, fresh: bool) -> int:
        error = 0
        if self._unbound and (fresh or not self._idle):
            pair = self._open()
            if pair >= 0:
                return pair
            error = -pair
        if self._idle:
            return _pick(self._idle, self._random)
        if not error:
            raise NoPortError("every port pair of the range is in use or waits out its quarantine")
        raise NoPortError(f"no port can be bound: {os.strerror(error)}", wanting=error in _WANTING)

    def _open(self) -> int:
        """A pair, bound now, or minus an errno."""
        pair, foreign = -errno.EADDRINUSE, list[int]()
        while self._unbound and pair == -errno.EADDRINUSE and len(foreign) < ATTEMPTS:
            port = _pick(self._unbound, self._random)
            pair = self._bind(port)
            if pair < 0:
                foreign.append(port)
        self._unbound += foreign
        return pair

    @property
    def free(self) -> int:
        """Pairs that could be lent now, or after ``ripen``."""
        return len(self._unbound) + len(self._idle)

    @property
    def bound(self) -> int:
        """Pairs with sockets, whether lent or not."""
        return len(self._bound)

    @property
    def quarantined(self) -> int:
        """Pairs that wait."""
        return len(self._quarantine) + len(self._shut_early)


def _pick(numbers: list[int], random: Random) -> int:
    """Take one out; the order of the others is of no account."""
    at = int(random.random() * len(numbers))
    numbers[at], numbers[-1] = numbers[-1], numbers[at]
    return numbers.pop()
