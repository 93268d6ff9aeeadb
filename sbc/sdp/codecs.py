"""Which codecs of an offer go on, and in which order.

A codec is named as in a=rtpmap (RFC 8866 §6.6), without regard to case: ``PCMA``, ``opus``, ``G722``; with a clock rate
where one name has several: ``L16/44100``. What only accompanies a codec stays unless it is named to be stripped:
telephone-event (RFC 4733) and CN (RFC 3389); of several, those that have the clock of a codec that stays.
Retransmissions (``apt``, RFC 4588) go with the codec that they are of.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sbc.sdp.description import MediaDescription, SessionDescription

COMPANIONS: Final = frozenset({"telephone-event", "cn"})
# RFC 3551 tables 4 and 5, for payload types that come without a=rtpmap
_STATIC: Final[dict[str, str]] = {
    **{"0": "pcmu/8000", "3": "gsm/8000", "4": "g723/8000", "5": "dvi4/8000", "6": "dvi4/16000", "7": "lpc/8000"},
    **{"8": "pcma/8000", "9": "g722/8000", "10": "l16/44100", "11": "l16/44100", "12": "qcelp/8000", "13": "cn/8000"},
    **{"14": "mpa/90000", "15": "g728/8000", "16": "dvi4/11025", "17": "dvi4/22050", "18": "g729/8000"},
    **{"25": "celb/90000", "26": "jpeg/90000", "28": "nv/90000", "31": "h261/90000", "32": "mpv/90000"},
    **{"33": "mp2t/90000", "34": "h263/90000"},
}
_OF_FORMAT: Final = ("a=rtpmap:", "a=fmtp:", "a=rtcp-fb:")


class CodecFilter(NamedTuple):
    """Names in lower case. ``allow`` empty: all; ``strip`` wins over it; ``order`` comes first, the others follow as
    they were."""

    allow: frozenset[str] = frozenset()
    strip: frozenset[str] = frozenset()
    order: tuple[str, ...] = ()

    def apply(self, sdp: SessionDescription) -> bool:
        """Change the RTP streams of a parsed description in place; one that is left without a codec is rejected (port
        0), with its formats as they were. False when no stream is left of those that were."""
        alive = [media for media in sdp.streams if media.port]
        for media in alive:
            if media.is_rtp:
                self._apply(media)
        return not alive or any(media.port for media in alive)

    def _apply(self, media: MediaDescription) -> None:
        names, partners = _named(media)
        kept = [number for number in media.formats if self._passes(names[number])]
        kept = [number for number in kept if partners.get(number, number) in kept]
        if all(_base(names[number]) in COMPANIONS or number in partners for number in kept):
            media.port = 0
            return
        if len(kept) < len(media.formats):
            kept = _with_a_codec(kept, names)
        if self.order:
            kept.sort(key=lambda number: self._rank(names[number]))
        if kept == media.formats:
            return
        gone = set(media.formats).difference(kept)
        media.formats = kept
        media.clock_rate_hz = int(names[kept[0]].split("/")[1] or 8000)
        if gone:
            media.passing = [line for line in media.passing if _format_of(line) not in gone]

    def _passes(self, name: str) -> bool:
        base = _base(name)
        if base in self.strip or name in self.strip:
            return False
        return not self.allow or base in self.allow or name in self.allow or base in COMPANIONS or base == "rtx"

    def _rank(self, name: str) -> int:
        order = self.order
        base = _base(name)
        if name in order:
            return order.index(name)
        return order.index(base) if base in order else len(order) + (base in COMPANIONS)


def _with_a_codec(kept: list[str], names: dict[str, str]) -> list[str]:
    """Browsers offer a companion for each clock: of those, the ones that still have a codec of theirs."""
    clocks = {_clock(names[number]) for number in kept if _base(names[number]) not in COMPANIONS}
    served = {_base(names[number]) for number in kept if _clock(names[number]) in clocks}
    return [number for number in kept if _base(names[number]) not in served or _clock(names[number]) in clocks]


def _clock(name: str) -> str:
    return name.partition("/")[2]


def _base(name: str) -> str:
    return name.partition("/")[0]


def _format_of(line: str) -> str:
    """The payload type that an attribute is about, '' where it is about none."""
    return line.partition(":")[2].partition(" ")[0] if line.startswith(_OF_FORMAT) else ""


def named(media: MediaDescription) -> dict[str, str]:
    """Of each payload type of an RTP stream the codec as it is written: ``PCMA/8000``, ``opus/48000/2``; '' where
    nobody says."""
    names = {number: _STATIC.get(number, "").upper() for number in media.formats}
    for line in media.lines:
        if line.startswith("a=rtpmap:"):
            number, _, encoding = line[len("a=rtpmap:") :].partition(" ")
            if number in names:
                names[number] = encoding.strip()
    return names


def _named(media: MediaDescription) -> tuple[dict[str, str], dict[str, str]]:
    """Of each payload type name/clock in lower case ('' and no clock where nobody says), and what retransmissions are
    of."""
    names = {number: _STATIC.get(number, "/") for number in media.formats}
    partners: dict[str, str] = {}
    for line in media.lines:
        number = _format_of(line)
        if number not in names:
            continue
        value = line.partition(" ")[2].strip().lower()
        if line.startswith("a=rtpmap:"):
            name, _, rest = value.partition("/")
            clock = rest.partition("/")[0]
            names[number] = f"{name}/{clock if clock.isascii() and clock.isdigit() and len(clock) <= 6 else ''}"
        elif line.startswith("a=fmtp:"):
            for parameter in value.split(";"):
                key, _, of = parameter.strip().partition("=")
                if key == "apt":
                    partners[number] = of.strip()
    return names, partners
