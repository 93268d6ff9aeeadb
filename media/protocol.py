"""The control protocol of the media plane, and the only bridge between ``sbc`` and ``media``.

A SIP worker (ZeroMQ DEALER) sends messages to a media worker (ROUTER) and gets messages of the same shape back. A
message has three frames, ``[VERSION, ids, bodies]``, and carries 1 to MAX_BATCH requests or replies: ``ids`` is one
request id after the other, ``bodies`` the JSON object of each, in the same order, one a line (a lone body may be any
JSON text). So everything that one side has to say at a time costs one message, and a broken body spoils no other.

A request id is 8 octets, big endian, chosen by the client; the same id sent again gets the cached reply. Which requests
came together says nothing about which replies do. Id 0 marks notifications from the worker. A request is an object with
the key ``do``; requests and replies leave out what is at its default. What does not fit the types below (unknown keys,
wrong types) is refused. An empty message (what ZMQ_PROBE_ROUTER sends) makes a client known to the worker before it
asks for anything.

Session and leg: a *session* is the relay state of one call; a *leg* is one side of it, named ``a``, ``b1``, ``b2`` ...
``offer`` takes the streams that leg ``from_leg`` described and returns the endpoints to show to ``to_leg``; ``answer``
takes the streams that ``from_leg`` answered and returns the endpoints to show to ``to_leg``, and arms forwarding
between the two. Either side may offer later (re-INVITE): the leg names say who. ``offer`` opens the session when it is
new, so an explicit ``engage`` is needed only to reserve a worker before any SDP is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import msgspec

VERSION = b"3"
NOTIFICATION = b"\0" * 8
ID_BYTES = 8
MAX_BATCH = 64  # requests or replies of one message
MAX_BATCH_BYTES = 64 * 1024  # of their bodies; one alone may be longer

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
Srtp = Literal["off", "optional", "required", "pass", "dtls"]  # see media.keying
IcePolicy = Literal["off", "lite"]  # lite: the leg has to find us by STUN (RFC 8445 §2.5)
Setup = Literal["", "active", "passive", "actpass"]  # a=setup (RFC 4145 §4), "": not said
# Whose packets are taken for those of a leg: "" as its realm says; fixed: only those of the address that it described;
# signalled: where that is a private one, also the first from elsewhere; learn: the first, whatever it described.
Latch = Literal["", "fixed", "signalled", "learn"]
Dscp = Annotated[int, msgspec.Meta(ge=0, le=63)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
PayloadType = Annotated[int, msgspec.Meta(ge=0, le=127)]
Clock = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
# Codecs that are built where the headers of a Debian package are there: the module, the package.
OPTIONAL_CODECS = {"G722": ("media._g722", "libspandsp-dev"), "opus": ("media._opus", "libopus-dev")}


class Part(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """An object of the protocol."""


class Asking(Part, tag_field="do"):
    """A request; its tag is its name on the wire."""


_SECRET = frozenset({"keys", "password"})


class Keyed(Part):
    """With keys, which must not show where objects are printed."""

    def __repr__(self) -> str:
        fields = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in _SECRET)
        return f"{type(self).__name__}({', '.join(fields)})"


class Ice(Keyed):
    """a=ice-ufrag and a=ice-pwd of one stream (RFC 8839 §5.4), of its own or of the session."""

    ufrag: str
    password: str


class Stream(Keyed):
    """One m= line as one leg described it: where that leg wants to receive.

    ``port`` 0 is a rejected stream: it keeps its index and gets no endpoint. ``rtcp_port`` 0 means port + 1, or the
    same port with ``rtcp_mux``. ``clock_rate_hz`` is that of the first payload type, for jitter. ``keys`` are the
    values of its a=crypto lines (RFC 4568), which nobody may write into a log.

    ``fingerprints`` are the values of a=fingerprint (RFC 8122) and ``setup`` that of a=setup, of the stream or of the
    session. ``formats`` are the payload types of the m= line in their order, where the profile of the call needs them:
    "0" for a static one without a=rtpmap, else number, name/clock[/channels] and what a=fmtp says, as in
    "101 telephone-event/8000 0-16".
    """

    address: str
    port: int
    kind: str = "audio"
    protocol: str = "RTP/AVP"
    rtcp_port: int = 0
    rtcp_mux: bool = False
    direction: Direction = "sendrecv"
    clock_rate_hz: int = 8000
    keys: list[str] = []
    ice: Ice | None = None
    fingerprints: list[str] = []
    setup: Setup = ""
    formats: list[str] = []


class Endpoint(Keyed):
    """Where a leg is to send one stream: our advertised address. ``port`` 0 mirrors a rejected stream.

    ``protocol`` is that of its m= line, "" for the one of the other leg; ``keys`` as in Stream. ``rtcp_port`` equal to
    ``port`` is a=rtcp-mux. With ``ice`` the address and port are our only candidate, and we are ICE lite;
    ``fingerprint`` and ``setup`` are what DTLS-SRTP takes. ``formats`` empty: those of the other leg.
    """

    address: str
    port: int
    rtcp_port: int
    protocol: str = ""
    keys: list[str] = []
    ice: Ice | None = None
    fingerprint: str = ""
    setup: Setup = ""
    formats: list[str] = []


class Conversion(Part):
    """What becomes of one payload type on its way to a leg: ``number`` as it comes, ``to`` as it leaves (-1: it does
    not go on). ``codec`` is PCMU, PCMA, G722, opus or telephone-event, "" for any other; where ``to_codec`` is another
    one ("": the same), it is transcoded. Clock rates as in a=rtpmap; ``to_clock_hz`` 0: the same."""

    number: PayloadType
    to: Annotated[int, msgspec.Meta(ge=-1, le=127)] = -1
    codec: str = ""
    to_codec: str = ""
    clock_hz: Clock = 8000
    to_clock_hz: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0


class Way(Part):
    """What is done with one stream on its way to a leg; payload types that are not named do not go on.

    ``digits`` is the payload type of telephone-event that the leg takes (-1: none), ``packet_ms`` the packet time of
    what is encoded anew (0: as it comes). With ``tell`` the owner of the session is told of each digit of the other
    leg: ``{"event": "dtmf", "session", "leg", "digit", "duration_ms"}``.
    """

    formats: Annotated[list[Conversion], msgspec.Meta(max_length=16)] = []
    digits: Annotated[int, msgspec.Meta(ge=-1, le=127)] = -1
    digits_clock_hz: Clock = 8000
    packet_ms: Annotated[int, msgspec.Meta(ge=0, le=60)] = 0
    tell: bool = False


class Processing(Part):
    """Of one stream of an answer: the way to the leg that answers, and the one to the leg that had offered. None:
    packets pass as they come."""

    to_answerer: Way | None = None
    to_offerer: Way | None = None


class Engage(Asking, tag="engage"):
    """Open a session and pin it to the worker that answers."""

    session: str


class Seat(Part):
    """A leg of another session that is to join this one as its ``leg`` (see :class:`Join`): ``of`` names both."""

    leg: str
    of: tuple[str, str]  # session, leg


class Offer(Asking, tag="offer"):
    """``from_leg`` (in ``from_realm``) offered ``streams``: allocate endpoints facing ``to_leg`` (in ``to_realm``).

    Where ``to_leg`` is the ``seat`` of a leg whose association it can keep, the endpoints are those that the leg has.
    A worker that drains takes a new session with a seat for a leg that it has.
    """

    session: str
    from_leg: str
    to_leg: str
    from_realm: str
    to_realm: str
    streams: list[Stream]
    # Where the signalling of from_leg came from: a latch for a leg behind NAT may prefer it.
    from_signalling: str = ""
    from_srtp: Srtp = "off"
    to_srtp: Srtp = "off"
    from_ice: IcePolicy = "off"
    to_ice: IcePolicy = "off"
    from_latch: Latch = ""
    # what is sent to a leg is marked so (RFC 2474), from the first offer on that names the leg
    from_dscp: Dscp = 0
    to_dscp: Dscp = 0
    silence_s: float = 0.0  # without a packet, then the session's owner is told; 0: as the worker is configured
    hold_silence_s: float = 0.0  # the same while every stream is held
    one_way_s: float = 0.0  # that only one leg sends, then the owner is told; 0: as the worker is configured, -1: never
    seat: Seat | None = None


class Join(Asking, tag="join"):
    """The leg that a seat was for takes it, with its port, its ICE and its DTLS association; where it has no such
    thing, nothing happens. It has ``offered`` or answered what the seat was described by; both sessions live on."""

    session: str
    seat: Seat
    offered: bool = False


class Answer(Asking, tag="answer"):
    """``from_leg`` answered ``streams``; return the endpoints that face ``to_leg`` and forward between both legs."""

    session: str
    from_leg: str
    to_leg: str
    streams: list[Stream]
    from_signalling: str = ""
    from_latch: Latch = ""
    processing: list[Processing] = []  # one for each stream; empty: all pass as they come


class Dtmf(Asking, tag="dtmf"):
    """Send digits to a leg, as RFC 4733 events in the first of its streams that takes any, instead of what its peer
    says meanwhile. Refused as ``unsupported`` where none does, and where more wait than is sensible."""

    session: str
    leg: str
    digits: Annotated[str, msgspec.Meta(pattern="^[0-9*#A-D]{1,32}$")]
    duration_ms: Annotated[int, msgspec.Meta(ge=40, le=8000)] = 100  # of each
    pause_ms: Annotated[int, msgspec.Meta(ge=40, le=2000)] = 60  # after each


class Delete(Asking, tag="delete"):
    """End one leg (a losing branch), or with ``leg`` empty the session; the reply carries the statistics."""

    session: str
    leg: str = ""


class Query(Asking, tag="query"):
    """Statistics of one session, with what was sampled in the last so many seconds, up to 60."""

    session: str
    samples: Natural = 0


class ListSessions(Asking, tag="list"):
    """Session ids of this worker, at most ``limit`` from ``offset``; only those of clients whose identity begins with
    ``owner``. The reply has their number, and tells whether the worker drains."""

    offset: Natural = 0
    limit: Natural = 1000
    owner: str = ""


class Drain(Asking, tag="drain"):
    """Refuse new sessions (``on``) while the present ones go on."""

    on: bool = True


class Play(Asking, tag="play"):
    """Let a leg hear a WAV of the worker's prompts instead of its peer, from ``at_ms`` of it on, ``repeat`` times (0:
    until it is stopped). What it hears already ends.

    ``formats`` are the payload types that the leg receives, written as in Stream; none: PCMU and PCMA under their
    static numbers. The first that we can encode to is used. ``number`` comes back in the notification ``played``, which
    says ``reason``: ``end``, ``stopped``, ``replaced``, or ``failed`` with a sentence as ``text``.
    """

    session: str
    leg: str
    file: str
    repeat: Natural = 1
    at_ms: Natural = 0
    formats: list[str] = []
    stream: Natural = 0
    number: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0


class Stop(Asking, tag="stop"):
    """Let a leg hear its peer again; also where nothing is played."""

    session: str
    leg: str


class Record(Asking, tag="record"):
    """Write what the legs of a session send into a file of the worker's recordings, or end that (``on`` False).

    A WAV has ``left`` on its left and the other legs on its right; a pcap has all RTP and RTCP in clear. Streams of
    index ``stream``. The suffix ``.wav`` or ``.pcap`` is added; a file that exists is never written to. ``formats`` as
    in Play: what the legs send. The notification ``recorded`` has ``file``, ``reason`` (``end``, or ``failed`` with a
    sentence as ``text``) and how many packets the file lacks; ``recording_lost`` comes at the first of them.
    """

    session: str
    on: bool = True
    file: str = ""
    format: Literal["wav", "pcap"] = "wav"
    left: str = "a"
    formats: list[str] = []
    stream: Natural = 0


Request = Engage | Offer | Join | Answer | Dtmf | Delete | Query | ListSessions | Drain | Play | Stop | Record


class Judged(Part):
    """One direction of one stream of one leg over its seconds with packets: MOS on average and in the worst second (so
    long after the first), how many seconds were below 3.6, packets lost in all, the greatest jitter."""

    seconds: int = 0
    mos: float = 0.0
    mos_min: float = 0.0
    worst_s: int = 0
    low_s: int = 0
    lost: int = 0
    jitter_ms: float = 0.0


class Quality(Part):
    """How one stream of one leg went: ``received`` is what the leg sent, as we got it, ``reported`` what it says by
    RTCP of what we sent (its losses are those of the whole way from the other leg). ``rtt`` is between us and the leg,
    -1: not known. ``one_way_s``: seconds in which the leg should have sent, did not, and its peer did.

    ``samples`` are rows, oldest first, of: age in seconds, then packets, lost, jitter in ms and MOS received, packets,
    lost, jitter in ms and MOS sent, round trip in ms; 0 for what is not known.
    """

    received: Judged | None = None
    reported: Judged | None = None
    rtt_ms: float = -1.0
    rtt_min_ms: float = -1.0
    rtt_avg_ms: float = -1.0
    rtt_max_ms: float = -1.0
    one_way_s: int = 0
    samples: list[list[float]] = []


class StreamStats(Part):
    """Counters of one stream of one leg; ``in`` is what that leg sent to us.

    ``mos`` is the E-model estimate (ITU-T G.107) of what we received from the leg, 1.0 to 4.5, 0 without packets.
    ``remote`` is the address in use, ``latched`` True once it was learned from a packet.
    """

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    rtcp_in: int = 0
    rtcp_out: int = 0
    lost: int = 0
    reordered: int = 0
    duplicates: int = 0
    jitter_ms: float = 0.0
    mos: float = 0.0
    refused: int = 0
    remote: str = ""
    latched: bool = False
    last_packet_age_ms: int = -1
    quality: Quality | None = None  # of a stream that has carried something for a second or more


class Reply(Part):
    """What a media worker answers.

    ``ok`` False is a typed refusal: ``code`` is one of the REFUSALS, ``reason`` a sentence, ``elsewhere`` tells whether
    another worker may be tried for a new session.
    """

    ok: bool = True
    code: str = ""
    reason: str = ""
    elsewhere: bool = False
    worker: str = ""
    endpoints: list[Endpoint] = []
    # by leg, then by stream index
    stats: dict[str, list[StreamStats]] = {}
    sessions: list[str] = []
    total: int = 0
    draining: bool = False
    file: str = ""  # where a recording goes


# code -> may another worker be tried for a new session
REFUSALS: dict[str, bool] = {
    "malformed": False,  # the request does not fit the protocol
    "unknown_realm": False,  # no such interface on this worker
    "unknown_session": False,
    "unknown_leg": False,
    "no_ports": True,  # the realm's port range is used up
    "draining": True,
    "full": True,  # session table full
    "unsupported": False,  # a profile or transport that this worker cannot serve
    "no_file": False,  # no such prompt, none that may be read, or no place for a recording
    "bad_file": False,  # no WAV that we can read
    "no_codec": False,  # no codec of the stream that we can encode to, or write into a WAV
    "internal": False,  # a fault of the worker, told in its log
    "timeout": True,  # minted by the client: no reply before the deadline
    "unreachable": True,  # minted by the client: the worker is not there
}


Item = tuple[bytes, bytes]  # id and body


def messages(items: Sequence[Item]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The frames of as few messages as carry ``items`` in their order. Bodies are single lines, as ``encode`` gives."""
    if len(items) == 1:
        yield VERSION, *items[0]
        return
    ids: list[bytes] = []
    bodies: list[bytes] = []
    size = 0
    for item_id, body in items:
        if ids and (len(ids) == MAX_BATCH or size + len(body) > MAX_BATCH_BYTES):
            yield VERSION, b"".join(ids), b"\n".join(bodies)
            ids, bodies, size = [], [], 0
        ids.append(item_id)
        bodies.append(body)
        size += len(body)
    if ids:
        yield VERSION, b"".join(ids), b"\n".join(bodies)


