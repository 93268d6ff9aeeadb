"""The compiled relay loop over the rules of an arena; the packet logic is that of media.reference_datapath."""

RULE_BYTES: int
TICK: int
CONTROL: int
SIGNAL: int
EVENTS: int

class Datapath:
    """Sockets of all rules in one epoll. ``rules`` is writable memory of ``struct rule``, ``page`` the counters."""

    def __init__(self, rules: object, page: object | None = None, collect_us: int = 0) -> None: ...
    def close(self) -> None:
        """Close every socket; the rules lose their IN_USE flag."""

    def watch(self, fd: int, woken: int) -> None:
        """``run`` ends with ``woken`` (CONTROL, SIGNAL) when ``fd`` is readable. Raises OSError."""

    def bind(self, index: int, local: bytes, dscp: int = 0) -> int:
        """Bind a packed address and the port above it for a rule, relay from now on. Returns 0 or an errno."""

    def unbind(self, index: int) -> None:
        """Close the pair of a rule, if it has one."""

    def run(self, timeout_ms: int) -> int:
        """Relay for at most ``timeout_ms`` without the GIL; returns bits that say why it ended."""

    def events(self) -> list[int]:
        """Take the rules that were latched to another address than the signalled one."""

def inspect(
    rules: object, index: int, on_rtcp_port: bool, data: bytes, source: bytes, now_ns: int
) -> tuple[int, int, bool, bool, int]:
    """One packet against one rule, for tests: (reason, target, is RTCP, by RTP port, latched); counted as sent."""
