"""Audio that goes one way: who remembers it, and what the log says."""

from __future__ import annotations

import pytest

from sbc.b2bua import one_way, snapshot
from tests.support.ladder import B_HOST, Ladder, sdp


def answered() -> Ladder:
    f = Ladder()
    f.a.request("INVITE", body=sdp("192.0.2.10"))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    f.a.expect(200)
    return f


def test_it_counts_from_the_answer_on_and_for_the_legs_of_the_call() -> None:
    f = answered()
    assert one_way.note(f.core, f.call, "b1") == "", "A has not acknowledged yet"
    f.a.ack()
    f.b.expect("ACK")
    assert one_way.note(f.core, f.call, "b7") == ""
    assert (one_way.note(f.core, f.call, "b1"), f.call.one_way) == ("b", "b")
    assert (one_way.note(f.core, f.call, "a"), f.call.one_way) == ("a", "ab")
    assert (one_way.note(f.core, f.call, "a"), f.call.one_way) == ("a", "ab")
    assert b'"way":"ab"' in snapshot.encode(f.core, f.call, f.now)


@pytest.mark.parametrize(
    ("side", "event", "words"),
    [
        ("b", {"described": "10.0.0.5:4000", "heard": False}, "B sends nothing: firewall or NAT on its side?"),
        ("b", {"described": "10.0.0.5:4000", "heard": False}, "10.0.0.5:4000, a private address"),
        ("a", {"described": "8.8.8.8:4000"}, "A sends nothing: firewall on its side, or our media address"),
        ("a", {"described": "[2001:4860::8]:4000", "refused": 0}, "Its SDP said [2001:4860::8]:4000"),
        ("a", {"described": ""}, "Its SDP said no address"),
        ("a", {"described": "8.8.8.8:4000", "heard": True}, "A has stopped sending"),
        ("b", {"described": "8.8.8.8:4000", "refused": 500}, "500 packets came to its port from another address"),
    ],
)
def test_the_reason_is_said_in_words(side: str, event: dict[str, object], words: str) -> None:
    assert words in one_way.why(side, event)
