"""Registering at carriers in virtual time: what a registrar asks for (RFC 8760) or refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sbc.services import trunk_registration
from sbc.services.trunk_registration import BACK_OFF_S, REST_S
from sbc.sip.flow import Flow
from tests.support.ladder import B_HOST, STRANGER
from tests.support.trunks import B, Trunks, accept, answer, assert_ours, challenge


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
    answer(f.b, f.b.expect("REGISTER"), status, [("Contact", f"<sip:evil@{STRANGER}>")])
    if status == 400:  # it may have been about the CSeq: once more
        answer(f.b, f.b.expect("REGISTER"), status, [])
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
        answer(f.b, request, status, [])
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
    answer(f.b, f.b.expect("REGISTER"), 503, [("Retry-After", "120 (maintenance)")])
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
