"""Port pairs without sockets, as media.ports.Sockets wants them."""

from __future__ import annotations

import errno

from media.rules import RuleFlag
from media.state import Arena


class FakeSockets:
    """Notes what is open and what is lent to which rule; ``room`` is how many pairs may be open at a time.

    Ports in ``taken`` belong to another program, those in ``flooded`` cannot be emptied.
    """

    def __init__(self, arena: Arena, room: int = 10_000) -> None:
        self.arena = arena
        self.room = room
        self.open_ports: dict[int, int] = {}  # by pair
        self.bound: dict[int, int] = {}  # ports by rule
        self.taken: set[int] = set()
        self.flooded: set[int] = set()
        self.opens = self.shuts = 0
        self.dscp: dict[int, int] = {}  # by pair
        self.resumed: set[int] = set()  # ports whose queue was not thrown away
        self.attended: set[int] = set()  # rules for which time is minded

    def open(self, local: bytes, dscp: int = 0) -> int:
        """As Datapath.open."""
        port = int.from_bytes(local[2:4], "big")
        if port in self.taken or port in self.open_ports.values():
            return -errno.EADDRINUSE
        if len(self.open_ports) >= self.room:
            return -errno.EMFILE
        self.opens += 1
        pair = next(n for n in range(3, 20_000) if n not in self.open_ports)  # the lowest, as with descriptors
        self.open_ports[pair] = port
        self.dscp[pair] = dscp
        return pair

    def attend(self, index: int) -> bool:
        """As Datapath.attend."""
        self.attended.add(index)
        return True

    def forget(self, index: int) -> None:
        """As Datapath.forget."""
        self.attended.discard(index)

    def mark(self, pair: int, dscp: int) -> int:
        """As Datapath.mark."""
        assert pair in self.open_ports
        self.dscp[pair] = dscp
        return 0

    def shut(self, pair: int) -> int:
        """As Datapath.shut; what a rule has may not be shut."""
        self.shuts += 1
        port = self.open_ports.pop(pair)
        assert port not in self.bound.values()
        return port

    def attach(self, pair: int, index: int) -> int:
        """As Datapath.attach."""
        port = self.open_ports[pair]
        if port in self.flooded:
            return errno.EBUSY
        assert port not in self.bound.values(), "lent twice"
        assert index not in self.bound
        self.bound[index] = port
        rule = self.arena.rules[index]
        rule.rtp_fd, rule.local_port = pair, port
        rule.flags |= RuleFlag.IN_USE
        return 0

    def resume(self, pair: int, index: int) -> int:
        """As Datapath.resume."""
        self.resumed.add(self.open_ports[pair])
        return self.attach(pair, index)

    def detach(self, index: int) -> int:
        """As Datapath.detach."""
        if self.bound.pop(index, None) is None:
            return -errno.EBADF
        rule = self.arena.rules[index]
        rule.flags &= ~RuleFlag.IN_USE
        return rule.rtp_fd
