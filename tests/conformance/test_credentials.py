"""Digest as client towards a carrier (RFC 3261 §22, RFC 7616, RFC 8760): what it gets, and that nobody else does."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.dialog.session_timer import Policy
from sbc.policy.admission import Source
from sbc.sip.digest import Credentials, challenges, ha1, parse_authorization, response_of
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, Ladder, Phone, hunt, sdp

OURS = Credentials("trunk-7", "sesame", "carrier.example")
ALGORITHMS = ("SHA-512-256", "SHA-256", "MD5")


def ladder(**changes: Any) -> Ladder:  # Any: fields of CoreSettings
    return Ladder(credentials={"carrier-b": OURS}, **changes)


def challenge(phone: Phone, request: Message, *, status: int = 401, nonce: str = "n1", **fields: Any) -> None:
    """Refuse a request for want of credentials (``fields`` of sbc.sip.digest.challenges)."""
    name = "Proxy-Authenticate" if status == 407 else "WWW-Authenticate"
    fields.setdefault("algorithms", ("MD5",))
    values = challenges(fields.pop("realm", OURS.realm), nonce, **fields)
    phone.reply(status, to=request, extra=[(name, value) for value in values])
    if request.method == "INVITE":
        assert phone.expect("ACK").branch == request.branch


def assert_ours(
    request: Message, *, nonce: str = "n1", algorithm: str = "MD5", nc: int = 1, proxy: bool = False
) -> None:
    """The request carries the right answer to that challenge."""
    (value,) = request.get_all("Proxy-Authorization" if proxy else "Authorization")
    answer = parse_authorization(value)
    assert answer is not None
    assert (answer.username, answer.realm, answer.nonce, answer.nc) == (OURS.username, OURS.realm, nonce, nc)
    assert (answer.uri, answer.algorithm) == (request.uri, algorithm)
    secret = ha1(algorithm, OURS.username, OURS.realm, OURS.password)
    expected = response_of(
        algorithm, secret, nonce, request.method, request.uri, nc, answer.cnonce, answer.qop, request.body
    )
    assert answer.response == expected


def asked(f: Ladder) -> Message:
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    return f.b.expect("INVITE")


def answered(f: Ladder) -> Message:
    """A call whose INVITE was challenged; what B got the second time."""
    challenge(f.b, asked(f))
    again = f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    return again


def no_credentials(*phones: Phone) -> None:
    for phone in phones:
        wire = b"".join(phone.all)
        for secret in (b"uthorization", b"trunk-7", b"sesame", b"carrier.example", b"-Authenticate"):
            assert secret not in wire


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("status", [401, 407])
def test_a_challenged_invite(algorithm: str, status: int) -> None:
    """
    A                  SBC                  B
    |---- INVITE ------>|----- INVITE 1 --->|
    |                   |<------ 401 -------|
    |                   |------ ACK 1 ----->|
    |                   |----- INVITE 2 --->|   Authorization
    |                   |<------ 200 -------|
    |<----- 200 --------|                   |
    |------ ACK ------->|------ ACK 2 ----->|   the same Authorization
    |------ BYE ------->|------ BYE 3 ----->|   nc=00000002
    """
    f = ladder()
    first = asked(f)
    challenge(f.b, first, status=status, algorithms=(algorithm,))
    f.a.nothing()
    second = f.b.expect("INVITE")
    assert_ours(second, algorithm=algorithm, proxy=status == 407)
    assert (second.call_id, second.from_tag, second.to_tag) == (first.call_id, first.from_tag, "")
    assert (second.cseq_number, second.body) == (first.cseq_number + 1, first.body)
    f.b.reply(180)
    f.a.expect(180)
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    ack = f.b.expect("ACK")
    header = "Proxy-Authorization" if status == 407 else "Authorization"
    assert (ack.cseq_number, ack.get(header)) == (second.cseq_number, second.get(header))
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    assert bye.cseq_number == second.cseq_number + 1
    assert_ours(bye, algorithm=algorithm, nc=2, proxy=status == 407)
    f.b.reply(200, to=bye)
    assert [attempt["status"] for attempt in f.cdr["attempts"]] == [200]
    f.over()
    no_credentials(f.a)


def test_the_strongest_algorithm_wins() -> None:
    """RFC 8760 §2.4, whatever the order of the headers."""
    f = ladder()
    challenge(f.b, asked(f), algorithms=("MD5", "SHA-256"))
    assert_ours(f.b.expect("INVITE"), algorithm="SHA-256")


def test_wrong_credentials_are_tried_once() -> None:
    f = ladder()
    challenge(f.b, asked(f))
    challenge(f.b, f.b.expect("INVITE"), nonce="n2")
    f.b.nothing()
    f.a.refused(403)  # a challenge is for us, not for A
    assert (f.cdr["attempts"][0]["status"], f.counts["CREDENTIALS_REFUSED"]) == (401, 1)
    f.over()
    no_credentials(f.a)


def test_a_stale_nonce_is_no_refusal_but_not_for_ever() -> None:
    f = ladder()
    challenge(f.b, asked(f))
    challenge(f.b, f.b.expect("INVITE"), nonce="n2", stale=True)
    third = f.b.expect("INVITE")
    assert_ours(third, nonce="n2")
    challenge(f.b, third, nonce="n3", stale=True)
    f.b.nothing()
    f.a.refused(403)
    f.over()


def test_proxy_and_server_both_ask() -> None:
    f = ladder()
    challenge(f.b, asked(f), status=407, nonce="p")
    challenge(f.b, f.b.expect("INVITE"), status=401, nonce="s")
    third = f.b.expect("INVITE")
    assert_ours(third, nonce="p", nc=2, proxy=True)
    assert_ours(third, nonce="s")


def test_only_for_the_realm_of_the_credentials() -> None:
    f = ladder()
    challenge(f.b, asked(f), realm="evil.example")
    f.b.nothing()
    f.a.refused(403)
    no_credentials(f.a, f.b)


def test_a_peer_without_credentials() -> None:
    f = Ladder()
    challenge(f.b, asked(f))
    f.b.nothing()
    f.a.refused(403)
    f.over()


def test_never_offered_to_another_branch() -> None:
    """b challenges and fails, c challenges with the very realm: it gets nothing, and neither does A."""
    f = ladder(route=hunt)
    challenge(f.b, asked(f))
    f.b.expect("INVITE")
    f.b.reply(503)
    f.b.expect("ACK")
    invite = f.c.expect("INVITE")
    challenge(f.c, invite)
    f.c.nothing()
    f.a.refused(403)
    f.over()
    no_credentials(f.a, f.c)


def test_never_offered_to_the_other_leg() -> None:
    """A challenges requests inside the dialog: it is not the peer of these credentials."""
    f = ladder()
    answered(f)
    f.b.request("INFO", body=b"x", content_type="text/plain")
    challenge(f.a, f.a.expect("INFO"))
    f.a.nothing()
    f.b.expect(403)
    f.b.request("BYE")
    f.b.expect(200)
    challenge(f.a, f.a.expect("BYE"))
    f.a.nothing()
    f.over()
    no_credentials(f.a)


def test_never_sent_to_an_address_that_is_not_the_peers() -> None:
    """A target that bears the peer's name and leads elsewhere."""
    f = ladder()
    invite = asked(f)
    f.peers.sources[1, B_HOST] = Source("carrier-c", "outside", "from_carrier")
    challenge(f.b, invite)
    f.b.nothing()
    f.a.refused(403)
    no_credentials(f.a, f.b)


