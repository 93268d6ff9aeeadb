"""Handshakes over memory, in virtual time: a relay with fake sockets, what a browser describes, and its DTLS end."""

from __future__ import annotations

import ipaddress
import time
from random import Random
from typing import Any

import pytest
from OpenSSL import SSL

from media import dtls, keying
from media.config import RealmInterface
from media.counters import MediaCounter
from media.dtls import Dtls, Identity, datagrams
from media.protocol import Answer, Delete, Endpoint, Ice, Offer, Reply, Stream
from media.relay import Relay
from media.rules import Address, Feature, RuleFlag, pack_address
from media.srtp import Suite
from media.state import Arena
from tests.support.browser import dtls_end, flight, masters, proceed
from tests.support.fake_sockets import FakeSockets

S = 10**9
HOME = pack_address(ipaddress.ip_address("192.0.2.10"), 5000)
ELSEWHERE = pack_address(ipaddress.ip_address("192.0.2.10"), 6000)
PHONE = Stream("198.51.100.5", 7000)


class Bench:
    """A relay and its handshakes; the datapath between them is left out, so checks are claimed, not made."""

    def __init__(self) -> None:
        self.arena = Arena(-1, 64)
        self.counts: dict[MediaCounter, int] = {}
        self.now_ns = 1000 * S
        self.sent: list[tuple[int, bytes, bytes]] = []
        self.dtls = Dtls(self.arena, self.send, self.count)
        realms = {name: RealmInterface("10.0.0.1", "", ports) for name, ports in (("core", (30000, 30099)),)}
        realms["outside"] = RealmInterface("10.1.0.1", "", (30100, 30399))
        sockets = FakeSockets(self.arena)
        self.relay = Relay(
            realms, self.arena, sockets, Random(1), self.count, worker="m0", fingerprint=self.dtls.fingerprint
        )

    def count(self, counter: MediaCounter, amount: int) -> None:
        self.counts[counter] = self.counts.get(counter, 0) + amount

    def send(self, index: int, to: bytes, data: bytes) -> int:
        self.sent.append((index, to, data))
        return 0

    def ask(self, request: Any) -> Reply:  # Any: a request of the protocol
        reply = self.relay.handle(request, b"sip-0", self.now_ns)
        changed, self.relay.allocation.changed = self.relay.allocation.changed, []
        for index in changed:
            self.dtls.look(index, self.now_ns)
        return reply

    def offer(self, stream: Stream, session: str = "s", **more: Any) -> Reply:  # Any: fields of Offer
        more = {"from_srtp": "dtls", "from_ice": "lite", **more}
        return self.ask(Offer(session, "a", "b1", "outside", "core", [stream], **more))

    def begin(self, browser: Browser, session: str = "s", **more: Any) -> Endpoint:  # Any: of browser.stream
        """The browser calls the phone; what it was shown. It has proved to be at HOME."""
        offered = self.offer(browser.stream(**more), session)
        assert offered.ok, offered.reason
        answered = self.ask(Answer(session, "b1", "a", [PHONE]))
        assert answered.ok, answered.reason
        self.place(session)
        return answered.endpoints[0]

    def place(self, session: str = "s", where: bytes = HOME) -> None:
        index = self.rule(session=session)
        self.arena.rules[index].rtp_remote = Address.from_buffer_copy(where)
        self.arena.webrtc[index].checked_ns = self.now_ns
        self.dtls.look(index, self.now_ns)

    def rule(self, leg: str = "a", session: str = "s") -> int:
        return self.relay.sessions[session].legs[leg].rules[0]

    def exchange(self, browser: Browser, session: str = "s", source: bytes = HOME, *, leg: str = "a") -> bool:
        """All that both ends have to say, without loss; is the browser's handshake done?"""
        index = self.rule(leg, session)
        done = False
        for _ in range(10):
            done = proceed(browser.end)
            outgoing = flight(browser.end)
            for datagram in outgoing:
                self.dtls.receive(index, source, datagram, self.now_ns)
            incoming = [data for rule, to, data in self.sent if (rule, to) == (index, source)]
            self.sent = []
            for data in incoming:
                browser.end.bio_write(data)
            if not outgoing and not incoming:
                break
        return done

    def keyed_as(self, browser: Browser, leg: str = "a", session: str = "s") -> bool:
        """Do both ends have the same keys?"""
        keys = self.arena.keys[self.rule(leg, session)]
        if not keys.receiving.suite:
            return False
        ours, theirs = masters(browser.end) if browser.active else reversed(masters(browser.end))
        suite = Suite(keys.receiving.suite)
        got = (bytes(stream.master)[: suite.master_bytes] for stream in (keys.receiving, keys.sending))
        return tuple(got) == (ours, theirs)

    def tick(self, seconds: float) -> None:
        self.now_ns += int(seconds * S)
        self.dtls.tick(self.now_ns)


