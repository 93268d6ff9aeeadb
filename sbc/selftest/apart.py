"""Apart from the rest of the machine: network and mounts of this process' own, which end with it. For root alone."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sbc.selftest.measure import NotTried

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # unshare(2)
MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 0x4000, 1 << 18, 2, 4  # mount(2)
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # netdevice(7)

_libc = ctypes.CDLL(None, use_errno=True)


def go_apart() -> bool:
    """Leave the machine's network and mounts behind, before any thread is started; False where we may not."""
    if os.geteuid() != 0 or _libc.unshare(CLONE_NEWNET | CLONE_NEWNS):
        return False
    if _libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return True


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A file system of this size in ``folder``. NotTried where we may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size_bytes},mode=0777".encode()
    if _libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options):
        raise NotTried(f"a small disk cannot be mounted ({os.strerror(ctypes.get_errno())}): run it as root")
    try:
        yield
    finally:
        _libc.umount2(str(folder).encode(), 2)  # MNT_DETACH
