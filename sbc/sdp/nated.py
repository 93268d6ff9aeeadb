"""A description repaired for a sender behind NAT: the addresses in it become the one that it was seen at.

The numbers of the flags are those of the ``fix_nated_sdp`` that operators of SIP proxies know. Lines that are not about
addresses stay octet for octet, with their own line ends. Where the media plane relays, it learns addresses from packets
and needs none of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntFlag
from typing import Final, NamedTuple

from sbc.errors import SipSyntaxError
from sbc.masks import mask_of
from sbc.sdp.address import NULL_ADDRESSES, connection_data, ip_literal
from sbc.sip.multipart import is_multipart, parts_of, replaced


class SdpFix(IntFlag):
    """What is to be done to a description."""

    ACTIVE = 1  # a=direction:active
    CONNECTION = 2  # every c= line has the address
    MARKER = 4  # a=nortpproxy:yes, which keeps other relays from doing it again
    ORIGIN = 8  # the o= line has the address
    NULL = 16  # 2 and 8 also replace 0.0.0.0 and ::, which otherwise stay a hold


FIX_NAMES: Final = {
    "active": SdpFix.ACTIVE,
    "add-dir-active": SdpFix.ACTIVE,
    "media-ip": SdpFix.CONNECTION,
    "rewrite-media-ip": SdpFix.CONNECTION,
    "marker": SdpFix.MARKER,
    "add-no-rtpproxy": SdpFix.MARKER,
    "origin-ip": SdpFix.ORIGIN,
    "rewrite-origin-ip": SdpFix.ORIGIN,
    "null-ip": SdpFix.NULL,
    "rewrite-null-ips": SdpFix.NULL,
}
_ACTIVE: Final = b"a=direction:active"
_MARKER: Final = b"a=nortpproxy:yes"


def fix_flags(given: Iterable[str | int]) -> SdpFix:
    """The repairs that these name. Raises ValueError (:func:`sbc.masks.mask_of`)."""
    return mask_of(given, FIX_NAMES, SdpFix, ("repair of a description", "repairs of a description"))


def fix_nated_sdp(
    described: bytes, flags: int, address: str, *, extra: Sequence[str] = (), keep_old: bool = True
) -> bytes:
    """``described`` with these repairs; ``address`` is an IP literal, ``extra`` are lines for its end, as they are.

    What an address was stays as a=oldcip or a=oldoip at the end of its section, unless ``keep_old`` is False. A
    multicast address stays what it is. A description that uses ICE (RFC 8839) is left alone: its candidates say where
    its sender is. To do it twice changes nothing more. Raises ValueError for an address that is none, and for an
    ``extra`` that is no line.
    """
    literal = ip_literal(address)
    if not literal:
        raise ValueError(f"{address!r} is no IP address")
    check_lines(extra)
    if not described or uses_ice(described):
        return described
    *lines, last = [line + b"\n" for line in described.split(b"\n")]
    end = b"\n" if lines and not lines[0].endswith(b"\r\n") else b"\r\n"
    if last != b"\n":
        lines.append(last[:-1].rstrip(b"\r") + end)
    present = {line.rstrip(b"\r\n") for line in lines}
    out: list[bytes] = []
    olds: list[bytes] = []  # of the section that is being read
    in_session = True

    def close_section() -> None:
        nonlocal in_session
        if in_session:
            in_session = False
            wanted = ((SdpFix.ACTIVE, _ACTIVE), (SdpFix.MARKER, _MARKER))
            olds.extend(mark for flag, mark in wanted if flags & flag and mark not in present)
        out.extend(old + end for old in olds)
        olds.clear()

    for line in lines:
        kind = line[:2]
        if kind == b"m=":
            close_section()
        if kind == b"c=" and flags & SdpFix.CONNECTION:
            line = _replaced(line, 3, literal, flags, olds if keep_old else None, b"a=oldcip:")
        elif kind == b"o=" and flags & SdpFix.ORIGIN:
            line = _replaced(line, 6, literal, flags, olds if keep_old else None, b"a=oldoip:")
        out.append(line)
    close_section()
    for text in extra:
        octets = text.encode("utf-8", "surrogateescape")
        if octets not in present:
            out.append(octets + end)
    return b"".join(out)


def check_lines(extra: Iterable[str]) -> None:
    """Raises ValueError for what is no line of a description."""
    for line in extra:
        if len(line) < 2 or line[1] != "=" or any(char in line for char in "\r\n\0"):
            raise ValueError(f"{line!r} is no line of a description, for example a=sendrecv")


def _replaced(line: bytes, words: int, address: str, flags: int, olds: list[bytes] | None, name: bytes) -> bytes:
    """A c= or o= line of so many words with the address in the place of the last."""
    content = line.rstrip(b"\r\n")
    found = content[2:].split()
    if len(found) != words:
        return line
    host, suffix, _ = found[-1].partition(b"/")
    old = host.decode("utf-8", "surrogateescape")
    literal = ip_literal(old)
    if suffix or literal == address or (literal in NULL_ADDRESSES and not flags & SdpFix.NULL):
        return line
    if olds is not None:
        olds.append(name + host)
    return line[:2] + b" ".join([*found[:-3], connection_data(address).encode()]) + line[len(content) :]


class Repair(NamedTuple):
    """A repair for all descriptions of one side. ``address`` '' is where that side is seen."""

    flags: int
    address: str = ""
    extra: tuple[str, ...] = ()
    keep_old: bool = True

    def of(self, described: bytes, seen_at: str) -> bytes:
        """``described`` repaired; see :func:`fix_nated_sdp`."""
        return fix_nated_sdp(described, self.flags, self.address or seen_at, extra=self.extra, keep_old=self.keep_old)


def uses_ice(described: bytes) -> bool:
    """Whether a description has candidates or credentials of ICE."""
    return b"\na=candidate:" in described or b"\na=ice-ufrag:" in described


def fix_body(
    content_type: str, body: bytes, flags: int, address: str, *, extra: Sequence[str] = (), keep_old: bool = True
) -> bytes:
    """A message body with its description repaired, also where that is one part among others; all else stays octet for
    octet. A body without a description is returned as it is. Raises ValueError as :func:`fix_nated_sdp`."""
    if content_type.partition(";")[0].strip().lower() == "application/sdp":
        return fix_nated_sdp(body, flags, address, extra=extra, keep_old=keep_old)
    if not is_multipart(content_type):
        return body
    try:
        part = next((part for part in parts_of(content_type, body) if part.type == "application/sdp"), None)
    except SipSyntaxError:
        return body
    if part is None:
        return body
    fixed = fix_nated_sdp(body[part.start : part.end], flags, address, extra=extra, keep_old=keep_old)
    return replaced(body, part, fixed)
