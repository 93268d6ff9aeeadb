"""The payload types of a stream as the media plane is told them (``media.protocol.Stream.formats``)."""

from __future__ import annotations

from sbc.sdp.description import MediaDescription


def formats_of(media: MediaDescription) -> list[str]:
    """In the order of the m= line: the number alone for one without a=rtpmap, else number, encoding and fmtp."""
    encodings: dict[str, str] = {}
    parameters: dict[str, str] = {}
    for line in media.lines:
        if line.startswith("a=rtpmap:"):
            number, _, value = line[9:].partition(" ")
            encodings.setdefault(number, value.strip())
        elif line.startswith("a=fmtp:"):
            number, _, value = line[7:].partition(" ")
            parameters.setdefault(number, value.strip())
    found = []
    for number in media.formats:
        parts = [number, encodings.get(number, "")]
        if parts[1] and parameters.get(number):
            parts.append(parameters[number])
        found.append(" ".join(part for part in parts if part))
    return found


def is_g711(text: str) -> bool:
    """Whether this is PCMA or PCMU, which can always be encoded to."""
    number, _, rest = text.partition(" ")
    encoding = rest.partition(" ")[0].upper().removesuffix("/1")
    return encoding in ("PCMA/8000", "PCMU/8000") if encoding else number in ("0", "8")
