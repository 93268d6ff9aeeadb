"""What a standby must do to state that is a moment old before it goes on with it: no index of SRTP is used twice.

A packet index that the active node has used with a key must never be used again with other content (RFC 3711 §9.1), and
of those used since the last report the standby knows nothing. So it counts as used whatever may have been: the rate of
each source, as its indices told, times the time since. Packets of these indices are dropped, the next ones pass; their
numbers are the peer's own, so the far end sees nothing but a gap. What was received is a lesser matter: the window
begins anew at the last index known, and rollovers are guessed within 2^15 packets of it (RFC 3711 §3.3.1).

The time since is that of the connection, not of the session: a report covers every session that it does not name, so a
call on hold is as fresh after an hour as any other. Only where nothing at all was told for some minutes (the connection
was broken, of which HA readiness tells) are sessions with keys given up, their rollover being past guessing.

**A source that began since the last report** is not known at all, and its first packet here has the peer's number for
its index, in rollover 0. Is that index new? The peer counts up, so what it sent before has lower numbers; the same
number again is a packet that the network doubled: the same octets under the same index, which tell nobody anything. Two
cases remain. Where we number the packets ourselves (a processed leg: packets of other lengths, digits put in), what has
left may be ahead of what came: such a source begins behind all that it may have used. And one that had rolled over
already, having begun near 2^16, is thought to be in rollover 0 still. The far end then understands nothing, which
cannot be helped; but a rollover later the indices used before would come again, so these are left out. Both by
``Stream.unsure``; known sources and other calls are spared it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from media.replication.blocks import SENDING_HEAD
from media.rules import Feature, RuleFlag
from media.srtp import SOURCES, LegKeys, Source, Stream
from media.state import Arena

RATE_LEAST = 50.0  # packets a second: a source that is silent may have begun to speak
MARGIN = 1.1  # over the rate of late
MARGIN_PACKETS = 8
MARGIN_MOST = 0x4000  # the far end must still guess the rollover
RATE_MOST = 10_000.0  # what is beyond was a leap of the peer's numbers: no medium sends so many
RTCP_MARGIN = 1000  # of 2^31
LOOKS = 9  # reports of which the middle rate counts: neither leaps of a peer's numbers nor the bursts of a machine that
# stood still for a moment are rates, and each packet more that is left out is 20 ms of silence
PLAYED_RATE = 50.0  # packets of 20 ms
ALL_USED = 2**64 - 1
LOOK_LEAST_NS = 100_000_000  # over less than that a rate says nothing
NEW_RATE = 100.0  # packets of 10 ms, of a source that is not known
UNSURE_MOST = 2**15 - 1


class Takeover(NamedTuple):
    """``sessions`` that can be taken over; ``sources`` whose index jumped, by ``furthest`` at most; ``given_up``:
    sessions with keys of which too much may have been used since they were told of."""

    sessions: int
    sources: int
    furthest: int
    given_up: int


class _Known:
    """The last index of a source, when that was, and its rates of late."""

    __slots__ = ("latest", "rates", "since_ns")

    def __init__(self, latest: int, since_ns: int) -> None:
        self.latest = latest
        self.since_ns = since_ns
        self.rates: list[float] = []

    @property
    def rate(self) -> float:
        return sorted(self.rates)[(len(self.rates) - 1) // 2] if len(self.rates) > 1 else 0.0


class Indices:
    """How fast indices were used, by rule and source."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], _Known] = {}

    def note(self, index: int, block: int, octets: bytes, now_ns: int, covered_ns: int) -> None:
        """A block of keys was told of, for which nothing had changed until ``covered_ns``."""
        number = block - SENDING_HEAD - 1
        if not 0 <= number < SOURCES:
            return
        latest = Source.from_buffer_copy(octets).latest
        known = self._known.get((index, number))
        if known is None or latest < known.latest:  # another key
            self._known[index, number] = _Known(latest, now_ns)
        elif latest > known.latest:
            rate = (latest - known.latest) * 1e9 / max(now_ns - max(known.since_ns, covered_ns), LOOK_LEAST_NS)
            if rate <= RATE_MOST:
                known.rates = [*known.rates[1 - LOOKS :], rate]
            known.latest, known.since_ns = latest, now_ns

    def forget(self, index: int) -> None:
        """The rule is somebody else's."""
        for number in range(SOURCES):
            if self._known.pop((index, number), None) is None:
                break

    def jump(self, arena: Arena, rules: dict[int, list[int]], covered_ns: int, now_ns: int) -> Takeover:
        """Count as used what may have been, up to now; ``covered_ns``: all that was used until then is known."""
        age_s = max(0.0, (now_ns - covered_ns) / 1e9)
        sources = furthest = given_up = 0
        for slot, own in rules.items():
            arena.begin(slot)
            margins: list[int] = []
            for index in own:
                rule = arena.rules[index]
                if rule.features & Feature.PLAYING:
                    player = arena.players[index]
                    player.sequence = (player.sequence + packets(PLAYED_RATE, age_s)) & 0xFFFF
                if not rule.flags & RuleFlag.KEYED:
                    continue
                margins += self._jump_keys(index, arena.keys[index], age_s)
                _mind_unknown(arena.keys[index].sending, age_s, renumbered=bool(rule.features & Feature.PROCESSED))
            if max(margins, default=0) > MARGIN_MOST:
                given_up += 1
                continue  # half-written: nobody takes it over
            arena.end(slot)
            sources += len(margins)
            furthest = max(furthest, *margins) if margins else furthest
        return Takeover(len(rules) - given_up, sources, furthest, given_up)

    def _jump_keys(self, index: int, keys: LegKeys, age_s: float) -> list[int]:
        found = []
        sending = keys.sending
        for number in range(min(sending.sources, SOURCES)):
            source = sending.source[number]
            if not any(source.window):
                continue  # RTCP alone
            known = self._known.get((index, number))
            margin = packets(max(RATE_LEAST, known.rate if known is not None else 0.0), age_s)
            source.latest += margin
            source.window[:] = [ALL_USED] * 2
            found.append(margin)
        if sending.suite:
            sending.rtcp_index = min(sending.rtcp_index + RTCP_MARGIN, 2**31 - 1)
        return found


def _mind_unknown(sending: Stream, age_s: float, *, renumbered: bool) -> None:
    """Sources that began since the last report."""
    sending.unsure = max(sending.unsure, min(packets(NEW_RATE, age_s), UNSURE_MOST))
    sending.renumbered = renumbered


def packets(rate: float, age_s: float) -> int:
    """How many may have been sent in that time."""
    return math.ceil(rate * MARGIN * age_s) + MARGIN_PACKETS
