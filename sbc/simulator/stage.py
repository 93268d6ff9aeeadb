"""The stage of a dry run: one node with the real core, routes and policies, in virtual time, and its peers as parties.

It does what a SIP worker does around the core, without sockets, store or media workers. Messages take no time; time
passes when :meth:`Stage.after` or :meth:`Stage.run_until` lets it.
"""

from __future__ import annotations

import asyncio
import heapq
import ipaddress
import itertools
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from media.protocol import Play
from sbc.b2bua.call import Call
from sbc.b2bua.core import Core
from sbc.b2bua.effects import FinishCall, MediaCommand, Note, RouteKind, RunRoute, SaveCall, ServerFailed, Transmit
from sbc.b2bua.leg import Leg
from sbc.b2bua.subjects import Attempt
from sbc.b2bua.trunk import Trunk
from sbc.clock import VirtualClock
from sbc.config.models import Config
from sbc.errors import ResolveError, SipSyntaxError
from sbc.lookups.lookups import Lookups
from sbc.lookups.world import World
from sbc.policy.admission import Admission
from sbc.policy.server_location import Path, Server, is_name, locate
from sbc.routing.loader import load_routes
from sbc.routing.node import Node
from sbc.routing.routes import Routes
from sbc.routing.runner import Runner
from sbc.simulator import refusals
from sbc.simulator.lookups import ScriptedLookups
from sbc.simulator.media import MediaStandIn
from sbc.simulator.party import Line, Party
from sbc.simulator.trace import (
    BUILTIN,
    Deciding,
    Seen,
    Trace,
    TraceLogger,
    definition,
    here,
    name_of,
    nat_sentence,
    phrase,
)
from sbc.simulator.virtual_loop import RestlessRoute, VirtualLoop, running
from sbc.sip.flow import IDENTITY_SHIFT, Flow
from sbc.sip.ids import Ids
from sbc.sip.message import Message
from sbc.sip.uri import Uri, parse_uri
from sbc.worker.settings import core_settings

PROMPT_S: Final = 3.0  # how long every prompt is
IDLE_S: Final = 7200.0  # beyond every timer of a transaction
SHARD_KEY: Final = b"a key of no node"
MAX_INPUTS: Final = 10_000  # of one moment: a dry run that needs more has found a loop


