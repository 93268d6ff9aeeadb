"""The session description of a message as routes read and change it: codecs, directions, addresses, attributes.

A view: nothing is kept here, every change is in the body at once. What is changed in a request goes to every branch, in
a branch to this one, in a reply to the caller. Where media are relayed the addresses of a request are the caller's, and
those of a branch or a relayed reply are ours. Streams are rejected, never removed (RFC 3264 §6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from media.protocol import Direction
from sbc.errors import SdpError
from sbc.routing.body import HasBody, Parts
from sbc.routing.routes import RouteError
from sbc.sdp.address import connection_data, ip_literal
from sbc.sdp.codecs import CodecFilter, named
from sbc.sdp.description import MediaDescription, SessionDescription

TYPE: Final = "application/sdp"
DIRECTIONS: Final[tuple[Direction, ...]] = ("sendrecv", "sendonly", "recvonly", "inactive")
_BEFORE_BANDWIDTH: Final = ("v=", "o=", "s=", "m=", "i=", "u=", "e=", "p=", "c=")
_BEFORE_CONNECTION: Final = ("v=", "o=", "s=", "m=", "i=", "u=", "e=", "p=")


def sdp_of(message: HasBody) -> Sdp | None:
    """The description in a message, also where it is one part among others; None where there is none."""
    return Sdp(message) if TYPE in Parts(message) else None


class _Section:
    """What session and stream have in common: their lines."""

    __slots__ = ("_message", "_number")

    def __init__(self, message: HasBody, number: int) -> None:
        self._message = message
        self._number = number  # of the stream; -1: the session

    def _parsed(self) -> SessionDescription:
        try:
            return SessionDescription.parse_any(Parts(self._message).get(TYPE) or b"")
        except SdpError as error:
            raise RouteError(f"the session description cannot be read: {error}") from error

    def _write(self, sdp: SessionDescription) -> None:
        Parts(self._message).set(TYPE, sdp.to_bytes())

    def _lines(self, sdp: SessionDescription) -> list[str]:
        return sdp.lines if self._number < 0 else sdp.streams[self._number].lines

    def _edit(self, change: Callable[[list[str]], None]) -> None:
        sdp = self._parsed()
        change(self._lines(sdp))
        self._write(sdp)

    def attributes(self, name: str) -> list[str]:
        """The values of every ``a=name``, in order; '' for one that has none."""
        return [line[2:].partition(":")[2] for line in self._lines(self._parsed()) if _is_attribute(line, name)]

    def attribute(self, name: str) -> str | None:
        """The first of them; None where there is none."""
        found = self.attributes(name)
        return found[0] if found else None

    def set_attribute(self, name: str, value: str = "") -> None:
        """This ``a=name:value`` instead of all of the name; without a value ``a=name``."""
        line = _checked(f"a={name}:{value}" if value else f"a={name}")

        def change(lines: list[str]) -> None:
            lines[:] = [*(one for one in lines if not _is_attribute(one, name)), line]

        self._edit(change)

    def add_attribute(self, name: str, value: str = "") -> None:
        """One more."""
        line = _checked(f"a={name}:{value}" if value else f"a={name}")
        self._edit(lambda lines: lines.append(line))

    def remove_attribute(self, name: str) -> int:
        """Take every attribute of this name away; returns how many there were."""
        gone = len(self.attributes(name))

        def change(lines: list[str]) -> None:
            lines[:] = [one for one in lines if not _is_attribute(one, name)]

        if gone:
            self._edit(change)
        return gone

    @property
    def bandwidth(self) -> dict[str, int]:
        """The limits by type (RFC 8866 §5.8): ``AS`` and ``CT`` in kbit/s, ``TIAS`` in bit/s."""
        found = {}
        for line in self._lines(self._parsed()):
            kind, colon, value = line[2:].partition(":")
            if line.startswith("b=") and colon and value.strip().isdigit():
                found[kind] = int(value)
        return found

    def set_bandwidth(self, kind: str, value: int | None) -> None:
        """The limit of this type; None takes it away."""
        if value is not None and value < 0:
            raise RouteError(f"bandwidth {kind}: {value} is no limit")
        line = None if value is None else _checked(f"b={kind}:{value}")

        def change(lines: list[str]) -> None:
            lines[:] = [one for one in lines if not one.startswith(f"b={kind}:")]
            if line is not None:
                lines.insert(_after(lines, _BEFORE_BANDWIDTH), line)

        self._edit(change)


class Stream(_Section):
    """One m= section."""

    __slots__ = ()

    def _media(self) -> MediaDescription:
        return self._parsed().streams[self._number]

    @property
    def kind(self) -> str:
        """``audio``, ``video``, ``image`` ..."""
        return self._media().kind

    @property
    def port(self) -> int:
        """The port; 0 where the stream is rejected."""
        return self._media().port

    @property
    def protocol(self) -> str:
        """``RTP/AVP`` and its kin."""
        return self._media().protocol

    @property
    def is_rejected(self) -> bool:
        """Port 0."""
        return self.port == 0

    @property
    def address(self) -> str:
        """The address that its media go to, '' where nobody says; may be changed to another IP address."""
        sdp = self._parsed()
        return sdp.address_of(sdp.streams[self._number])

    @address.setter
    def address(self, address: str) -> None:
        line = _connection(address)
        self._edit(lambda lines: _connect(lines, line))

    @property
    def direction(self) -> Direction:
        """Its direction, which is the session's where it has none of its own; may be changed."""
        sdp = self._parsed()
        return sdp.direction_of(sdp.streams[self._number])

    @direction.setter
    def direction(self, direction: Direction) -> None:
        _direct(self, direction)

    @property
    def codecs(self) -> tuple[str, ...]:
        """Its codecs in order of preference, ``PCMA/8000``; of a stream that is not RTP its formats."""
        media = self._media()
        if not media.is_rtp:
            return tuple(media.formats)
        names = named(media)
        return tuple([names[number] for number in media.formats])

    def keep_codecs(self, *names: str) -> bool:
        """Only these (``PCMA``, or with its clock rate ``L16/44100``), and what accompanies them (telephone-event, CN).
        False, and nothing is changed, where the stream would be left with none."""
        return self._filter(CodecFilter(allow=_lowered(names)))

    def remove_codecs(self, *names: str) -> bool:
        """All but these. False, and nothing is changed, where the stream would be left with none."""
        return self._filter(CodecFilter(strip=_lowered(names)))

    def order_codecs(self, *names: str) -> None:
        """These first, in this order; the others follow as they were."""
        self._filter(CodecFilter(order=tuple([name.lower() for name in names])))

    def reject(self) -> None:
        """Port 0: the other side is not offered it, or hears that it is declined."""
        sdp = self._parsed()
        media = sdp.streams[self._number]
        media.port = 0
        _rewrite(media)
        self._write(sdp)

    def _filter(self, codecs: CodecFilter) -> bool:
        sdp = self._parsed()
        media = sdp.streams[self._number]
        if not media.port or not media.is_rtp:
            return True
        sdp.streams, others = [media], sdp.streams
        if not codecs.apply(sdp):
            return False
        sdp.streams = others
        _rewrite(media)
        self._write(sdp)
        return True


