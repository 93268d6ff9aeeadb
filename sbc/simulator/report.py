"""What came of a dry run, to be read by people, programs and assertions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sbc.simulator.trace import Seen, Step, sentence


@dataclass(frozen=True, slots=True)
class Attempted:
    """One target that was tried, and the status that it gave or that stands for its silence."""

    gateway: str
    uri: str
    status: int


@dataclass(frozen=True, slots=True)
class Report:
    """``status``: the final answer that the caller got, 0 for none. ``by``: the gateway that answered, '' for none or
    for this node itself. ``steps``: what happened and why, in order. ``messages``: all that crossed the edge."""

    status: int
    reason: str
    by: str
    attempts: Sequence[Attempted]
    steps: Sequence[Step]
    messages: Sequence[Seen]
    cdr: Mapping[str, object] | None
    counts: Mapping[str, int]

    @property
    def is_answered(self) -> bool:
        """Whether it was answered with a 2xx."""
        return 200 <= self.status < 300

    @property
    def rejected(self) -> list[str]:
        """Every choice that did not stand, with its reason."""
        return [step.text for step in self.steps if step.kind == "rejected"]

    def sent_to(self, name: str, method: str = "INVITE") -> list[bytes]:
        """The requests of a method that a peer got, in order."""
        start = f"{method} ".encode()
        return [seen.data for seen in self.messages if seen.receiver == name and seen.data.startswith(start)]

    def sentences(self, *, messages: bool = False) -> list[str]:
        """One line for each step; with ``messages`` the octets of each message below its step."""
        lines = []
        rest = iter(self.messages)
        for step in self.steps:
            lines.append(sentence(step))
            if messages and step.kind == "message" and (seen := next(rest, None)) is not None:
                lines += [f"           | {line}" for line in _text(seen.data).splitlines()]
        return lines

    def as_json(self) -> dict[str, Any]:  # Any: JSON values
        """The same for programs."""
        return {
            "status": self.status,
            "reason": self.reason,
            "by": self.by,
            "attempts": [{"gateway": a.gateway, "uri": a.uri, "status": a.status} for a in self.attempts],
            "steps": [
                {"at_s": round(step.at_s, 6), "kind": step.kind, "text": step.text, "where": step.where}
                for step in self.steps
            ],
            "messages": [
                {"at_s": round(m.at_s, 6), "from": m.sender, "to": m.receiver, "text": _text(m.data)}
                for m in self.messages
            ],
            "cdr": self.cdr,
        }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
