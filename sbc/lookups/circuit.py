"""Whether a server is worth asking: after some failures in a row it is not, but for one look-up now and then."""

from __future__ import annotations


class Circuit:
    """Sans clock: ``now`` is monotonic seconds. Closed, :meth:`admits` says yes. ``failures`` in a row open it; then
    one look-up every ``retry_s`` is let through, and its success closes it."""

    __slots__ = ("_failed", "_limit", "_retry_at", "_retry_s")

    def __init__(self, failures: int, retry_s: float) -> None:
        self._limit = failures
        self._retry_s = retry_s
        self._failed = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether look-ups are refused."""
        return self._failed >= self._limit

    def admits(self, now: float) -> bool:
        """Whether one more may be asked now; where the circuit is open, asking is the attempt of this turn."""
        if self._failed < self._limit:
            return True
        if now < self._retry_at:
            return False
        self._retry_at = now + self._retry_s
        return True

    def succeeded(self) -> bool:
        """There was a usable answer. True where that closes the circuit."""
        was_open, self._failed = self.is_open, 0
        return was_open

    def failed(self, now: float) -> bool:
        """There was none. True where that opens the circuit."""
        was_open = self.is_open
        self._failed += 1
        if self.is_open:
            self._retry_at = now + self._retry_s
        return self.is_open and not was_open
