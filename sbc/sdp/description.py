"""Session descriptions (RFC 8866): one scan that keeps every line, marks whose it is, and reads what a relay needs.

Lines that are not ours stay octet for octet (line ends become CRLF). Text is UTF-8 with surrogateescape, so octets that
are no UTF-8 survive. Everything hostile ends in :class:`sbc.errors.SdpError`, nothing else.
"""

from __future__ import annotations

from typing import Final

from media.protocol import Direction
from sbc.errors import SdpError
from sbc.sdp._usual import usual_description
from sbc.sdp.address import holds_address, ip_literal, is_host_name

MAX_BYTES = 65_536
MAX_STREAMS = 16
MAX_LINES = 160  # per section; Chrome's largest real m= section has 119 attributes
MAX_KEYS = 16  # a=crypto lines per m= section (RFC 4568 leaves it open)

# Whose a line is, decided once while parsing.
KEEP: Final = 0  # says nothing about addresses: passes octet for octet
OWNED: Final = 1  # written anew by whoever anchors the media: c=, o=, a=rtcp, a=rtcp-mux
PERSONAL: Final = 2  # about the user or the product: i=, u=, e=, p=, s=, a=tool
TRANSPORT: Final = 3  # keys, candidates, bundles: true only between the two sockets that negotiated them
DISCARD: Final = 4  # k= (RFC 8866 §5.12: obsolete, a key in clear), unknown types, values out of range, leaks

_LINE_OWNERS: Final[dict[str, int]] = {
    "b=": KEEP,
    "t=": KEEP,
    "r=": KEEP,
    "z=": KEEP,
    "s=": PERSONAL,
    "i=": PERSONAL,
    "u=": PERSONAL,
    "e=": PERSONAL,
    "p=": PERSONAL,
    "k=": DISCARD,
}

# RFC 8866, 3388, 4574, 4585, 4796, 5939, 3362: attributes that cannot name a host
_HARMLESS: Final = """
    fmtp framerate quality lang sdplang charset orient type mid rtcp-fb rtcp-rsize rtcp-xr extmap
    extmap-allow-mixed label content imageattr rid simulcast silenceSupp ssrc-group msid-semantic floorctrl confid
    userid floorid connection sctpmap sctp-port max-message-size T38FaxVersion T38MaxBitRate T38FaxFillBitRemoval
    T38FaxTranscodingMMR T38FaxTranscodingJBIG T38FaxRateManagement T38FaxMaxBuffer T38FaxMaxDatagram T38FaxMaxIFP
    T38FaxUdpEC"""
# RFC 8445, 8839, 4568, 8122, 4572, 4567, 6189, 9143, 4975, 4570, and the relay marker of rtpproxy and its kin
_BETWEEN_SOCKETS: Final = """
    candidate remote-candidates end-of-candidates ice-ufrag ice-pwd ice-lite ice-options ice-mismatch ice-pacing ice2
    fingerprint setup tls-id dtls-id identity 3ge2ae key-mgmt zrtp-hash bundle-only group nortpproxy alt path
    source-filter"""
_LOOK: Final = 9  # not an owner: the value matters, :func:`_attribute` decides
# Attribute names are compared as sent (RFC 8866 §6 gives them in lower case); directions in any case.
_ATTRIBUTE_OWNERS: Final[dict[str, int]] = {
    **dict.fromkeys(_HARMLESS.split(), KEEP),
    **dict.fromkeys(_BETWEEN_SOCKETS.split(), TRANSPORT),
    **dict.fromkeys(("rtpmap", "rtcp", "rtcp-mux", "rtcp-mux-only", "ptime", "maxptime", "crypto"), _LOOK),
    "tool": PERSONAL,
}
_DIRECTIONS: Final[dict[str, Direction]] = {
    "sendrecv": "sendrecv",
    "sendonly": "sendonly",
    "recvonly": "recvonly",
    "inactive": "inactive",
}
_PAYLOAD_TYPES: Final = frozenset(map(str, range(128)))
# RFC 3551 table 4 and 5: static payload types whose clock is not 8 kHz
_STATIC_CLOCKS_HZ: Final[dict[str, int]] = {
    "6": 16000,
    "10": 44100,
    "11": 44100,
    "14": 90000,
    "16": 11025,
    "17": 22050,
    **dict.fromkeys(("25", "26", "28", "31", "32", "33", "34"), 90000),
}
_USUAL: Final = frozenset({"audio", "video", "RTP/AVP", "RTP/SAVP", "RTP/AVPF", "RTP/SAVPF", "UDP/TLS/RTP/SAVPF"})
_TOKEN: Final = frozenset("!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz{|}~")


