"""Who calls and who may know, what passes by rule, and bodies of several parts."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.b2bua.settings import RealmSettings
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from tests.conformance.test_subscriptions import relay_b
from tests.support.ladder import A_HOST, B_HOST, MEDIA_B, OUR_A, OUR_B, Ladder, sdp

PAI = ("P-Asserted-Identity", f'"Alice" <sip:+4930@{A_HOST};x=y>')


def ladder(inside: dict[str, Any], outside: dict[str, Any]) -> Ladder:  # Any: fields of RealmSettings
    return Ladder(realms={"inside": RealmSettings("inside", **inside), "outside": RealmSettings("outside", **outside)})


def sent(f: Ladder, *extra: tuple[str, str], body: bytes = b"", content_type: str = "application/sdp") -> Message:
    """What B gets of A's INVITE."""
    f.a.request("INVITE", body=body or sdp(A_HOST), extra=extra, content_type=content_type)
    f.a.expect(100)
    return f.b.expect("INVITE")


TRUSTED: dict[str, Any] = {"trusted": True}  # Any: fields of RealmSettings


def test_an_identity_crosses_where_both_are_trusted() -> None:
    invite = sent(ladder(TRUSTED, TRUSTED), PAI, ("Privacy", "id"))
    assert invite.get_all("P-Asserted-Identity") == [f"Alice <sip:+4930@{OUR_B}>"]
    assert invite.get("Privacy") == "id"
    assert invite.get("Remote-Party-ID") is None


@pytest.mark.parametrize(("inside", "outside"), [({}, TRUSTED), (TRUSTED, {}), ({}, {})])
def test_it_is_not_believed_and_not_told_otherwise(inside: dict[str, Any], outside: dict[str, Any]) -> None:
    names = ("P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID", "Diversion", "History-Info")
    extra = [(name, f"<sip:+4930@{A_HOST}>;index=1") for name in names]
    invite = sent(ladder(inside, outside), *extra)
    assert not any(invite.get(name) for name in names)


def test_privacy_reaches_the_core() -> None:
    """An untrusted phone asserts nothing, but what it wants kept private the core must know."""
    assert sent(ladder({}, TRUSTED), PAI, ("Privacy", "id;critical")).get("Privacy") == "critical;id"
    assert sent(ladder({}, {}), ("Privacy", "id")).get("Privacy") is None


def test_a_preferred_identity_is_asserted_by_us() -> None:
    """Only where the realm says that its users are authenticated, and never beside what was asserted."""
    wish = ("P-Preferred-Identity", f"<sip:alice@{A_HOST}>")
    believed: dict[str, Any] = {"preferred_identity": True}  # Any: fields of RealmSettings
    assert sent(ladder(believed, TRUSTED), wish, PAI).get_all("P-Asserted-Identity") == [f"<sip:alice@{OUR_B}>"]
    both = sent(ladder(believed | TRUSTED, TRUSTED), wish, PAI)
    assert both.get_all("P-Asserted-Identity") == [f"Alice <sip:+4930@{OUR_B}>"]
    assert both.get("P-Preferred-Identity") is None
    assert sent(ladder(TRUSTED, TRUSTED), wish).get("P-Asserted-Identity") is None


def test_one_sip_and_one_tel_identity() -> None:
    """RFC 3325 §9.1. A local number needs our host: its context may name theirs."""
    values = f"<sip:1@{A_HOST}>, <sip:2@{A_HOST}>, <tel:+4930;ext=9>, <tel:+4931>, <http://{A_HOST}>"
    invite = sent(ladder(TRUSTED, TRUSTED), ("P-Asserted-Identity", values))
    assert invite.get_all("P-Asserted-Identity") == [f"<sip:1@{OUR_B}>", "<tel:+4930>"]
    local = sent(ladder(TRUSTED, TRUSTED), ("P-Asserted-Identity", f"<tel:030;phone-context={A_HOST}>"))
    assert local.get_all("P-Asserted-Identity") == [f"<sip:030@{OUR_B};user=phone>"]


