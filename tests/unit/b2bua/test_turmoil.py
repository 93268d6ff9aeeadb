"""Whatever phones, network, media, journal and routes do, in whatever order, while workers die: everything ends, once.

``SBC_PROPERTY_EXAMPLES`` is how many random orders are tried: 1500 take some 10 s.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sbc.b2bua.call import Call
from sbc.b2bua.effects import RouteKind
from sbc.dialog.session_timer import Policy
from tests.support.ladder import Ladder, ring_all
from tests.support.turmoil import STEPS, Turmoil, across

EXAMPLES = int(os.environ.get("SBC_PROPERTY_EXAMPLES", "1500"))

ANSWERED = ["a invites", "b reacts", "b answers 200", "a reacts", "a reacts", "a reacts", "b reacts"]
# Where a run begins: random steps alone seldom reach an answered call.
BEGINNINGS = [
    ["a invites"],
    ["a invites", "b reacts"],
    ["a invites", "b reacts", "the worker goes by order"],
    ["a invites and supports 100rel", "b answers 183 reliably", "a reacts", "a reacts", "the worker goes by order"],
    ["a invites", "b answers 503"],
    ["a invites without offer", "b answers 200"],
    ["a invites and requires 100rel", "b answers 183"],
    ["a invites and supports 100rel", "b answers 183 reliably"],
    ["a invites and supports 100rel", "b answers 183 reliably", "a reacts", "a reacts", "a reacts"],
    ["a invites without offer and supports 100rel", "b answers 183 reliably"],
    ["a invites", "b answers 200"],
    ANSWERED,
    [*ANSWERED, "a sends re-INVITE"],
    [*ANSWERED, "b sends re-INVITE without offer"],
    [*ANSWERED, "the worker dies"],
    ["b invites", "a answers 200"],
    ["b invites without offer", "a answers 200", "b reacts", "b reacts"],
    ["b invites", "a reacts", "b reacts", "a answers 200", "b reacts", "b reacts", "a reacts"],
    ["a invites", "b invites"],
]
# The same where b and c ring at once.
RINGING = [
    ["a invites", "b reacts", "c reacts"],
    ["a invites", "b reacts", "c reacts", "the worker goes by order"],
    ["a invites", "b answers 183", "c reacts", "the worker goes by order"],
    ["a invites", "b answers 503", "c reacts", "the worker goes by order"],
    ["a invites", "b answers 183", "c answers 183"],
    ["a invites", "b answers 486", "c reacts"],
    ["a invites", "b answers 503", "c answers 503", "d reacts"],
    ["a invites", "b sends all to d", "d reacts"],
    ["a invites", "c answers 200", "b answers 200", "a reacts", "a reacts"],
    ["a invites and supports 100rel", "b answers 183 reliably", "c answers 183 reliably", "a reacts", "a reacts"],
    ["a invites and supports 100rel", "b answers 183 reliably", "b answers 183 of a fork reliably", "a reacts"],
    ["a invites without offer", "b reacts", "c reacts"],
    ["a invites without offer", "c answers 200", "b answers 200"],
]
# Half of the steps are right ones: what is wrong in every respect is refused at the door and reaches nothing. The
# others are of few kinds in each run, since it takes the same few together to get far off the road.
RIGHT = ["a reacts", "b reacts", "a reacts", "b reacts", "c reacts", "0.3 s", "2 s", "60 s", "b answers 200"]
KINDS = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6)
RIGHT_OF_ALL = [*RIGHT, "c reacts", "d reacts", "c answers 200"]


def orders(right: list[str]) -> st.SearchStrategy[list[str]]:
    return KINDS.flatmap(lambda kinds: st.lists(st.sampled_from(right) | st.sampled_from(kinds), max_size=30))


def world(
    timers: bool, hooked: bool, pings: bool, media: bool = True, route: Callable[[Ladder, Call], None] = across
) -> Turmoil:
    kinds = (RouteKind.REQUEST, RouteKind.BRANCH, RouteKind.REPLY, RouteKind.LOCAL) if hooked else (RouteKind.REQUEST,)
    return Turmoil(
        engage=media,
        route=route,
        session_timers=Policy(90 if timers else 0),
        ping_interval_s=30.0 if pings else 0.0,
        routes=frozenset(kinds),
        hooks={f"{name}_route": lambda ladder, subject: None for name in ("branch", "onreply", "local")},
    )


@pytest.mark.timeout(120 + EXAMPLES / 20)
@hypothesis_settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    beginning=st.sampled_from(BEGINNINGS),
    steps=orders(RIGHT),
    timers=st.booleans(),
    hooked=st.booleans(),
    pings=st.booleans(),
    media=st.sampled_from([True, True, True, False]),
)
@example(
    beginning=ANSWERED,
    steps=["the worker dies", "60 s", "the worker dies"],
    timers=False,
    hooked=False,
    pings=True,
    media=True,
)
@example(
    beginning=["a invites", "b reacts"],
    steps=["0.3 s", "b sends BYE", "the worker dies"],
    timers=False,
    hooked=False,
    pings=False,
    media=True,
)
@example(
    beginning=["a invites without offer", "b answers 200"],
    steps=["the worker dies", "a's first datagram again"],
    timers=False,
    hooked=False,
    pings=False,
    media=True,
)
def test_everything_ends_once(
    beginning: list[str], steps: list[str], timers: bool, hooked: bool, pings: bool, media: bool
) -> None:
    f = world(timers, hooked, pings, media)
    for step in beginning + steps:
        STEPS[step](f)
    f.calm()
    f.check()


@pytest.mark.timeout(120 + EXAMPLES / 20)
@hypothesis_settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    beginning=st.sampled_from(RINGING),
    steps=orders(RIGHT_OF_ALL),
    timers=st.booleans(),
    hooked=st.booleans(),
)
def test_everything_ends_once_where_several_ring(
    beginning: list[str], steps: list[str], timers: bool, hooked: bool
) -> None:
    f = world(timers, hooked, pings=False, route=ring_all)
    for step in beginning + steps:
        STEPS[step](f)
    f.calm()
    f.check()
