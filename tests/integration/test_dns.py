"""The resolver with real datagrams: a name server of the test's own, good, dead, slow, denying and lying."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import uvloop

from sbc.errors import ResolveError
from sbc.policy.name_cache import NameCache
from sbc.policy.server_location import Path, Question, Server
from sbc.sip.uri import parse_uri
from sbc.transport.dns_client import DnsClient
from sbc.transport.resolver import NameServers, Resolver
from tests.support.name_server import NameServer

ALL = (Path("udp", 4), Path("tcp", 4), Path("udp", 6))
UDP = (Path("udp", 4),)
ZONE = {
    ("carrier.example", "NAPTR"): [
        '10 50 "s" "SIP+D2T" "" _sip._tcp.carrier.example.',
        '20 50 "s" "SIP+D2U" "" _sip._udp.carrier.example.',
        '5 50 "u" "E2U+sip" "!^.*$!sip:a@b!" .',
    ],
    ("_sip._udp.carrier.example", "SRV"): ["0 0 5080 gw1.carrier.example.", "1 0 5090 gw2.carrier.example."],
    ("_sip._tcp.carrier.example", "SRV"): ["0 0 5060 gw1.carrier.example."],
    ("gw1.carrier.example", "A"): ["127.0.0.21"],
    ("gw1.carrier.example", "AAAA"): ["2001:db8::21"],
    ("gw2.carrier.example", "A"): ["127.0.0.22"],
    ("plain.example", "A"): ["127.0.0.31"],
    ("gone.example", "SRV"): ["0 0 0 ."],
    ("_sip._udp.gone.example", "SRV"): ["0 0 0 ."],
}

Test = Callable[[], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Test], None]:
    """Run a coroutine function in either loop."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(test: Test) -> None:
        async def main() -> None:
            await test()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run


