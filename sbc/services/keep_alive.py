"""Pings towards phones that registered through us, so that the NAT before them keeps its way in open.

Sans-IO, on the timers and the transaction layer of a core. A binding belongs to the worker that relayed its REGISTER,
which is the same one for every refresh (the Call-ID says so). Each realm has a wheel of buckets, one of which is due at
a time: thousands of bindings are spread evenly over the interval and cost one timer.

A ping is two line ends (RFC 5626 §4.4.1), four octets of zero, or an OPTIONS. Only the last is answered in a way that
can be counted on: a phone that leaves so many in a row unanswered is forgotten, which means that ``request.binding``
finds it no more until it registers again. Its registrar is not told: nothing of ours may speak for the phone there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from sbc.b2bua import local
from sbc.b2bua.binding import Binding
from sbc.b2bua.effects import BindingChanged
from sbc.b2bua.subjects import OutOfDialogRequest
from sbc.errors import SipSyntaxError
from sbc.services.reconnected import Reconnections, take_over
from sbc.sip.address import NameAddr, parse_name_addr
from sbc.sip.build import build_request
from sbc.sip.message import Message

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.b2bua.settings import Source
    from sbc.transaction.client import ClientTransaction
    from sbc.transaction.timers import Timer

Method = Literal["crlf", "options", "udp"]

CRLF: Final = b"\r\n\r\n"
ZEROS: Final = bytes(4)
TICK_S: Final = 0.1  # how finely pings are spread
EXPIRES_S: Final = 3600.0  # RFC 3261 §10.2: where neither side says
_GOLDEN: Final = 0.6180339887498949  # its multiples fill a wheel evenly, whatever their number
_WEBSOCKETS: Final = ("ws", "wss")  # these have pings of their own (RFC 7118 §6)


@dataclass(frozen=True, slots=True)
class KeepAliveSettings:
    """Pings in one realm: every ``interval_s`` to each binding, of phones behind NAT only or of all; after ``misses``
    OPTIONS in a row without an answer a binding is forgotten."""

    realm: str
    method: Method = "crlf"
    interval_s: float = 30.0
    misses: int = 3
    only_nated: bool = True


class Watched:
    """One binding that is pinged. ``waiting``: the last OPTIONS has no answer yet."""

    __slots__ = ("aor", "binding", "bucket", "expires_at", "missed", "peer", "waiting")

    def __init__(self, binding: Binding, peer: str, aor: str, expires_at: float, bucket: int) -> None:
        self.binding = binding
        self.peer = peer
        self.aor = aor
        self.expires_at = expires_at
        self.bucket = bucket
        self.missed = 0
        self.waiting = False


Key = tuple[str, str]  # the Call-ID of the REGISTER, and the Contact as the phone wrote it


class Wheel:
    """The bindings of one realm, in buckets of which one is due every ``tick_s``."""

    __slots__ = ("at", "buckets", "due", "places", "settings", "tick_s", "timer")

    def __init__(self, settings: KeepAliveSettings) -> None:
        count = max(1, round(settings.interval_s / TICK_S))
        self.settings = settings
        self.tick_s = settings.interval_s / count
        self.buckets: list[dict[Key, Watched]] = [{} for _ in range(count)]
        self.at = 0  # the bucket that is due next
        self.due = 0.0
        self.places = 0  # how many were given out
        self.timer: Timer | None = None

    def stop(self) -> None:
        """Ping nobody any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def place(self) -> int:
        """The bucket of one more binding."""
        self.places += 1
        return int(self.places * _GOLDEN % 1.0 * len(self.buckets))


