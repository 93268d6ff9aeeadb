"""Registering at carriers (RFC 3261 §10.2, RFC 3327, RFC 3608, RFC 5626 §4.5), in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sbc.b2bua.call import Target
from sbc.b2bua.effects import LocateRegistrar, ServerFailed, TrunkChanged
from sbc.b2bua.trunk import UNREGISTERED
from sbc.services import trunk_registration
from sbc.services.registration_tables import BOUND, REGISTRATION, Action, Event, State
from sbc.services.trunk_registration import BACK_OFF_S, REST_S, START_S, Registrations, TrunkSettings, call_id_of
from sbc.sip.digest import Credentials, challenges, ha1, parse_authorization, verify
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, C_HOST, OUR_B, STRANGER, Ladder, Phone, dial_b, hunt, sdp

OURS = Credentials("trunk-7", "sesame", "carrier.example")
CONTACT = f"<sip:4930700@{OUR_B}:5060>"
B = TrunkSettings(
    peer="carrier-b",
    realm="outside",
    registrar="sip:carrier.example",
    proxy=f"sip:{B_HOST}:5070",
    aor="sip:4930700@carrier.example",
    contact_user="4930700",
    expires_s=3600,
    credentials=OURS,
)
NAMED = replace(B, proxy="sip:carrier.example")


class Trunks(Ladder):
    """A ladder whose node registers; ``servers`` is what the DNS says of any registrar."""

    def __init__(self, *wanted: TrunkSettings, **changes: Any) -> None:  # Any: as Ladder
        self.registrations: Registrations | None = None
        super().__init__(**changes)
        self.servers: list[Flow] | None = []  # None: the answer does not come
        self.failed: list[Flow] = []
        self.registrations = Registrations(self.core)
        self.registrations.configure(wanted, self.now)
        self.after(START_S + 0.1)

    def perform(self, effect: object) -> None:
        assert self.registrations is not None
        match effect:
            case ServerFailed(flow):
                self.failed.append(flow)
            case LocateRegistrar(peer):
                if self.servers is not None:
                    self.registrations.located(peer, self.servers, self.now)
            case TrunkChanged(peer, trunk):
                self.core.trunks[peer] = trunk
            case _:
                super().perform(effect)

    def configure(self, *wanted: TrunkSettings) -> None:
        assert self.registrations is not None
        self.registrations.configure(wanted, self.now)
        self.drain()

    def leave(self) -> None:
        assert self.registrations is not None
        self.registrations.leave(self.now)
        self.drain()

    def register(self, phone: Phone, least_s: float, most_s: float) -> Message:
        """The REGISTER that comes between these times from now, and none before."""
        self.after(least_s)
        phone.nothing()
        end = self.now + most_s - least_s
        while not phone.inbox and self.now < end:
            self.after(0.25)
        return phone.expect("REGISTER")

    @property
    def left(self) -> bool:
        assert self.registrations is not None
        return self.registrations.left

    @property
    def one(self) -> dict[str, Any]:  # Any: JSON values
        assert self.registrations is not None
        (found,) = self.registrations.describe(self.now)
        return found

    @property
    def said(self) -> list[tuple[str, str]]:
        """Level and event of each line in the log."""
        return [(note.level, note.event) for note in self.notes]


def accept(phone: Phone, request: Message, *, expires: int = 3600, extra: list[tuple[str, str]] | None = None) -> None:
    contact, _, _ = (request.get("Contact") or "").partition(";expires")
    _answer(phone, request, 200, [("Contact", f"{contact};expires={expires}"), *(extra or [])])


def _answer(phone: Phone, request: Message, status: int, extra: list[tuple[str, str]]) -> None:
    """A registrar's answer: it has no Contact of its own."""
    lines = [
        f"SIP/2.0 {status} Said",
        *(f"Via: {via}" for via in request.get_all("Via")),
        f"From: {request.get('From')}",
        f"To: {request.get('To')};tag=registrar",
        f"Call-ID: {request.call_id}",
        f"CSeq: {request.cseq_number} REGISTER",
        *(f"{name}: {value}" for name, value in extra),
        "Content-Length: 0",
    ]
    phone._send(("\r\n".join(lines) + "\r\n\r\n").encode())


