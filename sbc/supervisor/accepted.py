"""The configuration that serves, for a supervisor that comes after the one that took it over: the file may have been
edited since, and what nobody has accepted must not come into force because a process died.

It is pickled into memory that the keeper makes and that workers let go of before they are workers, so whoever could
write there has the rights of the supervisor already. There are two places; the one that is named last holds.
"""

from __future__ import annotations

import os
import pickle
import struct

from sbc.config.models import Config

_HEADER = struct.Struct("=QQQ")  # where it begins, its length, whether everybody has been told
_TOLD_AT = 16
_BODY_AT = 4096


class AcceptedConfig:
    """Made by the keeper before its first fork."""

    def __init__(self, config: Config) -> None:
        self._fd = os.memfd_create("sbc-config", os.MFD_CLOEXEC)
        self.write(config)
        self.told()

    def write(self, config: Config) -> None:
        """From now on this one serves; not all workers know of it yet."""
        data = pickle.dumps(config)
        at, length, _ = self._header()
        # Beside the one in force, of which not an octet may change before the header says so.
        place = _BODY_AT if at >= _BODY_AT + len(data) or not at else at + length
        os.pwrite(self._fd, data, place)
        os.pwrite(self._fd, _HEADER.pack(place, len(data), 0), 0)

    def told(self) -> None:
        """All workers have been told."""
        os.pwrite(self._fd, struct.pack("=Q", 1), _TOLD_AT)

    @property
    def is_told(self) -> bool:
        """Whether a supervisor came to tell all workers of the one in force."""
        return bool(self._header()[2])

    def read(self) -> Config:
        """The one in force."""
        at, length, _ = self._header()
        config = pickle.loads(os.pread(self._fd, length, at))
        assert isinstance(config, Config)
        return config

    def _header(self) -> tuple[int, int, int]:
        data = os.pread(self._fd, _HEADER.size, 0)
        at, length, told = _HEADER.unpack(data.ljust(_HEADER.size, b"\0"))
        return at, length, told

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)
