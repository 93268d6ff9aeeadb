"""The compiled relay loop over the rules of an arena; the packet logic is that of media.reference_datapath."""

RULE_BYTES: int
KEYS_BYTES: int
WEBRTC_BYTES: int
TICK: int
CONTROL: int
SIGNAL: int
EVENTS: int

class Datapath:
    """Port pairs in one epoll, lent to rules. ``rules`` (``struct rule``), as many ``keys`` (``struct srtp_leg``)
    and ``webrtc`` (``struct webrtc_leg``), and ``page`` (counters) are written."""

    def __init__(
        self, rules: object, keys: object, webrtc: object, page: object | None = None, collect_us: int = 0
    ) -> None: ...
    def close(self) -> None:
        """Close every socket; the rules lose their IN_USE flag."""

    def watch(self, fd: int, woken: int) -> None:
        """``run`` ends with ``woken`` (CONTROL, SIGNAL) when ``fd`` is readable. Raises OSError."""

    def open(self, local: bytes, dscp: int = 0) -> int:
        """Bind a packed address and the port above it. Returns the pair's number, or minus an errno."""

    def mark(self, pair: int, dscp: int) -> int:
        """Give all that a pair sends from now on this DSCP (RFC 2474). Returns 0 or an errno."""

    def shut(self, pair: int) -> int:
        """Close a pair; returns its RTP port. Raises ValueError when there is no such pair."""

    def attach(self, pair: int, index: int) -> int:
        """Relay by a rule what arrives at a pair from now on; what waits there is dropped.

        Returns 0 or an errno: EBUSY when more arrives there than can be dropped, EBADF when the pair has a rule.
        """

    def detach(self, index: int) -> int:
        """Drop from now on what arrives at the pair of a rule. Returns the pair's number, negative if there is none."""

    def run(self, timeout_ms: int) -> int:
        """Relay for at most ``timeout_ms`` without the GIL; returns bits that say why it ended."""

    def events(self) -> list[int]:
        """Take the rules that were latched to another address than the signalled one."""

    def take(self, limit: int) -> list[tuple[int, bytes, bytes]]:
        """Take up to ``limit`` of the DTLS datagrams that wait: rule, packed source, octets. While some wait, ``run``
        ends at once with EVENTS."""

    def send(self, index: int, to: bytes, data: bytes) -> int:
        """Send a datagram from the RTP port of a rule to a packed address. Returns 0 or an errno."""

def install(stream: object, suite: int, master: bytes, mki: bytes = b"") -> None:
    """Start a ``media.srtp.Stream`` under a master key and salt. Raises ValueError where they do not fit the suite."""

def transform(leg: object, protect: bool, rtcp: bool, data: bytes) -> tuple[int, bytes]:
    """One sound packet through a ``media.srtp.LegKeys``, for tests: (reason, octets)."""

def inspect(
    rules: object, keys: object, webrtc: object, index: int, on_rtcp_port: bool, data: bytes, source: bytes, now_ns: int
) -> tuple[int, int, bool, bool, int, bytes]:
    """One packet against one rule, for tests: (reason, target, is RTCP, by RTP port, latched, octets to send, or of the
    answer); counted as sent."""
