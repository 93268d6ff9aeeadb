from typing import final

@final
class Reader:
    """Reads a bound IPv4 or IPv6 UDP socket in batches (recvmmsg); never waits. The descriptor stays the caller's."""

    def __init__(self, fd: int, batch: int = 64) -> None: ...
    @property
    def errors(self) -> int:
        """ICMP errors of earlier sends that the kernel reported on reading; they are never raised."""

    @property
    def waited_s(self) -> float:
        """How long the first datagram of the last :meth:`read` had waited in the kernel; 0 where there was none."""

    def read(self) -> list[tuple[bytes, str, int]]:
        """(data, host, port) of up to ``batch`` datagrams, empty where nothing waits. ``host`` is a canonical literal,
        IPv4 also where an IPv6 socket shows it mapped. Raises OSError only where the descriptor is no socket."""

@final
class Writer:
    """Sends on a bound IPv4 or IPv6 UDP socket in batches (sendmmsg); never waits. The descriptor is the caller's."""

    def __init__(self, fd: int) -> None: ...
    @property
    def dropped(self) -> int:
        """Datagrams given up because the socket's buffer was full."""

    @property
    def failed(self) -> int:
        """Datagrams that the kernel refused, or whose host is no literal of the socket's family."""

    def send(self, items: list[tuple[bytes, str, int]]) -> int:
        """Send (data, host, port) in order; answers how many the kernel took. The rest is counted, not retried: SIP
        retransmits. Raises OSError only where the descriptor is no socket."""
