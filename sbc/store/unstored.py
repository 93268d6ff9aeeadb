"""Records of answered calls that the store has not taken: in a file in memory, which outlives this process.

A 200 waits for the store only so long. Where it leaves without a record, a death of the worker would take the call with
it, and nobody could even write its CDR. So the record goes here first: one append to a file of ``run_dir``, which is
memory, so that no disk can hold the worker up. Nothing is written while the store takes what it is given. A successor
takes these calls up beside those of the store.

    portcullis-unstored 1
    <CRC-32> <member> <shard> <token> <version> <record>
    <CRC-32> <member>               the store has it by now, or its CDR
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sbc.config.models import Config

Note = Callable[[str, str, dict[str, Any]], None]  # level, event, fields; Any: log fields are free

HEADER = b"portcullis-unstored 1\n"
LIMIT_BYTES = 64 << 20  # some twenty thousand calls: beyond that they are as unprotected as the store leaves them
_FILE = re.compile(r"sip-(\d+)\.unstored")


class Left(NamedTuple):
    """A record that a worker had, and the store not. ``token`` is that of its node in its pair, 0 where it has none."""

    shard: int
    token: int
    version: int
    record: bytes


class Unstored:
    """The file of one SIP worker. Nothing here raises.

    ``others``  files of workers that are no more: what they have is taken over
    ``members`` of the calls that the file has, and the store not
    ``left``    by member, what a former worker left and the store has not confirmed yet; see :meth:`recover`
    """

    def __init__(self, path: Path, note: Note, others: Sequence[Path] = (), *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.members: set[str] = set()
        self.left: dict[str, Left] = {}
        self._path = path
        self._note = note
        self._others = others
        self._limit_bytes = limit_bytes
        self._fd = -1
        self._size = 0
        self._has_failed = False

    def recover(self) -> None:
        """Read what former workers left. Reads files, so it is for before the loop runs."""
        try:
            if self._path.exists():
                self._open()
            for other in self._others:
                self._adopt(other)
        except OSError as error:
            self._failed(error)

    def keep(self, member: str, shard: int, token: int, version: int, record: bytes) -> None:
        """The store has not taken this, and the call goes on."""
        if self._write(b"%b %d %d %d %b" % (member.encode(), shard, token, version, record)):
            self.members.add(member)

    def stored(self, member: str) -> None:
        """The store has the record, or the CDR, or a later owner the call."""
        if member not in self.members:
            return
        self.members.discard(member)
        self.left.pop(member, None)
        if self.members:
            self._write(member.encode())
            return
        try:
            os.ftruncate(self._fd, len(HEADER))
            self._size = len(HEADER)
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        """What the file has stays for a successor; where that is nothing the file goes."""
        if self._fd >= 0:
            if not self.members:
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        """The file, ours alone, with what is in it. OSError where it cannot be used, or another process uses it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found, good = _read(fd)
            os.ftruncate(fd, good)  # a line that a death has torn
            if not good:
                os.write(fd, HEADER)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._size = fd, good or len(HEADER)
        self.left |= found
        self.members |= found.keys()

    def _adopt(self, other: Path) -> None:
        fd = os.open(other, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for member, left in _read(fd)[0].items():
                self.left[member] = left
                self.keep(member, *left)
            other.unlink()
        finally:
            os.close(fd)

    def _write(self, body: bytes) -> bool:
        line = b"%08x %b\n" % (zlib.crc32(body), body)
        try:
            if self._fd < 0:
                self._open()
            if self._size + len(line) > self._limit_bytes:
                return False
            if os.write(self._fd, line) != len(line):
                os.ftruncate(self._fd, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._failed(error)
            return False
        self._size += len(line)
        return True

    def _failed(self, error: OSError) -> None:
        if not self._has_failed:
            self._has_failed = True
            said = f"cannot write {self._path}: {(error.strerror or str(error)).lower()}"
            self._note("error", "calls that the store does not take would not survive their worker", {"reason": said})


def open_unstored(config: Config, slot: int, note: Note, adopts: Callable[[int], bool]) -> Unstored:
    """That of SIP worker ``slot``, which sees to those of workers that there are no more as well, where ``adopts`` says
    so of their number."""
    folder = Path(config.run_dir)
    try:
        found = [match for match in map(_FILE.fullmatch, sorted(os.listdir(folder))) if match]
    except OSError:
        found = []
    others = [folder / match[0] for match in found if int(match[1]) != slot and adopts(int(match[1]))]
    made = Unstored(folder / f"sip-{slot}.unstored", note, others)
    made.recover()
    return made


def _read(fd: int) -> tuple[dict[str, Left], int]:
    """What a file has, and how many of its octets are sound."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    found: dict[str, Left] = {}
    if not data.startswith(HEADER):
        return found, 0
    good = len(HEADER)
    *lines, _ = data[good:].split(b"\n")
    for line in lines:
        checksum, _, body = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            break
        member, *rest = body.split(b" ", 4)
        if rest:
            found[member.decode()] = Left(int(rest[0]), int(rest[1]), int(rest[2]), rest[3])
        else:
            found.pop(member.decode(), None)
        good += len(line) + 1
    return found, good
