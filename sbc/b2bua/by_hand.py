"""Media as routes want them for one branch or one attempt, beside what they said for the whole call.

A branch that has not answered may be relayed, under profiles of its own, where the call is direct, or be direct where
the call is relayed (``leg.media``). The one that answers makes its way that of the call. A call has one session at a
time, on one media node: another set of nodes can be chosen once that session is deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from media.protocol import Delete, Query, Reply, StreamStats
from sbc.b2bua import cdr, exchange, shape
from sbc.b2bua.leg import Chosen
from sbc.b2bua.tables import CallState, LegState

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg
    from sbc.b2bua.subjects import Branch

Done = Callable[[int], None]
Told = Callable[[dict[str, list[StreamStats]]], None]


def offer(core: Core, branch: Branch, caller: str, profile: str, done: Done, now: float) -> None:
    """Offer this branch, which has not been sent, endpoints of the relay: ``branch.body`` is the new description.

    ``caller`` is the profile of the A side, ``profile`` that of the branch, '' the one of its peer. ``done`` gets 0, or
    the status of a refusal; the branch is direct then. Where the INVITE has no description, what the branch offers will
    be relayed.
    """
    call, leg = branch.call, branch.leg
    if not call.body:
        leg.media, leg.profile = Chosen(caller), profile
        done(0)
        return
    if not call.media_node:  # the reply tells which media worker has the session: nobody else may open it meanwhile
        if call.a.busy:
            core.wait(call.a, partial(offer, core, branch, caller, profile, done))
            return
        core.hold(call.a)
        done = partial(_freed, core, call, done, now)
    if call.state is not CallState.RINGING or leg.state is not LegState.IDLE:
        done(503)
        return
    _anew(core, leg, now)
    leg.media, leg.profile = Chosen(caller), profile
    exchange.offer(core, call, call.a, leg, call.body, partial(_offered, core, branch, done), now)


def _freed(core: Core, call: Call, done: Done, now: float, status: int) -> None:
    done(status)
    core.free(call.a, now)


def _offered(core: Core, branch: Branch, done: Done, body: bytes, status: int, now: float) -> None:
    call, leg = branch.call, branch.leg
    if call.state is not CallState.RINGING or leg.state is not LegState.IDLE:  # given up in the meantime
        if call.state < CallState.ENDING:
            core.drop_branch(leg, now)
        done(503)
        return
    if status:
        direct(core, branch, now)
    else:
        _describe(branch, body)
    done(status)


def direct(core: Core, branch: Branch, now: float) -> None:
    """Offer this branch, which has not been sent, A's description as it is."""
    call, leg = branch.call, branch.leg
    _anew(core, leg, now)
    leg.media, leg.profile = Chosen(None), ""
    if call.body:
        exchange.offer(core, call, call.a, leg, call.body, lambda body, status, now: _describe(branch, body), now)


def _describe(branch: Branch, body: bytes) -> None:
    request = branch.call.request
    assert request is not None  # a branch is made of one
    branch.body = shape.with_description(request, body)


def _anew(core: Core, leg: Leg, now: float) -> None:
    """The branch has been told nothing: what was prepared for it does not count."""
    core.drop_branch(leg, now)
    leg.session_id = leg.sdp_version = 0
    leg.origin = None
    leg.sdp_text, leg.sdp_out, leg.sdp_before = "", b"", None


def answer(leg: Leg, caller: str) -> bool:
    """What this branch describes goes through the relay. False: A's offer went to it directly, so that cannot be."""
    call = leg.call
    relayed = (call.media_profile if leg.media is None else leg.media.caller) is not None
    if not relayed and not call.body:  # the offer is the branch's own
        leg.media = Chosen(caller)
        return True
    return relayed


def won(core: Core, leg: Leg, now: float) -> None:
    """This branch has answered: its media are those of the call."""
    call, chosen = leg.call, leg.media
    if chosen is not None:
        call.media_profile, leg.media = chosen.caller, None
    if call.media_profile is None:  # else the relay would wait for packets, and end the call for want of them
        delete(core, call, lambda status: None, now)


def delete(core: Core, call: Call, done: Done, now: float) -> None:
    """End the session of a call, so that the next offer may open one elsewhere. What it counted is kept."""
    if not call.has_media:
        done(0)
        return
    call.has_media = False
    for leg in call.legs():
        leg.anchored = False

    def deleted(reply: Reply, now: float) -> None:
        call.media_stats = cdr.together(call.media_stats, reply.stats)
        if not call.has_media:
            call.media_node = ""
        done(0)

    core.ask(call, Delete(call.key), deleted, now)


def query(core: Core, call: Call, told: Told, now: float) -> None:
    """The statistics of a call's session by leg; empty where there is none, or where its media node does not tell."""
    if not call.has_media or not call.media_node:
        told({})
        return
    core.ask(call, Query(call.key), lambda reply, now: told(reply.stats if reply.ok else {}), now)