def challenge(phone: Phone, request: Message, nonce: str = "n1", *, status: int = 401, **fields: Any) -> None:
    """Any: fields of sbc.sip.digest.challenges."""
    name = "Proxy-Authenticate" if status == 407 else "WWW-Authenticate"
    fields.setdefault("algorithms", ("MD5",))
    values = challenges(fields.pop("realm", OURS.realm), nonce, **fields)
    _answer(phone, request, status, [(name, value) for value in values])


def assert_ours(request: Message, nonce: str = "n1", nc: int = 1, *, header: str = "Authorization") -> None:
    (value,) = request.get_all(header)
    answer = parse_authorization(value)
    assert answer is not None
    assert (answer.username, answer.realm, answer.nonce, answer.nc) == (OURS.username, OURS.realm, nonce, nc)
    assert answer.uri == request.uri
    assert verify(answer, ha1(answer.hash, OURS.username, OURS.realm, OURS.password), "REGISTER")


def registered(**changes: Any) -> Trunks:  # Any: as Ladder
    f = Trunks(B, **changes)
    challenge(f.b, f.b.expect("REGISTER"))
    accept(f.b, f.b.expect("REGISTER"))
    assert f.one["state"] == "registered"
    return f


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", "SHA-512-256", "MD5-sess", "SHA-256-sess"])
@pytest.mark.parametrize("status", [401, 407])
def test_a_registration_and_its_refresh(status: int, algorithm: str) -> None:
    """
    SBC                      registrar
     |------ REGISTER 1 -------->|
     |<--------- 401 ------------|
     |------ REGISTER 2 -------->|   Authorization, nc=1
     |<--------- 200 ------------|   expires=3600
     |         ... 50 minutes
     |------ REGISTER 3 -------->|   the same Call-ID and tag, nc=2
     |<--------- 200 ------------|
    """
    header = "Proxy-Authorization" if status == 407 else "Authorization"
    f = Trunks(B)
    first = f.b.expect("REGISTER")
    assert first.uri == "sip:carrier.example"
    assert (first.get("To"), first.get("Contact"), first.get("Expires")) == (f"<{B.aor}>", CONTACT, "3600")
    assert first.get("Supported") == "path"
    assert first.get(header) is None
    challenge(f.b, first, status=status, algorithms=(algorithm,))
    second = f.b.expect("REGISTER")
    assert_ours(second, header=header)
    assert (second.call_id, second.from_tag) == (first.call_id, first.from_tag)
    assert second.cseq_number > first.cseq_number
    assert not f.one["registered"]
    accept(f.b, second)
    assert f.one == {
        **f.one,
        "peer": "carrier-b",
        "state": "registered",
        "registered": True,
        "reason": "",
        "expires_s": 3600,
        "server": f"udp:{B_HOST}:5070",
    }
    assert 2880 <= f.one["next_s"] <= 3000
    third = f.register(f.b, 2870, 3010)
    assert_ours(third, nc=2, header=header)
    assert (third.call_id, third.from_tag) == (first.call_id, first.from_tag)
    assert third.cseq_number > second.cseq_number
    assert f.one["state"] == "refreshing"
    assert f.one["registered"]
    accept(f.b, third)
    assert f.said == [("info", "registered at a peer")]
    assert (f.counts["REGISTRATIONS"], f.counts["REGISTRATIONS_ACTIVE"]) == (1, 1)


def test_every_state_can_be_stopped_and_left() -> None:
    """The table has no dead end: from each state STOP leads to ENDED, by answers that a registrar may give."""
    for state in State:
        if state is State.ENDED:
            continue
        reached: set[State] = {state}
        edge: set[State] = {state}
        while edge:
            edge = {
                row[0]
                for (source, event), row in REGISTRATION.items()
                if source in edge and (event is not Event.DUE or source is state)
            } - reached
            reached |= edge
        assert State.ENDED in reached, state
    for (state, event), (after, actions) in REGISTRATION.items():
        if state in BOUND and after not in BOUND and after not in (State.LEAVING, State.UNREGISTERING):
            assert Action.UNBIND in actions, (state, event)


def test_a_short_binding_is_refreshed_at_half_of_its_time() -> None:
    f = Trunks(B)
    accept(f.b, f.b.expect("REGISTER"), expires=60)
    assert f.register(f.b, 23.9, 30.2).get("Expires") == "3600"  # what we ask for stays what we want


def test_a_registrar_that_grants_a_second_is_not_flooded() -> None:
    f = Trunks(B)
    accept(f.b, f.b.expect("REGISTER"), expires=1)
    for _ in range(20):
        f.after(0.1)
        while f.b.inbox:
            accept(f.b, f.b.expect("REGISTER"), expires=1)
    assert f.counts["REGISTERS_SENT"] <= 6


