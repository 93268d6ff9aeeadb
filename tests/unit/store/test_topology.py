"""What sentinels and nodes of a cluster say, as they say it."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.store.topology import cluster_view, sentinel_view, slot_of
from sbc.store.wire import Refusal, StoreAway

ASKED = ("10.0.0.9", 7000)
NODES = """\
aaa 10.0.0.1:7001@17001,one.example master - 0 1 1 connected 0-5460
bbb 10.0.0.2:7002@17002 myself,master - 0 1 7 connected 5461-10922 [5461->-aaa]
ccc 10.0.0.3:7003@17003 master - 0 1 3 connected 10923-16382 16383
ddd [::1]:7004@17004 slave bbb 0 1 7 connected
eee 10.0.0.5:7005@17005 slave,fail aaa 0 1 1 disconnected
"""


def flat(**fields: str) -> list[bytes]:
    return [part.encode() for name, value in fields.items() for part in (name.replace("_", "-"), value)]


def replies(**changes: Any) -> list[Any]:  # Any: replies
    master = {"flags": "master", "config_epoch": "12", "num_other_sentinels": "2"}
    replica = {"flags": "slave", "master_link_status": "ok", "slave_priority": "100"}
    address = changes.pop("address", [b"10.0.0.1", b"6379"])
    for name, value in changes.items():
        (replica if name in replica and name != "flags" else master)[name] = value
    return [address, flat(**master), [flat(**replica)]]


def test_slots_are_those_of_the_specification() -> None:
    assert slot_of("123456789") == 0x31C3 % 16_384
    assert slot_of("foo{hash_tag}bar") == slot_of("hash_tag") == slot_of("{hash_tag}")
    assert slot_of("foo{}{bar}") != slot_of("bar"), "an empty tag is none"
    assert slot_of("sbc:{sbc1}:call:x") == slot_of("sbc:{sbc1}:lease")


def test_a_sentinel_names_the_master_and_its_decision() -> None:
    view = sentinel_view("s", replies())
    assert (view.epoch, view.master, view.doubts) == (12, ("10.0.0.1", 6379), ())


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"num_other_sentinels": "0"}, "one sentinel watches the store"),
        ({"num_other_sentinels": "1"}, "2 sentinels watch the store"),
        ({"flags": "master,s_down,o_down"}, "hold the store's master for dead"),
        ({"master_link_status": "err"}, "no replica that could take over"),
        ({"slave_priority": "0"}, "no replica that could take over"),
    ],
)
def test_what_would_keep_it_from_outliving_its_master(changes: dict[str, str], doubt: str) -> None:
    (told,) = sentinel_view("s", replies(**changes)).doubts
    assert doubt in told


def test_a_sentinel_that_does_not_know() -> None:
    with pytest.raises(StoreAway, match="no service 's'"):
        sentinel_view("s", [None, [], Refusal("ERR No such master with that name")])
    with pytest.raises(StoreAway, match="NOAUTH"):
        sentinel_view("s", [Refusal("NOAUTH Authentication required."), None, None])


@pytest.mark.parametrize(
    ("slot", "master", "doubts"),
    [
        (0, ("10.0.0.1", 7001), ["has no replica"]),
        (7000, ("10.0.0.2", 7002), []),
        (16_383, ("10.0.0.3", 7003), ["has no replica"]),
    ],
)
def test_the_node_of_a_slot(slot: int, master: tuple[str, int], doubts: list[str]) -> None:
    view = cluster_view(slot, ASKED, False, NODES.encode())
    assert view.master == master
    assert [text in told for text, told in zip(doubts, view.doubts, strict=True)] == [True] * len(doubts)


def test_the_nodes_that_may_take_its_place_are_asked_as_well() -> None:
    assert cluster_view(7000, ASKED, False, NODES.encode()).others == (("10.0.0.2", 7002), ("[::1]", 7004))


def test_names_are_for_certificates_and_a_node_without_an_address_is_where_it_was_asked() -> None:
    assert cluster_view(0, ASKED, True, NODES.encode()).master == ("one.example", 7001)
    alone = b"bbb :7002@17002 myself,master - 0 0 1 connected 0-16383\n"
    view = cluster_view(9, ASKED, False, alone)
    assert view.master == ("10.0.0.9", 7002)
    assert any("fewer than 3" in doubt for doubt in view.doubts)


def test_a_slot_that_nobody_serves() -> None:
    with pytest.raises(StoreAway, match="no node of the cluster has slot 5"):
        cluster_view(5, ASKED, False, NODES.replace(" 0-5460", "").encode())
    with pytest.raises(StoreAway, match="has failed"):
        cluster_view(5, ASKED, False, NODES.replace("master - 0 1 1", "master,fail - 0 1 1").encode())
    with pytest.raises(StoreAway, match="cluster support disabled"):
        cluster_view(5, ASKED, False, Refusal("ERR This instance has cluster support disabled"))
