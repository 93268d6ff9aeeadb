"""What the core must know about its node: immutable, replaced as a whole on reload."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from media.protocol import IcePolicy, Latch, Srtp, Stream
from sbc.b2bua.call import Redirects
from sbc.b2bua.effects import RouteKind
from sbc.dialog.session_timer import Policy as SessionTimers
from sbc.policy.reply_codes import ReplyPolicies
from sbc.policy.wire import WirePolicy
from sbc.sdp.codecs import CodecFilter
from sbc.sdp.negotiate import NOTHING, Wish
from sbc.sip.digest import Credentials

# Headers of a request or response that cross to the other leg as they are. Everything that is not here and that we do
# not write ourselves stays behind: an unknown header may carry an address of the side that it came from.
PASS_HEADERS = frozenset({"Subject", "Priority", "Content-Type", "Content-Disposition", "Content-Language", "Accept"})

# What becomes of a REFER, and of an INVITE with Replaces, by the peer that it comes from.
TransferPolicy = Literal["terminate", "pass", "refuse"]

NO_SESSION_TIMERS = SessionTimers()
DATAGRAM_MAX_BYTES = 1300  # RFC 3261 §18.1.1, where the path MTU is unknown


def no_source_address(host: str) -> str:
    """Nobody knows by which address of ours a host is reached."""
    return ""


class Source(Protocol):
    """Who a message came from: a configured peer, the realm it is in, and its direction for the routes."""

    @property
    def peer(self) -> str: ...
    @property
    def realm(self) -> str: ...
    @property
    def direction(self) -> str: ...


class AdmissionPolicy(Protocol):
    """Who may speak to us, and how many calls they may have (``sbc.policy.admission.Admission``)."""

    def admit(self, listener: int, host: str, port: int, connection: int) -> Source | None:
        """The peer behind a source on a listener; None for a stranger."""

    def open_call(self, peer: str, now: float) -> int | None:
        """Count a call of this peer; a status to refuse it with when a limit is reached (then it is not counted)."""

    def count_call(self, peer: str) -> None:
        """Count a call that goes on here, whatever the limits."""

    def close_call(self, peer: str) -> None:
        """A call that was counted has ended."""


class MediaTargetPolicy(Protocol):
    """Where a peer may have us send media (``sbc.policy.media_targets.MediaTargets``)."""

    def check(self, streams: Iterable[Stream]) -> None:
        """Raises SdpError for a stream that must not be served."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One bound SIP socket, in the order of ``Flow.listener``; ``advertised_*`` is what peers are told."""

    realm: str
    transport: str
    host: str
    port: int
    advertised_host: str
    advertised_port: int


@dataclass(frozen=True, slots=True)
class RealmSettings:
    """A network that we face. ``user_agent`` empty: no User-Agent or Server header is sent there.

    ``nat``: ``always`` sends requests inside a dialog to where the other side's last message came from, ``never`` to
    its Contact, ``auto`` to its Contact unless that is a private address other than the one seen.

    ``reliable``: whether provisionals may be reliable there (RFC 3262); ``follow`` offers it to the called side where
    the calling side offers it too, ``always`` in any case.

    ``trusted``, ``preferred_identity`` and ``remote_party_id`` as in :class:`sbc.policy.identity.Trust`;
    ``pass_headers`` are headers that may cross into this realm as they are, besides those of the node.

    ``answers_to_via``: an answer to a datagram whose Via does not ask for rport goes to the port of that Via (RFC 3261
    §18.2.2), not to the one that it came from.

    ``datagram_max_bytes``: requests longer than that go by TCP where the realm listens for it; 0: none do.
    """

    name: str
    trusted: bool = False
    user_agent: str = ""
    nat: Literal["auto", "always", "never"] = "never"
    reliable: Literal["never", "follow", "always"] = "follow"
    preferred_identity: bool = False
    remote_party_id: bool = False
    pass_headers: tuple[str, ...] = ()
    datagram_max_bytes: int = DATAGRAM_MAX_BYTES
    answers_to_via: bool = False


@dataclass(frozen=True, slots=True)
class SrtpPolicies:
    """SRTP with each side (``media.keying``): by realm, and by peer where a peer has one of its own. ``dtls``: one of
    them may be that, which answers have to know as well as offers."""

    realms: Mapping[str, Srtp]
    peers: Mapping[str, Srtp]
    dtls: bool = True

    def of(self, realm: str, peer: str) -> Srtp:
        """The policy for a leg."""
        return self.peers.get(peer) or self.realms[realm]


