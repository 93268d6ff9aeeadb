"""Registering this node at its carriers (RFC 3261 §10.2): one REGISTER dialog for each peer that wants one.

Sans-IO, on the timers and the transaction layer of a core. A registration belongs to the worker that owns the shard of
its Call-ID, which follows from the node's key and the peer's name, so that it stays the same for ever; the CSeq follows
the wall clock. So a successor of a worker that died, or of the whole node, goes on with the same binding, without a
word from the former one. What calls need to know goes to all workers (:class:`~sbc.b2bua.effects.TrunkChanged`).

Credentials are those of the peer and leave for addresses of that peer only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from sbc.b2bua import credentials as digest
from sbc.b2bua import local
from sbc.b2bua.call import Headers, Target
from sbc.b2bua.effects import LocateRegistrar, ServerFailed, TrunkChanged
from sbc.b2bua.leg import flow_to
from sbc.b2bua.trunk import UNREGISTERED, Trunk
from sbc.errors import SbcError
from sbc.services import register_answer as answer
from sbc.services.registration_tables import BOUND, REGISTRATION, SETTLED, Action, Event, State
from sbc.sip.build import build_request
from sbc.sip.digest import Credentials, Session, choose, parse_challenges
from sbc.sip.flow import Flow
from sbc.sip.ids import ALPHABET, CALL_ID_LENGTH
from sbc.sip.message import Message
from sbc.sip.status import reason_of
from sbc.sip.uri import parse_uri

if TYPE_CHECKING:
    from sbc.b2bua.core import Core
    from sbc.transaction.client import ClientTransaction
    from sbc.transaction.timers import Timer

MARGIN_S: Final = 600.0  # before a binding expires it is refreshed, or at half of its time where that is later
SOONEST_S: Final = 5.0  # never two REGISTERs closer than this, whatever a registrar grants
BACK_OFF_S: Final = (5.0, 300.0)  # the first and the longest (RFC 5626 §4.5 in form)
REST_S: Final = 600.0  # after a refusal
START_S: Final = 1.0  # till then the clock has passed any CSeq that a former worker can have used
PACE_S: Final = 0.02  # between the first REGISTERs of two peers
CHALLENGES_MAX: Final = 3  # to one request: proxy, registrar, and one stale nonce
# CSeq numbers end at 2^31 (RFC 3261 §8.1.1.5): three a second from 2020 on last until 2042.
CSEQ_EPOCH_S: Final = 1_577_836_800
CSEQ_HZ: Final = 3
# What a registrar says to a CSeq below one that it knows. A clock that was set back counts so after a worker's death.
OUT_OF_ORDER: Final = (400, 500)
CSEQ_LEAP: Final = 366 * 86_400 * CSEQ_HZ


@dataclass(frozen=True, slots=True)
class TrunkSettings:
    """How we register at ``peer``.

    ``registrar`` is the Request-URI, ``proxy`` the URI whose servers it is sent to, ``aor`` what is registered, and
    ``contact_user`` the user part of our Contact there. ``expires_s`` is what we ask for.
    """

    peer: str
    realm: str
    registrar: str
    proxy: str
    aor: str
    contact_user: str
    expires_s: int
    credentials: Credentials | None = None


def call_id_of(peer: str, key: bytes) -> str:
    """The Call-ID of all REGISTERs for a peer; ``key`` is the node's secret (16 octets)."""
    number = int.from_bytes(blake2b(peer.encode(), key=key, person=b"registration", digest_size=16).digest(), "big")
    return "".join([ALPHABET[number >> shift & 31] for shift in range(0, 5 * CALL_ID_LENGTH, 5)])


