"""Phones behind NATs of every kind: each registers through us, is called, calls, hears and is heard.

```
 phone 192.168.1.10 ── NAT 198.51.100.x ── internet 203.0.113.1 ── 203.0.113.10 SBC 10.2.0.1 ── 10.2.0.2 registrar, desk
```

The NATs are those of the kernel (tests/support/nat.py), and each is probed first: it is what its name says.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sbc.selftest.netns import Lab
from tests.support import nat
from tests.support.baresip import LOUD, Baresip
from tests.support.kamailio import Kamailio
from tests.support.nat import BY_PORT, Alg, Behaviour, Phone, Reflector, Wire, hear_each_other
from tests.support.sbc import Sbc, eventually, running

pytestmark = pytest.mark.peer("kamailio", "ip", "nft", "root")
INTERNET, OUTSIDE, DISTRUSTFUL, CARING = "203.0.113.1", "203.0.113.10", "203.0.113.11", "203.0.113.12"
CORE, REGISTRAR = "10.2.0.1", "10.2.0.2"
REFLECTORS = "192.0.2.1", "192.0.2.2"
DOMAIN = "carrier.example"
LAN, PHONE, SECOND = "192.168.1.0/24", "192.168.1.10", "192.168.1.11"
CLEAR = LOUD * 0.8
CONFIG = f"""\
workers: {{ sip: 2, media: 1 }}
realms:
  outside:
    listen: [udp:{OUTSIDE}:5060]
    media: {{ address: {OUTSIDE}, ports: 30000-30999 }}
    nat: auto
  distrustful: # of all that a phone says of where it is
    listen: [udp:{DISTRUSTFUL}:5060]
    media: {{ address: {DISTRUSTFUL}, ports: 32000-32999 }}
    nat: always
  caring: # for NATs that forget soon
    listen: [udp:{CARING}:5060]
    media: {{ address: {CARING}, ports: 33000-33999 }}
    nat: auto
    keep_alive: {{ method: crlf, interval_s: 1.5 }}
  core:
    listen: [udp:{CORE}:5060]
    media: {{ address: {CORE}, ports: 31000-31999 }}
    trusted: true
peers:
  phones: {{ realm: outside, addresses: 198.51.100.0/24, calls_to: registrar }}
  carriers_own: {{ realm: outside, addresses: 100.64.0.0/10, calls_to: registrar }}
  cared_for: {{ realm: caring, addresses: 198.51.100.0/24, calls_to: registrar }}
  mangled: {{ realm: distrustful, addresses: 198.51.100.0/24, calls_to: registrar }}
  registrar: {{ realm: core, addresses: {REGISTRAR}, gateway: "sip:{REGISTRAR}:5060" }}