class Browser:
    def __init__(self, *, active: bool = True, identity: Identity | None = None) -> None:
        self.identity = identity or Identity()
        self.active = active
        self.end = dtls_end(self.identity, active=active)

    def stream(self, setup: str = "actpass", ufrag: str = "abcd", *, with_ice: bool = True) -> Stream:
        stream = Stream("0.0.0.0", 9, protocol="UDP/TLS/RTP/SAVPF", rtcp_mux=True)
        stream.fingerprints, stream.setup = [self.identity.fingerprint], setup  # type: ignore[assignment]  # a Setup
        if with_ice:
            stream.ice = Ice(ufrag, "w" * 22)
        return stream

    def renew(self) -> None:
        self.end = dtls_end(self.identity, active=self.active)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_we_are_passive_for_who_leaves_the_choice_to_us(bench: Bench) -> None:
    browser = Browser()
    shown = bench.begin(browser)
    assert (shown.setup, shown.protocol, shown.fingerprint) == (
        "passive",
        "UDP/TLS/RTP/SAVPF",
        bench.dtls.fingerprint(),
    )
    assert bench.exchange(browser)
    assert bench.keyed_as(browser)
    assert bench.dtls.pending == 0
    assert bench.counts[MediaCounter.DTLS_ESTABLISHED] == 1


def test_we_are_active_for_who_waits(bench: Bench) -> None:
    gateway = Browser(active=False)
    offered = bench.offer(gateway.stream("passive"))
    assert offered.ok
    assert bench.ask(Answer("s", "b1", "a", [PHONE])).endpoints[0].setup == "active"
    bench.tick(1)
    assert bench.sent == []  # nobody knows where it is
    bench.place()
    assert bench.sent
    for _, _, hello in bench.sent:
        gateway.end.bio_write(hello)
    bench.sent = []
    assert bench.exchange(gateway)
    assert bench.keyed_as(gateway)


def test_before_the_answer_a_handshake_may_end_but_gives_no_keys(bench: Bench) -> None:
    browser = Browser()
    asked = Offer("s", "b1", "a", "core", "outside", [PHONE], to_srtp="dtls", to_ice="lite")
    shown = bench.ask(asked).endpoints[0]
    assert (shown.setup, shown.rtcp_port) == ("actpass", shown.port)
    assert shown.ice is not None
    bench.place()
    assert bench.exchange(browser)
    assert not bench.keyed_as(browser)
    assert bench.ask(Answer("s", "a", "b1", [browser.stream("active")])).ok
    assert bench.keyed_as(browser)


def test_before_the_answer_somebody_else_may_have_been_there(bench: Bench) -> None:
    browser, other = Browser(), Browser()
    bench.ask(Offer("s", "b1", "a", "core", "outside", [PHONE], to_srtp="dtls", to_ice="lite"))
    bench.place()
    assert bench.exchange(other)
    assert bench.ask(Answer("s", "a", "b1", [browser.stream("active")])).ok
    assert bench.counts[MediaCounter.DTLS_WRONG_CERTIFICATE] == 1
    bench.now_ns += 2 * S
    assert bench.exchange(browser)
    assert bench.keyed_as(browser)


def test_the_same_description_keeps_the_association(bench: Bench) -> None:
    browser = Browser()
    shown = bench.begin(browser)
    bench.exchange(browser)
    before = bytes(bench.arena.keys[bench.rule()])
    assert bench.begin(browser) == shown
    assert bytes(bench.arena.keys[bench.rule()]) == before
    assert bench.arena.webrtc[bench.rule()].established == 1