class Sdp(_Section):
    """A whole description. What concerns codecs is done to every RTP stream."""

    __slots__ = ()

    def __init__(self, message: HasBody) -> None:
        super().__init__(message, -1)

    @property
    def text(self) -> str:
        """All of it."""
        return (Parts(self._message).get(TYPE) or b"").decode("utf-8", "replace")

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Its streams, in order."""
        return tuple([Stream(self._message, number) for number in range(len(self._parsed().streams))])

    @property
    def audio(self) -> Stream | None:
        """The first audio stream that is not rejected."""
        return self._first("audio")

    @property
    def video(self) -> Stream | None:
        """The first video stream that is not rejected."""
        return self._first("video")

    def _first(self, kind: str) -> Stream | None:
        return next((one for one in self.streams if one.kind == kind and one.port), None)

    @property
    def address(self) -> str:
        """The address of the session, '' where only its streams have one; may be changed, for all its streams."""
        return self._parsed().address

    @address.setter
    def address(self, address: str) -> None:
        line = _connection(address)
        sdp = self._parsed()
        _connect(sdp.lines, line)
        for media in sdp.streams:
            media.lines = [one for one in media.lines if not one.startswith("c=")]
        self._write(sdp)

    @property
    def direction(self) -> Direction:
        """The direction of the session; may be changed, for all its streams."""
        return self._parsed().direction

    @direction.setter
    def direction(self, direction: Direction) -> None:
        _direct(self, direction)
        for stream in self.streams:
            if any(stream.attribute(name) is not None for name in DIRECTIONS):
                stream.direction = direction

    def keep_codecs(self, *names: str) -> bool:
        """Only these, in every RTP stream; one that has none of them is rejected. False, and nothing is changed, where
        no stream would be left."""
        return self._filter(CodecFilter(allow=_lowered(names)))

    def remove_codecs(self, *names: str) -> bool:
        """All but these, likewise."""
        return self._filter(CodecFilter(strip=_lowered(names)))

    def order_codecs(self, *names: str) -> None:
        """These first, in this order; the others follow as they were."""
        self._filter(CodecFilter(order=tuple([name.lower() for name in names])))

    def _filter(self, codecs: CodecFilter) -> bool:
        sdp = self._parsed()
        if not codecs.apply(sdp):
            return False
        for media in sdp.streams:
            _rewrite(media)
        self._write(sdp)
        return True


def _lowered(names: tuple[str, ...]) -> frozenset[str]:
    if not names:
        raise RouteError("name the codecs: keep_codecs('PCMA', 'opus')")
    return frozenset([name.lower() for name in names])


def _rewrite(media: MediaDescription) -> None:
    """The lines of a stream say what its port and formats are now."""
    kind, port, protocol, *formats = media.lines[0][2:].split()
    count = port.partition("/")[2]
    port = str(media.port) + (f"/{count}" if count else "")
    media.lines[0] = f"m={kind} {port} {protocol} {' '.join(media.formats)}"
    gone = set(formats).difference(media.formats)
    if gone:
        media.lines = [line for line in media.lines if _format_of(line) not in gone]


def _format_of(line: str) -> str:
    about = line.startswith(("a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"))
    return line.partition(":")[2].partition(" ")[0] if about else ""


def _is_attribute(line: str, name: str) -> bool:
    return line == f"a={name}" or line.startswith(f"a={name}:")


def _direct(section: _Section, direction: Direction) -> None:
    if direction not in DIRECTIONS:
        raise RouteError(f"{direction!r} is no direction; there are: {', '.join(DIRECTIONS)}")

    def change(lines: list[str]) -> None:
        lines[:] = [*(one for one in lines if one[2:] not in DIRECTIONS or not one.startswith("a=")), f"a={direction}"]

    section._edit(change)


def _connection(address: str) -> str:
    literal = ip_literal(address)
    if not literal:
        raise RouteError(f"{address!r} is no IP address")
    return f"c={connection_data(literal)}"


def _connect(lines: list[str], line: str) -> None:
    lines[:] = [one for one in lines if not one.startswith("c=")]
    lines.insert(_after(lines, _BEFORE_CONNECTION), line)


def _after(lines: list[str], kinds: tuple[str, ...]) -> int:
    """Behind the last line of these types (RFC 8866 §5: their order is fixed)."""
    return max((number + 1 for number, line in enumerate(lines) if line.startswith(kinds)), default=0)


def _checked(line: str) -> str:
    if not line.isprintable() or not line[2:3].strip():
        raise RouteError(f"{line!r} is no line of a session description")
    return line
