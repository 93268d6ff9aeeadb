"""Offer and answer through the media plane (RFC 3264): one side's description in, the other side's out.

Both functions end in ``then(body, status, now)``: the description for the receiver and 0, or b"" and the SIP status
that this failure maps to. Without a media profile the description passes octet for octet, at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from media.protocol import Answer, Delete, Offer, Reply, Srtp
from sbc.b2bua import accompany
from sbc.b2bua.settings import MediaProfile
from sbc.b2bua.tables import CallState
from sbc.errors import SdpError
from sbc.sdp.description import SessionDescription
from sbc.sdp.rewrite import Origin, anchored, assemble, streams_of
from sbc.sdp.webrtc import PLAIN, Shape, Transport, streams_with

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

Then = Callable[[bytes, int, float], None]

PROMPT = "prompt"  # the leg that stands for us where A hears an announcement
_OURSELVES = MediaProfile(srtp="off")
_NOT_ACCEPTABLE = frozenset({"unsupported", "malformed"})  # refusals that are about the offer itself


def offer(core: Core, call: Call, sender: Leg, receiver: Leg, body: bytes, then: Then, now: float) -> None:
    """``sender`` offers; nobody else may until ``answer`` or :func:`withdraw` (RFC 3264 §4)."""
    call.offer_from = sender
    receiver.sdp_before = receiver.sdp_out
    _cross(core, call, sender, receiver, body, True, then, now)


def answer(core: Core, call: Call, sender: Leg, receiver: Leg, body: bytes, then: Then, now: float) -> None:
    """``sender`` answers the offer of ``receiver``; the answer that the 18x had already needs no media worker again."""
    call.offer_from = None
    sender.sdp_before = None
    if call.state is CallState.ANSWERING and body == sender.sdp_in and receiver.sdp_out:
        then(receiver.sdp_out, 0, now)
        return
    _cross(core, call, sender, receiver, body, False, then, now)


def withdraw(call: Call) -> None:
    """The open offer was refused: the description in force stays what it was (RFC 3261 §14.1).

    The version of o= stays raised: the next change must differ from what was refused, too.
    """
    sender, call.offer_from = call.offer_from, None
    receiver = call.other(sender) if sender is not None else None
    if receiver is not None and receiver.sdp_before is not None:
        receiver.describe_again(receiver.sdp_before)


def learn(core: Core, call: Call, sender: Leg, receiver: Leg, body: bytes, now: float) -> None:
    """``sender`` has answered otherwise than before to an offer that changed nothing: media goes where it says now.
    ``receiver`` is told nothing, since nobody asked it anything."""
    if call.media_profile is None:
        core.note("info", "answer to a refresh changes media that we do not relay", call, leg=sender.name)
        return
    former, version = receiver.sdp_out, receiver.sdp_version

    def learnt(described: bytes, status: int, now: float) -> None:
        receiver.describe_again(former)
        receiver.sdp_version = version

    _cross(core, call, sender, receiver, body, False, learnt, now)


def said_again(leg: Leg) -> bytes:
    """What this leg was last told, as a new offer: the version of our o= is another (RFC 3264 §8)."""
    if not leg.session_id:  # not ours: media that we do not relay
        return leg.sdp_out
    leg.sdp_version += 1
    former = leg.sdp_out.partition(b"\r\ns=")[0]
    user, session_id, _, *rest = former.rpartition(b"\r\no=")[2].split(b" ")
    origin = b" ".join([user, session_id, str(leg.sdp_version).encode(), *rest])
    return b"v=0\r\no=" + origin + leg.sdp_out[len(former) :]


def answer_ourselves(
    core: Core, call: Call, receiver: Leg, request: Answer, sdp: SessionDescription, then: Then, now: float
) -> None:
    """Answer ``receiver`` with a description of ours; ``request`` tells the media plane of it."""
    profile = _profile(core, call, receiver)
    srtp = _srtp(core, receiver, profile)
    shape = Shape(PLAIN, _transport(srtp, profile), receiver.sdp_in, receiver.sdp_text) if srtp == "dtls" else None

    def answered(reply: Reply, now: float) -> None:
        if not reply.ok:
            core.note("warning", "media refused", call, leg=request.from_leg, code=reply.code, reason=reply.reason)
            then(b"", 503, now)
            return
        try:
            data = _describe(core, receiver, sdp, shape, reply)
        except SdpError as error:
            core.note("error", "media answered nonsense", call, leg=request.from_leg, reason=str(error))
            then(b"", 503, now)
            return
        then(data, 0, now)

    core.ask(call, request, answered, now)


def drop_branch(core: Core, call: Call, leg: Leg, now: float) -> None:
    """A losing branch gives its endpoints back, if it has any."""
    if leg.anchored:
        leg.anchored = False
        core.ask(call, Delete(call.key, leg.name), _ignore, now)


def _ignore(reply: Reply, now: float) -> None:
    """Nobody waits for this reply."""


def _cross(
    core: Core, call: Call, sender: Leg, receiver: Leg, body: bytes, offering: bool, then: Then, now: float
) -> None:
    if call.media_profile is None:
        sender.sdp_in = receiver.sdp_out = body
        then(body, 0, now)
        return
    profile, other = _profile(core, call, sender), _profile(core, call, receiver)
    from_srtp, to_srtp = _srtp(core, sender, profile), _srtp(core, receiver, other)
    transports: tuple[Transport, Transport] | None = None
    if from_srtp == "dtls" or to_srtp == "dtls":
        transports = _transport(from_srtp, profile), _transport(to_srtp, other)
    try:
        sdp = SessionDescription.parse(body)
        if offering:
            for one in (profile, other):
                if one is not None and one.codecs is not None and not one.codecs.apply(sdp):
                    raise SdpError("no codec of the offer is allowed here")
        streams = streams_of(sdp) if transports is None else streams_with(sdp, transports[0])
        targets = core.settings.media_targets.get(sender.realm)
        if targets is not None:
            targets.check(streams)
        if (profile is not None and profile.music) or (other is not None and other.music):
            then = accompany.with_music(
                core,
                call,
                sender,
                receiver,
                sdp,
                offering,
                profile.music if profile is not None else "",
                other.music if other is not None else "",
                then,
            )
    except SdpError as error:
        core.count("SDP_REFUSED")
        core.note("info", "sdp refused", call, leg=sender.name, reason=str(error))
        then(b"", error.status, now)
        return
    seen_at = sender.flow.host
    request: Offer | Answer
    if offering:
        request = Offer(
            call.key,
            sender.name,
            receiver.name,
            sender.realm,
            receiver.realm,
            streams,
            seen_at,
        )
        request.from_srtp, request.to_srtp = from_srtp, to_srtp
        if profile is not None:
            request.from_dscp = profile.dscp
        if other is not None:
            request.to_dscp = other.dscp
        if transports is not None:
            request.from_ice = "lite" if transports[0].ice else "off"
            request.to_ice = "lite" if transports[1].ice else "off"
        caller = profile if sender is call.a else other if receiver is call.a else None
        if caller is not None:
            request.silence_s, request.hold_silence_s = caller.silence_s, caller.hold_silence_s
            request.one_way_s = caller.one_way_s
    else:
        request = Answer(call.key, sender.name, receiver.name, streams, seen_at)
    if profile is not None:
        request.from_latch = profile.latch
    shape = None
    if transports is not None:
        shape = Shape(*transports, b"" if offering else receiver.sdp_in, receiver.sdp_text)
    core.ask(call, request, partial(_endpoints, core, call, sender, receiver, body, sdp, shape, then), now)


def _profile(core: Core, call: Call, leg: Leg) -> MediaProfile | None:
    """What is to be minded with media of this side; None for nothing."""
    profiles = core.settings.media_profiles
    if leg.name == PROMPT:
        return _OURSELVES
    if leg is call.a:
        return profiles.named.get(call.media_profile or "")
    return profiles.peers.get(leg.peer)


def _srtp(core: Core, leg: Leg, profile: MediaProfile | None) -> Srtp:
    if profile is not None and profile.srtp is not None:
        return profile.srtp
    policies = core.settings.srtp
    return "off" if policies is None else policies.of(leg.realm, leg.peer)


def _transport(srtp: Srtp, profile: MediaProfile | None) -> Transport:
    return Transport(True, profile is not None and profile.ice == "lite") if srtp == "dtls" else PLAIN


def _endpoints(
    core: Core,
    call: Call,
    sender: Leg,
    receiver: Leg,
    body: bytes,
    sdp: SessionDescription,
    shape: Shape | None,
    then: Then,
    reply: Reply,
    now: float,
) -> None:
    if not reply.ok:
        core.note("warning", "media refused", call, leg=sender.name, code=reply.code, reason=reply.reason)
        then(b"", 488 if reply.code in _NOT_ACCEPTABLE else 503, now)
        return
    call.has_media = True  # from the first endpoints on there is something to delete
    sender.anchored = receiver.anchored = True
    try:
        data = _describe(core, receiver, sdp, shape, reply)
    except SdpError as error:
        core.note("error", "media answered nonsense", call, leg=sender.name, reason=str(error))
        then(b"", 503, now)
        return
    sender.sdp_in = body
    then(data, 0, now)


def _describe(core: Core, receiver: Leg, sdp: SessionDescription, shape: Shape | None, reply: Reply) -> bytes:
    """The description for ``receiver``; the version of its o= rises only when something changes (RFC 3264 §8)."""
    address = next((e.address for e in reply.endpoints if e.port), "")
    if not address:  # every stream is rejected: any address of ours does
        address = core.settings.listeners[receiver.flow.listener].advertised_host
    text = anchored(sdp, reply.endpoints, address) if shape is None else shape.text(sdp, reply.endpoints, address)
    if not receiver.session_id:
        receiver.session_id = core.session_id()
    if text != receiver.sdp_text:
        receiver.sdp_text = text
        receiver.sdp_version += 1
        receiver.sdp_out = assemble(Origin("-", receiver.session_id, receiver.sdp_version), address, text)
    return receiver.sdp_out
