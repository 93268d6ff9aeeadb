"""What leaves for the other side: our addresses, our origin, and nothing by which the first side could be found.

The media plane anchors the streams, so every address, key and candidate of the description is void beyond us: c=, o=,
ports, a=rtcp and a=crypto are written anew; ICE, other key and user data lines are left out; so is a line that we do
not know and that holds an address. Everything else passes octet for octet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from media.protocol import Endpoint, Stream
from sbc.errors import EndpointMismatch, SdpError
from sbc.sdp.address import NULL_ADDRESSES, connection_data, ip_literal
from sbc.sdp.description import MediaDescription, SessionDescription, concerns_user


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
        media.keys or [],
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
    return assemble(origin, address, unanchored(sdp))


def unanchored(sdp: SessionDescription) -> str:
    """As :func:`anchored` for media that we do not relay."""
    out = ["s=-"]
    for lines in (sdp.lines, *(media.lines for media in sdp.streams)):
        out += [line for line in lines if line[:2] not in ("v=", "o=") and not concerns_user(line)]
    out.append("")
    return "\r\n".join(out)


def keep_sections(sdp: SessionDescription, former: str) -> None:
    """Give an offer the m= lines that it lacks of ``former``, what its receiver was told before, as rejected ones: a
    description may never have fewer than the one before it (RFC 3264 §8)."""
    if former.count("\nm=") <= len(sdp.streams):
        return
    sections = [line for line in former.split("\r\n") if line.startswith("m=")]
    for line in sections[len(sdp.streams) :]:
        kind, _, rest = line.split(" ", 2)
        sdp.streams.append(MediaDescription(f"{kind} 0 {rest}"))


def assemble(origin: Origin, address: str, rest: str) -> bytes:
    """v= and o=, then ``rest``: everything from s= on, as :func:`anchored` returns it."""
    head = f"v=0\r\no={origin.user} {origin.session_id} {origin.version} {connection_data(address)}\r\n"
    return (head + rest).encode("utf-8", "surrogateescape")


def anchored(
    sdp: SessionDescription,
    endpoints: Sequence[Endpoint],
    address: str,
    session: Sequence[str] = (),
    ours: Sequence[Sequence[str]] | None = None,
) -> str:
    """All lines after o=: what must differ for the version of o= to rise.

    ``session`` and ``ours`` are further lines of ours, of the session and of each stream.
    """
    streams = sdp.streams
    if len(endpoints) != len(streams):
        raise EndpointMismatch(f"{len(endpoints)} endpoints for {len(streams)} streams")
    names = names_of(sdp)
    passing = without(sdp.passing, names)
    out = ["s=-", "c=" + connection_data(address), *passing]
    if not any(line.startswith("t=") for line in passing):
        out.insert(2, "t=0 0")  # RFC 8866 §5.9: mandatory; some phones forget it
    if session:
        out += session
    for index, (media, endpoint) in enumerate(zip(streams, endpoints, strict=True)):
        port = endpoint.port
        out.append(f"m={media.kind} {port} {endpoint.protocol or media.protocol} {' '.join(media.formats)}")
        if port:
            theirs = media.address or sdp.address
            if theirs in NULL_ADDRESSES:  # a hold must stay a hold for those who know no other
                out.append("c=" + connection_data("::" if ":" in address else "0.0.0.0"))
            elif endpoint.address != address:
                out.append("c=" + connection_data(endpoint.address))
        out += without(media.passing, names)
        if port:
            rtcp_port = endpoint.rtcp_port
            if rtcp_port == port:
                out.append("a=rtcp-mux")
            elif rtcp_port and (rtcp_port != port + 1 or media.rtcp_port):
                out.append(f"a=rtcp:{rtcp_port}")
            for key in endpoint.keys:
                out.append("a=crypto:" + key)
        if ours is not None:
            out += ours[index]
    out.append("")
    return "\r\n".join(out)


def without(lines: list[str], names: list[str]) -> list[str]:
    """The lines that hold none of ``names``: usually all of them."""
    text = "\n".join(lines)
    for name in names:
        if name in text:
            return [line for line in lines if not any(name in line for name in names)]
    return lines


def names_of(sdp: SessionDescription) -> list[str]:
    """Every address and host name that the description calls its own; bare labels and null addresses tell nothing."""
    found = {sdp.address, sdp.origin[5]}
    for media in sdp.streams:
        found.add(media.address)
    return [name for name in found if ("." in name or ":" in name) and name not in NULL_ADDRESSES]
