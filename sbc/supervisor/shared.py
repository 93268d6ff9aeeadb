"""Memory that all processes of a node share, also those that begin in an interpreter of their own: one file without a
name, and in it places with names.

Not by ``mmap``, which keeps a descriptor for each map: with one of those a worker could map what is none of its
business.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Mapping

PAGE = mmap.ALLOCATIONGRANULARITY
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Shared:
    """Made by the keeper; ``fd`` and ``places`` (offset and octets by name) are those of one that there is already."""

    def __init__(self, fd: int = -1, places: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.fd = fd if fd >= 0 else os.memfd_create("sbc-shared", os.MFD_CLOEXEC)
        self.places: dict[str, tuple[int, int]] = dict(places or {})
        self._end = max((at + size for at, size in self.places.values()), default=0)

    def map(self, name: str, size: int) -> memoryview:
        """The place of this name as octets, zeros where it is new, until the last view of it is released. ValueError:
        there is one of another size."""
        at, found = self.places.get(name, (-1, size))
        if found != size:
            raise ValueError(f"{name}: {found} octets are shared, not {size}")
        if at < 0:
            at = -(-self._end // PAGE) * PAGE
            self._end = at + size
            os.ftruncate(self.fd, self._end)
            self.places[name] = at, size
        address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, self.fd, at)
        if address == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        place = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(place, _libc.munmap, address, size).atexit = False
        return memoryview(place).cast("B")

    def close(self) -> None:
        """Nothing more is mapped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