class KeepAlive:
    """The pings of one worker."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._wheels: dict[str, Wheel] = {}  # by realm
        self._known: dict[str, dict[Key, Watched]] = {}  # by realm: all of its bindings
        self._reconnections = Reconnections(core)
        core.requests.on_registered = self._registered

    def configure(self, wanted: Iterable[KeepAliveSettings], now: float) -> None:
        """Ping as these say from now on. Bindings that are known stay known where their realm still has pings."""
        settings = {one.realm: one for one in wanted}
        for realm in [realm for realm in self._wheels if realm not in settings]:
            for key in list(self._known[realm]):
                self._drop(realm, key)
            self._wheels.pop(realm).stop()
            del self._known[realm]
        for realm, one in settings.items():
            former = self._wheels.get(realm)
            if former is not None and former.settings == one:
                continue
            wheel = self._wheels[realm] = Wheel(one)
            if former is not None:
                former.stop()
            for key, watched in self._known.setdefault(realm, {}).items():
                watched.bucket = wheel.place()
                watched.waiting = False
                wheel.buckets[watched.bucket][key] = watched
            self._start(wheel, now)

    def __len__(self) -> int:
        """How many bindings are pinged."""
        return sum(map(len, self._known.values()))

    # what registers

    def _registered(self, subject: OutOfDialogRequest, answer: Message, realm: str, now: float) -> None:
        """A registrar in ``realm`` has accepted a REGISTER: what it says of the Contacts in it."""
        core, source = self.core, subject.source
        for new in self._reconnections.news(subject, answer, realm):
            self.told(new, 0.0, now)
            core.emit(BindingChanged(*new, 0.0))
        wheel = self._wheels.get(source.realm)
        if wheel is None:
            return
        request, call_id = subject.message, subject.message.call_id
        aor = str(request.to().uri)
        asked = {text: contact for text, contact in map(_contact, request.get_all("Contact")) if contact is not None}
        if not asked:
            if "*" in request.get_all("Contact"):
                self._drop_all(source.realm, aor)
            return
        granted = {}
        for value in answer.get_all("Contact"):
            _, contact = _contact(value)
            binding = core.requests.bindings.open(contact.uri.user or "", realm) if contact is not None else None
            if binding is not None and binding.uri in asked:
                granted[binding.uri] = binding, _expires(contact, answer)
        nated = bool(subject.nat) or not wheel.settings.only_nated
        for uri in asked:
            key = (call_id, uri)
            binding, expires_s = granted.get(uri, (None, 0.0))
            if binding is None or expires_s <= 0:
                self._drop(source.realm, key)
                continue
            self._find_again(binding)
            if nated and self._may_ping(wheel, binding):
                self._watch(source, key, binding, aor, now + expires_s, now)
            else:
                self._drop(source.realm, key)

    def _may_ping(self, wheel: Wheel, binding: Binding) -> bool:
        return wheel.settings.method == "options" or binding.flow.transport not in _WEBSOCKETS

    def _watch(self, source: Source, key: Key, binding: Binding, aor: str, expires_at: float, now: float) -> None:
        wheel, known = self._wheels[source.realm], self._known[source.realm]
        watched = known.get(key)
        if watched is None:
            watched = known[key] = Watched(binding, source.peer, aor, expires_at, wheel.place())
            wheel.buckets[watched.bucket][key] = watched
            self.core.count("BINDINGS_WATCHED")
            self._start(wheel, now)
        else:
            watched.binding, watched.expires_at = binding, expires_at
        watched.missed, watched.waiting = 0, False  # it has just been heard

    def _drop_all(self, realm: str, aor: str) -> None:
        for key in [key for key, watched in self._known[realm].items() if watched.aor == aor]:
            self._drop(realm, key)

    def _drop(self, realm: str, key: Key) -> None:
        watched = self._known[realm].pop(key, None)
        if watched is not None:
            self._wheels[realm].buckets[watched.bucket].pop(key, None)
            self.core.count("BINDINGS_WATCHED", -1)

    # the wheel

    def _start(self, wheel: Wheel, now: float) -> None:
        if wheel.timer is None and self._known[wheel.settings.realm]:
            wheel.due = now + wheel.tick_s
            wheel.timer = self.core.timers.start(wheel.tick_s, partial(self._turn, wheel), now)

    def _turn(self, wheel: Wheel, now: float) -> None:
        """Ping the buckets that are due: one, or as many as a busy worker is late, and none of them twice."""
        wheel.timer = None
        for _ in range(len(wheel.buckets)):
            if wheel.due > now:
                break
            bucket = wheel.buckets[wheel.at]
            wheel.at = (wheel.at + 1) % len(wheel.buckets)
            wheel.due += wheel.tick_s
            for key, watched in list(bucket.items()):
                self._ping(wheel, key, watched, now)
        else:
            wheel.due = now + wheel.tick_s
        if self._known[wheel.settings.realm]:
            wheel.timer = self.core.timers.start(max(0.0, wheel.due - now), partial(self._turn, wheel), now)

    def _ping(self, wheel: Wheel, key: Key, watched: Watched, now: float) -> None:
        realm, settings, core = wheel.settings.realm, wheel.settings, self.core
        if now >= watched.expires_at:
            self._drop(realm, key)
            return
        flow = watched.binding.flow
        if settings.method != "options":
            core.count("KEEP_ALIVES_SENT")
            core.transmit(flow, ZEROS if settings.method == "udp" and flow.transport == "udp" else CRLF)
            return
        if watched.waiting:
            watched.missed += 1
            core.count("KEEP_ALIVES_UNANSWERED")
            if watched.missed >= settings.misses:
                self._lose(realm, key, watched, now)
                return
        watched.waiting = True
        Ping(self, watched).begin(now)

    # bindings that are lost

    def _lose(self, realm: str, key: Key, watched: Watched, now: float) -> None:
        binding = watched.binding
        self._drop(realm, key)
        self.core.count("BINDINGS_LOST")
        self.core.note(
            "warning",
            "a phone does not answer: its binding is forgotten",
            None,
            realm=realm,
            aor=watched.aor,
            contact=binding.uri,
            seen_at=f"{binding.flow.transport}:{binding.flow.host}:{binding.flow.port}",
            unanswered=watched.missed,
        )
        self.told(binding, watched.expires_at - now, now)
        self.core.emit(BindingChanged(*binding, watched.expires_at - now))

    def _find_again(self, binding: Binding) -> None:
        if binding in self.core.requests.lost:
            del self.core.requests.lost[binding]
            self.core.emit(BindingChanged(*binding, 0.0))

    def told(self, binding: Binding, lost_s: float, now: float) -> None:
        """A binding is lost for so long, or, with 0, is there again; another worker may have found that out."""
        lost = self.core.requests.lost
        if lost_s <= 0:
            lost.pop(binding, None)
            if moved := take_over(self.core, binding):
                self.core.count("DIALOGS_RECONNECTED", moved)
            return
        lost[binding] = now + lost_s
        self.core.timers.start(lost_s, partial(self._expired, binding), now)

    def _expired(self, binding: Binding, now: float) -> None:
        lost = self.core.requests.lost
        if lost.get(binding, now + 1.0) <= now:
            del lost[binding]


class Ping:
    """One OPTIONS to a phone (RFC 3261 §11): whatever it answers, it is there."""

    __slots__ = ("_owner", "_watched")

    def __init__(self, owner: KeepAlive, watched: Watched) -> None:
        self._owner = owner
        self._watched = watched

    def begin(self, now: float) -> None:
        """Let the local route have it, where there is one, then send it."""
        core = self._owner.core
        realm = core.settings.realms[core.settings.listeners[self._watched.binding.flow.listener].realm]
        headers = [("Accept", "application/sdp")]
        if realm.user_agent:
            headers.append(("User-Agent", realm.user_agent))
        local.ask_alone(core, "OPTIONS", self._watched.peer, realm.name, headers, b"", self._transmit, now)

    def _transmit(self, headers: list[tuple[str, str]], body: bytes, now: float) -> None:
        core = self._owner.core
        uri, flow = self._watched.binding
        branch = core.ids.branch()
        head = [
            ("Via", core.via(flow.listener, branch)),
            ("Max-Forwards", "70"),
            ("From", f"<sip:keep-alive@{core.hosts[flow.listener]}>;tag={core.ids.tag()}"),
            ("To", f"<{uri}>"),
            ("Call-ID", core.ids.call_id(core.settings.slot)),
            ("CSeq", "1 OPTIONS"),
        ]
        try:
            data = build_request("OPTIONS", uri, head + headers, body)
        except SipSyntaxError as error:
            core.note("warning", "keep-alive cannot be written", None, contact=uri, reason=error.reason)
            return
        core.count("KEEP_ALIVES_SENT")
        core.layer.send("OPTIONS", branch, data, flow, self, now)

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """It is there; an answer to a former ping says as much."""
        self._watched.waiting = False
        self._watched.missed = 0

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """The next ping finds that this one waits, and counts it."""

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """As a timeout: a connection that broke may have been made anew by the next REGISTER."""


def _contact(value: str) -> tuple[str, NameAddr | None]:
    """A Contact with its URI as a binding keeps it; '' and None for one that is none."""
    try:
        contact = parse_name_addr(value)
    except SipSyntaxError:
        return "", None
    return str(contact.uri._replace(headers="")), contact


def _expires(contact: NameAddr | None, answer: Message) -> float:
    """For how long a binding is granted (RFC 3261 §10.3 step 8), seconds."""
    text = (contact.param("expires") if contact is not None else None) or (answer.get("Expires") or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else EXPIRES_S
