"""Descriptions of and for a leg that speaks DTLS-SRTP, mostly with ICE: a browser (RFC 8829, RFC 8834).

What a browser says of its transport ends here, and ours is written beside what passes: ICE lite with one host
candidate (RFC 8445 §2.5), a fingerprint, rtcp-mux. Candidates of the other side are not read, mDNS names among them: it
is reached where its checks come from. Calls between two plain legs never come here.

Each stream has a port of its own, so of a BUNDLE group (RFC 9143) only the first stream that lives stays in it; the
others of an audio and video offer get transports of their own, and one that exists only in the bundle (``bundle-only``,
port 0) is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from media.protocol import Direction, Endpoint, Ice, Setup, Stream
from sbc.errors import EndpointMismatch, SdpError
from sbc.sdp.address import NULL_ADDRESSES
from sbc.sdp.description import MediaDescription, SessionDescription
from sbc.sdp.rewrite import anchored, names_of, streams_of, without

SECURE: Final = "UDP/TLS/RTP/SAVPF"  # what browsers speak (RFC 8827 §6.5)
MAX_FINGERPRINTS: Final = 8
# RFC 8421 and RFC 8445 §5.1.2.1: component 1 of the only host candidate
_PRIORITY: Final = 126 << 24 | 65535 << 8 | 255
_UFRAG: Final = re.compile(r"[A-Za-z0-9+/]{4,256}")  # RFC 8839 §5.4; some use the letters of base64url
_PASSWORD: Final = re.compile(r"[A-Za-z0-9+/_-]{22,256}")
_FINGERPRINT: Final = re.compile(r"[A-Za-z0-9-]{1,16} [0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){15,63}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]{1,64}")
_SETUPS: Final[dict[str, Setup]] = {"active": "active", "passive": "passive", "actpass": "actpass"}
_PLAIN_OF: Final = {
    **{"RTP/AVPF": "RTP/AVP", "RTP/SAVPF": "RTP/SAVP"},
    **{"UDP/TLS/RTP/SAVPF": "RTP/AVP", "UDP/TLS/RTP/SAVP": "RTP/AVP"},
}
_HELD: Final[dict[Direction, Direction]] = {"sendrecv": "sendonly", "recvonly": "inactive"}

# What holds between two ends that both negotiated it, and not between a browser and a plain leg.
_ENDS: Final = frozenset(
    {
        *("extmap", "extmap-allow-mixed", "rtcp-fb", "rtcp-rsize", "rtcp-xr", "msid", "msid-semantic", "ssrc"),
        *("ssrc-group", "rid", "simulcast"),
    }
)
_MID_IN_PACKETS: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"  # tells the streams of one transport apart


class Transport(NamedTuple):
    """What a leg speaks, by its profile. ``dtls``: DTLS-SRTP alone; ``ice``: with checks, which we answer."""

    dtls: bool = False
    ice: bool = False


PLAIN: Final = Transport()


def streams_with(sdp: SessionDescription, transport: Transport) -> list[Stream]:
    """The streams of a description for the media plane, as :func:`sbc.sdp.rewrite.streams_of`, with what is said of the
    transport. Raises SdpError where a stream in use lacks what this transport takes."""
    streams = _streams_by_checks(sdp) if transport.ice else streams_of(sdp)
    if transport.dtls:
        for media, stream in zip(sdp.streams, streams, strict=True):
            if media.port and media.is_rtp:
                _secure(sdp, media, stream, transport)
    return streams


def _streams_by_checks(sdp: SessionDescription) -> list[Stream]:
    """Nothing is ever sent to a c= or a=rtcp of a leg with ICE: neither names a target, or means a hold."""
    names = names_of(sdp)
    sdp.passing = without(sdp.passing, names)
    for media in sdp.streams:
        media.passing = without(media.passing, names)
        media.address, media.rtcp_port = "", 0
    sdp.address = NULL_ADDRESSES[0]
    streams = streams_of(sdp)
    sdp.address = ""
    return streams


def _secure(sdp: SessionDescription, media: MediaDescription, stream: Stream, transport: Transport) -> None:
    if "TLS" not in media.protocol:
        raise SdpError(f"{media.protocol} where DTLS-SRTP is required")
    fingerprints = _values(media.lines, "fingerprint") or _values(sdp.lines, "fingerprint")
    stream.fingerprints = [value for value in fingerprints if _FINGERPRINT.fullmatch(value)][:MAX_FINGERPRINTS]
    if not stream.fingerprints:
        raise SdpError("DTLS-SRTP without a usable a=fingerprint")
    stream.setup = _SETUPS.get(_value(sdp, media, "setup"), "")
    if not transport.ice:
        return
    ufrag, password = _value(sdp, media, "ice-ufrag"), _value(sdp, media, "ice-pwd")
    if not _UFRAG.fullmatch(ufrag) or not _PASSWORD.fullmatch(password):
        raise SdpError("ICE without usable a=ice-ufrag and a=ice-pwd")
    if not media.rtcp_mux:
        raise SdpError("ICE without a=rtcp-mux")
    stream.ice = Ice(ufrag, password)


class Shape(NamedTuple):
    """How a description is written that goes from a leg that speaks ``giving`` to one that speaks ``taking``.

    ``asked`` is the offer of the receiver that this answers, of which it takes up what was offered and no more; b"" for
    an offer. ``former`` is what the receiver was told last, from s= on: an offer keeps its names for the streams.
    """

    giving: Transport
    taking: Transport
    asked: bytes
    former: str

    def text(self, sdp: SessionDescription, endpoints: Sequence[Endpoint], address: str) -> str:
        """As :func:`sbc.sdp.rewrite.anchored`. Raises SdpError when the endpoints lack what the receiver takes."""
        if len(endpoints) != len(sdp.streams):
            raise EndpointMismatch(f"{len(endpoints)} endpoints for {len(sdp.streams)} streams")
        asked = SessionDescription.parse(self.asked) if self.asked else None
        if not (self.giving.ice and self.taking.ice):
            _between_kinds(sdp)
        else:
            for media in sdp.streams:
                media.passing = [line for line in media.passing if _MID_IN_PACKETS not in line]
        if self.taking.ice:
            _hold_in_words(sdp)
        mids = _mids(sdp, asked, self.former) if self.taking.ice else [""] * len(endpoints)
        ours: list[list[str]] = []
        for index, (media, endpoint, mid) in enumerate(zip(sdp.streams, endpoints, mids, strict=True)):
            media.passing = [line for line in media.passing if not line.startswith("a=mid:")]
            endpoint.protocol = _protocol(media, endpoint, self.taking, index, asked)
            if not endpoint.port:  # a browser's list of video codecs alone fills a datagram
                media.passing, media.formats = [], media.formats[:1]
            lines = ["a=mid:" + mid] if mid else []
            if endpoint.port and media.is_rtp and self.taking.dtls:
                if self.taking.ice:
                    endpoint.rtcp_port = endpoint.port  # RFC 8834 §4.5: they agreed to rtcp-mux, or will
                    if media.direction is None:  # RFC 8829 §5.2.1: always said; aiortc does not take it for granted
                        lines.append("a=" + sdp.direction)
                lines += _transport_lines(endpoint, self.taking)
            ours.append(lines)
        session = []
        if self.taking.ice:
            bundled = _bundled(sdp, endpoints, mids, asked)
            session = [*(["a=group:BUNDLE " + bundled] if bundled else []), "a=ice-lite", "a=ice-options:ice2"]
        return anchored(sdp, endpoints, address, session, ours)


def _between_kinds(sdp: SessionDescription) -> None:
    """Leave out what a browser negotiates with another browser, and what a plain leg does with another plain one."""
    sdp.passing = [line for line in sdp.passing if _name(line) not in _ENDS]
    for media in sdp.streams:
        media.passing = [line for line in media.passing if _name(line) not in _ENDS]


def _hold_in_words(sdp: SessionDescription) -> None:
    """A hold by the null address (RFC 3264 §8.4) says nothing to a leg with ICE: its direction does."""
    for media in sdp.streams:
        if (media.address or sdp.address) not in NULL_ADDRESSES:
            continue
        media.address = ""
        said = sdp.direction_of(media)
        if said in _HELD:
            media.direction = _HELD[said]
            media.passing = [line for line in media.passing if line.lower() != f"a={said}"]
            media.passing.append(f"a={media.direction}")
    if sdp.address in NULL_ADDRESSES:
        sdp.address = ""


def _mids(sdp: SessionDescription, asked: SessionDescription | None, former: str) -> list[str]:
    """The name of each stream (RFC 5888 §9): the receiver's own; one of ours for a stream that it is offered first."""
    if asked is not None:
        known = [media.lines for media in asked.streams]
    else:
        known = [section.split("\r\n") for section in former.split("\r\nm=")[1:]]
    mids = [next(iter(_values(lines, "mid")), "") for lines in known]
    mids = [mid if _TOKEN.fullmatch(mid) else "" for mid in mids]
    if asked is None and (not mids or any(mids)):
        for index in range(len(mids), len(sdp.streams)):
            mids.append(next(name for name in (str(index), f"s{index}", f"s{index}x") if name not in mids))
    return (mids + [""] * len(sdp.streams))[: len(sdp.streams)]