@pytest.mark.parametrize(
    ("extra", "granted"),
    [
        ([("Contact", f"{CONTACT};expires=120")], 120),
        ([("Contact", f'<sip:other@{C_HOST}>;expires=7, {CONTACT};q="1";expires=120')], 120),
        ([("Contact", CONTACT), ("Expires", "240")], 240),
        ([("Expires", "240")], 240),
        ([], 3600),
        ([("Contact", "<sip:4930700@203.0.113.9:1024>;expires=90")], 90),
        ([("Contact", f"{CONTACT};expires=99999999999")], 3600),
        ([("Contact", f"{CONTACT};expires=500000")], 86_400),
        ([("Contact", f"{CONTACT};expires=-5")], 3600),
    ],
)
def test_what_was_granted(extra: list[tuple[str, str]], granted: int) -> None:
    f = Trunks(B)
    _answer(f.b, f.b.expect("REGISTER"), 200, extra)
    assert f.one["expires_s"] == granted


@pytest.mark.parametrize(
    "contacts", [f"<sip:other@{C_HOST}>;expires=7, <sip:another@{C_HOST}>;expires=7", f"{CONTACT};expires=0"]
)
def test_a_yes_that_binds_nothing_is_a_no(contacts: str) -> None:
    f = Trunks(B)
    _answer(f.b, f.b.expect("REGISTER"), 200, [("Contact", contacts)])
    assert (f.one["state"], f.one["registered"]) == ("refused", False)
    assert "Contact" in f.one["reason"]


def test_an_interval_too_brief() -> None:
    """RFC 3261 §10.2.8."""
    f = Trunks(replace(B, expires_s=60))
    first = f.b.expect("REGISTER")
    assert first.get("Expires") == "60"
    _answer(f.b, first, 423, [("Min-Expires", "1800")])
    second = f.b.expect("REGISTER")
    assert second.get("Expires") == "1800"
    accept(f.b, second, expires=1800)
    assert f.one["state"] == "registered"


@pytest.mark.parametrize("least", ["", "60", "10", "-1", "999999999", "soon"])
def test_an_interval_that_nobody_can_mean(least: str) -> None:
    f = Trunks(replace(B, expires_s=60))
    _answer(f.b, f.b.expect("REGISTER"), 423, [("Min-Expires", least)] if least else [])
    f.b.nothing()
    assert f.one["state"] == "refused"


def test_a_nonce_that_has_gone_stale() -> None:
    f = registered()
    refresh = f.register(f.b, 2870, 3010)
    assert_ours(refresh, nc=2)
    challenge(f.b, refresh, "n2", stale=True)
    again = f.b.expect("REGISTER")
    assert_ours(again, "n2")
    accept(f.b, again)
    assert f.one["state"] == "registered"


def test_a_new_nonce_without_a_word_of_stale() -> None:
    """Many registrars never say it: the first challenge of a refresh says nothing about the password."""
    f = registered()
    challenge(f.b, f.register(f.b, 2870, 3010), "n2")
    again = f.b.expect("REGISTER")
    assert_ours(again, "n2")
    accept(f.b, again)
    assert f.one["state"] == "registered"


def test_the_next_nonce_is_used() -> None:
    """RFC 7616 §3.5."""
    f = Trunks(B)
    challenge(f.b, f.b.expect("REGISTER"))
    accept(f.b, f.b.expect("REGISTER"), extra=[("Authentication-Info", 'nextnonce="n2", qop=auth, nc=00000001')])
    assert_ours(f.register(f.b, 2870, 3010), "n2", 1)


def test_a_proxy_and_the_registrar_both_ask() -> None:
    f = Trunks(B)
    challenge(f.b, f.b.expect("REGISTER"), "p", status=407)
    second = f.b.expect("REGISTER")
    assert_ours(second, "p", header="Proxy-Authorization")
    challenge(f.b, second, "r")
    third = f.b.expect("REGISTER")
    assert_ours(third, "p", 2, header="Proxy-Authorization")
    assert_ours(third, "r")
    accept(f.b, third)
    assert f.one["state"] == "registered"


def test_the_strongest_algorithm() -> None:
    f = Trunks(B)
    challenge(f.b, f.b.expect("REGISTER"), algorithms=("MD5", "SHA-512-256", "SHA-256"))
    assert "algorithm=SHA-512-256" in (f.b.expect("REGISTER").get("Authorization") or "")


