"""What the supervisor gives the control worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sbc.config.models import Config
from sbc.telemetry.page import Page
from sbc.telemetry.role import RoleCell


@dataclass(frozen=True, slots=True)
class ControlSlot:
    """The control worker.

    ``page``         its own counters; ``page.ready()`` when serving, ``page.beat()`` every second
    ``pages``        the counters of every process by name (``supervisor``, ``sip 0``, ``media 0``, ``control``)
    ``sip_sockets``  the Unix sockets on which the SIP workers answer, by number; see ``sip_numbers``
    ``media_endpoints``  media worker name (``media-0``) to ZeroMQ endpoint
    ``store_url``    as in :class:`sbc.worker.slot.SipSlot`
    ``cell``         the role of this node in its pair, None where it is alone
    """

    config: Config
    config_path: str
    page: Page
    pages: dict[str, Page]
    sip_sockets: list[str]
    media_endpoints: dict[str, str]
    store_url: str
    cell: RoleCell | None = None

    def sip_numbers(self) -> list[int]:
        """Of the SIP workers that there are now."""
        pages = ((number, self.pages.get(f"sip {number}")) for number in range(len(self.sip_sockets)))
        return [number for number, page in pages if page is None or not page.is_spare]

    @property
    def control_path(self) -> str:
        """The Unix socket on which the command line and the panel ask this worker."""
        return str(Path(self.config.run_dir) / "control.sock")
