"""Media by hand: what routes say for one branch, one reply or one attempt, beside ``call.media.engage``."""

from __future__ import annotations

import asyncio

from media.protocol import StreamStats
from sbc.b2bua import by_hand, subjects
from sbc.b2bua.call import Call
from sbc.b2bua.leg import Leg
from sbc.errors import Fault, SbcError
from sbc.routing.node import Node
from sbc.routing.routes import RouteError


class MediaRefused(SbcError):
    """No media worker relays that; ``status`` is the answer that the call deserves for it. The branch is direct."""

    fault = Fault.MEDIA
    try_elsewhere = True

    def __init__(self, status: int) -> None:
        super().__init__(f"the media plane refused the offer ({status})")
        self.status = status


class BranchMedia:
    """Where the media of one branch go. Say it before the branch is sent."""

    __slots__ = ("_node", "_subject")

    def __init__(self, node: Node, subject: subjects.Branch) -> None:
        self._node = node
        self._subject = subject

    async def offer(self, profile: str = "", *, media_set: str = "") -> None:
        """Relay this branch, whatever the call does: ``branch.body`` is what it is offered from now on. Its answer and
        what follows go the same way. An INVITE without offer: what the branch offers will be relayed.

        ``profile`` is for the side of the branch, '' that of its peer. ``media_set`` as :meth:`Media.engage` has it; it
        can be chosen as long as the call has no session (``call.media.delete``). Raises RouteError for what is not
        configured, MediaRefused where no media worker takes it.
        """
        node, call = self._node, self._subject.call
        relaying(node, profile)
        choose_set(node, call, media_set)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        by_hand.offer(
            node.core.requests.core,
            self._subject,
            call.media_profile or node.relay_profile(call.a.peer),
            profile,
            lambda status: None if done.done() else done.set_result(status),
            node.clock.monotonic(),
        )
        status = await done
        if status:
            raise MediaRefused(status)

    def direct(self) -> None:
        """Let this branch and the caller exchange media directly; endpoints that it had are given back."""
        by_hand.direct(self._node.core.requests.core, self._subject, self._node.clock.monotonic())

    delete = direct


class ReplyMedia:
    """Where the media go that a reply describes."""

    __slots__ = ("_leg", "_node")

    def __init__(self, node: Node, leg: Leg) -> None:
        self._node = node
        self._leg = leg

    def answer(self, *, media_set: str = "") -> None:
        """Let what this branch describes reach the caller through the relay, as it does by itself where the branch was
        offered it. Where the INVITE had no offer this one is the branch's, and its way is chosen here.

        Raises RouteError where the branch was offered the caller's own description: only half of it would be relayed.
        """
        node, leg = self._node, self._leg
        choose_set(node, leg.call, media_set)
        if not by_hand.answer(leg, node.relay_profile(leg.call.a.peer)):
            raise RouteError("reply.media.answer: this branch was offered direct media; use branch.media.offer before")


async def delete(node: Node, call: Call) -> None:
    """End the session of a call. Raises RouteError where the caller has been told of it for good."""
    if call.a.described_early:
        raise RouteError("media.delete: the caller has a reliable answer with these media, which stay")
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    by_hand.delete(
        node.core.requests.core,
        call,
        lambda status: None if done.done() else done.set_result(status),
        node.clock.monotonic(),
    )
    await done


async def query(node: Node, call: Call) -> dict[str, list[StreamStats]]:
    """What the relay has counted, by leg, a list of its streams each; empty where nothing is relayed."""
    told: asyncio.Future[dict[str, list[StreamStats]]] = asyncio.get_running_loop().create_future()
    by_hand.query(
        node.core.requests.core,
        call,
        lambda stats: None if told.done() else told.set_result(stats),
        node.clock.monotonic(),
    )
    return await told


def relaying(node: Node, profile: str) -> None:
    """Raises RouteError for a profile that is not configured, or that does not relay."""
    if profile and (profile not in node.media_profiles or node.media_profiles[profile].direct):
        raise RouteError(f"no media profile {profile!r} that relays is configured")


def choose_set(node: Node, call: Call, media_set: str) -> None:
    """The media set of the next session. Raises RouteError for one that is not configured, or while there is one."""
    if media_set and media_set not in node.media_sets:
        raise RouteError(f"no media set {media_set!r} is configured; there are: {', '.join(node.media_sets)}")
    chosen = media_set or call.media_set or node.media_set(call.a.peer, call.a.realm)
    if chosen != call.media_set and (call.has_media or call.media_pending):
        raise RouteError(f"media set {media_set!r}: the call has a session in another one; call.media.delete ends it")
    call.media_set = chosen