def _bundled(
    sdp: SessionDescription, endpoints: Sequence[Endpoint], mids: list[str], offer: SessionDescription | None
) -> str:
    """The only member of the BUNDLE group: of an answer, one that was offered in it (RFC 9143 §7.3)."""
    asked = None
    if offer is not None:
        groups = [value.split() for value in _values(offer.lines, "group")]
        asked = next((group[1:] for group in groups if group[:1] == ["BUNDLE"]), [])
    for media, endpoint, mid in zip(sdp.streams, endpoints, mids, strict=True):
        if endpoint.port and media.is_rtp and mid and (asked is None or mid in asked):
            return mid
    return ""


def _protocol(
    media: MediaDescription, endpoint: Endpoint, taking: Transport, index: int, offer: SessionDescription | None
) -> str:
    """That of the offer in its answer (RFC 3264 §6); in an offer the one that this leg speaks."""
    if offer is not None:
        return offer.streams[index].protocol if index < len(offer.streams) else endpoint.protocol
    if not media.is_rtp:
        return endpoint.protocol
    if taking.ice:
        return SECURE
    protocol = endpoint.protocol or media.protocol
    if taking.dtls:
        return "UDP/TLS/RTP/SAVPF" if protocol.endswith("F") else "UDP/TLS/RTP/SAVP"
    return _PLAIN_OF.get(protocol, protocol)


