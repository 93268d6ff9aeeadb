"""The configuration as frozen models: the only place where defaults live. Unknown keys are errors."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from media.protocol import Srtp
from sbc.config.base import HOST, Model
from sbc.config.budget import RoutesBudget
from sbc.config.dry_runs import DryRun
from sbc.config.ha import Ha
from sbc.config.header_rules import HeaderRule, RuleLists
from sbc.config.lookups import Lookups
from sbc.config.matching import Match
from sbc.config.media import (
    BUILT_IN_PROFILES,
    LOCAL_SET,
    MEDIA_URL,
    MediaFiles,
    MediaHealth,
    MediaMember,
    MediaProfile,
    curve_key,
)
from sbc.config.nat import Nat, Pings
from sbc.config.number_plans import NumberPlan
from sbc.config.reply_codes import ReplyTable, ReplyTables, Statuses, failover


def _not_a_number(value: Any) -> Any:  # Any: whatever the YAML held
    """ipaddress takes 5 for 0.0.0.5; an operator never means that."""
    if isinstance(value, int | float):
        raise ValueError(f"'{value}' is not an IP address")
    return value


IpAddress = Annotated[ipaddress.IPv4Address | ipaddress.IPv6Address, BeforeValidator(_not_a_number)]
IpNetwork = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, BeforeValidator(_not_a_number)]

_LISTEN = re.compile(
    rf"^(?P<transport>[a-z]+):(?P<host>{HOST}):(?P<port>\d{{1,5}})"
    rf"(?: as (?P<seen_host>{HOST})(?::(?P<seen_port>\d{{1,5}}))?)?$"
)
_NAME_SERVER = re.compile(r"^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)|([0-9a-fA-F:]+:[0-9a-fA-F:.]*$))(?::(\d{1,5}))?$")
_SIP_URI = re.compile(
    r"^sips?:(?:[-A-Za-z0-9_.!~*'()&=+$,;?/%:]+@)?(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?"
    r"(?:;[-A-Za-z0-9_.!~*'()%]+(?:=[-A-Za-z0-9_.!~*'()%:\[\]/&+$]+)?)*$"
)
_PORTS = re.compile(r"^(\d{1,5})-(\d{1,5})$")


class Listen(Model):
    """One bound SIP socket, written ``udp:10.0.0.5:5060``, ``tls:10.0.0.5:5061`` or ``tcp:[2001:db8::1]:5060``; behind
    a firewall that maps this address, with what peers are to use: ``udp:10.0.0.5:5060 as 203.0.113.7:5070``."""

    transport: Literal["udp", "tcp", "tls", "ws", "wss"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    advertise: IpAddress | None = None  # instead of the realm's
    advertise_port: Annotated[int, Field(ge=1, le=65535)] | None = None  # none: the bound one

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:  # Any: whatever the YAML held
        if not isinstance(value, str):
            return value
        match = _LISTEN.match(value)
        if match is None:
            raise ValueError(f"{value!r} is not transport:address:port, for example udp:10.0.0.5:5060")
        host = match["host"].strip("[]")
        read: dict[str, object] = {
            "transport": match["transport"],
            "host": str(ipaddress.ip_address(host)),
            "port": int(match["port"]),
        }
        if match["seen_host"]:
            read["advertise"] = match["seen_host"].strip("[]")
        if match["seen_port"]:
            read["advertise_port"] = int(match["seen_port"])
        return read

    @property
    def text(self) -> str:
        """As it is written, without what is advertised."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}:{host}:{self.port}"

    @property
    def is_stream(self) -> bool:
        """Whether it accepts connections."""
        return self.transport != "udp"

    @property
    def is_secure(self) -> bool:
        """Whether its connections are encrypted."""
        return self.transport in ("tls", "wss")


def _port_range(value: Any) -> Any:  # Any: whatever the YAML held
    if isinstance(value, str):
        match = _PORTS.match(value)
        if match is None:
            raise ValueError(f"{value!r} is not a port range, for example 30000-39999")
        return (int(match[1]), int(match[2]))
    return value


PortRange = Annotated[tuple[int, int], BeforeValidator(_port_range)]


