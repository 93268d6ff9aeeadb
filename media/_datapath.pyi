"""The compiled relay loop over the rules of an arena; the packet logic is that of media.reference_datapath."""

RULE_BYTES: int
KEYS_BYTES: int
WEBRTC_BYTES: int
PLAYER_BYTES: int
QUALITY_BYTES: int
PROCESS_BYTES: int
TICK: int
CONTROL: int
SIGNAL: int
EVENTS: int

class Tap:
    """A ring of ``size`` octets (a power of two) for copies of packets, and the recordings that are made of them.

    ``point`` and ``clear`` are of the relay's thread, all else of the one that writes, and free of the GIL.
    """

    def __init__(self, rules: int, size: int) -> None: ...
    def point(self, index: int, number: int, side: int) -> None:
        """What comes by a rule is for one side (0 left, 1 right) of a recording."""

    def clear(self, index: int) -> None:
        """What comes by a rule is for no recording."""

    def head(self) -> int:
        """How far the ring has been written: for ``drain``."""

    def open(self, number: int, fd: int, format: int, start_ns: int, wall_ns: int) -> int:
        """Begin a recording (format 0: WAV, 1: pcap) in a file, which is the ring's from now on. 0 or an errno."""

    def face(self, number: int, side: int, local: bytes) -> None:
        """The packed address of ours that faces a side."""

    def drain(self, end: int, now_ns: int) -> int:
        """Write what the ring held up to ``end``; returns how many recordings have failed by it."""

    def close(self, number: int) -> tuple[int, int, int, int, int, int]:
        """Write a recording to its end: packets, lost, late, unreadable, frames, errno."""

    def totals(self, number: int) -> tuple[int, int, int, int, int, int]:
        """The same so far."""

class Datapath:
    """Port pairs in one epoll, lent to rules. ``rules`` (``struct rule``), as many ``keys`` (``struct srtp_leg``),
    ``webrtc`` (``struct webrtc_leg``), ``players`` (``struct player``), ``quality`` (``struct quality``, where it is
    given) and ``processes`` (``struct process``), and ``page`` (counters) are written."""

    def __init__(
        self,
        rules: object,
        keys: object,
        webrtc: object,
        page: object | None = None,
        collect_us: int = 0,
        players: object | None = None,
        quality: object | None = None,
        processes: object | None = None,
    ) -> None: ...
    def close(self) -> None:
        """Close every socket; the rules lose their IN_USE flag."""

    def watch(self, fd: int, woken: int) -> None:
        """``run`` ends with ``woken`` (CONTROL, SIGNAL) when ``fd`` is readable. Raises OSError."""

    def bind_freely(self) -> None:
        """From now on ``open`` also binds addresses that this machine does not have yet."""

    def open(self, local: bytes, dscp: int = 0) -> int:
        """Bind a packed address and the port above it. Returns the pair's number, or minus an errno."""

    def adopt(self, rtp_fd: int, rtcp_fd: int, port: int) -> int:
        """Take over two descriptors that are bound to a port and the one above it. Returns as ``open``."""

    def rtcp_of(self, pair: int) -> int:
        """The descriptor of a pair's RTCP port; that of its RTP port is its number. Raises ValueError."""

    def mark(self, pair: int, dscp: int) -> int:
        """Give all that a pair sends from now on this DSCP (RFC 2474). Returns 0 or an errno."""

    def shut(self, pair: int) -> int:
        """Close a pair; returns its RTP port. Raises ValueError when there is no such pair."""

    def attach(self, pair: int, index: int) -> int:
        """Relay by a rule what arrives at a pair from now on; what waits there is dropped.

        Returns 0 or an errno: EBUSY when more arrives there than can be dropped, EBADF when the pair has a rule.
        """

    def resume(self, pair: int, index: int) -> int:
        """As ``attach``, but what waits there is relayed: it came for the rule while that had no process."""

    def detach(self, index: int) -> int:
        """Drop from now on what arrives at the pair of a rule. Returns the pair's number, negative if there is none."""

    def play(self, index: int, clip: bytes) -> None:
        """Play a clip (an octet for each sample) to the leg of a rule as its player says, from the next tick on; one
        that a predecessor played goes on where it would be now. Raises OSError where the leg hears one already."""

    def hush(self, index: int) -> None:
        """The leg of a rule hears its peer again."""

    def ended(self) -> list[int]:
        """Take the rules whose clip is over."""

    def tap_into(self, tap: Tap) -> None:
        """Copy what rules with Feature.TAPPED bring into this ring."""

    def run(self, timeout_ms: int) -> int:
        """Relay for at most ``timeout_ms`` without the GIL; returns bits that say why it ended."""

    def sample(self, now_ns: int, patience_s: int) -> list[int]:
        """Take the samples that are due (``media.samples``); call it ten times a second. Returns rules that should send
        but do not, while their peer does; ``patience_s`` is for those without one of their own."""

    def events(self) -> list[int]:
        """Take the rules that were latched to another address than the signalled one."""

    def take(self, limit: int) -> list[tuple[int, bytes, bytes]]:
        """Take up to ``limit`` of the DTLS datagrams that wait: rule, packed source, octets. While some wait, ``run``
        ends at once with EVENTS."""

    def send(self, index: int, to: bytes, data: bytes) -> int:
        """Send a datagram from the RTP port of a rule to a packed address. Returns 0 or an errno."""
    def heard(self) -> list[tuple[int, int, int]]:
        """Take the digits that were pressed: rule of the leg, event of RFC 4733, milliseconds."""

    def attend(self, index: int) -> bool:
        """Mind the time for the process of a rule; False where that is done for too many."""

    def forget(self, index: int) -> None:
        """Nothing is done any more for the process of a rule; its codecs end."""

