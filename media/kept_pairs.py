"""Port pairs that outlive their worker: whoever starts the workers keeps a duplicate of each descriptor, so the sockets
stay bound when a worker dies, what arrives waits in them, and a successor gets them back.

The other end is ``sbc.supervisor.pair_store``. Messages (AF_UNIX, SOCK_SEQPACKET), with a pair's packed address as its
key: ``K`` key, and two descriptors: keep them; ``D`` key: close them; ``A`` token, first (u64, u32): all pairs from
that one on. The answer to the last one is token, left (u64, u32), and the keys, and two descriptors for each, of as
many pairs as go into a message; ``left`` are those that did not.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from typing import Final

from media._datapath import Datapath

KEEP, DROP, ASK = b"K", b"D", b"A"
ASKED: Final = struct.Struct("=QI")
ANSWERED: Final = struct.Struct("=QI")
PAIRS_A_MESSAGE: Final = 120  # the kernel takes 253 descriptors
KEY_BYTES: Final = 20  # of an address as media.rules packs it
RESTORE_LIMIT_S: Final = 3.0


class KeptPairs:
    """As ``media.ports.Sockets``: a datapath whose pairs are kept elsewhere, too.

    A pair that cannot be handed over serves all the same; it only ends with this worker.
    """

    def __init__(self, datapath: Datapath, channel_fd: int) -> None:
        self._datapath = datapath
        self._channel = socket.socket(fileno=os.dup(channel_fd))
        self._channel.setblocking(False)
        self._keys: dict[int, bytes] = {}  # of pairs that are kept
        self._unsaid: deque[bytes] = deque()  # keys of closed pairs, while the channel is full
        # What has nothing to do with that costs a call nothing.
        self.mark = datapath.mark
        self.attach = datapath.attach
        self.resume = datapath.resume
        self.detach = datapath.detach
        self.attend = datapath.attend
        self.forget = datapath.forget

    def open(self, local: bytes, dscp: int = 0) -> int:
        """As Datapath.open."""
        self._say()
        pair = self._datapath.open(local, dscp)
        if pair >= 0:
            with suppress(OSError):
                socket.send_fds(self._channel, [KEEP + local], [pair, self._datapath.rtcp_of(pair)])
                self._keys[pair] = local
        return pair

    def shut(self, pair: int) -> int:
        """As Datapath.shut."""
        key = self._keys.pop(pair, None)
        if key is not None:
            self._unsaid.append(key)
            self._say()
        return self._datapath.shut(pair)

    def _say(self) -> None:
        while self._unsaid:
            try:
                self._channel.send(DROP + self._unsaid[0])
            except OSError:
                return
            self._unsaid.popleft()

    def restore(self) -> dict[bytes, int]:
        """The pairs of our predecessors, by address: bound, and in the datapath already. Some may be missing."""
        found: dict[bytes, int] = {}
        token = time.monotonic_ns()  # what was meant for a predecessor is not for us
        deadline = time.monotonic() + RESTORE_LIMIT_S
        left = 1
        while left:
            got = self._ask(token, len(found), deadline)
            if not got:
                break
            keys, fds, left = got
            for n, key in enumerate(keys):
                pair = self._datapath.adopt(fds[2 * n], fds[2 * n + 1], int.from_bytes(key[2:4], "big"))
                if pair >= 0:
                    found[key] = pair
                    self._keys[pair] = key
        return found

    def _ask(self, token: int, first: int, deadline: float) -> tuple[list[bytes], list[int], int] | None:
        """Keys, descriptors, and how many pairs are left; None where nobody answers."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        with suppress(OSError):
            self._channel.send(ASK + ASKED.pack(token, first))
        while (wait_s := deadline - time.monotonic()) > 0 and poll.poll(wait_s * 1000):
            size = ANSWERED.size + PAIRS_A_MESSAGE * KEY_BYTES
            data, fds, _, _ = socket.recv_fds(self._channel, size, 2 * PAIRS_A_MESSAGE, socket.MSG_CMSG_CLOEXEC)
            if len(data) >= ANSWERED.size:
                answered, left = ANSWERED.unpack_from(data)
                keys = [data[at : at + KEY_BYTES] for at in range(ANSWERED.size, len(data), KEY_BYTES)]
                if answered == token and len(fds) == 2 * len(keys):
                    return keys, fds, left if keys else 0
            for fd in fds:
                os.close(fd)
            if not data:  # the other end is gone
                break
        return None

    def close(self) -> None:
        """The pairs stay kept."""
        self._channel.close()