class RealmMedia(Model):
    """Where media faces this realm: the address we bind, the one we advertise, the ports we may use, and SRTP."""

    address: IpAddress
    advertise: IpAddress | None = None
    ports: PortRange = (30000, 39999)
    # optional: as they like, OSRTP (RFC 8643); required; pass: keys stay with the two ends; dtls: DTLS-SRTP (RFC 5763)
    srtp: Srtp = "off"

    @field_validator("ports")
    @classmethod
    def _order(cls, value: tuple[int, int]) -> tuple[int, int]:
        low, high = value
        if not 1024 <= low < high <= 65535:
            raise ValueError(f"{low}-{high}: the range must rise within 1024-65535")
        return value


_SERVER_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[-a-z0-9_]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


def _server_name(value: Any) -> Any:  # Any: whatever the YAML held
    """A host name, or ``*.`` and one: any single label before it (RFC 6125 §6.4.3)."""
    if not isinstance(value, str):
        return value
    name = value.lower().removesuffix(".")
    if not _SERVER_NAME.fullmatch(name):
        raise ValueError(f"{value!r} is not a host name, for example sip.example.com or *.example.com")
    return name


ServerName = Annotated[str, BeforeValidator(_server_name)]


class NamedCertificate(Model):
    """A further certificate of a realm, for clients that ask for one of these names (SNI, RFC 6066 §3)."""

    names: Annotated[list[ServerName], Field(min_length=1)]
    certificate: str  # with the chain behind it
    key: str


class Tls(Model):
    """Certificates of a realm, as PEM files. The first is for clients that name none of the others' names, and for the
    connections that we make.

    ``verify``: ``server`` checks whom we connect to, ``peer`` also asks who connects for a certificate of ``ca``,
    ``none`` checks nobody.
    """

    certificate: str  # with the chain behind it
    key: str
    by_name: list[NamedCertificate] = []
    ca: str = ""  # empty: the authorities that this machine trusts
    verify: Literal["none", "server", "peer"] = "server"


# What makes a message one of its dialog, transaction or side is ours to write; nothing of it can pass.
_OURS = frozenset(
    {
        *("via", "v", "from", "f", "to", "t", "call-id", "i", "cseq", "contact", "m", "max-forwards", "route"),
        *("record-route", "path", "service-route", "content-length", "l", "content-type", "c", "require"),
        *("proxy-require", "supported", "k", "unsupported", "allow", "session-expires", "x", "min-se", "rseq", "rack"),
        *("authorization", "proxy-authorization", "www-authenticate", "proxy-authenticate", "authentication-info"),
        *("p-asserted-identity", "p-preferred-identity", "remote-party-id", "privacy", "diversion", "history-info"),
        *("user-agent", "server", "reason", "replaces", "join", "retry-after"),
    }
)


def _pass_header(name: Any) -> Any:  # Any: whatever the YAML held
    if isinstance(name, str) and not re.fullmatch(r"[-.!%*_+`'~A-Za-z0-9]+", name):
        raise ValueError(f"{name!r} is not the name of a header")
    if isinstance(name, str) and name.lower() in _OURS:
        raise ValueError(f"{name} is written by the SBC itself and cannot pass")
    return name


PassHeader = Annotated[str, BeforeValidator(_pass_header)]


class Realm(Model):
    """A network that we face."""

    listen: Annotated[list[Listen], Field(min_length=1)]
    advertise: IpAddress | None = None
    tls: Tls | None = None
    media: RealmMedia
    media_set: str = LOCAL_SET  # the media workers for calls from it
    trusted: bool = False
    nat: Nat = "never"
    keep_alive: Pings = None  # to phones that registered through us
    preferred_identity: bool = False  # its P-Preferred-Identity is asserted by us (RFC 3325): users are authenticated
    remote_party_id: bool = False  # it also gets the older Remote-Party-ID
    pass_headers: list[PassHeader] = []  # further headers that may cross into this realm as they are
    header_rules: RuleLists = RuleLists()  # before those of the peer
    reply_codes: ReplyTables = ReplyTables()  # for peers without tables of their own
    number_plan: str = ""  # how peers without a plan of their own write numbers; empty: as they like
    reliable_provisionals: Literal["never", "follow", "always"] = "follow"  # 100rel (RFC 3262)
    user_agent: str = ""
    # Answers to datagrams whose Via does not ask for rport (RFC 3581) go to where these came from, as NAT needs it, or
    # to the port of the Via (RFC 3261 §18.2.2), for gateways that do not listen on the port that they send from.
    answers_to: Literal["source", "via"] = "source"
    # Longer requests go by TCP where the realm listens for it (RFC 3261 §18.1.1); 0: all go as datagrams.
    udp_request_max_bytes: Annotated[int, Field(ge=0, le=65_507)] = 1300

    def advertised(self, listen: Listen) -> tuple[str, int]:
        """Address and port of a listener that peers are told. The realm's address stands for those of its IP version
        that have none of their own."""
        port = listen.advertise_port or listen.port
        if listen.advertise is not None:
            return str(listen.advertise), port
        if self.advertise is not None and self.advertise.version == ipaddress.ip_address(listen.host).version:
            return str(self.advertise), port
        return listen.host, port


