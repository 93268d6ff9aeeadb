"""Calls in turmoil: phones that can be right or wrong, a network that loses, repeats and reorders, helpers that fail.

:class:`Turmoil` is a :class:`~tests.support.ladder.Ladder` that keeps the books: which request got which final answer,
which media session is open, which octets were emitted to whom. :meth:`Turmoil.calm` ends all trouble and lets every
timer run; :meth:`Turmoil.check` then holds the books against what must be true of every call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from media.protocol import Answer, Delete, Offer, Reply
from sbc.b2bua.call import Call, Target
from sbc.b2bua.core import Core
from sbc.b2bua.effects import MediaCommand, RunRoute, SaveCall, Transmit
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from tests.support.ladder import (
    A_HOST,
    B_HOST,
    D_HOST,
    MEDIA_A,
    MEDIA_B,
    OUR_A,
    OUR_B,
    Ladder,
    Phone,
    counting_ids,
    hunt,
    sdp,
)


class Armed:
    """Every route that a call has armed has a name."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}  # Any: what the ladder calls

    def name(self, call: Call, route: Any) -> str:  # Any: as above
        name = f"{route.__name__}-{id(route)}"
        self._known[name] = route
        return name

    def find(self, name: str) -> Any | None:  # Any: as above
        return self._known.get(name)


