"""What the journal holds, taken up again: calls, subscriptions, and notes of calls that another worker has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sbc.b2bua import lodging, setup_snapshot, snapshot
from sbc.b2bua import subscription_snapshot as watch
from sbc.b2bua.call import Call
from sbc.b2bua.effects import SaveCall
from sbc.b2bua.setup_journal import IN_SETUP
from sbc.b2bua.subscription import Subscription
from sbc.b2bua.tables import CallState

if TYPE_CHECKING:
    from sbc.b2bua.core import Core

# What this release writes; it reads this and all that is lower. It rises with the version of each kind of record.
FORMAT: Final = snapshot.VERSION + setup_snapshot.VERSION + watch.VERSION - 2


class Left:
    """In place of what a record of a later release tells of: the record is to stay where it is."""


Resumed = Call | Subscription | lodging.Away | Left


def resume(core: Core, record: bytes, now: float, wall: float) -> Resumed | None:
    """See :meth:`sbc.b2bua.core.Core.resume`."""
    try:
        if watch.is_one(record):
            return watch.decode(core, record, now, wall)
        if lodging.is_note(record):
            return core.lodging.resume(record, now, wall)
        if setup_snapshot.is_one(record):
            return setup_snapshot.decode(core, record, now, wall)
        call = snapshot.decode(core, record, now, wall)
    except snapshot.TooNew as error:
        core.count("RESUME_REFUSED")
        core.note("error", "a record of a later release is left where it is", None, reason=str(error))
        return Left()
    except snapshot.BadRecord as error:
        core.count("RESUME_REFUSED")
        core.note("error", "journal record refused", None, reason=str(error))
        return None
    core.count("CALLS_RESUMED")
    core.count("CALLS_ACTIVE")
    core.touch(call)  # the next successor must begin above the CSeqs that this one may use (RESUME_CSEQ_MARGIN)
    return call


def keys(core: Core) -> set[str]:
    """Of all that lives here and may have a record."""
    found = {*core.calls, *core.lodging.names()}
    found.update(side.subscription.key for side in core.requests.sides.values())
    return found


def of_all(core: Core, now: float) -> Iterator[SaveCall]:
    """See :meth:`sbc.b2bua.core.Core.records`."""
    for call in list(core.calls.values()):
        if call.state in (CallState.ANSWERED, CallState.UP):
            yield core.saving(call, now)
        elif call.saved and call.state in IN_SETUP and (effect := core.setups.save(call)) is not None:
            yield effect
    yield from core.requests.records(now)
    yield from core.lodging.records()
