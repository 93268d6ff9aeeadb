"""The spool: finished CDRs on the disk of this machine, from the end of the call until they are in the database.

A file of lines for each SIP worker, which it appends to and syncs beside the store, so that a store without a disk is
never the only one that has a CDR. A thread of its own writes: what ends while it writes, or within the gathering
interval after it, goes out together with one write and one sync. The loop pays for two appends to a queue.

A segment is removed once all of its CDRs are in the database, the one in use is emptied, and says meanwhile up to where
they are. What a successor still finds goes to the store again; the table drops what comes twice.

    portcullis-cdr-spool 1
    <CRC-32> <number> <shard>[/<epoch>] <member> <CDR as JSON>
    <CRC-32> written <number>       of this segment, up to and with this one
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sbc.config.models import Config
from sbc.store.epoch import UNKNOWN

Note = Callable[[str, str, dict[str, Any]], None]  # level, event, fields; Any: log fields are free

HEADER = b"portcullis-cdr-spool 1\n"
GATHER_S = 0.1  # a write and its sync cost 0.3 ms of CPU: at 400 calls a second so less than 10 us for each
SEGMENT_BYTES = 1 << 20
WRITE_BYTES = 1 << 20  # of one write: what waited for room goes out piece by piece
LINE_BYTES = 16 << 20
PROBE_BYTES = 1 << 16
RETRY_S = 1.0
_NAME = re.compile(r"\d{8}\.cdr")
_FOLDER = re.compile(r"sip-(\d+)")


class Spooled(NamedTuple):
    """A CDR that may not be in the database yet; ``member`` as of :func:`sbc.store.keys.member_of`, ``number`` as
    counted by this worker."""

    number: int
    shard: int
    member: str
    cdr: bytes
    ceiling: int = UNKNOWN  # the last epoch with whose owners this one agrees that the call is over


class _Segment:
    """A file, and what of it is not in the database."""

    __slots__ = ("count", "done", "first", "last", "low", "path", "spoilt")

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first  # numbers from first to last; none while last < first
        self.last = first - 1
        self.low = first - 1  # all up to here are in the database
        self.done: set[int] = set()  # these too
        self.count = 0  # of those that are not
        self.spoilt = False  # with lines that nobody could read: set aside instead of removed

    def count_up(self) -> None:
        """Bring ``low`` up to where the database is."""
        while self.low + 1 in self.done:
            self.low += 1
            self.done.discard(self.low)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            if self.spoilt:
                self.path.rename(self.path.with_suffix(".bad"))
            else:
                self.path.unlink()


class Spool:
    """The spool of one SIP worker, in ``folder``. Nothing here raises, or holds the loop up once it has started.

    ``others`` folders of workers that are no more: what lies there is taken over
    ``note``   log lines; called in the spool's thread too
    ``error``  what is wrong with the disk now, empty when nothing is
    """

    def __init__(
        self,
        folder: Path,
        note: Note,
        others: Sequence[Path] = (),
        *,
        gather_s: float = GATHER_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self.error = ""
        self._folder = folder
        self._note = note
        self._others = others
        self._gather_s = gather_s
        self._retry_s = retry_s
        self._waiting: deque[Spooled] = deque()  # for the thread; what it failed to write is in front again
        self._segments: list[_Segment] = []  # by number; the last one is in use while there is a file
        self._early: set[int] = set()  # in the database before they were on the disk
        self._adopted: list[Path] = []  # files of others, to be removed once ours have what they held
        self._lock = threading.Lock()  # segments and early
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock_fd = -1
        self._fd = -1
        self._size = 0
        self._marked = 0
        self._serial = 0  # of the newest file
        self._next = 1

    # -- at start

    def recover(self) -> list[Spooled]:
        """What a former worker left, oldest first, with numbers of ours. What cannot be read is set aside, with a line
        in the log. Reads files, so it is for before the loop runs."""
        found: list[Spooled] = []
        try:
            self._claim()
            for path in _files(self._folder):
                found += self._take_up(path)
        except OSError as error:
            self._failed(error)
        for folder in self._others:
            found += self._adopt(folder)
        if found:
            self._note("warning", "CDRs of a former worker go to the store again", {"cdrs": len(found)})
        return found

    @property
    def next_number(self) -> int:
        """The first number for :meth:`add`; the others follow one by one."""
        return self._next

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def _claim(self) -> None:
        """OSError where the folder cannot be used, or a worker uses it that has not ended."""
        if self._lock_fd >= 0:
            return
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._lock_fd = _locked(self._folder)
        self._serial = max((int(path.name[:8]) for path in _files(self._folder)), default=0)

    def _take_up(self, path: Path) -> list[Spooled]:
        segment = _Segment(path, self._next)
        found, segment.spoilt = self._numbered(path)
        if found:
            segment.last, segment.count = found[-1].number, len(found)
            self._segments.append(segment)
        elif path.exists():
            segment.remove()
        return found

    def _adopt(self, folder: Path) -> list[Spooled]:
        """All that is there waits to be written to a file of ours; then it goes."""
        found: list[Spooled] = []
        try:
            fd = _locked(folder)
            try:
                for path in _files(folder):
                    found += self._numbered(path)[0]
                    self._adopted.append(path)
            finally:
                os.close(fd)
        except OSError as error:
            self._note("error", "CDRs of a former worker cannot be read", {"reason": _sentence(error, folder)})
        self._waiting.extend(found)
        return found

    def _numbered(self, path: Path) -> tuple[list[Spooled], bool]:
        items, spoilt = _read(path, self._note)
        items = [item._replace(number=self._next + place) for place, item in enumerate(items)]
        self._next += len(items)
        return items, spoilt

    # -- the loop's side

    def add(self, number: int, shard: int, member: str, cdr: bytes, ceiling: int = UNKNOWN) -> None:
        """Keep this; ``cdr`` is JSON without a line break."""
        self._waiting.append(Spooled(number, shard, member, cdr, ceiling))
        if not self._wake.is_set():
            self._wake.set()

    def written(self, numbers: Iterable[int]) -> None:
        """These are in the database."""
        with self._lock:
            starts = [segment.first for segment in self._segments]
            for number in numbers:
                at = bisect_right(starts, number) - 1
                if at < 0 or number > self._segments[at].last:
                    self._early.add(number)
                else:
                    segment = self._segments[at]
                    segment.count -= 1
                    segment.done.add(number)
        if not self._wake.is_set():
            self._wake.set()

    @property
    def unsaved(self) -> int:
        """How many CDRs are neither on the disk nor, for all we know, in the database."""
        return max(0, len(self._waiting) - len(self._early))

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, at most ``timeout_s`` long. Blocks."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return  # the disk holds it up; it ends with the process
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1

    # -- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._retry_s if self.error else None)
            self._wake.clear()
            self._turn()
            self._closing.wait(self._retry_s if self.error else self._gather_s)
        self._turn()

    def _turn(self) -> None:
        try:
            self._claim()
            while self._waiting:
                self._write_some()
            if self.error:
                self._probe()
            self._tidy()
        except OSError as error:
            self._failed(error)
        except Exception as error:  # a fault of ours must not end the thread: the CDRs are kept
            self._failed(OSError(errno.EIO, f"{type(error).__name__}: {error}"))
        else:
            if self.error:
                self._note("info", "CDRs are kept on disk again", {"folder": str(self._folder)})
                self.error = ""

    def _failed(self, error: OSError) -> None:
        said = _sentence(error, self._folder)
        known, self.error = self.error, said
        if not known:
            fields = {"reason": said, "waiting": len(self._waiting)}
            self._note("error", "CDRs cannot be kept on disk: they are kept in memory", fields)

    def _write_some(self) -> None:
        """One write and one sync. On OSError all of it waits again, and the file is what it was."""
        taken: list[Spooled] = []
        skipped: list[int] = []
        lines: list[bytes] = []
        size = 0
        while self._waiting and size < WRITE_BYTES:
            item = self._waiting.popleft()
            if item.number in self._early:
                skipped.append(item.number)
                continue
            taken.append(item)
            shard = b"%d" % item.shard if item.ceiling < 0 else b"%d/%d" % (item.shard, item.ceiling)
            lines.append(_line(b"%d %b %b %b" % (item.number, shard, item.member.encode(), item.cdr)))
            size += len(lines[-1])
        try:
            if taken:
                segment = self._segment_for(taken[0].number)
                if segment.low > self._marked:
                    lines.append(_line(b"written %d" % segment.low))
                    self._marked = segment.low
                self._append(b"".join(lines))
        except BaseException:
            self._waiting.extendleft(reversed(taken))
            raise
        finally:
            with self._lock:
                self._early.difference_update(skipped)
        if not taken:
            return
        with self._lock:
            segment.last = taken[-1].number
            segment.done.update(number for number in skipped if number >= segment.first)
            segment.count += len(taken)
            if self._early:
                for item in taken:
                    if item.number in self._early:  # while it was being written
                        self._early.discard(item.number)
                        segment.done.add(item.number)
                        segment.count -= 1

    def _segment_for(self, number: int) -> _Segment:
        """The segment in use, or a new one where it is full, failed or gone."""
        if self._fd >= 0 and (self._size >= SEGMENT_BYTES or os.fstat(self._fd).st_nlink == 0):
            self._leave()
        if self._fd < 0:
            self._open(number)
        segment = self._segments[-1]
        if segment.last < segment.first:  # empty: its numbers begin here
            with self._lock:
                segment.first, segment.last, segment.low = number, number - 1, number - 1
            self._marked = number - 1
        return segment

    def _open(self, number: int) -> None:
        path = self._folder / f"{self._serial + 1:08}.cdr"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = 0
        try:
            self._append(HEADER)
            _sync_folder(self._folder)
        except BaseException:
            self._leave()
            with suppress(OSError):
                path.unlink()
            raise
        self._serial += 1
        with self._lock:
            self._segments.append(_Segment(path, number))

    def _probe(self) -> None:
        """Whether there is room again, where nothing waits to be written that would show it."""
        if self._fd < 0:
            self._open(self._segments[-1].last + 1 if self._segments else 1)
        os.posix_fallocate(self._fd, self._size, PROBE_BYTES)
        os.ftruncate(self._fd, self._size)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            os.fdatasync(self._fd)
        except OSError:
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                self._leave()  # a torn line is at its end: nothing may follow it
            raise
        self._size += len(data)

    def _leave(self) -> None:
        """The segment in use gets no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _tidy(self) -> None:
        """Remove what is in the database as a whole, and empty the segment in use when it is."""
        with self._lock:
            used = self._segments[-1] if self._fd >= 0 else None
            for segment in self._segments:
                segment.count_up()
            finished = [segment for segment in self._segments if not segment.count]
            self._segments = [segment for segment in self._segments if segment.count or segment is used]
            if used in finished:
                used.last = used.first - 1
                used.done.clear()
        for segment in finished:
            if segment is not used:
                segment.remove()
            elif self._size > len(HEADER):
                os.ftruncate(self._fd, len(HEADER))
                self._size = len(HEADER)
        for path in self._adopted:  # all that waited has been written
            path.unlink(missing_ok=True)
        self._adopted.clear()


