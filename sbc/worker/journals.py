"""The journal of a SIP worker, as it is configured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sbc.store.journal import Journal, Note
from sbc.store.nothing import NoJournal
from sbc.store.spool import open_spool
from sbc.store.unstored import open_unstored
from sbc.store.url import parse_store_url
from sbc.telemetry.role import Role
from sbc.worker.slot import SipSlot


def journal_of(
    slot: SipSlot,
    loop: asyncio.AbstractEventLoop,
    on_restored: Callable[[], None],
    on_lost: Callable[[str], None],
    log_cdr: Callable[[dict[str, Any]], None],  # Any: JSON values
    log_fields: Note,
) -> Journal | NoJournal:
    """See :class:`sbc.store.journal.Journal`."""
    config = slot.config
    if config.store == "none":
        return NoJournal(log_cdr)
    return Journal(
        parse_store_url(slot.store_url, config.run_dir),
        config.node,
        loop,
        commit_timeout_s=config.timers.commit_timeout_ms / 1000,
        lifetime_s=config.timers.dialog_lifetime_s,
        epoch=None,
        token=lambda: _token(slot),
        on_restored=on_restored,
        on_lost=on_lost,
        count=slot.page.count,
        note=log_fields,
        spool=open_spool(config, slot.slot, log_fields, slot.adopts),
        unstored=open_unstored(config, slot.slot, log_fields, slot.adopts),
    )


def _token(slot: SipSlot) -> int:
    """The fencing token of this node while it is not passive; 0 where it is, or has no pair."""
    cell = slot.cell
    return cell.token if cell is not None and cell.role is not Role.PASSIVE else 0
