"""The sessions of one media worker: what each control request does to rules, ports and sockets. Sans-IO.

Forks: every b leg has port pairs of its own, the a leg has one pair per stream that all of them share. Forwarding
between a and a b leg begins with that leg's answer, and the last answer wins: the b leg that had the stream before is
cut off (early media of one fork, then the final answer of another). Packets of a b leg without an answer have no peer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Any

import msgspec

from media import conversion, ice, joining, keying, protocol
from media.allocation import Allocation
from media.config import RealmInterface
from media.counters import MediaCounter
from media.endpoint import (
    Description,
    OtherFamily,
    Unusable,
    apply,
    describe,
    has_one_port,
    negotiate_mux,
    relayable,
    share_port,
)
from media.features import Features
from media.ports import Sockets
from media.rules import (
    AT_LAST_ARRIVAL,
    AT_LOCAL_PORT,
    AT_PEER,
    NO_RULE,
    RULE_U16,
    RULE_U32,
    RULE_U64,
)
from media.session import (
    MAX_LEGS,
    MAX_NAME,
    MAX_SESSION_ID,
    MAX_STREAMS,
    NO_STREAM,
    Leg,
    Session,
    decode,
    have_patience,
    in_force,
    stream_stats,
)
from media.silence import Silence
from media.state import Arena


class Relay:
    """Session table of one worker. ``count`` is told counter names with amounts; times are monotonic nanoseconds."""

    def __init__(
        self,
        realms: dict[str, RealmInterface],
        arena: Arena,
        sockets: Sockets,
        random: Random,
        count: Callable[[MediaCounter, int], None],
        *,
        worker: str,
        quarantine_s: float = 2.0,
        features: Features | None = None,
        fingerprint: Callable[[], str] = str,
    ) -> None:
        self.realms = realms
        self.features = features
        self.arena = arena
        self.count = count
        self.worker = worker
        self.draining = False
        self.fingerprint = fingerprint  # of our certificate, as a=fingerprint has it; asked for where it is to be shown
        self.sessions: dict[str, Session] = {}
        self.by_slot: dict[int, Session] = {}
        self._sockets, self._random = sockets, random
        self.allocation = Allocation(realms, arena, sockets, random, count, quarantine_s, features)
        self.silence = Silence(arena, self.sessions, self._close)
        # Any: each takes the request that it is listed under
        self._perform: dict[type, Callable[[Any, bytes, int], protocol.Reply]] = {
            protocol.Engage: self._engage,
            protocol.Offer: self._offer,
            protocol.Answer: self._answer,
            protocol.Join: self._join,
            protocol.Dtmf: self._dtmf,
            protocol.Delete: self._delete,
            protocol.Query: self._query,
            protocol.ListSessions: self._list,
            protocol.Drain: self._drain,
            protocol.Play: self._play,
            protocol.Stop: self._stop,
            protocol.Record: self._record,
        }

    # -- requests

    def handle(self, request: protocol.Request, owner: bytes, now_ns: int) -> protocol.Reply:
        """Perform one request; never raises for what a client can send."""
        try:
            reply = self._perform[type(request)](request, owner, now_ns)
        except Unusable as refusal:
            reply = protocol.Reply(False, refusal.code, refusal.reason, protocol.REFUSALS[refusal.code])
        reply.worker = self.worker
        return reply

    def _engage(self, request: protocol.Engage, owner: bytes, now_ns: int) -> protocol.Reply:
        session = self.sessions.get(request.session) or self._open(request.session, now_ns)
        self._own(session, owner)
        self._commit(session, now_ns)
        return protocol.Reply()

    def _query(self, request: protocol.Query, owner: bytes, now_ns: int) -> protocol.Reply:
        return self._statistics(self._session(request.session), now_ns, request.samples)

    def _list(self, request: protocol.ListSessions, owner: bytes, now_ns: int) -> protocol.Reply:
        ids, total = iter(self.sessions), len(self.sessions)
        if request.owner:
            prefix = request.owner.encode()
            mine = [name for name, session in self.sessions.items() if session.owner.startswith(prefix)]
            ids, total = iter(mine), len(mine)
        chosen = list(islice(ids, request.offset, request.offset + request.limit))
        return protocol.Reply(sessions=chosen, total=total, draining=self.draining)

    def _drain(self, request: protocol.Drain, owner: bytes, now_ns: int) -> protocol.Reply:
        self.draining = request.on
        return protocol.Reply(total=len(self.sessions))

    def _play(self, request: protocol.Play, owner: bytes, now_ns: int) -> protocol.Reply:
        session, leg, features = self._featured(request.session, request.leg)
        features.playing.play(session, leg, request)
        self._own(session, owner)
        self._commit(session, now_ns)
        return protocol.Reply()

    def _stop(self, request: protocol.Stop, owner: bytes, now_ns: int) -> protocol.Reply:
        session, leg, features = self._featured(request.session, request.leg)
        features.playing.stop(session, leg)
        return protocol.Reply()

    def _record(self, request: protocol.Record, owner: bytes, now_ns: int) -> protocol.Reply:
        session, _, features = self._featured(request.session, request.left if request.on else "")
        self.arena.begin(session.slot)
        file = ""
        try:
            if request.on:
                file = features.recordings.start(session, request)
            else:
                features.recordings.stop(session)
        finally:
            self._own(session, owner)
            self._commit(session, now_ns)
        return protocol.Reply(file=file)

    def _featured(self, name: str, leg_name: str) -> tuple[Session, Leg, Features]:
        """A session, its leg of this name (any for ""), and what plays and records."""
        session = self._session(name)
        leg = session.legs.get(leg_name) if leg_name else Leg("", "")
        if leg is None:
            raise Unusable("unknown_leg", f"no leg {leg_name!r}")
        if self.features is None:
            raise Unusable("unsupported", "this worker plays and records nothing")
        return session, leg, self.features

    def _session(self, name: str) -> Session:
        session = self.sessions.get(name)
        if session is None:
            raise Unusable("unknown_session", f"no session {name!r}")
        return session

    def _open(self, name: str, now_ns: int, *, joined: bool = False) -> Session:
        if not 0 < len(name) <= MAX_SESSION_ID:
            raise Unusable("malformed", "the session name is empty or too long")
        if self.draining and not joined:
            raise Unusable("draining", "this worker takes no new sessions")
        slot = self.arena.take_slot()
        if slot is None:
            raise Unusable("full", f"{self.arena.capacity} sessions are in use")
        session = Session(name, slot, touched_ns=now_ns)
        self.sessions[name] = self.by_slot[slot] = session
        self.count(MediaCounter.SESSIONS_OPENED, 1)
        return session

    def _own(self, session: Session, owner: bytes) -> None:
        if session.owner != owner:
            session.owner = owner
            session.changed = True

    def _commit(self, session: Session, now_ns: int) -> None:
        """End the writing of a session; its identity is written again only where it is another one."""
        if not session.changed:
            self.arena.end(session.slot)
            return
        blob = session.encode()
        if blob is None:
            self._close(session, now_ns)
            raise Unusable("unsupported", "more legs and streams than a session may have")
        session.changed = False
        self.arena.commit(session.slot, blob)

    def _offer(self, request: protocol.Offer, owner: bytes, now_ns: int) -> protocol.Reply:
        for realm in (request.from_realm, request.to_realm):
            if realm not in self.realms:
                raise Unusable("unknown_realm", f"no realm {realm!r} here")
        lengths = len(request.from_leg), len(request.to_leg)
        if request.from_leg == request.to_leg or min(lengths) == 0 or max(lengths) > MAX_NAME:
            raise Unusable("malformed", "an offer goes from one leg to another, each with a short name")
        source = request.from_realm, request.from_signalling, request.from_latch
        described = self._describe(request.streams, *source, with_ice=request.from_ice == "lite")
        if request.streams and not any(described) and any(stream.port for stream in request.streams):
            raise Unusable("unsupported", "no stream of this offer is RTP")
        choices = keying.read_offer(request)
        session = self.sessions.get(request.session)
        new = session is None
        if session is None:
            session = self._open(request.session, now_ns, joined=self._seated(request.seat) is not None)
        self.arena.begin(session.slot)
        made: list[tuple[Leg, int]] = []
        try:
            giving = self._leg(session, request.from_leg, request.from_realm, request.from_dscp)
            taking = self._leg(session, request.to_leg, request.to_realm, request.to_dscp)
            for leg in (giving, taking):
                if len(leg.rules) < len(described):
                    leg.rules.extend([NO_STREAM] * (len(described) - len(leg.rules)))
                    session.changed = True
            for stream, description in enumerate(described):
                for leg in (giving, taking) if description else ():
                    if leg.rules[stream] == NO_STREAM:
                        leg.rules[stream] = self.allocation.make(leg, session.slot, now_ns)
                        session.changed = True
                        made.append((leg, stream))
                        if session.recording is not None and self.features is not None:
                            self.features.recordings.made(session, leg, leg.rules[stream])
        except Unusable:
            for leg, stream in made:
                self.allocation.drop(session, leg, stream, now_ns)
            if new:
                self._close(session, now_ns)
            else:
                self._commit(session, now_ns)
            raise
        for stream, description in enumerate(described):
            if description:
                theirs = request.streams[stream].ice if request.from_ice == "lite" else None
                ice.find(self.arena, giving.rules[stream], theirs, offered=True)
                if request.to_ice == "lite":
                    ice.begin(self.arena, taking.rules[stream])
                apply(self.arena, giving.rules[stream], description, reopen=True)
        shown = keying.offer(self.arena, request, choices, giving.rules, taking.rules) if choices else None
        given_up = []
        for stream in range(len(giving.rules)):
            lives = in_force(self.arena, giving, taking, stream)
            if stream >= len(described) or (described[stream] is None and not lives):
                self.allocation.drop(session, giving, stream, now_ns)
                self.allocation.drop(session, taking, stream, now_ns)
            elif described[stream] is None:  # until the answer: the offer may be refused
                given_up.append(stream)
        for leg in (giving, taking):
            if len(leg.rules) > len(described):  # an offer that added some was refused
                del leg.rules[len(described) :]
                session.changed = True
        taking.given_up = tuple(given_up)
        taking.awaiting = True
        patience = request.silence_s, request.hold_silence_s, request.one_way_s
        if patience != (session.silence_s, session.hold_silence_s, session.one_way_s):
            session.silence_s, session.hold_silence_s, session.one_way_s = patience
            session.changed = True
        if request.one_way_s:
            have_patience(self.arena, session)
        self._own(session, owner)
        session.touched_ns = now_ns
        self._commit(session, now_ns)
        endpoints = self._endpoints(taking, len(described), shown=shown)
        if request.seat is not None and request.seat.leg == taking.name:
            joining_leg = self._seated(request.seat)
            if joining_leg is not None:
                joining.show(self.arena, joining_leg[1], taking, endpoints)
        return protocol.Reply(endpoints=endpoints)

    def _seated(self, seat: protocol.Seat | None) -> tuple[Session, Leg] | None:
        """The leg that a seat is for, and its session; None where it is not here."""
        session = self.sessions.get(seat.of[0]) if seat is not None else None
        leg = session.legs.get(seat.of[1]) if session is not None and seat is not None else None
        return (session, leg) if session is not None and leg is not None else None

    def _join(self, request: protocol.Join, owner: bytes, now_ns: int) -> protocol.Reply:
        session, home = self._session(request.session), self._seated(request.seat)
        seat = session.legs.get(request.seat.leg)
        if home is None or seat is None or home[0] is session:
            raise Unusable("unknown_leg", f"no leg {request.seat.of!r}, or no seat {request.seat.leg!r} for it")
        for one in (home[0], session):
            self.arena.begin(one.slot)
        place = session, seat
        joined = joining.join(self.arena, self._sockets, self.features, home, place, offered=request.offered)
        self.allocation.changed += joined
        self._own(session, owner)
        for one in (home[0], session):
            self._commit(one, now_ns)
        return protocol.Reply()

    def _answer(self, request: protocol.Answer, owner: bytes, now_ns: int) -> protocol.Reply:
        session = self._session(request.session)
        giving, taking = session.legs.get(request.from_leg), session.legs.get(request.to_leg)
        if giving is None or taking is None or giving is taking:
            raise Unusable("unknown_leg", f"no offer went from {request.to_leg!r} to {request.from_leg!r}")
        with_ice = any(index != NO_STREAM and ice.is_on(self.arena, index) for index in giving.rules)
        described = self._describe(
            request.streams, giving.realm, request.from_signalling, request.from_latch, with_ice=with_ice
        )
        if len(described) != len(giving.rules) or len(described) > len(taking.rules):
            raise Unusable("malformed", f"{len(described)} streams answer {len(giving.rules)}")  # RFC 3264 §6
        conversion.check(request.processing, len(described))
        self.arena.begin(session.slot)
        u32 = self.arena.u32
        try:
            shown = keying.answer(self.arena, request.streams, giving.rules, taking.rules)
        except Unusable:
            self.arena.end(session.slot)
            raise
        for stream, description in enumerate(described):
            own, facing = giving.rules[stream], taking.rules[stream]
            if description is None or own == NO_STREAM or facing == NO_STREAM or stream in giving.given_up:
                self.allocation.drop(session, giving, stream, now_ns)
                others = [leg for leg in session.legs.values() if leg is not taking and stream < len(leg.rules)]
                if all(leg.rules[stream] == NO_STREAM for leg in others):  # no other fork can still take it
                    self.allocation.drop(session, taking, stream, now_ns)
                continue
            ice.find(self.arena, own, request.streams[stream].ice if with_ice else None, offered=False)
            apply(self.arena, own, description, reopen=giving.awaiting)
            negotiate_mux(self.arena, own, facing)
            for index in session.all_rules():
                if u32[index * RULE_U32 + AT_PEER] in (own, facing):
                    u32[index * RULE_U32 + AT_PEER] = NO_RULE
            u32[own * RULE_U32 + AT_PEER], u32[facing * RULE_U32 + AT_PEER] = facing, own
            for index in (own, facing):  # silence counts from here, and so does the wait for strangers
                arrival = index * RULE_U64 + AT_LAST_ARRIVAL
                self.arena.u64[arrival] = max(self.arena.u64[arrival], now_ns)
            conversion.answered(self.arena, self._random, request.processing, stream, own, facing)
        giving.awaiting = False
        if shown is not None:
            self.allocation.changed += (index for index in session.all_rules() if keying.speaks_dtls(self.arena, index))
        giving.given_up = ()
        self._own(session, owner)
        session.touched_ns = now_ns
        self._commit(session, now_ns)
        return protocol.Reply(endpoints=self._endpoints(taking, len(described), giving, shown))

    def _dtmf(self, request: protocol.Dtmf, owner: bytes, now_ns: int) -> protocol.Reply:
        conversion.send(self.arena, self._sockets, self._session(request.session), request, now_ns)
        return protocol.Reply()

    def _delete(self, request: protocol.Delete, owner: bytes, now_ns: int) -> protocol.Reply:
        session = self._session(request.session)
        reply = self._statistics(session, now_ns)
        if not request.leg:
            self._close(session, now_ns)
            return reply
        leg = session.legs.get(request.leg)
        if leg is None:
            raise Unusable("unknown_leg", f"no leg {request.leg!r}")
        self.arena.begin(session.slot)
        for stream in range(len(leg.rules)):
            self.allocation.drop(session, leg, stream, now_ns)
        del session.legs[leg.name]
        session.changed = True
        self._commit(session, now_ns)
        reply.stats = {leg.name: reply.stats[leg.name]}
        return reply

    # -- parts of requests

    def _describe(
        self, streams: list[protocol.Stream], realm: str, signalling: str, latch: str, *, with_ice: bool
    ) -> list[Description | None]:
        """None for each stream that is declined: it is no RTP, or of another IP version than the realm while another
        of the same description will do (RFC 5118 §4.8). A stream with ICE is nowhere before its checks say where: what
        it describes may be nobody's, or somebody else's (RFC 8445 §19.5.1)."""
        if len(streams) > MAX_STREAMS:
            raise Unusable("malformed", f"{len(streams)} streams; {MAX_STREAMS} are allowed")
        found: list[Description | None] = []
        unreachable: OtherFamily | None = None
        for stream in streams:
            if with_ice and stream.ice is not None:
                ice.check(stream.ice)
                stream = msgspec.structs.replace(stream, address="0.0.0.0", rtcp_port=0)
            try:
                found.append(describe(stream, self.realms[realm], signalling, latch) if relayable(stream) else None)
            except OtherFamily as error:
                found.append(None)
                unreachable = error
        if unreachable is not None and not any(found):
            raise unreachable
        return found

    def _leg(self, session: Session, name: str, realm: str, dscp: int) -> Leg:
        leg = session.legs.get(name)
        if leg is None:
            if len(session.legs) >= MAX_LEGS:
                raise Unusable("unsupported", f"a session has at most {MAX_LEGS} legs")
            leg = session.legs[name] = Leg(name, realm, dscp=dscp)
            session.changed = True
        elif leg.realm != realm:
            raise Unusable("malformed", f"leg {name!r} is in realm {leg.realm!r}, not in {realm!r}")
        return leg

    def _close(self, session: Session, now_ns: int) -> None:
        self.arena.begin(session.slot)
        if session.recording is not None and self.features is not None:
            self.features.recordings.stop(session)
        for leg in session.legs.values():
            for index in leg.rules:
                if index != NO_STREAM:
                    self.allocation.free(leg, index, now_ns)
        self.arena.release_slot(session.slot)
        del self.sessions[session.id], self.by_slot[session.slot]

    def _endpoints(
        self, leg: Leg, count: int, other: Leg | None = None, shown: list[keying.Shown] | None = None
    ) -> list[protocol.Endpoint]:
        realm = self.realms[leg.realm]
        address = realm.advertise or realm.address
        found = []
        for stream in range(count):
            dead = leg.rules[stream] == NO_STREAM or (other is not None and other.rules[stream] == NO_STREAM)
            dead = dead or stream in leg.given_up
            port = 0 if dead else self.arena.u16[leg.rules[stream] * RULE_U16 + AT_LOCAL_PORT]
            endpoint = protocol.Endpoint(address, port, port + 1 if port else 0)
            found.append(endpoint)
            if port and has_one_port(self.arena, leg.rules[stream]):
                share_port(self.arena, leg.rules[stream], True)  # from the offer on
                endpoint.rtcp_port = port
                endpoint.ice = ice.ours(self.arena, leg.rules[stream])
            if shown is not None:
                endpoint.protocol = shown[stream].protocol
                endpoint.keys = list(shown[stream].keys) if port else []
                if port and shown[stream].setup:
                    endpoint.setup, endpoint.fingerprint = shown[stream].setup, self.fingerprint()
        return found

    def _statistics(self, session: Session, now_ns: int, samples: int = 0) -> protocol.Reply:
        none, arena = protocol.StreamStats, self.arena
        return protocol.Reply(
            stats={
                leg.name: [stream_stats(arena, i, now_ns, samples) if i != NO_STREAM else none() for i in leg.rules]
                for leg in session.legs.values()
            }
        )

    # -- life

    def resume(self, now_ns: int, alive: Callable[[], object] | None = None) -> tuple[int, int]:
        """Take over what a predecessor left in the arena: same ports, latches and counters. (resumed, given up).

        ``alive`` is called for each session: many of them take longer than a heartbeat may be away."""
        found, lost = self.arena.scan()
        claimed: set[int] = set()
        for slot, blob in found.items():
            if alive is not None:
                alive()
            try:
                session = decode(slot, blob, len(self.arena.rules))
                rules = session.all_rules()
                if session.id in self.sessions or claimed.intersection(rules):
                    raise ValueError("a session or a rule twice")
                self.allocation.rebind(session)
            except ValueError:
                lost += 1
                continue
            session.resumed_ns = now_ns
            self.sessions[session.id] = self.by_slot[slot] = session
            claimed.update(rules)
        self.allocation.settle(now_ns)
        self.arena.keep({session.slot for session in self.sessions.values()}, claimed)
        if self.features is not None:
            self.features.resume(self.sessions.values())
        self.count(MediaCounter.SESSIONS_RESUMED, len(self.sessions))
        self.count(MediaCounter.SESSIONS_UNRESUMABLE, lost)
        return len(self.sessions), lost

    def gauges(self) -> dict[MediaCounter, int]:
        """Present levels."""
        return {
            MediaCounter.SESSIONS_ACTIVE: len(self.sessions),
            MediaCounter.PORTS_FREE: sum(pool.free for pool in self.allocation.pools),
            MediaCounter.PORTS_QUARANTINED: sum(pool.quarantined for pool in self.allocation.pools),
            MediaCounter.PORTS_BOUND: sum(pool.bound for pool in self.allocation.pools),
        }
