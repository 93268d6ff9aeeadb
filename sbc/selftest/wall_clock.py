"""Another wall clock for a node: a library that is compiled for the occasion and loaded before all others."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from sbc.selftest.measure import NotTried

SOURCE = Path(__file__).with_suffix(".c")


def compiler() -> str:
    """The C compiler of this machine. NotTried where there is none."""
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        raise NotTried("another wall clock for the node needs a C compiler: apt-get install gcc libc6-dev")
    return found


class WallClock:
    """The clock of all processes that are started with ``words`` before their command, and of their children.

    ``folder`` is for the library and for the file that says how far it is ahead of the machine's.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._library = folder / "clock", folder / "clock.so"
        self._file.write_bytes(bytes(8))

    def build(self) -> None:
        """Compile the library. NotTried, with what the compiler says, where that fails."""
        words = [compiler(), "-shared", "-fPIC", "-O2", "-o", str(self._library), str(SOURCE)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise NotTried(f"another wall clock for the node cannot be compiled: {done.stderr.strip()[-300:]}")

    @property
    def words(self) -> list[str]:
        """What stands before a command that is to go by it."""
        return ["env", f"LD_PRELOAD={self._library}", f"SBC_WALL_CLOCK={self._file}"]

    def set(self, ahead_s: float) -> None:
        """Have it go so far ahead of the machine's, or behind it, at once and in all processes."""
        fd = os.open(self._file, os.O_WRONLY)
        try:
            os.pwrite(fd, struct.pack("q", round(ahead_s * 1e9)), 0)
        finally:
            os.close(fd)
