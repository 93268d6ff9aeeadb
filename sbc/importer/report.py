"""What became of each line of the script that is not said by the configuration and the routes alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from sbc.importer.tree import Script


class Outcome(Enum):
    """``UNMAPPED``: it is missing from what was made. ``ASSUMED``: it was mapped in a way that somebody should look at.
    ``ITSELF``: the SBC does it, or needs nothing of the kind."""

    UNMAPPED = "not mapped"
    ASSUMED = "to be checked"
    ITSELF = "done by itself"


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the script."""

    line: int
    text: str
    outcome: Outcome
    reason: str


@dataclass(slots=True)
class Report:
    """Collects the items while the script is mapped; one of each line, outcome and reason."""

    script: Script
    items: list[Item] = field(default_factory=list)

    def unmapped(self, line: int, reason: str) -> None:
        """This line is missing from what was made."""
        self._add(line, Outcome.UNMAPPED, reason)

    def assumed(self, line: int, reason: str) -> None:
        """This line was mapped on an assumption."""
        self._add(line, Outcome.ASSUMED, reason)

    def itself(self, line: int, reason: str) -> None:
        """Nothing needs to be said for this line."""
        self._add(line, Outcome.ITSELF, reason)

    def forgive(self, first: int, last: int, reason: str) -> None:
        """What was found missing between two lengths of ``items`` is not needed after all."""
        for index in range(first, last):
            item = self.items[index]
            if item.outcome is Outcome.UNMAPPED:
                self.items[index] = Item(item.line, item.text, Outcome.ITSELF, reason)

    def _add(self, line: int, outcome: Outcome, reason: str) -> None:
        item = Item(line, self.script.text(line), outcome, reason)
        if item not in self.items:
            self.items.append(item)

    def of(self, outcome: Outcome) -> list[Item]:
        """The items of one outcome, by line."""
        return sorted((item for item in self.items if item.outcome is outcome), key=lambda item: item.line)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.of(Outcome.UNMAPPED)

    def text(self) -> str:
        """For people: what is missing first."""
        lines = []
        for outcome in Outcome:
            items = self.of(outcome)
            if not items:
                continue
            lines.append(f"{outcome.value.capitalize()} ({len(items)}):")
            for item in items:
                lines.append(f"  {self.script.file}:{item.line}: {item.text or '(nothing)'}")
                lines.append(f"      {item.reason}")
            lines.append("")
        if self.complete:
            lines.append("Everything was mapped.")
        else:
            lines.append(f"Not everything was mapped: {len(self.of(Outcome.UNMAPPED))} lines are left to you.")
        return "\n".join(lines) + "\n"
