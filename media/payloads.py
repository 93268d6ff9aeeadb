"""Payload types as ``protocol.Stream.formats`` writes them, as far as announcements and recordings know codecs."""

from __future__ import annotations

from collections.abc import Sequence

from media.player import Law

# RFC 3551 table 4
_STATIC = {0: Law.U, 8: Law.A}
_NAMES = {"PCMU/8000": Law.U, "PCMA/8000": Law.A}


def law_of(text: str) -> tuple[int, Law] | None:
    """Payload type and law of one format; None where it is no G.711."""
    number, _, rest = text.partition(" ")
    if not number.isdecimal() or int(number) > 127:
        return None
    name = rest.split(" ", 1)[0].upper().removesuffix("/1")
    law = _NAMES.get(name) if name else _STATIC.get(int(number))
    return None if law is None else (int(number), law)


def first_of(formats: Sequence[str]) -> tuple[int, Law] | None:
    """The first that we can encode to; where nothing is known, PCMA under its static number."""
    if not formats:
        return 8, Law.A
    return next(filter(None, map(law_of, formats)), None)