"""


@dataclass
class Matrix:
    """The internet, the SBC, the core; NATs and phones come with the cases."""

    lab: Lab
    reflector: Reflector
    registrar: Kamailio
    core: Wire  # what crosses the cable of the core
    sbc: Sbc
    nats: int = 0
    others: set[str] = field(default_factory=set)  # calls of the cases before
    secrets: list[str] = field(default_factory=list)  # addresses of phones and of their NATs

    def nat(
        self, kind: str, lan: str = LAN, *, behind: str = "", gateway: str = "", alg_for: str = ""
    ) -> tuple[str, str]:
        """A router; its name and its address towards the world, or towards ``behind``, the NAT in front of it."""
        self.nats += 1
        name = f"nat{self.nats}"
        self.lab.host(name)
        if behind:
            public, there = f"100.64.{self.nats}.2", f"100.64.{self.nats}.1"
        else:
            public, there = f"198.51.100.{4 * self.nats + 2}", f"198.51.100.{4 * self.nats + 1}"
        self.lab.wire(name, f"{public}/30", behind or "internet", f"{there}/30")
        self.lab.route(name, "default", there)
        nat.translate(self.lab, name, kind, public, lan, alg_for=alg_for)
        self.secrets.append(public)
        return name, public

    def lan(self, router: str, address: str = PHONE) -> str:
        """A host with this address behind a router; its name."""
        name = f"lan-{router}"
        self.lab.host(name)
        inner = address.rpartition(".")[0] + ".1"
        self.lab.wire(name, f"{address}/24", router, f"{inner}/24")
        self.lab.route(name, "default", inner)
        self.secrets.append(address)
        return name

    def phone(self, host: str, user: str, address: str = PHONE, proxy: str = OUTSIDE) -> Phone:
        return Phone(self.lab, host, address, user, (proxy, 5060), domain=DOMAIN)

    def desk(self) -> Phone:
        """A phone in the core."""
        return Phone(self.lab, "core", REGISTRAR, "desk", (REGISTRAR, 5060), port=5070, domain=DOMAIN)

    def behaves(self, host: str, expected: Behaviour, public: str, address: str = PHONE) -> None:
        assert nat.behaviour(self.lab, host, address, self.reflector) == (expected, public)

    def begin(self) -> None:
        """What calls of other cases leave behind is none of the next one's business."""
        self.others = {*(it["key"] for it in self.sbc.calls()), *(it["id"] for it in self.sbc.cdrs())}

    def recorded(self, calls: int, *, packets: int = 10, forgotten: int = 0) -> None:
        """There is one record for each of so many calls, and all legs had audio both ways; besides one for each call to
        where a phone was before, which was given up."""
        eventually(lambda: len(self._records()) >= calls + forgotten, 10, f"the records of {calls} calls")
        found = self._records()
        assert sorted(cdr["status"] for cdr in found) == [200] * calls + [487] * forgotten
        for cdr in (cdr for cdr in found if cdr["answered"]):
            for leg in cdr["media"].values():
                assert min(leg["packets"], leg["packets_out"]) >= packets, cdr
        assert self.sbc.total("CORE_ERRORS") == self.sbc.total("CORE_FAULTS") == 0

    def _records(self) -> list[dict[str, Any]]:  # Any: JSON
        return [cdr for cdr in self.sbc.cdrs() if cdr["id"] not in self.others]

    def kept_apart(self, *phones: Phone) -> None:
        """Nothing of the phones' networks was said in the core, and nothing of the core to the phones."""
        said = [found for found in self.core.sip() if found.destination[0] == REGISTRAR != found.source[0]]
        assert {b"REGISTER", b"INVITE"} <= {found.payload.split(b" ", 1)[0] for found in said}
        for found in said:
            assert not _words_in(found.payload, [*self.secrets, OUTSIDE, DISTRUSTFUL, CARING]), found.payload.decode()
        for phone in phones:
            assert phone.read
            for message in phone.read:
                assert not _words_in(message, [CORE, REGISTRAR]), message.decode()


def _words_in(payload: bytes, addresses: list[str]) -> list[str]:
    return [it for it in addresses if re.search(rb"(?<![\d.])%b(?![\d.])" % re.escape(it.encode()), payload)]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    folder = tmp_path_factory.mktemp("nat")
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        for host in ("internet", "sbc", "core"):
            lab.host(host)
        lab.wire("internet", f"{INTERNET}/24", "sbc", f"{OUTSIDE}/24")
        for address in (DISTRUSTFUL, CARING):
            lab.address("sbc", f"{address}/32")
        lab.wire("sbc", f"{CORE}/24", "core", f"{REGISTRAR}/24")
        lab.route("sbc", "default", INTERNET)
        lab.forward("internet")
        for address in REFLECTORS:
            lab.address("internet", f"{address}/32")
        reflector = stack.enter_context(Reflector(lab, "internet", REFLECTORS))
        core = stack.enter_context(Wire(lab, "core"))
        registrar = stack.enter_context(Kamailio(folder / "kamailio", REGISTRAR, 5060, lab=lab, inside="core"))
        sbc = stack.enter_context(running(folder / "sbc", CONFIG, prefix=lab.inside("sbc")))
        yield Matrix(lab, reflector, registrar, core, sbc)


def converse(one: Phone, other: Phone, number: str, *, hangs_up: str, relay: tuple[str, str] = (OUTSIDE, CORE)) -> None:
    """``one`` calls ``other``, they hear each other, by way of the SBC alone, and one of them ends it."""
    mine, theirs = one.call_of(other, number)
    streams = one.speak(mine, other), other.speak(theirs, one)
    hear_each_other(streams)
    for stream in streams:
        assert {host for _, _, (host, _) in stream.heard} <= set(relay)
    ends, call, waits = (one, mine, theirs) if hangs_up == one.user else (other, theirs, mine)
    asked = ends.hang_up(call)
    eventually(lambda: waits.ended_by_far and asked.status > 0, 10, f"the end of the call of {one.user} to {number}")
    assert asked.status == 200
    for phone in (one, other):
        phone.fall_silent()


