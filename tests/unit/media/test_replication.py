"""Media state of an active node and of its standby: the same after any churn, and safe to go on with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random

import pytest

from media import _datapath
from media.counters import Reason
from media.protocol import Delete
from media.replication import frames
from media.replication.blocks import BLOCKS, EXTENTS, OF_SECTION, QUALITY, STRIDES
from media.replication.frames import HEAD_BYTES, FrameError, Kind
from media.replication.receiver import Receiver
from media.replication.takeover import MARGIN_MOST, packets
from media.rules import Feature, RuleFlag
from media.srtp import Suite
from media.state import Arena
from tests.support.replicas import MOVED_NS, Churn, Pair, S, state_of
from tests.unit.media.test_relay import GATEWAY, PHONE, STRANGER, Bench

NOW_NS = 1000 * S


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def kinds(found: list[bytes]) -> list[Kind]:
    return [frames.unpack(frame).kind for frame in found]


def test_blocks_cover_all_that_is_beside_a_rule_once() -> None:
    for section, extent in enumerate(EXTENTS):
        edges = [(BLOCKS[number].at, BLOCKS[number].end) for number in OF_SECTION[section]]
        assert edges[0][0] == 0
        assert edges[-1][1] == extent
        assert all(end == at for (_, end), (at, _) in pairwise(edges))
        assert extent == STRIDES[section] or section == QUALITY
    assert len(BLOCKS) < 256


@pytest.mark.parametrize("seed", range(20))
def test_a_standby_has_what_the_active_node_has_after_any_churn(pair: Pair, seed: int) -> None:
    """Sessions come, change, exchange legs and go; some are caught half-written; the wire breaks now and then, with
    frames lost and a full synchronisation after it. In the end both sides are equal, times moved."""
    random = Random(seed)
    churn, now_ns = Churn(Arena(pair.fds[0], pair.capacity), random), NOW_NS
    for _ in range(150):
        for _ in range(random.randint(0, 3)):
            churn.step(now_ns)
        now_ns += random.choice([50_000_000, 100_000_000, 400_000_000])
        if random.random() < 0.05:
            pair.sender.poll(now_ns)  # nobody hears it
            if random.random() < 0.5:  # the standby's process is another one, too
                pair.receiver = Receiver(pair.fds[1], 0, pair.capacity)
            pair.sender.full_sync()
        pair.carry(now_ns)
        for slot, rules in churn.sessions.items():
            known = pair.receiver._rules.get(slot)
            assert known is None or len(set(known)) == len(known) <= max(4, len(rules))
    churn.finish()
    now_ns = pair.settle(now_ns)
    assert pair.sender.is_synced
    assert state_of(pair.standby, MOVED_NS) == state_of(churn.arena)
    assert pair.receiver.sessions == len(churn.sessions)
    for slot in list(churn.sessions):
        churn.drop(slot)
    pair.settle(now_ns)
    assert state_of(pair.standby) == {}
    assert not any(rule.flags for rule in pair.standby.rules)
    assert not any(any(bytes(keys)) for keys in pair.standby.keys)


def test_quiet_sessions_cost_hardly_anything(pair: Pair) -> None:
    churn = Churn(Arena(pair.fds[0], pair.capacity), Random(1))
    churn.new(NOW_NS)
    now_ns = pair.settle(NOW_NS)
    found = [frame for n in range(20) for frame in pair.carry(now_ns + n * 100_000_000)]
    assert set(kinds(found)) == {Kind.COVERED}
    assert sum(map(len, found)) < 20 * 40


def test_frames_say_what_is_missing_and_whose_they_are(pair: Pair) -> None:
    Arena(pair.fds[0], pair.capacity)
    first, *rest = pair.sender.poll(NOW_NS)
    with pytest.raises(FrameError, match="missing"):
        pair.receiver.feed(rest[0], NOW_NS)
    pair.receiver.feed(first, NOW_NS)
    with pytest.raises(FrameError, match="missing"):
        pair.receiver.feed(rest[1], NOW_NS)
    with pytest.raises(FrameError, match="media worker 0 came to that of 1"):
        Receiver(pair.fds[1], 1, pair.capacity).feed(first, NOW_NS)
    with pytest.raises(FrameError, match="room for 8 sessions, this one for 16"):
        Receiver(pair.fds[1], 0, 16).feed(first, NOW_NS)
    for at in (0, 4, 8):  # magic, version, shape
        with pytest.raises(FrameError, match="another version"):
            pair.receiver.feed(first[:at] + bytes([first[at] ^ 1]) + first[at + 1 :], NOW_NS)


def test_a_worker_that_has_not_begun_is_waited_for() -> None:
    pair = Pair()
    assert pair.sender.poll(NOW_NS) == []
    Arena(pair.fds[0], pair.capacity)
    os.ftruncate(pair.fds[1], 0)
    os.ftruncate(pair.fds[1], os.fstat(pair.fds[0]).st_size)
    with pytest.raises(FrameError, match="is empty"):
        pair.carry(NOW_NS)
    Arena(pair.fds[1], pair.capacity)
    pair.sender.full_sync()
    assert kinds(pair.carry(NOW_NS)) == [Kind.BEGIN, Kind.END, Kind.COVERED]
    assert pair.receiver.synced
    pair.close()


@pytest.mark.parametrize("seed", range(30))
def test_broken_frames_hurt_no_other_session(seed: int) -> None:
    """Octets of one record are changed at random: the others are what they were, and every count stays in bounds."""
    random, pair = Random(seed), Pair()
    churn = Churn(Arena(pair.fds[0], pair.capacity), random)
    for _ in range(3):
        churn.new(NOW_NS)
    found = pair.sender.poll(NOW_NS)
    victim = next(n for n, frame in enumerate(found) if frames.unpack(frame).kind is Kind.SESSION)
    broken = bytearray(found[victim])
    for _ in range(random.choice([1, 3, 50])):
        broken[random.randrange(HEAD_BYTES, len(broken))] = random.randrange(256)
    if random.random() < 0.3:
        del broken[random.randrange(HEAD_BYTES, len(broken)) :]
    for n, frame in enumerate(found):
        try:
            pair.receiver.feed(bytes(broken) if n == victim else frame, NOW_NS + MOVED_NS)
        except FrameError:
            assert n >= victim
            pair.receiver._number = n + 1  # as if it were not the end of the connection
    there, wanted = state_of(pair.standby, MOVED_NS), state_of(churn.arena)
    assert sum(there.get(blob) == rules for blob, rules in wanted.items()) >= 2
    for keys in pair.standby.keys:
        for stream in (keys.receiving, keys.former, keys.sending):
            assert stream.sources <= 16
            assert stream.mki_bytes <= 16
            assert stream.suite <= max(Suite)
    pair.close()


def secure_call(pair: Pair) -> Bench:
    """A call with SRTP on one side that has heard both sides, rollover 2 towards the leg with SRTP."""
    bench = Bench(fd=pair.fds[0])
    bench.offer()
    bench.answer()
    facing = bench.rule("b1")
    bench.arena.rules[facing].flags |= RuleFlag.SRTP | RuleFlag.KEYED
    keys = bench.arena.keys[facing]
    for stream in (keys.receiving, keys.sending):
        _datapath.install(stream, Suite.AEAD_AES_128_GCM, bytes(28))
    bench.packet("a", PHONE, 5555, 20)
    keys.sending.source[0].latest += 2 << 16
    return bench


def test_a_standby_goes_on_with_latch_counters_and_rollover_and_uses_no_index_again(pair: Pair) -> None:
    """Whatever the active node may have sent since its last report counts as used; the next packets pass, at the same
    rollover."""
    bench = secure_call(pair)
    now_ns, facing = bench.now_ns, bench.rule("b1")
    sequence = 20
    for _ in range(20):  # fifty packets a second
        for _ in range(5):
            sequence += 1
            assert bench.packet("a", PHONE, 5555, sequence)[0] is Reason.FORWARD
        now_ns += 100_000_000
        pair.carry(now_ns)
    known = bench.arena.keys[facing].sending.source[0].latest
    rtcp_index = bench.arena.keys[facing].sending.rtcp_index
    for _ in range(10):  # of these the standby never hears
        sequence += 1
        assert bench.packet("a", PHONE, 5555, sequence)[0] is Reason.FORWARD
    assert bench.arena.keys[facing].sending.source[0].latest == known + 10

    silent_ns = 900_000_000
    found = pair.receiver.activate(now_ns + MOVED_NS + silent_ns)
    assert (found.sessions, found.sources) == (1, 1)
    assert 45 <= found.furthest <= 80  # fifty a second for that time, and a little more
    second = Bench(fd=pair.fds[1])
    assert second.relay.resume(second.now_ns) == (1, 0)
    keys = second.arena.keys[facing]
    latest = keys.sending.source[0].latest
    assert known + 10 < latest <= known + found.furthest
    assert keys.sending.rtcp_index > rtcp_index + 900
    assert second.packet("a", STRANGER, 5555, sequence + 1)[0] is Reason.WRONG_SOURCE, "the latch is kept"
    for late in (sequence - 10, sequence, sequence + 1, latest & 0xFFFF):
        assert second.packet("a", PHONE, 5555, late)[0] is Reason.INDEX_USED
    assert second.packet("a", PHONE, 5555, (latest + 1) & 0xFFFF)[0] is Reason.FORWARD
    assert keys.sending.source[0].latest >> 16 == 2
    assert second.packet("b1", STRANGER, 6000)[0] is Reason.WRONG_SOURCE
    assert second.ask(Delete("s")).stats["a"][0].packets_in >= 80, "counters go on"


def told_to_the_end(pair: Pair) -> tuple[Bench, int]:
    """A call whose worker has ended, of which everything was told, its last ten packets not before that; the number of
    the last one."""
    bench = secure_call(pair)
    now_ns = pair.settle(bench.now_ns)
    for sequence in range(21, 31):
        assert bench.packet("a", PHONE, 5555, sequence)[0] is Reason.FORWARD
    told = pair.sender.finish(now_ns)
    assert kinds(told)[-1] is Kind.FINAL
    for frame in told:
        pair.receiver.feed(frame, now_ns + MOVED_NS)
    assert pair.receiver.is_final
    return bench, now_ns


def test_after_an_ordered_switch_the_next_packet_passes(pair: Pair) -> None:
    """The worker has ended and the rest was told: no index is left out, and none is used twice, whenever that is."""
    bench, now_ns = told_to_the_end(pair)
    facing = bench.rule("b1")
    latest = bench.arena.keys[facing].sending.source[0].latest
    assert pair.receiver.activate(now_ns + MOVED_NS + 60 * S) == (1, 0, 0, 0)
    second = Bench(fd=pair.fds[1])
    assert second.relay.resume(second.now_ns) == (1, 0)
    assert second.arena.keys[facing].sending.source[0].latest == latest
    assert second.packet("a", PHONE, 5555, 30)[0] is Reason.INDEX_USED
    assert second.packet("a", PHONE, 5555, 31)[0] is Reason.FORWARD
    assert second.arena.keys[facing].sending.source[0].latest == latest + 1


def test_an_end_that_was_none_is_no_reason_to_know_all(pair: Pair) -> None:
    """Something followed; or a session was being written when the worker ended."""
    bench, now_ns = told_to_the_end(pair)
    bench.packet("a", PHONE, 5555, 31)
    pair.carry(now_ns + S)
    assert not pair.receiver.is_final
    assert pair.receiver.activate(now_ns + MOVED_NS + 2 * S).furthest > 8

    other = Pair()
    bench = secure_call(other)
    now_ns = other.settle(bench.now_ns)
    bench.arena.begin(0)
    assert Kind.FINAL not in kinds(other.sender.finish(now_ns))
    other.close()


def test_the_margin_follows_the_rate() -> None:
    assert packets(50, 0) == 8
    assert 63 <= packets(50, 1.0) <= 64
    assert 1108 <= packets(1000, 1.0) <= 1109


def test_keys_that_are_too_old_are_not_gone_on_with(pair: Pair) -> None:
    """The connection was lost minutes ago: whatever was sent since, no rollover could be guessed beyond it."""
    bench = secure_call(pair)
    now_ns = pair.settle(bench.now_ns)
    found = pair.receiver.activate(now_ns + MOVED_NS + 600 * S)
    assert (found.sessions, found.given_up) == (0, 1)
    second = Bench(fd=pair.fds[1])
    assert second.relay.resume(second.now_ns) == (0, 1)
    assert packets(50, 600) > MARGIN_MOST


@pytest.mark.parametrize("drift", [-0.0001, 0.0001])
def test_a_call_that_was_silent_for_days_is_gone_on_with(pair: Pair, drift: float) -> None:
    """Nothing has changed since, so nothing was told of it: what counts is when the other node last told anything. The
    clocks of the two have parted by a minute meanwhile, and frames that waited on their way look no newer by it."""
    bench = secure_call(pair)
    now_ns = pair.settle(bench.now_ns)
    began_ns, latest = now_ns, bench.arena.keys[bench.rule("b1")].sending.source[0].latest
    moved_ns = MOVED_NS
    for minute in range(7 * 24 * 60):
        now_ns += 60 * S
        moved_ns = MOVED_NS + round((now_ns - began_ns) * drift)
        late_ns = 10 * S if minute % 5 else 0
        for frame in pair.sender.poll(now_ns):
            pair.receiver.feed(frame, now_ns + moved_ns + late_ns)
    assert abs(moved_ns - MOVED_NS) > 60 * S
    found = pair.receiver.activate(now_ns + moved_ns + S)
    assert (found.sessions, found.given_up) == (1, 0)
    assert packets(50, 0.9) <= found.furthest <= packets(50, 1.1)
    second = Bench(fd=pair.fds[1])
    assert second.relay.resume(second.now_ns) == (1, 0)
    assert second.packet("a", PHONE, 5555, (latest + found.furthest + 1) & 0xFFFF)[0] is Reason.FORWARD


def test_leaps_of_the_numbers_of_a_peer_are_no_rate(pair: Pair) -> None:
    """Held and resumed some times within a second, a peer begins elsewhere with its numbers, and is silent then."""
    bench = secure_call(pair)
    now_ns, sequence = bench.now_ns, 20
    for _ in range(4):
        sequence += 12_000
        assert bench.packet("a", PHONE, 5555, sequence)[0] is Reason.FORWARD
        now_ns += 200_000_000
        pair.carry(now_ns)
    found = pair.receiver.activate(now_ns + MOVED_NS + S)
    assert (found.sessions, found.given_up) == (1, 0)
    assert found.furthest < 100


def test_bursts_of_a_machine_that_stands_still_now_and_then_are_no_rate(pair: Pair) -> None:
    """What waited comes at once, and the standstill itself is reported as silence."""
    bench = secure_call(pair)
    now_ns, sequence = pair.settle(bench.now_ns), 100
    for look in range(30):
        stood_still = look % 3 == 0
        for _ in range(2 if stood_still else 0):
            now_ns += 100_000_000
            pair.carry(now_ns)
        for _ in range(15 if stood_still else 5):
            sequence += 1
            assert bench.packet("a", PHONE, 5555, sequence)[0] is Reason.FORWARD
        now_ns += 100_000_000
        pair.carry(now_ns)
    found = pair.receiver.activate(now_ns + MOVED_NS + S)
    assert packets(50, 1.0) <= found.furthest <= packets(55, 1.05)


def test_a_source_of_many_packets_is_known_as_one(pair: Pair) -> None:
    bench = secure_call(pair)
    now_ns, sequence = pair.settle(bench.now_ns), 100
    for _ in range(12):
        for _ in range(20):
            sequence += 1
            assert bench.packet("a", PHONE, 5555, sequence)[0] is Reason.FORWARD
        now_ns += 100_000_000
        pair.carry(now_ns)
    found = pair.receiver.activate(now_ns + MOVED_NS + S)
    assert packets(200, 1.0) <= found.furthest <= packets(210, 1.1)


def taken_over(pair: Pair, *, processed: bool = False) -> Bench:
    """The call at the standby, 0.8 s after the last report; of what came between nobody there knows."""
    bench = secure_call(pair)
    if processed:
        bench.arena.rules[bench.rule("b1")].features |= Feature.PROCESSED
    now_ns = pair.settle(bench.now_ns)
    pair.receiver.activate(now_ns + MOVED_NS + 800_000_000)
    second = Bench(fd=pair.fds[1])
    assert second.relay.resume(second.now_ns) == (1, 0)
    return second


def used(bench: Bench, ssrc: int, sequences: Iterable[int]) -> list[int]:
    """The packet indices that were used of these numbers of a source."""
    sending = bench.arena.keys[bench.rule("b1")].sending
    return [
        next(one.latest for one in sending.source if one.ssrc == ssrc)
        for sequence in sequences
        if bench.packet("a", PHONE, 5555, sequence & 0xFFFF, ssrc=ssrc)[0] is Reason.FORWARD
    ]


def test_a_source_that_began_unknown_goes_on_at_once(pair: Pair) -> None:
    """Its numbers are its own, and later than those that it has used: no packet is lost."""
    bench = taken_over(pair)
    assert used(bench, 7777, range(1000, 1050)) == list(range(1000, 1050))
    assert used(bench, 8888, [*range(65_500, 65_536), *range(20)]) == list(range(65_500, 65_556))


def test_a_source_that_had_rolled_over_unknown_uses_no_index_twice(pair: Pair) -> None:
    """It began at 65530 and was at 4 when the node died. To us it begins at 5 in rollover 0, where the next rollover
    would bring all of these again: they are left out, and no others."""
    bench = taken_over(pair)
    sent = [5, *range(6, 65_000, 1000), *range(65_000, 66_000)]
    found = used(bench, 7777, sent)
    left_out = set(sent) - set(found)
    assert set(range(65_530, 65_541)) <= left_out
    assert len(left_out) < 300
    assert (found[0], found[-1]) == (5, 65_999)


def test_a_source_that_we_number_begins_behind_what_it_may_have_used(pair: Pair) -> None:
    """What leaves may have been ahead of what came by as many packets as it had."""
    bench = taken_over(pair)
    sending = bench.arena.keys[bench.rule("b1")].sending
    assert sending.unsure >= 80
    sending.renumbered = 1
    assert used(bench, 7777, range(1000, 2000)) == list(range(1001 + sending.unsure, 2000))


def test_what_is_numbered_by_us_is_told_by_the_rule(pair: Pair) -> None:
    assert taken_over(pair, processed=True).arena.keys[1].sending.renumbered


def test_an_idle_worker_that_begins_anew_is_told_everything_again(pair: Pair) -> None:
    """It was killed, or its memory emptied: what was told before is not relied on."""
    secure_call(pair)
    now_ns = pair.settle(NOW_NS)
    Arena(pair.fds[1], pair.capacity)
    with pytest.raises(FrameError, match="begun anew"):
        pair.settle(now_ns, 3)
    pair.sender.full_sync()
    now_ns = pair.settle(now_ns + S)
    assert pair.receiver.synced
    assert len(state_of(pair.standby)) == 1


@pytest.mark.parametrize(("token", "kept"), [(4, 1), (5, 1), (6, 0), (3, 0)])
def test_state_of_an_earlier_life_is_gone_on_with_if_nobody_has_served_since(pair: Pair, token: int, kept: int) -> None:
    """A node that died whole and serves again has its calls; where another one had them since, its keys are old."""
    secure_call(pair)
    Receiver(pair.fds[0], 0, pair.capacity).activate(NOW_NS, 4)
    returned = Receiver(pair.fds[0], 0, pair.capacity)
    returned.activate(NOW_NS, token)
    again = Bench(fd=pair.fds[0])
    assert again.relay.resume(NOW_NS)[0] == kept
    assert any(bytes(keys) != bytes(len(bytes(keys))) for keys in again.arena.keys) == bool(kept)


def test_frames_after_a_takeover_are_refused(pair: Pair) -> None:
    secure_call(pair)
    pair.settle(NOW_NS)
    assert pair.receiver.activate(NOW_NS + MOVED_NS).sessions == 1
    with pytest.raises(FrameError, match="missing"):
        pair.carry(NOW_NS + 2 * S)


def test_what_a_call_costs(pair: Pair) -> None:
    """A call of 50 packets a second each way: a record of some 1.2 kB, with SRTP on one side 2 kB, then less than
    3 kB a second."""
    bench = secure_call(pair)
    now_ns = bench.now_ns
    pair.carry(now_ns)
    record = pair.octets
    assert record < 2500
    now_ns, before, sequence = pair.settle(now_ns), pair.octets, 30
    for _ in range(50):
        for _ in range(5):
            sequence += 1
            bench.packet("a", PHONE, 5555, sequence)
            bench.packet("b1", GATEWAY, 6000, sequence)
        now_ns += 100_000_000
        pair.carry(now_ns)
    per_second = (pair.octets - before) / 5
    print(f"record {record} octets, then {per_second:.0f} a second")
    assert per_second < 3000
