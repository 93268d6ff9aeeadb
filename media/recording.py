"""Recordings of sessions: what Record does, and the thread's side of it. ``ext/c/tap.h`` has the copies of packets and
``ext/c/record.h`` the files.

The relay puts copies into a bounded ring; the clerk's thread empties it and waits for the disk. A full ring costs the
recording packets, which are counted; a fault of the disk ends the recording, and calls go on. The header of a WAV is
renewed each second, so what a killed worker leaves is a WAV; its successor goes on in a new file, ``-2`` and so on.

A recorder of SIPREC (RFC 7866) would be one more reader of that ring, beside the writer of files: :class:`Recordings`
is told of everything that begins and ends, and decides what is tapped.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from media import protocol
from media._datapath import Tap
from media.config import RealmInterface
from media.counters import MediaCounter
from media.endpoint import Unusable, read_host
from media.files import Clerk, FileRefused, inside
from media.payloads import law_of
from media.rules import AT_FEATURES, AT_LOCAL_PORT, RULE_BYTES, RULE_U16, Feature
from media.session import NO_STREAM, Leg, Recorded, Session
from media.state import Arena

RING_BYTES = 8 * 1024 * 1024
MAX_RECORDINGS = 4096
MAX_PARTS = 99
MAX_FILE_NAME = 180
FORMATS = {"wav": 0, "pcap": 1}
_TAPPED = int(Feature.TAPPED)
Tell = Callable[[Session, dict[str, Any]], None]  # Any: JSON values


class Result(NamedTuple):
    """Of the thread: a recording is over, or (``ended`` False) has lost its first packets."""

    number: int
    ended: bool
    file: str
    totals: tuple[int, int, int, int, int, int]  # packets, lost, late, unreadable, frames, errno


@dataclass(slots=True)
class _Open:
    """A recording as the thread knows it; ``file`` is where it really is."""

    file: str
    told: bool = False


class Recordings:
    """The recordings of one worker. ``directory`` empty: there are none. ``tell`` takes notifications."""

    def __init__(
        self,
        arena: Arena,
        directory: str,
        realms: dict[str, RealmInterface],
        clerk: Clerk,
        tap_into: Callable[[Tap], None],
        tell: Tell,
        count: Callable[[MediaCounter, int], None],
    ) -> None:
        self._arena = arena
        self._directory = directory
        self._realms = realms
        self._clerk = clerk
        self._tap_into = tap_into
        self._tell = tell
        self._count = count
        self._tap: Tap | None = None
        self._free = list(range(MAX_RECORDINGS - 1, -1, -1))
        self._sessions: dict[int, Session] = {}  # by number of the recording, until its result is in
        # of the thread
        self._open: dict[int, _Open] = {}
        self._closing: list[int] = []
        self._results: deque[Result] = deque()

    # -- the relay's side

    def start(self, session: Session, request: protocol.Record) -> str:
        """Begin; returns the name of the file. A session that is recorded already stays so. Raises Unusable."""
        if session.recording is not None:
            return session.recording.name
        if not self._directory:
            raise Unusable("no_file", "this media worker has no directory of recordings (media: recordings)")
        if not request.file or len(request.file) > MAX_FILE_NAME:
            raise Unusable("no_file", f"the name of a recording has 1 to {MAX_FILE_NAME} characters")
        recorded = Recorded(request.file, request.format, request.left, request.stream)
        try:
            inside(self._directory, recorded.name)
        except FileRefused as refusal:
            raise Unusable(refusal.code, refusal.reason) from None
        if request.format == "wav" and request.formats and law_of(request.formats[0]) is None:
            named = request.formats[0]
            raise Unusable("no_codec", f"a WAV is made of PCMA and PCMU, this call has {named}: record it as pcap")
        self._begin(session, recorded)
        return recorded.name

    def stop(self, session: Session) -> None:
        """End it, if there is something; ``recorded`` tells when it is written."""
        recorded, session.recording = session.recording, None
        if recorded is None:
            return
        session.changed = True
        for leg in session.legs.values():
            for index in leg.rules:
                if index != NO_STREAM:
                    self.freed(index)
        self._clerk.submit(lambda: self._closing.append(recorded.number))

    def made(self, session: Session, leg: Leg, index: int) -> None:
        """A leg of a session that is recorded has this rule."""
        recorded = session.recording
        if recorded is None or self._tap is None or leg.rules.index(index) != recorded.stream:
            return
        number, side, tap = recorded.number, int(leg.name != recorded.left), self._tap
        local = read_host(self._realms[leg.realm].address).at(self._arena.u16[index * RULE_U16 + AT_LOCAL_PORT])
        self._clerk.submit(lambda: tap.face(number, side, local))
        tap.point(index, number, side)
        self._arena.octets[index * RULE_BYTES + AT_FEATURES] |= _TAPPED

    def freed(self, index: int) -> None:
        """Nothing of this rule is recorded any more."""
        self._arena.octets[index * RULE_BYTES + AT_FEATURES] &= ~_TAPPED & 0xFF
        if self._tap is not None:
            self._tap.clear(index)

    def resume(self, session: Session) -> None:
        """Go on in a new file with what a predecessor recorded."""
        if session.recording is None:
            return
        former = session.recording
        try:
            if not self._directory:
                raise Unusable("no_file", "there is no directory of recordings any more")
            self._begin(session, Recorded(former.file, former.format, former.left, former.stream))
        except Unusable:
            session.recording = None
            session.changed = True

    def take(self) -> None:
        """Tell of what the thread has done since."""
        while self._results:
            number, ended, file, totals = self._results.popleft()
            packets, lost, late, unreadable, frames, error = totals
            session = self._sessions.get(number)
            if session is None:
                continue
            event: dict[str, Any] = {"event": "recorded", "session": session.id, "file": file, "lost": lost}
            if not ended:
                self._tell(session, {**event, "event": "recording_lost"})
                continue
            del self._sessions[number]
            self._free.append(number)
            event |= {"reason": "end", "packets": packets, "late": late, "unreadable": unreadable}
            if frames:
                event["seconds"] = round(frames / 8000, 2)
            self._count(MediaCounter.RECORDING_PACKETS_LOST, lost)
            if error:
                event |= {"reason": "failed", "text": f"{file} cannot be written: {os.strerror(error).lower()}"}
                self._count(MediaCounter.RECORDINGS_FAILED, 1)
                if session.recording is not None and session.recording.number == number:
                    self._untap(session)
            self._tell(session, event)

    def _untap(self, session: Session) -> None:
        session.recording = None
        session.changed = True
        for index in session.all_rules():
            self.freed(index)

    def _begin(self, session: Session, recorded: Recorded) -> None:
        if not self._free:
            raise Unusable("full", f"{MAX_RECORDINGS} sessions are recorded")
        if self._tap is None:
            self._tap = Tap(len(self._arena.rules), RING_BYTES)
            self._tap_into(self._tap)
            self._clerk.turn = self._turn
        number = recorded.number = self._free.pop()
        self._sessions[number] = session
        session.recording = recorded
        session.changed = True
        tap = self._tap
        self._clerk.submit(lambda: self._create(tap, number, recorded))  # before there is anything in the ring for it
        for leg in session.legs.values():
            for index in leg.rules:
                if index != NO_STREAM:
                    self.made(session, leg, index)
        self._count(MediaCounter.RECORDINGS, 1)

    # -- the thread's side

    def _create(self, tap: Tap, number: int, recorded: Recorded) -> None:
        """Make the file: 0640, in directories of 0750, never one that is there already."""
        error, name = 0, recorded.name
        for part in range(1, MAX_PARTS + 1):
            name = recorded.part(part)
            try:
                path = inside(self._directory, name)
                _make_parents(self._directory, name)
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            except FileExistsError as found:
                error = found.errno or 0
                continue
            except (OSError, FileRefused) as fault:
                error = getattr(fault, "errno", None) or 2
                break
            os.fchmod(fd, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP)
            error = tap.open(number, fd, FORMATS[recorded.format], time.monotonic_ns(), time.time_ns())
            break
        if error:
            self._results.append(Result(number, True, name, (0, 0, 0, 0, 0, error)))
            self._clerk.wake()
        else:
            self._open[number] = _Open(name)

    def _turn(self) -> bool:
        """Write what there is; True while there is somebody to write for."""
        tap = self._tap
        if tap is None:
            return False
        now_ns, end = time.monotonic_ns(), tap.head()
        if self._clerk.pending:  # a file may have to be made before what is in the ring for it is read
            return True
        tap.drain(end, now_ns)
        for number, recording in self._open.items():
            totals = tap.totals(number)
            if totals[5]:
                self._closing.append(number)
            elif totals[1] and not recording.told:
                recording.told = True
                self._results.append(Result(number, False, recording.file, totals))
                self._clerk.wake()
        closing, self._closing = self._closing, []
        for number in closing:
            done = self._open.pop(number, None)
            if done is not None:
                self._results.append(Result(number, True, done.file, tap.close(number)))
                self._clerk.wake()
        return bool(self._open)

    def close(self) -> None:
        """Of the thread, at the end of the worker: what is open is written to its end."""
        self._closing.extend(self._open)
        self._turn()


def _make_parents(directory: str, name: str) -> None:
    path = directory
    os.makedirs(path, 0o750, exist_ok=True)
    for part in name.split("/")[:-1]:
        path = os.path.join(path, part)
        try:
            os.mkdir(path, 0o750)
        except FileExistsError:
            continue
