"""Pings towards phones that registered through us, in virtual time: when, to whom, and what silence means."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from sbc.b2bua.binding import Binding
from sbc.b2bua.effects import BindingChanged, RouteKind, Transmit
from sbc.b2bua.settings import ListenerSettings, RealmSettings
from sbc.b2bua.subjects import LocalRequest
from sbc.policy.admission import Source
from sbc.services.keep_alive import CRLF, ZEROS, KeepAlive, KeepAliveSettings, Method
from sbc.sip.flow import Flow
from tests.conformance.test_nat import AUTO, across
from tests.support.ladder import A_HOST, OUR_A, Ladder
from tests.support.natted import INSIDE_HOST, INSIDE_PORT, PUBLIC_PORT, hide

PHONE_URI = f"sip:a@{INSIDE_HOST}:{INSIDE_PORT};line=1"


class PingLadder(Ladder):
    """``pings`` keeps when a keep-alive went where; ``changed`` what other workers are told of bindings."""

    def __init__(self, method: Method = "crlf", *, natted: bool = True, **options: Any) -> None:  # Any: see below
        names = ("routes", "realms", "listeners", "hooks")
        changes: dict[str, Any] = {name: options.pop(name) for name in names if name in options}  # Any: as above
        changes.setdefault("realms", AUTO)
        self.pings: list[tuple[float, Flow, bytes]] = []
        self.changed: list[BindingChanged] = []
        super().__init__(requests=across, **changes)
        self.natted = natted
        if natted:
            self.phone = hide(self)
        self.keep_alive = KeepAlive(self.core)
        self.configure(method, **options)

    def configure(self, method: Method, **options: Any) -> None:  # Any: fields of KeepAliveSettings
        self.keep_alive.configure([KeepAliveSettings("inside", method, **options)], self.now)

    def perform(self, effect: object) -> None:
        if isinstance(effect, Transmit) and effect.data in (CRLF, ZEROS):
            self.pings.append((self.now, effect.flow, effect.data))
        elif isinstance(effect, BindingChanged):
            self.changed.append(effect)
        else:
            super().perform(effect)

    def register(self, *, expires: str = "300", contact: str = "", granted: str = "") -> str:
        """A registers at B, which grants what it asks for; the URI that B has."""
        if contact:
            self.a.contact = contact
        self.a.dialog = self.b.dialog = None
        self.a.request("REGISTER", uri="sip:example.com", extra=[("Expires", expires)])
        sent = self.b.expect("REGISTER")
        given = sent.get("Contact") or ""
        told = "" if expires == "0" or given == "*" else given + (f";expires={granted}" if granted else "")
        self.b.reply(200, to=sent, extra=[("Contact", told), ("Expires", expires)] if told else [("Expires", expires)])
        self.a.expect(200)
        return given[1:-1]

    def over(self) -> None:
        self.keep_alive.configure([], self.now)
        self.drain()
        self.a.inbox.clear()
        super().over()
        assert self.counts.get("BINDINGS_WATCHED", 0) == 0


@pytest.mark.parametrize(("method", "octets"), [("crlf", b"\r\n\r\n"), ("udp", b"\0\0\0\0")])
def test_a_phone_behind_nat_is_pinged_every_interval(method: Method, octets: bytes) -> None:
    f = PingLadder(method, interval_s=20.0)
    began = f.now
    f.register()
    f.after(200.0)
    times = [at for at, _, _ in f.pings]
    assert len(times) == 10
    assert began < times[0] <= began + 20.0
    assert all(abs(later - at - 20.0) < 1e-6 for at, later in itertools.pairwise(times))
    assert {(flow.host, flow.port, data) for _, flow, data in f.pings} == {(A_HOST, PUBLIC_PORT, octets)}
    assert f.counts["KEEP_ALIVES_SENT"] == 10
    f.over()


def test_pings_end_with_the_binding() -> None:
    f = PingLadder(interval_s=10.0)
    f.register(expires="60")
    f.after(500.0)
    assert 5 <= len(f.pings) <= 6
    assert len(f.keep_alive) == 0
    assert f.core.next_timer() is None  # nothing is left that would wake the worker
    f.over()


def test_the_registrar_says_for_how_long() -> None:
    f = PingLadder(interval_s=10.0)
    f.register(expires="600", granted="30")
    f.after(500.0)
    assert 2 <= len(f.pings) <= 3
    f.over()


@pytest.mark.parametrize("contact", ["", "*"])
def test_pings_end_when_the_phone_leaves(contact: str) -> None:
    f = PingLadder(interval_s=10.0)
    f.register()
    f.after(25.0)
    before = len(f.pings)
    assert before
    f.register(expires="0", contact=contact)
    f.after(100.0)
    assert len(f.pings) == before
    f.over()


def test_a_refresh_moves_the_pings_to_the_new_port() -> None:
    f = PingLadder(interval_s=10.0)
    f.register()
    f.phone.public_port = 6222
    f.register()
    f.after(100.0)
    assert len(f.keep_alive) == 1
    assert {flow.port for _, flow, _ in f.pings} == {6222}
    f.over()


@pytest.mark.parametrize(
    ("natted", "only_nated", "pinged"), [(True, True, True), (False, True, False), (False, False, True)]
)
def test_who_is_pinged(natted: bool, only_nated: bool, pinged: bool) -> None:
    f = PingLadder(natted=natted, only_nated=only_nated)
    f.register()
    f.after(60.0)
    assert bool(f.pings) is pinged
    f.over()


def test_who_is_no_longer_behind_nat_is_left_alone() -> None:
    f = PingLadder(interval_s=10.0)
    f.register()
    f.phone.via, f.phone.public_port = f"{A_HOST}:5070", 5070
    f.keep_alive.configure([KeepAliveSettings("inside", interval_s=10.0)], f.now)
    sent = f.a.contact
    f.a.contact = sent.replace(f"{INSIDE_HOST}:{INSIDE_PORT}", f"{A_HOST}:5070")
    f.register()
    f.after(300.0)
    before = len(f.pings)
    f.after(300.0)
    assert len(f.pings) == before
    f.over()


def test_a_refused_registration_is_not_pinged() -> None:
    f = PingLadder()
    f.a.request("REGISTER", uri="sip:example.com")
    f.b.reply(403, to=f.b.expect("REGISTER"))
    f.a.expect(403)
    f.after(100.0)
    assert not f.pings
    f.over()


STREAMS = (
    ListenerSettings("inside", "udp", OUR_A, 5060, OUR_A, 5060),
    ListenerSettings("outside", "udp", "10.0.0.5", 5060, "198.51.100.1", 5060),
    ListenerSettings("inside", "tcp", OUR_A, 5060, OUR_A, 5060),
    ListenerSettings("inside", "ws", OUR_A, 80, OUR_A, 80),
)


@pytest.mark.parametrize(
    ("transport", "method", "pinged"), [("tcp", "udp", [CRLF]), ("tcp", "crlf", [CRLF]), ("ws", "crlf", [])]
)
def test_on_connections(transport: str, method: Method, pinged: list[bytes]) -> None:
    """Streams get two line ends whatever is asked for (RFC 5626 §3.5.1); WebSockets ping by themselves (RFC 7118)."""
    f = PingLadder(method, listeners=STREAMS, interval_s=10.0)
    listener = 2 if transport == "tcp" else 3
    flow = Flow(listener, transport, A_HOST, 40_000, 7)
    f.peers.sources[listener, A_HOST] = f.peers.sources[0, A_HOST]
    data = (
        f"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/{transport.upper()} {INSIDE_HOST};branch=z9hG4bKs\r\n"
        "Max-Forwards: 70\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: s\r\n"
        f"CSeq: 1 REGISTER\r\nContact: <{PHONE_URI};transport={transport}>\r\nContent-Length: 0\r\n\r\n"
    )
    f.deliver(data.encode(), flow)
    sent = f.b.expect("REGISTER")
    f.b.reply(200, to=sent, extra=[("Contact", sent.get("Contact") or "")])
    f.after(15.0)
    assert [(data, flow) for _, flow, data in f.pings][:1] == [(octets, flow) for octets in pinged]
    f.over()


def options(f: PingLadder, answers: int = 200) -> None:
    """The phone gets an OPTIONS, and answers it, or does not (0)."""
    ping = f.a.inbox[-1]  # others are what came again of it, or of one that had no answer
    assert ping.method == "OPTIONS"
    assert ping.uri == PHONE_URI
    assert ping.from_tag
    if answers:
        f.a.reply(answers, to=ping)


def test_options_are_answered_in_any_way() -> None:
    f = PingLadder("options", interval_s=60.0, misses=2)
    f.register(expires="3600")
    for status in (200, 405, 486, 0, 200, 0, 481, 0):
        f.after(60.0)
        options(f, status)
        f.a.inbox.clear()
    assert f.counts["KEEP_ALIVES_UNANSWERED"] == 2
    assert "BINDINGS_LOST" not in f.counts
    f.over()


def test_a_phone_that_does_not_answer_is_forgotten_until_it_registers_again() -> None:
    f = PingLadder("options", interval_s=60.0, misses=3)
    uri = f.register(expires="3600")
    requests = f.core.requests
    assert requests.binding(uri, "outside") is not None
    f.after(60.0 * 3)
    assert requests.binding(uri, "outside") is not None
    f.after(60.0)
    assert requests.binding(uri, "outside") is None
    assert (f.counts["KEEP_ALIVES_UNANSWERED"], f.counts["BINDINGS_LOST"], len(f.keep_alive)) == (3, 1, 0)
    (note,) = [note for note in f.notes if "forgotten" in note.event]
    assert note.fields["aor"] == f"sip:+4930123@{OUR_A}"
    assert note.fields["contact"] == PHONE_URI
    (told,) = f.changed
    assert (told.uri, told.flow.port) == (PHONE_URI, PUBLIC_PORT)
    assert told.lost_s > 3000
    f.a.inbox.clear()
    assert f.register(expires="3600") == uri
    assert requests.binding(uri, "outside") is not None
    assert f.changed[-1].lost_s == 0
    f.over()


def test_what_is_lost_is_lost_no_longer_than_it_was_bound() -> None:
    f = PingLadder("options", interval_s=20.0, misses=1)
    f.register(expires="100")
    f.after(50.0)
    assert f.core.requests.lost
    f.after(100.0)
    assert not f.core.requests.lost
    f.a.inbox.clear()
    f.over()


def test_another_worker_is_told() -> None:
    """It has not relayed the REGISTER, but it may get the call."""
    f = PingLadder()
    uri = f.register()
    requests = f.core.requests
    target = requests.binding(uri, "outside")
    assert target is not None
    assert target.flow is not None
    f.keep_alive.told(Binding(PHONE_URI, target.flow), 50.0, f.now)
    assert requests.binding(uri, "outside") is None
    f.after(51.0)
    assert requests.binding(uri, "outside") == target
    f.keep_alive.told(Binding(PHONE_URI, target.flow), 50.0, f.now)
    f.keep_alive.told(Binding(PHONE_URI, target.flow), 0.0, f.now)
    assert requests.binding(uri, "outside") == target
    f.over()


def test_options_pass_the_local_route() -> None:
    seen: list[tuple[str, str]] = []

    def local(f: Ladder, request: LocalRequest) -> None:
        seen.append((request.method, request.peer))
        request.headers.append(("X-Ping", "1"))

    f = PingLadder("options", routes=frozenset({RouteKind.REQUEST, RouteKind.LOCAL}), hooks={"local_route": local})
    f.register()
    f.after(30.0)
    ping = f.a.expect("OPTIONS")
    assert ping.get("X-Ping") == "1"
    f.a.reply(200, to=ping)
    assert seen == [("OPTIONS", "phones")]
    f.over()


def test_other_pings_pass_no_route_and_leave_no_transaction() -> None:
    f = PingLadder(routes=frozenset({RouteKind.REQUEST, RouteKind.LOCAL}))
    f.register()
    f.after(40.0)
    assert f.pings
    assert not len(f.core.layer)
    f.over()


def test_thousands_are_spread_evenly_over_the_interval() -> None:
    f = PingLadder(interval_s=30.0)
    phones = Source("phones", "inside", "")
    service, flow = f.keep_alive, Flow(0, "udp", A_HOST, 6000)
    count = 6000
    for number in range(count):
        binding = Binding(f"sip:{number}@{INSIDE_HOST}", flow)
        service._watch(phones, (f"call-{number}", binding.uri), binding, "sip:x@y", f.now + 3600, f.now)
    began = f.now
    f.after(30.0 + 1e-6)
    assert len(f.pings) == count
    seconds = Counter(int((at - began - 1e-3) * 2) for at, _, _ in f.pings)
    assert max(seconds.values()) - min(seconds.values()) <= 0.25 * count / 60
    f.after(30.0)
    assert len(f.pings) == 2 * count
    f.counts["BINDINGS_WATCHED"] = count + f.counts.get("BINDINGS_WATCHED", 0) - f.counts["BINDINGS_WATCHED"]
    f.over()


def test_a_busy_worker_is_late_but_pings_nobody_twice() -> None:
    f = PingLadder(interval_s=10.0)
    f.register(expires="3600")
    f.now += 1000.0  # nothing ran for that long
    f.core.fire(f.now, f.wall)
    f.drain()
    assert len(f.pings) == 1
    f.after(10.0)
    assert len(f.pings) == 2
    f.over()


def test_another_interval_is_taken_over_and_none_ends_them() -> None:
    f = PingLadder(interval_s=100.0)
    f.register(expires="3600")
    f.configure("crlf", interval_s=5.0)
    f.after(50.0)
    assert len(f.pings) == 10
    f.keep_alive.configure([], f.now)
    f.after(100.0)
    assert len(f.pings) == 10
    f.register(expires="3600")
    f.after(100.0)
    assert len(f.pings) == 10
    f.over()


def test_without_pings_nothing_is_kept() -> None:
    f = PingLadder()
    f.keep_alive.configure([], f.now)
    f.register()
    assert len(f.keep_alive) == 0
    f.over()


def test_a_realm_without_nat_and_a_route_that_fixes() -> None:
    """``nat: off``: only those of whom the route says it are behind NAT."""

    def fixing(f: Ladder, subject: Any) -> None:  # Any: an OutOfDialogRequest
        subject.fixed, subject.nat = True, "its route says so"
        across(f, subject)

    f = PingLadder(realms={"inside": RealmSettings("inside"), "outside": RealmSettings("outside")})
    f.register()
    assert len(f.keep_alive) == 0
    f.requests = fixing
    f.register()
    assert len(f.keep_alive) == 1
    f.over()