def test_what_a_writes_stays_with_a() -> None:
    f = ladder()
    extra = [(name, 'Digest username="a", realm="x"') for name in ("Authorization", "Proxy-Authorization")]
    f.a.request("INVITE", body=sdp(A_HOST), extra=extra)
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    assert (invite.get("Authorization"), invite.get("Proxy-Authorization")) == (None, None)


def test_requests_inside_the_dialog() -> None:
    """Re-INVITE, INFO and BYE whose nonce has expired: each goes again once, in CSeq order."""
    f = ladder()
    cseq = answered(f).cseq_number
    f.a.request("INVITE", body=sdp(A_HOST, version=2, direction="sendonly"))
    f.a.expect(100)
    first = f.b.expect("INVITE")
    assert_ours(first, nc=2)
    challenge(f.b, first, nonce="n2")
    again = f.b.expect("INVITE")
    assert_ours(again, nonce="n2")
    assert (first.cseq_number, again.cseq_number, again.body) == (cseq + 1, cseq + 2, first.body)
    f.b.reply(200, to=again, body=sdp(B_HOST, version=2, direction="recvonly"))
    f.a.expect(200)
    f.a.ack()
    ack = f.b.expect("ACK")
    assert (ack.cseq_number, ack.get("Authorization")) == (cseq + 2, again.get("Authorization"))
    f.a.request("INFO", body=b"x", content_type="text/plain")
    challenge(f.b, f.b.expect("INFO"), nonce="n3")
    info = f.b.expect("INFO")
    assert_ours(info, nonce="n3")
    f.b.reply(200, to=info)
    f.a.expect(200)
    f.a.request("BYE")
    f.a.expect(200)
    challenge(f.b, f.b.expect("BYE"), nonce="n4")
    bye = f.b.expect("BYE")
    assert_ours(bye, nonce="n4")
    assert bye.cseq_number == cseq + 6
    f.b.reply(200, to=bye)
    f.over()
    no_credentials(f.a)


