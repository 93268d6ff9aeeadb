"""Registering at carriers (RFC 3261 §10.2, RFC 3327, RFC 5626 §4.5) in virtual time: binding, refresh, succession."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sbc.services.registration_tables import BOUND, REGISTRATION, Action, Event, State
from sbc.services.trunk_registration import START_S, call_id_of
from sbc.sip.flow import Flow
from tests.support.ladder import B_HOST, C_HOST, OUR_B
from tests.support.trunks import CONTACT, NAMED, OURS, B, Trunks, accept, answer, assert_ours, challenge, registered


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
    answer(f.b, f.b.expect("REGISTER"), 200, extra)
    assert f.one["expires_s"] == granted


@pytest.mark.parametrize(
    "contacts", [f"<sip:other@{C_HOST}>;expires=7, <sip:another@{C_HOST}>;expires=7", f"{CONTACT};expires=0"]
)
def test_a_yes_that_binds_nothing_is_a_no(contacts: str) -> None:
    f = Trunks(B)
    answer(f.b, f.b.expect("REGISTER"), 200, [("Contact", contacts)])
    assert (f.one["state"], f.one["registered"]) == ("refused", False)
    assert "Contact" in f.one["reason"]


def test_an_interval_too_brief() -> None:
    """RFC 3261 §10.2.8."""
    f = Trunks(replace(B, expires_s=60))
    first = f.b.expect("REGISTER")
    assert first.get("Expires") == "60"
    answer(f.b, first, 423, [("Min-Expires", "1800")])
    second = f.b.expect("REGISTER")
    assert second.get("Expires") == "1800"
    accept(f.b, second, expires=1800)
    assert f.one["state"] == "registered"


@pytest.mark.parametrize("least", ["", "60", "10", "-1", "999999999", "soon"])
def test_an_interval_that_nobody_can_mean(least: str) -> None:
    f = Trunks(replace(B, expires_s=60))
    answer(f.b, f.b.expect("REGISTER"), 423, [("Min-Expires", least)] if least else [])
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


def test_a_refresh_that_fails_is_repeated_while_the_binding_lasts() -> None:
    f = registered()
    answer(f.b, f.register(f.b, 2870, 3010), 503, [])
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
    answer(f.b, f.register(f.b, 2870, 3010), 403, [])
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
    answer(f.b, again, 200, [])
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
    answer(f.b, last, 200, [])
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
    answer(f.b, f.b.expect("REGISTER"), 403, [])
    f.configure(replace(B, credentials=replace(OURS, password="right")))
    f.after(0.1)
    accept(f.b, f.b.expect("REGISTER"))
    f2 = Trunks(B)
    answer(f2.b, f2.b.expect("REGISTER"), 404, [])
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
    answer(f.b, last, 200, [])
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
    answer(f.b, last, 200, [])
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
        answer(f.b, last, 481, [])
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
    answer(f.b, second, 403, [])
    assert f.one["registered"]


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("back_s", [3600, 86_400 * 300])
def test_a_successor_by_a_clock_that_was_set_back_counts_beyond_its_predecessor(status: int, back_s: int) -> None:
    """A registrar takes no CSeq below one that it knows (RFC 3261 §10.3): the successor leaps, once."""
    f = Trunks(B)
    last = f.b.expect("REGISTER")
    accept(f.b, last)
    f = Trunks(seed=7)
    f.wall_offset -= back_s
    f.configure(B)
    f.after(START_S + 0.1)
    lower = f.b.expect("REGISTER")
    assert lower.cseq_number < last.cseq_number
    answer(f.b, lower, status, [])
    higher = f.b.expect("REGISTER") if status == 400 else f.register(f.b, 2.0, 6.0)
    assert higher.cseq_number > last.cseq_number
    accept(f.b, higher)
    assert f.one["registered"]


def test_a_registrar_that_refuses_everything_is_not_asked_at_once_forever() -> None:
    f = Trunks(B)
    for _ in range(2):
        answer(f.b, f.b.expect("REGISTER"), 400, [])
    f.after(60)
    assert not f.b.inbox
    assert f.one["state"] == "refused"