def test_an_ice_restart_keeps_the_association(bench: Bench) -> None:
    browser = Browser()
    shown = bench.begin(browser)
    bench.exchange(browser)
    again = bench.begin(browser, ufrag="efgh")
    assert (again.fingerprint, again.setup) == (shown.fingerprint, shown.setup)
    assert again.ice != shown.ice
    assert bench.arena.webrtc[bench.rule()].established == 1


def test_another_certificate_is_another_association_and_the_keys_stay_until_it_has_some(bench: Bench) -> None:
    browser, other = Browser(), Browser()
    bench.begin(browser)
    bench.exchange(browser)
    bench.now_ns += 5 * S
    bench.begin(other)
    assert bench.keyed_as(browser)
    assert bench.exchange(other)
    assert bench.keyed_as(other)
    keys = bench.arena.keys[bench.rule()]
    assert bytes(keys.former.master)[:44] == masters(browser.end)[0]
    assert keys.grace > 0


def test_a_change_of_roles_is_another_association(bench: Bench) -> None:
    browser = Browser()
    bench.begin(browser)
    bench.exchange(browser)
    number = bench.arena.webrtc[bench.rule()].association
    bench.begin(browser, setup="active")  # as it is
    assert bench.arena.webrtc[bench.rule()].association == number
    bench.begin(browser, setup="passive")
    assert bench.arena.webrtc[bench.rule()].association != number


def test_what_was_lost_is_sent_again(bench: Bench) -> None:
    browser = Browser()
    bench.begin(browser)
    proceed(browser.end)
    hello = flight(browser.end)
    bench.dtls.receive(bench.rule(), HOME, hello[0], bench.now_ns)
    first = [data for _, _, data in bench.sent]
    bench.sent = []  # lost
    bench.dtls.receive(bench.rule(), HOME, hello[0], bench.now_ns)  # repeated by the client
    assert bench.sent or bench.dtls.pending == 1
    for data in first:
        browser.end.bio_write(data)
    bench.sent = []
    proceed(browser.end)
    finished = flight(browser.end)
    for data in finished:
        bench.dtls.receive(bench.rule(), HOME, data, bench.now_ns)
    assert bench.dtls.pending == 0
    bench.sent = []  # our last flight is lost: the client repeats its own, a second later by the clock of OpenSSL
    time.sleep(browser.end.DTLSv1_get_timeout() or 0)
    browser.end.DTLSv1_handle_timeout()
    for data in flight(browser.end):
        bench.dtls.receive(bench.rule(), HOME, data, bench.now_ns)
    assert bench.sent
    for _, _, data in bench.sent:
        browser.end.bio_write(data)
    assert proceed(browser.end)
    assert bench.keyed_as(browser)


def fragments(record: bytes) -> list[bytes]:
    """A handshake message of one record in two (RFC 6347 §4.2.3), the second numbered far ahead."""
    head, message, body = record[:11], record[13:25], record[25:]
    half, found = len(body) // 2, []
    for number, (at, part) in enumerate(((0, body[:half]), (half, body[half:]))):
        fragment = message[:6] + at.to_bytes(3, "big") + len(part).to_bytes(3, "big") + part
        sequence = (int.from_bytes(head[5:], "big") + 20 * number).to_bytes(6, "big")
        found.append(head[:5] + sequence + len(fragment).to_bytes(2, "big") + fragment)
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_a_hello_may_come_in_parts_and_in_any_order(bench: Bench, turned: bool) -> None:
    browser = Browser()
    bench.begin(browser)
    proceed(browser.end)
    parts = fragments(flight(browser.end)[0])
    for part in reversed(parts) if turned else parts:
        bench.dtls.receive(bench.rule(), HOME, part, bench.now_ns)
    assert bench.sent
    for _, _, data in bench.sent:
        browser.end.bio_write(data)
    bench.sent = []
    assert bench.exchange(browser)
    assert bench.keyed_as(browser)


def test_a_handshake_that_does_not_end_is_given_up(bench: Bench) -> None:
    browser = Browser()
    bench.begin(browser)
    proceed(browser.end)
    bench.dtls.receive(bench.rule(), HOME, flight(browser.end)[0], bench.now_ns)
    assert bench.dtls.pending == 1
    bench.tick(31)
    assert bench.dtls.pending == 0
    assert bench.counts[MediaCounter.DTLS_FAILED] == 1
    bench.sent = []
    browser.renew()
    assert bench.exchange(browser)