def without_reason(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\r\n") if not line.startswith(b"Reason:")]


Key = tuple[str, str, str, int]  # host, branch, method, how often this transaction began anew
REFUSALS = {"refuses": "unsupported", "is full": "no_ports", "says nothing": "timeout"}


class Turmoil(Ladder):
    """A ladder whose network and helpers may fail, and that remembers everything."""

    def __init__(self, **changes: Any) -> None:  # Any: fields of CoreSettings, and arguments of Ladder
        changes.setdefault("route", across)
        super().__init__(**changes)
        self.core.hooks = Armed()
        self.wire: list[tuple[bytes, Flow]] | None = None  # a list: the network holds what the phones send
        self.sent: dict[str, list[tuple[bytes, Flow]]] = {host: [] for host in self.phones}
        self.emitted: dict[str, list[bytes]] = {host: [] for host in self.phones}
        self.generations: dict[tuple[str, str, str], int] = {}
        self.asked: dict[Key, int] = {}  # the life of the worker in which it came
        self.finals: dict[Key, set[bytes]] = {}
        self.cut: set[tuple[str, str, str]] = set()  # transactions whose path failed
        self.requests_out: dict[tuple[str, str], bytes] = {}  # by branch and method
        self.sequences: dict[tuple[str, str, str], int] = {}  # by dialog: the last CSeq of ours
        self.ended: set[tuple[str, str, str]] = set()  # dialogs in which we have sent BYE
        self.wrong: list[str] = []  # what we should never have sent
        self.lives = 0
        self.lost_calls = 0  # not in the journal when their worker died
        self.raise_next = 0
        self.journal = "works"
        self.media_trouble = ""
        self.media_open: set[str] = set()
        for phone in self.phones.values():
            phone.unanswered = []  # type: ignore[attr-defined]  # what only these phones keep
            phone.rseq = 0  # type: ignore[attr-defined]  # as above
            phone.offers = {}  # type: ignore[attr-defined]  # as above: CSeq of an INVITE -> it had an offer

    # The network

    def deliver(self, data: bytes, flow: Flow) -> None:
        self.sent[flow.host].append((data, flow))
        if self.wire is not None:
            self.wire.append((data, flow))
        else:
            self._arrive(data, flow)

    def _arrive(self, data: bytes, flow: Flow) -> None:
        msg = Message.parse(data)
        if msg.is_request and msg.method != "ACK":
            transaction = (flow.host, msg.branch, msg.method)
            if not self.core.layer.knows(msg):
                self.generations[transaction] = self.generations.get(transaction, 0) + 1
            self.asked.setdefault((*transaction, self.generations[transaction]), self.lives)
        super().deliver(data, flow)

    def release_wire(self, *, backwards: bool = False) -> None:
        """What the network held arrives."""
        held, self.wire = self.wire or [], None
        for data, flow in reversed(held) if backwards else held:
            self._arrive(data, flow)

    def repeat(self, phone: Phone, part: float) -> None:
        """The network repeats a datagram from that part of the phone's past."""
        past = self.sent[phone.host]
        if past:
            data, flow = past[min(int(part * len(past)), len(past) - 1)]
            self._arrive(data, flow)

    # The shell

    def perform(self, effect: object) -> None:
        match effect:
            case Transmit(flow, data):
                self.emitted[flow.host].append(data)
                msg = Message.parse(data)
                if msg.is_request:
                    self._request_out(msg)
                elif msg.status >= 200:
                    transaction = (flow.host, msg.branch, msg.cseq_method)
                    key = (*transaction, self.generations.get(transaction, 0))
                    self.finals.setdefault(key, set()).add(data)
            case SaveCall() if effect.wait and self.journal != "works":
                self.saves.append(effect)
                if self.journal == "waits":
                    self.records[effect.key] = effect.record
                else:
                    self.core.saved(effect.key, effect.version, False, self.now)
                return
        super().perform(effect)

    def _request_out(self, msg: Message) -> None:
        method = msg.method
        former = self.requests_out.get((msg.branch, method))
        if former is not None:
            # A successor cannot know of a CANCEL that was sent just before the death; its own says another reason.
            again = self.lives and method == "CANCEL" and without_reason(former) == without_reason(msg.raw)
            if former != msg.raw and not again:
                self.wrong.append(f"one branch, two requests:\n{former.decode()}\n{msg.raw.decode()}")
            return
        self.requests_out[msg.branch, method] = msg.raw
        if method in ("ACK", "CANCEL"):  # with the number of its INVITE
            return
        dialog = (msg.call_id, msg.from_tag, msg.to_tag)
        again = method == "BYE" and self.lives and dialog in self.ended  # by a successor, of a call that nobody knows
        if msg.cseq_number <= self.sequences.get(dialog, 0) and not again:
            self.wrong.append(f"CSeq does not rise:\n{msg.raw.decode()}")
        self.sequences[dialog] = msg.cseq_number
        if dialog in self.ended and method not in ("BYE", "NOTIFY"):  # a transfer may be told of longer (RFC 5057 §4.1)
            self.wrong.append(f"after the BYE:\n{msg.raw.decode()}")
        if method == "BYE":
            self.ended.add(dialog)

    def run(self, effect: RunRoute) -> None:
        if self.raise_next:
            self.raise_next -= 1
            self.core.route_done(effect, RuntimeError("a fault of the route"), self.now)
        else:
            super().run(effect)

    def release_routes(self) -> None:
        """Routes that were held run."""
        held, self.held_routes = self.held_routes or [], None
        for effect in held:
            self.run(effect)
        self.drain()

    def answer_media(self, command: MediaCommand) -> Reply:
        request = command.request
        if self.media_trouble and isinstance(request, Offer | Answer):
            return Reply(ok=False, code=REFUSALS[self.media_trouble], reason="trouble")
        reply = super().answer_media(command)
        if isinstance(request, Offer):
            self.media_open.add(request.session)
        elif isinstance(request, Delete) and not request.leg:
            self.media_open.discard(request.session)
        return reply

    def dies(self) -> Turmoil:
        """kill -9 of the worker, and what its successor does: resume, and end media sessions that have no call."""
        self.drain()
        self.lost_calls += sum(key not in self.records for key in self.core.calls)
        self.lives += 1
        self.held_media = self.held_routes = None
        hooks = self.core.hooks
        self.core = Core(self.core.settings, counting_ids(98 + self.lives))
        self.core.hooks = hooks
        self.peers.open = 0
        for record in list(self.records.values()):
            assert self.core.resume(record, self.now, self.wall) is not None
            self.drain()
        self.media_open &= set(self.core.calls)
        self.end_orphans()
        return self

    # The end

    def calm(self) -> None:
        """Every helper works again, both phones fall silent, every timer runs, and what is still up is released."""
        self.release_wire()
        self.lose_next = self.raise_next = 0
        self.journal, self.media_trouble = "works", ""
        self.release_routes()
        self.release_media()
        for save in self.saves:
            self.core.saved(save.key, save.version, True, self.now)
        self.drain()
        self.after(300)
        for call in list(self.core.calls.values()):
            assert call.state.name == "UP", call.describe()  # only an answered call may live on
            self.only_two_legs()
            self.core.release(call, self.now, reason="test")
        self.drain()

    def check(self) -> None:
        """Nothing is left, everything was answered once, every call has its CDR, and neither side saw the other."""
        self.over()
        assert self.core.next_timer() is None
        assert self.counts.get("CORE_FAULTS", 0) == 0
        assert not self.wrong, self.wrong[0]
        assert not self.media_open
        assert not self.records
        assert len(self.cdrs) == self.counts.get("CALLS_STARTED", 0) - self.lost_calls
        assert len({cdr["id"] for cdr in self.cdrs}) == len(self.cdrs)
        for key, life in self.asked.items():
            if life == self.lives and key[:3] not in self.cut:
                assert len(self.finals.get(key, ())) == 1, (key, self.finals.get(key))
        if self.engage:  # without media of ours, descriptions cross as they are
            self._check_topology()

    def _check_topology(self) -> None:
        sides = [[phone for phone in self.phones.values() if phone.listener == listener] for listener in (0, 1)]
        told = [[data for phone in side for data in self.emitted[phone.host]] for side in sides]
        ours = {OUR_A, MEDIA_A}, {OUR_B, MEDIA_B, "10.0.0.5"}
        for one, other in ((0, 1), (1, 0)):
            wire = b"\n".join(told[other]).decode()
            assert [token for token in _tokens(sides[one], told[one]) | ours[one] if token in wire] == []


_TOKEN = re.compile(r";tag=([\w.-]+)|branch=(z9hG4bK[\w-]+)|^Call-ID: (\S+)", re.M)


def _tokens(phones: list[Phone], told: list[bytes]) -> set[str]:
    """Whatever belongs to one side alone: its hosts, and the names that were used there."""
    found = {phone.host for phone in phones} | {phone.tag for phone in phones}
    for data in told:
        found.update("".join(match) for match in _TOKEN.findall(data.decode()))
    return {token for token in found if len(token) > 9}


# What phones do. A phone that reacts does the right thing with the oldest message that it has; the others are wilful.


def react(phone: Phone) -> None:
    """The right reaction to the oldest message that this phone has not looked at."""
    if not phone.inbox:
        return
    msg = phone.inbox.popleft()
    if msg.is_request:
        _serve(phone, msg)
    elif msg.cseq_method == "INVITE" and msg.status > 100:
        _heard(phone, msg)


def _serve(phone: Phone, msg: Message) -> None:
    pending: list[Message] = phone.unanswered  # type: ignore[attr-defined]  # see Turmoil
    match msg.method:
        case "ACK":
            return
        case "INVITE" if not msg.to_tag:
            phone.invite = msg
            pending.append(msg)
            phone.reply(180, to=msg)
        case "CANCEL":
            phone.reply(200, to=msg)
            for invite in [it for it in pending if it.branch == msg.branch]:
                pending.remove(invite)
                phone.reply(487, to=invite)
        case "INVITE" | "UPDATE" | "PRACK":
            described = msg.method == "INVITE" or bool(msg.body)
            phone.reply(200, to=msg, body=sdp(phone.host, version=phone.cseq + 2) if described else b"")
        case _:
            phone.reply(200, to=msg)


def _heard(phone: Phone, msg: Message) -> None:
    contact = (msg.get("Contact") or "").partition("<")[2].partition(">")[0]
    before, own = phone.dialog, (msg.call_id, msg.get("From") or "", msg.get("To") or "", contact)
    if msg.status >= 300:
        phone.dialog = (*own[:3], f"sip:+4930123@{OUR_A if phone.listener == 0 else OUR_B}")
        phone.request("ACK", branch=msg.branch, cseq=msg.cseq_number)
        phone.dialog = before
        return
    phone.dialog = own
    offered = phone.offers.get(msg.cseq_number, True)  # type: ignore[attr-defined]  # see Turmoil
    body = b"" if offered or not msg.body else sdp(phone.host, version=phone.cseq + 2)
    if msg.status >= 200:
        phone.ack(body=body, cseq=msg.cseq_number)
    elif msg.get("RSeq"):
        phone.request("PRACK", body=body, extra=[("RAck", f"{msg.get('RSeq')} {msg.cseq_number} INVITE")])


def invite(phone: Phone, *, offer: bool = True, extra: tuple[str, str] | None = None) -> None:
    """The INVITE of a new call, once."""
    if phone.cseq == 0 and phone.dialog is None:
        phone.request("INVITE", body=sdp(phone.host) if offer else b"", extra=[extra] if extra else [])
        phone.offers[phone.cseq] = offer  # type: ignore[attr-defined]  # see Turmoil


def request(phone: Phone, method: str, *, body: bool = False, **options: Any) -> None:  # Any: of Phone.request
    """A request in the dialog that the phone knows of."""
    if phone.dialog is None and phone.name == "c":
        phone.dialog = phone.ladder.b.dialog  # a known peer, but not of this dialog
    if phone.dialog is not None:
        phone.request(method, body=sdp(phone.host, version=phone.cseq + 3) if body else b"", **options)
        if method == "INVITE":
            phone.offers[phone.cseq] = body  # type: ignore[attr-defined]  # see Turmoil


def answer(
    phone: Phone, status: int, *, body: bool = False, reliable: bool = False, fork: str = "", contact: str = ""
) -> None:
    """Any answer to the INVITE that opened the phone's leg, as often as it likes."""
    if phone.invite is None:
        react(phone)
    if phone.invite is None:
        return
    extra = [("Contact", contact)] if contact else []
    if reliable:
        phone.rseq += 1  # type: ignore[attr-defined]  # see Turmoil
        extra += [("Require", "100rel"), ("RSeq", str(phone.rseq))]  # type: ignore[attr-defined]  # as above
    phone.unanswered.clear()  # type: ignore[attr-defined]  # as above
    phone.reply(status, to=phone.invite, body=sdp(phone.host) if body else b"", extra=extra, tag=fork)


def contradict(phone: Phone, status: int) -> None:
    """Answer the newest request that waits, whatever it is, in a way of one's own."""
    for msg in reversed(phone.inbox):
        if msg.is_request and msg.method != "ACK":
            phone.inbox.remove(msg)
            extra = [("Min-SE", "120")] if status == 422 else []
            phone.reply(status, to=msg, extra=extra)
            return


def astray(phone: Phone) -> None:
    """A BYE whose tags are nobody's."""
    if phone.dialog is not None:
        true = phone.dialog
        phone.dialog = (true[0], true[1], true[2] + "x", true[3])
        phone.request("BYE")
        phone.dialog = true


def cancel(phone: Phone) -> None:
    """CANCEL what was sent last, if anything was: it has the To of that request (RFC 3261 §9.1)."""
    if phone.cseq == 1 and phone.invite is None:
        phone.cancel()
    elif phone.dialog is not None and phone.cseq > 1:
        phone.request("CANCEL", branch=phone.branch)


def across(ladder: Ladder, call: Call) -> None:
    """Calls from inside to b, then to c; calls from outside to a."""
    if call.a.realm == "inside":
        hunt(ladder, call)
    else:
        ladder.core.dial(call, [TARGET_A], ladder.now)


TARGET_A = Target(f"sip:alice@{A_HOST}:5070", "inside", peer="phones", gateway="phone-a")
Step = Callable[[Turmoil], None]


def _of_phone(name: str) -> dict[str, Step]:
    def step(act: Callable[..., None], *args: Any, **options: Any) -> Step:  # Any: arguments of the act
        return lambda world: act(getattr(world, name), *args, **options)

    return {
        f"{name} reacts": step(react),
        f"{name} sends BYE": step(request, "BYE"),
        f"{name} sends re-INVITE": step(request, "INVITE", body=True),
        f"{name} sends re-INVITE without offer": step(request, "INVITE"),
        f"{name} sends UPDATE": step(request, "UPDATE"),
        f"{name} sends UPDATE with offer": step(request, "UPDATE", body=True),
        f"{name} sends a refresh": step(request, "UPDATE", extra=[("Session-Expires", "120"), ("Supported", "timer")]),
        f"{name} sends INFO": step(request, "INFO"),
        f"{name} sends a PRACK for nothing": step(request, "PRACK", extra=[("RAck", "7 1 INVITE")]),
        f"{name} sends an ACK for nothing": step(request, "ACK"),
        f"{name} sends REFER": step(request, "REFER"),
        f"{name} sends an old CSeq": step(request, "INFO", cseq=0),
        f"{name} requires what nobody knows": step(request, "INVITE", body=True, extra=[("Require", "frob")]),
        f"{name} sends BYE astray": step(astray),
        f"{name} cancels": step(cancel),
        f"{name} says 200": step(contradict, 200),
        f"{name} says 491": step(contradict, 491),
        f"{name} says 481": step(contradict, 481),
        f"{name} says 422": step(contradict, 422),
        f"{name} says 500": step(contradict, 500),
        f"{name}'s first datagram again": lambda world: world.repeat(getattr(world, name), 0.0),
        f"{name}'s middle datagram again": lambda world: world.repeat(getattr(world, name), 0.5),
        f"{name}'s last datagram again": lambda world: world.repeat(getattr(world, name), 1.0),
    }


def _of_callee(name: str) -> dict[str, Step]:
    def step(*args: Any, **options: Any) -> Step:  # Any: arguments of answer
        return lambda world: answer(getattr(world, name), *args, **options)

    return {
        f"{name} answers 100": step(100),
        f"{name} answers 183": step(183, body=True),
        f"{name} answers 183 reliably": step(183, body=True, reliable=True),
        f"{name} answers 180 reliably": step(180, reliable=True),
        f"{name} answers 200": step(200, body=True),
        f"{name} answers 200 without description": step(200),
        f"{name} answers 200 of a fork": step(200, body=True, fork="another-tag"),
        f"{name} answers 486": step(486),
        f"{name} answers 503": step(503),
        f"{name} answers 302": step(302),
        f"{name} answers 603": step(603),
        f"{name} answers 183 of a fork": step(183, body=True, fork="another-tag"),
        f"{name} answers 183 of a fork reliably": step(183, body=True, reliable=True, fork="another-tag"),
        f"{name} answers 199 of a fork": step(199, fork="another-tag"),
        f"{name} sends all to d": step(302, contact=f"<sip:1@{D_HOST}:5070>"),
    }


def _set(name: str, value: Any) -> Step:  # Any: of that attribute
    return lambda world: setattr(world, name, value)


def _hold(name: str) -> Step:
    def step(world: Turmoil) -> None:
        if getattr(world, name) is None:
            setattr(world, name, [])

    return step


def _journal_goes_on(world: Turmoil) -> None:
    world.journal = "works"
    for save in world.saves[-2:]:
        world.core.saved(save.key, save.version, True, world.now)
    world.drain()


def _more(name: str) -> Step:
    return lambda world: setattr(world, name, getattr(world, name) + 1)


def _goes(world: Turmoil) -> None:
    world.moves()


def _dies(world: Turmoil) -> None:
    world.dies()


def _release(world: Turmoil) -> None:
    for call in list(world.core.calls.values()):
        world.core.release(call, world.now, reason="test")
    world.drain()


def _no_path(world: Turmoil) -> None:
    world.cut |= {key[:3] for key in world.asked if key[0] == B_HOST}  # there is nowhere to send an answer
    world.core.transport_failed(Flow(1, "udp", B_HOST, 5070), world.now)
    world.drain()


STEPS: dict[str, Step] = {
    "a invites": lambda world: invite(world.a),
    "a invites without offer": lambda world: invite(world.a, offer=False),
    "a invites and supports 100rel": lambda world: invite(world.a, extra=("Supported", "100rel")),
    "a invites and requires 100rel": lambda world: invite(world.a, extra=("Require", "100rel")),
    "a invites without offer and supports 100rel": lambda world: invite(
        world.a, offer=False, extra=("Supported", "100rel")
    ),
    "b invites": lambda world: invite(world.b),
    "b invites without offer": lambda world: invite(world.b, offer=False),
    **_of_callee("a"),
    **_of_phone("a"),
    **_of_phone("b"),
    **_of_callee("b"),
    **_of_callee("c"),
    **_of_callee("d"),
    "c reacts": lambda world: react(world.c),
    "d reacts": lambda world: react(world.d),
    "c sends BYE": lambda world: request(world.c, "BYE"),
    "the network holds": _hold("wire"),
    "the network delivers": lambda world: world.release_wire(),
    "the network delivers backwards": lambda world: world.release_wire(backwards=True),
    "a datagram of ours is lost": _more("lose_next"),
    "nothing of ours arrives at b": _no_path,
    "media waits": _hold("held_media"),
    "media goes on": lambda world: world.release_media(),
    "media refuses": _set("media_trouble", "refuses"),
    "media is full": _set("media_trouble", "is full"),
    "media says nothing": _set("media_trouble", "says nothing"),
    "media works": _set("media_trouble", ""),
    "routes wait": _hold("held_routes"),
    "routes go on": lambda world: world.release_routes(),
    "the next route raises": _more("raise_next"),
    "the journal waits": _set("journal", "waits"),
    "the journal fails": _set("journal", "fails"),
    "the journal goes on": _journal_goes_on,
    "the worker dies": _dies,
    "the worker goes by order": _goes,
    "we release": _release,
    "0.3 s": lambda world: world.after(0.3),
    "2 s": lambda world: world.after(2),
    "33 s": lambda world: world.after(33),
    "60 s": lambda world: world.after(60),
}
