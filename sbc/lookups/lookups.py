"""``node.http``, ``node.redis("…")`` and ``node.database("…")``: what route authors call."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import orjson

from sbc.config.lookups import Lookups as Config
from sbc.lookups.asking import Argument, Asker, HttpAnswer, HttpRequest, Key, RedisCommand, Row, Statement
from sbc.lookups.errors import HttpStatus, LookupFailed, LookupUnknown

_INCREASE: Final = """local n = redis.call('INCRBY', KEYS[1], ARGV[1])
if n == tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return n"""
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class Http:
    """HTTP look-ups. Each method raises LookupFailed: LookupTimeout after ``timeout_s`` (None: ``lookups.http``),
    ServerAway where the server is known to be dead, HttpStatus for a status that is neither 2xx nor in ``allow``.
    Redirects are not followed."""

    __slots__ = ("_asker",)

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def get(self, url: str, **options: Any) -> HttpAnswer:  # Any: those of request()
        """GET. ``params`` are added to the query of the URL."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> HttpAnswer:  # Any: as above
        """POST ``json``, or ``body`` as it is."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> HttpAnswer:  # Any: as above
        """PUT ``json``, or ``body`` as it is."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> HttpAnswer:  # Any: as above
        """PATCH with ``json``, or ``body`` as it is."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> HttpAnswer:  # Any: as above
        """DELETE."""
        return await self.request("DELETE", url, **options)

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,  # Any: JSON values
        body: bytes | str = b"",
        timeout_s: float | None = None,
        allow: Collection[int] = (),
    ) -> HttpAnswer:
        """One request and its answer; LookupUnknown for one that cannot be sent."""
        try:
            parts = urlsplit(url)
            port_is_good = parts.port is None or parts.port > 0
        except ValueError:
            raise LookupUnknown(f"{url!r} is no URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good:
            raise LookupUnknown(f"{url!r} is no URL that begins with http:// or https:// and names a host")
        if any(c <= " " or c >= "\x7f" for c in url):
            raise LookupUnknown(f"{url!r} has blanks or other characters in it: give what is variable as params")
        if not method or not set(method) <= _TOKEN:
            raise LookupUnknown(f"{method!r} is no method of HTTP")
        if params:
            query = "&".join([part for part in (parts.query, urlencode(params, doseq=True)) if part])
            url = urlunsplit(parts._replace(query=query))
        lines = []
        for name, value in (headers or {}).items():
            if not name or not set(name) <= _TOKEN or any(c in value for c in "\r\n\0"):
                raise LookupUnknown(f"{name!r} cannot be sent as a header of HTTP")
            lines.append((name, value))
        data = body.encode() if isinstance(body, str) else body
        if json is not None:
            data = orjson.dumps(json)
            lines.append(("Content-Type", "application/json"))
        request = HttpRequest(method, url, tuple(lines), data, _seconds(timeout_s))
        answer = await self._asker.http(request)
        if not 200 <= answer.status < 300 and answer.status not in allow:
            raise HttpStatus(request.name, answer)
        return answer


class Redis:
    """One configured store. Keys are put behind its prefix; values come as text. Raises LookupFailed: LookupTimeout,
    ServerAway, or with what the server said no to."""

    __slots__ = ("_asker", "_name")

    def __init__(self, asker: Asker, name: str) -> None:
        self._asker = asker
        self._name = name

    async def get(self, key: str) -> str | None:
        """The value, None where there is none."""
        return _text(await self._ask("GET", Key(key)))

    async def set(
        self, key: str, value: Argument, *, expire_s: float | None = None, only_if_absent: bool = False
    ) -> bool:
        """Store a value, for ``expire_s`` or for good; False where ``only_if_absent`` and there is one."""
        command: list[Argument] = ["SET", Key(key), value]
        if expire_s is not None:
            command += ["PX", _milliseconds(expire_s)]
        if only_if_absent:
            command.append("NX")
        return await self._ask(*command) is not None

    async def delete(self, *keys: str) -> int:
        """How many of them there were."""
        return int(await self._ask("DEL", *[Key(key) for key in keys])) if keys else 0

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        return bool(await self._ask("EXISTS", Key(key)))

    async def incr(self, key: str, by: int = 1, *, expire_s: float | None = None) -> int:
        """Add to a number that begins at 0; the new one. ``expire_s`` counts from its beginning: a window of time."""
        if expire_s is None:
            return int(await self._ask("INCRBY", Key(key), by))
        return int(await self._ask("EVAL", _INCREASE, 1, Key(key), by, _milliseconds(expire_s)))

    async def expire(self, key: str, seconds: float) -> bool:
        """Forget it after so long; False where there is nothing to forget."""
        return bool(await self._ask("PEXPIRE", Key(key), _milliseconds(seconds)))

    async def hget(self, key: str, field: str) -> str | None:
        """One field of a hash."""
        return _text(await self._ask("HGET", Key(key), field))

    async def hgetall(self, key: str) -> dict[str, str]:
        """A whole hash; empty where there is none."""
        flat = await self._ask("HGETALL", Key(key))
        if isinstance(flat, Mapping):  # a script's answer
            return {str(name): str(value) for name, value in flat.items()}
        parts = [str(part) for part in flat or ()]
        return dict(zip(parts[::2], parts[1::2], strict=True))

    async def hset(self, key: str, values: Mapping[str, Argument]) -> int:
        """Set fields; how many are new."""
        flat = [part for item in values.items() for part in item]
        return int(await self._ask("HSET", Key(key), *flat)) if flat else 0

    async def hdel(self, key: str, *fields: str) -> int:
        """How many of these fields there were."""
        return int(await self._ask("HDEL", Key(key), *fields)) if fields else 0

    async def hincr(self, key: str, field: str, by: int = 1) -> int:
        """Add to a field; its new value."""
        return int(await self._ask("HINCRBY", Key(key), field, by))

    async def eval(self, script: str, keys: Iterable[str] = (), args: Iterable[Argument] = ()) -> Any:
        """Run a Lua script; what it returns. Any: None, int, str or a list of them.

        The prefix is put in front of ``keys``, not of what the script makes up itself.
        """
        named = [Key(key) for key in keys]
        return await self._ask("EVAL", script, len(named), *named, *args)

    async def _ask(self, *command: Argument) -> Any:  # Any: as in Asker
        return await self._asker.redis(RedisCommand(self._name, command))


class Database:
    """One configured database. ``:names`` in a statement stand for the values that are given by name; nothing of a
    call is ever written into SQL itself. Raises LookupFailed: LookupTimeout, ServerAway, or with what the database
    said no to."""

    __slots__ = ("_asker", "_name")

    def __init__(self, asker: Asker, name: str) -> None:
        self._asker = asker
        self._name = name

    async def query(self, sql: str, /, *, timeout_s: float | None = None, **values: Any) -> list[Row]:
        """The rows, each by the names of its columns. Any: what the driver takes."""
        found = await self._asker.database(Statement(self._name, sql, values, False, _seconds(timeout_s)))
        if isinstance(found, int):
            raise LookupFailed(f"database {self._name}", "the statement gives no rows: use execute")
        return [dict(row) for row in found]

    async def one(self, sql: str, /, *, timeout_s: float | None = None, **values: Any) -> Row | None:  # Any: as above
        """The first row, None where there is none."""
        rows = await self.query(sql, timeout_s=timeout_s, **values)
        return rows[0] if rows else None

    async def value(self, sql: str, /, *, timeout_s: float | None = None, **values: Any) -> Any:  # Any: of the database
        """The first column of the first row, None where there is none."""
        row = await self.one(sql, timeout_s=timeout_s, **values)
        return next(iter(row.values()), None) if row else None

    async def execute(self, sql: str, /, *, timeout_s: float | None = None, **values: Any) -> int:  # Any: as above
        """Change something, in a transaction of its own; how many rows were touched."""
        done = await self._asker.database(Statement(self._name, sql, values, True, _seconds(timeout_s)))
        return done if isinstance(done, int) else len(done)


class Lookups:
    """What is configured, and who is asked. None of both: everything raises LookupUnknown."""

    __slots__ = ("_asker", "_config")

    def __init__(self, config: Config | None = None, asker: Asker | None = None) -> None:
        self._config = config or Config()
        self._asker = asker

    @property
    def http(self) -> Http:
        """See :class:`Http`."""
        if self._asker is None or self._config.http is None:
            raise LookupUnknown("no HTTP look-ups are configured: write 'http: {}' under lookups")
        return Http(self._asker)

    def redis(self, name: str) -> Redis:
        """See :class:`Redis`."""
        if self._asker is None or name not in self._config.redis:
            raise LookupUnknown(_unknown("lookups.redis", name, self._config.redis))
        return Redis(self._asker, name)

    def database(self, name: str) -> Database:
        """See :class:`Database`."""
        if self._asker is None or name not in self._config.databases:
            raise LookupUnknown(_unknown("lookups.databases", name, self._config.databases))
        return Database(self._asker, name)

    def close(self) -> None:
        """Give connections and threads back; what is under way fails."""
        if self._asker is not None:
            self._asker.close()


def _unknown(where: str, name: str, known: Collection[str]) -> str:
    return f"no {name!r} is configured under {where}; there are: {', '.join(known) or 'none'}"


def _seconds(timeout_s: float | None) -> float:
    if timeout_s is None:
        return 0.0
    if not 0 < timeout_s <= 3600:
        raise LookupUnknown(f"timeout_s={timeout_s}: seconds, above 0")
    return timeout_s


def _milliseconds(seconds: float) -> int:
    if not seconds > 0:
        raise LookupUnknown(f"{seconds} s is no time that a value could be kept")
    return max(1, round(seconds * 1000))


def _text(value: Any) -> str | None:  # Any: as in Asker
    return None if value is None else str(value)
