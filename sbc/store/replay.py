"""What goes to the store again after an outage: CDRs first and in order, then records, then what a caller lists.

A window at a time, so that a turn of the loop stays short: behind each command goes an ECHO, which tells that its turn
is over, whatever became of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from sbc.b2bua.effects import SaveCall
from sbc.store.pipe import Pipe, Reply, StoreAway

WINDOW = 128  # commands that may be under way


class Replay:
    """Over one pipe.

    ``may``           whether anything can be sent now
    ``send_cdr``      send the CDR of this number, ``send_record`` the record of this call; False where none waits
    ``send_listed``   send this record of a list
    ``listed``        all of the list was sent, or (with what went wrong) it could not be drawn from
    """

    def __init__(
        self,
        pipe: Pipe,
        may: Callable[[], bool],
        send_cdr: Callable[[int], bool],
        send_record: Callable[[str], bool],
        send_listed: Callable[[SaveCall], None],
        listed: Callable[[str], None],
    ) -> None:
        self._pipe = pipe
        self._may = may
        self._send_cdr = send_cdr
        self._send_record = send_record
        self._send_listed = send_listed
        self._listed = listed
        self._cdrs: deque[int] = deque()
        self._records: deque[str] = deque()
        self._list: Iterator[SaveCall] | None = None
        self._under_way = 0

    @property
    def is_running(self) -> bool:
        return self._under_way > 0

    @property
    def is_listing(self) -> bool:
        return self._list is not None

    def begin(self, cdrs: Iterable[int], records: Iterable[str]) -> None:
        """These wait; what waited before does no more."""
        self._cdrs = deque(cdrs)
        self._records = deque(records)
        self._pump()

    def then(self, records: Iterable[SaveCall]) -> None:
        """These are sent when nothing waits: the iterable is drawn from as the store confirms."""
        self._list = iter(records)
        self._pump()

    def unlist(self) -> None:
        """The list is of no use any more."""
        self._list = None

    def behind(self, number: int) -> bool:
        """Put a CDR behind those that ended earlier; False where none of them waits."""
        if not self._cdrs:
            return False
        self._cdrs.append(number)
        return True

    def _pump(self) -> None:
        """Send what waited, as far as the window lets us."""
        while self._under_way < WINDOW and self._may():
            if self._cdrs:
                sent = self._send_cdr(self._cdrs.popleft())
            elif self._records:
                sent = self._send_record(self._records.popleft())
            elif self._list is not None:
                try:
                    record = next(self._list, None)
                except Exception as error:  # of the caller's making
                    self._list = None
                    self._listed(str(error) or type(error).__name__)
                    return
                if record is None:
                    self._list = None
                    self._listed("")
                    return
                self._send_listed(record)
                sent = True
            else:
                return
            if sent:
                self._under_way += 1
                self._pipe.send(self._passed, "ECHO", "")

    def _passed(self, reply: Reply) -> None:
        self._under_way -= 1
        if not isinstance(reply, StoreAway):
            self._pump()
            return
        self._cdrs.clear()  # the next connect begins again with what is left
        self._records.clear()
        self._list = None
