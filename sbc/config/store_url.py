"""Where the store is: ``embedded``, one server, or those who know which server is the master."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from sbc.errors import ConfigError

if TYPE_CHECKING:
    import ssl

EMBEDDED_SOCKET = "store.sock"  # in run_dir
ENOUGH = 3  # sentinels, or masters of a cluster: of fewer no majority is left when one has gone
MAX_ENDS = 32  # that a URL may name
_DEFAULT_PORT = 6379
_SENTINEL_PORT = 26379
_TLS = ("rediss", "sentinel+tls", "cluster+tls")
SCHEMES = ("redis", "rediss", "unix", "sentinel", "sentinel+tls", "cluster", "cluster+tls")
EXAMPLES = {
    "sentinel": "sentinel://10.9.0.5,10.9.0.6,10.9.0.7/sbc-store",
    "cluster": "cluster://10.9.0.5:6379,10.9.0.6:6379,10.9.0.7:6379",
}

End = tuple[str, int]  # host, port


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows the master of ``service``, and how they are spoken to."""

    ends: tuple[End, ...]
    service: str
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes of a cluster, some at least; they know the others, and speak as the store itself."""

    ends: tuple[End, ...]


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """One server: a Unix socket ``path``, or ``host`` and ``port``; ``database`` is selected after AUTH.

    With ``via`` the server is whichever they name (:mod:`sbc.store.finding`), and ``host`` is empty.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    via: Sentinels | Cluster | None = None

    def at(self, host: str, port: int) -> StoreAddress:
        """The same, of the server that was found."""
        return replace(self, host=host, port=port, via=None)

    def __str__(self) -> str:
        """For logs: never holds the password."""
        match self.via:
            case Sentinels(ends, service):
                place = f"{'sentinel+tls' if self.tls else 'sentinel'}://{text_of(ends)}/{service}"
            case Cluster(ends):
                place = f"{'cluster+tls' if self.tls else 'cluster'}://{text_of(ends)}"
            case None if self.path:
                place = f"unix://{self.path}"
            case None:
                place = f"{'rediss' if self.tls else 'redis'}://{text_of([(self.host, self.port)])}"
        return f"{place}/{self.database}" if self.database else place


def text_of(ends: tuple[End, ...] | list[End]) -> str:
    """``host:port,host:port``; IPv6 in brackets."""
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in ends)


def embedded_socket(run_dir: str) -> str:
    """The Unix socket on which the embedded store listens."""
    return str(Path(run_dir) / EMBEDDED_SOCKET)


def parse_store_url(url: str, run_dir: str) -> StoreAddress:
    """The address that the configuration's ``store`` names; ConfigError says what is wrong with it.

    ``unix:///path?db=1``, ``redis://[user:password@]host[:port][/db]``, ``rediss://`` the same over TLS;
    ``sentinel://[user:password@]host[:port],host[:port]/SERVICE[/db][?sentinel_user=…&sentinel_password=…]``, where
    ``?sentinel_tls=no`` has the sentinels of ``sentinel+tls://`` spoken to without; ``cluster://[user:password@]host,…``.
    """
    if url == "embedded":
        return StoreAddress(path=embedded_socket(run_dir))
    parts = urlsplit(url)
    scheme = parts.scheme
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://…" for name in SCHEMES)
        raise _fault(f"{scheme or _without_password(url)!r} is neither 'embedded', 'none' nor one of {known}")
    login, _, places = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    options = _options(parts.query, scheme)
    tls = _tls() if scheme in _TLS else None
    common = StoreAddress(tls=tls, username=unquote(username), password=unquote(password))
    if scheme == "unix":
        if not parts.path:
            raise _fault("a unix:// URL needs a path, for example unix:///run/valkey/valkey.sock")
        return replace(common, path=unquote(parts.path), database=_database(options.get("db", "0")))
    if not places:
        raise _fault(f"{_without_password(url)!r} names no host")
    if scheme.startswith("sentinel"):
        return _by_sentinels(common, places, parts.path, options)
    if scheme.startswith("cluster"):
        if parts.path.strip("/") not in ("", "0"):
            raise _fault("a cluster has database 0 only: leave out what stands behind the hosts")
        return replace(common, via=Cluster(_ends(places, _DEFAULT_PORT)))
    if "," in places:
        raise _fault("redis:// names one server; several are sentinel:// or cluster:// (docs/ha.md)")
    ((host, port),) = _ends(places, _DEFAULT_PORT)
    return replace(common, host=host, port=port, database=_database(parts.path.strip("/") or "0"))


def _by_sentinels(common: StoreAddress, places: str, path: str, options: dict[str, str]) -> StoreAddress:
    service, _, database = path.strip("/").partition("/")
    if not service:
        raise _fault(f"a sentinel:// URL ends with the name of the service, for example {EXAMPLES['sentinel']}")
    if options.get("sentinel_tls", "yes") not in ("yes", "no"):
        raise _fault("sentinel_tls is yes or no")
    sentinels = Sentinels(
        _ends(places, _SENTINEL_PORT),
        unquote(service),
        common.tls if options.get("sentinel_tls", "yes") == "yes" else None,
        options.get("sentinel_user", ""),
        options.get("sentinel_password", ""),
    )
    return replace(common, via=sentinels, database=_database(database or "0"))


def ends_of(url: str) -> tuple[End, ...]:
    """The servers, sentinels or nodes that a URL names; none where it is no URL or not a good one."""
    try:
        address = parse_store_url(url, "/")
    except ConfigError:
        return ()
    if address.via is not None:
        return address.via.ends
    return ((address.host, address.port),) if address.host else ()


def tag_of(key: str) -> str:
    """What stands in the first braces of a key: all keys with it are in one slot of a cluster. Empty: there is none."""
    _, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    return tag if opened and closed else ""


def _tls() -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context()


def _options(query: str, scheme: str) -> dict[str, str]:
    known = {"unix": {"db"}, "sentinel": {"sentinel_user", "sentinel_password", "sentinel_tls"}}
    given = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    for name in given:
        if name not in known.get(scheme.partition("+")[0], set()):
            raise _fault(f"a {scheme}:// URL has no option {name!r}")
    return given


def _ends(text: str, default_port: int) -> tuple[End, ...]:
    ends = []
    for place in text.split(","):
        try:
            parts = urlsplit(f"//{place}")
            host, port = parts.hostname, parts.port or default_port
        except ValueError:
            raise _fault(f"{place!r}: the port must be a number from 1 to 65535, and IPv6 stands in brackets") from None
        if not host:
            raise _fault(
                f"{text!r} names no host" if "," not in text else f"{text!r} has an empty place between commas"
            )
        ends.append((host, port))
    if len(ends) > MAX_ENDS:
        raise _fault(f"{len(ends)} hosts are more than {MAX_ENDS}; a few of them are enough, the others are found")
    return tuple(dict.fromkeys(ends))


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _fault(f"database {text!r} is not a number")
    return int(text)


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return scheme + mark + rest.rpartition("@")[2] if mark else url


def _fault(text: str) -> ConfigError:
    return ConfigError([f"store: {text}"])
