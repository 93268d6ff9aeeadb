"""The kernel's own choice of a source address, on the loopback interface."""

from __future__ import annotations

from sbc.transport.source_address import KEPT_S, SourceAddresses


def test_the_kernel_is_asked_and_its_answer_kept_for_a_moment() -> None:
    now = 100.0
    sources = SourceAddresses(lambda: now)
    assert sources("127.0.0.9") == "127.0.0.1"
    sources._known["127.0.0.9"] = ("127.0.0.7", now + KEPT_S)
    assert sources("127.0.0.9") == "127.0.0.7"
    now += KEPT_S
    assert sources("127.0.0.9") == "127.0.0.1"


def test_where_there_is_no_route_there_is_no_address() -> None:
    assert SourceAddresses(lambda: 0.0)("no address") == ""
