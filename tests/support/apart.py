"""Two test processes at once that do not meet: each gets a loopback, ports and network namespaces of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # of unshare(2)
MS_REC, MS_PRIVATE = 0x4000, 0x40000  # of mount(2)


def set_apart() -> bool:
    """Put this thread, and what it starts from now on, into namespaces of its own. False: not allowed."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        return False
    # where `ip netns` keeps what it has made
    named = Path("/run/netns")
    named.mkdir(exist_ok=True)
    for source, target, kind, flags in (
        (b"none", b"/", None, MS_REC | MS_PRIVATE),
        (b"none", bytes(named), b"tmpfs", 0),
    ):
        if libc.mount(source, target, kind, flags, None):
            raise OSError(ctypes.get_errno(), f"mount {target.decode()}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
    return True
