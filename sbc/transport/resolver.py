"""The resolver (RFC 3263): names of gateways into addresses, within a second, whatever the DNS does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from sbc.errors import ResolveError
from sbc.policy.cool_off import COOL_OFF_S, CoolOff
from sbc.policy.name_cache import NameCache, State
from sbc.policy.server_location import Answer, Path, Question, Record, Server, locate
from sbc.sip.uri import Uri

if TYPE_CHECKING:
    from sbc.transport.dns_client import DnsClient

BUDGET_S: Final = 1.0  # a call waits no longer for a name
STALE_WAIT_S: Final = 0.1  # nor longer than this where an expired answer is at hand
FLIGHTS_MAX: Final = 256  # questions under way; more than that are not asked

Ask = Callable[[Question], Awaitable[tuple[tuple[Record, ...], float]]]


class NameServers:
    """The name servers that the configuration names, or those of the machine.

    Their client is loaded on a thread when the first name is asked for: it takes 5 MB and a tenth of a second, which a
    node that knows no names need not pay, and the loop of one that does must not.
    """

    def __init__(self, servers: Sequence[tuple[str, int]] = ()) -> None:
        self._loading = asyncio.Lock()
        self.configure(servers)

    def configure(self, servers: Sequence[tuple[str, int]]) -> None:
        """Ask these (address, port) from now on; none: those of the machine, as they are now."""
        self._servers = list(servers) or None
        self._client: DnsClient | None = None

    async def ask(self, question: Question) -> tuple[tuple[Record, ...], float]:
        """See :meth:`sbc.transport.dns_client.DnsClient.ask`."""
        async with self._loading:
            client = self._client
            if client is None:
                client = self._client = await asyncio.to_thread(_load_client, self._servers)
        return await client.ask(question)


def _load_client(servers: Sequence[tuple[str, int]] | None) -> DnsClient:
    from sbc.transport.dns_client import DnsClient

    return DnsClient(servers)


def _count(name: str) -> None:
    pass


class Resolver:
    """Servers of URIs, best first.

    ``ask`` puts one question to the DNS and returns records and their lifetime, or raises. Each question is under way
    once only, however many calls wait for it, and goes on when the last of them has stopped waiting, so that the next
    one finds the answer. ``now`` is monotonic seconds, ``draw`` gives numbers of [0, 1), ``count`` adds one to a
    counter by name.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        now: Callable[[], float],
        draw: Callable[[], float],
        cache: NameCache | None = None,
        budget_s: float = BUDGET_S,
        stale_wait_s: float = STALE_WAIT_S,
        count: Callable[[str], None] = _count,
    ) -> None:
        self._ask = ask
        self._now = now
        self._draw = draw
        self._cache = NameCache() if cache is None else cache
        self._cool_off = CoolOff()
        self._budget_s = budget_s
        self._stale_wait_s = stale_wait_s
        self._count = count
        self._flights: dict[Question, asyncio.Task[Answer]] = {}

    async def resolve(self, uri: Uri, paths: Sequence[Path]) -> list[Server]:
        """The servers of a URI that ``paths`` reach, in the order in which to try them; never empty.

        Waits only for what the cache does not hold, and no longer than the budget. Servers that failed a moment ago
        are at the end. Raises ResolveError and nothing else.
        """
        begun = self._now()
        location = locate(uri, paths, self._draw)
        try:
            questions = next(location)
            while True:
                known = [self._cache.fresh(question, begun) for question in questions]
                answers = await self._answers(questions, begun) if None in known else known
                questions = location.send(answers)
        except StopIteration as found:
            return self._cool_off.ordered(found.value, begun)
        except ResolveError:
            self._count("RESOLVE_FAILED")
            raise

    def failed(self, server: Server, for_s: float = COOL_OFF_S) -> None:
        """A server gave no answer, or 503: try others before it for ``for_s``."""
        self._cool_off.failed(server, self._now(), for_s)

    def close(self) -> None:
        """Stop asking."""
        for flight in self._flights.values():
            flight.cancel()

    async def _answers(self, questions: Iterable[Question], begun: float) -> list[Answer]:
        """The answer to each; stale ones, and None for those without, when the DNS is slower than we may wait."""
        now = self._now()
        answers: dict[Question, Answer] = {}
        flights: dict[Question, asyncio.Task[Answer]] = {}
        until = begun + self._stale_wait_s
        for question in questions:
            state, answers[question] = self._cache.look(question, now)
            if state is State.UNKNOWN:
                # Many zones have no NAPTR records, and some name servers do not even say so: leave time for the rest.
                share = 2 if question.kind == "NAPTR" else 1
                until = max(until, now + (begun + self._budget_s - now) / share)
            if state in (State.UNKNOWN, State.STALE):
                flight = self._flights.get(question) or self._set_off(question)
                if flight is not None:
                    flights[question] = flight
        if flights:
            await asyncio.wait(flights.values(), timeout=max(0.0, until - now))
        for question, flight in flights.items():
            if flight.done() and not flight.cancelled():
                answers[question] = flight.result()
            else:  # too slow: others need not wait for it too, and it may still come
                answers[question] = self._cache.failed(question, self._now())
                self._count("DNS_TIMEOUTS")
        return list(answers.values())

    def _set_off(self, question: Question) -> asyncio.Task[Answer] | None:
        if len(self._flights) >= FLIGHTS_MAX:
            return None
        flight = asyncio.get_running_loop().create_task(self._look_up(question), name="dns")
        self._flights[question] = flight
        return flight

    async def _look_up(self, question: Question) -> Answer:
        """Ask, and keep the answer."""
        self._count("DNS_QUERIES")
        try:
            records, ttl_s = await self._ask(question)
        except Exception:  # a name that is none, name servers that are away, refuse or answer nonsense: no answer
            self._count("DNS_FAILURES")
            return self._cache.failed(question, self._now())
        else:
            return self._cache.answered(question, records, ttl_s, self._now())
        finally:
            del self._flights[question]
