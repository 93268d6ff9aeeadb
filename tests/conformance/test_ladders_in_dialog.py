"""Ladders inside a dialog: requests that cross, remote targets, route sets, CSeq, and who may send them."""

from __future__ import annotations

import pytest

from tests.support.ladder import A_HOST, B_HOST, Ladder, sdp


def test_requests_in_the_dialog_cross_both_ways() -> None:
    f = Ladder()
    f.set_up()
    for sender, receiver in ((f.a, f.b), (f.b, f.a)):
        sender.request("INFO", body=b"Signal=5\r\n", content_type="application/dtmf-relay", extra=[("X-Secret", "1")])
        info = receiver.expect("INFO")
        assert info.body == b"Signal=5\r\n"
        assert info.get("Content-Type") == "application/dtmf-relay"
        assert info.get("X-Secret") is None
        receiver.reply(200, to=info)
        sender.expect(200)
        sender.request("OPTIONS")
        receiver.reply(200, to=receiver.expect("OPTIONS"))
        assert sender.expect(200).get("Allow") is not None
        sender.request("UPDATE")
        receiver.reply(200, to=receiver.expect("UPDATE"))
        assert sender.expect(200).contact() is not None
        sender.request("FROB")
        sender.expect(501)
        receiver.nothing()
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_remote_target_refresh() -> None:
    """RFC 3261 §12.2.1.2: a new Contact in a re-INVITE or its 2xx is where later requests go."""
    f = Ladder()
    f.set_up()
    f.a.contact = f"<sip:moved@{A_HOST}:5099>"
    f.a.request("INVITE", body=sdp(A_HOST, version=2))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.contact = f"<sip:elsewhere@{B_HOST}:5098;transport=udp>"
    f.b.reply(200, body=sdp(B_HOST, version=2))
    f.a.expect(200)
    f.a.ack()
    assert f.b.expect("ACK").uri == f"sip:elsewhere@{B_HOST}:5098;transport=udp"
    f.b.request("BYE")
    f.b.expect(200)
    bye = f.a.expect("BYE")
    assert bye.uri == f"sip:moved@{A_HOST}:5099"
    f.a.reply(200, to=bye)
    f.over()


@pytest.mark.parametrize("loose", [True, False])
def test_route_sets(loose: bool) -> None:
    """RFC 3261 §12.2.1.1 with §12.1.1/§12.1.2: Record-Route of either side, in its order; a strict router too."""
    lr = ";lr" if loose else ""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST), extra=[("Record-Route", f"<sip:{A_HOST}:5071{lr}>, <sip:pa2.example{lr}>")])
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST), extra=[("Record-Route", f"<sip:pb2.example{lr}>, <sip:{B_HOST}:5072{lr}>")])
    ok = f.a.expect(200)
    assert ok.get_all("Record-Route") == [f"<sip:{A_HOST}:5071{lr}>", f"<sip:pa2.example{lr}>"]
    f.a.ack()
    ack = f.b.expect("ACK")
    if loose:
        assert ack.uri == f"sip:b@{B_HOST}:5070"
        assert ack.get_all("Route") == [f"<sip:{B_HOST}:5072;lr>", "<sip:pb2.example;lr>"]
    else:
        assert ack.uri == f"sip:{B_HOST}:5072"
        assert ack.get_all("Route") == ["<sip:pb2.example>", f"<sip:b@{B_HOST}:5070>"]
    f.b.request("BYE")
    f.b.expect(200)
    bye = f.a.expect("BYE")
    assert bye.get_all("Route")[0] == (f"<sip:{A_HOST}:5071;lr>" if loose else "<sip:pa2.example>")
    f.a.reply(200, to=bye)
    f.over()


def test_old_cseq_and_wrong_tags() -> None:
    f = Ladder()
    f.set_up()
    f.a.request("INFO", cseq=1)
    f.a.expect(500)
    f.a.request("INFO", cseq=40)  # gaps are fine
    f.b.reply(200, to=f.b.expect("INFO"))
    f.a.expect(200)
    assert f.a.dialog is not None
    true = f.a.dialog
    f.a.dialog = (true[0], true[1], true[2][:-3] + "xyz", true[3])
    f.a.request("BYE", cseq=41)
    f.a.expect(481)
    f.a.dialog = (true[0] + "x", *true[1:])
    f.a.request("BYE", cseq=42)
    f.a.expect(481)
    f.a.dialog = true
    f.a.request("BYE", cseq=43)
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


def test_requests_in_the_dialog_come_from_its_peer_only() -> None:
    """Another known peer that has learned tags and Call-ID can end nothing."""
    f = Ladder()
    f.set_up()
    f.c.dialog = f.b.dialog
    f.c.request("BYE", cseq=9)
    f.c.expect(481)
    assert f.counts["WRONG_SOURCE_REFUSED"] == 1
    assert f.call.state.name == "UP"


def test_481_in_the_dialog_ends_the_call() -> None:
    """RFC 5057 §5.1."""
    f = Ladder()
    f.set_up()
    f.a.request("INFO")
    f.b.reply(481, to=f.b.expect("INFO"))
    f.a.expect(481)
    f.a.reply(200, to=f.a.expect("BYE"))
    f.b.reply(481, to=f.b.expect("BYE"))
    assert f.cdr["hangup"] == "sbc"
    f.over()
