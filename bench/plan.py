"""How thoroughly to measure, and what every family of figures is given."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figures import NotMeasuredError, Samples, SpoiledError, selected
from bench.machine import Cores

# What other processes used of the two cores, as a share of one: above the first it is said, above the second the
# figure is refused unless the caller wants it all the same.
DISTURBED, SPOILT = 0.05, 0.25
# A highest rate takes a dozen loads to find, so it is found less often than a CPU figure is taken.
RATE_RUNS = 3
# How often a spoiled measurement is tried in all.
TRIES = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """Repetitions and what is wanted; ``quick`` shortens the single measurement too."""

    cores: Cores
    runs: int
    quick: bool
    although_busy: bool
    patterns: Sequence[str]
    minutes: float = 30.0  # of a soak

    def wants(self, name: str) -> bool:
        return selected(name, self.patterns)

    def say(self, text: str) -> None:
        """Progress, to standard error: standard output is the report's."""
        print(text, file=sys.stderr, flush=True)

    def disturbance(self, foreign_share: float) -> str:
        """A note when others were busy on the measured cores; SpoiledError when they were too busy for a figure."""
        text = f"others used {foreign_share:.0%} of a core meanwhile" if foreign_share > DISTURBED else ""
        if foreign_share > SPOILT and not self.although_busy:
            raise SpoiledError(text)
        return text


@contextmanager
def working_directory() -> Iterator[Path]:
    """A folder for the files of one run; short, because Unix sockets in it have short names."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def attempt(plan: Plan, samples: Sequence[Samples], measure: Callable[[], None]) -> None:
    """Run one measurement; what it cannot measure becomes the reason of its figures and is not tried again.

    A figure that already has a reason is given up: repeating a missing peer costs time and tells nothing.
    """
    if all(sample.reason for sample in samples):
        return
    names = ", ".join(sample.name for sample in samples)
    for left in reversed(range(TRIES)):
        try:
            measure()
        except NotMeasuredError as error:
            again = left and isinstance(error, SpoiledError)
            plan.say(f"{names}: {error}{' (again)' if again else ''}")
            if again:
                continue
            for sample in samples:
                sample.reason = sample.reason or str(error)
        else:
            plan.say("; ".join(f"{s.name} {s.values[-1]:.4g} {s.unit}" for s in samples if s.values))
        return
