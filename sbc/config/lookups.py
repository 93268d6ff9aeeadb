"""What routes may look up: HTTP, named Redis stores and databases. What is not configured is not even imported."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr

from sbc.config.base import Model
from sbc.config.store_url import SCHEMES

_SECRET_URL = re.compile(r"^(?P<scheme>[a-z][a-z0-9+]*)://")
# by the name of SQLAlchemy's dialect: the drivers that we bound in time, the module of each, what installs it
_DRIVERS: dict[str, dict[str, tuple[str, str]]] = {
    "sqlite": {"": ("sqlite3", ""), "pysqlite": ("sqlite3", "")},
    "postgresql": {"psycopg": ("psycopg", "portcullis[postgresql]")},
    "mysql": {"pymysql": ("pymysql", "portcullis[mysql]")},
}
JOURNAL = "sbc:{"  # how the keys of the journal begin (sbc.store.keys)

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")]
Seconds = Annotated[float, Field(gt=0, le=60)]


def _scheme(url: str) -> str:
    match = _SECRET_URL.match(url)
    return match["scheme"] if match else ""


def _redis_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text != "store" and _scheme(text) not in SCHEMES:
        known = ", ".join(f"{name}://…" for name in SCHEMES)
        raise ValueError(f"the URL of a Redis store is 'store' (that of this node) or one of {known}")
    return url


def _database_url(url: SecretStr) -> SecretStr:
    dialect, _, driver = _scheme(url.get_secret_value()).partition("+")
    drivers = _DRIVERS.get(dialect)
    if drivers is None:
        raise ValueError(f"the URL of a database begins with one of {', '.join(f'{name}://' for name in _DRIVERS)}")
    if driver not in drivers:
        raise ValueError(f"write the driver into the URL: {dialect}+{next(iter(drivers))}://")
    module, package = drivers[driver]
    if find_spec(module) is None:
        raise ValueError(f"the driver {module} is not installed: pip install '{package}'")
    return url


def _prefix(prefix: str) -> str:
    if prefix.startswith(JOURNAL):
        raise ValueError(f"'{JOURNAL}' begins the keys of the journal: choose another prefix")
    return prefix


class Circuit(Model):
    """When a server counts as dead: after ``failures`` look-ups in a row without a usable answer all others fail at
    once, until one that is let through every ``retry_s`` gets one."""

    failures: Annotated[int, Field(ge=1, le=1000)] = 3
    retry_s: Seconds = 5.0


class HttpLookups(Model):
    """HTTP and HTTPS servers, whichever the routes name."""

    timeout_s: Seconds = 2.0  # of one look-up, from the name to the last octet of the answer
    connections_per_host: Annotated[int, Field(ge=1, le=1000)] = 8  # of each SIP worker
    idle_s: Annotated[float, Field(ge=0, le=3600)] = 30.0  # a connection is kept so long for the next look-up
    answer_max_bytes: Annotated[int, Field(ge=256, le=64 * 1024 * 1024)] = 1_048_576
    ca: str = ""  # a PEM file; empty: the authorities that this machine trusts
    circuit: Circuit = Circuit()


class RedisLookups(Model):
    """One Redis or Valkey server under a name of the author's."""

    url: Annotated[SecretStr, AfterValidator(_redis_url)] = SecretStr("store")
    # in front of every key that a route names, so that none meets those of others
    prefix: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_prefix)] = "routes:"
    timeout_ms: Annotated[int, Field(ge=1, le=10_000)] = 100


class DatabaseLookups(Model):
    """One database under a name of the author's."""

    url: Annotated[SecretStr, AfterValidator(_database_url)]
    timeout_s: Seconds = 2.0  # of one statement, with the wait for a connection
    connections: Annotated[int, Field(ge=1, le=64)] = 2  # of each SIP worker; as many threads
    waiting: Annotated[int, Field(ge=0, le=10_000)] = 64  # statements that may wait for one of them
    circuit: Circuit = Circuit()


class Lookups(Model):
    """``answers`` are what dry runs get, by what is asked; see :mod:`sbc.simulator.lookups`."""

    http: HttpLookups | None = None
    redis: dict[Name, RedisLookups] = {}
    databases: dict[Name, DatabaseLookups] = {}
    answers: dict[str, Any] = {}  # Any: JSON values of the operator's

    @property
    def are_configured(self) -> bool:
        """Whether routes may look anything up."""
        return bool(self.http is not None or self.redis or self.databases)
