"""How long the DNS is believed, and failed servers are avoided: in virtual time."""

from __future__ import annotations

from sbc.policy.cool_off import COOL_OFF_MAX_S, COOL_OFF_S, CoolOff
from sbc.policy.name_cache import NameCache, State
from sbc.policy.server_location import Question, Server

Q = Question("example.com", "A")
OLD, NEW = ("192.0.2.1",), ("192.0.2.2",)
DAY = 86_400.0


def test_an_answer_is_fresh_for_its_lifetime_and_usable_for_a_day_more() -> None:
    cache = NameCache()
    assert cache.look(Q, 0) == (State.UNKNOWN, None)
    assert cache.answered(Q, OLD, 60, 0) == OLD
    assert cache.look(Q, 59.9) == (State.FRESH, OLD)
    assert cache.fresh(Q, 59.9) == OLD
    assert cache.look(Q, 60) == (State.STALE, OLD)
    assert cache.fresh(Q, 60) is None
    assert cache.look(Q, 59 + DAY) == (State.STALE, OLD)
    assert cache.look(Q, 60 + DAY) == (State.UNKNOWN, None)


def test_lifetimes_are_bounded() -> None:
    cache = NameCache(ttl_min_s=5, ttl_max_s=3600, denial_max_s=60)
    cache.answered(Q, OLD, 0, 0)
    assert cache.look(Q, 4.9)[0] is State.FRESH
    assert cache.look(Q, 5)[0] is State.STALE
    cache.answered(Q, OLD, 1e9, 0)
    assert cache.look(Q, 3599)[0] is State.FRESH
    assert cache.look(Q, 3600)[0] is State.STALE
    absent = Question("nowhere.example", "A")
    cache.answered(absent, (), 86_400, 0)
    assert cache.look(absent, 59.9) == (State.FRESH, ())
    assert cache.look(absent, 60) == (State.STALE, ())


def test_a_dead_dns_is_asked_rarely_and_the_old_answer_serves() -> None:
    cache = NameCache(rest_s=5)
    cache.answered(Q, OLD, 60, 0)
    now = 60.0
    while now < 60 + DAY:
        assert cache.look(Q, now) == (State.STALE, OLD), "time to ask again"
        assert cache.failed(Q, now) == OLD
        assert cache.look(Q, now + 4.9) == (State.RESTING, OLD)
        now += 3600
    assert cache.failed(Q, 60 + DAY) is None
    assert cache.look(Q, 61 + DAY) == (State.RESTING, None)
    assert cache.look(Q, 66 + DAY) == (State.UNKNOWN, None)
    cache.answered(Q, NEW, 60, 66 + DAY)
    assert cache.look(Q, 67 + DAY) == (State.FRESH, NEW)


def test_what_was_never_known_rests_too() -> None:
    cache = NameCache(rest_s=5)
    assert cache.failed(Q, 0) is None
    assert cache.look(Q, 4.9) == (State.RESTING, None)
    assert cache.look(Q, 5) == (State.UNKNOWN, None)


def test_a_late_answer_ends_the_rest() -> None:
    cache = NameCache()
    cache.failed(Q, 0)
    cache.answered(Q, OLD, 60, 1)
    assert cache.look(Q, 1) == (State.FRESH, OLD)


def test_a_name_that_flips_to_nxdomain_and_back_is_not_missed() -> None:
    cache = NameCache(ttl_min_s=5, denial_max_s=60, flip_s=300)
    cache.answered(Q, OLD, 60, 0)
    for now in (60, 120, 180, 240):
        assert cache.answered(Q, (), 60, now) == OLD
        assert cache.look(Q, now + 59) == (State.FRESH, OLD)
    cache.answered(Q, OLD, 60, 300)
    assert cache.answered(Q, (), 60, 360) == OLD, "a new flip has its own time"


def test_a_denial_that_holds_is_believed() -> None:
    cache = NameCache(flip_s=300)
    cache.answered(Q, OLD, 60, 0)
    for now in (60, 120, 180, 240, 300):
        assert cache.answered(Q, (), 60, now) == OLD
    assert cache.answered(Q, (), 60, 360) == ()
    assert cache.look(Q, 361) == (State.FRESH, ())


def test_records_that_change_are_believed_at_once() -> None:
    cache = NameCache()
    cache.answered(Q, OLD, 60, 0)
    assert cache.answered(Q, NEW, 60, 60) == NEW


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    cache = NameCache(capacity=3)
    questions = [Question(f"{n}.example", "A") for n in range(1000)]
    for question in questions:
        cache.answered(question, OLD, 60, 0)
        cache.failed(question, 0)
    assert len(cache) == 3
    assert [cache.look(question, 1)[1] for question in questions[-4:]] == [None, OLD, OLD, OLD]


# Servers


A, B, C = (Server("udp", f"192.0.2.{n}", 5060) for n in (1, 2, 3))


def test_a_failed_server_goes_to_the_end_and_comes_back() -> None:
    avoided = CoolOff()
    assert avoided.ordered([A, B, C], 0) == [A, B, C]
    avoided.failed(A, 0)
    assert avoided.ordered([A, B, C], COOL_OFF_S - 1) == [B, C, A]
    assert avoided.ordered([A], 1) == [A], "who has no other tries it"
    assert avoided.ordered([A, B, C], COOL_OFF_S) == [A, B, C]


def test_the_longer_time_holds_within_bounds() -> None:
    avoided = CoolOff()
    avoided.failed(A, 0, 120)
    avoided.failed(A, 1)
    assert avoided.ordered([A, B], 119) == [B, A]
    assert avoided.ordered([A, B], 120) == [A, B]
    avoided.failed(A, 0, 1e9)
    assert avoided.ordered([A, B], COOL_OFF_MAX_S) == [A, B]


def test_failed_servers_are_bounded() -> None:
    avoided = CoolOff(capacity=2)
    for server in (A, B, C):
        avoided.failed(server, 0)
    assert avoided.ordered([B, C, A], 1) == [A, B, C]
