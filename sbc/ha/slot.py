"""What the supervisor gives the process ``ha``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sbc.config.models import Config
from sbc.telemetry.page import Page
from sbc.telemetry.role import RoleCell

SOCKET = "ha.sock"


@dataclass(frozen=True, slots=True)
class HaSlot:
    """``config.ha`` is there.

    ``page``       its own counters
    ``pages``      those of every process that speaks for the node: SIP, media and control
    ``cell``       the role of the node, which this process writes
    ``store_url``  as in :class:`sbc.worker.slot.SipSlot`
    ``key``        what both nodes share
    ``media_states``   descriptors of the media workers' states, each of room for ``media_sessions``
    """

    config: Config
    page: Page
    pages: dict[str, Page]
    cell: RoleCell
    store_url: str
    key: bytes
    media_states: list[int]
    media_sessions: int

    @property
    def control_path(self) -> str:
        """The Unix socket on which the command line asks."""
        return str(Path(self.config.run_dir) / SOCKET)