def test_a_wrong_password_is_tried_once_and_then_rarely() -> None:
    f = Trunks(B)
    challenge(f.b, f.b.expect("REGISTER"))
    challenge(f.b, f.b.expect("REGISTER"), "n2")
    f.b.nothing()
    assert (f.one["state"], f.one["reason"]) == ("refused", "user name or password is wrong")
    assert f.said == [("error", "a peer refuses our registration")]
    again = f.register(f.b, REST_S * 0.74, REST_S * 1.3)
    assert again.get("Authorization") is None
    challenge(f.b, again)
    challenge(f.b, f.b.expect("REGISTER"), "n2")
    assert f.said == [("error", "a peer refuses our registration")]  # once per change


def test_a_registrar_that_never_has_enough() -> None:
    f = Trunks(B)
    asked = 0
    while f.b.inbox:
        asked += 1
        challenge(f.b, f.b.expect("REGISTER"), f"n{asked}", stale=True)
    assert asked == trunk_registration.CHALLENGES_MAX + 1
    assert f.one["state"] == "refused"


@pytest.mark.parametrize("fields", [{"realm": "bank.example"}, {"algorithms": ("SHA-1",)}, {"qop": ("auth-conf",)}])
def test_credentials_are_for_their_realm_and_what_we_know(fields: dict[str, Any]) -> None:
    f = Trunks(B)
    challenge(f.b, f.b.expect("REGISTER"), **fields)
    f.b.nothing()
    assert f.one["state"] == "refused"
    assert b"sesame" not in b"".join(f.b.all)
    assert b"uthorization" not in b"".join(f.b.all)


def test_a_peer_without_credentials() -> None:
    f = Trunks(replace(B, credentials=None))
    challenge(f.b, f.b.expect("REGISTER"))
    assert (f.one["state"], "has no auth" in f.one["reason"]) == ("refused", True)


@pytest.mark.parametrize("status", [302, 400, 403, 404, 420, 501, 600, 603])
def test_a_refusal_is_alarming_and_tried_again_rarely(status: int) -> None:
    f = Trunks(B)
    _answer(f.b, f.b.expect("REGISTER"), status, [("Contact", f"<sip:evil@{STRANGER}>")])
    f.b.nothing()
    assert f.one["state"] == "refused"
    assert str(status) in f.one["reason"]
    assert f.said == [("error", "a peer refuses our registration")]
    accept(f.b, f.register(f.b, REST_S * 0.74, REST_S * 1.3))
    assert f.one == {**f.one, "state": "registered", "reason": "", "failures": 0}


@pytest.mark.parametrize("status", [408, 480, 500, 503, 504])
def test_a_server_that_cannot_now_is_asked_again_soon(status: int) -> None:
    f = Trunks(B)
    times = []
    request = f.b.expect("REGISTER")
    for _ in range(12):
        _answer(f.b, request, status, [])
        times.append(f.one["next_s"])
        request = f.register(f.b, f.one["next_s"] - 0.2, f.one["next_s"] + 0.2)
    first_s, longest_s = BACK_OFF_S
    for round_, waited in enumerate(times):
        most = min(longest_s, first_s * 2**round_)
        assert most / 2 <= waited <= most
    assert f.said == [("warning", "not registered at a peer")]
    accept(f.b, request)
    assert f.said == [("warning", "not registered at a peer"), ("info", "registered at a peer")]


def test_retry_after_is_honoured() -> None:
    f = Trunks(B)
    _answer(f.b, f.b.expect("REGISTER"), 503, [("Retry-After", "120 (maintenance)")])
    f.register(f.b, 119, 121)


def test_silence_ends_with_timer_f() -> None:
    f = Trunks(B)
    f.after(31)
    assert f.one["state"] == "registering"
    f.after(2)
    assert (f.one["state"], f.one["reason"]) == ("failed", f"{B_HOST}: no answer")


def test_a_connection_that_cannot_be_made() -> None:
    f = Trunks(B)
    f.core.transport_failed(Flow(1, "udp", B_HOST, 5070), f.now)
    f.drain()
    assert (f.one["state"], f.one["reason"]) == ("failed", f"{B_HOST}: cannot be reached")


