"""What leaves for the other side: our addresses, our origin, and nothing by which the first side could be found.

The media plane anchors the streams, so every address, key and candidate of the description is void beyond us: c=, o=,
ports and a=rtcp are written anew; ICE, key and user data lines are left out; so is a line that we do not know and that
holds an address. Everything else passes octet for octet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from media.protocol import Endpoint, Stream
from sbc.errors import Fault, SdpError
from sbc.sdp.address import NULL_ADDRESSES, connection_data, holds_address, ip_literal
from sbc.sdp.description import DISCARD, KEEP, PERSONAL, UNKNOWN, MediaDescription, SessionDescription


class EndpointMismatch(SdpError):
    """The media plane answered with another number of endpoints than the description has streams."""

    fault = Fault.MEDIA
    status = 500
    try_elsewhere = True


class Origin(NamedTuple):
    """Our o= line: one session id for each leg, and a version that rises with each change (RFC 3264 §8)."""

    user: str
    session_id: int
    version: int


def streams_of(sdp: SessionDescription) -> list[Stream]:
    """The streams as the media plane wants them, one for each m= line.

    Raises SdpError when a stream in use has no address, or a host name (it would have to be resolved in mid-offer).
    """
    return [_stream(sdp, media) for media in sdp.streams]


def _stream(sdp: SessionDescription, media: MediaDescription) -> Stream:
    address = media.address or sdp.address
    if media.port and not ip_literal(address):
        raise SdpError("a stream without a c= line" if not address else "a c= line with a host name")
    return Stream(
        address,
        media.port,
        media.kind,
        media.protocol,
        media.rtcp_port,
        media.rtcp_mux,
        media.direction or sdp.direction,
        media.clock_rate_hz,
    )


def is_held(stream: Stream) -> bool:
    """True when its sender wants no media: RFC 3264 §8.4 (sendonly, inactive) or the null address of RFC 2543."""
    return stream.direction in ("sendonly", "inactive") or stream.address in NULL_ADDRESSES


def rewrite(sdp: SessionDescription, endpoints: Sequence[Endpoint], *, origin: Origin, address: str) -> bytes:
    """The description for the other side, with ``endpoints`` (one for each m= line, port 0 rejects a stream).

    ``address`` is ours, for o= and the session's c=. Raises EndpointMismatch.
    """
    return assemble(origin, address, anchored(sdp, endpoints, address))


def relabel(sdp: SessionDescription, *, origin: Origin, address: str) -> bytes:
    """The description for direct media: the peers' own addresses, keys and candidates stay, o= and s= are ours."""
    out = ["s=-"]
    sections: list[SessionDescription | MediaDescription] = [sdp, *sdp.streams]
    for section in sections:
        for line, owner in zip(section.lines, section.owners, strict=True):
            if owner not in (PERSONAL, DISCARD) and line[:2] not in ("v=", "o="):
                out.append(line)
    out.append("")
    return assemble(origin, address, "\r\n".join(out))


def assemble(origin: Origin, address: str, rest: str) -> bytes:
    """v= and o=, then ``rest``: everything from s= on, as :func:`anchored` returns it."""
    head = f"v=0\r\no={origin.user} {origin.session_id} {origin.version} {connection_data(address)}\r\n"
    return (head + rest).encode("utf-8", "surrogateescape")


def anchored(sdp: SessionDescription, endpoints: Sequence[Endpoint], address: str) -> str:
    """All lines after o=: what must differ for the version of o= to rise."""
    streams = sdp.streams
    if len(endpoints) != len(streams):
        raise EndpointMismatch(f"{len(endpoints)} endpoints for {len(streams)} streams")
    names = _names(sdp)
    passing = _passing(sdp.lines, sdp.owners, names)
    out = ["s=-", "c=" + connection_data(address), *passing]
    if not any(line.startswith("t=") for line in passing):
        out.insert(2, "t=0 0")  # RFC 8866 §5.9: mandatory; some phones forget it
    for media, endpoint in zip(streams, endpoints, strict=True):
        port = endpoint.port
        out.append(f"m={media.kind} {port} {media.protocol} {' '.join(media.formats)}")
        if port:
            theirs = media.address or sdp.address
            if theirs in NULL_ADDRESSES:  # a hold must stay a hold for those who know no other
                out.append("c=" + connection_data("::" if ":" in address else "0.0.0.0"))
            elif endpoint.address != address:
                out.append("c=" + connection_data(endpoint.address))
        out += _passing(media.lines, media.owners, names)
        if port:
            rtcp_port = endpoint.rtcp_port
            if rtcp_port == port:
                out.append("a=rtcp-mux")
            elif rtcp_port and (rtcp_port != port + 1 or media.rtcp_port):
                out.append(f"a=rtcp:{rtcp_port}")
    out.append("")
    return "\r\n".join(out)


def _passing(lines: list[str], owners: list[int], names: list[str]) -> list[str]:
    """The lines of a section that go to the other side as they are: none of them holds one of ``names``."""
    kept = [
        line
        for line, owner in zip(lines, owners, strict=True)
        if owner == KEEP or (owner == UNKNOWN and not holds_address(line))
    ]
    text = "\n".join(kept)
    for name in names:
        if name in text:
            return [line for line in kept if not any(name in line for name in names)]
    return kept


def _names(sdp: SessionDescription) -> list[str]:
    """Every address and host name that the description calls its own; bare labels and null addresses tell nothing."""
    found = {sdp.address, sdp.origin[5], *(media.address for media in sdp.streams)}
    return [name for name in found if ("." in name or ":" in name) and name not in NULL_ADDRESSES]
