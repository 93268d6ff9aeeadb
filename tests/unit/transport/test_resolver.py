"""The resolver's promises in virtual time: one question at a time per name, a second at most, stale before nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps

import pytest

from sbc.errors import ResolveError
from sbc.policy.server_location import Naptr, Path, Question, Record, Server, Srv
from sbc.sip.uri import parse_uri
from sbc.transport.resolver import FLIGHTS_MAX, Resolver
from tests.support.virtual_loop import run_virtually

UDP = [Path("udp", 4)]
NAME = parse_uri("sip:carrier.example")
PORT = parse_uri("sip:gw.example:5080")
ONE, TWO = Server("udp", "192.0.2.1", 5080), Server("udp", "192.0.2.2", 5080)


def virtually(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an async test in virtual time."""

    @wraps(test)
    def run() -> None:
        async def main() -> None:
            await test()

        run_virtually(main)

    return run


class Dns:
    """A DNS on paper: ``zone`` answers, after ``delay_s``; what it does not name does not exist."""

    def __init__(self, zone: dict[tuple[str, str], Sequence[Record]], ttl_s: float = 60.0) -> None:
        self.zone = zone
        self.ttl_s = ttl_s
        self.delay_s = 0.01
        self.dead = False
        self.asked: Counter[Question] = Counter()
        self.counts: Counter[str] = Counter()
        loop = asyncio.get_running_loop()
        self.resolver = Resolver(
            self.ask, now=loop.time, draw=lambda: 0.5, count=lambda name: self.counts.update([name])
        )

    async def ask(self, question: Question) -> tuple[tuple[Record, ...], float]:
        self.asked[question] += 1
        await asyncio.sleep(self.delay_s)
        if self.dead:
            raise OSError("no name server")
        return tuple(self.zone.get(question, ())), self.ttl_s

    async def timed(self, uri: str = "sip:gw.example:5080") -> tuple[list[Server] | None, float]:
        """What a look-up gave (None: ResolveError), and how long it took."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            servers: list[Server] | None = await self.resolver.resolve(parse_uri(uri), UDP)
        except ResolveError:
            servers = None
        return servers, round(loop.time() - begun, 3)


def gateway() -> Dns:
    return Dns({("gw.example", "A"): ["192.0.2.1", "192.0.2.2"]})


def carrier() -> Dns:
    return Dns(
        {
            ("carrier.example", "NAPTR"): [Naptr(1, 1, "s", "SIP+D2U", "", "_sip._udp.carrier.example")],
            ("_sip._udp.carrier.example", "SRV"): [Srv(0, 0, 5080, "gw1.carrier.example")],
            ("gw1.carrier.example", "A"): ["192.0.2.1"],
        }
    )


@virtually
async def test_a_cached_name_takes_no_time_and_no_question() -> None:
    dns = carrier()
    assert await dns.timed("sip:carrier.example") == ([ONE], 0.03)
    assert await dns.timed("sip:carrier.example") == ([ONE], 0.0)
    assert dns.asked.total() == 3


@virtually
async def test_a_cached_name_does_not_even_suspend() -> None:
    dns = gateway()
    await dns.timed()
    step = dns.resolver.resolve(PORT, UDP)
    with pytest.raises(StopIteration) as done:
        step.send(None)
    assert done.value.value == [ONE, TWO]


@virtually
async def test_many_calls_ask_once() -> None:
    dns = carrier()
    dns.delay_s = 0.2
    found = await asyncio.gather(*[dns.timed("sip:carrier.example") for _ in range(500)])
    assert all(servers == [ONE] for servers, _ in found)
    assert set(dns.asked.values()) == {1}


@virtually
async def test_nothing_known_and_dns_dead_costs_a_second_once() -> None:
    dns = carrier()
    dns.delay_s = 30
    servers, waited = await dns.timed("sip:carrier.example")
    assert (servers, waited) == (None, 1.0)
    for _ in range(20):
        assert await dns.timed("sip:carrier.example") == (None, 0.0), "the question rests"
    assert dns.asked == {Question("carrier.example", "NAPTR"): 1, Question("_sip._udp.carrier.example", "SRV"): 1}
    assert dns.counts["RESOLVE_FAILED"] == 21


@virtually
async def test_a_dns_that_refuses_is_no_wait() -> None:
    dns = gateway()
    dns.dead = True
    assert await dns.timed() == (None, 0.01)
    assert dns.counts["DNS_FAILURES"] == 1


@virtually
async def test_a_late_answer_serves_the_next_call() -> None:
    dns = gateway()
    dns.delay_s = 2.5
    assert (await dns.timed())[0] is None
    await asyncio.sleep(1.6)
    assert await dns.timed() == ([ONE, TWO], 0.0)


@virtually
async def test_an_expired_name_waits_a_tenth_for_a_newer_answer_then_serves() -> None:
    dns = carrier()
    await dns.timed("sip:carrier.example")
    dns.delay_s = 5
    await asyncio.sleep(61)
    servers, waited = await dns.timed("sip:carrier.example")
    assert (servers, waited) == ([ONE], 0.1), "once for all three steps together"
    assert await dns.timed("sip:carrier.example") == ([ONE], 0.0)


@virtually
async def test_a_dead_dns_for_a_day() -> None:
    dns = gateway()
    await dns.timed()
    dns.dead = True
    slowest = 0.0
    for _ in range(24):
        servers, waited = await dns.timed()
        assert servers == [ONE, TWO]
        slowest = max(slowest, waited)
        await asyncio.sleep(3600 - waited)
    assert slowest <= 0.1
    await asyncio.sleep(61)
    assert (await dns.timed())[0] is None, "24 h are over"
    dns.dead = False
    await asyncio.sleep(6)
    assert (await dns.timed())[0] == [ONE, TWO]


@virtually
async def test_a_new_address_is_seen_when_the_old_one_expires() -> None:
    dns = gateway()
    await dns.timed()
    dns.zone["gw.example", "A"] = ["192.0.2.2"]
    await asyncio.sleep(30)
    assert (await dns.timed())[0] == [ONE, TWO]
    await asyncio.sleep(31)
    assert (await dns.timed())[0] == [TWO]


@virtually
async def test_an_unanswered_naptr_question_leaves_time_for_the_rest() -> None:
    dns = carrier()
    answer = dns.ask

    async def mute(question: Question) -> tuple[tuple[Record, ...], float]:
        if question.kind == "NAPTR":
            await asyncio.sleep(60)
        return await answer(question)

    dns.resolver._ask = mute
    servers, waited = await dns.timed("sip:carrier.example")
    assert servers == [ONE]
    assert waited == 0.52


@virtually
async def test_failed_servers_come_last_for_a_while() -> None:
    dns = gateway()
    assert (await dns.timed())[0] == [ONE, TWO]
    dns.resolver.failed(ONE)
    assert (await dns.timed())[0] == [TWO, ONE]
    await asyncio.sleep(31)
    assert (await dns.timed())[0] == [ONE, TWO]


@virtually
async def test_an_address_asks_nobody_and_needs_no_loop() -> None:
    dns = gateway()
    step = dns.resolver.resolve(parse_uri("sip:192.0.2.1:5080"), UDP)
    with pytest.raises(StopIteration) as done:
        step.send(None)
    assert done.value.value == [ONE]
    assert not dns.asked


@virtually
async def test_a_flood_of_names_has_a_bound() -> None:
    dns = gateway()
    dns.delay_s = 3
    await asyncio.gather(*[dns.timed(f"sip:{n}.example.com:5060") for n in range(FLIGHTS_MAX + 50)])
    assert dns.asked.total() == FLIGHTS_MAX


@virtually
async def test_whatever_the_client_raises_is_a_resolve_error() -> None:
    for error in (OSError("x"), ValueError("x"), UnicodeEncodeError("ascii", "x", 0, 1, "x"), TimeoutError()):
        dns = gateway()

        async def broken(question: Question, error: Exception = error) -> tuple[tuple[Record, ...], float]:
            raise error

        dns.resolver._ask = broken
        assert (await dns.timed())[0] is None


@virtually
async def test_a_caller_that_gives_up_does_not_end_the_question() -> None:
    dns = gateway()
    dns.delay_s = 0.5
    waiting = asyncio.create_task(dns.timed())
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.sleep(0.5)
    assert await dns.timed() == ([ONE, TWO], 0.0)


@virtually
async def test_close_ends_what_is_under_way() -> None:
    dns = gateway()
    dns.delay_s = 30
    await dns.timed()
    dns.resolver.close()
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task.get_name() == "dns"] == []
