"""Runs rows of the fault table, one after the other, each on a node of its own and within its time."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from sbc.selftest.measure import Failed, NotTried
from sbc.selftest.pair import pair_site
from sbc.selftest.row import Row
from sbc.selftest.site import AWAY_S, CALLS, Site, site
from sbc.selftest.table import Outcome

START_S = 240.0  # for node and ends, beside the runs
ROOM_LENGTH = 45  # a Unix socket's path is 107 octets long at most, and ours need the rest


@dataclass(frozen=True, slots=True)
class Options:
    """``calls`` are up in each row; ``minutes`` is how long the random mix lasts, in the order that ``seed`` tells; the
    store is away for ``away_s``, where that is the fault."""

    runs: int = 3
    calls: int = CALLS
    minutes: float = 1.0
    seed: int = 1
    away_s: float = AWAY_S
    is_apart: bool = False


class TooLong(Failed):
    """A row has used up its time."""


def run_rows(rows: Sequence[Row], options: Options, done: Callable[[Outcome], None]) -> list[Outcome]:
    """All of them, each given to ``done`` as it ends. On an interrupt what there is is removed, and it is raised on."""
    room = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="sbc-selftest-", dir=room if len(room) <= ROOM_LENGTH else "/tmp"))
    outcomes = []
    try:
        for row in rows:
            outcomes.append(run_row(row, options, folder))
            done(outcomes[-1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def run_row(row: Row, options: Options, folder: Path) -> Outcome:
    """One row. What goes wrong is in the outcome."""
    outcome = Outcome(row)
    measures = outcome.measures
    limit_s = options.runs * (START_S + row.limit_s + options.away_s + options.minutes * 60 * (row.id == "X2"))
    begun_s = time.monotonic()
    try:
        row.check()
        with within(limit_s):
            for run in range(1, options.runs + 1):
                # A node of its own for each: who dies again and again is started again later and later.
                place = folder / (row.id if run == 1 else f"{row.id}-{run}")
                with _opened(place, row, options) as at:
                    at.calls, at.minutes, at.seed, at.away_s = (
                        options.calls,
                        options.minutes,
                        options.seed,
                        options.away_s,
                    )
                    at.run = measures.runs = run
                    row.run(at, measures)
    except NotTried as error:
        outcome.not_tried = str(error)
    except Failed as error:
        measures.expect(False, str(error))
    except Exception as error:  # a fault of the kit, or something that no row thought of: told, and the next row runs
        measures.expect(False, f"the row itself failed: {type(error).__name__}: {error}")
    outcome.took_s = time.monotonic() - begun_s
    return outcome


@contextmanager
def _opened(place: Path, row: Row, options: Options) -> Iterator[Site]:
    """What the row needs, started."""
    if row.setup.pair:
        with pair_site(place, watched=row.setup.watched, releases=row.setup.releases) as two:
            two.begin()
            yield two
    else:
        with site(place, row.setup, is_apart=options.is_apart) as one:
            yield one


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    """Raises TooLong in the block when it lasts longer. For the main thread."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TooLong(f"it took longer than {limit_s:.0f} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
