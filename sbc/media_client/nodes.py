"""Media nodes, their health, and the choice of one for a new session.

A node is one media worker, of this machine or of another. Which of them a call may use is a *set*; a member with weight
0 is a spare, for when no weighted one takes sessions.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from enum import IntEnum
from hashlib import blake2b
from math import log
from typing import Any, NamedTuple

from sbc.config.media import LOCAL_SET, MediaHealth, MediaMember
from sbc.media_client.link import Link


class Address(NamedTuple):
    """Where a node is: its ZeroMQ endpoint, and its CURVE public key, b"" for one that needs none."""

    endpoint: str
    key: bytes = b""


Sets = Mapping[str, Mapping[str, int]]  # name of a set to names of nodes, with their weights


def layout(
    media_sets: Mapping[str, Sequence[MediaMember]], local: Mapping[str, str]
) -> tuple[dict[str, Address], Sets]:
    """Nodes and sets of a configuration, ``local`` being the endpoints of our own workers by name."""
    nodes = {name: Address(endpoint) for name, endpoint in local.items()}
    sets: dict[str, dict[str, int]] = {}
    for name, members in media_sets.items():
        chosen = sets[name] = {}
        for member in members:
            if member.workers == LOCAL_SET:
                chosen.update(dict.fromkeys(local, member.weight))
            else:
                nodes[member.name] = Address(member.url, member.key.encode())
                chosen[member.name] = member.weight
    return nodes, sets


class State(IntEnum):
    """Whether a node may get new sessions."""

    UP = 0
    DOWN = 1  # it misses deadlines: probed until it answers again
    DRAINING = 2  # it says, or an operator said here, that it takes none


class Node:
    """One media node: the link to it and what we know of its health. Times are those of the event loop."""

    __slots__ = (
        "address",
        "answered",
        "down_since",
        "drained",
        "draining",
        "link",
        "missed",
        "missed_at",
        "name",
        "opened",
        "refused",
        "salt",
        "sessions",
        "trouble",
    )

    link: Link

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self.address = address
        self.salt = name.encode()[:64]
        self.missed = 0  # requests without an answer, one after the other
        self.missed_at = float("-inf")
        self.answered = 0  # answers in time since it went down
        self.down_since: float | None = None
        self.draining = False  # as it says
        self.drained = False  # as an operator said
        self.sessions = 0  # as it said when it was last probed
        self.opened = 0
        self.trouble = ""  # what keeps us from asking it, where we know
        self.refused = ""  # why it last refused a new session; '' after one that it took

    @property
    def state(self) -> State:
        """Whether it may get new sessions."""
        if self.down_since is not None:
            return State.DOWN
        return State.DRAINING if self.draining or self.drained else State.UP

    @property
    def reason(self) -> str:
        """Why it gets no new sessions, or none at the moment, in words; '' where all is well."""
        if self.down_since is not None:
            if self.missed and self.trouble:
                return self.trouble
            if self.missed:
                return f"{self.missed} requests without an answer"
            return "answers again, and is watched before it gets new calls"
        if self.drained:
            return "drained by command"
        if self.draining:
            return "it drains: present calls go on"
        return f"last refused: {self.refused}" if self.refused else ""

    @property
    def why(self) -> str:
        """:attr:`reason` of one that is not up, as a word for metrics."""
        if self.down_since is not None:
            return "mute" if self.missed else "recovering"
        return "drained" if self.drained else "draining" if self.draining else ""

    def miss(self, sent_at: float, now: float, health: MediaHealth) -> bool:
        """No answer by a deadline; True when it goes down with this one. Those that were under way at the same time as
        the last one tell nothing more: one stumble is one miss, however many requests it holds up."""
        if sent_at < self.missed_at:
            return False
        self.missed_at = now
        self.missed += 1
        self.answered = 0
        if self.down_since is None and self.missed >= health.fall:
            self.down_since = now
            return True
        return False

    def answer(self, now: float, health: MediaHealth) -> bool:
        """An answer in time; True when it comes up with this one."""
        self.missed = 0
        self.trouble = ""
        if self.down_since is None:
            return False
        self.answered += 1
        if self.answered < health.rise or now < self.down_since + health.disable_s:
            return False
        self.down_since, self.answered = None, 0
        return True

    def describe(self, now: float, sets: Sets) -> dict[str, Any]:  # Any: JSON values
        """For the operator."""
        return {
            "node": self.name,
            "state": self.state.name.lower(),
            "reason": self.reason,
            "why": self.why,
            "sessions": self.sessions,
            "opened": self.opened,
            "missed": self.missed,
            "down_s": 0.0 if self.down_since is None else round(now - self.down_since, 1),
            "sets": {name: members[self.name] for name, members in sets.items() if self.name in members},
            "url": self.address.endpoint,
        }


Member = tuple[Node, int]  # with its weight in the set


def choose(members: Sequence[Member], key: bytes, but: Container[Node] = ()) -> Node | None:
    """The node for a new session, by weighted rendezvous hash of ``key``; None when all are in ``but``.

    Of the members with a weight that are up; else of the spares that are up; else of those that are down, since one of
    them may have come back; else of those that drain, for them to refuse it.
    """
    left = [member for member in members if member[0] not in but] if but else members
    if len(left) == 1:
        return left[0][0]
    tiers: tuple[list[Member], list[Member], list[Member], list[Member]] = ([], [], [], [])
    for member in left:
        state = member[0].state
        tiers[(0 if member[1] else 1) if state is State.UP else 1 + state].append(member)
    for tier in tiers:
        if tier:
            return tier[0][0] if len(tier) == 1 else max(tier, key=lambda member: _score(member, key))[0]
    return None


def _score(member: Member, key: bytes) -> float:
    """The highest wins: shares follow the weights, and only what a node had moves when it goes."""
    node, weight = member
    drawn = int.from_bytes(blake2b(key, digest_size=8, key=node.salt).digest(), "big")
    return -(weight or 1) / log((drawn + 0.5) / 2.0**64)
