"""Why a pair is not ready, in words."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from sbc.ha import status
from sbc.ha.election import Beat, Election, State, Timing
from sbc.telemetry.counters import Kind
from sbc.telemetry.page import Page

NOW = 1000.0


def node(*, active: bool = True) -> Any:  # Any: what the words need of a node
    pages = {}
    for name, kind in (("sip 0", Kind.SIP), ("media 0", Kind.MEDIA), ("control", Kind.CONTROL)):
        pages[name] = Page()
        pages[name].open(kind, 1)
        pages[name].ready()
    election = Election("a", Timing(), 2, NOW - 100, has_lease=True, token=3, active=active)
    election._store_s = NOW
    other = State.STANDBY if active else State.ACTIVE
    for path in (0, 1):
        election.heard(path, Beat("b", other, 3, True, True), NOW - 0.1)
    return SimpleNamespace(
        slot=SimpleNamespace(pages=pages),
        election=election,
        timing=Timing(),
        lease=SimpleNamespace(reason="", doubts=()),
        replication=None,
        held=SimpleNamespace(faults={}, without_carrier=[]),
        media=SimpleNamespace(is_kept=True),
        witness=SimpleNamespace(fault="", silent=lambda now, after_s: []),
        ha=SimpleNamespace(witness=[], prefers=False),
    )


@pytest.mark.parametrize("active", [True, False])
def test_a_good_pair(active: bool) -> None:
    assert status.doubts(node(active=active), NOW) == []


def test_each_reason_is_said() -> None:
    def why(change: Any, at: float = NOW, *, active: bool = True) -> str:  # Any: a function of a node
        made = node(active=active)
        change(made)
        return "; ".join(status.doubts(made, at))

    def silent(made: Any) -> None:
        made.election._store_s = NOW + 5

    assert why(silent, NOW + 5).startswith("b is not heard")
    assert "not active but standby" in why(
        lambda n: n.election.heard(0, Beat("b", State.STANDBY, 3, True, True), NOW), active=False
    )
    assert "b is not ready" in why(lambda n: n.election.heard(0, Beat("b", State.STANDBY, 3, True, False), NOW))
    assert "does not yet have all" in why(
        lambda n: n.election.heard(0, Beat("b", State.STANDBY, 3, True, True, synced=False), NOW)
    )
    assert "b is stopping" in why(lambda n: n.election.heard(0, Beat("b", State.GONE, 3, True, False), NOW))
    assert "the store does not answer b" in why(
        lambda n: n.election.heard(0, Beat("b", State.STANDBY, 3, False, True), NOW)
    )
    assert "nothing is heard on path 1" in why(lambda n: n.election.peer.heard_s.__setitem__(1, NOW - 9))
    assert why(lambda n: setattr(n.lease, "doubts", ("the store has no replica",))) == "the store has no replica"
    assert "eth0 has no carrier" in why(lambda n: n.held.without_carrier.append("eth0"))
    assert "control does not serve" in why(lambda n: n.slot.pages["control"].open(Kind.CONTROL, 1))
    assert "sip 0 does not serve" in why(lambda n: n.slot.pages["sip 0"].open(Kind.SIP, 1))

    assert "no answer from 192.0.2.1" in why(lambda n: setattr(n.witness, "silent", lambda now, after_s: ["192.0.2.1"]))
    assert "cannot be asked" in why(lambda n: setattr(n.witness, "fault", "routers cannot be asked"))

    def both_prefer(made: Any) -> None:
        made.ha.prefers = True
        made.election.heard(0, Beat("b", State.STANDBY, 3, True, True, prefers=True), NOW)

    assert "both nodes have ha.prefers" in why(both_prefer)

    def no_router_there(made: Any) -> None:
        made.ha.witness.append("192.0.2.1")
        made.election.heard(0, Beat("b", State.STANDBY, 3, True, True, witness=False), NOW)

    assert "no router answers b" in why(no_router_there)

    def away(made: Any) -> None:
        made.election._store_s = NOW - 9
        made.lease.reason = "connection refused"

    assert "the store does not answer: connection refused" in why(away)


def test_a_worker_that_gives_no_sign_of_life_does_not_serve() -> None:
    made = node()
    assert status.unready(made) == []
    made.slot.pages["sip 0"].words[2] = time.monotonic_ns() - 10_000_000_000
    assert status.unready(made) == ["sip 0 does not serve"]
    made.slot.pages["control"].open(Kind.CONTROL, 1)
    assert status.unready(made) == ["sip 0 does not serve"], "records can wait, calls cannot"