class Bench:
    """A name server and a resolver that asks it; the longest the loop stood still."""

    def __init__(self, server: NameServer, resolver: Resolver, client: DnsClient) -> None:
        self.server = server
        self.resolver = resolver
        self.client = client
        self.lag_s = 0.0

    async def find(self, uri: str, paths: tuple[Path, ...] = UDP) -> tuple[list[str] | None, float]:
        """Servers (None: ResolveError) and seconds."""
        begun = time.monotonic()
        try:
            found = [f"{s.transport} {s.host} {s.port}" for s in await self.resolver.resolve(parse_uri(uri), paths)]
        except ResolveError:
            return None, time.monotonic() - begun
        return found, time.monotonic() - begun

    async def watch(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            self.lag_s = max(self.lag_s, time.monotonic() - begun - 0.005)


@asynccontextmanager
async def bench(*, cache: NameCache | None = None, before: tuple[tuple[str, int], ...] = ()) -> AsyncIterator[Bench]:
    server = NameServer(dict(ZONE))
    client = DnsClient([*before, await server.start()])
    resolver = Resolver(client.ask, now=time.monotonic, draw=random.random, cache=cache)
    made = Bench(server, resolver, client)
    watch = asyncio.create_task(made.watch())
    try:
        yield made
    finally:
        watch.cancel()
        resolver.close()
        await server.stop()


def test_naptr_srv_and_addresses(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench() as b:
            found, _ = await b.find("sip:u@carrier.example", ALL)
            assert found == [
                "tcp 127.0.0.21 5060",
                "udp 127.0.0.21 5080",
                "udp 2001:db8::21 5080",
                "udp 127.0.0.22 5090",
            ]
            assert b.server.asked["carrier.example", "NAPTR"] == 1
            asked = b.server.asked.total()
            again, waited = await b.find("sip:u@carrier.example", ALL)
            assert again == found
            assert waited < 0.2
            assert b.server.asked.total() == asked
            assert (await b.find("sip:plain.example"))[0] == ["udp 127.0.0.31 5060"]
            assert (await b.find("sip:plain.example:5099"))[0] == ["udp 127.0.0.31 5099"]
            assert (await b.find("sip:gone.example"))[0] is None

    run(test)


def test_denials_are_remembered_and_quick(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench() as b:
            assert (await b.find("sip:nowhere.example"))[0] is None
            asked = b.server.asked.total()
            found, waited = await b.find("sip:nowhere.example")
            assert found is None
            assert waited < 0.2
            assert b.server.asked.total() == asked

    run(test)


def test_dead_dns(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench(cache=NameCache(ttl_min_s=0.2, ttl_max_s=0.2)) as b:
            known, _ = await b.find("sip:carrier.example")
            b.server.dead = True
            await asyncio.sleep(0.25)
            found, waited = await b.find("sip:carrier.example")
            assert found == known
            assert waited < 0.5, "the expired answer serves"
            found, waited = await b.find("sip:plain.example")
            assert found is None
            assert 0.9 < waited < 1.5, "no more than the budget"
            found, waited = await b.find("sip:plain.example")
            assert found is None
            assert waited < 0.3
            assert b.lag_s < 0.5, "the loop goes on meanwhile"

    run(test)


def test_slow_dns(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench() as b:
            b.server.delay_s = 5.0
            found, waited = await b.find("sip:plain.example")
            assert found is None
            assert waited < 1.5
            assert b.lag_s < 0.5

    run(test)


def test_a_first_name_server_that_is_dead(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        dead = NameServer({})
        dead.dead = True
        address = await dead.start()
        async with bench(before=(address,)) as b:
            found, waited = await b.find("sip:plain.example:5060")
            assert found == ["udp 127.0.0.31 5060"]
            assert waited < 1.0, "the second is asked in time"
        await dead.stop()

    run(test)


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP])
def test_a_dns_that_refuses(run: Callable[[Test], None], rcode: dns.rcode.Rcode) -> None:
    async def test() -> None:
        async with bench(cache=NameCache(ttl_min_s=0.1, ttl_max_s=0.1)) as b:
            known, _ = await b.find("sip:plain.example:5060")
            b.server.rcode = rcode
            await asyncio.sleep(0.15)
            assert (await b.find("sip:plain.example:5060"))[0] == known
            assert (await b.find("sip:carrier.example"))[0] is None

    run(test)


def test_a_flip_to_nxdomain(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench(cache=NameCache(ttl_min_s=0.1, ttl_max_s=0.1, denial_max_s=0.1, flip_s=0.5)) as b:
            known, _ = await b.find("sip:plain.example:5060")
            b.server.rcode = dns.rcode.NXDOMAIN
            await asyncio.sleep(0.15)
            assert (await b.find("sip:plain.example:5060"))[0] == known
            await asyncio.sleep(0.6)
            assert (await b.find("sip:plain.example:5060"))[0] is None
            b.server.rcode = None
            await asyncio.sleep(0.15)
            assert (await b.find("sip:plain.example:5060"))[0] == known

    run(test)


def spoofed(query: dns.message.Message, *, other_id: bool = False, other_name: bool = False) -> bytes:
    """An answer that sends us elsewhere and fails to fit the question."""
    name = "evil.example." if other_name else query.question[0].name.to_text()
    forged = dns.message.make_response(dns.message.make_query(name, query.question[0].rdtype))
    forged.id = query.id ^ 0x5555 if other_id else query.id
    forged.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "203.0.113.66"))
    return forged.to_wire()


def test_lies_are_passed_over(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench() as b:
            b.server.lie = lambda query: [
                b"",
                b"\xff" * 40,
                query.to_wire(),  # a question is no answer
                spoofed(query, other_id=True),
                spoofed(query, other_name=True),
            ]
            assert (await b.find("sip:plain.example:5060"))[0] == ["udp 127.0.0.31 5060"]

    run(test)


def test_lies_in_the_zone(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench() as b:
            b.server.zone["_sip._udp.odd.example", "SRV"] = [
                "0 0 0 gw1.carrier.example.",
                r"0 0 5060 a\000b\.c\"d.example.",
                "0 0 5060 .",
                "1 0 5070 gw2.carrier.example.",
            ]
            b.server.zone["odd.example", "NAPTR"] = [r'1 1 "\255" "\000SIP+D2U" "\"" .']
            b.server.zone["zero.example", "A"] = ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.9"]
            assert (await b.find("sip:odd.example"))[0] == ["udp 127.0.0.22 5070"]
            assert (await b.find("sip:zero.example:5060"))[0] == ["udp 127.0.0.9 5060"]

    run(test)


def test_a_truncated_answer_is_fetched_over_tcp(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench() as b:
            b.server.zone["many.example", "A"] = [f"127.0.1.{n}" for n in range(1, 200)]
            b.server.truncate = True
            found, _ = await b.find("sip:many.example:5060")
            assert found is not None
            assert len(found) == 8

    run(test)


def test_names_that_are_none(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench() as b:
            for host in ("a..b", "." * 9, "x" * 64 + ".example", "_", "-", "a." * 127):
                assert (await b.find(f"sip:{host}:5060"))[0] is None, host

    run(test)


def test_ttl_and_record_shapes(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench() as b:
            records, ttl_s = await b.client.ask(Question("plain.example", "A"))
            assert records == ("127.0.0.31",)
            assert ttl_s == 60
            assert await b.client.ask(Question("_sip._udp.gone.example", "SRV")) == (((0, 0, 0, ""),), 60)
            assert (await b.client.ask(Question("plain.example", "NAPTR")))[0] == ()
            assert (await b.client.ask(Question("nowhere.example", "A")))[0] == ()

    run(test)


def test_the_client_of_the_system_is_loaded_once_and_off_the_loop(
    run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with bench() as b:
            loads = []

            def load(servers: object) -> DnsClient:
                loads.append(1)
                time.sleep(0.3)
                return b.client

            monkeypatch.setattr("sbc.transport.resolver._load_client", load)
            system = NameServers()
            answers = await asyncio.gather(*[system.ask(Question("plain.example", "A")) for _ in range(3)])
            assert answers == [(("127.0.0.31",), 60)] * 3
            assert len(loads) == 1
            assert b.lag_s < 0.25, "the loop went on while it was loaded"

    run(test)


def test_two_servers_one_dead(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async with bench() as b:
            first = await b.resolver.resolve(parse_uri("sip:carrier.example;transport=udp"), UDP)
            assert first == [Server("udp", "127.0.0.21", 5080), Server("udp", "127.0.0.22", 5090)]
            b.resolver.failed(first[0])
            assert await b.resolver.resolve(parse_uri("sip:carrier.example"), UDP) == first[::-1]

    run(test)
