"""Where the store is: ``embedded``, ``unix://``, ``redis://`` or ``rediss://``."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from sbc.errors import ConfigError

EMBEDDED_SOCKET = "store.sock"  # in run_dir
_DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """One server: a Unix socket ``path``, or ``host`` and ``port``; ``database`` is selected after AUTH."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0

    def __str__(self) -> str:
        """For logs: never holds the password."""
        place = f"unix://{self.path}" if self.path else f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}"
        return f"{place}/{self.database}" if self.database else place


def embedded_socket(run_dir: str) -> str:
    """The Unix socket on which the embedded store listens."""
    return str(Path(run_dir) / EMBEDDED_SOCKET)


def parse_store_url(url: str, run_dir: str) -> StoreAddress:
    """The address that the configuration's ``store`` names; ConfigError says what is wrong with it.

    ``unix:///path?db=1``, ``redis://[user:password@]host[:port][/db]``, ``rediss://`` the same over TLS.
    """
    if url == "embedded":
        return StoreAddress(path=embedded_socket(run_dir))
    parts = urlsplit(url)
    if parts.scheme == "sentinel":
        raise _fault("sentinel URLs are not supported yet; name the server itself with redis:// or rediss://")
    if parts.scheme not in ("unix", "redis", "rediss"):
        raise _fault(f"{_without_password(url)!r} is none of embedded, unix://, redis:// and rediss://")
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        if not parts.path:
            raise _fault("a unix:// URL needs a path, for example unix:///run/valkey/valkey.sock")
        database = _database(parse_qs(parts.query).get("db", ["0"])[0])
        return StoreAddress(path=unquote(parts.path), username=username, password=password, database=database)
    if not parts.hostname:
        raise _fault(f"{_without_password(url)!r} names no host")
    try:
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        raise _fault("the port must be a number from 1 to 65535") from None
    return StoreAddress(
        host=parts.hostname,
        port=port,
        tls=ssl.create_default_context() if parts.scheme == "rediss" else None,
        username=username,
        password=password,
        database=_database(parts.path.strip("/") or "0"),
    )


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _fault(f"database {text!r} is not a number")
    return int(text)


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return scheme + mark + rest.rpartition("@")[2] if mark else url


def _fault(text: str) -> ConfigError:
    return ConfigError([f"store: {text}"])
