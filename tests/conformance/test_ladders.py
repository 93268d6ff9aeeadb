"""Call flows in the order of RFC 3665, and the ones that it leaves out because they go wrong."""

from __future__ import annotations

from tests.support.ladder import A_HOST, B_HOST, Ladder, sdp


def test_success_a_hangs_up() -> None:
    """RFC 3665 §3.1.

        A                  SBC                  B
        |---- INVITE ------>|                   |
        |<----- 100 --------|----- INVITE ----->|
        |                   |<------ 180 -------|
        |<----- 180 --------|<------ 200 -------|
        |<----- 200 --------|                   |
        |------ ACK ------->|------ ACK ------->|
        |------ BYE ------->|                   |
        |<----- 200 --------|------ BYE ------->|
        |                   |<------ 200 -------|
    """
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(100)
    f.b.reply(180)
    f.a.expect(180)
    f.after(2)
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.b.nothing()
    f.a.ack()
    f.b.expect("ACK")
    f.after(10)
    f.a.request("BYE")
    f.a.expect(200)
    bye = f.b.expect("BYE")
    f.b.reply(200, to=bye)
    f.a.nothing()
    f.b.nothing()
    assert f.cdr["status"] == 200
    assert f.cdr["hangup"] == "a"
    assert f.cdr["duration_s"] == 10.0
    assert f.cdr["setup_s"] == 2.0
    assert f.cdr["attempts"] == [
        {"gateway": "gw-b", "uri": f"sip:+4930123@{B_HOST}:5070", "leg": "b1", "status": 200, "pdd_ms": 0}
    ]
    assert f.cdr["media"]["a"]["packets"] == 150
    f.over()