def named(f: Trunks) -> Trunks:
    """Both carriers are one, at the servers of a name."""
    f.peers.sources[1, C_HOST] = f.peers.sources[1, B_HOST]
    f.servers = [Flow(1, "udp", B_HOST, 5070), Flow(1, "udp", C_HOST, 5070)]
    return f


def test_the_next_server_of_the_name() -> None:
    """RFC 3263 §4.3."""
    f = named(Trunks())
    f.configure(NAMED)
    f.after(START_S + 0.1)
    _answer(f.b, f.b.expect("REGISTER"), 503, [])
    second = f.c.expect("REGISTER")
    challenge(f.c, second)
    accept(f.c, f.c.expect("REGISTER"))
    assert f.one["server"] == f"udp:{C_HOST}:5070"
    refresh = f.register(f.c, 2870, 3010)
    assert f.failed == [Flow(1, "udp", B_HOST, 5070)]
    accept(f.c, refresh)  # the one that has the binding goes first
    f.b.nothing()


def test_all_servers_of_the_name_fail() -> None:
    f = named(Trunks())
    f.configure(NAMED)
    f.after(START_S + 0.1)
    _answer(f.b, f.b.expect("REGISTER"), 503, [])
    _answer(f.c, f.c.expect("REGISTER"), 500, [])
    assert f.one["state"] == "failed"
    f.register(f.b, 2, 6)
    assert f.failed == f.servers


def test_a_name_that_leads_nowhere() -> None:
    f = Trunks(NAMED)
    assert (f.one["state"], f.one["reason"]) == ("failed", "carrier.example leads to no usable server")
    named(f)
    accept(f.b, f.register(f.b, 2, 6))


def test_a_name_that_leads_nowhere_any_more_costs_no_registration() -> None:
    f = named(Trunks())
    f.configure(NAMED)
    f.after(START_S + 0.1)
    accept(f.b, f.b.expect("REGISTER"))
    f.servers = []
    accept(f.b, f.register(f.b, 2870, 3010))


def test_no_credentials_to_an_address_that_is_not_the_peers() -> None:
    """A forged answer of the DNS, or a registrar that the operator forgot to list."""
    f = Trunks()
    f.servers = [Flow(1, "udp", C_HOST, 5070)]  # carrier-c
    f.configure(NAMED)
    f.after(START_S + 0.1)
    f.c.nothing()
    assert (f.one["state"], f.one["reason"]) == ("refused", f"{C_HOST} is not among the addresses of the peer")


def test_a_refresh_that_fails_is_repeated_while_the_binding_lasts() -> None:
    f = registered()
    _answer(f.b, f.register(f.b, 2870, 3010), 503, [])
    assert (f.one["state"], f.one["registered"]) == ("lapsing", True)
    accept(f.b, f.register(f.b, 2, 6))
    assert f.one["state"] == "registered"
    assert [level for level, _ in f.said] == ["info", "warning", "info"]


def test_a_binding_that_nobody_refreshed_is_gone() -> None:
    f = registered()
    f.lose_next = 1_000_000
    f.after(3595)
    assert f.one["registered"]
    assert f.one["state"] in ("lapsing", "refreshing")
    f.after(10)
    assert not f.one["registered"]
    assert f.counts["REGISTRATIONS_ACTIVE"] == 0
    f.after(200)
    assert f.one["state"] in ("failed", "registering")
    f.lose_next = 0
    accept(f.b, f.register(f.b, 0, 400))
    assert f.one["registered"]


def test_a_refresh_that_is_refused_ends_the_binding() -> None:
    f = registered()
    _answer(f.b, f.register(f.b, 2870, 3010), 403, [])
    assert (f.one["state"], f.one["registered"]) == ("refused", False)


def test_removal_by_a_reload() -> None:
    f = registered()
    f.configure()
    last = f.b.expect("REGISTER")
    assert (last.get("Expires"), last.get("Contact")) == ("0", CONTACT)
    assert_ours(last, nc=2)
    challenge(f.b, last, "n2", stale=True)
    again = f.b.expect("REGISTER")
    assert again.get("Expires") == "0"
    _answer(f.b, again, 200, [])
    assert f.left
    f.after(10_000)
    f.b.nothing()
    assert (f.counts["REGISTRATIONS"], f.counts["REGISTRATIONS_ACTIVE"]) == (0, 0)
    assert f.said[-1] == ("info", "no longer registered at a peer")


