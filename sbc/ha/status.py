"""The state of the pair in plain words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sbc.ha.election import State

if TYPE_CHECKING:
    from sbc.ha.node import HaNode

SILENT_NS = 3_000_000_000


def unready(node: HaNode) -> list[str]:
    """Why this node could not serve calls now; empty: it could. Store and peer are judged elsewhere."""
    late = [name for name in _late(node) if name != "control"]  # records can wait
    found = [f"{' and '.join(late)} {'does' if len(late) == 1 else 'do'} not serve"] if late else []
    found += [f"{interface} has no carrier" for interface in node.held.without_carrier]
    return found + list(node.held.faults.values())


def _late(node: HaNode) -> list[str]:
    now = time.monotonic_ns()
    pages = ((name, page) for name, page in node.slot.pages.items() if not page.is_spare)
    return [name for name, page in pages if not page.is_ready or now - page.beat_ns > SILENT_NS]


def doubts(node: HaNode, now: float) -> list[str]:
    """Why a death of the active node now would not be followed by the other one taking over; a sentence each."""
    election = node.election
    active = election.state is State.ACTIVE
    found = unready(node)
    if "control" in _late(node):
        found.append("control does not serve, so records wait")
    beat = election.peer.beat
    if active:
        if reason := election.peer_unready(now):
            found.append(reason)
    elif not election.hears_peer(now):
        found.append(election.peer_unready(now) or "the other node is not heard")
    elif beat is not None and beat.state is not State.ACTIVE:
        found.append(f"{beat.name} is not active but {beat.state.name.lower()}")
    if not active and (reason := election.unreadable()):
        found.append(reason)
    silent = [str(n) for n, at in enumerate(election.peer.heard_s) if now - at >= node.timing.dead_s]
    if silent and election.hears_peer(now):
        found.append(f"nothing is heard on path {' and '.join(silent)}, so one more fault is too many")
    if node.replication is not None and not active and node.replication.reason:
        found.append(f"the store here is no copy: {node.replication.reason}")
    if election.hears_peer(now) and not node.media.is_kept:
        found.append("media sessions are not kept ready at the passive node")
    if beat is not None and beat.prefers and node.ha.prefers:
        found.append("both nodes have ha.prefers, and only one can be preferred")
    if node.witness.fault:
        found.append(node.witness.fault)
    elif routers := node.witness.silent(now, node.timing.dead_s):
        found.append(f"no answer from {' and '.join(routers)}, which should tell whether this node is cut off")
    if beat is not None and election.hears_peer(now) and not beat.witness and node.ha.witness:
        found.append(f"no router answers {beat.name}, so it would not take over")
    if node.lease is not None and not election.store_answers(now):
        why = f": {node.lease.reason}" if node.lease.reason else ""
        found.append(f"the store does not answer{why}")
    elif beat is not None and node.lease is not None and election.hears_peer(now) and not beat.store:
        found.append(f"the store does not answer {beat.name}")
    if node.lease is not None:
        found += node.lease.doubts
    return found


def describe(node: HaNode, now: float) -> dict[str, Any]:  # Any: JSON values
    """What ``sbc ha status`` shows."""
    election = node.election
    beat = election.peer.beat
    why_not = doubts(node, now)
    heard = [
        {
            "path": number,
            "local": _text(path.local),
            "peer": _text(path.peer),
            "heard": now - at < node.timing.dead_s,
            "age_s": round(now - at, 2) if at > float("-inf") else None,
        }
        for number, (path, at) in enumerate(zip(node.ha.paths, election.peer.heard_s, strict=True))
    ]
    lease: dict[str, Any]  # Any: JSON values
    if node.lease is None:
        deciding = "heartbeats and routers decide" if node.ha.witness else "heartbeats alone decide"
        lease = {"state": f"none, {deciding}"}
    else:
        lease = {
            "state": "held here" if election.holds_lease(now) else f"held by {election.lease.holder or 'nobody'}",
            "store": "answers" if election.store_answers(now) else f"away: {node.lease.reason or 'no answer'}",
        }
    return {
        "name": node.ha.name,
        "role": "active" if election.state in (State.ACTIVE, State.HANDING) else "passive",
        "state": election.state.name.lower(),
        "token": election.token,
        "since": time.time() - (now - election.since_s),
        "why": election.why,
        "preferred": election.preferred,
        "decided_by": node.ha.decided_by,
        "addresses": [str(virtual) for virtual in node.held.virtual],
        "peer": None
        if beat is None
        else {"name": beat.name, "state": beat.state.name.lower(), "token": beat.token, "ready": beat.ready},
        "lease": lease,
        "witness": [
            {"address": str(address), "heard": now - at < node.timing.dead_s}
            for address, at in zip(node.witness.addresses, node.witness.heard_s, strict=True)
        ],
        "replication": None if node.replication is None else node.replication.describe(),
        "media": node.media.describe(),
        "heartbeats": heard,
        "refused_datagrams": node.speaker.refused,
        "serves": not unready(node),
        "ready": not why_not,
        "why_not": why_not,
    }


def _text(end: tuple[str, int]) -> str:
    host, port = end
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
