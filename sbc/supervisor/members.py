"""The children of a node: their names, what each is given, and what it must let go of after the fork."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from media.config import MediaConfig, RealmInterface, never
from sbc.clock import SystemClock
from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.ha.slot import HaSlot
from sbc.management.slot import ControlSlot
from sbc.policy import call_tally
from sbc.policy.admission import limited_peers
from sbc.policy.call_tally import CallTally
from sbc.supervisor import embedded_store, folders, process, sockets
from sbc.supervisor.child import Child, Group
from sbc.supervisor.pair_store import PairStore
from sbc.supervisor.segments import Reader, Segments
from sbc.supervisor.shared import Shared
from sbc.telemetry import role
from sbc.telemetry.counters import WORDS, Kind
from sbc.telemetry.log import get
from sbc.telemetry.page import Page
from sbc.telemetry.role import Role, RoleCell
from sbc.worker import seats
from sbc.worker.seats import Seats
from sbc.worker.slot import SipSlot
from sbc.worker.thaw import watched

KINDS = {Group.SIP: Kind.SIP, Group.MEDIA: Kind.MEDIA, Group.CONTROL: Kind.CONTROL, Group.HA: Kind.HA}
CAPABILITIES = {Group.HA: process.CAP_NET_ADMIN | process.CAP_NET_RAW}  # kept when a child becomes another user
SINGLE = (Group.CONTROL, Group.HA, Group.STORE)
MEDIA_SESSIONS = 8192  # per media worker; memory is taken as it is touched
SILENCING_NS = 3_000_000_000
PAGE_BYTES = WORDS * 8
MEDIA_QUARANTINE_S = 1.5  # a port pair rests between two calls; asked for again within 2 s, it is there


def _alone(_: HaSlot) -> int:
    raise ConfigError(["this node is no part of a pair"])


@dataclass(frozen=True, slots=True)
class Entries:
    """What the workers run; each returns an exit code."""

    sip: Callable[[SipSlot], int]
    media: Callable[[MediaConfig], int]
    control: Callable[[ControlSlot], int]
    segment: Reader  # of media memory
    ha: Callable[[HaSlot], int] = _alone


def real_entries() -> Entries:
    """The workers of the product. Imported before the fork, so that a respawned worker starts in milliseconds and all
    share the memory of the code; none of these modules starts a thread or opens anything when it is imported."""
    from media.worker import run as run_media
    from sbc.ha.node import run as run_ha
    from sbc.management.control import run as run_control
    from sbc.worker.sip_worker import run as run_sip

    return Entries(sip=run_sip, media=run_media, control=run_control, segment=media_segment(), ha=run_ha)


def media_segment() -> Reader:
    """That of the product."""
    from media import segment
    from media.state import state_size

    return Reader(
        size=state_size(MEDIA_SESSIONS),
        fault=partial(segment.fault, capacity=MEDIA_SESSIONS),
        sessions=partial(segment.sessions, capacity=MEDIA_SESSIONS),
    )


class LastWords:
    """A note that a dying child leaves for the supervisor, in memory that both share."""

    SIZE = 4096

    def __init__(self, memory: memoryview | None = None) -> None:
        self._memory = memory if memory is not None else memoryview(mmap.mmap(-1, self.SIZE))

    def write(self, text: str) -> None:
        self._memory[:] = text.encode("utf-8", "replace")[: self.SIZE].ljust(self.SIZE, b"\0")

    def read(self) -> str:
        return bytes(self._memory).rstrip(b"\0").decode("utf-8", "replace")


@dataclass(slots=True)
class Member:
    """One child process of the node."""

    group: Group
    slot: int
    child: Child = field(default_factory=Child)
    page: Page = field(default_factory=Page)
    last_words: LastWords = field(default_factory=LastWords)
    pid: int = 0
    config: Config | None = None  # what it was started or reloaded with
    row: int = 0  # in the roll
    pidfd: int = -1  # of a child of a former supervisor, which the keeper reaps
    was_stopped: bool = False  # by a former supervisor
    seat: int = 0  # whose shards a SIP worker has
    replaced: bool = False  # it ends because its successor is to begin

    @property
    def name(self) -> str:
        return self.group.value if self.group in SINGLE else f"{self.group.value} {self.slot}"

    def send(self, number: signal.Signals) -> None:
        """A signal to its process, and to no other that has got the pid since."""
        if self.pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)
        elif self.pid:  # not reaped yet, so the number is still its own
            os.kill(self.pid, number)

    def forget(self) -> None:
        """Its process has ended."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pid, self.pidfd, self.was_stopped = 0, -1, False


def worker_counts(config: Config) -> tuple[int, int]:
    """(SIP workers, media workers), with ``auto`` as one per processor that we may use."""
    processors = len(os.sched_getaffinity(0))
    return config.workers.sip or processors, config.workers.media or processors


def sip_capacity(count: int) -> int:
    """How many SIP workers there may be at once, of ``count`` now: room for twice as many to relieve them all."""
    return min(seats.MOST, 3 * max(count, len(os.sched_getaffinity(0))))


