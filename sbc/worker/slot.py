"""What the supervisor gives a SIP worker: its permanent number and everything that outlives its process."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sbc.config.models import Config
from sbc.policy.call_tally import CallTally
from sbc.telemetry.page import Page
from sbc.telemetry.role import RoleCell
from sbc.worker.seats import Seats


@dataclass(frozen=True, slots=True)
class SipSlot:
    """One SIP worker. A respawned worker gets the same slot: its sockets hold what arrived meanwhile.

    ``slot``        the number of the worker, ``seat`` the place whose shards it has, of ``count``; see ``seats``
    ``sockets``     bound sockets of this seat, by listener (the index of ``Flow.listener``), non-blocking, listening
    ``inbox``       AF_UNIX datagram socket on which other workers hand datagrams over to this slot, non-blocking
    ``hand_over``   write ends by number of worker, non-blocking; ``hand_over[slot]`` leads to the own inbox
    ``page``        counters; call ``page.ready()`` when serving and ``page.beat()`` every second
    ``media_endpoints``  media worker name (``media-0``) to ZeroMQ endpoint
    ``store_url``   as in :mod:`sbc.config.store_url`, with the password of the embedded store
    ``media_keys``  our CURVE public and secret key for media nodes elsewhere, None where there is none with a key
    ``cell``        the role of this node in its pair, None where it is alone
    ``tally``       the calls of peers with limits, in all workers; None: there is no other worker
    ``orphaned``    whether the node ends because its first process has died
    ``relieves``    whether others have the shards still, and this worker relieves them (:mod:`sbc.worker.relief`)
    ``shard_key``   16 octets for :func:`sbc.sip.shard.shard_of`, the same on every start
    """

    slot: int
    count: int
    config: Config
    config_path: str
    sockets: list[socket.socket]
    inbox: socket.socket
    hand_over: list[socket.socket]
    page: Page
    media_endpoints: dict[str, str]
    store_url: str
    shard_key: bytes
    media_keys: tuple[bytes, bytes] | None = None
    cell: RoleCell | None = None
    tally: CallTally | None = None
    orphaned: Callable[[], bool] = lambda: False
    seat: int = 0
    seats: Seats = field(default_factory=Seats)
    relieves: bool = False

    def adopts(self, number: int) -> bool:
        """Whether this worker is to see to what a former one of that number has left on the disk."""
        return not self.relieves and not self.seats.lives(number) and number % self.count == self.seat

    @property
    def name(self) -> str:
        return f"sip {self.slot}"

    @property
    def control_path(self) -> str:
        """The Unix socket on which this worker answers the control worker."""
        return str(Path(self.config.run_dir) / f"sip-{self.slot}.sock")
