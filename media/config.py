"""What a media worker is told when it starts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

# Words (u64) of a counters page, see media.counters.
PAGE_WORDS = 512


@dataclass(frozen=True, slots=True)
class RealmInterface:
    """Where media faces one realm.

    ``address`` is bound, ``advertise`` (empty: the same) is shown in SDP, ``ports`` is this worker's inclusive range.
    ``nat`` tells whether legs of this realm may be learned from packets of a foreign address: ``always``, ``never``, or
    ``auto`` for those that signalled a private address other than the one that their signalling came from.
    """

    address: str
    advertise: str = ""
    ports: tuple[int, int] = (30000, 39999)
    nat: Literal["auto", "always", "never"] = "auto"

    def share(self, slot: int, count: int) -> RealmInterface:
        """The part of the port range that belongs to worker ``slot`` of ``count``: equal, disjoint, of whole pairs."""
        low = self.ports[0] + self.ports[0] % 2
        pairs = (self.ports[1] + 1 - low) // 2
        first, end = pairs * slot // count, pairs * (slot + 1) // count
        return RealmInterface(self.address, self.advertise, (low + 2 * first, low + 2 * end - 1), self.nat)


Say = Callable[[str, str], None]  # takes a level and a sentence for the log


def say(level: str, text: str) -> None:
    """A line for whoever runs a media worker by itself."""
    print(f"{level}: {text}", file=sys.stderr, flush=True)


def never() -> bool:
    """This node serves."""
    return False


@dataclass(frozen=True, slots=True)
class Curve:
    """Who may ask over the network: our CURVE secret key and the public keys of the clients, all in Z85."""

    secret: bytes = field(repr=False)
    clients: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class MediaConfig:
    """One media worker.

    ``state_fd`` is shared memory of ``media.state.state_size(capacity)`` octets that outlives the worker, -1 for none;
    ``pairs_fd`` the channel to whoever keeps port pairs beyond a worker's death (``media.kept_pairs``), -1 for nobody;
    ``page`` a memoryview of ``PAGE_WORDS`` u64 for counters, None for none. ``capacity`` is in sessions.
    ``media_timeout_s`` without a packet on any leg, ``hold_timeout_s`` while every stream is held, and ``one_way_s``
    with packets of one leg alone are told to the owner of a session; 0: never. ``curve`` None: whoever reaches
    ``endpoint`` may ask. ``collect_us`` is the longest wait that collects a batch of packets while traffic is dense, 0
    for none. ``say`` takes what is worth a line in the log: a level (``info``, ``warning``) and a sentence.
    ``prompts`` and ``recordings`` are the directories of announcements and recordings, empty for none. ``bind_freely``:
    addresses may come to this machine later. ``idle`` tells whether another node is the one that serves: then the state
    is written by a ``media.replication.receiver``, and is taken over when SIGUSR1 comes. ``look`` is called in each
    turn of the loop, before anything else, and does not return to a worker that may say nothing any more.
    """

    slot: int
    endpoint: str
    realms: dict[str, RealmInterface]
    state_fd: int = -1
    pairs_fd: int = -1
    page: memoryview | None = None
    capacity: int = 8192
    media_timeout_s: float = 60.0
    hold_timeout_s: float = 3600.0
    one_way_s: float = 10.0
    quarantine_s: float = 2.0
    collect_us: int = 500
    say: Say = say
    curve: Curve | None = None
    prompts: str = ""
    recordings: str = ""
    idle: Callable[[], bool] = never
    look: Callable[[], object] = never
    bind_freely: bool = False
