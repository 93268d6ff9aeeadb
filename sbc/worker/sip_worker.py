"""A SIP worker: the shell around the core. It reads datagrams, feeds the core, and performs what the core asks."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import uvloop

from media.protocol import Reply
from sbc.b2bua import digits, effects
from sbc.b2bua.call import Call
from sbc.b2bua.core import Core
from sbc.b2bua.settings import CoreSettings
from sbc.clock import Clock, SystemClock
from sbc.config.loader import load
from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.management import rpc
from sbc.policy.admission import Admission
from sbc.routing import versions
from sbc.routing.node import Node
from sbc.routing.routes import Routes
from sbc.routing.runner import Runner
from sbc.sip.flow import Flow
from sbc.sip.ids import Ids
from sbc.sip.shard import shard_of
from sbc.telemetry import log
from sbc.transport.resolver import NameServers, Resolver
from sbc.transport.source_address import SourceAddresses
from sbc.worker.beginning import Beginning
from sbc.worker.datagrams import BATCH, DatagramSide
from sbc.worker.garbage import Garbage
from sbc.worker.journals import journal_of
from sbc.worker.keep_alive import KeepAliveSide
from sbc.worker.lodging import LodgingSide
from sbc.worker.lookups import LookupSide
from sbc.worker.measuring import LoadSide
from sbc.worker.media import MediaSide
from sbc.worker.parting import Parting
from sbc.worker.peers import BINDING, FAILED, HANDING, LODGING, RECEIVED, HandOver
from sbc.worker.questions import Questions
from sbc.worker.relief import Parts
from sbc.worker.relieving import ReliefSide
from sbc.worker.settings import core_settings
from sbc.worker.slot import SipSlot
from sbc.worker.streams import StreamSide
from sbc.worker.thaw import watched
from sbc.worker.trunks import TrunkSide

BEAT_S: Final = 0.5
DRAIN_POLL_S = 0.2
UNREGISTER_S = 3.0  # how long a stop without calls waits for registrars
# Under load the worker does not wake up for each datagram but looks every TICK_S: what came meanwhile shares the cost
# of the turn, of each write, and of each message to the store and the media workers. A turn costs most by bringing code
# and data back into the caches that others have used meanwhile, so few turns with much in each are what makes a call
# cheap; no message waits longer than a packet of audio takes.
TICK_S: Final = 0.016
ANSWER_S: Final = (
    0.002  # after a turn, then what media workers and the store have answered has one: a call asks three times
)
BUSY_GAP_S: Final = 0.004  # turns this close together, BUSY_TURNS times in a row, are load
BUSY_TURNS: Final = 8
IDLE_TICKS: Final = 6  # ticks without a datagram, then the sockets wake us again


class SipWorker:
    """One worker process: sockets on one side; store, media and routes on the other; the core in the middle."""

    def __init__(self, slot: SipSlot, loop: asyncio.AbstractEventLoop, clock: Clock | None = None) -> None:
        self.slot = slot
        self.loop = loop
        self.config = slot.config
        self.log = log.get()
        clock = watched(clock or SystemClock(), slot.config, slot.cell)
        self._now = clock.monotonic
        self._wall = clock.wall
        self._began = clock.monotonic()
        self._count = slot.page.count
        self.journal = journal_of(slot, loop, self._republish, self._lost, self._log_cdr, self._log_fields)
        self._routes = versions.serving(slot.config)
        self._admission = self._admit(slot.config)
        self._reloading: asyncio.Task[None] | None = None
        self._sources = SourceAddresses(self._now)
        settings = self._settings(slot.config, self._admission, self._routes)
        self.core = Core(settings, Ids(os.urandom, buffer_bytes=4096))
        self.core.journalled = slot.config.store != "none"
        self._name_servers = NameServers(slot.config.name_servers)
        self.resolver = Resolver(self._name_servers.ask, now=self._now, draw=random.random, count=self._count)
        node = Node(slot.config, self.core, clock, self.resolver)
        self._lookups = LookupSide(slot, node, loop)
        budget = slot.config.routes_budget
        self.runner = Runner(self._routes, node, loop=loop, drain=self._wake, count=self._count, budget=budget)
        self._media = MediaSide(
            slot,
            self.core,
            loop,
            silent=self._media_silent,
            pressed=self._digit_pressed,
            mine=self._owns,
            count=self._count,
            now=self._now,
            wake=self._wake,
            relay_profile=node.relay_profile,
        )
        self.media = self._media.pool
        self._hand_over = HandOver(slot.slot, slot.inbox, slot.hand_over)
        self._incoming: Callable[[bytes, Flow, float, float], None] = self._receive
        self._datagrams = DatagramSide(slot, self._hand_over, self._receive, now=self._now, wall=self._wall)
        self._streams = StreamSide(
            slot,
            loop,
            self._hand_over,
            receive=self._stream_received,
            failed=self._stream_failed,
            turn=self._stream_turn,
            serving=lambda: (self.config, self._admission),
        )
        self._lodging = LodgingSide(slot, self._hand_over, self._count)
        self._keep_alive = KeepAliveSide(slot, self.core, self._hand_over, now=self._now, wake=self._wake)
        self._trunks = TrunkSide(slot, self.core, node, self._hand_over, loop, now=self._now, wake=self._wake)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._performing = False
        self._woken = self._ticking = False
        self._garbage = Garbage(self._now())
        self._load = LoadSide(self.core, self.journal, self._garbage, loop, lambda: self.config, self._now)
        self._last_turn = 0.0
        self._close_turns = 0
        self._idle_ticks = 0
        self._asked = False
        self._stopped = loop.create_future()
        self._draining = self._listens = False
        self._beginning = Beginning(
            slot,
            self.core,
            loop,
            clock,
            self.journal,
            self.runner,
            Parting(slot.page, self.core, self._datagrams, self.journal, loop, self._now, self._after_input),
            after_input=self._after_input,
            all_here=self._all_here,
        )
        self._perform: dict[type, Callable[[Any], None]] = {  # Any: each takes the effect that it is listed under
            effects.Transmit: self._transmit,
            effects.RunRoute: self.runner.perform,
            effects.MediaCommand: self._ask_media,
            effects.SaveCall: self._save,
            effects.FinishCall: self.journal.finish,
            effects.DropRecord: self.journal.drop,
            effects.Forward: self._lodging.forward,
            effects.AskWorker: self._lodging.ask,
            effects.ServerFailed: node.server_failed,
            effects.LocateRegistrar: self._trunks.locate,
            effects.TrunkChanged: self._trunk_changed,
            effects.BindingChanged: self._keep_alive.changed,
            effects.Note: self._noted,
        }
        parts = Parts(
            slot,
            self.core,
            self.journal,
            self._hand_over,
            loop,
            self._now,
            self._wall,
            receive=self._receive,
            look=self._take,
            transmit=self._transmit,
            after_input=self._after_input,
            wake=self._wake,
        )
        self._relief = ReliefSide(
            parts,
            self._beginning,
            self._media,
            self._keep_alive,
            handed_over=self._handed_over,
            divert=self._divert,
            sends=partial(self._perform.__setitem__, effects.Transmit),
            mute=self._mute,
            close_listeners=self._streams.streams.close_listeners,
            stop=self._stop,
        )

    # --- life -----------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Resume what the journal holds, then serve until told to stop."""
        acts = {signal.SIGTERM: self.drain, signal.SIGINT: self.drain, signal.SIGHUP: self.reload}
        for number, act in {**acts, signal.SIGUSR1: self.relieve}.items():
            self.loop.add_signal_handler(number, act)
        self._beat()
        self.runner.watch()
        questions = Questions(self.core, self._now, self._wake)
        methods = questions.methods()
        methods["registrations"] = self._trunks.describe
        methods["routes"] = lambda _: {
            "version": self._routes.version,
            "calls": {str(k): n for k, n in self.runner.versions().items()},
        }
        methods["troubles"] = lambda _: self.journal.troubles()
        methods |= self._media.methods()
        server = await rpc.serve(self.slot.control_path, methods, questions.fault)
        try:
            if await self._relief.comes_to_serve(self._stopped):
                await self._begin()
                await self._stopped
        finally:
            await server.close()
            self._beginning.close()
            self.runner.close()
            self._lookups.close()
            self.resolver.close()
            self._trunks.close()
            self.media.close()
            self._load.close()
            self._streams.streams.close()
            left = await self.journal.close(1.0)
            if left:
                self.log.error("stopped with state that the store did not take", records=left)

    async def _begin(self) -> None:
        """Take up the calls of our shards, and serve."""
        if not self.slot.relieves:
            await self._beginning.take_up()
        self._listens = True
        self._watch_sockets()
        self._streams.streams.start()
        self._trunks.configure(self.config)
        self._keep_alive.configure(self.config)
        self._load.begin()
        self.slot.page.ready()

    def relieve(self) -> None:
        """See :meth:`sbc.worker.relieving.ReliefSide.signalled`."""
        self._relief.signalled(self.config.timers.invite_timeout_s)

    def _mute(self) -> None:
        """Another worker reads the sockets that we have in common."""
        self._listens = False
        self._datagrams.watch(self.loop, None)
        self._streams.streams.stop_accepting()

    def _divert(self, receive: Callable[[bytes, Flow, float, float], None]) -> None:
        self._incoming = receive
        self._datagrams.divert(receive)

    def _all_here(self) -> None:
        """All calls of ours have been taken up: what belongs to none is to end."""
        self._admission.all_here()
        self._media.end_orphans(self.core.calls, self._beginning.left)

    def _owns(self, call_id: str) -> bool:
        """Whether this worker is the one for a Call-ID or call key."""
        if call_id in self.core.lodging:  # given to another worker
            return False
        if self._relief.is_under_way:
            return False
        return shard_of(call_id, self.slot.shard_key) % self.slot.count == self.slot.seat

    def drain(self) -> None:
        """No new calls; stop when the last one has ended, or after ``drain_timeout_s``. At once at a second signal, or
        when the keeper's death sends it: the next one needs our sockets, and the journal has the calls."""
        if self._draining or self.slot.orphaned():
            self._stop()
            return
        self._draining = True
        self.core.set_draining(True)
        self._trunks.leave()
        self._after_input()
        self.log.info("draining", calls=len(self.core.calls))
        self.runner.draining()
        now = self._now()
        self._poll_drained(now + self.config.timers.drain_timeout_s, now + UNREGISTER_S)

    def _poll_drained(self, deadline: float, unregister_by: float) -> None:
        now = self._now()
        if now >= deadline or (not self.core.calls and (self._trunks.left or now >= unregister_by)):
            self._stop()
        else:
            self.loop.call_later(DRAIN_POLL_S, self._poll_drained, deadline, unregister_by)

    def _stop(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)

    def reload(self) -> None:
        """Take over the configuration file as it is now; any fault leaves the old one serving."""
        if self._reloading is None or self._reloading.done():
            self._reloading = self.loop.create_task(self._reload())

    async def _reload(self) -> None:
        try:
            config = load(self.slot.config_path)
            routes = versions.serving(config)
            admission = self._admit(config)
            settings = self._settings(config, admission, routes)
            with self._lookups.taking_over(config):
                await self.runner.prepare(routes)
                self._streams.configure(config)
        except ConfigError as error:
            self._count("RELOADS_REFUSED")
            self.log.error("reload refused", faults=error.faults)
            return
        except Exception as error:  # a startup route of the new module raised
            self._count("RELOADS_REFUSED")
            self.log.exception("reload refused: a startup route failed", error)
            return
        admission.inherit(self._admission)
        self.config, self._admission, self._routes = config, admission, routes
        self.core.reconfigure(settings)
        self.runner.replace(routes, config)
        self._trunks.configure(config)
        self._keep_alive.configure(config)
        self._media.configure(config)
        self._name_servers.configure(config.name_servers)
        log.configure(config.log.level, config.log.format, self.slot.name)
        self._count("RELOADS")

    def _beat(self) -> None:
        self.slot.page.beat()
        self.loop.call_later(BEAT_S, self._beat)

    def _settings(self, config: Config, admission: Admission, routes: Routes) -> CoreSettings:
        slot = self.slot
        return core_settings(
            config, slot.shard_key, admission, routes.kinds, self._sources, slot=slot.seat, slots=slot.count
        )

    def _admit(self, config: Config) -> Admission:
        return Admission(config.peers, config.realms, workers=self.slot.count, tally=self.slot.tally)

    def _log_fields(self, level: str, event: str, fields: dict[str, Any]) -> None:  # Any: log fields are free
        self.log.write(level, event, **fields)

    # --- datagrams ------------------------------------------------------------------------------------------------

    def _watch_sockets(self) -> None:
        """Let every socket wake us."""
        if self._listens:
            self._datagrams.watch(self.loop, self._readable)
        self.loop.add_reader(self._hand_over.fileno(), self._handed_over)

    def _readable(self, listener: int) -> None:
        """A socket has something."""
        if self._datagrams.read(listener):
            self.core.overload.waited(self._datagrams.waited_s, self._now())
        self._after_input()
        self._consider_ticking()

    def _handed_over(self) -> None:
        """Other workers received what belongs to us."""
        self._take()
        self._after_input()
        self._consider_ticking()

    def _consider_ticking(self) -> None:
        """Turns that come thick and fast are worth gathering."""
        now = self._now()
        self._close_turns = self._close_turns + 1 if now - self._last_turn < BUSY_GAP_S else 0
        self._last_turn = now
        if self._close_turns < BUSY_TURNS or self._ticking or not self._listens:
            return
        self._ticking = True
        self._idle_ticks = 0
        self._datagrams.watch(self.loop, None)
        self.loop.remove_reader(self._hand_over.fileno())
        self._gather(True)
        self.loop.call_later(TICK_S, self._tick)

    def _gather(self, on: bool) -> None:
        """Whether what is said to media workers and the store leaves at the end of a turn of ours, or by itself."""
        self.media.gather(on)
        self.journal.gather(on)

    def _tick(self) -> None:
        """One turn for everything that came since the last."""
        received = self._take()
        if self._listens:
            received += self._datagrams.read_all()
        self.core.overload.waited(self._datagrams.waited_s, self._now())
        received += self._streams.messages
        self._streams.messages = 0
        self.media.poll()
        self.journal.poll()
        self._after_input()
        self._idle_ticks = 0 if received else self._idle_ticks + 1
        if received >= BATCH:  # more waits
            self.loop.call_soon(self._tick)
        elif self._idle_ticks < IDLE_TICKS:
            self.loop.call_later(TICK_S, self._tick)
        else:
            self._ticking = False
            self._close_turns = 0
            self._gather(False)
            self._watch_sockets()

    def _hear(self) -> None:
        """Between two ticks: what media workers and the store say to what the last turn asked of them."""
        self._asked = False
        if self._ticking:
            self.media.poll()
            self.journal.poll()
            self._after_input()

    def _take(self) -> int:
        """What others handed over; how many datagrams."""
        now, wall = self._now(), self._wall()
        transports = self._datagrams.transports
        taken = 0
        for frame in self._hand_over.take():
            kind, _, listener, host, port, connection, data = frame
            taken += 1
            if kind == RECEIVED:
                self._incoming(data, Flow(listener, transports[listener], host, port, connection), now, wall)
            elif kind <= FAILED:
                self._streams.take(frame, transports)
            elif kind == LODGING:
                self.core.lodging.told(data, now, wall)
            elif kind == BINDING:
                self._keep_alive.take(frame)
            elif kind == HANDING:
                self._relief.told(frame)
            else:
                self._trunks.take(frame)
        if taken:
            self._count("HANDED_OVER_IN", taken)
        return taken

    def _receive(self, data: bytes, flow: Flow, now: float, wall: float) -> None:
        """Feed one datagram and perform what comes of it. No message may end the worker."""
        try:
            self.core.receive(data, flow, now, wall)
        except Exception as error:  # the guard: one message costs at most itself
            self._count("CORE_ERRORS")
            self.log.exception("a message met a fault of ours", error, source=f"{flow.host}:{flow.port}")
        self._drain_effects()

    def _transmit(self, effect: effects.Transmit) -> None:
        if not self._datagrams.send(effect.flow, effect.data):
            self._streams.send(effect.flow, effect.data)

    # --- streams --------------------------------------------------------------------------------------------------

    def _stream_received(self, data: bytes, flow: Flow) -> None:
        self._incoming(data, flow, self._now(), self._wall())

    def _stream_failed(self, flow: Flow) -> None:
        self.core.transport_failed(flow, self._now())
        self._wake()

    def _stream_turn(self) -> None:
        """Connections have brought something: one turn for all that are readable now."""
        self._wake()

    # --- effects --------------------------------------------------------------------------------------------------

    def _drain_effects(self) -> None:
        """Perform until the core asks for nothing more. What an effect causes is drained by the same loop."""
        if self._performing:
            return
        self._performing = True
        poll, perform = self.core.poll, self._perform
        try:
            while (effect := poll()) is not None:
                try:
                    perform[type(effect)](effect)
                except Exception as error:  # the guard, as for messages
                    self._count("CORE_ERRORS")
                    self.log.exception("an effect could not be performed", error, effect=type(effect).__name__)
        finally:
            self._performing = False

    def _after_input(self) -> None:
        """Everything that ends a turn: effects, one write per socket, counters, the timer."""
        self._drain_effects()
        self._datagrams.flush()
        self._streams.flush()
        if self._ticking:
            asked = self.media.flush()
            if (self.journal.flush() or asked) and not self._asked:
                self._asked = True
                self.loop.call_later(ANSWER_S, self._hear)
        for name, amount in self.core.take_counts().items():
            self._count(name, amount)
        self._rearm()

    def _wake(self) -> None:
        """Something outside a turn (a route that had waited) gave the core work: a turn soon, once."""
        if not self._performing and not self._woken and not self._ticking:
            self._woken = True
            self.loop.call_soon(self._woken_turn)

    def _woken_turn(self) -> None:
        self._woken = False
        self._after_input()
        if self._streams.messages:
            self._streams.messages = 0
            self._consider_ticking()

    def _rearm(self) -> None:
        """Keep one timer at or before the core's next deadline; an early one costs only a look."""
        at = self.core.next_timer()
        if at is None or at >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_later(max(0.0, at - self._now()), self._fire)

    def _fire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        try:
            self.core.fire(self._now(), self._wall())
        except Exception as error:  # the guard, as for messages
            self._count("CORE_ERRORS")
            self.log.exception("a timer met a fault of ours", error)
        self._after_input()

    def _ask_media(self, effect: effects.MediaCommand) -> None:
        self.media.perform(effect, self._media_done)

    def _media_done(self, request_id: int, reply: Reply) -> None:
        self.core.media_done(request_id, reply, self._now())
        self._wake()

    def _media_silent(self, call: Call, leg: str, silent_s: float) -> None:
        if not self.runner.media_timeout(call, leg, silent_s):
            now = self._now()
            # A call that ended while nobody was there to hear its BYE was over with its last packet.
            over = now - silent_s if call.resumed and now - silent_s < self._began else 0.0
            self.core.release(call, now, reason="no media", cause=102, at=over)
        self._wake()

    def _digit_pressed(self, call: Call, leg: str, digit: str, duration_ms: int) -> None:
        digits.heard(self.core, call, leg, digit, duration_ms, self._now())
        if "media.dtmf" in self._routes.events:
            self.runner.media_dtmf(call, leg, digit, duration_ms)
        self._wake()

    def _save(self, effect: effects.SaveCall) -> None:
        self.journal.save(effect, partial(self._saved, effect) if effect.wait else None)

    def _saved(self, effect: effects.SaveCall, stored: bool) -> None:
        self.core.saved(effect.key, effect.version, stored, self._now())
        self._wake()

    def _republish(self) -> None:
        self._beginning.restored(alone=not self._relief.is_under_way)

    def _lost(self, key: str) -> None:
        self.core.lost(key, self._now())
        self._wake()

    def _noted(self, effect: effects.Note) -> None:
        if effect.call_key:
            self.log.write(effect.level, effect.event, call=effect.call_key, **effect.fields)
        else:
            self.log.write(effect.level, effect.event, **effect.fields)

    def _trunk_changed(self, effect: effects.TrunkChanged) -> None:
        former = self.core.trunks.get(effect.peer)
        self._trunks.changed(effect)
        if former is None or former.registered is not effect.trunk.registered:
            self.runner.trunk_state(effect.peer, effect.trunk.registered)

    def _log_cdr(self, cdr: dict[str, Any]) -> None:  # Any: JSON values
        self.log.info("call ended", **cdr)


def run(slot: SipSlot) -> int:
    """Serve until SIGTERM has drained the worker; returns the exit code. Called in a fresh child of the supervisor."""
    loop = uvloop.new_event_loop()
    try:
        worker = SipWorker(slot, loop)
        loop.run_until_complete(worker.serve())
    finally:
        loop.close()
    return 0