def test_remote_party_id_both_ways() -> None:
    old = ("Remote-Party-ID", f'"Alice" <sip:+4930@{A_HOST}>;party=calling;privacy=full;screen=no')
    called = ("Remote-Party-ID", f"<sip:+4999@{A_HOST}>;party=called")
    invite = sent(ladder(TRUSTED, TRUSTED | {"remote_party_id": True}), called, old)
    assert invite.get("P-Asserted-Identity") == f"Alice <sip:+4930@{OUR_B}>"
    assert invite.get("Privacy") == "id"
    expected = f"Alice <sip:+4930@{OUR_B}>;party=calling;screen=yes;privacy=full"
    assert invite.get("Remote-Party-ID") == expected


def test_diversion_and_history_keep_their_order_and_lose_their_hosts() -> None:
    invite = sent(
        ladder(TRUSTED, TRUSTED),
        ("Diversion", f'<sip:bob@{A_HOST}>;reason=user-busy;counter=2;x={A_HOST}, "C" <tel:+4931>;reason="no-answer"'),
        ("History-Info", f"<sip:bob@{A_HOST}?Reason=SIP%3Bcause%3D302>;index=1, <sip:carol@{A_HOST}>;index=1.1;rc=1"),
    )
    assert invite.get_all("Diversion") == [
        f"<sip:bob@{OUR_B}>;reason=user-busy;counter=2",
        "C <tel:+4931>;reason=no-answer",
    ]
    assert invite.get_all("History-Info") == [f"<sip:bob@{OUR_B}>;index=1", f"<sip:carol@{OUR_B}>;index=1.1;rc=1"]
    assert A_HOST not in invite.raw.decode()


def test_privacy_of_the_user() -> None:
    """RFC 3323 §5.3, where the next one is not trusted; the core is told instead."""
    f = ladder(TRUSTED, {})
    invite = sent(f, ("Privacy", "user"), ("Subject", "Alice calls"), PAI)
    assert (invite.get("From") or "").startswith('"Anonymous" <sip:anonymous@anonymous.invalid>;tag=')
    assert invite.get("Subject") is None
    assert b"lice" not in invite.raw
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.a.ack()
    assert (f.b.expect("ACK").get("From") or "").startswith('"Anonymous"')
    trusted = sent(ladder(TRUSTED, TRUSTED), ("Privacy", "user"), ("Subject", "Alice calls"))
    assert (trusted.get("Subject"), trusted.get("Privacy")) == ("Alice calls", "user")
    assert "Alice" in (trusted.get("From") or "")


def test_critical_privacy_that_we_cannot_give() -> None:
    """RFC 3323 §5: better no call."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Privacy", "id;critical;invisible")])
    f.a.refused(500)
    f.over()
    assert sent(Ladder(), ("Privacy", "id;invisible")).get("Privacy") is None


def test_the_connected_identity_comes_back() -> None:
    """P-Asserted-Identity of B's 200 and of a re-INVITE, between trusted realms."""
    f = ladder(TRUSTED, TRUSTED)
    sent(f)
    f.b.reply(200, body=sdp(B_HOST), extra=[("P-Asserted-Identity", f"<sip:bob@{B_HOST}>")])
    assert f.a.expect(200).get("P-Asserted-Identity") == f"<sip:bob@{OUR_A}>"
    f.a.ack()
    f.b.expect("ACK")
    f.b.request("INVITE", body=sdp(B_HOST, version=2), extra=[("P-Asserted-Identity", f"<sip:carol@{B_HOST}>")])
    f.b.expect(100)
    assert f.a.expect("INVITE").get("P-Asserted-Identity") == f"<sip:carol@{OUR_A}>"


def test_unknown_headers_pass_into_realms_that_list_them() -> None:
    f = ladder(TRUSTED, {"pass_headers": ("X-Account", "P-Charging-Vector")})
    invite = sent(f, ("X-Account", "17"), ("X-Other", "18"), ("x-account", "19"))
    assert invite.get_all("X-Account") == ["17", "19"]
    assert invite.get("X-Other") is None
    f.b.reply(180, extra=[("X-Account", "20")])  # the other direction has a list of its own
    assert f.a.expect(180).get("X-Account") is None


