"""Offer and answer where one side is to get more, or something else, than the other side said: codecs that are
transcoded, and digits as RFC 4733 or as INFO.

``offer`` changes what one side offers into what the other is offered: its payload types under the numbers that this
side knows them by (RFC 3264 §8.3.2), codecs that we can make of those, telephone-event. ``answer`` turns the answer
back: the offerer is answered with what it offered, in the order of the answerer; where nothing is common, with the
first codec that we can make. A payload type that both have passes, so two sides with a codec in common need us for
nothing. What comes of it for the packets are the ways (``media.protocol.Way``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from media.protocol import Conversion, Processing, Way
from sbc.sdp.description import MediaDescription, SessionDescription

Digits = Literal["pass", "rfc4733", "info"]


class Wish(NamedTuple):
    """What one side wants: codecs that it is offered besides those of the other side, by name; how it takes digits."""

    transcode: tuple[str, ...] = ()
    digits: Digits = "pass"


NOTHING: Final = Wish()
EVENT: Final = "telephone-event"


class _Made(NamedTuple):
    """A codec that we can make of another one, as it is offered."""

    name: str
    encoding: str  # of a=rtpmap
    number: int  # -1: a dynamic one
    parameters: str = ""


_MADE: Final = {
    "pcmu": _Made("PCMU", "PCMU/8000", 0),
    "pcma": _Made("PCMA", "PCMA/8000", 8),
    "g722": _Made("G722", "G722/8000", 9),  # RFC 3551 §4.5.2: of 16 kHz, whatever this says
    "opus": _Made("opus", "opus/48000/2", -1, "useinbandfec=0;stereo=0"),  # RFC 7587 §7
}
_STATIC: Final = {0: "PCMU/8000", 3: "GSM/8000", 4: "G723/8000", 8: "PCMA/8000", 9: "G722/8000", 13: "CN/8000"} | {
    15: "G728/8000",
    18: "G729/8000",
}
_COMPANIONS: Final = frozenset({EVENT, "cn"})
_OF_FORMAT: Final = ("a=rtpmap:", "a=fmtp:", "a=rtcp-fb:")
_USUAL_EVENT: Final = 101


class Format(NamedTuple):
    """One payload type of an m= section. ``key`` is what makes two of them the same codec."""

    number: int
    encoding: str
    parameters: str

    @property
    def key(self) -> tuple[str, str]:
        name, _, rest = self.encoding.lower().partition("/")
        return name, rest.removesuffix("/1")

    @property
    def name(self) -> str:
        return self.key[0]

    @property
    def clock_hz(self) -> int:
        clock = self.key[1].partition("/")[0]
        return int(clock) if clock.isascii() and clock.isdigit() and 0 < len(clock) <= 6 and int(clock) else 8000

    @property
    def is_codec(self) -> bool:
        return self.name not in _COMPANIONS and bool(self.name)


def formats_of(media: MediaDescription) -> list[Format]:
    """In the order of the m= line."""
    encodings: dict[str, str] = {}
    parameters: dict[str, str] = {}
    for line in media.lines:
        kind, _, value = line.partition(":")
        number, _, text = value.partition(" ")
        if kind == "a=rtpmap":
            encodings.setdefault(number, text.strip())
        elif kind == "a=fmtp":
            parameters.setdefault(number, text.strip())
    return [
        Format(int(number), encodings.get(number) or _STATIC.get(int(number), ""), parameters.get(number, ""))
        for number in dict.fromkeys(media.formats)
    ]


def _is_ours(media: MediaDescription) -> bool:
    return media.is_rtp and media.kind == "audio" and media.port != 0


def _makes(codec: Format, other: Format) -> bool:
    """Whether we can make one of the other."""
    return codec.name in _MADE and other.name in _MADE


def _same(one: Format, among: Sequence[Format]) -> Format | None:
    """The same codec under whatever number: with the same parameters if there are several."""
    alike = [other for other in among if other.key == one.key and other.name]
    for other in alike:
        if other.number == one.number or other.parameters == one.parameters:
            return other
    return alike[0] if alike else next((other for other in among if not one.name and other == one), None)


def _write(media: MediaDescription, formats: Sequence[Format], renumbered: dict[int, int]) -> None:
    """Make these the payload types of a section; ``renumbered`` are those that it has, by their new number."""
    former = {new: old for old, new in renumbered.items()}
    lines: dict[int, list[str]] = {old: [] for old in renumbered}
    rest = []
    at = 0
    for line in media.passing:
        if not line.startswith(_OF_FORMAT):
            rest.append(line)
            continue
        at = at or len(rest)
        kind, _, value = line.partition(":")
        number, _, text = value.partition(" ")
        if number.isascii() and number.isdigit() and int(number) in lines:
            lines[int(number)].append(f"{kind}:{renumbered[int(number)]} {text}")
        elif number == "*":
            rest.append(line)
    new: list[str] = []
    for one in formats:
        if one.number in former:
            new += lines[former[one.number]]
            continue
        new.append(f"a=rtpmap:{one.number} {one.encoding}")
        if one.parameters:
            new.append(f"a=fmtp:{one.number} {one.parameters}")
    media.formats = [str(one.number) for one in formats]
    media.passing = [*rest[:at], *new, *rest[at:]]


def offer(sdp: SessionDescription, wish: Wish, offerer: Wish, former: Sequence[SessionDescription]) -> None:
    """Change an offer into the one for a side with this wish; ``former`` are the last descriptions that this side was
    shown and sent, whose payload types keep their numbers, and whose codecs it is offered again where we make them."""
    for at, media in enumerate(sdp.streams):
        if _is_ours(media):
            known = [one for before in former if at < len(before.streams) for one in formats_of(before.streams[at])]
            codecs = list(wish.transcode)
            if codecs or offerer.transcode:
                codecs += [one.name for one in known if one.name in _MADE and one.name not in codecs]
            digits = wish.digits == "rfc4733" or (wish.digits == "pass" and offerer.digits == "info")
            _offer(media, Wish(tuple(codecs), "rfc4733" if digits else wish.digits), known)


def _offer(media: MediaDescription, wish: Wish, known: list[Format]) -> None:
    offered = formats_of(media)
    taken = {one.number for one in known}

    def number_of(one: Format, wanted: int) -> int:
        before = _same(one, known)
        if before is not None and before.number not in used:
            return before.number
        free = [wanted, *range(96, 128), *range(35, 64)]  # RFC 3551 §6: dynamic, then unassigned
        blocked = used | taken if before is None else used
        return next((number for number in free if number >= 0 and number not in blocked), -1)

    used: set[int] = set()
    shown: list[Format] = []
    renumbered: dict[int, int] = {}
    for one in offered:
        if one.name == EVENT and wish.digits == "info":
            continue
        number = number_of(one, one.number)
        if number < 0:
            continue
        used.add(number)
        renumbered[one.number] = number
        shown.append(one._replace(number=number))
    reserved = {one.number for one in offered}  # an answer under the offerer's own numbers is understood, too
    used |= reserved
    behind = max((at + 1 for at, one in enumerate(shown) if one.is_codec), default=0)  # companions come last
    for name in wish.transcode:
        made = _MADE[name]
        present = [one.name for one in shown]
        if name in present or not any(one in _MADE for one in present):
            continue
        added = Format(made.number, made.encoding, made.parameters)
        if (number := number_of(added, made.number)) >= 0:
            used.add(number)
            shown.insert(behind, added._replace(number=number))
            behind += 1
    if wish.digits == "rfc4733" and not any(one.name == EVENT for one in shown):
        added = Format(_USUAL_EVENT, f"{EVENT}/8000", "0-16")
        if (number := number_of(added, _USUAL_EVENT)) >= 0:
            shown.append(added._replace(number=number))
    if [str(one.number) for one in shown] != media.formats or any(old != new for old, new in renumbered.items()):
        _write(media, shown, renumbered)


def answer(
    sdp: SessionDescription, shown: SessionDescription, offered: SessionDescription, wish: Wish, offerer: Wish
) -> list[Processing]:
    """Change an answer into the one for the offerer. ``shown`` is the offer as the answerer got it, whose wish is
    ``wish``; ``offered`` as the offerer made it. Returns what is to be done with the packets of each stream."""
    found = []
    for at, media in enumerate(sdp.streams):
        if _is_ours(media) and at < len(shown.streams) and at < len(offered.streams):
            ways = _answer(media, shown.streams[at], offered.streams[at], wish, offerer)
            found.append(ways or Processing())
        else:
            found.append(Processing())
    return found if any(one != Processing() for one in found) else []


def _answer(
    media: MediaDescription, shown: MediaDescription, offered: MediaDescription, wish: Wish, offerer: Wish
) -> Processing | None:
    accepted, theirs = formats_of(media), formats_of(offered)  # as the answerer and as the offerer takes them
    given = formats_of(shown)  # as the answerer may send them
    renumbered: dict[int, int] = {}
    kept: list[Format] = []
    for one in accepted:
        same = _same(one, theirs)
        if same is None or (one.name == EVENT and offerer.digits == "info") or same in kept:
            continue
        renumbered[one.number] = same.number
        kept.append(same)
    if not any(one.is_codec for one in kept):
        made = next(
            (one for one in theirs if one.is_codec and any(_makes(one, other) for other in accepted)),
            None,
        )
        if made is None:
            return None
        kept.insert(0, made._replace(parameters=_MADE[made.name].parameters))
    if wish.digits == "info" and offerer.digits != "info" and not any(one.name == EVENT for one in kept):
        kept += [one for one in theirs if one.name == EVENT][:1]
    told = offerer.digits != "pass" or wish.digits != "pass"
    to_answerer = _way(kept, accepted, _packet_ms(media), told and wish.digits)
    to_offerer = _way(_sent(accepted, given), kept, _packet_ms(offered), told and offerer.digits)
    if renumbered != {one.number: one.number for one in accepted} or len(kept) != len(accepted):
        _write(media, kept, renumbered)
        media.clock_rate_hz = kept[0].clock_hz
    if not told and _is_idle(to_answerer) and _is_idle(to_offerer):
        return None
    return Processing(to_answerer, to_offerer)


def _sent(accepted: Sequence[Format], given: Sequence[Format]) -> list[Format]:
    """Under which numbers the answerer sends what it accepted: those of the offer (RFC 3264 §5.1)."""
    return [_same(one, given) or one for one in accepted]


def _way(coming: Sequence[Format], leaving: Sequence[Format], packet_ms: int, digits: Digits | bool) -> Way:
    """From what one side sends to what the other side takes. ``digits`` False: nobody has asked for them."""
    conversions = []
    encoded = False
    event = next((one for one in leaving if one.name == EVENT), None)
    for one in coming[:16]:
        same = _same(one, leaving)
        if one.name == EVENT and same is None:
            same = event
        if one.name == EVENT and digits == "info":
            same = None
        made = None
        if same is None and one.is_codec:
            made = next((other for other in leaving if _makes(one, other)), None)
        to = same or made
        conversion = Conversion(one.number, -1 if to is None else to.number, clock_hz=one.clock_hz)
        if one.name == EVENT or one.name in _MADE:
            conversion.codec = EVENT if one.name == EVENT else _MADE[one.name].name
        if to is not None and to.clock_hz != one.clock_hz:
            conversion.to_clock_hz = to.clock_hz
        if made is not None:
            conversion.to_codec = _MADE[made.name].name
            encoded = True
        conversions.append(conversion)
    way = Way(conversions, packet_ms=packet_ms if encoded else 0, tell=digits is not False)
    if event is not None and digits != "info":
        way.digits, way.digits_clock_hz = event.number, event.clock_hz
    return way


def _is_idle(way: Way) -> bool:
    """Whether every packet would leave as it came."""
    return all(one.number == one.to and not one.to_codec for one in way.formats)


def _packet_ms(media: MediaDescription) -> int:
    """The packet time that a side asks for, where it is one that we make; 0: it does not say."""
    wanted, most = 0.0, 60.0
    for line in media.lines:
        if line.startswith("a=ptime:"):
            wanted = _ms(line[8:])
        elif line.startswith("a=maxptime:"):
            most = _ms(line[11:]) or most
    wanted = min(wanted or (20 if most < 60 else 0), most)
    return int(wanted) // 10 * 10 if 10 <= wanted <= 60 else 0


def _ms(text: str) -> float:
    whole = text.partition(".")[0].strip()
    return float(whole) if whole.isascii() and whole.isdigit() and len(whole) <= 4 else 0.0