@pytest.mark.parametrize("allow", [True, False])
def test_a_session_refresh(allow: bool) -> None:
    f = ladder(session_timers=Policy(1800))
    challenge(f.b, asked(f))
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST), extra=[("Allow", "UPDATE")] if allow else [])
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    method = "UPDATE" if allow else "INVITE"
    f.after(900.1)
    refresh = f.b.expect(method)
    assert_ours(refresh, nc=2)
    challenge(f.b, refresh, nonce="n2")
    again = f.b.expect(method)
    assert_ours(again, nonce="n2")
    f.b.reply(200, to=again, body=b"" if allow else sdp(B_HOST))
    if not allow:
        f.b.expect("ACK")
    f.core.release(f.call, f.now, reason="test")
    f.drain()


def test_not_in_the_journal() -> None:
    """The record of a call holds no password; a resumed call is challenged anew and answers."""
    f = ladder()
    answered(f)
    assert not any(secret in record for record in f.records.values() for secret in (b"sesame", b"sessions"))
    f.dies()
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    assert bye.get("Authorization") is None
    challenge(f.b, bye, nonce="n9")
    again = f.b.expect("BYE")
    assert_ours(again, nonce="n9")
    f.b.reply(200, to=again)
    f.over()


def test_cancel_carries_what_the_invite_did() -> None:
    """§22.1."""
    f = ladder()
    challenge(f.b, asked(f))
    invite = f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    dialog, f.a.dialog = f.a.dialog, None
    f.a.request("CANCEL", branch=f.a.branch, extra=[("Reason", "SIP;cause=200")])
    f.a.dialog = dialog
    f.a.expect(200)
    f.a.refused(487)
    cancel = f.b.expect("CANCEL")
    assert cancel.get("Authorization") == invite.get("Authorization")
    f.b.reply(200, to=cancel)
    f.b.reply(487)
    f.b.expect("ACK")
    f.over()


@pytest.mark.parametrize(
    "value", ["", "Basic realm=x", "Digest", 'Digest realm="carrier.example"', "Digest " + "a=b," * 99]
)
def test_nonsense_is_no_challenge(value: str) -> None:
    f = ladder()
    f.b.reply(401, to=asked(f), extra=[("WWW-Authenticate", value)])
    f.b.expect("ACK")
    f.b.nothing()
    f.a.refused(403)
    f.over()


def test_settings_do_not_show_the_password() -> None:
    assert "sesame" not in repr(ladder().core.settings)
