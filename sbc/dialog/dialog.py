"""One side's state of a dialog (RFC 3261 §12): identifiers, sequence numbers, route set and remote target."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, auto

from sbc.errors import SipSyntaxError
from sbc.sip.message import Message
from sbc.sip.uri import Uri, parse_uri

DEFAULT_PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 80, "wss": 443}  # RFC 3261 §19.1.2, RFC 7118 §5
# A resumed dialog may have sent requests that its last record does not know: their numbers must not come again.
RESUME_CSEQ_MARGIN = 100
MAX_CSEQ = 0x7FFF_FFFF  # RFC 3261 §8.1.1.5


class Sequence(IntEnum):
    """Where the CSeq of a request inside a dialog stands (RFC 3261 §12.2.2)."""

    IN_ORDER = auto()
    OLD = auto()  # to be answered with 500


class Dialog:
    """A dialog as one of its two UAs keeps it.

    ``local`` and ``remote`` are the From/To values of that side without the tag (the remote one as it wrote it);
    ``contact`` is our Contact value in this dialog. ``remote_tag`` is '' until the other side has named itself.
    """

    __slots__ = (
        "_next_hop",
        "call_id",
        "contact",
        "local",
        "local_cseq",
        "local_tag",
        "remote",
        "remote_cseq",
        "remote_tag",
        "remote_target",
        "route_set",
    )

    def __init__(self, call_id: str, local: str, local_tag: str, remote: str, contact: str) -> None:
        self.call_id = call_id
        self.local = local
        self.local_tag = local_tag
        self.remote = remote
        self.remote_tag = ""
        self.contact = contact
        self.local_cseq = 0
        self.remote_cseq = -1
        self.remote_target = ""
        self.route_set: tuple[str, ...] = ()
        self._next_hop: Uri | None = None

    def accept(self, request: Message) -> None:
        """Become the UAS side of the dialog that this request opens (§12.1.1)."""
        self.remote_tag = request.from_tag
        self.remote_cseq = request.cseq_number
        self.route_set = tuple(request.get_all("Record-Route"))
        self.refresh_target(request)

    def start(self, routes: Iterable[str]) -> None:
        """Begin, or begin anew, as UAC with a preloaded route set (§8.1.1.1)."""
        self.remote_tag, self.route_set = "", tuple(routes)
        self._next_hop = None

    def establish(self, response: Message) -> None:
        """Become the UAC side of the dialog that this response opens or confirms (§12.1.2, §13.2.2.4)."""
        self.remote_tag = response.to_tag
        self.route_set = tuple(reversed(response.get_all("Record-Route")))
        self._next_hop = None
        self.refresh_target(response)

    def refresh_target(self, message: Message) -> bool:
        """Take the Contact of a target refresh request or its 2xx (§12.2); True when the remote target has changed.

        A Contact that is missing or broken leaves the target as it was.
        """
        try:
            contact = message.contact()
        except SipSyntaxError:
            return False
        if contact is None:
            return False
        target = str(contact.uri)
        if target == self.remote_target:
            return False
        self.remote_target = target
        self._next_hop = None
        return True

    def check_sequence(self, cseq: int) -> Sequence:
        """Judge the CSeq of a new request (not ACK, not CANCEL), and take it when it is in order (§12.2.2)."""
        if cseq <= self.remote_cseq:
            return Sequence.OLD
        self.remote_cseq = cseq
        return Sequence.IN_ORDER

    def next_cseq(self) -> int:
        """The CSeq of our next request (§12.2.1.1)."""
        self.local_cseq += 1
        return self.local_cseq

    @property
    def next_hop(self) -> Uri:
        """The URI whose host a request goes to (§12.2.1.1, §8.1.2): the first route, else the remote target.

        Raises SipSyntaxError where that is no URI.
        """
        if self._next_hop is None:
            self._next_hop = parse_uri(_uri_of(self.route_set[0]) if self.route_set else self.remote_target)
        return self._next_hop

    def request_line(self) -> tuple[str, Iterable[str]]:
        """Request-URI and Route values of a request in this dialog (§12.2.1.1).

        With a loose router first, the target is the Request-URI; a strict one (no ``lr``) takes its place there, and
        the target goes to the end of the routes.
        """
        routes = self.route_set
        if not routes:
            return self.remote_target, ()
        first = _uri_of(routes[0])
        if "lr" in self.next_hop.params:
            return self.remote_target, routes
        return first, (*routes[1:], f"<{self.remote_target}>")

    def headers(self, method: str, cseq: int, via: str, max_forwards: int = 70) -> tuple[str, list[tuple[str, str]]]:
        """Request-URI and the headers that every request in this dialog begins with; Contact is the caller's to add."""
        uri, routes = self.request_line()
        head = [("Via", via), ("Max-Forwards", str(max_forwards))]
        head += [("Route", route) for route in routes]
        remote = f"{self.remote};tag={self.remote_tag}" if self.remote_tag else self.remote
        head += (
            ("From", f"{self.local};tag={self.local_tag}"),
            ("To", remote),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
        )
        return uri, head

    def matches(self, message: Message) -> bool:
        """Whether a request, found by its To tag, belongs to this dialog (§12)."""
        return message.call_id == self.call_id and message.from_tag == self.remote_tag


def without_tag(value: str) -> str:
    """A From or To value without its tag parameter, otherwise octet for octet."""
    at = value.rfind(">")
    head, rest = value[: at + 1], value[at + 1 :]
    if ";" not in rest:
        return value
    first, *params = rest.split(";")
    kept = [p for p in params if p.strip().partition("=")[0].strip().lower() != "tag"]
    return ";".join([head + first, *kept])


def _uri_of(route: str) -> str:
    """The URI between the angle brackets of a Route or Record-Route value (RFC 3261 §20.34: always there)."""
    start = route.find("<", route.find('"', route.find('"') + 1) + 1 if route.startswith('"') else 0)
    end = route.find(">", start)
    return route[start + 1 : end] if 0 <= start < end else route.partition(";")[0].strip()