class MediaDescription:
    """One m= section. ``lines`` starts with its m= line; ``passing`` are those that any other leg may get as they are.

    ``address`` is '' when only the session's c= applies. ``direction`` is None when the section does not say.
    ``rtcp_port`` is 0 without a=rtcp.
    """

    __slots__ = (
        "address",
        "clock_rate_hz",
        "direction",
        "formats",
        "is_rtp",
        "keys",
        "kind",
        "lines",
        "passing",
        "port",
        "protocol",
        "rtcp_mux",
        "rtcp_port",
    )

    def __init__(self, line: str) -> None:
        fields = line[2:].split()
        if len(fields) < 4:
            raise SdpError("m= line without formats" if len(fields) == 3 else "m= line is cut short")
        kind, port, protocol, *formats = fields
        if kind not in _USUAL and (len(kind) > 32 or not _TOKEN.issuperset(kind)):
            raise SdpError("m= line: the media type is no token")
        if protocol not in _USUAL and (len(protocol) > 32 or not _TOKEN.issuperset(protocol.replace("/", ""))):
            raise SdpError("m= line: the protocol is no token")
        if len(formats) > 128:
            raise SdpError("m= line with more than 128 formats")
        self.kind = kind
        self.port = _port(port.partition("/")[0])
        self.protocol = protocol.upper()
        self.is_rtp = "RTP/" in self.protocol  # every RTP profile: AVP, AVPF, SAVP, SAVPF, also over DTLS
        self.formats = formats
        # RFC 3551 §6: a payload type has seven bits
        if self.is_rtp and not _PAYLOAD_TYPES.issuperset(formats):
            raise SdpError("m= line with a payload type outside 0-127")
        self.address = ""
        self.direction: Direction | None = None
        self.rtcp_port = 0
        self.rtcp_mux = False
        self.clock_rate_hz = _STATIC_CLOCKS_HZ.get(formats[0], 8000)
        self.keys: list[str] | None = None  # values of a=crypto
        self.lines = [line]
        self.passing: list[str] = []

    @property
    def secure(self) -> bool:
        """True when the section asks for SRTP (RFC 3711, RFC 5764)."""
        return "SAVP" in self.protocol


class SessionDescription:
    """A parsed description: ``lines`` and ``passing`` of the session level as of a section, then ``streams``.

    ``address`` is the session's c=, '' without one; ``origin`` the six fields of o= as sent.
    """

    __slots__ = ("address", "direction", "lines", "origin", "passing", "streams")

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.passing: list[str] = []
        self.address = ""
        self.direction: Direction = "sendrecv"
        self.origin: tuple[str, str, str, str, str, str] = ("", "", "", "", "", "")
        self.streams: list[MediaDescription] = []

    @staticmethod
    def parse(data: bytes) -> SessionDescription:
        """Read a description; raises SdpError when it breaks the grammar or a limit of this module."""
        usual = usual_description(SessionDescription, MediaDescription, _ATTRIBUTE_OWNERS, _STATIC_CLOCKS_HZ, data)
        return usual or SessionDescription.parse_any(data)

    @staticmethod
    def parse_any(data: bytes) -> SessionDescription:
        """:meth:`parse` without the short way for the usual audio call: the reference."""
        sdp = SessionDescription()
        media: MediaDescription | None = None
        section, passing = sdp.lines, sdp.passing
        owner_of = _ATTRIBUTE_OWNERS.get
        for line in _lines_of(data):
            kind = line[:2]
            if kind == "a=":
                name, _, value = line[2:].partition(":")
                owner = owner_of(name, _LOOK)
                if owner == _LOOK:
                    owner = _attribute(sdp, media, name, value)
            elif kind == "m=":
                if len(section) > MAX_LINES or len(sdp.streams) == MAX_STREAMS:
                    raise SdpError(f"more than {MAX_LINES} lines in a section, or than {MAX_STREAMS} m= lines")
                media = MediaDescription(line)
                sdp.streams.append(media)
                section, passing = media.lines, media.passing
                continue
            else:
                owner = _session_line(sdp, media, kind, line)
            section.append(line)
            if owner == KEEP:
                passing.append(line)
        if len(section) > MAX_LINES:
            raise SdpError(f"more than {MAX_LINES} lines in a section")
        if not sdp.origin[0]:
            raise SdpError("no o= line")
        return sdp

    def to_bytes(self) -> bytes:
        """The description as it came, with CRLF line ends."""
        lines = [*self.lines]
        for media in self.streams:
            lines += media.lines
        lines.append("")
        return "\r\n".join(lines).encode("utf-8", "surrogateescape")

    def address_of(self, media: MediaDescription) -> str:
        """The address that applies to a section: its own c=, else the session's, else ''."""
        return media.address or self.address

    def direction_of(self, media: MediaDescription) -> Direction:
        """RFC 8866 §6.7: the section's own direction, else the session's, else sendrecv."""
        return media.direction or self.direction


def concerns_user(line: str) -> bool:
    """True for a line about the user or the product, or one with a key in clear: it never crosses."""
    if line[:2] == "a=":
        return _ATTRIBUTE_OWNERS.get(line[2:].partition(":")[0]) == PERSONAL
    return line[:2] != "m=" and _LINE_OWNERS.get(line[:2], OWNED) in (PERSONAL, DISCARD)