def _network_list(value: Any) -> Any:  # Any: whatever the YAML held
    return [value] if isinstance(value, str) else value


def _unless_false(value: Any) -> Any:  # Any: whatever the YAML held
    return None if value is False else value


class Auth(Model):
    """Whom we are to a peer that challenges us (RFC 3261 §22.2), and for which realm of its; empty: any."""

    username: Annotated[str, Field(min_length=1)]
    password: SecretStr
    realm: str = ""


class Registration(Model):
    """How we register at a peer (RFC 3261 §10.2); ``true`` takes everything from the peer's gateway and auth."""

    registrar: str = ""  # the domain as a SIP URI; empty: that of the gateway
    proxy: str = ""  # SIP URI that REGISTER is sent to; empty: the registrar
    aor: str = ""  # SIP URI of what is registered; empty: the user of auth at the registrar
    contact_user: str = ""  # user part of our Contact, which calls from the peer bring; empty: that of the aor
    expires_s: Annotated[int, Field(ge=10, le=86_400)] = 3600  # what we ask for
    required: bool = False  # calls to the peer fail (503, next gateway) while we are not registered there

    @model_validator(mode="before")
    @classmethod
    def _from_flag(cls, value: Any) -> Any:  # Any: whatever the YAML held
        return {} if value is True else value

    @field_validator("registrar", "proxy", "aor")
    @classmethod
    def _uri(cls, value: str) -> str:
        return _sip_uri(value)

    @field_validator("contact_user")
    @classmethod
    def _user(cls, value: str) -> str:
        if not re.fullmatch(r"[-A-Za-z0-9_.!~*'()&=+$,;?/%]*", value):
            raise ValueError(f"{value!r} is not the user part of a SIP URI")
        return value


def _sip_uri(value: str) -> str:
    if value and not _SIP_URI.match(value):
        raise ValueError(f"{value!r} is not a SIP URI, for example sip:198.51.100.5:5060")
    return value


class Peer(Model):
    """A known source, and where calls to it go."""

    realm: str
    addresses: Annotated[list[IpNetwork], BeforeValidator(_network_list), Field(min_length=1)]
    match: Match | None = None  # what it must come by, besides one of its addresses
    direction: str = ""
    gateway: str = ""  # SIP URI that calls to this peer are sent to
    tls_name: str = ""  # the name its certificate must bear; empty: the host of its gateway
    calls_to: str = ""  # the peer that calls from this one go to, for the built-in routes
    auth: Auth | None = None  # our credentials there
    registration: Annotated[Registration | None, BeforeValidator(_unless_false), Field(alias="register")] = None
    profile: str = "default"  # media profile
    media_set: str = ""  # the media workers for calls from it; empty: those of its realm
    srtp: Srtp | None = None  # instead of its realm's
    # Whose Contacts are tried where this peer redirects a call: nobody's, its own, or those of any peer in its realm.
    follow_redirects: Literal["never", "peer", "realm"] = "never"
    # REFER and Replaces from it: done by us under its routes and limits, passed to the other side, or refused
    transfers: Literal["terminate", "pass", "refuse"] = "terminate"
    header_rules: RuleLists = RuleLists()  # after those of its realm
    number_plan: str = ""  # instead of its realm's
    reply_codes: ReplyTables = ReplyTables()  # how its refusals are told, and how it is told those of others
    failover_on: Annotated[Statuses, AfterValidator(failover)] = []  # instead of 408, 480, 500 and 502 to 504
    max_calls: Annotated[int, Field(ge=0)] = 0  # 0: no limit
    max_cps: Annotated[float, Field(ge=0)] = 0

    @field_validator("gateway")
    @classmethod
    def _uri(cls, value: str) -> str:
        return _sip_uri(value)


def _auto(value: Any) -> Any:  # Any: whatever the YAML held
    return 0 if value == "auto" else value


WorkerCount = Annotated[int, BeforeValidator(_auto), Field(ge=0, le=64)]