def _transport_lines(endpoint: Endpoint, taking: Transport) -> list[str]:
    """Our transport of one stream."""
    if not endpoint.fingerprint or not endpoint.setup:
        raise SdpError("no certificate for DTLS-SRTP")
    lines = ["a=fingerprint:" + endpoint.fingerprint, "a=setup:" + endpoint.setup]
    if not taking.ice:
        return lines
    if endpoint.ice is None:
        raise SdpError("no credentials for ICE")
    return [
        f"a=ice-ufrag:{endpoint.ice.ufrag}",
        f"a=ice-pwd:{endpoint.ice.password}",
        *lines,
        f"a=candidate:1 1 udp {_PRIORITY} {endpoint.address} {endpoint.port} typ host",
        "a=end-of-candidates",
    ]


def _name(line: str) -> str:
    return line[2:].partition(":")[0] if line[:2] == "a=" else ""


def _values(lines: list[str], name: str) -> list[str]:
    """Of each a=name: line of a section."""
    start = f"a={name}:"
    return [line[len(start) :].strip() for line in lines if line.startswith(start)]


def _value(sdp: SessionDescription | None, media: MediaDescription, name: str) -> str:
    """What a section says, else the session, else ''."""
    found = _values(media.lines, name) or (_values(sdp.lines, name) if sdp is not None else [])
    return found[0] if found else ""