def test_another_configuration() -> None:
    """The old Contact goes before the new one comes, and the CSeq goes on."""
    f = registered()
    f.configure(replace(B, contact_user="other"))
    last = f.b.expect("REGISTER")
    assert last.get("Expires") == "0"
    _answer(f.b, last, 200, [])
    f.after(0.1)
    first = f.b.expect("REGISTER")
    assert first.get("Contact") == f"<sip:other@{OUR_B}:5060>"
    assert (first.call_id, first.cseq_number > last.cseq_number) == (last.call_id, True)
    accept(f.b, first)
    f.configure(replace(B, contact_user="other"))
    f.after(0.1)
    f.b.nothing()


def test_a_reload_tries_at_once_what_was_refused() -> None:
    f = Trunks(B)
    _answer(f.b, f.b.expect("REGISTER"), 403, [])
    f.configure(replace(B, credentials=replace(OURS, password="right")))
    f.after(0.1)
    accept(f.b, f.b.expect("REGISTER"))
    f2 = Trunks(B)
    _answer(f2.b, f2.b.expect("REGISTER"), 404, [])
    f2.configure(B)
    f2.after(0.1)
    accept(f2.b, f2.b.expect("REGISTER"))


def test_a_change_and_its_undoing_while_a_request_is_under_way() -> None:
    f = Trunks(B)
    first = f.b.expect("REGISTER")
    f.configure(replace(B, contact_user="other"))
    f.configure()
    f.configure(B)
    f.b.nothing()  # RFC 3261 §10.2: none before the last one is answered
    accept(f.b, first)
    last = f.b.expect("REGISTER")
    assert last.get("Expires") == "0"
    _answer(f.b, last, 200, [])
    f.after(0.1)
    accept(f.b, f.b.expect("REGISTER"))
    assert f.one["registered"]
    assert f.counts["REGISTRATIONS"] == 1


def test_leaving() -> None:
    f = registered()
    f.leave()
    assert not f.left
    last = f.b.expect("REGISTER")
    assert last.get("Expires") == "0"
    f.configure(B)  # a reload while draining registers nothing
    _answer(f.b, last, 200, [])
    f.after(100)
    f.b.nothing()
    assert f.left


@pytest.mark.parametrize("answered", [True, False])
def test_leaving_while_registering(answered: bool) -> None:
    f = Trunks(B)
    first = f.b.expect("REGISTER")
    f.leave()
    f.b.nothing()
    if answered:
        accept(f.b, first)
        last = f.b.expect("REGISTER")
        assert last.get("Expires") == "0"
        _answer(f.b, last, 481, [])
    else:
        f.after(40)
    assert f.left


def test_leaving_while_the_name_is_looked_up() -> None:
    f = Trunks()
    f.servers = None
    f.configure(NAMED)
    f.after(START_S + 0.1)
    f.leave()
    assert f.registrations is not None
    f.registrations.located("carrier-b", [Flow(1, "udp", B_HOST, 5070)], f.now)
    f.drain()
    f.b.nothing()
    assert f.left
    f.registrations.located("carrier-b", [], f.now)
    assert f.left


def test_a_successor_goes_on() -> None:
    """The same Call-ID and a higher CSeq, without a word from the former worker; another node has another Call-ID."""
    f = Trunks(B)
    before = f.b.expect("REGISTER")
    accept(f.b, before)
    g = Trunks(seed=7)
    g.now = f.now + 1
    g.configure(B)
    g.after(START_S + 0.1)
    after = g.b.expect("REGISTER")
    assert after.call_id == before.call_id == call_id_of("carrier-b", g.core.settings.shard_key)
    assert after.cseq_number > before.cseq_number
    assert after.get("Contact") == before.get("Contact")
    assert call_id_of("carrier-b", b"another key 9abc") != before.call_id
    assert call_id_of("carrier-c", g.core.settings.shard_key) != before.call_id


def test_many_trunks_do_not_start_in_step() -> None:
    """Nor are they refreshed in step, ever."""
    f = Trunks(B)
    g = Trunks(B, seed=3)
    accept(f.b, f.b.expect("REGISTER"))
    accept(g.b, g.b.expect("REGISTER"))
    assert f.one["next_s"] != g.one["next_s"]


def test_nothing_but_answers_to_our_request_counts() -> None:
    """A second answer, and one that comes after its round is over."""
    f = Trunks(B)
    first = f.b.expect("REGISTER")
    challenge(f.b, first)
    second = f.b.expect("REGISTER")
    accept(f.b, first)
    assert not f.one["registered"]
    accept(f.b, second)
    _answer(f.b, second, 403, [])
    assert f.one["registered"]


