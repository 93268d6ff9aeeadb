"""Look-ups of routes against real servers on loopback: HTTP in a thread, the store that the product embeds, SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sbc.config.lookups import Lookups as Config
from sbc.lookups.errors import HttpStatus, LookupFailed, LookupTimeout, LookupUnknown, ServerAway
from sbc.lookups.lookups import Lookups
from sbc.lookups.world import open_lookups
from tests.support.certificates import Authority
from tests.support.http_server import HttpServer
from tests.support.store import StoreServer

SECOND = {"http": {"timeout_s": 10.0}}


@dataclass
class Opened:
    """Look-ups, and what was counted."""

    lookups: Lookups
    counts: dict[str, int]


@asynccontextmanager
async def opened(config: dict[str, Any], store: str = "embedded") -> AsyncIterator[Opened]:
    """Any: what the YAML would hold."""
    counts: dict[str, int] = {}

    def count(name: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    loop = asyncio.get_running_loop()
    lookups = open_lookups(Config.model_validate(config), loop, store_url=store, run_dir="/nowhere", count=count)
    try:
        yield Opened(lookups, counts)
    finally:
        lookups.close()


@pytest.fixture
def server() -> Iterator[HttpServer]:
    server = HttpServer()
    yield server
    server.stop()


async def turns_while(work: asyncio.Future[Any]) -> int:
    """How often the loop came round while something was looked up: it would not, were it blocked."""
    turns = 0
    while not work.done():
        await asyncio.sleep(0.001)
        turns += 1
    return turns


async def test_get_and_post_with_json_over_one_connection(server: HttpServer) -> None:
    async with opened(SECOND) as it:
        http = it.lookups.http
        answer = await http.get(f"{server.url}/json", params={"to": "+49 30", "n": 1})
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json() == {"method": "GET", "path": "/json?to=%2B49+30&n=1"}
        posted = await http.post(f"{server.url}/json?a=1", json={"number": "49"}, headers={"X-Key": "k"})
        assert posted.json()["method"] == "POST"
        assert server.bodies[1] == b'{"number":"49"}'
        assert "X-Key: k" in server.heads[1]
        assert (await http.get(f"{server.url}/chunked")).json() == [1, 2]
        assert (await http.put(f"{server.url}/json", body="x")).json()["method"] == "PUT"
        assert (await http.delete(f"{server.url}/json")).json()["method"] == "DELETE"
        assert server.connections == 1
        assert it.counts == {"LOOKUPS": 5}


async def test_user_and_password_of_a_url_go_as_a_header_and_into_no_error(server: HttpServer) -> None:
    async with opened(SECOND) as it:
        with pytest.raises(HttpStatus) as caught:
            await it.lookups.http.get(f"http://me:secret@127.0.0.1:{server.port}/status/401")
        assert "Authorization: Basic bWU6c2VjcmV0" in server.heads[0]
        assert "secret" not in str(caught.value)


async def test_statuses_are_exceptions_unless_they_are_allowed(server: HttpServer) -> None:
    async with opened(SECOND) as it:
        http = it.lookups.http
        with pytest.raises(HttpStatus, match="the server answered 503") as caught:
            await http.get(f"{server.url}/status/503")
        assert (caught.value.answer.status, caught.value.answer.text) == (503, "why?")
        assert (await http.get(f"{server.url}/status/404", allow=(404,))).status == 404
        with pytest.raises(HttpStatus, match="answered 302 to /json; redirects are not followed"):
            await http.get(f"{server.url}/redirect")
        assert server.requests["/json"] == 0
        with pytest.raises(LookupFailed, match="the answer is no JSON"):
            (await http.get(f"{server.url}/status/200")).json()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/garbage", "is no HTTP"),
        ("/cut", "is no HTTP"),
        ("/huge", "longer than answer_max_bytes"),
        ("/endless", "longer than answer_max_bytes"),
    ],
)
async def test_answers_that_are_of_no_use(server: HttpServer, path: str, why: str) -> None:
    async with opened({"http": {"timeout_s": 10.0, "answer_max_bytes": 100_000}}) as it:
        with pytest.raises(LookupFailed, match=why):
            await it.lookups.http.get(server.url + path)
        assert (await it.lookups.http.get(f"{server.url}/json")).status == 200  # on a connection of its own
        assert it.counts == {"LOOKUPS": 2, "LOOKUPS_FAILED": 1}


@pytest.mark.parametrize("path", ["/slow", "/drip"])
async def test_a_slow_server_costs_its_time_and_the_loop_goes_on(server: HttpServer, path: str) -> None:
    async with opened({"http": {"timeout_s": 30.0}}) as it:
        work = asyncio.ensure_future(it.lookups.http.get(server.url + path, timeout_s=0.4))
        turns = await turns_while(work)
        with pytest.raises(LookupTimeout, match=r"no answer within 0\.4 s"):
            work.result()
        assert turns >= 20  # of some 400


async def test_a_dead_server_costs_its_time_a_few_times_only(server: HttpServer) -> None:
    circuit = {"failures": 3, "retry_s": 0.2}
    async with opened({"http": {"timeout_s": 0.1, "circuit": circuit}}) as it:
        http = it.lookups.http
        for _ in range(3):
            with pytest.raises(LookupTimeout):
                await http.get(f"{server.url}/slow")
        for _ in range(100):
            with pytest.raises(ServerAway, match="has not answered for some time"):
                await http.get(f"{server.url}/slow")
        assert server.requests["/slow"] == 3
        assert it.counts["LOOKUPS_REFUSED"] == 100
        other = HttpServer()
        assert (await http.get(f"{other.url}/json")).status == 200  # another host has a circuit of its own
        other.stop()
        await asyncio.sleep(0.25)
        assert (await http.get(f"{server.url}/json", timeout_s=10.0)).status == 200  # one is let through
        assert (await http.get(f"{server.url}/json", timeout_s=10.0)).status == 200


async def test_nobody_listens(server: HttpServer) -> None:
    server.stop()
    async with opened(SECOND) as it:
        with pytest.raises(LookupFailed, match=r"(?i)connect"):
            await it.lookups.http.get(f"{server.url}/json")


async def test_a_kept_connection_that_the_server_has_closed_costs_nothing(server: HttpServer) -> None:
    async with opened(SECOND) as it:
        for _ in range(5):
            assert (await it.lookups.http.get(f"{server.url}/once")).json() == {}
        assert server.requests["/once"] == 5


async def test_connections_of_a_host_are_limited_and_the_others_wait(server: HttpServer) -> None:
    async with opened({"http": {"timeout_s": 20.0, "connections_per_host": 2}}) as it:
        answers = await asyncio.gather(*[it.lookups.http.get(f"{server.url}/json?n={n}") for n in range(20)])
        assert {answer.json()["path"] for answer in answers} == {f"/json?n={n}" for n in range(20)}
        assert server.connections <= 2


async def test_a_look_up_that_is_cancelled_leaves_nothing_behind(server: HttpServer) -> None:
    async with opened({"http": {"timeout_s": 20.0, "connections_per_host": 1}}) as it:
        work = asyncio.ensure_future(it.lookups.http.get(f"{server.url}/slow"))
        await asyncio.to_thread(server.asked.wait, 20)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert (await it.lookups.http.get(f"{server.url}/json")).status == 200  # its place is free


async def test_tls_is_verified(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    signed = authority.sign("lcr", "IP:127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(signed.certificate, signed.key)
    server = HttpServer(context)
    try:
        async with opened({"http": {"timeout_s": 10.0, "ca": str(authority.certificate)}}) as it:
            assert (await it.lookups.http.get(f"{server.url}/json")).status == 200
        async with opened(SECOND) as it:
            with pytest.raises(LookupFailed, match="its certificate is not to be trusted"):
                await it.lookups.http.get(f"{server.url}/json")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda http: http.get("ftp://127.0.0.1/x"), "no URL that begins with http"),
        (lambda http: http.get("http:///x"), "names a host"),
        (lambda http: http.get("http://127.0.0.1:x/"), "no URL"),
        (lambda http: http.get("http://127.0.0.1/a b"), "blanks"),
        (lambda http: http.get("http://127.0.0.1/\r\nX: y"), "blanks"),
        (lambda http: http.get("http://127.0.0.1/", headers={"X": "a\r\nB: c"}), "cannot be sent as a header"),
        (lambda http: http.request("GE T", "http://127.0.0.1/"), "no method"),
        (lambda http: http.get("http://127.0.0.1/", timeout_s=0), "timeout_s=0"),
    ],
)
async def test_what_cannot_be_asked_is_said(ask: Callable[[Any], Any], why: str) -> None:
    async with opened(SECOND) as it:
        with pytest.raises(LookupUnknown, match=why):
            await ask(it.lookups.http)


# Redis


REDIS = {"redis": {"rates": {"timeout_ms": 5000}, "others": {"prefix": "others:", "timeout_ms": 5000}}}


async def test_redis(store: StoreServer) -> None:
    async with opened(REDIS, f"unix://{store.path}") as it:
        rates = it.lookups.redis("rates")
        assert await rates.get("a") is None
        assert await rates.set("a", "ä", expire_s=60)
        assert not await rates.set("a", "b", only_if_absent=True)
        assert await rates.get("a") == "ä"
        assert await rates.exists("a")
        assert await rates.expire("a", 30)
        assert await rates.delete("a", "b") == 1
        assert [await rates.incr("n"), await rates.incr("n", 5)] == [1, 6]
        assert [await rates.incr("w", expire_s=60), await rates.incr("w", expire_s=60)] == [1, 2]
        assert 0 < await rates.eval("return redis.call('TTL', KEYS[1])", keys=["w"]) <= 60
        assert await rates.hset("h", {"x": 1, "y": "z"}) == 2
        assert await rates.hincr("h", "x", 2) == 3
        assert await rates.hgetall("h") == {"x": "3", "y": "z"}
        assert await rates.hdel("h", "y") == 1
        assert await rates.hget("h", "y") is None
        assert await rates.eval("return {KEYS[1], ARGV[1], 7}", keys=["k"], args=["v"]) == ["routes:k", "v", 7]
        assert await it.lookups.redis("others").get("n") is None  # each store has a prefix
        await rates.hset("h", {"x": "text"})
        with pytest.raises(LookupFailed, match=r"the server refused: .*not an integer"):
            await rates.hincr("h", "x")


async def test_a_store_that_hangs_costs_its_time_a_few_times_and_the_loop_goes_on(store: StoreServer) -> None:
    config = {"redis": {"rates": {"timeout_ms": 100}}}
    async with opened(config, f"unix://{store.path}") as it:
        rates = it.lookups.redis("rates")
        while True:  # the machine may be slow to connect
            try:
                assert await rates.set("a", 1)
                break
            except LookupFailed:
                await asyncio.sleep(0.05)
        store.pause()
        work = asyncio.ensure_future(rates.get("a"))
        assert await turns_while(work) >= 5
        assert isinstance(work.exception(), LookupTimeout)
        away = False
        for _ in range(50):
            try:
                await rates.get("a")
            except ServerAway:
                away = True
                break
            except LookupTimeout:
                pass
        assert away
        store.resume()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                assert await rates.get("a") == "1"
                return
            except LookupFailed:
                await asyncio.sleep(0.05)
        pytest.fail("the store is back and is not asked")


# Databases


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE numbers (prefix TEXT PRIMARY KEY, carrier TEXT, price REAL)")
        connection.execute("INSERT INTO numbers VALUES ('49', 'carrier-a', 0.01), ('1', 'carrier-b', 0.02)")
    connection.close()
    return path


async def test_database(numbers: Path) -> None:
    async with opened({"databases": {"lcr": {"url": f"sqlite:///{numbers}", "timeout_s": 20}}}) as it:
        lcr = it.lookups.database("lcr")
        find = "SELECT carrier, price FROM numbers WHERE prefix = :prefix"
        assert await lcr.query(find, prefix="49") == [{"carrier": "carrier-a", "price": 0.01}]
        assert await lcr.one(find, prefix="' OR 1=1 --") is None  # a value is never SQL
        assert await lcr.value("SELECT count(*) FROM numbers") == 2
        assert await lcr.execute("UPDATE numbers SET price = :price", price=0.03) == 2
        assert await lcr.value("SELECT max(price) FROM numbers") == 0.03
        for _ in range(5):  # a mistake of the author's is none of the server's
            with pytest.raises(LookupFailed, match="no such table"):
                await lcr.query("SELECT * FROM absent")
        assert await lcr.value("SELECT 1") == 1
        answers = await asyncio.gather(*[lcr.value("SELECT :n", n=n) for n in range(40)])
        assert answers == list(range(40))


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def test_a_statement_that_hangs_is_given_up_and_interrupted(numbers: Path) -> None:
    config = {"url": f"sqlite:///{numbers}", "timeout_s": 20, "connections": 1}
    async with opened({"databases": {"lcr": config}}) as it:
        lcr = it.lookups.database("lcr")
        work = asyncio.ensure_future(lcr.query(ENDLESS, timeout_s=0.4))
        assert await turns_while(work) >= 5
        assert isinstance(work.exception(), LookupTimeout)
        assert await lcr.value("SELECT 1") == 1  # its only thread is free again
        work = asyncio.ensure_future(lcr.query(ENDLESS))
        await asyncio.sleep(0.1)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert await lcr.value("SELECT 1") == 1


async def test_a_database_that_is_away_or_overrun_fails_at_once(tmp_path: Path, numbers: Path) -> None:
    away = {"url": f"sqlite:///{tmp_path}/no/such/folder.db", "circuit": {"failures": 2, "retry_s": 60}}
    busy = {"url": f"sqlite:///{numbers}", "timeout_s": 20, "connections": 1, "waiting": 1}
    async with opened({"databases": {"away": away, "busy": busy}}) as it:
        for error in (LookupFailed, LookupFailed, ServerAway):
            with pytest.raises(error):
                await it.lookups.database("away").value("SELECT 1")
        database = it.lookups.database("busy")
        works = [asyncio.ensure_future(database.query(ENDLESS, timeout_s=0.5)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ServerAway, match="2 statements wait"):
            await database.value("SELECT 1")
        await asyncio.gather(*works, return_exceptions=True)