def test_the_reason_of_a_cancel_crosses() -> None:
    """RFC 3326: the called phone need not show a missed call; its text stays behind."""
    f = Ladder()
    invite = sent(f)
    f.b.reply(180)
    f.a.expect(180)
    dialog, f.a.dialog = f.a.dialog, None
    reason = f'SIP;cause=200;text="elsewhere at {A_HOST}", Q.850;cause=26'
    f.a.request("CANCEL", branch=f.a.branch, extra=[("Reason", reason)])
    f.a.dialog = dialog
    f.a.expect(200)
    f.a.refused(487)
    cancel = f.b.expect("CANCEL")
    assert cancel.get_all("Reason") == ["Q.850;cause=26", "SIP;cause=200"]
    assert (cancel.uri, cancel.branch, cancel.get("To")) == (invite.uri, invite.branch, invite.get("To"))
    assert (cancel.get("From"), cancel.cseq_number) == (invite.get("From"), invite.cseq_number)
    f.b.reply(200, to=cancel)
    f.b.reply(487)
    f.b.expect("ACK")
    assert f.cdr["cause"] == 26
    f.over()


def test_our_own_reason_to_cancel() -> None:
    f = Ladder()
    sent(f)
    f.b.reply(180)
    f.a.expect(180)
    f.core.release(f.call, f.now, reason="no media", cause=102)
    f.drain()
    f.a.refused(500)
    cancel = f.b.expect("CANCEL")
    assert cancel.get_all("Reason") == ["Q.850;cause=102"]
    f.b.reply(200, to=cancel)
    f.b.reply(487)
    f.b.expect("ACK")
    f.over()


def test_the_cause_of_a_failure_is_on_record() -> None:
    """B's Q.850 cause says more than its status: A and the CDR get it."""
    f = Ladder()
    sent(f)
    f.b.reply(404, extra=[("Reason", f'Q.850;cause=28;text="{B_HOST}"')])
    f.b.expect("ACK")
    assert f.a.refused(404).get("Reason") == "Q.850;cause=28"
    assert f.cdr["cause"] == 28
    f.over()


def parts(*contents: tuple[str, bytes]) -> bytes:
    """A body of parts, with what a parser may trip over: a preamble, an epilogue, blanks behind a boundary."""
    body = b"for readers without MIME\r\n"
    for kind, content in contents:
        body += b"--b--1  \r\nContent-Type: " + kind.encode() + b"\r\nContent-ID: <x@y>\r\n\r\n" + content + b"\r\n"
    return body + b"--b--1--\r\nepilogue"


MIXED = 'multipart/mixed; boundary="b--1"'
ISUP = bytes(range(256)) + b"\r\n--b--17\r\n--b-\r\n"


def test_a_description_among_other_parts() -> None:
    """The description is rewritten, every other octet stays where it was."""
    f = Ladder()
    body = parts(("application/isup;version=x", ISUP), ("Application/SDP", sdp(A_HOST)), ("text/plain", b"\x00"))
    invite = sent(f, body=body, content_type=MIXED)
    assert invite.get("Content-Type") == MIXED
    before, after = body.split(sdp(A_HOST))
    assert invite.body.startswith(before)
    assert invite.body.endswith(after)
    rewritten = invite.body[len(before) : -len(after)]
    assert rewritten.startswith(b"v=0\r\n")
    assert f"c=IN IP4 {MEDIA_B}".encode() in rewritten
    assert A_HOST.encode() not in rewritten
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.refused(486)
    f.over()


