"""What is asked, as values, and who may be asked: the real servers, or in a dry run a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import orjson

from sbc.lookups.errors import LookupFailed

Row = dict[str, Any]  # Any: whatever the database holds


class Key(str):
    """A key of Redis as the route names it, without the prefix of the store."""

    __slots__ = ()


Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """``url`` is complete; ``timeout_s`` 0: as configured."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout_s: float = 0.0

    @property
    def text(self) -> str:
        """``GET https://host/path?query``, without user and password."""
        parts = urlsplit(self.url)
        return f"{self.method} {urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2]))}"

    @property
    def name(self) -> str:
        """For errors, which end up in logs: without the query, which may hold keys."""
        return self.text.partition("?")[0]


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """``headers`` by name in lower case, the values of one name joined by ``, ``."""

    asked: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)

    @property
    def text(self) -> str:
        """The body as text in UTF-8; octets that are none are replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:  # Any: JSON values
        """The body as JSON; raises LookupFailed where it is none."""
        try:
            return orjson.loads(self.body)
        except ValueError:
            raise LookupFailed(self.asked, "the answer is no JSON") from None


@dataclass(frozen=True, slots=True)
class RedisCommand:
    """``command`` with its keys as :class:`Key`."""

    store: str
    command: tuple[Argument, ...]

    @property
    def text(self) -> str:
        """``redis NAME GET key``."""
        said = [part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in self.command]
        return " ".join(["redis", self.store, *said])

    @property
    def name(self) -> str:
        """For errors: the command and its first key, no values."""
        key = next((f" {part}" for part in self.command if isinstance(part, Key)), "")
        return f"redis {self.store} {self.command[0]!s}{key}"


@dataclass(frozen=True, slots=True)
class Statement:
    """``sql`` with ``:names`` for ``values``; ``timeout_s`` 0: as configured. ``writes``: it changes the database, and
    the answer is the number of rows."""

    database: str
    sql: str
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)  # Any: what the driver takes
    writes: bool = False
    timeout_s: float = 0.0

    @property
    def text(self) -> str:
        """``database NAME SELECT … {"name": "value"}``, with single spaces."""
        said = self.name
        return f"{said} {orjson.dumps(dict(self.values), default=str).decode()}" if self.values else said

    @property
    def name(self) -> str:
        """For errors: without the values."""
        return " ".join(["database", self.database, *self.sql.split()])


Asked = HttpRequest | RedisCommand | Statement


class Asker(Protocol):
    """Whoever is asked. Raises LookupFailed."""

    async def http(self, request: HttpRequest) -> HttpAnswer: ...

    async def redis(self, command: RedisCommand) -> Any: ...  # Any: None, int, str, or a list of them

    async def database(self, statement: Statement) -> Sequence[Row] | int: ...

    def close(self) -> None: ...
