"""The versions of the operator's routes: each text that was taken to serve, kept in ``state_dir``.

Workers run the version that serves, never the file itself, so an edit of the file means nothing until a reload has
proven it, and a worker that starts anew gets what the others have. Written by one process at a time: the supervisor at
the start, the proof of a reload after that (:mod:`sbc.supervisor.proof`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.routing.loader import load_routes
from sbc.routing.routes import Routes

KEPT: Final = 20  # versions whose text is kept, the one that serves besides


@dataclass(frozen=True, slots=True)
class Version:
    """One text. ``source``: the path of its file; ``at``: when it was taken, seconds since 1970; ``by``: ``start``,
    ``reload``, or ``rollback to N``."""

    number: int
    source: str
    sha256: str
    at: float
    by: str


@dataclass(frozen=True, slots=True)
class Index:
    """What is kept, and how the last attempt at a reload ended. ``current`` 0: no version serves.

    ``left``: the digest of the file when it was rolled back from: it serves again once it is another, or is asked for.
    """

    current: int = 0
    left: str = ""
    attempt: int = 0
    refused: Sequence[str] = ()  # the reasons of the last attempt, none where it was taken
    attempted_at: float = 0.0
    versions: Sequence[Version] = field(default=())

    def version(self, number: int) -> Version | None:
        """A version that is kept."""
        return next((one for one in self.versions if one.number == number), None)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for: the file whatever was rolled back (``version`` 0), or a former version."""

    version: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to serve next. ``is_new`` False: it is the version that serves already."""

    text: bytes
    source: str
    by: str
    left: str = ""
    is_new: bool = True


class Versions:
    """The folder. ``owner`` (uid, gid) gets what is written, None: it stays ours."""

    def __init__(self, state_dir: str, owner: tuple[int, int] | None = None) -> None:
        self.folder = Path(state_dir) / "routes"
        self._owner = owner
        self._index = self.folder / "index.json"
        self._wish = self.folder / "wish.json"

    def read(self) -> Index:
        """The index; an empty one where there is none that can be read."""
        try:
            given = json.loads(self._index.read_bytes())
            given["versions"] = tuple([Version(**one) for one in given["versions"]])
            return Index(**given)
        except (OSError, ValueError, TypeError, KeyError):
            return Index()

    def text(self, number: int) -> bytes:
        """The text of a version. Raises ConfigError."""
        path = self.folder / f"{number}.py"
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError([f"version {number} of the routes: cannot read {path}: {_reason(error)}"]) from error

    def candidate(self, source: str, wish: Wish | None = None) -> Candidate:
        """What is to serve after a reload: what was wished for, else the file unless it was rolled back. Raises
        ConfigError for a file that cannot be read, and for a version that is not kept."""
        index = self.read()
        text = _file(source)
        current = index.version(index.current)
        if wish is not None and wish.version:
            former = index.version(wish.version)
            if former is None or former.source != source:
                kept = ", ".join([str(one.number) for one in index.versions if one.source == source]) or "none"
                raise ConfigError([f"no version {wish.version} of {source} is kept; there are: {kept}"])
            return Candidate(self.text(wish.version), source, f"rollback to {wish.version}", digest(text))
        if current is not None and current.source == source:
            rolled_back = wish is None and index.left == digest(text)
            if rolled_back or current.sha256 == digest(text):
                left = index.left if rolled_back else ""
                return Candidate(self.text(current.number), source, current.by, left, is_new=False)
        return Candidate(text, source, "reload")

    def take(self, candidate: Candidate, by: str = "") -> int:
        """Let a candidate serve from now on; its number. Raises ConfigError."""
        index = self.read()
        if not candidate.is_new:
            self._write(replace(_attempted(index), left=candidate.left))
            return index.current
        number = max([one.number for one in index.versions], default=0) + 1
        taken = Version(number, candidate.source, digest(candidate.text), time.time(), by or candidate.by)
        versions = (*index.versions, taken)[-KEPT:]
        self._put(self.folder / f"{number}.py", candidate.text)
        self._write(replace(_attempted(index), current=number, left=candidate.left, versions=versions))
        for gone in set(index.versions).difference(versions):
            (self.folder / f"{gone.number}.py").unlink(missing_ok=True)
        return number

    def refuse(self, reasons: Sequence[str]) -> None:
        """Note that what was to serve does not. Raises ConfigError."""
        self._write(replace(_attempted(self.read()), refused=tuple(reasons)))

    def adopt(self, source: str) -> None:
        """At the start of a node: the file serves, unless it was rolled back. Raises ConfigError."""
        candidate = self.candidate(source)
        if candidate.is_new:
            self.take(candidate, "start")

    # Wishes, from the control worker to the proof

    def wish(self, wish: Wish) -> None:
        """Ask for something at the next reload. Raises ConfigError."""
        self._put(self._wish, json.dumps(asdict(wish)).encode())

    @property
    def has_wish(self) -> bool:
        """Whether something was asked for."""
        return self._wish.exists()

    def take_wish(self) -> Wish | None:
        """What was asked for, once."""
        try:
            found = Wish(int(json.loads(self._wish.read_bytes())["version"]))
        except (OSError, ValueError, TypeError, KeyError):
            found = None
        self._wish.unlink(missing_ok=True)
        return found

    def _write(self, index: Index) -> None:
        self._put(self._index, json.dumps(asdict(index)).encode())

    def _put(self, path: Path, data: bytes) -> None:
        """Whole or not at all."""
        fresh = path.with_suffix(".new")
        try:
            if not self.folder.exists():
                self.folder.mkdir(mode=0o750, parents=True)
                self._own(self.folder)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640), "wb") as file:
                file.write(data)
            self._own(fresh)
            os.rename(fresh, path)
        except OSError as error:
            raise ConfigError([f"state_dir: cannot write {path}: {_reason(error)}"]) from error

    def _own(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, *self._owner)


def serving(config: Config) -> Routes:
    """The routes that a worker runs: the version that serves, the built-in ones, or where no versions are kept of the
    configured file, that file. Raises ConfigError."""
    if not config.routes:
        return load_routes("")
    versions = Versions(config.state_dir)
    index = versions.read()
    current = index.version(index.current)
    if current is None or current.source != config.routes:
        return load_routes(config.routes)
    routes = load_routes(config.routes, versions.text(current.number))
    routes.version = current.number
    return routes


def digest(text: bytes) -> str:
    """What tells one text from another."""
    return hashlib.sha256(text).hexdigest()


def describe(index: Index) -> dict[str, Any]:  # Any: JSON values
    """For operators, the newest version first."""
    rows = [
        {
            "version": one.number,
            "serves": one.number == index.current,
            "taken": one.at,
            "by": one.by,
            "file": one.source,
        }
        for one in reversed(index.versions)
    ]
    return {"versions": rows, "current": index.current, "refused": list(index.refused), "attempt": index.attempt}


def _attempted(index: Index) -> Index:
    return replace(index, attempt=index.attempt + 1, refused=(), attempted_at=time.time())


def _file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot read the file: {_reason(error)}"]) from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