def serve(matrix: Matrix, phone: Phone, user: str) -> None:
    """What every phone wants: be registered, be called, call; whoever hangs up."""
    matrix.begin()
    relay = phone.proxy[0], CORE
    with phone, matrix.desk() as desk:
        phone.register()
        desk.register()
        converse(desk, phone, user, hangs_up="desk", relay=relay)
        converse(phone, desk, "desk", hangs_up=user, relay=relay)
        converse(phone, desk, "desk", hangs_up="desk", relay=relay)
    matrix.recorded(3)
    matrix.kept_apart(phone)


@pytest.mark.parametrize("kind", nat.KINDS)
def test_a_phone_behind_nat(matrix: Matrix, kind: str) -> None:
    router, public = matrix.nat(kind)
    host = matrix.lan(router)
    matrix.behaves(host, nat.KINDS[kind].behaviour, public)
    serve(matrix, matrix.phone(host, f"alice-{kind}"), f"alice-{kind}")


def test_two_nats_in_a_row(matrix: Matrix) -> None:
    """The NAT of a home behind that of its carrier (RFC 6598), which maps anew for each destination."""
    carrier, public = matrix.nat("symmetric", "100.64.0.0/10")
    home, shared = matrix.nat("port-restricted", behind=carrier)
    host = matrix.lan(home)
    matrix.behaves(host, Behaviour(BY_PORT, BY_PORT), public)
    assert shared.startswith("100.64.")
    serve(matrix, matrix.phone(host, "alice-cgn"), "alice-cgn")


def test_a_phone_in_the_network_of_its_carrier(matrix: Matrix) -> None:
    """Its address is shared (RFC 6598) and cannot be reached from everywhere, yet no NAT is between it and us."""
    address = "100.100.0.10"
    matrix.lab.host("shared")
    matrix.lab.wire("shared", f"{address}/30", "internet", "100.100.0.9/30")
    matrix.lab.route("shared", "default", "100.100.0.9")
    matrix.secrets.append(address)
    with matrix.lab.open_socket("shared") as sock:
        sock.bind((address, 0))
        seen = matrix.reflector.mapped(sock)["00"]
        assert seen == f"{address}:{sock.getsockname()[1]}"
    serve(matrix, matrix.phone("shared", "alice-shared", address), "alice-shared")


FORGETS_S = 4


def test_a_nat_that_forgets_soon(matrix: Matrix) -> None:
    """Between two registrations it has forgotten the phone. Where the realm pings, the phone can be called all the
    same; where it does not, it cannot: so the NAT does forget."""
    router, public = matrix.nat("port-restricted")
    host = matrix.lan(router)
    matrix.behaves(host, nat.KINDS["port-restricted"].behaviour, public)
    matrix.lab.address(host, f"{SECOND}/32")
    matrix.lab.route(router, SECOND, PHONE)
    matrix.secrets.append(SECOND)
    nat.mapping_timeout(matrix.lab, router, FORGETS_S)
    kept = matrix.phone(host, "alice-kept", proxy=CARING)
    forgotten = matrix.phone(host, "alice-forgotten", SECOND)
    matrix.begin()
    with kept, forgotten, matrix.desk() as desk:
        kept.register()
        forgotten.register()
        desk.register()
        time.sleep(FORGETS_S + 2)
        lost = desk.call(desk.proxy, "alice-forgotten")
        converse(desk, kept, "alice-kept", hangs_up="desk", relay=(CARING, CORE))
        assert not forgotten.calls
        desk.cancel(lost)
        eventually(lambda: lost.asked["INVITE"].status == 487, 10, "the end of a call that reaches nobody")
    matrix.recorded(1, forgotten=1)
    matrix.kept_apart(kept)


def test_two_phones_behind_the_same_nat_call_each_other(matrix: Matrix) -> None:
    """By way of us, with media: their NAT need not know how to send what is for itself back inside."""
    router, public = matrix.nat("port-restricted")
    host = matrix.lan(router)
    matrix.lab.address(host, f"{SECOND}/32")
    matrix.lab.route(router, SECOND, PHONE)
    matrix.behaves(host, nat.KINDS["port-restricted"].behaviour, public)
    matrix.secrets.append(SECOND)
    anna, otto = matrix.phone(host, "anna"), matrix.phone(host, "otto", SECOND)
    matrix.begin()
    with anna, otto:
        anna.register()
        otto.register()
        converse(anna, otto, "otto", hangs_up="anna", relay=(OUTSIDE, OUTSIDE))
        converse(otto, anna, "anna", hangs_up="anna", relay=(OUTSIDE, OUTSIDE))
    matrix.recorded(4)  # each is a call to the registrar, and one from it
    matrix.kept_apart(anna, otto)
    assert not _words_in(b"\n".join(anna.read), [SECOND])
    assert not _words_in(b"\n".join(otto.read), [PHONE])


