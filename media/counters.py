"""Names of the words in a media worker's counters page: an array of u64 in shared memory, one writer, many readers.

Words 0 to 5 are the header that every process shares (magic, pid, heartbeat in monotonic ns, start in wall ns, kind,
1 once it serves); counters begin at word 16. Each drop reason and each refusal has a word of its own. The compiled
datapath adds to the words below 64 by number (``ext/c/rule.h``), Python to the others.
"""

from __future__ import annotations

from enum import IntEnum

from media.protocol import REFUSALS

WORD_MAGIC, WORD_PID, WORD_HEARTBEAT_NS, WORD_START_NS, WORD_KIND, WORD_READY = range(6)
DROP_BASE = 32
REFUSED_BASE = 96


class Reason(IntEnum):
    """Why the datapath did not forward a packet; ``enum reason`` of ``ext/c/rule.h``."""

    FORWARD = 0
    SHORT = 1  # shorter than its own header says
    BAD_VERSION = 2  # not RTP or RTCP version 2
    BAD_RTCP = 3  # an RTCP part that does not fit, or RTP on an RTCP port
    WRONG_SOURCE = 4  # not the address that this leg was latched to or may come from
    UNLATCHED_LIMIT = 5  # a leg behind NAT that has used up what it may send before its latch
    NO_PEER = 6  # no answer yet, or the stream has no other side
    NO_REMOTE = 7  # the other side has told no address (yet)
    TOO_LONG = 8  # longer than our buffer
    SEND_FAILED = 9  # the kernel refused it
    UNUSED_PORT = 10  # a bound port that is no call's: idle, or waiting out its quarantine
    NO_KEY = 11  # a leg with SRTP whose key is not known (yet)
    AUTH_FAILED = 12  # not protected with the key of its leg
    REPLAYED = 13  # an SRTP packet that came before, or too late to know
    INDEX_USED = 14  # would have to be sent under an index that was used, or too far behind to know
    SOURCES_FULL = 15  # more SSRCs under one key than we keep indices for
    KEY_SPENT = 16  # every index of the key is used up (RFC 3711 §9.2)
    BAD_STUN = 17  # STUN that breaks its format, or is no check: we ask nothing that could be answered
    STUN_UNPROVEN = 18  # a check whose sender knows no credentials of ours, beyond those that are told so
    STUN_LIMIT = 19  # more checks in a second than any agent makes
    NO_CONSENT = 20  # for a leg with ICE that has not (or no longer) proved to be where we would send (RFC 7675)
    SLOW_PATH_FULL = 21  # DTLS that comes faster than it is handled
    MUTED = 22  # the other side hears an announcement instead
    BAD_PAYLOAD = 23  # not of the codec that it says


class Handled(IntEnum):
    """What the datapath did with a packet that is neither passed on nor dropped; the end of ``enum reason``."""

    ANSWERED = 64
    TO_PYTHON = 65
    ABSORBED = 66
    NOT_CARRIED = 67  # of a payload type that does not go on, or a digit or a larger packet leaves in its place


