"""Offer and answer through the media plane (RFC 3264): one side's description in, the other side's out.

Both functions end in ``then(body, status, now)``: the description for the receiver and 0, or b"" and the SIP status
that this failure maps to. Without a media profile the description passes octet for octet, at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from media.protocol import REFUSALS, Answer, Delete, Join, Offer, Processing, Reply, Seat, Srtp
from sbc.b2bua import accompany
from sbc.b2bua.profile import profile_of, profile_under
from sbc.b2bua.settings import MediaProfile
from sbc.b2bua.tables import CallState
from sbc.errors import SdpError
from sbc.sdp import negotiate
from sbc.sdp.address import connection_data
from sbc.sdp.description import MAX_STREAMS, SessionDescription
from sbc.sdp.nated import uses_ice
from sbc.sdp.negotiate import NOTHING
from sbc.sdp.rewrite import anchored, keep_sections, streams_of, unanchored
from sbc.sdp.webrtc import PLAIN, Shape, Transport, streams_with

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

Then = Callable[[bytes, int, float], None]

_TALKING: Final = (CallState.RINGING, CallState.ANSWERED, CallState.UP)
_NOT_ACCEPTABLE: Final = frozenset({"unsupported", "malformed"})  # refusals that are about the offer itself


def offer(core: Core, call: Call, sender: Leg, receiver: Leg, body: bytes, then: Then, now: float) -> None:
    """``sender`` offers; nobody else may until ``answer`` or :func:`withdraw` (RFC 3264 §4)."""
    call.offer_from = sender
    receiver.sdp_before = receiver.sdp_out
    sender.in_before = sender.sdp_in
    _cross(core, call, sender, receiver, body, True, then, now)


def answer(core: Core, call: Call, sender: Leg, receiver: Leg, body: bytes, then: Then, now: float) -> None:
    """``sender`` answers the offer of ``receiver``; the answer that the 18x had already needs no media worker again."""
    call.offer_from = None
    sender.sdp_before = None
    body = sender.repaired(body)
    if call.state is CallState.ANSWERING and body == sender.sdp_in and receiver.sdp_out:
        then(receiver.sdp_out, 0, now)
        return
    _cross(core, call, sender, receiver, body, False, then, now)


def withdraw(core: Core, call: Call, now: float, sender: Leg | None = None) -> None:
    """The open offer was refused, or that of ``sender`` was answered in a way that nobody can use: what was in force
    stays in force on both sides, and so does where their media go (RFC 3261 §14.1).

    The version of o= stays raised: the next change must differ from what was refused, too.
    """
    sender, call.offer_from = sender or call.offer_from, None
    receiver = call.other(sender) if sender is not None else None
    if sender is None or receiver is None:
        return
    if receiver.sdp_before is not None:
        receiver.describe_again(receiver.sdp_before)
    former, sender.in_before = sender.in_before, None
    if former and former != sender.sdp_in and call.state in _TALKING:
        offered, sender.sdp_in = sender.sdp_in, former
        if offered and under(call, sender, receiver) is not None:
            _point_back(core, call, sender, receiver, former, now)


def _point_back(core: Core, call: Call, sender: Leg, receiver: Leg, former: bytes, now: float) -> None:
    """The media plane has pointed to what ``sender`` offered; its former description takes that back."""
    said, version = receiver.sdp_out, receiver.sdp_version

    def pointed(described: bytes, status: int, now: float) -> None:
        sender.sdp_in = former
        if receiver.sdp_before is None:  # else another offer is under way
            receiver.describe_again(said)
        receiver.sdp_version = max(version, receiver.sdp_version)

    _cross(core, call, sender, receiver, _in_force(former, sender.sdp_out), True, pointed, now)


def _in_force(described: bytes, told: bytes) -> bytes:
    """A side's own description without the streams that what it was ``told`` has rejected."""
    ports = [line.split(b" ", 2)[1] for line in told.split(b"\r\n") if line.startswith(b"m=")]
    if b"0" not in ports:
        return described
    lines = described.split(b"\n")
    sections = [index for index, line in enumerate(lines) if line.startswith(b"m=")]
    for index, port in zip(sections, ports, strict=False):
        if port == b"0":
            kind, _, rest = lines[index].split(b" ", 2)
            lines[index] = b" ".join((kind, port, rest))
    return b"\n".join(lines)


