"""What goes on in a thread while a row or a test does something else."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

LEAVES_S = 5.0  # a thread looks whether it is to end more often than that


class Background:
    """Runs ``_run`` in a thread until the end of the block, which is to return soon after ``_running`` is False; then
    ``_close`` gives back what it had, if anything."""

    def __init__(self) -> None:
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        self._close()

    def leave(self) -> None:
        """The thread ends, before the end of the block."""
        self._running = False
        if self._thread.is_alive():
            self._thread.join(LEAVES_S)

    def _run(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        pass