class Workers(Model):
    """How many workers; 0 (written ``auto``) is one per processor."""

    sip: WorkerCount = 0
    media: WorkerCount = 0


class Timers(Model):
    """SIP base timers (RFC 3261 §17.1.1.1) and our own limits."""

    t1_ms: Annotated[int, Field(ge=10, le=5000)] = 500
    t2_ms: Annotated[int, Field(ge=100, le=32000)] = 4000
    t4_ms: Annotated[int, Field(ge=100, le=32000)] = 5000
    invite_timeout_s: Annotated[float, Field(gt=0)] = 180.0  # Timer C, and the longest ringing
    commit_timeout_ms: Annotated[int, Field(ge=0, le=5000)] = 50  # how long a 200 to INVITE waits for the journal
    setup_record_after_ms: Annotated[int, Field(ge=0, le=60_000)] = 300  # in setup for longer: in the journal; 0: never
    media_timeout_ms: Annotated[int, Field(ge=10, le=5000)] = 250  # deadline of one request to a media worker
    media_silence_s: Annotated[float, Field(ge=1, le=86400)] = 60.0  # an answered call without a packet ends
    media_hold_silence_s: Annotated[float, Field(ge=0, le=86400)] = 3600.0  # the same on hold; 0: never
    media_one_way_s: Annotated[int, Field(ge=0, le=3600)] = 10  # only one side sends: told after so long; 0: never
    dialog_lifetime_s: Annotated[int, Field(ge=60)] = 43_200
    session_expires_s: Annotated[int, Field(ge=0, le=86_400)] = 1800  # RFC 4028, per leg; 0: no session timers
    ping_interval_s: Annotated[int, Field(ge=0, le=86_400)] = 0  # pings inside dialogs, to find dead calls; 0: none
    ping_method: Literal["options", "invite"] = "options"
    min_se_s: Annotated[int, Field(ge=90, le=86_400)] = 90  # the shortest session interval that we agree to
    drain_timeout_s: Annotated[float, Field(ge=0)] = 30.0


class Connections(Model):
    """Limits of stream connections (TCP, TLS, WebSocket), for each SIP worker."""

    per_source: Annotated[int, Field(ge=1)] = 100  # accepted ones from one address, handshakes included
    total: Annotated[int, Field(ge=1)] = 10_000  # accepted ones
    idle_timeout_s: Annotated[float, Field(gt=0)] = 900.0  # without a message or keep-alive
    message_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 4.8  # from a message's first octet to its last
    handshake_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 5.0  # of TLS, and of WebSocket after it
    connect_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 3.0  # of connections that we make, TLS included
    message_max_bytes: Annotated[int, Field(ge=1024, le=65_535)] = 65_535
    head_max_bytes: Annotated[int, Field(ge=1024, le=65_535)] = 32_768  # start line and headers
    header_lines_max: Annotated[int, Field(ge=20, le=200)] = 200


class Cdr(Model):
    """Where call records go besides the database."""

    csv: str = ""  # a file; empty: none
    spool: str = ""  # the folder where they are kept until they are in the database; empty: spool in state_dir
    when_full: Literal["refuse", "serve"] = "refuse"  # new calls while 100,000 of a worker wait for store or disk


class Management(Model):
    """Prometheus metrics over HTTP, empty to switch off."""

    metrics: str = "127.0.0.1:9090"


