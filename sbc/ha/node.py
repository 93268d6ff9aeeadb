"""The process ``ha``: the shell around the election. It speaks with the peer and the store, and makes the role real.

It may die or hang at any time: its successor finds in shared memory whether the node is active and under which token,
and goes on; its absence is no longer than the lease.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any

import uvloop

from sbc.b2bua import records
from sbc.errors import ConfigError
from sbc.ha import status
from sbc.ha.addresses import Virtual
from sbc.ha.beat import Speaker, key_of
from sbc.ha.election import Act, Ask, Election, Lease, State, Timing
from sbc.ha.giving_way import give_way, until
from sbc.ha.held import Held
from sbc.ha.lease import LeaseStore
from sbc.ha.media import MediaState
from sbc.ha.replication import Replication
from sbc.ha.silence import Speaking
from sbc.ha.slot import HaSlot
from sbc.ha.witness import Witness
from sbc.management import rpc
from sbc.store.url import parse_store_url
from sbc.telemetry import log
from sbc.telemetry.counters import Counter
from sbc.telemetry.role import STOOD_STILL, Role

LOOK_S = 0.05
REPLICATE_S = 0.2
MEDIA_FIRST_S = 0.25
KILLED_S = 1.0
GOODBYE_S = 0.3
WORKER_SILENT_NS = 3_000_000_000


class HaNode:
    """One event loop; nothing in it blocks but rtnetlink, for some 0.1 ms."""

    def __init__(self, slot: HaSlot, loop: asyncio.AbstractEventLoop) -> None:
        ha = slot.config.ha
        assert ha is not None
        self.slot = slot
        self.ha = ha
        self.held = Held([Virtual(one.address, one.interface) for one in ha.addresses], loop)
        self.lease: LeaseStore | None = None
        self.replication: Replication | None = None
        address = parse_store_url(slot.store_url, slot.config.run_dir)
        if slot.config.store == "embedded":
            self.replication = Replication(address, ha.store_port, loop)
        else:
            self.lease = LeaseStore(address, slot.config.node, ha.name, ha.lease_ms / 1000, loop)
        self._loop = loop
        self._log = log.get()
        beat_s = ha.heartbeat_ms / 1000
        self.timing = Timing(beat_s, ha.misses, ha.lease_ms / 1000)
        cell = slot.cell
        self.election = Election(
            ha.name,
            self.timing,
            len(ha.paths),
            loop.time(),
            has_lease=self.lease is not None,
            has_witness=bool(ha.witness),
            token=cell.token,
            active=cell.role is Role.ACTIVE,
            decides=ha.decided_by == "lease",
            prefers=ha.prefers,
            records=records.FORMAT,
        )
        self.speaker = Speaker(key_of(slot.key, f"heartbeat {slot.config.node}"), int.from_bytes(os.urandom(8)) | 1)
        self.witness = Witness(ha.witness, loop, lambda: self.election.witnessed(loop.time()))
        self.media = MediaState(slot)
        self._sockets: list[socket.socket] = []
        self._beat_due_s = 0.0
        self._looked_s, self._thawed_s = loop.time(), float("-inf")
        self._stopped = asyncio.Event()
        self._silencing: asyncio.Task[None] | None = None
        self._replicating: asyncio.Task[None] | None = None
        self._promoting: asyncio.Task[None] | None = None
        self._nudging: asyncio.Task[None] | None = None

    async def serve(self) -> int:
        """Until SIGTERM; the exit code. Raises ConfigError where a path cannot be bound."""
        loop = self._loop
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGUSR1, self._leave)
        self._bind()
        self.witness.start()
        if self.lease is not None:
            self.lease.start()
        if self.replication is not None:
            self.replication.start()
            self._replicating = loop.create_task(self._replicate(self.replication))
        await self.media.start(active=self.slot.cell.role is Role.ACTIVE)
        if self.slot.cell.role is Role.ACTIVE:
            self.held.take()
            self.slot.cell.nudge()
        else:  # of a former life that had no time to tidy up
            self.slot.cell.set(Role.PASSIVE, self.slot.cell.token)
            self.held.drop()
        methods: dict[str, rpc.Method] = {
            "status": lambda _: status.describe(self, loop.time()),
            "switch": self._switch,
            "active": self._be_active,
            "standby": self._be_standby,
        }
        server = await rpc.serve(self.slot.control_path, methods, self._method_failed)
        self.slot.page.ready()
        try:
            while not self._stopped.is_set():
                self._look()
                try:
                    await asyncio.wait_for(self._stopped.wait(), LOOK_S)
                except TimeoutError:
                    continue
            await self._say_goodbye()
        finally:
            await server.close()
            await self.media.close()
            if self.lease is not None:
                self.lease.close()
            if self._replicating is not None:
                self._replicating.cancel()
            if self.replication is not None:
                self.replication.close()
            self.witness.close()
            for sock in self._sockets:
                loop.remove_reader(sock.fileno())
                sock.close()
        return 0

    # --- turns

    def _look(self) -> None:
        self.slot.page.beat()
        now = self._loop.time()
        self._mind_interfaces(now)
        self.election.ready = not status.unready(self)
        self.election.look(now)
        self._drain()
        self._be_sure(now)
        if now >= self._beat_due_s or self.election.offer:
            self._say(now)

    def _be_sure(self, now: float) -> None:
        """Workers that stood still as long as we did go on once this node knows that it is active still: by an answer
        of the store to a question of afterwards, or when all that the other one said meanwhile has been heard."""
        if now - self._looked_s > STOOD_STILL * self.timing.dead_s:
            self._thawed_s = now
        self._looked_s = now
        is_known = self.election.holds_lease(now) or now - self._thawed_s >= self.timing.dead_s
        if is_known and self.election.state in (State.ACTIVE, State.HANDING):
            self.slot.cell.sure()

    def _drain(self) -> None:
        """Perform what the election asks for."""
        election, told = self.election, False
        while (order := election.poll()) is not None:
            if order.ask is not None:
                self._question(order.ask)
                continue
            told = True
            match order.act:
                case Act.TAKE:
                    self._take()
                case Act.FENCE:
                    self._fall_silent(in_order=False)
                case Act.LEAVE:
                    self._fall_silent(in_order=True)
                case _:
                    pass  # CLAIM comes as a question; GIVE is said with the next heartbeat, now
        if told:
            self._say(self._loop.time())
        self.slot.page.set(Counter.HA_TOKEN, election.token)
        self.slot.page.set(Counter.HA_ACTIVE, int(election.state in (State.ACTIVE, State.HANDING)))
        self.slot.page.set(Counter.HA_PEER_HEARD, int(election.hears_peer(self._loop.time())))

    def _question(self, what: Ask) -> None:
        assert self.lease is not None
        asked_s, election = self._loop.time(), self.election

        def answered(said: Lease | None) -> None:
            now = self._loop.time()
            if said is None:
                election.unanswered(now)
            else:
                election.leased(what, said, asked_s, now)
            self._loop.call_soon(self._drain)

        token = election.offer if what is Ask.GIVE else election.token
        peer = election.peer.beat
        self.lease.ask(what, token, answered, peer.name if peer is not None else "")

    # --- heartbeats

    def _bind(self) -> None:
        for number, path in enumerate(self.ha.paths):
            host, port = path.local
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
            self._sockets.append(sock)
            sock.setblocking(False)
            try:
                sock.bind((host, port))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise ConfigError([f"ha.paths: cannot listen on {host} port {port}: {reason}"]) from error
            self._loop.add_reader(sock.fileno(), self._readable, number, sock)

    def _readable(self, path: int, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                data = sock.recv(2048)
            except BlockingIOError:
                break
            except OSError:
                continue  # what an ICMP error left there
            beat = self.speaker.read(data, path)
            if beat is None:
                continue
            if beat.name == self.ha.name:
                self._log.error("the other node has the same name: give each its own ha.name", name=beat.name)
                continue
            now = self._loop.time()
            returns = not self.election.hears_peer(now)
            self.election.heard(path, beat, now)
            if returns and self.election.state is State.ACTIVE:  # it may have said that the addresses are its own
                self.held.announce()
        self._drain()

    def _say(self, now: float) -> None:
        if now >= self._beat_due_s:
            self.witness.ask()
        self._beat_due_s = now + self.timing.beat_s
        octets = self.speaker.write(self.election.beat(now))
        for sock, path in zip(self._sockets, self.ha.paths, strict=True):
            try:
                sock.sendto(octets, path.peer)
            except OSError:
                continue  # the peer will miss it, and say so

    # --- roles

    async def _replicate(self, replication: Replication) -> None:
        while True:
            election, now = self.election, self._loop.time()
            beat = election.peer.beat
            heard = [now - at < self.timing.dead_s for at in election.peer.heard_s]
            leads = beat is not None and beat.state in (State.ACTIVE, State.HANDING)
            hosts = [path.peer[0] for path, is_heard in zip(self.ha.paths, heard, strict=True) if is_heard and leads]
            await replication.turn(active=election.state in (State.ACTIVE, State.HANDING), hosts=hosts)
            election.synced = election.state is State.ACTIVE or not replication.reason
            await asyncio.sleep(REPLICATE_S)

    def _take(self) -> None:
        if self.replication is None:
            self._serve()
        else:  # first the store, which then takes what is written
            self._promoting = self._loop.create_task(self._promote(self.replication))

    async def _promote(self, replication: Replication) -> None:
        await replication.promote()
        if self.election.state is State.ACTIVE:
            self._serve()

    def _serve(self) -> None:
        election = self.election
        kept = self.media.prepare(election.token)
        self.slot.cell.set(Role.ACTIVE, election.token, nudge=False)
        self.media.go_on()
        self.held.take()
        self._nudging = self._loop.create_task(self._nudge(kept))
        self.slot.page.add(Counter.HA_TAKEN)
        self._log.warning("this node is active", token=election.token, why=election.why)

    async def _nudge(self, sessions: int) -> None:
        """Signalling begins once media go on, or have had their time: they are heard, it is repeated."""
        await until(lambda: self.media.taken_up() >= sessions, MEDIA_FIRST_S)
        self.slot.cell.nudge()

    def _mind_interfaces(self, now: float) -> None:
        """Where no cable leads anywhere this node serves nobody: the other one is to, if it could."""
        if self.held.looked(now, active=self.election.state is State.ACTIVE) and not self.election.hand_over(now):
            self._log.error("handing over: an interface has no carrier", interfaces=self.held.without_carrier)
            self._drain()

    def _fall_silent(self, *, in_order: bool) -> None:
        if self._silencing is None or self._silencing.done():
            self._silencing = self._loop.create_task(self._silence(in_order))
        elif not in_order:
            self._silencing.cancel()
            self._silencing = self._loop.create_task(self._silence(in_order))

    async def _silence(self, in_order: bool) -> None:
        """Nothing of this node is heard any more: first by address, which the kernel enforces, then process by
        process. In order: the workers first finish and write what they have, and the other node hears the rest."""
        cell, election = self.slot.cell, self.election
        self._log.warning("this node falls silent", token=election.token, why=election.why)
        self.slot.page.add(Counter.HA_SILENCED)
        speaking = Speaking(self.slot.pages.values())
        try:
            if in_order:
                await give_way(self.slot, election.token, self.media, self.replication)
            cell.set(Role.PASSIVE, election.token)
            self.held.drop()
            speaking.kill()
            if not await speaking.ended(KILLED_S):
                self._log.error("a process of this node does not end; it has no address to speak from")
            elif in_order:
                await self.media.finish()
        finally:
            speaking.close()
        self.media.stand_by()
        election.silent(self._loop.time())
        self._drain()
        self._log.info("this node is silent", token=election.token)

    # --- orders

    def _switch(self, params: rpc.Params) -> dict[str, Any]:  # Any: JSON values
        election, now = self.election, self._loop.time()
        peer = election.peer.beat.name if election.peer.beat else ""
        takes = False
        if params.get("preferred"):
            active = self.ha.name if election.state is State.ACTIVE else peer
            if not election.preferred:
                raise rpc.RpcError(rpc.REFUSED, "neither node has ha.prefers: say which one with sbc ha switch there")
            takes = self.ha.name == election.preferred
            if active == election.preferred:
                return {"from": active, "to": active}
        refusal = election.call_for(now) if takes else election.hand_over(now)
        if refusal:
            raise rpc.RpcError(rpc.REFUSED, refusal)
        self._say(now)
        self._drain()
        return {"from": peer, "to": self.ha.name} if takes else {"from": self.ha.name, "to": peer}

    def _be_active(self, _params: rpc.Params) -> dict[str, Any]:  # Any: JSON values
        self.election.force(self._loop.time())
        self._drain()
        return {"name": self.ha.name}

    def _be_standby(self, _params: rpc.Params) -> dict[str, Any]:  # Any: JSON values
        if self.ha.decided_by == "lease":
            raise rpc.RpcError(rpc.REFUSED, "the lease decides here: hand over with sbc ha switch")
        self.election.withdraw(self._loop.time())
        self._drain()
        return {"name": self.ha.name}

    def _leave(self) -> None:
        """The supervisor is about to stop this node: the other one is to have the calls, if it can."""
        refusal = self.election.hand_over(self._loop.time())
        self.election.stop()
        self._drain()
        if refusal:
            self._log.info("stopping without handing over", why=refusal)

    async def _say_goodbye(self) -> None:
        """Told to end: the workers have ended, or end with the same supervisor."""
        self.election.stop()
        if self._silencing is not None:
            await asyncio.wait([self._silencing], timeout=KILLED_S)
        if self.election.state is State.ACTIVE:
            self.slot.cell.set(Role.PASSIVE, self.election.token)
            self.held.drop()
            self.election.state = State.STANDBY
        now = self._loop.time()
        if self.lease is not None:
            answered = asyncio.Event()
            self.lease.ask(Ask.LEAVE, self.election.token, lambda _: answered.set())
            await asyncio.wait([asyncio.ensure_future(answered.wait())], timeout=GOODBYE_S)
        for _ in range(3):
            self._say(now)

    def _method_failed(self, method: str, error: Exception) -> None:
        self._log.exception("a question of the command line met a fault", error, method=method)


def run(slot: HaSlot) -> int:
    """The life of the process, until SIGTERM; the exit code. ConfigError: it cannot begin."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def life() -> int:
            return await HaNode(slot, asyncio.get_running_loop()).serve()

        return runner.run(life())