def test_a_gateway_that_mangles(matrix: Matrix) -> None:
    """Home routers that mean well: addresses that are half right, wrong ports, bodies longer than they say."""
    router, public = matrix.nat("port-restricted", lan="10.7.0.0/24", alg_for=DISTRUSTFUL)
    host = matrix.lan(router, "10.7.0.2")
    with Alg(matrix.lab, router, public, ("10.7.0.2", 5060), (DISTRUSTFUL, 5060)) as alg:
        serve(matrix, matrix.phone(host, "alice-alg", "10.7.0.2", DISTRUSTFUL), "alice-alg")
        assert alg.mangled > 5


@pytest.mark.parametrize("calls", ["the phone", "the desk"])
def test_a_nat_that_forgets_in_a_call(matrix: Matrix, calls: str) -> None:
    """Its next packets come from other ports. Audio comes back by itself, signalling with the phone's next word."""
    router, public = matrix.nat("symmetric")
    host, user = matrix.lan(router), f"alice-{matrix.nats}"
    matrix.begin()
    with matrix.phone(host, user) as phone, matrix.desk() as desk, Wire(matrix.lab, "sbc") as wire:
        phone.register()
        desk.register()
        if calls == "the phone":
            mine, theirs = phone.call_of(desk, "desk")
        else:
            theirs, mine = desk.call_of(phone, user)
        streams = phone.speak(mine, desk), desk.speak(theirs, phone)
        hear_each_other(streams)
        nat.forget_mappings(matrix.lab, router)
        hear_each_other(streams)
        former, *later = wire.rtp_sources(OUTSIDE)
        assert former[0] == public
        assert {source[0] for source in later} == {public}, "its port did not change"
        assert mine.answer == b""
        asked = phone.inform(mine, "1")
        eventually(lambda: asked.status == 200, 10, "an answer at the new port")
        desk.hang_up(theirs)
        eventually(lambda: mine.ended_by_far, 10, "the end of the call at the new port")
        phone.fall_silent()
        desk.fall_silent()
        phone.register()
        converse(desk, phone, user, hangs_up=user)
    matrix.recorded(2, forgotten=1)  # to its former port, which the registrar knows as well until that expires
    matrix.kept_apart(phone)


def _hears(phone: Baresip) -> bool:
    return phone.recorded_s > 1.3


@pytest.mark.peer("baresip")
def test_real_phones(matrix: Matrix, tmp_path: Path) -> None:
    """One behind a symmetric NAT, one behind those of a home and of its carrier: they call each other."""
    near, near_public = matrix.nat("symmetric")
    carrier, far_public = matrix.nat("symmetric", "100.64.0.0/10")
    home, _ = matrix.nat("restricted", behind=carrier)
    hosts = matrix.lan(near), matrix.lan(home)
    for host, public in zip(hosts, (near_public, far_public), strict=True):
        matrix.behaves(host, Behaviour(BY_PORT, BY_PORT), public)
    matrix.begin()
    phone = partial(Baresip, tmp_path, matrix.lab, outbound=f"sip:{OUTSIDE}:5060", domain=DOMAIN)
    account = "regint=60;auth_user={0};auth_pass=sesame"
    with (
        phone("gerda", hosts[0], PHONE, tone_hz=440, account=account.format("gerda")) as gerda,
        phone("kai", hosts[1], PHONE, tone_hz=1000, account=account.format("kai")) as kai,
    ):
        gerda.registered()
        kai.registered()
        for one, other, ends in ((gerda, kai, kai), (kai, gerda, kai)):
            one.dial(f"sip:{other.name}@{DOMAIN}")
            one.expect("CALL_ESTABLISHED")
            other.expect("CALL_ESTABLISHED")
            for it in (one, other):
                eventually(partial(_hears, it), 10, f"{it.name} hears something")
            ends.command("hangup")
            (one if ends is other else other).expect("CALL_CLOSED")
            assert gerda.heard(1000) > CLEAR
            assert kai.heard(440) > CLEAR
            for it in (one, other):
                for path in it.directory.glob("dump-*"):
                    path.unlink()
    matrix.recorded(4, packets=50)
    matrix.kept_apart()