def test_an_answer_among_other_parts() -> None:
    """A gets the description alone."""
    f = Ladder()
    sent(f)
    answer = parts(("application/isup", ISUP), ("application/sdp", sdp(B_HOST)))
    plain, f.b.ladder = f.b.ladder, _Edit(f)  # type: ignore[assignment]  # changes one header on its way
    f.b.reply(200, body=answer)
    f.b.ladder = plain
    told = f.a.expect(200)
    assert told.get("Content-Type") == "application/sdp"
    assert told.body.startswith(b"v=0\r\n")
    f.a.ack()
    f.b.expect("ACK")
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


class _Edit:
    """A wire that gives the body its real type."""

    def __init__(self, f: Ladder) -> None:
        self.f = f

    def deliver(self, data: bytes, flow: Flow) -> None:
        self.f.deliver(data.replace(b"application/sdp", MIXED.encode(), 1), flow)


def test_parts_without_a_description_are_a_late_offer() -> None:
    body = parts(("application/isup", ISUP))
    f = Ladder()
    assert sent(f, body=body, content_type=MIXED).body == body
    assert f.media == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (parts(*[("text/plain", b"x")] * 17), MIXED),
        (parts(("application/sdp", sdp(A_HOST))), "multipart/mixed"),
        (parts(("application/sdp", sdp(A_HOST))), "multipart/mixed; boundary=other"),
        (parts(("application/sdp", sdp(A_HOST)))[:-20], MIXED),
        (b"--b--1--", MIXED),
        (b"x", "application/isup"),
    ],
)
def test_parts_that_cannot_be_read(body: bytes, content_type: str) -> None:
    f = Ladder()
    f.a.request("INVITE", body=body, content_type=content_type)
    f.a.refused(415)
    f.over()


# Requests that make no call


def relayed(f: Ladder, method: str, *extra: tuple[str, str]) -> Message:
    """What B gets of such a request."""
    f.requests = relay_b
    f.a.request(method, extra=extra)
    return f.b.expect(method)


@pytest.mark.parametrize("method", ["MESSAGE", "SUBSCRIBE", "PUBLISH", "OPTIONS", "NOTIFY"])
def test_identity_of_requests_outside_a_dialog(method: str) -> None:
    """RFC 3325 §5: as in a call, by the trust of both realms; History-Info and Diversion go along."""
    given = [PAI, ("Privacy", "id"), ("History-Info", f"<sip:+4931@{A_HOST}>;index=1")]
    request = relayed(ladder(TRUSTED, TRUSTED), method, *given)
    assert request.get_all("P-Asserted-Identity") == [f"Alice <sip:+4930@{OUR_B}>"]
    assert (request.get("Privacy"), request.get("History-Info")) == ("id", f"<sip:+4931@{OUR_B}>;index=1")
    for inside, outside in (({}, TRUSTED), (TRUSTED, {})):
        request = relayed(ladder(inside, outside), method, *given)
        assert (request.get("P-Asserted-Identity"), request.get("History-Info")) == (None, None)


def test_register_asserts_nobody() -> None:
    """RFC 3325 §5."""
    request = relayed(ladder(TRUSTED, TRUSTED), "REGISTER", PAI, ("Privacy", "user"))
    assert request.get("P-Asserted-Identity") is None
    assert request.from_().uri.user == "alice"


def test_privacy_of_the_user_outside_a_dialog() -> None:
    """RFC 3323 §4.2: who wants to be unknown is, where the next one is not trusted."""
    f = ladder(TRUSTED, {})
    request = relayed(f, "MESSAGE", PAI, ("Privacy", "user"), ("Subject", "from Alice"))
    assert str(request.from_().uri) == "sip:anonymous@anonymous.invalid"
    assert request.get("Subject") is None
    assert b"lice" not in b"".join(f.b.all)
    request = relayed(ladder(TRUSTED, TRUSTED), "MESSAGE", PAI, ("Privacy", "user"), ("Subject", "from Alice"))
    assert (request.from_().display, request.get("Privacy")) == ("Alice A", "user")


def test_critical_privacy_outside_a_dialog() -> None:
    f = ladder(TRUSTED, {})
    f.a.request("MESSAGE", extra=[("Privacy", "critical;unheard-of")])
    f.a.expect(500)
    f.b.nothing()
    f.over()