def learn(core: Core, call: Call, sender: Leg, receiver: Leg, body: bytes, now: float) -> None:
    """``sender`` has answered otherwise than before to an offer that changed nothing: media goes where it says now.
    ``receiver`` is told nothing, since nobody asked it anything."""
    if under(call, sender, receiver) is None:
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
    profile = profile_of(core, call, receiver)
    srtp = _srtp(core, receiver, profile, False)
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
    body = sender.repaired(body)
    caller = under(call, sender, receiver)
    if caller is None:
        sender.sdp_in = body
        _cross_directly(core, receiver, body, offering, then, now)
        return
    profile, other = profile_under(core, call, sender, caller), profile_under(core, call, receiver, caller)
    from_srtp, to_srtp = _srtp(core, sender, profile, offering), _srtp(core, receiver, other, offering)
    asked = MAX_STREAMS
    transports: tuple[Transport, Transport] | None = None
    if from_srtp == "dtls" or to_srtp == "dtls":
        transports = _transport(from_srtp, profile), _transport(to_srtp, other)
    try:
        sdp = SessionDescription.parse(body)
        if offering:
            for one in (profile, other):
                if one is not None and one.codecs is not None and not one.codecs.apply(sdp):
                    raise SdpError("no codec of the offer is allowed here")
            if receiver.sdp_text:
                keep_sections(sdp, receiver.sdp_text)
        elif receiver.sdp_in:
            asked = receiver.sdp_in.count(b"\nm=")  # the sender was shown more where its session had more
        streams = streams_of(sdp) if transports is None else streams_with(sdp, transports[0])
        processing: list[Processing] = []
        if (profile is not None and profile.wish != NOTHING) or (other is not None and other.wish != NOTHING):
            processing = _negotiate(sdp, sender, receiver, profile, other, offering)
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
        callers = profile if sender is call.a else other if receiver is call.a else None
        if callers is not None:
            request.silence_s, request.hold_silence_s = callers.silence_s, callers.hold_silence_s
            request.one_way_s = callers.one_way_s
        if sender.seat_of is not None and from_srtp == "dtls":
            request.seat = _seat(call, sender, sender.seat_of, True)
        elif receiver.seat_of is not None and to_srtp == "dtls":
            request.seat = _seat(call, receiver, receiver.seat_of, False)
    else:
        request = Answer(call.key, sender.name, receiver.name, streams, seen_at, processing=processing)
    if profile is not None:
        request.from_latch = profile.latch
    judged = core.settings.realms[sender.realm].nat == "auto" and not request.from_latch
    if judged and sender.judge_nat(core) and not uses_ice(body):
        request.from_latch = "learn"
    shape = None
    if transports is not None:
        shape = Shape(*transports, b"" if offering else receiver.sdp_in, receiver.sdp_text)
    core.ask(call, request, partial(_endpoints, core, call, sender, receiver, body, sdp, shape, asked, then), now)


def _seat(call: Call, seat: Leg, moved: Leg, offered: bool) -> Seat | None:
    """A leg with DTLS-SRTP that is to join this call keeps its association (RFC 8842), where one media worker has both
    calls: a call that has none yet goes to that one."""
    home = moved.call
    if not home.has_media:
        return None
    call.media_node = call.media_node or home.media_node
    if call.media_node != home.media_node:
        return None
    named = Seat(seat.name, (home.key, moved.name))
    seat.join = Join(call.key, named, offered)
    return named