class Stage:
    """``config`` with its routes, or with ``routes``: a Routes object, or the path of a module.

    ``at_s`` is the wall-clock time (seconds since 1970) at which it begins, now by default. ``hosts`` gives addresses
    to host names; the gateway of a peer otherwise stands for the first address of that peer. Trunks count as
    registered. ``timers`` lets timer routes run. ``lookups`` says what routes find; with ``ask`` real servers answer
    what no script does. Raises ConfigError for routes that cannot be loaded, and what a startup route raises.
    """

    def __init__(
        self,
        config: Config,
        routes: Routes | str | None = None,
        *,
        at_s: float | None = None,
        hosts: Mapping[str, Sequence[str]] | None = None,
        timers: bool = False,
        ask: bool = False,
    ) -> None:
        self.config = config
        self.routes = _loaded(config, routes)
        self.clock = VirtualClock(1000.0, time.time() if at_s is None else at_s)
        self.trace = Trace(self.clock)
        self.counts: dict[str, int] = {}
        self.cdrs: list[dict[str, object]] = []
        self.parties: dict[str, Party] = {}
        self.on_message: Callable[[Party, Line, Message], None] | None = None  # what parties get; None: their inboxes
        self.loop = VirtualLoop(self.clock, self.at)
        self.lookups = ScriptedLookups(self.trace, config.lookups.answers, self._ask_really if ask else None)
        self.admission = Admission(config.peers, config.realms)
        self._names = _Names(config, hosts or {})
        self._settings = core_settings(config, SHARD_KEY, self.admission, self.routes.kinds)
        self._tokens = itertools.count(1)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._incoming: deque[tuple[bytes, Flow, Party]] = deque()
        self._pumping = False
        self._attempts: dict[str, tuple[list[Attempt], list[int]]] = {}
        self._natted: set[tuple[str, str, str]] = set()  # what was said of NAT: call, leg, why
        self._start()
        try:
            self._complete(self.runner.start_up() if timers else self.runner.prepare(self.routes))
        except BaseException:
            self.lookups.close()
            self.loop.close()
            raise
        self.trace.begin()

    def _start(self) -> None:
        numbers = itertools.count(1)
        ids = Ids(lambda n: (next(numbers) * 0x9E3779B97F4A7C15 % (1 << (8 * n))).to_bytes(n, "big"))
        self.core = Core(self._settings, ids)
        if self.core.wire is not None:
            self.core.wire.told = lambda text, where: self.trace.add("rule", text, where)
        for name, peer in self.config.peers.items():
            if peer.registration is not None:
                self.core.trunks[name] = Trunk(True)
        self.media = MediaStandIn(self.config.realms)
        lookups = Lookups(self.config.lookups, self.lookups)
        self.node = Node(self.config, Deciding(self.core, self.trace), self.clock, self._names, lookups)
        self.node.log = TraceLogger(self.trace, [], {})
        self.node.decided = lambda said: self.trace.add("decision", said, here())
        budget = self.config.routes_budget
        self.runner = Runner(self.routes, self.node, loop=self.loop, count=self._count, budget=budget)
        self.runner.watch_tasks()

    def _complete(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine to its end, whatever time it takes. Any: asyncio's own."""
        with self.runner.watchdog.installed():
            self._drive(self.loop.create_task(work))

    def _drive(self, task: asyncio.Task[Any]) -> None:  # Any: as above
        self.loop.settle()
        while not task.done():
            if self.loop.waits_for_the_world:
                self.clock.now += self.loop.look()
            elif self._queue:
                self.clock.now = max(self.clock.now, self._queue[0][0])
            else:
                task.cancel()
                self.loop.settle()
                raise RestlessRoute("a startup route waits for something that will never come")
            self._fire(self.clock.now)
            self.loop.settle()
        task.result()

    def close(self) -> None:
        """Give the event loop's descriptors back."""
        self._abandon()
        self.lookups.close()
        self.loop.settle()
        with running(None):
            self.loop.close()

    def _abandon(self) -> None:
        """End the routes that still wait."""
        self.runner.close()
        self.loop.settle()

    def _ask_really(self) -> World:
        config = self.config
        return World(config.lookups, self.loop, store_url=config.store, run_dir=config.run_dir, count=lambda name: None)

    def begin(self, at_s: float | None = None) -> None:
        """Forget the last run and begin another on an idle node: what is left of calls is gone, limits are at rest."""
        self.clock.now += IDLE_S
        with running(self.loop):
            self.core.fire(self.clock.now, self.clock.wall())
            while self.core.poll() is not None:
                pass
        core = self.core
        left = core.calls or core.legs or core.requests.sides or len(core.layer) or self.media.sessions
        if left or self.runner.is_waiting:
            self._abandon()
            self.admission = Admission(self.config.peers, self.config.realms)
            self._settings = core_settings(self.config, SHARD_KEY, self.admission, self.routes.kinds)
            self._start()
        self.core.take_counts()
        self.runner.watchdog.forget()
        self._queue.clear()
        self._incoming.clear()
        self._attempts.clear()
        self._natted.clear()
        self.counts, self.cdrs, self.parties, self.on_message = {}, [], {}, None
        if at_s is not None:
            self.clock.wall_offset = at_s - self.clock.now
        self.trace.begin()
        self.lookups.begin()

    # Parties

    def party(self, name: str) -> Party:
        """A peer by its name: at its gateway, or at the first of its addresses. Raises KeyError for no peer."""
        party = self.parties.get(name)
        if party is None:
            peer = self.config.peers[name]
            host, port, transport = self._names.place(name)
            realms = [realm for realm, _ in self.config.listeners]
            if transport and (peer.realm, transport) not in {(r, it.transport) for r, it in self.config.listeners}:
                transport = ""
            try:
                listener = self.core.listener_of(peer.realm, transport, host)
            except KeyError:
                listener = realms.index(peer.realm)
            party = self.parties[name] = Party(self, name, self._flow(listener, host, port))
        return party

    def source(self, address: str, listener: str = "", certificate: str = "") -> Party:
        """Who speaks from ``address`` (``host`` or ``host:port``, or the name of a peer) to ``listener``, which is the
        name of a realm or ``transport:address:port`` as configured; ``certificate`` is the name in the one it shows.

        '' is the first listener of the realm in which the address is a peer's. Raises ValueError.
        """
        number = self._listener(listener) if listener else None
        if address in self.config.peers:
            party = self.party(address)
            if number is not None:
                party.flow = self._flow(number, party.flow.host, party.flow.port)
            return party
        host, port = _host_port(address)
        numbers = range(len(self.config.listeners)) if number is None else [number]
        flows = [self._flow(i, host, port, certificate) for i in numbers]
        flow = next((one for one in flows if self.admission.admit(one.listener, host, port, one.connection)), flows[0])
        known = self.admission.admit(flow.listener, host, port, flow.connection)
        name = known.peer if known is not None else host
        party = self.parties[name] = Party(self, name, flow, known=known is not None)
        return party

    def _flow(self, listener: int, host: str, port: int, certificate: str = "") -> Flow:
        transport = self.config.listeners[listener][1].transport
        if transport == "udp":
            return Flow(listener, transport, host, port)
        proved = self.admission.identity_of(listener, [certificate]) if certificate else 0
        return Flow(listener, transport, host, port, proved << IDENTITY_SHIFT | 1)

    def _listener(self, text: str) -> int:
        listeners = self.config.listeners
        for number, (realm, listen) in enumerate(listeners):
            if text in (realm, f"{listen.transport}:{_in_uri(listen.host)}:{listen.port}"):
                return number
        known = ", ".join([self.listener_text(number) for number in range(len(listeners))])
        raise ValueError(f"no listener {text!r}: name a realm, or one of {known}")

    def listener_text(self, number: int) -> str:
        """A listener as the configuration writes it."""
        listen = self.config.listeners[number][1]
        return f"{listen.transport}:{_in_uri(listen.host)}:{listen.port}"

    def address_of(self, listener: int) -> str:
        """What a listener is called in a URI."""
        realm, listen = self.config.listeners[listener]
        host, port = self.config.realms[realm].advertised(listen)
        return _in_uri(host) if port == 5060 else f"{_in_uri(host)}:{port}"

    def mint(self, prefix: str) -> str:
        """A token that was not used before."""
        return f"{prefix}{next(self._tokens)}"

    def so_far(self) -> str:
        """What has happened, for the message of a failed assertion."""
        return "\n" + "\n".join(self.trace.sentences())

    # Time

    def send(self, party: Party, data: bytes) -> None:
        """A party sends; the node gets it at once, or when it has done what it is doing."""
        self._incoming.append((data, party.flow, party))
        self._pump()

    def at(self, when: float, run: Callable[[], None]) -> None:
        """Do something at a moment of the monotonic clock."""
        heapq.heappush(self._queue, (when, next(self._tokens), run))

    def after(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.now + seconds
        self.run_until(lambda: False, seconds)
        self.clock.now = max(self.clock.now, end)

    def run_until(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Let time pass until ``done`` (True), or nothing more is planned, or the limit."""
        with self.runner.watchdog.installed():
            return self._run_until(done, limit_s)

    def _run_until(self, done: Callable[[], bool], limit_s: float) -> bool:
        end = self.clock.now + limit_s
        while True:
            self._pump()
            if done():
                return True
            if self.runner.is_waiting and self.loop.waits_for_the_world:
                self.clock.now += self.loop.look()
                if self.clock.now < end:
                    self._fire(self.clock.now)
                    continue
            timer = self.core.next_timer()
            if timer is None and not self._queue:
                return False
            at = min(timer if timer is not None else end, self._queue[0][0] if self._queue else end)
            if at >= end:
                self.clock.now = max(self.clock.now, end)
                return False
            self.clock.now = max(self.clock.now, at)
            self._fire(self.clock.now)

    @property
    def attempts(self) -> list[Attempt]:
        """Every target that was tried, of all calls, in order."""
        return [attempt for attempts, _ in self._attempts.values() for attempt in attempts]

    def is_over(self) -> None:
        """No call may be left, once every timer has run. Raises AssertionError."""
        self.after(200.0)
        left = [call.describe() for call in self.core.calls.values()]
        assert not left, f"calls are left: {left}{self.so_far()}"
        assert not self.media.sessions, f"media sessions are left: {sorted(self.media.sessions)}{self.so_far()}"

    def _fire(self, now: float) -> None:
        with running(self.loop):
            while self._queue and self._queue[0][0] <= now:
                heapq.heappop(self._queue)[2]()
            timer = self.core.next_timer()
            if timer is not None and timer <= now:
                self.core.fire(now, self.clock.wall())

    def _pump(self) -> None:
        """One input, then all effects, then the next input."""
        if self._pumping:
            return
        self._pumping = True
        try:
            with running(self.loop), self.runner.watchdog.installed():
                for _ in range(MAX_INPUTS):
                    self._drain()
                    if self.loop.is_ready:
                        self.loop.settle()
                        continue
                    if not self._incoming:
                        return
                    data, flow, party = self._incoming.popleft()
                    self._arrive(data, flow, party)
            raise AssertionError(f"messages go in circles{self.so_far()}")
        finally:
            self._pumping = False

    def _arrive(self, data: bytes, flow: Flow, party: Party) -> None:
        self.trace.messages.append(Seen(self.trace.at_s, party.name, "", data))
        self.trace.add("message", f"{party.name} sends {_what(data)}.")
        if not party.is_known:
            self.trace.add("rejected", refusals.stranger(self.config, flow))
        self.core.receive(data, flow, self.clock.now, self.clock.wall())

    # Effects

    def _drain(self) -> None:
        core = self.core
        while (effect := core.poll()) is not None:
            self._explain()
            if isinstance(effect, Transmit):
                self._leave(effect)
            elif isinstance(effect, RunRoute):
                self._announce(effect)
                self.runner.perform(effect)
            elif isinstance(effect, MediaCommand):
                core.media_done(effect.request_id, self.media.answer(effect.request), self.clock.now)
                if isinstance(effect.request, Play):
                    self._played(effect.request)
            elif isinstance(effect, SaveCall):
                if effect.wait:
                    core.saved(effect.key, effect.version, True, self.clock.now)
            elif isinstance(effect, FinishCall):
                self.cdrs.append(effect.cdr)
            elif isinstance(effect, Note):
                if effect.event != "route raised":
                    self.trace.add("rejected", refusals.noted(effect))
            elif isinstance(effect, ServerFailed):
                self.node.server_failed(effect)
        self._explain()

    def _played(self, play: Play) -> None:
        """A prompt is heard, and is over after PROMPT_S unless it is music."""
        call = self.core.calls.get(play.session)
        if call is None:
            return
        who = "The caller" if play.leg == call.a.name else "The called side"
        self.trace.add("decision", f"{who} hears {play.file}.")

        def over(now: float) -> None:
            if call.announcing is not None:
                call.announcing.played(play.number, now)

        if play.repeat:
            self.core.timers.start(PROMPT_S, over, self.clock.now)

    def _leave(self, effect: Transmit) -> None:
        """A message leaves for the party at that address."""
        flow, data = effect.flow, effect.data
        source = self.admission.admit(flow.listener, flow.host, flow.port, flow.connection)
        if source is not None:
            party = self.party(source.peer)
        else:
            party = self.parties.get(flow.host) or Party(self, flow.host, flow, known=False)
            self.parties[flow.host] = party
        if party.flow.host != flow.host or party.flow.port != flow.port or party.flow.listener != flow.listener:
            party.flow = self._flow(flow.listener, flow.host, flow.port)  # another address of that peer
        self.trace.messages.append(Seen(self.trace.at_s, "", party.name, data))
        msg = Message.parse(data)
        where = ""
        if party.knows(msg):
            self.trace.add("message", f"{party.name} gets the {_what(data)} again.")
            return
        if msg.is_request and not msg.to_tag and msg.method not in ("ACK", "CANCEL"):
            where = f" for {msg.uri}, by {self.listener_text(flow.listener)} to {_in_uri(flow.host)}:{flow.port}"
        self.trace.add("message", f"{party.name} gets {_what(data)}{where}.")
        party.take(msg)

    def _announce(self, effect: RunRoute) -> None:
        if effect.kind is RouteKind.REPLY:
            routes = self.runner.reply_routes(effect)
        else:
            route = effect.hook or self.routes.by_kind.get(effect.kind)
            routes = [] if route is None else [route]
        for route in routes:
            leg: Leg | None = getattr(effect.subject, "leg", None)
            about = f" for {leg.attempt.gateway}" if leg is not None and leg.attempt is not None else ""
            if effect.kind is RouteKind.REPLY:
                about = f" for the {effect.subject.status}{about.replace(' for', ' of', 1)}"
            self.trace.add("route", f"The {effect.kind.value} {name_of(route)} runs{about}.", definition(route))

    def _explain_nat(self, call: Call) -> None:
        """Say of each side of a call that is taken to be behind NAT why, and what that means."""
        for leg in call.legs():
            why = leg.judge_nat(self.core)
            if why and (call.key, leg.name, why) not in self._natted:
                self._natted.add((call.key, leg.name, why))
                self.trace.add("nat", nat_sentence(leg.peer, why, leg.flow))

    def _explain(self) -> None:
        """Say what was counted, and of each target that has failed, what that means."""
        for name, amount in self.core.take_counts().items():
            self._count(name, amount)
        for call in self.core.calls.values():
            self._explain_nat(call)
            if not call.attempts:
                continue
            attempts, told = self._attempts.setdefault(call.key, (call.attempts, []))
            while len(told) < len(attempts):
                told.append(0)
            for number, attempt in enumerate(attempts):
                if attempt.status != told[number]:
                    told[number] = attempt.status
                    if attempt.status >= 300:
                        self.trace.add("rejected", refusals.failed(attempt))

    def _count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount
        if (why := refusals.counted(name)) and name != "UNKNOWN_SOURCE_DROPPED":
            self.trace.add("rejected", why)


class _Names:
    """Host names without the DNS: what they stand for on this stage (:class:`sbc.routing.node.Resolver`)."""

    def __init__(self, config: Config, hosts: Mapping[str, Sequence[str]]) -> None:
        self._config = config
        self._hosts = {name.lower(): tuple(found) for name, found in hosts.items()}
        for peer in config.peers.values():
            if peer.gateway and is_name(name := parse_uri(peer.gateway).address):
                first = peer.addresses[0]
                self._hosts.setdefault(name.lower(), (str(next(iter(first.hosts()), first.network_address)),))

    def place(self, peer: str) -> tuple[str, int, str]:
        """Address, port and transport of a peer."""
        given = self._config.peers[peer]
        first = given.addresses[0]
        if not given.gateway:
            return str(next(iter(first.hosts()), first.network_address)), 5060, ""
        uri = parse_uri(given.gateway)
        host = uri.address
        if is_name(host):
            host = self._hosts[host.lower()][0]
        return host, uri.port or 5060, (uri.param("transport") or "").lower()

    async def resolve(self, uri: Uri, paths: Sequence[Path]) -> list[Server]:
        """As the real one, with every question but those for addresses denied."""
        search = locate(uri, paths, lambda: 0.0)
        try:
            questions = next(search)
            while True:
                answers = []
                for question in questions:
                    version = {"A": 4, "AAAA": 6}.get(question.kind)
                    found = self._hosts.get(question.name, ()) if version else ()
                    answers.append(tuple([one for one in found if ipaddress.ip_address(one).version == version]))
                questions = search.send(answers)
        except StopIteration as done:
            servers: list[Server] = done.value
            return servers
        except ResolveError as error:
            raise ResolveError(f"{error} (a dry run asks no name server)") from error

    def failed(self, server: Server) -> None:
        """As on any new day: nobody has failed before."""


def _loaded(config: Config, routes: Routes | str | None) -> Routes:
    if isinstance(routes, Routes):
        return routes
    # The built-in routes from their source, so that their lines can be named.
    return load_routes(routes or config.routes or BUILTIN)


def _what(data: bytes) -> str:
    try:
        msg = Message.parse(data)
    except SipSyntaxError as error:
        return f"octets that are no SIP message ({error})"
    if msg.is_request:
        return msg.method
    return (
        f"{phrase(msg.status, msg.reason)} to its {msg.cseq_method}"
        if msg.cseq_method != "INVITE"
        else phrase(msg.status, msg.reason)
    )


def _in_uri(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _host_port(text: str) -> tuple[str, int]:
    """``192.0.2.1``, ``192.0.2.1:5060``, ``2001:db8::1`` or ``[2001:db8::1]:5060``. Raises ValueError."""
    host, port = text, "5060"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        raise ValueError(f"{text!r} is no peer and no address") from None