class Log(Model):
    """``auto`` is readable text on a terminal and JSON otherwise."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


def _name_server(value: Any) -> Any:  # Any: whatever the YAML held
    """``address``, ``address:port`` or ``[address]:port`` as address and port."""
    if not isinstance(value, str):
        return value
    match = _NAME_SERVER.match(value)
    if match is None:
        raise ValueError(f"{value!r} is not the address of a name server, for example 192.0.2.53 or [2001:db8::53]:53")
    return (str(ipaddress.ip_address(match[1] or match[2] or match[3])), int(match[4] or 53))


NameServer = Annotated[tuple[str, Annotated[int, Field(ge=1, le=65535)]], BeforeValidator(_name_server)]


class Config(Model):
    """The whole of ``sbc.yaml``."""

    node: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$")] = "sbc1"
    run_dir: str = "/run/sbc"
    state_dir: str = "/var/lib/sbc"
    user: str = ""  # drop privileges to this user after binding
    workers: Workers = Workers()
    store: str = "embedded"
    ha: Ha | None = None  # the other node of a pair
    database: str = "sqlite:////var/lib/sbc/sbc.db"
    routes: str = ""  # a Python file; empty: the built-in routes
    routes_budget: RoutesBudget = RoutesBudget()
    routes_tests: list[str] = []  # files or folders of tests (pytest) that routes must pass before they serve
    dry_runs: list[DryRun] = []  # what routes must do before they serve
    lookups: Lookups = Lookups()  # of routes
    unknown_sources: Literal["drop", "refuse"] = "drop"
    unprotected: Literal["serve", "refuse"] = "serve"  # new calls while the store takes no records; refuse: 503
    realms: Annotated[dict[str, Realm], Field(min_length=1)]
    peers: dict[str, Peer] = {}
    header_rules: dict[str, list[HeaderRule]] = {}  # lists that realms and peers name
    number_plans: dict[str, NumberPlan] = {}  # by the names that realms and peers give
    reply_codes: dict[str, ReplyTable] = {}  # the same
    media_sets: Annotated[
        dict[str, Annotated[list[MediaMember], Field(min_length=1)]], Field(validate_default=True)
    ] = {}
    media: MediaFiles = MediaFiles()
    media_health: MediaHealth = MediaHealth()
    media_profiles: Annotated[dict[str, MediaProfile], Field(validate_default=True)] = {}
    name_servers: list[NameServer] = []  # for host names of gateways; empty: those of the system
    timers: Timers = Timers()
    connections: Connections = Connections()
    cdr: Cdr = Cdr()
    management: Management = Management()
    log: Log = Log()

    @field_validator("media_profiles", mode="after")
    @classmethod
    def _profiles(cls, value: dict[str, MediaProfile]) -> dict[str, MediaProfile]:
        """With those that are built in."""
        for name, profile in value.items():
            if profile != BUILT_IN_PROFILES.get(name, profile):
                raise ValueError(f"'{name}' is built in: give yours another name")
        return {**BUILT_IN_PROFILES, **value}

    @field_validator("media_sets", mode="after")
    @classmethod
    def _local(cls, value: dict[str, list[MediaMember]]) -> dict[str, list[MediaMember]]:
        """There is always a set of our own workers."""
        return {LOCAL_SET: [MediaMember(workers="local")], **value}

    @property
    def listeners(self) -> list[tuple[str, Listen]]:
        """Every listener with the name of its realm, in configuration order: the order of ``Flow.listener``."""
        return [(name, listen) for name, realm in self.realms.items() for listen in realm.listen]


class MediaNodeRealm(Model):
    """Where media of a media node face a realm of the SBCs that use it, under the same name."""

    address: IpAddress
    advertise: IpAddress | None = None
    ports: PortRange = (30000, 39999)
    nat: Nat = "never"

    @field_validator("ports")
    @classmethod
    def _order(cls, value: tuple[int, int]) -> tuple[int, int]:
        return RealmMedia._order(value)


class MediaNode(Model):
    """The whole of the configuration of ``sbc media run``: media workers for SBCs on other machines."""

    node: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$")] = "media1"
    run_dir: str = "/run/sbc-media"
    state_dir: str = "/var/lib/sbc-media"
    user: str = ""
    listen: str  # tcp://address:port of the first worker, the next has the next port
    clients: list[str] = []  # public keys of the SBCs; none only on a loopback address
    workers: WorkerCount = 0  # 0: one per processor
    realms: Annotated[dict[str, MediaNodeRealm], Field(min_length=1)]
    media: MediaFiles = MediaFiles()
    media_silence_s: Annotated[float, Field(ge=1, le=86400)] = 60.0
    media_hold_silence_s: Annotated[float, Field(ge=0, le=86400)] = 3600.0
    media_one_way_s: Annotated[int, Field(ge=0, le=3600)] = 10
    log: Log = Log()

    @field_validator("clients")
    @classmethod
    def _keys(cls, value: list[str]) -> list[str]:
        return [curve_key(key) for key in value]

    @model_validator(mode="after")
    def _guarded(self) -> MediaNode:
        if not MEDIA_URL.match(self.listen):
            raise ValueError(f"listen: {self.listen!r} is not tcp://address:port, for example tcp://10.0.0.9:7700")
        if not self.clients and not ipaddress.ip_address(self.address[0]).is_loopback:
            raise ValueError("clients: name the keys of the SBCs that may ask, as sbc media keygen prints them there")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first worker."""
        host, _, port = self.listen.removeprefix("tcp://").rpartition(":")
        return host.strip("[]"), int(port)