def items(frames: Sequence[bytes]) -> list[Item]:
    """What one message carries; raises ValueError when its frames do not fit (bodies are not looked at)."""
    if len(frames) != 3 or frames[0] != VERSION:
        raise ValueError("not the frames of this version")
    _, ids, bodies = frames
    size = len(ids)
    if size == ID_BYTES:
        return [(ids, bodies)]
    if not size or size % ID_BYTES or size > MAX_BATCH * ID_BYTES:
        raise ValueError("not a number of ids")
    lines = bodies.split(b"\n", MAX_BATCH)
    if len(lines) * ID_BYTES != size:
        raise ValueError("not one body for each id")
    return [(ids[at : at + ID_BYTES], line) for at, line in zip(range(0, size, ID_BYTES), lines, strict=True)]


_encoder = msgspec.json.Encoder()
_request_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_reply_decoder = msgspec.json.Decoder(Reply)


# JSON of a request, with its name under ``do``; raises ValueError for text that is no Unicode
encode: Callable[[Request], bytes] = _encoder.encode


def decode_request(data: bytes) -> Request:
    """Read a request; raises ValueError when it is not one."""
    try:
        return _request_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None


encode_reply: Callable[[Reply], bytes] = _encoder.encode  # JSON of a reply


def decode_reply(data: bytes) -> Reply:
    """Read a reply; raises ValueError when it is not one."""
    try:
        return _reply_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a media reply: {error}") from None
