from collections.abc import Callable, Iterable
from typing import final

from sbc.sip.address import NameAddr
from sbc.sip.uri import Params, Uri
from sbc.sip.via import Via

_parse_via: Callable[[str], Via]
_parse_name_addr: Callable[[str], NameAddr]

@final
class Message:
    """A received SIP message: immutable, a lazy index over its octets. Text is UTF-8 with surrogateescape."""

    @staticmethod
    def parse(data: bytes, *, stream: bool = False) -> Message:
        """Index one complete message and check what routing depends on.

        ``stream``: the octets come from a stream, where Content-Length must be there and exact (RFC 3261 §18.3);
        on a datagram octets after the body are ignored. Raises SipSyntaxError with the status that answers the
        request; ``droppable`` where none may be sent (a response, an ACK, no usable top Via).
        """

    @staticmethod
    def parse_lenient(data: bytes) -> Message | None:
        """What can be read of a request that ``parse`` refused, as the subject of ``reply_to``; None where no response
        may be sent. What is no header line, and repetitions of single headers, are left out; values are as they came,
        proper or not; fields that are missing or broken read as '' or 0, the body as empty."""

    def rewritten(self, data: bytes) -> Message:
        """The message that a policy has made of this one: ``data``, which is parsed as ``parse`` does. Responses are
        made to what came (RFC 3261 §8.2.6.2), and so are dialogs."""

    @property
    def came(self) -> Message:
        """The message as it came, before any policy has rewritten it; itself where none has."""

    @property
    def raw(self) -> bytes: ...
    @property
    def is_request(self) -> bool: ...
    @property
    def method(self) -> str: ...
    @property
    def uri(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def call_id(self) -> str: ...
    @property
    def cseq_number(self) -> int: ...
    @property
    def cseq_method(self) -> str: ...
    @property
    def from_tag(self) -> str: ...
    @property
    def to_tag(self) -> str: ...
    @property
    def branch(self) -> str: ...
    @property
    def max_forwards(self) -> int | None: ...
    def get(self, name: str) -> str | None:
        """The first value of a header, unfolded and stripped; of a list header (RFC 3261 §7.3.1) its first element,
        '' where the list is empty. ``name`` long or compact, in any case. None where the header is absent."""

    def get_all(self, name: str) -> list[str]:
        """Every value in order: the elements of a list header, otherwise one per line."""

    def items(self) -> list[tuple[str, str]]:
        """Every header line in order: (long name, whole value); unknown names in the spelling that came."""

    def having(self, names: frozenset[str]) -> list[tuple[str, str]]:
        """What ``items`` has of the headers whose long name, in lower case, is among ``names``."""

    def transaction_key(self, method: str) -> str:
        """Branch and sent-by of the top Via with ``method``, by which RFC 3261 §17.2.3 tells transactions apart; ''
        where the branch does not begin with the magic cookie, or is nothing else (RFC 4475 §3.2.1)."""

    def vias(self) -> list[Via]: ...
    @property
    def top_via(self) -> Via: ...
    def contact(self) -> NameAddr | None:
        """The first Contact; None where there is none, or the star of a REGISTER."""

    def from_(self) -> NameAddr: ...
    def to(self) -> NameAddr: ...

def build_request(method: str, uri: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """A request. Content-Length is always ours: one among ``headers`` is left out.

    Raises SipSyntaxError where a name is no token or a value holds CR, LF or NUL, so that nothing can be smuggled.
    """

def build_response(status: int, reason: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """A response; otherwise as ``build_request``. Raises ValueError where ``status`` is not within 100..699."""

def reply_to(
    request: Message,
    status: int,
    *,
    reason: str | None = None,
    to_tag: str = "",
    received: tuple[str, int] | None,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> bytes:
    """A response to ``request`` (RFC 3261 §8.2.6): its Vias as they came, From, To, Call-ID, CSeq; what a leniently
    parsed request lacks is left out.

    ``received``: the source (host, port); adds received where it differs from sent-by or rport was asked for, and fills
    rport (RFC 3581 §4). ``to_tag`` is added where To has no tag yet. A 100 copies Timestamp. Record-Route, which a
    dialog-forming response copies (§12.1.1), is for the caller: it belongs among ``headers``.
    """

def usual_uri(uri_type: type[Uri], no_params: Params, text: str) -> Uri | None:
    """What ``parse_uri`` answers, for the usual form of a sip or sips URI; None for anything else, wrong or not."""

def usual_address(address_type: type[NameAddr], uri_type: type[Uri], no_params: Params, text: str) -> NameAddr | None:
    """What ``parse_name_addr`` answers, for an address in angle brackets whose parts are usual; None otherwise."""

def usual_via(via_type: type[Via], no_params: Params, text: str) -> Via | None:
    """What ``parse_via`` answers, for the usual form of a Via; None otherwise."""