def register(codec: int, functions: object) -> None:
    """Make a ``media.processing.Codec`` known; ``functions`` is what its module has as FUNCTIONS."""

def codec_built(codec: int) -> bool:
    """Whether a codec can be transcoded."""

def install(stream: object, suite: int, master: bytes, mki: bytes = b"") -> None:
    """Start a ``media.srtp.Stream`` under a master key and salt. Raises ValueError where they do not fit the suite."""

def transform(leg: object, protect: bool, rtcp: bool, data: bytes) -> tuple[int, bytes]:
    """One sound packet through a ``media.srtp.LegKeys``, for tests: (reason, octets)."""

def convert(data: bytes, coding: int, channels: int, rate_hz: int) -> tuple[bytes, bytes]:
    """Audio of a WAV (coding 1: PCM of 16 bits, 6: A-law, 7: u-law) as clips at 8000 Hz: u-law and A-law. Without the
    GIL. Raises ValueError for a rate outside 8000 to 48000 or more than two channels."""

def play(player: object, clip: bytes, ticks: int = 0) -> bytes:
    """The next packet of a ``media.player.Player``, or so many left out, for tests."""

def sample(
    quality: object, rules: object, first: int, end: int, second: int, now_ns: int, patience_s: int
) -> list[int]:
    """``Datapath.sample`` for the rules [first, end) at once, for tests."""

def g711_tables() -> tuple[bytes, bytes]:
    """A-law by µ-law and µ-law by A-law, for tests."""

def g711_value(codec: int, octet: int) -> int:
    """A sample, for tests."""

def g711_octet(codec: int, sample: int) -> int:
    """The octet of a sample, for tests."""

class Resampler:
    """Samples of 16 bits, host order, from 8 to 16 kHz or back; one object for one stream one way."""

    def up(self, samples: bytes) -> bytes: ...
    def down(self, samples: bytes) -> bytes: ...

def further(
    rules: object, keys: object, webrtc: object, target: int, processes: object, now_ns: int | None = None
) -> bytes | None:
    """Another packet for the leg of a rule, for tests: of what came before, or one that is due at ``now_ns``."""

def heard() -> list[tuple[int, int, int]]:
    """Digits that ``inspect`` and ``further`` have heard."""

def forget(target: int) -> None:
    """What ``inspect`` keeps of a rule besides the memory that it is given."""

def inspect(
    rules: object,
    keys: object,
    webrtc: object,
    index: int,
    on_rtcp_port: bool,
    data: bytes,
    source: bytes,
    now_ns: int,
    players: object | None = None,
    tap: Tap | None = None,
    quality: object | None = None,
    processes: object | None = None,
) -> tuple[int, int, bool, bool, int, bytes]:
    """One packet against one rule, for tests: (reason, target, is RTCP, by RTP port, latched, octets to send, or of the
    answer); counted as sent."""