class Registrations:
    """The registrations that one worker owns, by peer."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._all: dict[str, Registration] = {}
        self._leaving = False

    def configure(self, wanted: Iterable[TrunkSettings], now: float) -> None:
        """Register as these say from now on; what is no longer wanted, or wanted otherwise, is unregistered first.
        The wall clock must be known to the core by then: timers fire first."""
        settings = {} if self._leaving else {one.peer: one for one in wanted}
        for peer, registration in list(self._all.items()):
            if registration.state is State.ENDED and peer not in settings:
                del self._all[peer]
            else:
                registration.reconfigure(settings.pop(peer, None), now)
        for position, (peer, one) in enumerate(settings.items()):
            registration = self._all[peer] = Registration(self.core, one)
            registration.start(START_S + PACE_S * position, now)

    def leave(self, now: float) -> None:
        """Unregister everywhere, for good: this node is to stop."""
        self._leaving = True
        self.configure((), now)

    @property
    def left(self) -> bool:
        """Whether nothing is registered any more, nor tried."""
        return all(registration.state is State.ENDED for registration in self._all.values())

    def located(self, peer: str, flows: Sequence[Flow], now: float) -> None:
        """The servers of a registrar, best first; none where its name leads nowhere."""
        registration = self._all.get(peer)
        if registration is not None:
            registration.located(flows, now)

    def trunks(self) -> dict[str, Trunk]:
        """What calls must know of each."""
        return {peer: registration.trunk for peer, registration in self._all.items()}

    def describe(self, now: float) -> list[dict[str, Any]]:  # Any: JSON values
        """For operators."""
        return [
            registration.describe(now) for registration in self._all.values() if registration.state is not State.ENDED
        ]


class Registration:
    """One of them: the table of :mod:`~sbc.services.registration_tables`, and what its actions need."""

    def __init__(self, core: Core, settings: TrunkSettings) -> None:
        self.core = core
        self.settings = settings
        self.state = State.UNREGISTERED
        self.reason = ""  # why it is not registered, or not refreshed, in plain words
        self.trunk: Trunk = UNREGISTERED
        self._wanted: TrunkSettings | None = None  # once this one has ended
        self._call_id = call_id_of(settings.peer, core.settings.shard_key)
        self._tag = core.ids.tag()
        self._cseq = 0
        self._is_in_order = False  # the registrar has taken our count, or we have gone beyond it
        self._expires_s = settings.expires_s  # what we ask for, after 423s
        self._flows: list[Flow] = []  # servers of this round, the present one first
        self._sessions: dict[bool, Session] = {}  # by proxy (407) or not
        self._answered: set[bool] = set()  # challenges answered for this request
        self._challenges = 0
        self._failures = 0  # rounds in a row
        self._retry_after_s = 0.0
        self._granted_s = 0
        self._routes: tuple[str, ...] = ()
        self._bound: Flow | None = None  # the server that has our binding
        self._expires_at = 0.0
        self._since = 0.0  # wall clock of the state
        self._due: Timer | None = None
        self._expiry: Timer | None = None
        self._sent: Sent | None = None
        self._said: tuple[State, str] | None = None
        self._locating = False

    def start(self, delay_s: float, now: float) -> None:
        """Register after that time."""
        self.core.count("REGISTRATIONS")
        self._wait(delay_s, now)

    def reconfigure(self, settings: TrunkSettings | None, now: float) -> None:
        """Go on by other settings; None: unregister for good."""
        if settings == self.settings and self.state not in (State.LEAVING, State.UNREGISTERING, State.ENDED):
            if self.state in (State.FAILED, State.REFUSED):  # an operator who reloads has perhaps mended it
                self._failures = 0
                self._wait(PACE_S, now)
            return
        self._wanted = settings
        if self.state is State.ENDED:
            self._again(now)
        else:
            self._step(Event.STOP, now)

    def located(self, flows: Sequence[Flow], now: float) -> None:
        """The servers are known; the one that has our binding goes first."""
        if self._locating:
            self._found(list(flows), now)

    def describe(self, now: float) -> dict[str, Any]:  # Any: JSON values
        """For operators."""
        bound, due = self.trunk.registered, self._due
        server = self._bound or (self._flows[0] if self._flows else None)
        return {
            "peer": self.settings.peer,
            "state": self.state.value,
            "registered": bound,
            "since": round(self._since or self.core.wall(now), 3),
            "expires_s": round(max(0.0, self._expires_at - now), 1) if bound else None,
            "next_s": round(max(0.0, due.deadline - now), 1) if due is not None and due.active else None,
            "reason": self.reason,
            "aor": self.settings.aor,
            "registrar": self.settings.registrar,
            "server": f"{server.transport}:{server.host}:{server.port}" if server is not None else "",
            "failures": self._failures,
        }

    # the machine

    def _step(self, event: Event, now: float) -> None:
        row = REGISTRATION.get((self.state, event))
        if row is None:
            return
        before, (self.state, actions) = self.state, row
        if self.state is not before:
            self._since = self.core.wall(now)
        for action in actions:
            _ACTIONS[action](self, now)
        self._tell()

    def _tell(self) -> None:
        """Calls, counters and the log learn of a change, once."""
        state = self.state
        trunk = Trunk(True, self._bound, self._routes) if state in BOUND else UNREGISTERED
        if trunk != self.trunk:
            if trunk.registered != self.trunk.registered:
                self.core.count("REGISTRATIONS_ACTIVE", 1 if trunk.registered else -1)
            self.trunk = trunk
            self.core.emit(TrunkChanged(self.settings.peer, trunk))
        if state not in SETTLED or (state, self.reason) == self._said:
            return
        self._said = state, self.reason
        peer, note = self.settings.peer, self.core.note
        if state is State.REGISTERED:
            note("info", "registered at a peer", None, peer=peer, aor=self.settings.aor, expires_s=self._granted_s)
        elif state is State.LAPSING:
            note("warning", "the registration at a peer could not be refreshed", None, peer=peer, reason=self.reason)
        elif state is State.FAILED:
            note("warning", "not registered at a peer", None, peer=peer, reason=self.reason)
        elif state is State.REFUSED:
            note("error", "a peer refuses our registration", None, peer=peer, reason=self.reason)
        else:
            note("info", "no longer registered at a peer", None, peer=peer)

    def _locate(self, now: float) -> None:
        settings = self.settings
        self._retry_after_s = 0.0
        try:
            flow = flow_to(self.core, parse_uri(settings.proxy), settings.realm)
        except SbcError:  # a name: the shell looks it up
            target = Target(settings.proxy, settings.realm, peer=settings.peer, gateway=settings.peer)
            self._locating = True
            self.core.emit(LocateRegistrar(settings.peer, target))
        else:
            self._found([flow], now)

    def _found(self, flows: list[Flow], now: float) -> None:
        self._locating = False
        bound = self._bound
        if bound is not None and (not flows or bound in flows):
            flows = [bound, *(flow for flow in flows if flow != bound)]
        admit = self.core.settings.admission.admit
        self._flows = []
        for flow in flows:
            source = admit(flow.listener, flow.host, flow.port, flow.connection)
            if source is not None and source.peer == self.settings.peer:
                self._flows.append(flow)
        if self._flows:
            self._fresh()
            self._step(Event.FOUND, now)
        elif flows:
            self._fail(Event.REFUSED, f"{flows[0].host} is not among the addresses of the peer", now)
        else:
            self._fail(Event.UNAVAILABLE, f"{parse_uri(self.settings.proxy).address} leads to no usable server", now)

    def _fresh(self) -> None:
        """Another server: its challenges are new ones."""
        self._answered.clear()
        self._challenges = 0

    def _send(self, now: float) -> None:
        self._transmit(self._flows[0], self._expires_s, now)

    def _remove(self, now: float) -> None:
        """Only where something may be bound."""
        flow = self._bound or (self._flows[0] if self._flows and self._sent is not None else None)
        if flow is None:
            self._step(Event.UNAVAILABLE, now)
        else:
            self._transmit(flow, 0, now)

    def _transmit(self, flow: Flow, expires_s: int, now: float) -> None:
        core, settings = self.core, self.settings
        self._stop_due()
        self._sent = sent = Sent(self, expires_s)
        agent = core.settings.realms[settings.realm].user_agent
        own = [("User-Agent", agent)] if agent else []
        then = partial(self._write, flow, sent)
        local.ask_alone(core, "REGISTER", settings.peer, settings.realm, own, b"", then, now)

    def _write(self, flow: Flow, sent: Sent, own: Headers, body: bytes, now: float) -> None:
        """As the local route leaves it; another one may have taken its place meanwhile."""
        core, settings = self.core, self.settings
        if sent is not self._sent:
            return
        self._cseq = max(self._cseq + 1, int((core.wall(now) - CSEQ_EPOCH_S) * CSEQ_HZ))
        branch = core.ids.branch()
        headers = [
            ("Via", core.via(flow.listener, branch)),
            ("Max-Forwards", "70"),
            ("From", f"<{settings.aor}>;tag={self._tag}"),
            ("To", f"<{settings.aor}>"),
            ("Call-ID", self._call_id),
            ("CSeq", f"{self._cseq} REGISTER"),
            ("Contact", self._contact(flow)),
            ("Expires", str(sent.expires_s)),
            ("Supported", "path"),  # RFC 3327 §5.1
            *own,
        ]
        headers += [(it.header, it.answer("REGISTER", settings.registrar)) for it in self._sessions.values()]
        core.count("REGISTERS_SENT")
        core.layer.send(
            "REGISTER", branch, build_request("REGISTER", settings.registrar, headers, body), flow, sent, now
        )

    def _contact(self, flow: Flow) -> str:
        return self.core.contact(flow.listener, self.settings.contact_user)

    # answers

    def answered(self, sent: Sent, flow: Flow, msg: Message, now: float) -> None:
        """The final answer to our REGISTER."""
        if sent is not self._sent:
            return
        status = msg.status
        leaps = status in OUT_OF_ORDER and not self._is_in_order
        if leaps:
            self._cseq += CSEQ_LEAP
        self._is_in_order |= leaps
        if status < 300:
            self._is_in_order = True
            digest.renew(self._sessions, msg)
            self._accepted(sent, flow, msg, now)
        elif status in (401, 407):
            self._challenged(msg, now)
        elif status == 423 and sent.expires_s:
            self._too_brief(msg, now)
        elif leaps and status == 400:
            self._step(Event.AGAIN, now)
        elif status in answer.UNAVAILABLE:
            self._retry_after_s = max(self._retry_after_s, answer.retry_after_s(msg))
            self._unserved(flow, _said(msg), now)
        elif status < 400:
            self._fail(Event.REFUSED, f"{_said(msg)}: redirections are not followed, name that registrar", now)
        else:
            self._fail(Event.REFUSED, _said(msg), now)

    def silent(self, sent: Sent, flow: Flow, reason: str, now: float) -> None:
        """Nobody answered, or could be reached."""
        if sent is self._sent:
            self._unserved(flow, reason, now)

    def _accepted(self, sent: Sent, flow: Flow, msg: Message, now: float) -> None:
        if sent.expires_s:
            contact = parse_uri(self._contact(flow)[1:-1])
            self._granted_s = answer.granted_s(msg, contact, sent.expires_s)
            if not self._granted_s:
                self._fail(Event.REFUSED, "the registrar says yes, and does not list our Contact", now)
                return
            self._bound, self._routes = flow, answer.service_route(msg)
        self._step(Event.ACCEPTED, now)

    def _challenged(self, msg: Message, now: float) -> None:
        ours, proxy = self.settings.credentials, msg.status == 407
        if ours is None:
            self._fail(Event.REFUSED, "it asks who we are, and the peer has no auth", now)
            return
        values = msg.get_all("Proxy-Authenticate" if proxy else "WWW-Authenticate")
        found = parse_challenges(values, proxy=proxy)
        challenge = choose(found, ours.realm)
        if challenge is None:
            realms = ", ".join(sorted({f"{it.realm} ({it.algorithm or 'MD5'})" for it in found})) or "nothing we know"
            self._refuse_credentials(f"it asks for credentials of {realms}, for which auth has none", now)
        elif proxy in self._answered and not challenge.stale:
            self._refuse_credentials("user name or password is wrong", now)
        elif self._challenges >= CHALLENGES_MAX:
            self._refuse_credentials("it asks for credentials again and again", now)
        else:
            self._challenges += 1
            self._answered.add(proxy)
            self._sessions[proxy] = Session(challenge, ours, self.core.ids.token())
            self.core.count("CHALLENGES_ANSWERED")
            self._step(Event.AGAIN, now)

    def _refuse_credentials(self, reason: str, now: float) -> None:
        self.core.count("CREDENTIALS_REFUSED")
        self._sessions.clear()
        self._fail(Event.REFUSED, reason, now)

    def _too_brief(self, msg: Message, now: float) -> None:
        """RFC 3261 §10.2.8. What was too brief once is not asked for again."""
        least_s = answer.min_expires_s(msg)
        if least_s is None or least_s <= self._expires_s:
            self._fail(Event.REFUSED, f"{_said(msg)}, and no usable Min-Expires", now)
        else:
            self._expires_s = least_s
            self._step(Event.AGAIN, now)

    def _unserved(self, flow: Flow, reason: str, now: float) -> None:
        """RFC 3263 §4.3: the next server of the name, if there is one."""
        self.core.emit(ServerFailed(flow))
        del self._flows[:1]
        if self._flows:
            self._fresh()
            self._step(Event.NEXT, now)
        else:
            self._fail(Event.UNAVAILABLE, f"{flow.host}: {reason}", now)

    def _fail(self, event: Event, reason: str, now: float) -> None:
        self.reason = reason
        self.core.count("REGISTERS_FAILED")
        self._step(event, now)

    # time

    def _bind(self, now: float) -> None:
        self.reason, self._failures = "", 0
        granted_s = float(self._granted_s)
        self._expires_at = now + granted_s
        self._stop_expiry()
        self._expiry = self.core.timers.start(granted_s, partial(self._step, Event.EXPIRED), now)
        margin_s = min(granted_s / 2, MARGIN_S)
        self._wait(max(SOONEST_S, granted_s - margin_s - self._draw() * margin_s / 5), now)

    def _unbind(self, now: float) -> None:
        self._bound, self._routes = None, ()
        self.reason = self.reason or "the registration has expired"
        self._stop_expiry()

    def _back_off(self, now: float) -> None:
        first_s, longest_s = BACK_OFF_S
        delay_s = min(longest_s, first_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        if self._bound is not None:  # another try or two before it expires
            delay_s = min(delay_s, max(SOONEST_S, (self._expires_at - now) / 2))
        self._wait(max(self._retry_after_s, delay_s * (0.5 + self._draw() / 2)), now)

    def _rest(self, now: float) -> None:
        self._failures += 1
        self._wait(REST_S * (0.75 + self._draw() / 2), now)

    def _end(self, now: float) -> None:
        self._stop_due()
        self._stop_expiry()
        self._sent = None
        self._bound, self._routes, self.reason = None, (), ""
        self._flows.clear()
        self.core.count("REGISTRATIONS", -1)
        if self._wanted is not None:
            self._again(now)

    def _again(self, now: float) -> None:
        """By the settings that are wanted now."""
        if self._wanted is not None:
            self.settings, self._wanted = self._wanted, None
            self._expires_s = self.settings.expires_s
            self._sessions.clear()
            self._failures = 0
            self.state = State.UNREGISTERED
            self.start(PACE_S, now)

    def _wait(self, delay_s: float, now: float) -> None:
        self._stop_due()
        self._due = self.core.timers.start(delay_s, self._come, now)

    def _come(self, now: float) -> None:
        self._due = None
        self._step(Event.DUE, now)

    def _stop_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _stop_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _draw(self) -> float:
        """A number of [0, 1), so that trunks do not march in step."""
        token = self.core.ids.token()
        return sum(ALPHABET.index(letter) / 32.0**place for place, letter in enumerate(token[:4], 1))


class Sent:
    """One REGISTER on its way, as user of its transaction."""

    __slots__ = ("expires_s", "registration")

    def __init__(self, registration: Registration, expires_s: int) -> None:
        self.registration = registration
        self.expires_s = expires_s

    def on_response(self, tx: ClientTransaction, msg: Message, now: float) -> None:
        """The final answer."""
        if msg.status >= 200:
            self.registration.answered(self, tx.flow, msg, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """64*T1 without one."""
        self.registration.silent(self, tx.flow, "no answer", now)

    def on_transport_error(self, tx: ClientTransaction, now: float) -> None:
        """It cannot be reached."""
        self.registration.silent(self, tx.flow, "cannot be reached", now)


def _said(msg: Message) -> str:
    """A refusal in words: the phrase is ours, since theirs may say anything."""
    return f"the registrar answers {msg.status} {reason_of(msg.status)}"


_ACTIONS: Final = {
    Action.LOCATE: Registration._locate,
    Action.SEND: Registration._send,
    Action.BIND: Registration._bind,
    Action.UNBIND: Registration._unbind,
    Action.BACK_OFF: Registration._back_off,
    Action.REST: Registration._rest,
    Action.REMOVE: Registration._remove,
    Action.END: Registration._end,
}