def test_alerts_in_clear_and_noise_end_nothing(bench: Bench) -> None:
    browser, draw = Browser(), Random(5)
    bench.begin(browser)
    proceed(browser.end)
    bench.dtls.receive(bench.rule(), HOME, flight(browser.end)[0], bench.now_ns)
    for data in [data for _, _, data in bench.sent]:
        browser.end.bio_write(data)
    bench.sent = []
    bench.dtls.receive(bench.rule(), HOME, bytes.fromhex("15fefd00000000000000050002022a"), bench.now_ns)
    for turn in range(300):
        epoch = draw.choice((b"\0\0", b"\0\1"))
        noise = bytes((draw.choice((20, 22, 23, 24)),)) + b"\xfe\xfd" + epoch + draw.randbytes(draw.randrange(60))
        bench.dtls.receive(bench.rule(), HOME, noise, bench.now_ns + turn)
    assert bench.dtls.pending == 1
    assert bench.exchange(browser)
    assert bench.keyed_as(browser)


def test_the_end_of_the_association_ends_srtp(bench: Bench) -> None:
    browser = Browser()
    bench.begin(browser)
    bench.exchange(browser)
    browser.end.shutdown()
    for data in flight(browser.end):
        bench.dtls.receive(bench.rule(), HOME, data, bench.now_ns)
    assert bench.counts[MediaCounter.DTLS_CLOSED] == 1
    keys = bench.arena.keys[bench.rule()]
    assert (keys.receiving.suite, keys.sending.suite, any(bytes(keys.receiving.master))) == (0, 0, False)
    assert bench.arena.rules[bench.rule()].flags & RuleFlag.SRTP  # and never in clear


def test_the_legs_address_may_change_within_a_handshake(bench: Bench) -> None:
    """ICE nominates another pair; the datapath lets nobody else through."""
    browser = Browser()
    bench.begin(browser)
    proceed(browser.end)
    bench.dtls.receive(bench.rule(), HOME, flight(browser.end)[0], bench.now_ns)
    for _, _, data in bench.sent:
        browser.end.bio_write(data)
    bench.sent = []
    assert bench.exchange(browser, source=ELSEWHERE)
    assert bench.keyed_as(browser)


def test_handshakes_are_limited_by_source_and_in_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtls, "IN_FLIGHT_OF_SOURCE", 3)
    monkeypatch.setattr(dtls, "IN_FLIGHT", 5)
    third = pack_address(ipaddress.ip_address("192.0.2.77"), 5000)
    for at in range(8):
        browser = Browser()
        bench.begin(browser, f"s{at}")
        proceed(browser.end)
        hello = flight(browser.end)[0]
        bench.dtls.receive(bench.rule(session=f"s{at}"), HOME if at < 4 else third, hello, bench.now_ns)
    assert bench.dtls.pending == 5
    assert bench.counts[MediaCounter.DTLS_LIMITED] == 3
    bench.tick(31)
    assert bench.dtls.pending == 0
    bench.sent = []
    browser.renew()
    assert bench.exchange(browser, "s7", third)


def test_a_leg_begins_once_a_second_at_most(bench: Bench) -> None:
    browser, other = Browser(), Browser()
    bench.begin(browser)
    assert bench.exchange(other)  # somebody else's certificate
    assert bench.counts[MediaCounter.DTLS_WRONG_CERTIFICATE] == 1
    assert not bench.exchange(browser)
    assert bench.counts[MediaCounter.DTLS_LIMITED] >= 1
    bench.now_ns += 2 * S
    browser.renew()
    assert bench.exchange(browser)


def test_without_ice_a_forged_hello_keeps_nobody_out(bench: Bench) -> None:
    gateway = Browser()
    stream = gateway.stream("active", with_ice=False)
    stream.address, stream.port = "192.0.2.10", 5000
    assert bench.offer(stream).ok
    assert bench.ask(Answer("s", "b1", "a", [PHONE])).endpoints[0].ice is None
    for port in range(6001, 6021):
        forger = Browser()
        proceed(forger.end)
        source = pack_address(ipaddress.ip_address("192.0.2.10"), port)
        for data in flight(forger.end):
            bench.dtls.receive(bench.rule(), source, data, bench.now_ns)
    assert all(len(data) < 100 for _, _, data in bench.sent)  # cookies alone
    assert bench.dtls.pending == dtls.IN_FLIGHT_OF_RULE
    bench.sent = []
    assert bench.exchange(gateway)
    assert bench.keyed_as(gateway)
    assert bench.dtls.pending == 0


