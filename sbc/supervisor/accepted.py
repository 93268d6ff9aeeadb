"""The configuration that serves, for a supervisor that comes after the one that took it over: the file may have been
edited since, and what nobody has accepted must not come into force because a process died.

It is pickled into memory that the keeper makes and that workers let go of before they are workers, so whoever could
write there has the rights of the supervisor already. There are two places; the one that is named last holds.
"""

from __future__ import annotations

import io
import os
import pickle
import struct

from sbc import __version__
from sbc.config.models import Config

_HEADER = struct.Struct("=QQQ")  # where it begins, its length, whether everybody has been told
_TOLD_AT = 16
_BODY_AT = 4096


class AcceptedConfig:
    """Made by the keeper before its first fork."""

    def __init__(self, config: Config | None = None, fd: int = -1) -> None:
        """``fd``: that of our parent, which has written it."""
        self.fd = fd if fd >= 0 else os.memfd_create("sbc-config", os.MFD_CLOEXEC)
        if config is not None:
            self.write(config)
            self.told()

    def write(self, config: Config) -> None:
        """From now on this one serves; not all workers know of it yet."""
        data = pickle.dumps(__version__) + pickle.dumps(config)
        at, length, _ = self._header()
        # Beside the one in force, of which not an octet may change before the header says so.
        place = _BODY_AT if at >= _BODY_AT + len(data) or not at else at + length
        os.pwrite(self.fd, data, place)
        os.pwrite(self.fd, _HEADER.pack(place, len(data), 0), 0)

    def told(self) -> None:
        """All workers have been told."""
        os.pwrite(self.fd, struct.pack("=Q", 1), _TOLD_AT)

    @property
    def is_told(self) -> bool:
        """Whether a supervisor came to tell all workers of the one in force."""
        return bool(self._header()[2])

    def read(self) -> Config | None:
        """The one in force; None where a supervisor of another release has written it."""
        at, length, _ = self._header()
        data = io.BytesIO(os.pread(self.fd, length, at))
        if pickle.load(data) != __version__:
            return None
        config = pickle.load(data)
        assert isinstance(config, Config)
        return config

    def _header(self) -> tuple[int, int, int]:
        data = os.pread(self.fd, _HEADER.size, 0)
        at, length, told = _HEADER.unpack(data.ljust(_HEADER.size, b"\0"))
        return at, length, told

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)