def _cross_directly(core: Core, receiver: Leg, body: bytes, offering: bool, then: Then, now: float) -> None:
    """Media that we do not relay: octet for octet, but for an o= line of ours that the receiver knows already."""
    if not receiver.session_id:
        receiver.sdp_out = body
        then(body, 0, now)
        return
    try:
        sdp = SessionDescription.parse(body)
    except SdpError as error:
        core.count("SDP_REFUSED")
        then(b"", error.status, now)
        return
    if offering:
        keep_sections(sdp, receiver.sdp_text)
    then(_written(core, receiver, sdp.address or "0.0.0.0", unanchored(sdp)), 0, now)


def _negotiate(
    sdp: SessionDescription,
    sender: Leg,
    receiver: Leg,
    profile: MediaProfile | None,
    other: MediaProfile | None,
    offering: bool,
) -> list[Processing]:
    """Change a description into the one for the receiver, where one of both sides has wishes; what is to be done with
    the packets once it answers an offer."""
    wish = NOTHING if profile is None else profile.wish
    receivers = NOTHING if other is None else other.wish
    if offering:
        former = [SessionDescription.parse(text) for text in (receiver.sdp_out, receiver.sdp_in) if text]
        negotiate.offer(sdp, receivers, wish, former)
        return []
    offered = SessionDescription.parse(receiver.sdp_in)
    for one in (profile, other):
        if one is not None and one.codecs is not None:
            one.codecs.apply(offered)
    return negotiate.answer(sdp, SessionDescription.parse(sender.sdp_out), offered, wish, receivers)


def under(call: Call, one: Leg, other: Leg) -> str | None:
    """The profile of the A side where the media of these two are relayed, None where they are not."""
    chosen = one.media or other.media
    return call.media_profile if chosen is None else chosen.caller


def _srtp(core: Core, leg: Leg, profile: MediaProfile | None, offering: bool) -> Srtp:
    """The policy for a leg; of an answer it matters only whether that is ``dtls``."""
    if profile is not None and profile.srtp is not None:
        return profile.srtp
    policies = core.settings.srtp
    return policies.of(leg.realm, leg.peer) if policies is not None and (offering or policies.dtls) else "off"


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
    asked: int,
    then: Then,
    reply: Reply,
    now: float,
) -> None:
    if not reply.ok:
        core.note("warning", "media refused", call, leg=sender.name, code=reply.code, reason=reply.reason)
        call.media_lacking = REFUSALS.get(reply.code, False)
        then(b"", 488 if reply.code in _NOT_ACCEPTABLE else 503, now)
        return
    call.has_media = True  # from the first endpoints on there is something to delete
    sender.anchored = receiver.anchored = True
    if len(sdp.streams) > asked:
        del sdp.streams[asked:], reply.endpoints[asked:]
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
    return _written(core, receiver, address, text)


def _written(core: Core, receiver: Leg, address: str, text: str) -> bytes:
    """``text`` after our o= line for this leg, whose user, id and address stay what they were (RFC 8866 §5.2)."""
    if not receiver.session_id:
        _begin_session(core, receiver)
    if text != receiver.sdp_text:
        receiver.sdp_text = text
        receiver.sdp_version += 1
        if receiver.origin is None:
            receiver.origin = ("-", connection_data(address))
        user, where = receiver.origin
        head = f"v=0\r\no={user} {receiver.session_id} {receiver.sdp_version} {where}\r\n"
        receiver.sdp_out = (head + text).encode("utf-8", "surrogateescape")
    return receiver.sdp_out


def _begin_session(core: Core, leg: Leg) -> None:
    """What our o= lines for this leg begin with; they go on from the other side's own where it was shown those."""
    leg.session_id = core.session_id()
    if not leg.sdp_out:
        return
    try:
        user, session_id, version, *where = SessionDescription.parse(leg.sdp_out).origin
        if 0 < int(session_id) < 2**63 and 0 <= int(version) < 2**52:
            leg.session_id, leg.sdp_version, leg.origin = int(session_id), int(version), (user, " ".join(where))
    except (SdpError, ValueError):  # nothing that can be gone on from
        return
