"""Ladders at the door: strangers, malformed messages, limits, routes that fail."""

from __future__ import annotations

import pytest

from sbc.b2bua.call import Call, Target
from sbc.b2bua.effects import RouteKind
from sbc.sip.flow import Flow
from tests.support.ladder import A_HOST, B_HOST, C_HOST, OUR_A, STRANGER, Ladder, sdp


def test_unknown_source_gets_nothing() -> None:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    data = f.a.sent
    for _ in range(3):
        f.deliver(data, Flow(0, "udp", STRANGER, 5060))
    assert f.counts["UNKNOWN_SOURCE_DROPPED"] == 3
    assert len(f.core.calls) == 1
    assert STRANGER not in f.phones


def test_unknown_source_may_be_refused_without_state() -> None:
    f = Ladder(unknown_sources="refuse")
    f.phones[STRANGER] = f.c
    f.a.request("OPTIONS")
    f.a.expect(200)
    transactions = len(f.core.layer)
    f.deliver(f.a.sent, Flow(0, "udp", STRANGER, 5060))
    f.c.expect(403)
    f.deliver(b"SIP/2.0 200 OK\r\n\r\n", Flow(0, "udp", STRANGER, 5060))
    f.deliver(b"\xff" * 900, Flow(0, "udp", STRANGER, 5060))
    f.c.nothing()
    assert len(f.core.layer) == transactions
    assert (f.counts["UNKNOWN_SOURCE_REFUSED"], f.counts["UNKNOWN_SOURCE_DROPPED"]) == (1, 2)


def test_malformed() -> None:
    """What can be answered is; what cannot is dropped; neither leaves anything behind."""
    f = Ladder()
    f.a.request("OPTIONS")
    f.a.expect(200)
    good = f.a.sent
    f.a._send(good.replace(b"Content-Length: 0", b"Content-Length: x"))
    f.a.expect(400)
    f.a._send(b"\r\n\r\n")
    f.a._send(b"no sip at all")
    f.a._send(good[:40])
    f.a.nothing()
    assert f.counts["KEEPALIVE"] == 1
    assert f.counts["MALFORMED_REFUSED"] == 1
    assert f.counts["MALFORMED_DROPPED"] == 2
    f.over()


def test_malformed_with_an_error_route() -> None:
    def refuse(ladder: Ladder, bad: object) -> None:
        ladder.core.reply_bad(bad, 606, ladder.now)  # type: ignore[arg-type]  # the core says what it is

    f = Ladder(routes=frozenset({RouteKind.REQUEST, RouteKind.ERROR}), hooks={"error_route": refuse})
    f.a.request("OPTIONS")
    f.a.expect(200)
    f.a._send(f.a.sent.replace(b"Content-Length: 0", b"Content-Length: x"))
    f.a.expect(606)
    f.over()


def test_ping_and_methods_that_are_not_for_us() -> None:
    f = Ladder()
    f.a.request("OPTIONS")
    pong = f.a.expect(200)
    assert (pong.get("Accept"), pong.get("Server")) == ("application/sdp", "Portcullis")
    assert pong.to_tag
    for method, status in (("REGISTER", 405), ("SUBSCRIBE", 405), ("MESSAGE", 405), ("FROB", 501), ("BYE", 481)):
        f.a.request(method)
        f.a.expect(status)
    f.a.request("OPTIONS", extra=[("Require", "100rel, frob")])
    assert f.a.expect(420).get_all("Unsupported") == ["100rel", "frob"]
    f.a.request("OPTIONS", uri="soap.beep://192.0.2.1:3302")
    f.a.expect(416)
    f.over()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Max-Forwards: 70", b"Max-Forwards: 0"), 483),
        ((b"INVITE sip:", b"INVITE sips:"), 416),
        ((b"INVITE sip:", b"INVITE mailto:"), 416),
        ((b"application/sdp", b"multipart/mixed"), 415),
        ((b"m=audio 4000", b"m=audio bork"), 488),
        ((b"Contact:", b"X-Contact:"), 400),
        ((b"From:", b"Require: timer\r\nFrom:"), 420),
    ],
)
def test_what_is_refused_at_the_door(change: tuple[bytes, bytes], status: int) -> None:
    f = Ladder()
    real, f.a.ladder = f.a.ladder, _Swallow()  # type: ignore[assignment]  # only to get the octets
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.ladder = real
    old, new = change
    assert old in f.a.sent
    f.a._send(f.a.sent.replace(old, new, 1))
    if status == 488:
        f.a.expect(100)
    f.a.refused(status)
    f.b.nothing()
    f.over()


