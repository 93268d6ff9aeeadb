"""Prompts: WAV files, read once, kept as G.711 at 8000 Hz and shared by all who play them."""

from __future__ import annotations

import os
import stat
import struct
from collections import OrderedDict, deque
from enum import IntEnum
from typing import BinaryIO, NamedTuple

from media import _datapath
from media.files import Clerk, FileRefused, inside
from media.player import Law

KEPT_BYTES = 64 * 1024 * 1024
LONGEST_S = 600
MAX_CHUNKS = 64


class Coding(IntEnum):
    """Format tags of WAVE files that we read."""

    PCM = 1
    ALAW = 6
    ULAW = 7


class Form(NamedTuple):
    """What a WAV file holds, and where."""

    coding: Coding
    channels: int
    rate_hz: int
    at: int
    size_bytes: int


class Clip(NamedTuple):
    """One octet for each sample, in both laws."""

    ulaw: bytes
    alaw: bytes

    def of_law(self, law: int) -> bytes:
        """As it is sent."""
        return self.alaw if law == Law.A else self.ulaw


def read_form(file: BinaryIO) -> Form:
    """The form of a WAV file. Raises FileRefused (``bad_file``)."""
    file.seek(0, os.SEEK_END)
    end = file.tell()
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise FileRefused("bad_file", "it is no WAV file")
    at, found = 12, None
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        at += 8
        if kind == b"fmt ":
            found = _read_format(file.read(min(size, 40)))
        elif kind == b"data" and found is not None:
            coding, channels, rate_hz = found
            size = min(size, end - at)  # a writer that was cut off tells no size, or too large a one
            if size > LONGEST_S * rate_hz * channels * (2 if coding is Coding.PCM else 1):
                raise FileRefused("bad_file", f"it is longer than {LONGEST_S} s")
            if not size:
                raise FileRefused("bad_file", "there is no audio in it")
            return Form(coding, channels, rate_hz, at, size)
        at += size + size % 2
    raise FileRefused("bad_file", "it is a WAV file without a format or without audio")


def _read_format(data: bytes) -> tuple[Coding, int, int]:
    if len(data) < 16:
        raise FileRefused("bad_file", "its format is cut off")
    tag, channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", data[:16])
    if tag == 0xFFFE and len(data) >= 26:  # WAVE_FORMAT_EXTENSIBLE: the tag begins the sub-format
        tag = int.from_bytes(data[24:26], "little")
    coding = next((one for one in Coding if one == tag), None)
    if coding is None or bits != (16 if coding is Coding.PCM else 8):
        raise FileRefused("bad_file", f"format {tag} of {bits} bits: PCM of 16 bits, A-law and u-law can be played")
    if not 1 <= channels <= 2 or not 8000 <= rate_hz <= 48000:
        raise FileRefused("bad_file", f"{channels} channels at {rate_hz} Hz: 1 or 2 at 8000 to 48000 can be played")
    return coding, channels, rate_hz


class _Kept(NamedTuple):
    stamp: tuple[int, int, int]
    clip: Clip


class Clips:
    """The prompts of one directory (empty: there are none). Files are read by the clerk; a file that was replaced is
    read again when it is played the next time."""

    def __init__(self, directory: str, clerk: Clerk) -> None:
        self._directory = directory
        self._clerk = clerk
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # latest use last
        self._loading: set[str] = set()
        self._loaded: deque[tuple[str, _Kept | None, str]] = deque()

    def check(self, name: str) -> None:
        """Raises FileRefused where this cannot be played: ``no_file`` or ``bad_file``."""
        path = self._path(name)
        try:
            kept = self._kept.get(name)
            if kept is not None and kept.stamp == _stamp(os.stat(path)):
                return
            self._kept.pop(name, None)
            with _open(path) as file:
                read_form(file)
        except OSError as error:
            raise _refused(name, error) from None
        except FileRefused as refusal:
            raise FileRefused(refusal.code, f"{name!r} cannot be played: {refusal.reason}") from None

    def get(self, name: str) -> Clip | None:
        """A prompt that has been read."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        self._kept.move_to_end(name)
        return kept.clip

    def load(self, name: str) -> None:
        """Read it; ``take_loaded`` tells when that is done."""
        if name not in self._loading:
            self._loading.add(name)
            self._clerk.submit(lambda: self._load(name))

    def take_loaded(self) -> list[tuple[str, str]]:
        """Names that have been read since, each with a sentence where that failed."""
        done = []
        while self._loaded:
            name, kept, failure = self._loaded.popleft()
            self._loading.discard(name)
            if kept is not None:
                self._kept[name] = kept
                self._kept.move_to_end(name)
            done.append((name, failure))
        while len(self._kept) > 1 and sum(len(one.clip.ulaw) * 2 for one in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return done

    def _load(self, name: str) -> None:
        kept, failure = None, ""
        try:
            with _open(self._path(name)) as file:
                stamp = _stamp(os.fstat(file.fileno()))
                form = read_form(file)
                file.seek(form.at)
                data = file.read(form.size_bytes)
            kept = _Kept(stamp, Clip(*_datapath.convert(data, form.coding, form.channels, form.rate_hz)))
        except FileRefused as refusal:
            failure = refusal.reason
        except OSError as error:
            failure = _refused(name, error).reason
        self._loaded.append((name, kept, failure))
        self._clerk.wake()

    def _path(self, name: str) -> str:
        if not self._directory:
            raise FileRefused("no_file", "this media worker has no directory of prompts (media: prompts)")
        return inside(self._directory, name)


def _open(path: str) -> BinaryIO:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # a pipe would make us wait
        os.close(fd)
        raise FileRefused("no_file", "it is no file")
    return os.fdopen(fd, "rb")


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_mtime_ns, found.st_size


def _refused(name: str, error: OSError) -> FileRefused:
    return FileRefused("no_file", f"{name!r} cannot be read: {(error.strerror or str(error)).lower()}")
