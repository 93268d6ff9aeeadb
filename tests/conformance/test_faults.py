"""What a UAS must refuse before and inside a dialog (RFC 3261 §8.2, §9.2, §12.2.2), as ladders.

``tests/conformance/test_ladders_door.py`` has the refusals that concern strangers and whole messages.
"""

from __future__ import annotations

import pytest

from sbc.sip.flow import Flow
from tests.support.ladder import A_HOST, B_HOST, C_HOST, Ladder, sdp


def changed_invite(f: Ladder, old: bytes, new: bytes) -> None:
    """An INVITE of A's with other octets in one place."""
    send = f.a._send

    def change(data: bytes) -> None:
        assert old in data
        send(data.replace(old, new, 1))

    f.a._send = change  # type: ignore[method-assign]  # for this one message
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a._send = send  # type: ignore[method-assign]  # as it was


def still_up(f: Ladder) -> None:
    """The call is unharmed, and ends as any other."""
    f.a.nothing()
    f.b.nothing()
    assert f.call.state.name == "UP"
    f.a.request("BYE")
    f.a.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


# §8.2, outside a dialog


@pytest.mark.parametrize(
    ("old", "new", "status", "header", "value"),
    [
        (b"From: ", b"Require: frob, 100rel\r\nFrom: ", 420, "Unsupported", "frob"),
        (b"From: ", b"Proxy-Require: sec-agree\r\nFrom: ", 420, "Unsupported", "sec-agree"),
        (b"Content-Type: application/sdp", b"Content-Type: text/plain", 415, "Accept", "application/sdp"),
        (b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type", 415, "Accept-Encoding", "identity"),
        (b"Max-Forwards: 70", b"Max-Forwards: 0", 483, "", ""),
        (b";tag=tag-of-a", b"", 400, "", ""),
    ],
)
def test_refused_before_there_is_a_call(old: bytes, new: bytes, status: int, header: str, value: str) -> None:
    """§8.2.2.3, §8.2.3, §16.3, §8.1.1.3: each with what the sender needs in order to do better."""
    f = Ladder()
    changed_invite(f, old, new)
    refusal = f.a.refused(status)
    if header:
        assert refusal.get(header) == value
    assert refusal.to_tag
    f.b.nothing()
    assert not f.core.calls
    assert not f.cdrs
    f.over()


def test_content_that_is_not_encoded_says_so() -> None:
    """§20.12: identity is no encoding."""
    f = Ladder()
    changed_invite(f, b"Content-Type", b"Content-Encoding: identity\r\nContent-Type")
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(486)
    f.b.expect("ACK")
    f.a.refused(486)
    f.over()


def test_merged_by_another_path() -> None:
    """§8.2.2.2: the same From tag, Call-ID and CSeq with another branch; and what has a To tag is never merged."""
    f = Ladder()
    f.set_up()
    f.a.dialog, dialog = None, f.a.dialog
    f.a.request("INVITE", body=sdp(A_HOST), cseq=1)
    f.a.refused(482)
    f.a.dialog = dialog
    f.a.request("INFO", cseq=2)
    f.b.reply(200, to=f.b.expect("INFO"))
    f.a.expect(200)
    f.a.cseq = 2
    still_up(f)


def test_cancel_from_elsewhere() -> None:
    """§9.2 with the rule of this house: another known peer that has learned the branch cancels nothing."""
    f = Ladder()
    f.c.request("INVITE", body=sdp(C_HOST))
    f.c.expect(100)
    f.b.expect("INVITE")
    f.b.reply(180)
    f.c.expect(180)
    cancel = f.c.sent.replace(b"INVITE", b"CANCEL")
    f.deliver(cancel, Flow(1, "udp", B_HOST, 5070))  # every octet as C would write it, from B
    f.b.expect(481)
    f.b.nothing()
    assert f.counts["WRONG_SOURCE_REFUSED"] == 1
    f.b.reply(200, body=sdp(B_HOST))
    f.c.expect(200)
    f.c.ack()
    f.b.expect("ACK")
    f.c.request("BYE")
    f.c.expect(200)
    f.b.reply(200, to=f.b.expect("BYE"))
    f.over()


# §12.2.2, inside a dialog


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO", "BYE", "OPTIONS", "MESSAGE"])
def test_cseq_that_is_not_higher(side: str, method: str) -> None:
    """500, for every method and from either side; equal is as bad as lower."""
    f = Ladder()
    f.set_up()
    one, other = (f.a, f.b) if side == "a" else (f.b, f.a)
    one.request("OPTIONS", cseq=50)
    other.reply(200, to=other.expect("OPTIONS"))
    one.expect(200)
    for cseq in (50, 49, 0):
        one.request(method, cseq=cseq)
        if method == "INVITE":
            one.refused(500)
        else:
            one.expect(500)
        other.nothing()
    f.a.cseq = 60
    still_up(f)


@pytest.mark.parametrize("method", ["INVITE", "INFO", "BYE"])
def test_wrong_source_inside_the_dialog(method: str) -> None:
    """Every octet right, but from an address that is not the peer's: as if there were no such dialog."""
    f = Ladder()
    f.set_up()
    f.c.dialog = f.b.dialog
    f.c.request(method, cseq=9)
    if method == "INVITE":
        f.c.refused(481)
    else:
        f.c.expect(481)
    assert f.counts["WRONG_SOURCE_REFUSED"] >= 1
    still_up(f)


def test_ack_from_elsewhere() -> None:
    """It acknowledges nothing: our 200 goes on."""
    f = Ladder()
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    f.c.dialog = f.a.dialog
    f.c.ack(cseq=1)
    f.b.nothing()
    assert f.counts["WRONG_SOURCE_REFUSED"] == 1
    f.after(0.6)
    f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    still_up(f)


@pytest.mark.parametrize("part", ["from", "to", "call-id"])
def test_a_dialog_that_is_not_there(part: str) -> None:
    """481 where any of the three does not match."""
    f = Ladder()
    f.set_up()
    assert f.a.dialog is not None
    true = f.a.dialog
    call_id, sender, receiver, target = true
    f.a.dialog = {
        "from": (call_id, sender + "x", receiver, target),
        "to": (call_id, sender, receiver + "x", target),
        "call-id": (call_id + "x", sender, receiver, target),
    }[part]
    for method in ("INFO", "BYE", "UPDATE"):
        f.a.request(method)
        f.a.expect(481)
    f.a.dialog = true
    still_up(f)


@pytest.mark.parametrize("method", ["BYE", "INFO", "UPDATE", "PRACK"])
def test_request_without_to_tag(method: str) -> None:
    """What makes no dialog and names none."""
    f = Ladder()
    f.set_up()
    assert f.a.dialog is not None
    true = f.a.dialog
    f.a.dialog = (true[0], true[1], true[2].partition(";tag=")[0], true[3])
    f.a.request(method)
    f.a.expect(481)
    f.a.dialog = true
    still_up(f)


@pytest.mark.parametrize(
    ("method", "extra", "status"),
    [
        ("INVITE", ("Require", "frob"), 420),
        ("UPDATE", ("Require", "frob"), 420),
        ("INFO", ("Proxy-Require", "frob"), 420),
        ("INVITE", ("Content-Encoding", "gzip"), 415),
        ("UPDATE", ("Content-Encoding", "gzip"), 415),
    ],
)
def test_extension_inside_the_dialog(method: str, extra: tuple[str, str], status: int) -> None:
    """It is refused, and the session stays as it was."""
    f = Ladder()
    f.set_up()
    f.a.request(method, body=sdp(A_HOST, version=2) if method != "INFO" else b"", extra=[extra])
    if method == "INVITE":
        f.a.refused(status)
    else:
        f.a.expect(status)
    still_up(f)


def test_max_forwards_inside_the_dialog() -> None:
    """§16.3: 0 goes no further, anything else goes on one lower."""
    f = Ladder()
    f.set_up()
    send = f.a._send
    f.a._send = lambda data: send(data.replace(b"Max-Forwards: 70", b"Max-Forwards: 0"))  # type: ignore[method-assign]  # for this one
    f.a.request("INFO")
    f.a._send = send  # type: ignore[method-assign]  # as it was
    f.a.expect(483)
    f.a.request("INFO")
    info = f.b.expect("INFO")
    assert info.max_forwards == 69
    f.b.reply(200, to=info)
    f.a.expect(200)
    still_up(f)


def test_our_branches_and_tags_are_unique() -> None:
    """§8.1.1.7 and §19.3: each transaction its branch, each dialog its tag, also over failover and repetition."""
    f = Ladder()
    branches, tags = [], set()
    for number in range(5):
        line = f.line(f.a, f"a{number}")
        line.request("INVITE", body=sdp(A_HOST))
        line.expect(100)
        invite = f.b.expect("INVITE")
        branches.append(invite.branch)
        tags.add(invite.from_tag)
        f.b.reply(200, body=sdp(B_HOST))
        tags.add(line.expect(200).to_tag)
        line.ack()
        branches.append(f.b.expect("ACK").branch)
        line.request("BYE")
        line.expect(200)
        bye = f.b.expect("BYE")
        branches.append(bye.branch)
        f.b.reply(200, to=bye)
    assert len(set(branches)) == len(branches) == 15
    assert all(branch.startswith("z9hG4bK") for branch in branches)
    assert len(tags) == 10
    f.over()
