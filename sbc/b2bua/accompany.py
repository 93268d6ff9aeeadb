"""What goes with the media of an answered call: music for the side that is held, and recording.

Music (profile key ``music``): while one side holds the other (RFC 3264 §8.4), the other hears a prompt instead, and is
told ``sendonly`` where the first side said ``inactive`` or the null address of RFC 2543, so that it listens. The answer
that the first side gets is as its offer asks (RFC 3264 §6.1, RFC 6337 §5.3).

Recording (profile key ``record``) begins with the 200 to A. A WAV needs a codec that the media plane can decode; where
it cannot, the call is recorded as pcap, and the log says so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

from media.protocol import Play, Record, Reply, Stop
from sbc.b2bua.profile import profile_of
from sbc.b2bua.tables import CallState
from sbc.errors import SdpError
from sbc.sdp.address import NULL_ADDRESSES
from sbc.sdp.description import MediaDescription, SessionDescription
from sbc.sdp.formats import formats_of, is_g711

if TYPE_CHECKING:
    from collections.abc import Callable

    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

    Then = Callable[[bytes, int, float], None]

_UP = (CallState.ANSWERED, CallState.UP)
_DIRECTIONS = frozenset({"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"})


def holds(sdp: SessionDescription) -> bool:
    """Whether the sender of this description wants no audio."""
    audio = [media for media in sdp.streams if media.kind == "audio" and media.port]
    return bool(audio) and all(
        sdp.direction_of(media) in ("sendonly", "inactive") or sdp.address_of(media) in NULL_ADDRESSES
        for media in audio
    )


def invite_to_listen(sdp: SessionDescription) -> None:
    """The offer of a side that holds, as the side that is to hear music gets it."""
    for media in sdp.streams:
        if media.kind == "audio" and media.port:
            if sdp.address_of(media) in NULL_ADDRESSES or sdp.direction_of(media) == "inactive":
                direct(media, "sendonly")
            if media.address in NULL_ADDRESSES:
                media.address = ""
    if sdp.address in NULL_ADDRESSES:
        sdp.address = ""


def answer_to_hold(sdp: SessionDescription, offer: bytes) -> None:
    """The answer of a side that hears music, as the side that holds gets it: inactive where it said so."""
    try:
        offered = SessionDescription.parse(offer)
    except SdpError:  # it was read before
        return
    for media, asked in zip(sdp.streams, offered.streams, strict=False):
        if offered.direction_of(asked) == "inactive" and sdp.direction_of(media) != "inactive":
            direct(media, "inactive")


def direct(media: MediaDescription, direction: Literal["sendonly", "inactive"]) -> None:
    """Another direction than the section had."""
    media.direction = direction
    media.passing = [line for line in media.passing if line.lower() not in _DIRECTIONS]
    media.passing.append(f"a={direction}")


def with_music(
    core: Core,
    call: Call,
    sender: Leg,
    receiver: Leg,
    sdp: SessionDescription,
    offering: bool,
    music: str,
    other_music: str,
    then: Then,
) -> Then:
    """An offer or answer of ``sender`` is on its way, in a call in which its side (``music``) or the other one hears
    music: change the description where it must be, and begin or end the music after ``then``, which is what to call."""
    if call.state not in _UP:
        return then
    held = holds(sdp)
    if offering:
        if held and other_music:
            invite_to_listen(sdp)
        return then
    offer = receiver.sdp_in
    if music:
        answer_to_hold(sdp, offer)

    def answered(body: bytes, status: int, now: float) -> None:
        then(body, status, now)
        if not status and call.state in _UP:
            _exchanged(core, call, receiver, sender, _read_holds(offer), held, other_music, music, now)

    return answered


def _read_holds(description: bytes) -> bool:
    try:
        return holds(SessionDescription.parse(description))
    except SdpError:  # nothing is known of it
        return False


def _exchanged(
    core: Core,
    call: Call,
    offerer: Leg,
    answerer: Leg,
    offer_holds: bool,
    answer_holds: bool,
    offerer_music: str,
    answerer_music: str,
    now: float,
) -> None:
    """Who holds hears nothing; who is held hears its music."""
    if answerer_music:
        _play(core, call, answerer, answerer_music if offer_holds and not answer_holds else "", now)
    if offerer_music:
        _play(core, call, offerer, offerer_music if answer_holds and not offer_holds else "", now)


def _play(core: Core, call: Call, leg: Leg, music: str, now: float) -> None:
    if leg.music == music and not (call.resumed and not music):
        return
    leg.music = music
    if music:
        request = Play(call.key, leg.name, music, repeat=0, formats=formats_for(leg))
        core.ask(call, request, partial(_begun, core, call, leg), now)
    else:
        core.ask(call, Stop(call.key, leg.name), _ignore, now)


def _begun(core: Core, call: Call, leg: Leg, reply: Reply, now: float) -> None:
    if not reply.ok:
        leg.music = ""
        core.note("warning", "no music for the held side", call, leg=leg.name, code=reply.code, reason=reply.reason)


def _ignore(reply: Reply, now: float) -> None:
    """Nobody waits for this reply."""


def formats_for(leg: Leg) -> list[str]:
    """What the first audio stream of a leg receives: of what it described, that which it was told of too."""
    told = _audio_formats(leg.sdp_out)
    described = _audio_formats(leg.sdp_in) or told
    names = {_encoding(text) for text in told}
    return [text for text in described if _encoding(text) in names] or described


def _audio_formats(description: bytes) -> list[str]:
    try:
        streams = SessionDescription.parse(description).streams if description else []
    except SdpError:
        return []
    return next((formats_of(media) for media in streams if media.kind == "audio" and media.port), [])


_STATIC = {"0": "PCMU/8000", "8": "PCMA/8000"}


def _encoding(text: str) -> str:
    number, _, rest = text.partition(" ")
    return (rest.split(" ")[0] or _STATIC.get(number, number)).upper()


# Recording


def answered(core: Core, call: Call, now: float) -> None:
    """The call is up: recorded, where the profile of a side says so."""
    if call.media_profile is None or call.b is None:
        return
    for leg in (call.a, call.b):
        profile = profile_of(core, call, leg)
        if profile is not None and profile.record != "off":
            record(core, call, profile.record, now)
            return


def record(core: Core, call: Call, kind: Literal["wav", "pcap"], now: float) -> None:
    """Begin to record a call, unless it is recorded already."""
    core.ask(call, request_for(call, kind), partial(_recording, core, call, kind), now)


def request_for(call: Call, kind: Literal["wav", "pcap"]) -> Record:
    """What asks for the recording of a call. Its file has the day, the time of its INVITE, and its key."""
    day = datetime.fromtimestamp(call.start_wall, UTC).strftime("%Y-%m-%d/%H%M%S")
    formats = formats_for(call.a)
    others = formats_for(call.b) if call.b is not None else []
    if others and not is_g711(others[0]):  # each side sends what was agreed with it
        formats = others
    return Record(call.key, file=f"{day}-{call.key}", format=kind, left=call.a.name, formats=formats)


def _recording(core: Core, call: Call, kind: Literal["wav", "pcap"], reply: Reply, now: float) -> None:
    if reply.ok:
        call.recording = reply.file
        core.touch(call)
    elif reply.code == "no_codec" and kind == "wav" and call.state in _UP:
        core.note("warning", "a call is recorded as pcap: its codec cannot be written into a WAV", call)
        record(core, call, "pcap", now)
    else:
        core.note("warning", "a call is not recorded", call, code=reply.code, reason=reply.reason)
