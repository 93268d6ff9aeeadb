"""What a successor finds in the arena: whole sessions go on, half-written and damaged ones are given up."""

from __future__ import annotations

import os
from collections.abc import Iterator

import orjson
import pytest

from media import _datapath
from media.beforehand import Beforehand
from media.counters import MediaCounter, Reason
from media.protocol import Delete, Engage
from media.rules import RuleFlag
from media.session import decode
from media.srtp import Suite
from media.state import HEADER_BYTES, Arena, state_size
from tests.unit.media.test_relay import GATEWAY, PHONE, STRANGER, Bench


@pytest.fixture
def fd() -> Iterator[int]:
    memory = os.memfd_create("state")
    os.ftruncate(memory, state_size(8))
    yield memory
    os.close(memory)


def call(fd: int) -> Bench:
    """A worker with one call that has heard both sides."""
    bench = Bench(fd=fd)
    bench.offer()
    bench.answer()
    bench.packet("a", PHONE, 5555)
    bench.packet("b1", GATEWAY, 6000)
    return bench


def test_a_successor_goes_on_with_the_same_ports_latch_and_counters(fd: int) -> None:
    first = call(fd)
    assert not first.arena.resumed
    ports = set(first.sockets.bound.values())
    second = Bench(fd=fd)
    assert second.arena.resumed
    assert second.relay.resume(second.now_ns) == (1, 0)
    assert set(second.sockets.bound.values()) == ports
    assert second.packet("a", STRANGER, 5555)[0] is Reason.WRONG_SOURCE
    assert second.packet("b1", GATEWAY, 6000, 2) == (Reason.FORWARD, f"{PHONE}:5555")
    ended = second.ask(Delete("s"))
    assert (ended.stats["b1"][0].packets_in, ended.stats["a"][0].refused) == (2, 1)
    assert second.relay.sessions == {}
    assert second.relay.allocation.ports["core"].quarantined == 1
    assert second.counts[MediaCounter.SESSIONS_RESUMED] == 1


def test_an_idle_worker_has_the_ports_of_anothers_sessions_bound_already(fd: int) -> None:
    """Of those that are there now: a session that has ended keeps none, one that is being written is not looked at."""
    first, second = Bench(fd=fd), Bench(fd=fd)
    beforehand = Beforehand(second.arena, second.relay.allocation)
    beforehand.look()
    first.offer()
    first.answer()
    beforehand.look()
    beforehand.look()
    assert second.sockets.opens == 2
    first.ask(Delete("s"))
    beforehand.look()
    assert second.sockets.shuts == 2
    first.offer()
    first.answer()
    first.arena.begin(0)
    beforehand.look()
    assert second.sockets.opens == 2
    first.arena.end(0)
    beforehand.look()
    assert second.sockets.opens == 4
    assert second.relay.resume(second.now_ns) == (1, 0)
    assert second.sockets.opens == 4
    assert set(second.sockets.bound.values()) == set(first.sockets.bound.values())


def test_ports_in_use_are_not_given_to_a_new_call(fd: int) -> None:
    call(fd)
    second = Bench(fd=fd)
    second.relay.resume(second.now_ns)
    free = second.relay.allocation.ports["core"].free
    assert free == 9
    second.offer("b2")
    assert second.relay.allocation.ports["core"].free == free - 1


def test_a_half_written_session_is_dropped_and_its_ports_are_free(fd: int) -> None:
    first = call(fd)
    first.arena.begin(first.relay.sessions["s"].slot)  # died in the middle of a request
    second = Bench(fd=fd)
    assert second.relay.resume(second.now_ns) == (0, 1)
    assert not second.sockets.bound
    assert second.relay.allocation.ports["core"].free == 10
    assert len(second.arena.free_rules) == len(second.arena.rules)
    third = Bench(fd=fd)
    assert third.relay.resume(third.now_ns) == (0, 0), "it is given up once"


def test_a_port_taken_meanwhile_costs_that_session_only(fd: int) -> None:
    first = call(fd)
    first.ask(Engage("other"))
    second = Bench(fd=fd)
    second.sockets.taken = {first.arena.rules[first.rule("b1")].local_port}
    assert second.relay.resume(second.now_ns) == (1, 1)
    assert list(second.relay.sessions) == ["other"]
    assert not second.sockets.bound


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b'{"s":"x"}',
        orjson.dumps({"s": "x", "p": "", "o": "zz", "l": []}),
        orjson.dumps({"s": "x", "p": "", "o": "", "l": [["a", "core", [99999]]]}),
        orjson.dumps({"s": "x", "p": "", "o": "", "l": [["a", "core", [-2]]]}),
        orjson.dumps({"s": "x", "p": "", "o": "", "l": [["a", "core", [1]], ["b", "core", [1]]]}),
        orjson.dumps({"s": "x", "p": "", "o": "", "l": [["a", "core", "12"]]}),
        orjson.dumps({"s": "x", "p": "", "o": "", "l": 5}),
    ],
)
def test_hostile_identities_are_refused(fd: int, blob: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode(0, blob, 32)
    first = call(fd)
    slot = first.arena.take_slot()
    assert slot is not None
    first.arena.commit(slot, blob)
    second = Bench(fd=fd)
    assert second.relay.resume(second.now_ns)[0] == 1


def test_another_layout_starts_empty(fd: int) -> None:
    call(fd)
    os.pwrite(fd, b"\x63\0\0\0", 8)
    fresh = Arena(fd, 8)
    assert not fresh.resumed
    assert fresh.scan() == ({}, 0)
    assert os.pread(fd, 64, HEADER_BYTES) == bytes(64)


def test_a_successor_keeps_srtp_and_uses_no_index_again(fd: int) -> None:
    first = call(fd)
    facing = first.rule("b1")
    first.arena.rules[facing].flags |= RuleFlag.SRTP | RuleFlag.KEYED
    keys = first.arena.keys[facing]
    for stream in (keys.receiving, keys.sending):
        _datapath.install(stream, Suite.AEAD_AES_128_GCM, bytes(28))
    assert first.packet("a", PHONE, 5555, 20)[0] is Reason.FORWARD
    second = Bench(fd=fd)
    second.relay.resume(second.now_ns)
    assert second.packet("a", PHONE, 5555, 19)[0] is Reason.INDEX_USED
    assert second.packet("a", PHONE, 5555, 21)[0] is Reason.FORWARD
    second.ask(Delete("s"))
    assert not any(bytes(second.arena.keys[facing]))
