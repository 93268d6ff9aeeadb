"""Extensions through a real SBC: digest, reliable provisionals, session timers and pings, from the configuration on."""

from __future__ import annotations

from pathlib import Path

from sbc.sip.digest import ha1, parse_authorization, verify
from sbc.sip.message import Message
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, loopback
from tests.support.raw import Raw
from tests.support.sbc import eventually, running

SECRET = "sesame"
EXTRA = "timers: { ping_interval_s: 1, session_expires_s: 600 }\n"


def description(host: str) -> bytes:
    return (f"v=0\r\no=x 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n").encode()


def expect(port: Raw, what: str | int) -> Message:
    """The next message that is neither 100 nor one of another kind that came meanwhile."""
    while data := port.next():
        message = Message.parse(data)
        if what == (message.method if message.is_request else message.status):
            return message
    raise AssertionError(f"no {what}")


def answer(port: Raw, request: Message, status: int, *lines: str, body: bytes = b"") -> None:
    to = request.get("To") or ""
    head = [
        f"SIP/2.0 {status} Said",
        *(f"Via: {via}" for via in request.get_all("Via")),
        f"From: {request.get('From')}",
        f"To: {to if request.to_tag else to + ';tag=callee'}",
        f"Call-ID: {request.call_id}",
        f"CSeq: {request.cseq_number} {request.method}",
        f"Contact: <sip:callee@{port.host}:{port.port}>",
        *lines,
    ]
    if body:
        head.append("Content-Type: application/sdp")
    head += [f"Content-Length: {len(body)}", "", ""]
    port.send("\r\n".join(head).encode() + body, _hop(request))


def _hop(request: Message) -> tuple[str, int]:
    via = request.top_via
    return via.host, via.port or 5060


def test_a_call_with_all_of_them(tmp_path: Path) -> None:
    """The called side challenges, rings reliably and knows session timers; the caller asks for reliable ringing."""
    net = loopback()
    credentials = f'auth: {{ username: trunk, password: {SECRET} }}, gateway: "sip:'
    text = net.text.replace('gateway: "sip:', credentials) + EXTRA
    ours = (OUTSIDE, net.port)
    with running(tmp_path / "sbc", text) as sbc, Raw(CALLER) as a, Raw(CALLEE, net.callee_port) as b:
        more = ("Supported: 100rel, timer", "Allow: INVITE, ACK, BYE, UPDATE, PRACK, OPTIONS")
        invite = a.request("INVITE", ours, body=description(CALLER), more=more)
        a.send(invite, ours)
        first = expect(b, "INVITE")
        assert first.get_all("Supported") == ["timer", "replaces", "norefersub", "100rel"]
        assert first.get("Session-Expires") == "600;refresher=uac"
        answer(b, first, 401, 'WWW-Authenticate: Digest realm="pbx", nonce="n", qop="auth", algorithm=SHA-256')
        expect(b, "ACK")
        second = expect(b, "INVITE")
        authorization = parse_authorization(second.get("Authorization") or "")
        assert authorization is not None
        assert verify(authorization, ha1("SHA-256", "trunk", "pbx", SECRET), "INVITE", second.body)

        answer(b, second, 183, "Require: 100rel", "RSeq: 9", body=description(CALLEE))
        prack = expect(b, "PRACK")
        assert prack.get("RAck") == f"9 {second.cseq_number} INVITE"
        answer(b, prack, 200)
        progress = expect(a, 183)
        assert CORE.encode() not in progress.raw
        sent = Message.parse(invite)

        def request(method: str, cseq: int, *lines: str) -> None:
            dialog = (f"From: {sent.get('From')}", f"To: {progress.get('To')}", f"Call-ID: {sent.call_id}")
            a.send(a.request(method, ours, more=(*dialog, f"CSeq: {cseq} {method}", *lines)), ours)

        request("PRACK", 2, f"RAck: {progress.get('RSeq')} 1 INVITE")
        assert expect(a, 200).cseq_method == "PRACK"
        answer(b, second, 200, "Session-Expires: 600;refresher=uac", "Supported: timer")
        accepted = expect(a, 200)
        assert (accepted.cseq_method, accepted.body) == ("INVITE", b"")
        assert accepted.get("Session-Expires") == "600;refresher=uas"
        request("ACK", 1)
        assert expect(b, "ACK").get("Authorization") == second.get("Authorization")

        for port in (a, b):
            answer(port, expect(port, "OPTIONS"), 200)
        request("UPDATE", 3, "Session-Expires: 60", "Supported: timer")
        assert expect(a, 422).get("Min-SE") == "90"
        request("BYE", 4)
        expect(a, 200)
        answer(b, expect(b, "BYE"), 200)
        eventually(lambda: len(sbc.cdrs()) == 1, 10, "a CDR")
        assert sbc.cdrs()[0]["status"] == 200
        assert sbc.total("CHALLENGES_ANSWERED") == 1
        assert sbc.total("PINGS_SENT") >= 2
        assert sbc.total("CORE_FAULTS") == 0
        assert SECRET not in sbc.log