def _lines_of(data: bytes) -> list[str]:
    """Lines without their ends; CRLF and LF both end a line, a CR or NUL anywhere else is an attempt to hide one."""
    if len(data) > MAX_BYTES:
        raise SdpError(f"larger than {MAX_BYTES} octets")
    text = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    if "\r" in text or "\0" in text:
        raise SdpError("a CR or NUL inside a line")
    lines = text.split("\n")
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise SdpError("empty")
    if lines[0] != "v=0":
        raise SdpError("does not begin with v=0")
    if len(lines) > MAX_LINES * (MAX_STREAMS + 1):
        raise SdpError("too many lines")
    return lines


def _session_line(sdp: SessionDescription, media: MediaDescription | None, kind: str, line: str) -> int:
    """Whose a line is that is neither a= nor m=; c= and o= are read."""
    if kind == "c=":
        address = _connection(line)
        if media is None:
            sdp.address = sdp.address or address
        else:
            media.address = media.address or address
        return OWNED
    if kind == "o=":
        if media is not None or sdp.origin[0]:
            raise SdpError("a second o= line")
        sdp.origin = _origin(line)
        return OWNED
    if kind == "v=":
        if sdp.lines or line != "v=0":
            raise SdpError("a second v= line")
        return OWNED
    owner = _LINE_OWNERS.get(kind)
    if owner is None:
        if kind[1:] != "=" or not "a" <= kind[0] <= "z":
            raise SdpError("a line that is not type=value")
        return DISCARD
    return owner


def _attribute(sdp: SessionDescription, media: MediaDescription | None, name: str, value: str) -> int:
    """Whose an attribute is that its name does not settle; what a relay needs of it is noted."""
    if name == "rtpmap":
        if media is not None and media.is_rtp:
            payload_type, _, encoding = value.partition(" ")
            if payload_type not in _PAYLOAD_TYPES:
                raise SdpError("a=rtpmap with a payload type outside 0-127")
            if payload_type == media.formats[0]:
                clock = encoding.split("/", 2)[1] if "/" in encoding else ""
                if clock.isascii() and clock.isdigit() and len(clock) <= 6 and int(clock) > 0:
                    media.clock_rate_hz = int(clock)
        return KEEP
    direction = _DIRECTIONS.get(name) or _DIRECTIONS.get(name.lower())
    if direction is not None and not value:
        if media is None:
            sdp.direction = direction
        else:
            media.direction = direction
        return KEEP
    if name == "ptime" or name == "maxptime":
        return KEEP if _sane_time(value) else DISCARD
    if name == "rtcp" or name == "rtcp-mux" or name == "rtcp-mux-only":
        if media is not None:
            _rtcp(media, name, value)
        return OWNED
    if name == "crypto":
        if media is not None:
            media.keys = media.keys or []
            media.keys.append(value)
            if len(media.keys) > MAX_KEYS:
                raise SdpError(f"more than {MAX_KEYS} a=crypto lines in one m= section")
        return TRANSPORT
    return DISCARD if holds_address(value) else KEEP


def _rtcp(media: MediaDescription, name: str, value: str) -> None:
    """a=rtcp:port [IN IP4 address] (RFC 3605) and a=rtcp-mux (RFC 5761). Without a usable port it says nothing."""
    if name == "rtcp":
        port = value.partition(" ")[0]
        if port.isascii() and port.isdigit():
            media.rtcp_port = _port(port)
    else:
        media.rtcp_mux = True


def _sane_time(value: str) -> bool:
    """A packet time that a peer could mean: above 0, up to 1000 ms (larger: CVE-2026-41416)."""
    whole = value.partition(".")[0]
    return len(value) <= 8 and whole.isascii() and whole.isdigit() and int(whole) <= 1000 and value.strip("0.") != ""


def _port(text: str) -> int:
    if not (0 < len(text) <= 5 and text.isascii() and text.isdigit()) or (port := int(text)) > 65535:
        raise SdpError("a port that is no number of 0-65535")
    return port


def _connection(line: str) -> str:
    """c=IN IP4 address[/ttl[/count]]: the address, canonical when it is a literal."""
    fields = line[2:].split()
    if len(fields) != 3 or fields[0].upper() != "IN" or fields[1].upper() not in ("IP4", "IP6"):
        raise SdpError("a c= line that is not 'IN IP4 address' or 'IN IP6 address'")
    text = fields[2].partition("/")[0]
    address = ip_literal(text)
    if not address and not is_host_name(text):
        raise SdpError("a c= line with neither an IP address nor a host name")
    return address or text


def _origin(line: str) -> tuple[str, str, str, str, str, str]:
    """The six fields of o= (RFC 8866 §5.2). Phones put blanks into the user name, so it is read from the right."""
    fields = line[2:].rstrip().rsplit(" ", 5)
    if len(fields) != 6 or not fields[0] or len(fields[5]) > 255:
        raise SdpError("an o= line without its six fields")
    user, session_id, version, network, family, address = fields
    if len(session_id) > 40 or len(version) > 40:
        raise SdpError("an o= line with numbers beyond all bounds")
    return user, session_id, version, network, family, address