class _Swallow:
    def deliver(self, data: bytes, flow: Flow) -> None:
        """Nothing arrives."""


def test_merged_request() -> None:
    """RFC 3261 §8.2.2.2: the same INVITE by another path."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.a.request("INVITE", body=sdp(A_HOST), cseq=1)
    f.a.expect(482)
    f.b.nothing()
    assert len(f.core.calls) == 1


def test_a_proxy_forks_to_two_phones_behind_us() -> None:
    """The same Call-ID, From tag and CSeq: the Request-URI tells them apart. One answers, the other is cancelled."""
    targets = {"one": (f"sip:one@{B_HOST}:5070", "carrier-b"), "two": (f"sip:two@{C_HOST}:5070", "carrier-c")}

    def route(ladder: Ladder, call: Call) -> None:
        uri, peer = targets[call.ruri.partition(":")[2].partition("@")[0]]
        ladder.core.dial(call, [Target(uri, "outside", peer=peer)], ladder.now)

    f = Ladder(route=route)
    for name in targets:
        f.a.request("INVITE", body=sdp(A_HOST), cseq=1, uri=f"sip:{name}@{OUR_A}")
        f.a.expect(100)
    branch = f.a.branch
    f.b.expect("INVITE")
    f.c.expect("INVITE")
    f.c.reply(180)
    f.a.expect(180)
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    dialog, f.a.dialog = f.a.dialog, None
    f.a.request("CANCEL", branch=branch, cseq=1, uri=f"sip:two@{OUR_A}")
    f.a.expect(200)
    f.c.reply(200, to=f.c.expect("CANCEL"))
    f.c.reply(487)
    f.c.expect("ACK")
    f.a.expect(487)
    f.a.dialog = dialog
    f.a.ack(cseq=1)
    f.b.expect("ACK")
    assert [cdr["status"] for cdr in f.cdrs] == [487]
    assert len(f.core.calls) == 1


def test_retransmitted_invite_makes_one_call() -> None:
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.a.expect(180)
    f.a.again()
    f.a.expect(180)
    f.b.nothing()
    assert len(f.core.calls) == 1


def test_draining() -> None:
    """New calls are refused, the others go on."""
    f = Ladder()
    f.set_up()
    f.core.set_draining(True)
    f.a.dialog, dialog = None, f.a.dialog
    f.a.request("INVITE", body=sdp(A_HOST))
    assert f.a.refused(503).get("Retry-After") == "10"
    f.a.dialog = dialog
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_peer_limit() -> None:
    f = Ladder()
    f.peers.limit = 0
    f.a.request("INVITE", body=sdp(A_HOST))
    assert f.a.refused(503).get("Retry-After") is not None
    assert not f.core.calls
    f.over()


@pytest.mark.parametrize("how", ["no decision", "raises", "unreachable"])
def test_a_route_that_fails_costs_its_call_only(how: str) -> None:
    def route(ladder: Ladder, call: Call) -> None:
        if how == "raises":
            raise RuntimeError("author's mistake")
        if how == "unreachable":
            ladder.core.dial(call, [Target("sip:x@host.example", "outside")], ladder.now)

    f = Ladder(route=route)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.refused(503 if how == "unreachable" else 500)
    counter = {"no decision": "ROUTE_UNDECIDED", "raises": "ROUTE_ERRORS", "unreachable": "CALLS_FAILED"}[how]
    assert f.counts[counter] == 1
    assert f.cdr["answered"] is False
    f.over()


def test_cancel_while_the_route_runs() -> None:
    """The route decides into the void."""
    f = Ladder()
    f.held_routes = []
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.cancel()
    f.a.expect(200)
    f.a.refused(487)
    held, f.held_routes = f.held_routes, None
    f.run(held[0])
    f.drain()
    f.b.nothing()
    f.over()