def open_spool(config: Config, slot: int, note: Note, adopts: Callable[[int], bool]) -> Spool:
    """The spool of SIP worker ``slot``, which sees to those of workers that there are no more as well, where ``adopts``
    says so of their number."""
    root = Path(config.cdr.spool or Path(config.state_dir) / "spool")
    slots = [int(match[1]) for match in map(_FOLDER.fullmatch, _names(root)) if match]
    others = [root / f"sip-{other}" for other in sorted(slots) if other != slot and adopts(other)]
    return Spool(root / f"sip-{slot}", note, others)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _line(body: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _files(folder: Path) -> list[Path]:
    """The segments of a folder, oldest first."""
    return sorted(folder / entry.name for entry in os.scandir(folder) if _NAME.fullmatch(entry.name))


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock of a folder; OSError while another process does."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise OSError(errno.EBUSY, "another process uses this folder") from None
    return fd


def _read(path: Path, note: Note) -> tuple[list[Spooled], bool]:
    """What a segment holds that may not be in the database, and whether there was something else in it."""
    items: list[Spooled] = []
    written = bad = 0
    with path.open("rb") as file:
        header = file.readline(len(HEADER))
        if header != HEADER:
            if not HEADER.startswith(header):  # else it was cut off as it was made
                _set_aside(path, header, note)
            return [], False
        for line in _lines(file):
            item = _parsed(line)
            if isinstance(item, Spooled):
                items.append(item)
            elif item is not None:
                written = max(written, item)
            else:  # a last line that a death has torn was never on the disk as a whole
                bad += line.endswith(b"\n") or len(line) >= LINE_BYTES
    if bad:
        fields = {"file": str(path), "lines": bad}
        note("error", "lines of the CDR spool cannot be read: the file will be set aside", fields)
    return [item for item in items if item.number > written], bad > 0


def _set_aside(path: Path, header: bytes, note: Note) -> None:
    aside = path.with_suffix(".bad")
    path.rename(aside)
    is_ours = header.startswith(HEADER.rpartition(b" ")[0])
    what = "is of another version" if is_ours else "is no CDR spool"
    note("error", f"a file in the CDR spool {what}: it was set aside", {"file": str(path), "as": str(aside)})


def _lines(file: Any) -> Iterator[bytes]:  # Any: a binary file
    while line := file.readline(LINE_BYTES):
        yield line


def _parsed(line: bytes) -> Spooled | int | None:
    """A CDR, the number up to which they are written, or None."""
    checksum, _, body = line.partition(b" ")
    if not body.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body[:-1]):
        return None
    try:
        first, _, rest = body[:-1].partition(b" ")
        if first == b"written":
            return int(rest)
        shard, member, cdr = rest.split(b" ", 2)
        shard, _, ceiling = shard.partition(b"/")
        return Spooled(int(first), int(shard), member.decode("ascii"), cdr, int(ceiling or UNKNOWN))
    except ValueError:  # ours by its checksum, but not of this version
        return None


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sentence(error: OSError, folder: Path) -> str:
    return f"cannot write {folder}: {(error.strerror or str(error)).lower()}"
