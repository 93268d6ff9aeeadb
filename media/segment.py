"""What a file with the state of a media worker holds, for those who keep it: nothing here maps or changes it."""

from __future__ import annotations

import os

from media.state import HEADER_BYTES, SLOT_BYTES, fault_of, state_size

_AT_ONCE = 256  # slots


def fault(fd: int, capacity: int) -> str:
    """Why a worker of ``capacity`` sessions could not go on with it, as part of a sentence ("is damaged"); "" where it
    can, or where nothing was written yet."""
    size = os.fstat(fd).st_size
    if not size:
        return ""
    header = os.pread(fd, HEADER_BYTES, 0)
    if not any(header):
        return ""
    if size != state_size(capacity):
        return fault_of(header, capacity) or "is damaged"
    return fault_of(header, capacity)


def sessions(fd: int, capacity: int) -> int:
    """How many sessions it holds, half-written ones included. Read, not mapped: to look at what was never used would
    take memory."""
    if fault(fd, capacity):
        return 0
    found = 0
    for slot in range(0, capacity, _AT_ONCE):
        part = os.pread(fd, min(_AT_ONCE, capacity - slot) * SLOT_BYTES, HEADER_BYTES + slot * SLOT_BYTES)
        words = memoryview(part[: len(part) // SLOT_BYTES * SLOT_BYTES]).cast("I")
        found += sum(bool(words[at] & 1 or words[at + 1]) for at in range(0, len(words), SLOT_BYTES // 4))
    return found