def test_a_leg_that_goes_takes_its_handshake_and_its_secrets_along(bench: Bench) -> None:
    browser = Browser()
    bench.begin(browser)
    index = bench.rule()
    proceed(browser.end)
    bench.dtls.receive(index, HOME, flight(browser.end)[0], bench.now_ns)
    bench.ask(Delete("s"))
    assert bench.dtls.pending == 0
    assert bench.arena.rules[index].features == 0
    assert not any(bytes(bench.arena.webrtc[index]))


def test_a_leg_that_goes_over_to_rtp_leaves_no_fingerprint_behind(bench: Bench) -> None:
    browser = Browser()
    bench.begin(browser)
    bench.exchange(browser)
    assert bench.offer(Stream("192.0.2.10", 5000), from_srtp="off", to_srtp="optional", from_ice="off").ok
    assert bench.ask(Answer("s", "b1", "a", [PHONE])).ok
    index = bench.rule()
    assert bench.arena.rules[index].features == 0
    assert not any(bytes(bench.arena.webrtc[index]))
    assert not any(bytes(bench.arena.keys[index]))


def test_a_handshake_of_ours_follows_the_leg(bench: Bench) -> None:
    gateway = Browser(active=False)
    bench.begin(gateway, setup="passive")
    assert {to for _, to, _ in bench.sent} == {HOME}
    bench.sent = []
    bench.place(where=ELSEWHERE)
    assert bench.dtls.pending == 1
    bench.dtls.receive(bench.rule(), ELSEWHERE, b"\x16" + bytes(40), bench.now_ns)
    time.sleep(1.05)  # by the clock of OpenSSL
    bench.tick(1.05)
    assert {to for _, to, _ in bench.sent} == {ELSEWHERE}


def test_a_successor_has_the_same_certificate(bench: Bench) -> None:
    successor = Dtls(bench.arena, bench.send, bench.count)
    assert successor.fingerprint() == bench.dtls.fingerprint()
    assert Dtls(Arena(-1, 4), bench.send, bench.count).fingerprint() != bench.dtls.fingerprint()


def test_a_successor_begins_again_what_was_in_progress(bench: Bench) -> None:
    gateway = Browser(active=False)
    bench.begin(gateway, setup="passive")
    bench.sent = []
    bench.dtls = Dtls(bench.arena, bench.send, bench.count)
    bench.dtls.look(bench.rule(), bench.now_ns)
    for _, _, hello in bench.sent:
        gateway.end.bio_write(hello)
    bench.sent = []
    assert bench.exchange(gateway)
    assert bench.keyed_as(gateway)


def test_without_a_common_profile_there_is_no_media(bench: Bench) -> None:
    browser = Browser()
    bench.begin(browser)
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    context.use_privatekey(browser.identity.key)
    context.use_certificate(browser.identity.certificate)
    browser.end = SSL.Connection(context, None)
    browser.end.set_ciphertext_mtu(dtls.MTU)
    browser.end.set_connect_state()
    bench.exchange(browser)
    assert bench.counts[MediaCounter.DTLS_FAILED] == 1
    assert not bench.arena.keys[bench.rule()].receiving.suite


def test_records_leave_in_datagrams_of_a_fitting_size() -> None:
    records = [
        bytes.fromhex("16fefd0000000000000000") + size.to_bytes(2, "big") + bytes(size) for size in (600, 500, 700)
    ]
    assert datagrams(b"".join(records)) == [records[0] + records[1], records[2]]
    assert datagrams(b"") == []


def test_dtls_takes_the_features_of_its_rule_and_no_other(bench: Bench) -> None:
    bench.begin(Browser())
    assert bench.arena.rules[bench.rule()].features == Feature.ICE | Feature.DTLS
    assert bench.arena.rules[bench.rule("b1")].features == 0
    assert not keying.speaks_dtls(bench.arena, bench.rule("b1"))
