"""Which media node a new session gets, and what becomes of a node that misses deadlines."""

from __future__ import annotations

from collections import Counter

from sbc.config.media import MediaHealth, MediaMember
from sbc.media_client.nodes import Address, Member, Node, State, choose, layout

HEALTH = MediaHealth(fall=2, rise=2, disable_s=5.0)
KEY = "a" * 40


def members(**weights: int) -> list[Member]:
    return [(Node(name, Address(f"ipc://{name}")), weight) for name, weight in weights.items()]


def chosen(of: list[Member], count: int = 4000) -> list[str]:
    found = (choose(of, b"call-%d" % n) for n in range(count))
    return [node.name for node in found if node is not None]


def down(member: Member) -> None:
    for _ in range(HEALTH.fall):
        member[0].miss(0.0, 0.0, HEALTH)


def test_shares_follow_the_weights() -> None:
    shares = Counter(chosen(members(a=1, b=3)))
    assert 850 < shares["a"] < 1150
    assert shares["a"] + shares["b"] == 4000


def test_only_the_calls_of_a_node_that_goes_move() -> None:
    of = members(a=1, b=1, c=2)
    before = chosen(of)
    down(of[2])
    after = chosen(of)
    assert "c" not in after
    assert all(now == then for now, then in zip(after, before, strict=True) if then != "c")


def test_a_spare_is_used_only_while_no_weighted_node_answers() -> None:
    of = members(a=1, b=1, spare=0)
    assert set(chosen(of)) == {"a", "b"}
    down(of[0])
    assert set(chosen(of)) == {"b"}
    down(of[1])
    assert set(chosen(of)) == {"spare"}
    assert choose(of, b"call", [of[2][0]]) in {of[0][0], of[1][0]}, "the others may have come back"


def test_a_draining_node_is_the_last_to_be_asked() -> None:
    of = members(a=1, b=1)
    of[0][0].drained = True
    assert set(chosen(of)) == {"b"}
    down(of[1])
    assert set(chosen(of)) == {"b"}
    assert choose(of, b"call", [of[1][0]]) is of[0][0]
    assert choose(of, b"call", [of[0][0], of[1][0]]) is None
    assert choose([], b"call") is None


def test_a_node_comes_back_after_its_answers_and_its_time() -> None:
    node = members(a=1)[0][0]
    assert node.miss(100.0, 100.0, HEALTH) is False
    assert node.answer(100.1, HEALTH) is False
    assert node.miss(100.2, 100.2, HEALTH) is False, "one answer in between: not in a row"
    assert node.miss(100.3, 100.3, HEALTH) is True
    assert (node.state, node.why, node.reason) == (State.DOWN, "mute", "2 requests without an answer")
    assert node.miss(101.0, 101.0, HEALTH) is False, "it is told once"
    assert node.answer(102.0, HEALTH) is False
    assert node.why == "recovering"
    assert node.answer(103.0, HEALTH) is False, "twice, but too early"
    assert node.miss(104.0, 104.0, HEALTH) is False
    assert node.answer(105.5, HEALTH) is False, "the miss began the count again"
    assert node.answer(106.0, HEALTH) is True
    assert (node.state, node.reason) == (State.UP, "")


def test_nodes_and_sets_of_a_configuration() -> None:
    local = {"media-0": "ipc:///run/media-0.sock", "media-1": "ipc:///run/media-1.sock"}
    nodes, sets = layout(
        {
            "local": [MediaMember(workers="local")],
            "far": [MediaMember(url="tcp://10.0.0.9:7700", key=KEY, weight=3), MediaMember(workers="local", weight=0)],
        },
        local,
    )
    assert nodes == {
        **{name: Address(endpoint) for name, endpoint in local.items()},
        "10.0.0.9:7700": Address("tcp://10.0.0.9:7700", KEY.encode()),
    }
    assert sets == {
        "local": {"media-0": 1, "media-1": 1},
        "far": {"10.0.0.9:7700": 3, "media-0": 0, "media-1": 0},
    }


def test_requests_that_were_under_way_together_are_one_miss() -> None:
    node = members(a=1)[0][0]
    assert [node.miss(100.0 + n / 100, 100.25 + n / 100, HEALTH) for n in range(20)] == [False] * 20
    assert node.state is State.UP
    assert node.miss(100.5, 100.75, HEALTH) is True, "asked again, and mute again"