@dataclass(frozen=True, slots=True)
class MediaProfile:
    """How media of one side are treated. ``latch`` as in the protocol of the media plane; ``srtp`` None: as
    :class:`SrtpPolicies` say; ``silence_s``, ``hold_silence_s`` and ``one_way_s`` 0: as for all; ``codecs`` for offers
    from and to that side; ``wish``: what it gets that the other side does not say; ``ice`` only with the srtp ``dtls``;
    ``music`` is the prompt that this side hears while the other one holds it, '' none; ``record`` how its calls are
    recorded."""

    latch: Latch = ""
    srtp: Srtp | None = None
    silence_s: float = 0.0
    hold_silence_s: float = 0.0
    one_way_s: float = 0.0  # -1: never
    dscp: int = 0
    codecs: CodecFilter | None = None
    wish: Wish = NOTHING
    ice: IcePolicy = "off"
    music: str = ""
    record: Literal["off", "wav", "pcap"] = "off"


@dataclass(frozen=True, slots=True)
class MediaProfiles:
    """Those that ask for something: by name, and by peer. Leg A has the one that its call was engaged under."""

    named: Mapping[str, MediaProfile] = field(default_factory=dict)
    peers: Mapping[str, MediaProfile] = field(default_factory=dict)

    def of_branch(self, peer: str, profile: str) -> MediaProfile | None:
        """That of a branch to ``peer``, for which a route may have chosen another ``profile``."""
        return self.named.get(profile) if profile else self.peers.get(peer)


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Everything that the core takes from the configuration. Times in seconds.

    ``routes`` names the kinds for which the routes module has a registered route, so that no effect is made where
    nobody listens (REQUEST is always asked for). ``t1_s`` .. ``timer_c_s`` as in RFC 3261 table 4.
    ``media_targets`` by realm; a realm without one may have media sent anywhere.
    ``source_address`` tells from which address of this machine a host is reached,  when it cannot be told; asked only
    where a realm has several listeners to choose from.
    ``shard_key`` is the node's secret for :func:`sbc.sip.shard.shard_of`.
    """

    node: str
    listeners: tuple[ListenerSettings, ...]
    realms: Mapping[str, RealmSettings]
    admission: AdmissionPolicy
    shard_key: bytes
    unknown_sources: Literal["drop", "refuse"] = "drop"
    routes: frozenset[RouteKind] = frozenset({RouteKind.REQUEST})
    t1_s: float = 0.5
    t2_s: float = 4.0
    t4_s: float = 5.0
    timer_c_s: float = 180.0
    dialog_lifetime_s: float = 43_200.0
    setup_record_after_s: float = 0.3  # a call that is in setup for longer is in the journal; 0: none is
    session_timers: SessionTimers = NO_SESSION_TIMERS
    ping_interval_s: float = 0.0  # 0: no pings inside dialogs
    ping_method: Literal["options", "invite"] = "options"
    drain_retry_after_s: int = 10
    pass_headers: frozenset[str] = PASS_HEADERS
    boot: str = ""  # whose monotonic clock it is (sbc.clock.boot): what a record says of its times; '': nobody knows
    slot: int = 0  # of this worker; shard % slots of what it owns
    slots: int = 1
    transfers: Mapping[str, TransferPolicy] = field(default_factory=dict)  # by peer; refuse for one that is not there
    media_targets: Mapping[str, MediaTargetPolicy] = field(default_factory=dict)  # by realm
    media_profiles: MediaProfiles = field(default_factory=MediaProfiles)
    srtp: SrtpPolicies | None = None  # None: off everywhere
    source_address: Callable[[str], str] = no_source_address
    follow_redirects: Mapping[str, Redirects] = field(default_factory=dict)  # by peer; never where it is not here
    credentials: Mapping[str, Credentials] = field(default_factory=dict, repr=False)  # by peer: whom we are there
    registration_required: frozenset[str] = frozenset()  # peers that are called only while we are registered there
    wire: Mapping[str, WirePolicy] = field(default_factory=dict)  # by peer, of those that have any
    replies: ReplyPolicies | None = None  # None: refusals are told as they are

    def owns(self, shard: int) -> bool:
        """Whether this worker is the one for a shard."""
        return shard % self.slots == self.slot
