"""From what an answer asks of payloads to the memory beside a rule (``media.processing``), and digits on their way."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from importlib import import_module
from random import Random
from typing import Protocol

from media import _datapath
from media.endpoint import Unusable
from media.processing import CODECS, DIGITS, EVENTS, FLASH, NOWHERE, PROCESS_BYTES, Codec, Format
from media.protocol import OPTIONAL_CODECS, Conversion, Dtmf, Processing, Way
from media.rules import AT_FEATURES, RULE_BYTES, Feature, RuleFlag
from media.session import NO_STREAM, Session
from media.state import Arena

HEARD_OPEN = 1
NO_PROCESSING = Processing()
_PROCESSED = int(Feature.PROCESSED)  # to combine members of an IntFlag costs a microsecond, in each call several times


class Attendant(Protocol):
    """What minds the time for a rule: media._datapath.Datapath, or a fake."""

    def attend(self, index: int) -> bool: ...

    def forget(self, index: int) -> None: ...


def load_codecs() -> list[str]:
    """Make the optional codecs that are built known to the datapath; their names."""
    found = []
    for name, (module, _) in OPTIONAL_CODECS.items():
        try:
            functions = import_module(module).FUNCTIONS
        except ImportError:
            continue
        _datapath.register(CODECS[name.lower()], functions)
        found.append(name)
    return found


def check(processing: Sequence[Processing], streams: int) -> None:
    """Raises Unusable for what does not fit the streams, and for codecs that are not built here."""
    if processing and len(processing) != streams:
        raise Unusable("malformed", f"{len(processing)} streams are to be processed of {streams}")
    for one in processing:
        for way in filter(None, (one.to_answerer, one.to_offerer)):
            for conversion in way.formats:
                _check(conversion)


def _check(conversion: Conversion) -> None:
    codec, to_codec = conversion.codec, conversion.to_codec or conversion.codec
    if conversion.to < 0 or codec.lower() == to_codec.lower():
        return
    for name in (codec, to_codec):
        known = CODECS.get(name.lower())
        if known is None:
            raise Unusable("unsupported", f"{name or 'a codec without a name'} cannot be transcoded")
        if not _datapath.codec_built(known):
            package = next(package for other, (_, package) in OPTIONAL_CODECS.items() if other.lower() == name.lower())
            raise Unusable("unsupported", f"{name} is not built here: it takes the Debian package {package}")


def answered(
    arena: Arena, random: Random, processing: Sequence[Processing], stream: int, answerer: int, offerer: int
) -> None:
    """What an answer says of one stream is in force, for the rules of both legs."""
    if not processing and not (_is_on(arena, answerer) or _is_on(arena, offerer)):
        return
    asked = processing[stream] if processing else NO_PROCESSING
    apply(arena, random, answerer, asked.to_answerer)
    apply(arena, random, offerer, asked.to_offerer)


def _is_on(arena: Arena, index: int) -> int:
    return arena.octets[index * RULE_BYTES + AT_FEATURES] & _PROCESSED


def apply(arena: Arena, random: Random, index: int, way: Way | None) -> None:
    """What is done from now on with payloads on the way to the leg of a rule. Once that was anything, the numbers of
    the stream go on as they were changed, also when nothing else is changed any more."""
    rule = arena.rules[index]
    active = rule.features & Feature.PROCESSED
    if rule.flags & RuleFlag.SECURE or (way is None and not active):  # only the ends can read it
        return
    p = arena.processes[index]
    if not active:
        ctypes.memset(ctypes.byref(p), 0, PROCESS_BYTES)
        p.ssrc, p.ts_out, p.last_out = random.getrandbits(32), random.getrandbits(32), random.getrandbits(15)
    way = way or Way()
    former = bytes(p.formats), p.packet_ms
    for at, conversion in enumerate(way.formats):
        p.formats[at] = _format(conversion)
    p.count = len(way.formats)
    p.event_number = way.digits if way.digits >= 0 else NOWHERE
    p.event_clock_hz = way.digits_clock_hz
    p.packet_ms, p.tell = way.packet_ms, way.tell
    if way.digits < 0:
        p.digit_count = 0
    if (bytes(p.formats), p.packet_ms) != former:
        p.generation = (p.generation + 1) & 0xFFFFFFFF
    rule.features |= Feature.PROCESSED


def _format(conversion: Conversion) -> Format:
    name, to_name = conversion.codec.lower(), (conversion.to_codec or conversion.codec).lower()
    codec = Codec.EVENT if name == "telephone-event" else CODECS.get(name, Codec.OTHER)
    to_codec = codec if to_name == name else CODECS.get(to_name, Codec.OTHER)
    to = conversion.to if conversion.to >= 0 else NOWHERE
    return Format(
        conversion.number, to, codec, to_codec, conversion.clock_hz, conversion.to_clock_hz or conversion.clock_hz
    )


def forget(arena: Arena, attendant: Attendant, index: int) -> None:
    """The rule is given back."""
    if _is_on(arena, index):
        attendant.forget(index)
        arena.rules[index].features &= ~Feature.PROCESSED


def move(arena: Arena, attendant: Attendant, source: int, index: int) -> None:
    """What is done on the way to the leg of rule ``source`` is from now on done for rule ``index``, and no more."""
    forget(arena, attendant, index)
    if arena.rules[source].features & Feature.PROCESSED:
        forget(arena, attendant, source)
        ctypes.memmove(ctypes.byref(arena.processes[index]), ctypes.byref(arena.processes[source]), PROCESS_BYTES)
        arena.rules[index].features |= Feature.PROCESSED


def resume(arena: Arena, attendant: Attendant, index: int) -> None:
    """A predecessor minded the time for this rule: so do we, where there is anything to mind."""
    if arena.rules[index].features & Feature.PROCESSED:
        p = arena.processes[index]
        p.active = 0
        if p.digit_count or p.heard == HEARD_OPEN:
            attendant.attend(index)


def send(arena: Arena, attendant: Attendant, session: Session, request: Dtmf, now_ns: int) -> None:
    """Begin to send digits to a leg, or add them to those that wait. Raises Unusable."""
    leg = session.legs.get(request.leg)
    if leg is None:
        raise Unusable("unknown_leg", f"no leg {request.leg!r}")
    for index in leg.rules:
        if index == NO_STREAM or not arena.rules[index].features & Feature.PROCESSED:
            continue
        p = arena.processes[index]
        if p.event_number == NOWHERE:
            continue
        waiting = p.digit_count
        if waiting + len(request.digits) > DIGITS:
            raise Unusable("unsupported", f"{waiting} digits wait to be sent; {DIGITS} may")
        if not attendant.attend(index):
            raise Unusable("unsupported", "digits are sent to as many legs as we can at a time")
        p.digits[waiting : waiting + len(request.digits)] = [EVENTS.index(digit) for digit in request.digits]
        if not waiting:
            ticks = max(1, 0xFFFF * 1000 // p.event_clock_hz)  # what the field of a duration holds
            p.duration_ms, p.pause_ms = min(request.duration_ms, ticks) // 20 * 20, request.pause_ms
            p.next_ns = now_ns
        p.digit_count = waiting + len(request.digits)
        return
    raise Unusable("unsupported", f"leg {leg.name!r} takes no telephone-event")


def told(
    arena: Arena, by_slot: dict[int, Session], heard: Sequence[tuple[int, int, int]]
) -> Iterator[tuple[Session, dict[str, object]]]:
    """What the owners of sessions are told of digits that were heard."""
    for index, event, duration_ms in heard:
        session = by_slot.get(arena.rules[index].slot)
        leg = next((leg for leg in session.legs.values() if index in leg.rules), None) if session else None
        if session is not None and leg is not None:
            digit = "flash" if event == FLASH else EVENTS[event]
            yield (
                session,
                {"event": "dtmf", "session": session.id, "leg": leg.name, "digit": digit, "duration_ms": duration_ms},
            )