@dataclass(frozen=True, slots=True)
class Legacy:
    """What is there already when an estate is made: see :mod:`sbc.supervisor.inheritance`."""

    shared: Shared
    sockets: list[sockets.SlotSockets]
    media_memory: list[int]
    pair_stores: list[socket.socket]
    bells: dict[str, int]


class Estate:
    """Everything that is made once, before the first fork, and outlives every worker.

    ``lasting``: calls may outlive this supervisor, None: as the configured store does. Raises ConfigError when a
    listener cannot be bound. ``legacy``: what a supervisor of another interpreter gives, which has made all of it.
    """

    def __init__(
        self,
        config: Config,
        config_path: str,
        shard_key: bytes,
        entries: Entries,
        media_keys: tuple[bytes, bytes] | None = None,
        lasting: bool | None = None,
        legacy: Legacy | None = None,
    ) -> None:
        if lasting is None:
            lasting = config.store not in ("embedded", "none")
        self.config = config
        self.config_path = config_path
        self.shard_key = shard_key
        self.entries = entries
        sip_count, self.media_count = worker_counts(config)
        self._segments: Segments | None = None
        if legacy is None:
            self.shared = Shared()
            capacity = sip_capacity(sip_count)
            self.sockets = sockets.bind_all(config, sip_count, capacity)
            self._segments = Segments(config, self.media_count, entries.segment, lasting=lasting)
            self.media_memory = self._segments.fds
            self.pair_stores = [PairStore() for _ in range(self.media_count)]
        else:
            self.shared, self.sockets, self.media_memory = legacy.shared, legacy.sockets, legacy.media_memory
            self.pair_stores = [PairStore(sock) for sock in legacy.pair_stores]
            self.media_count = len(legacy.media_memory)
            capacity = len(self.sockets)
        self.seats = Seats(sip_count, self.shared.map("seats", seats.SIZE), former=legacy is not None)
        self.tally = CallTally(capacity, self.shared.map("calls of peers", call_tally.size_of(capacity)))
        self.accept(config)
        self.media_keys = media_keys
        self.page = Page(self.shared.map("page of supervisor", PAGE_BYTES))  # the supervisor's own
        self.orphaned: Callable[[], bool] = lambda: False  # whether the keeper has died
        self.members = [self._member(Group.STORE, 0)] if config.store == "embedded" else []
        self.members += [self._member(Group.MEDIA, slot) for slot in range(self.media_count)]
        self.members += [self._member(Group.CONTROL, 0)]
        self.members += [self._member(Group.HA, 0)] if config.ha is not None else []
        # More than there are seats: whoever is relieved lives on for a while beside its successor.
        self.members += [self._member(Group.SIP, slot) for slot in range(capacity)]
        if legacy is None:
            for member in self.members:
                if member.group is Group.SIP and member.slot >= sip_count:
                    member.page.retire()
        # the role of this node in its pair; None: it is alone
        self._shared_key = folders.shared_key(config)
        self._store_password = embedded_store.password_of(self._shared_key)
        self._store_url = embedded_store.store_url(config, self._store_password)
        self.cell: RoleCell | None = None
        if config.ha is not None:
            names = [member.name for member in self.members]
            self.cell = RoleCell(names, self.shared.map("role", role.SIZE), legacy.bells if legacy else None)
        run_dir = Path(config.run_dir)
        self.media_endpoints = {
            f"media-{slot}": f"ipc://{run_dir / f'media-{slot}.sock'}" for slot in range(self.media_count)
        }
        self.sip_sockets = [str(run_dir / f"sip-{slot}.sock") for slot in range(capacity)]

    def _member(self, group: Group, slot: int) -> Member:
        member = Member(group, slot, page=None, last_words=None)  # type: ignore[arg-type]  # in a moment
        member.page = Page(self.shared.map(f"page of {member.name}", PAGE_BYTES))
        member.last_words = LastWords(self.shared.map(f"last words of {member.name}", LastWords.SIZE))
        member.seat = slot
        return member

    def accept(self, config: Config) -> None:
        """This configuration is in force from now on."""
        self.config = config
        self.tally.claim(limited_peers(config.peers))

    def run(self, member: Member) -> int:
        """In the child: let go of what belongs to others, and be that worker."""
        self._release(member)
        match member.group:
            case Group.SIP:
                return self.entries.sip(self._sip_slot(member))
            case Group.MEDIA:
                if self.cell is not None and self.cell.must_empty(member.slot):
                    sockets.empty(self.media_memory[member.slot])
                return self.entries.media(self._media_config(member))
            case Group.CONTROL:
                return self.entries.control(self._control_slot(member))
            case Group.HA:
                return self.entries.ha(self._ha_slot(member))
            case Group.STORE:
                os.execv(embedded_store.find_server(), embedded_store.arguments(self.config, self._store_password))

    def close(self) -> None:
        """Close all sockets and shared memory."""
        for row in self.sockets:
            for sock in (*row.listeners, row.inbox, row.hand_over):
                sock.close()
        if self._segments is not None:
            self._segments.close()
        for store in self.pair_stores:
            store.close()
        self.shared.close()
        if self.cell is not None:
            self.cell.close()

    @property
    def sip_count(self) -> int:
        """How many SIP workers share the shards."""
        self.seats.look()
        return len(self.seats.numbers)

    @property
    def is_passive(self) -> bool:
        """Whether the other node of the pair is the one that serves."""
        return self.cell is not None and self.cell.role is not Role.ACTIVE

    @property
    def falls_silent(self) -> bool:
        """Whether this node of a pair has just become passive: workers that end now have been ended."""
        since_ns = self.cell.since_ns if self.cell is not None else 0
        return self.is_passive and time.monotonic_ns() - since_ns < SILENCING_NS

    def release(self) -> None:
        """In a child that is no worker: let go of every socket and of the media memory."""
        self._release(Member(Group.CONTROL, -1))

    def _release(self, member: Member) -> None:
        sip, media = member.group is Group.SIP, member.group is Group.MEDIA
        self.shared.close()
        for slot, row in enumerate(self.sockets):
            if not sip:
                row.hand_over.close()
            if not (sip and slot == member.slot):
                row.inbox.close()
            if not (sip and slot == member.seat):
                for sock in row.listeners:
                    sock.close()
        for slot, fd in enumerate(self.media_memory):
            if not (media and slot == member.slot) and member.group is not Group.HA:
                os.close(fd)
        for slot, store in enumerate(self.pair_stores):
            if not (media and slot == member.slot):
                store.theirs.close()
        if sip or media:
            for other in self.members:
                if other is not member:
                    other.page.close()
            self.page.close()

    def _sip_slot(self, member: Member) -> SipSlot:
        relieves = self.seats.relieves(member.slot)
        self.seats.look()
        # Calls of a former life are in the journal, unless they have been handed over or are the other node's by now.
        goes_on = not relieves and not self.is_passive
        self.tally.enrol(member.slot, self.seats.lives, goes_on=goes_on)
        return SipSlot(
            slot=member.slot,
            count=len(self.seats.prepared if relieves else self.seats.numbers),
            seat=member.seat,
            seats=self.seats,
            relieves=relieves,
            config=self.config,
            config_path=self.config_path,
            sockets=self.sockets[member.seat].listeners,
            inbox=self.sockets[member.slot].inbox,
            hand_over=[row.hand_over for row in self.sockets],
            page=member.page,
            media_endpoints=self.media_endpoints,
            store_url=self._store_url,
            shard_key=self.shard_key,
            media_keys=self.media_keys,
            cell=self.cell,
            tally=self.tally,
            orphaned=self.orphaned,
        )

    def _media_config(self, member: Member) -> MediaConfig:
        realms = {
            name: RealmInterface(
                address=str(realm.media.address),
                advertise=str(realm.media.advertise or ""),
                ports=realm.media.ports,
                nat=realm.nat,
            ).share(member.slot, self.media_count)
            for name, realm in self.config.realms.items()
        }
        return MediaConfig(
            slot=member.slot,
            endpoint=self.media_endpoints[f"media-{member.slot}"],
            realms=realms,
            state_fd=self.media_memory[member.slot],
            pairs_fd=self.pair_stores[member.slot].theirs.fileno(),
            page=member.page.words,
            capacity=MEDIA_SESSIONS,
            media_timeout_s=self.config.timers.media_silence_s,
            hold_timeout_s=self.config.timers.media_hold_silence_s,
            one_way_s=self.config.timers.media_one_way_s,
            quarantine_s=MEDIA_QUARANTINE_S,
            say=get().write,
            prompts=self.config.media.prompts,
            recordings=self.config.media.recordings,
            bind_freely=self.cell is not None,
            idle=lambda: self.is_passive,
            look=never if self.cell is None else watched(SystemClock(), self.config, self.cell).monotonic,
        )

    def _control_slot(self, member: Member) -> ControlSlot:
        pages = {other.name: other.page for other in self.members if other.group is not Group.STORE}
        return ControlSlot(
            config=self.config,
            config_path=self.config_path,
            page=member.page,
            pages={"supervisor": self.page, **pages},
            sip_sockets=self.sip_sockets,
            media_endpoints=self.media_endpoints,
            store_url=self._store_url,
            cell=self.cell,
        )

    def _ha_slot(self, member: Member) -> HaSlot:
        assert self.cell is not None
        speaking = (Group.SIP, Group.MEDIA, Group.CONTROL)
        return HaSlot(
            config=self.config,
            page=member.page,
            pages={other.name: other.page for other in self.members if other.group in speaking},
            cell=self.cell,
            store_url=self._store_url,
            key=self._shared_key,
            media_states=self.media_memory,
            media_sessions=MEDIA_SESSIONS,
        )
