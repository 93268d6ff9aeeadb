"""The keeper's duplicates of a media worker's RTP sockets; the other end, and the messages: ``media.kept_pairs``."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from itertools import islice

from media.kept_pairs import ANSWERED, ASK, ASKED, DROP, KEEP, KEY_BYTES, PAIRS_A_MESSAGE
from sbc.supervisor.sockets import enlarge_buffers

AT_ONCE = 64  # messages of one worker, before others have their turn


class PairStore:
    """Those of one worker slot. ``ours`` is read by the keeper, ``theirs`` inherited by the workers, one at a time."""

    def __init__(self, theirs: socket.socket | None = None) -> None:
        """``theirs``: in a process that has that end alone."""
        if theirs is None:
            self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (self.ours, self.theirs):
                end.setblocking(False)
                enlarge_buffers(end)
        else:
            self.ours, self.theirs = socket.socket(), theirs
            self.ours.close()
        self._pairs: dict[bytes, list[int]] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def serve(self) -> None:
        """Do what the worker asks, as far as it has."""
        for _ in range(AT_ONCE):
            try:
                data, fds, _, _ = socket.recv_fds(self.ours, 1 + KEY_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            kind, rest = data[:1], data[1:]
            if kind == KEEP and len(fds) == 2:
                self._drop(rest)
                self._pairs[rest] = fds
                continue
            for fd in fds:  # one alone, where there was room for no more
                os.close(fd)
            if kind == DROP:
                self._drop(rest)
            elif kind == ASK and len(rest) == ASKED.size:
                self._answer(*ASKED.unpack(rest))
            elif not data:
                return

    def _answer(self, token: int, first: int) -> None:
        pairs = list(islice(self._pairs.items(), first, first + PAIRS_A_MESSAGE))
        left = max(0, len(self._pairs) - first - len(pairs))
        keys = b"".join(key for key, _ in pairs)
        fds = [fd for _, both in pairs for fd in both]
        with suppress(OSError):  # whoever asked looks for it in vain, and binds what it can
            socket.send_fds(self.ours, [ANSWERED.pack(token, left) + keys], fds)

    def _drop(self, key: bytes) -> None:
        for fd in self._pairs.pop(key, ()):
            os.close(fd)

    def let_go(self) -> None:
        """In a child of the keeper: only the worker's end is inherited further."""
        self.ours.close()
        for key in list(self._pairs):
            self._drop(key)

    def close(self) -> None:
        """Everything."""
        self.let_go()
        self.theirs.close()