class MediaCounter(IntEnum):
    """Word numbers. Those marked gauge are levels, all others only rise."""

    PACKETS_RELAYED = 16
    BYTES_RELAYED = 17
    RTCP_RELAYED = 18
    WAKEUPS = 19
    LATCHES = 20
    EVENTS_LOST = 21
    STUN_ANSWERED = 22
    DTLS_RECEIVED = 23
    PACKETS_PLAYED = 24

    DROP_SHORT = DROP_BASE + Reason.SHORT
    DROP_BAD_VERSION = DROP_BASE + Reason.BAD_VERSION
    DROP_BAD_RTCP = DROP_BASE + Reason.BAD_RTCP
    DROP_WRONG_SOURCE = DROP_BASE + Reason.WRONG_SOURCE
    DROP_UNLATCHED_LIMIT = DROP_BASE + Reason.UNLATCHED_LIMIT
    DROP_NO_PEER = DROP_BASE + Reason.NO_PEER
    DROP_NO_REMOTE = DROP_BASE + Reason.NO_REMOTE
    DROP_TOO_LONG = DROP_BASE + Reason.TOO_LONG
    DROP_SEND_FAILED = DROP_BASE + Reason.SEND_FAILED
    DROP_UNUSED_PORT = DROP_BASE + Reason.UNUSED_PORT
    DROP_NO_KEY = DROP_BASE + Reason.NO_KEY
    DROP_AUTH_FAILED = DROP_BASE + Reason.AUTH_FAILED
    DROP_REPLAYED = DROP_BASE + Reason.REPLAYED
    DROP_INDEX_USED = DROP_BASE + Reason.INDEX_USED
    DROP_SOURCES_FULL = DROP_BASE + Reason.SOURCES_FULL
    DROP_KEY_SPENT = DROP_BASE + Reason.KEY_SPENT
    DROP_BAD_STUN = DROP_BASE + Reason.BAD_STUN
    DROP_STUN_UNPROVEN = DROP_BASE + Reason.STUN_UNPROVEN
    DROP_STUN_LIMIT = DROP_BASE + Reason.STUN_LIMIT
    DROP_NO_CONSENT = DROP_BASE + Reason.NO_CONSENT
    DROP_SLOW_PATH_FULL = DROP_BASE + Reason.SLOW_PATH_FULL
    DROP_MUTED = DROP_BASE + Reason.MUTED
    DROP_BAD_PAYLOAD = DROP_BASE + Reason.BAD_PAYLOAD

    SESSIONS_ACTIVE = 64  # gauge
    PORTS_FREE = 65  # gauge: pairs, over all realms
    PORTS_QUARANTINED = 66  # gauge
    PORTS_BOUND = 67  # gauge: pairs with sockets: in a call, in quarantine or kept for the next ones
    SESSIONS_OPENED = 72
    SESSIONS_RESUMED = 73  # taken over from the worker before this one
    SESSIONS_UNRESUMABLE = 74  # half written, damaged, or its ports were taken
    DESCRIPTORS_EXHAUSTED = 75  # pairs that could not be bound for want of descriptors
    CONTROL_REQUESTS = 80
    CONTROL_REPEATED = 81  # answered from the cache
    NOTIFICATIONS = 82
    MEDIA_TIMEOUTS = 83
    REPLIES_UNDELIVERED = 84
    ANNOUNCEMENTS = 85  # that have begun
    RECORDINGS = 86  # that have begun
    RECORDINGS_FAILED = 87  # that a fault of the disk has ended
    RECORDING_PACKETS_LOST = 76  # that recordings lack, since they were written too slowly
    ONE_WAY = 95  # notifications that only one leg of a call sends

    DTLS_STARTED = 88
    DTLS_ESTABLISHED = 89
    DTLS_FAILED = 90
    DTLS_WRONG_CERTIFICATE = 91  # the handshake was right, but with somebody else
    DTLS_LIMITED = 92  # handshakes that did not begin, for too many at a time or from one source
    DTLS_CLOSED = 93  # by close_notify or an alert of the leg
    DIGITS_HEARD = 94  # RFC 4733 events that ended, each once

    REFUSED_MALFORMED = REFUSED_BASE + 0
    REFUSED_UNKNOWN_REALM = REFUSED_BASE + 1
    REFUSED_UNKNOWN_SESSION = REFUSED_BASE + 2
    REFUSED_UNKNOWN_LEG = REFUSED_BASE + 3
    REFUSED_NO_PORTS = REFUSED_BASE + 4
    REFUSED_DRAINING = REFUSED_BASE + 5
    REFUSED_FULL = REFUSED_BASE + 6
    REFUSED_UNSUPPORTED = REFUSED_BASE + 7
    REFUSED_INTERNAL = REFUSED_BASE + 8
    REFUSED_NO_FILE = REFUSED_BASE + 9
    REFUSED_BAD_FILE = REFUSED_BASE + 10
    REFUSED_NO_CODEC = REFUSED_BASE + 11


GAUGES = frozenset(
    {
        MediaCounter.SESSIONS_ACTIVE,
        MediaCounter.PORTS_FREE,
        MediaCounter.PORTS_QUARANTINED,
        MediaCounter.PORTS_BOUND,
    }
)
# timeout and unreachable are minted by clients
REFUSED = {
    code: MediaCounter[name] for code in REFUSALS if (name := "REFUSED_" + code.upper()) in MediaCounter.__members__
}