# Calls


def invite(f: Trunks) -> Message:
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    return f.b.expect("INVITE")


ROUTES = f"<sip:edge@{B_HOST}:5070;lr>, <sip:core.carrier.example;lr>"


def test_calls_go_by_the_service_route() -> None:
    """RFC 3608 §6.1, until a Record-Route says otherwise."""
    f = Trunks(B)
    accept(f.b, f.b.expect("REGISTER"), extra=[("Service-Route", ROUTES)])
    request = invite(f)
    assert request.get_all("Route") == ROUTES.split(", ")
    f.b.reply(486)
    assert f.b.expect("ACK").get_all("Route") == ROUTES.split(", ")
    f.a.refused(486)


def test_the_server_that_has_the_registration_goes_before_others_of_its_name() -> None:
    """And when it fails, the call goes on to them, without the route that it gave."""
    servers = (Flow(1, "udp", C_HOST, 5070), Flow(1, "udp", B_HOST, 5070))
    target = Target("sip:1@carrier.example", "outside", peer="carrier-b", servers=servers)
    f = Trunks(B, route=lambda ladder, call: ladder.core.dial(call, [target], ladder.now))
    f.peers.sources[1, C_HOST] = f.peers.sources[1, B_HOST]
    accept(f.b, f.b.expect("REGISTER"), extra=[("Service-Route", ROUTES)])
    assert invite(f).get_all("Route") == ROUTES.split(", ")
    f.c.nothing()
    f.b.reply(503)
    f.b.expect("ACK")
    assert f.c.expect("INVITE").get("Route") is None


def test_a_dialog_has_its_own_route() -> None:
    f = Trunks(B, credentials={"carrier-b": OURS})
    accept(f.b, f.b.expect("REGISTER"), extra=[("Service-Route", ROUTES)])
    request = invite(f)
    values = challenges(OURS.realm, "n", algorithms=("MD5",))
    f.b.reply(401, to=request, extra=[("WWW-Authenticate", value) for value in values])
    assert f.b.expect("ACK").get_all("Route") == ROUTES.split(", ")
    again = f.b.expect("INVITE")
    assert again.get_all("Route") == ROUTES.split(", ")
    assert again.to_tag == ""
    f.b.reply(200, body=sdp(B_HOST), extra=[("Record-Route", f"<sip:{B_HOST}:5070;lr>")])
    f.a.expect(200)
    f.a.ack()
    assert f.b.expect("ACK").get_all("Route") == [f"<sip:{B_HOST}:5070;lr>"]
    assert b"core.carrier.example" not in b"".join(f.a.all)


def test_without_service_route_calls_are_as_ever() -> None:
    f = registered()
    assert invite(f).get("Route") is None


@pytest.mark.parametrize("required", [False, True])
def test_calls_to_a_peer_at_which_we_are_not_registered(required: bool) -> None:
    f = Trunks(B, registration_required=frozenset({"carrier-b"} if required else ()))
    register = f.b.expect("REGISTER")
    _answer(f.b, register, 503, [])
    if required:
        f.core.trunks.setdefault("carrier-b", UNREGISTERED)
        f.a.request("INVITE", body=sdp(A_HOST))
        f.a.expect(100)
        f.a.refused(503)
        f.b.nothing()
        assert f.cdrs[-1]["attempts"][0]["status"] == 503
    else:
        invite(f)


def test_the_next_gateway_serves_while_one_is_not_registered() -> None:
    f = Trunks(B, registration_required=frozenset({"carrier-b"}), route=hunt)
    f.core.trunks["carrier-b"] = UNREGISTERED
    f.b.expect("REGISTER")
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.c.expect("INVITE")
    f.b.nothing()


def test_a_call_to_our_contact_is_from_the_peer() -> None:
    seen = []

    def route(ladder: Ladder, call: Any) -> None:  # Any: a Call
        seen.append((call.a.peer, call.ruri))
        dial_b(ladder, call)

    f = registered(route=route)
    f.b.request("INVITE", body=sdp(B_HOST), uri=CONTACT.strip("<>"))
    f.b.dialog = (f"call-of-b@{B_HOST}", f"<sip:caller@{B_HOST}>;tag=b", f"<sip:4930700@{OUR_B}>", CONTACT.strip("<>"))
    assert seen == [("carrier-b", CONTACT.strip("<>"))]
