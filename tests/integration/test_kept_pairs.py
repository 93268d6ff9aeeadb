"""Port pairs that outlive their worker: real sockets, both ends of the channel, workers that die in this process."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from media.counters import MediaCounter
from media.kept_pairs import ANSWERED, PAIRS_A_MESSAGE, KeptPairs
from media.protocol import Delete, Offer, Stream
from sbc.supervisor.pair_store import PairStore
from tests.integration.test_datapath_ports import HERE, Bench, packed
from tests.support.media_process import MediaControl, MediaProcess
from tests.support.sbc import eventually


@pytest.fixture
def store() -> Iterator[PairStore]:
    made = PairStore()
    yield made
    made.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@contextmanager
def served(store: PairStore) -> Iterator[None]:
    """As the keeper does it."""
    running = True

    def serve() -> None:
        while running:
            store.serve()
            threading.Event().wait(0.001)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        running = False
        thread.join()


def ports(count: int) -> list[int]:
    return list(range(32000, 32000 + 2 * count, 2))


def test_a_successor_relays_what_came_while_nobody_was_there(store: PairStore, bench: Bench) -> None:
    kept = KeptPairs(bench.datapath, store.theirs.fileno())
    (port,) = ports(1)
    pair = kept.open(packed(port))
    store.serve()
    assert len(store) == 1
    assert kept.attach(pair, 2) == 0
    bench.datapath.close()  # as a death does: nothing is said
    bench.send(3, port)

    after = Bench()
    try:
        successor = KeptPairs(after.datapath, store.theirs.fileno())
        with served(store):
            found = successor.restore()
        assert list(found) == [packed(port)]
        after.arena.rules[2].peer = 1
        after.arena.rules[2].rtp_remote = type(after.arena.rules[2].rtp_remote).from_buffer_copy(
            packed(bench.sender.getsockname()[1])
        )
        after.arena.rules[2].rtp_signalled = after.arena.rules[2].rtp_remote
        assert successor.resume(found[packed(port)], 2) == 0
        assert after.relayed() == 3
        assert after.dropped() == 0
        # It is ours in every other way too: closed, and free to be bound again.
        assert after.datapath.detach(2) == found[packed(port)]
        assert successor.shut(found[packed(port)]) == port
        assert after.datapath.open(packed(port)) == -errno.EADDRINUSE, "the keeper has not yet heard of it"
        store.serve()
        assert len(store) == 0
        assert after.datapath.open(packed(port)) >= 0
        successor.close()
    finally:
        after.close()
        kept.close()


def test_many_pairs_come_back_in_several_messages(store: PairStore, bench: Bench) -> None:
    kept = KeptPairs(bench.datapath, store.theirs.fileno())
    wanted = ports(2 * PAIRS_A_MESSAGE + 7)
    opened = {}
    for port in wanted:
        if (pair := kept.open(packed(port))) >= 0:
            opened[packed(port)] = pair
        store.serve()
    assert len(opened) > 2 * PAIRS_A_MESSAGE
    # What a predecessor had asked for just before it died is not taken for an answer.
    kept._ask(1, 0, 0.0)
    kept.close()
    bench.datapath.close()
    after = Bench()
    try:
        before = len(os.listdir("/proc/self/fd"))
        successor = KeptPairs(after.datapath, store.theirs.fileno())
        with served(store):
            found = successor.restore()
        assert set(found) == set(opened)
        assert len(os.listdir("/proc/self/fd")) == before + 1 + 2 * len(found), "nothing else is left open"
        sent = socket.socket(type=socket.SOCK_DGRAM)
        for local in found:
            sent.sendto(b"x", (HERE, int.from_bytes(local[2:4], "big")))
        sent.close()
        after.relayed()
        assert after.dropped() == len(found), "each is read"
        successor.close()
    finally:
        after.close()


def test_a_keeper_that_does_not_read_costs_no_call(store: PairStore, bench: Bench) -> None:
    """Its queue is full: pairs are opened and closed all the same, and what it missed it hears later."""
    kept = KeptPairs(bench.datapath, store.theirs.fileno())
    (port,) = ports(1)
    pair = kept.open(packed(port))
    store.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    count = 0
    while True:
        try:
            store.theirs.send(b"?")
            count += 1
        except BlockingIOError:
            break
    assert kept.shut(pair) == port
    (other,) = (pair for pair in [kept.open(packed(31800))] if pair >= 0)
    for _ in range(count // 64 + 1):
        store.serve()
    assert len(store) == 1
    kept.shut(other)  # was never kept
    assert kept.open(packed(31802)) >= 0  # says what was left unsaid
    store.serve()
    assert len(store) == 1
    kept.close()


def test_without_an_answer_a_worker_begins_with_what_it_can_bind(
    store: PairStore, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media.kept_pairs.RESTORE_LIMIT_S", 0.05)
    kept = KeptPairs(bench.datapath, store.theirs.fileno())
    assert kept.restore() == {}
    store.ours.send(b"nonsense")
    store.ours.send(ANSWERED.pack(0, 7) + bytes(20))
    assert kept.restore() == {}
    kept.close()


def test_a_worker_takes_its_sessions_and_the_ports_between_calls(store: PairStore, tmp_path: Path) -> None:
    """kill -9 of a real one, with a session and with ports that have none; and an orderly end."""
    endpoint = f"ipc://{tmp_path / 'media.sock'}"
    realms: dict[str, dict[str, object]] = {"here": {"address": HERE, "ports": [32600, 32699]}}
    process = MediaProcess(endpoint, realms, pairs_fd=store.theirs.fileno(), quarantine_s=60.0)
    control = MediaControl(endpoint)
    try:
        with served(store):
            process.start()
            for name in ("s", "ended"):
                assert control.ask(Offer(name, "a", "b", "here", "here", [Stream(HERE, 9000)])).ok
            assert control.ask(Delete("ended")).ok
            eventually(lambda: process.count(MediaCounter.PORTS_QUARANTINED) > 0, 10, "ports of an ended call")
            bound, resting = process.count(MediaCounter.PORTS_BOUND), process.count(MediaCounter.PORTS_QUARANTINED)
            assert 0 < resting < bound
            eventually(lambda: len(store) == bound, 10, "the duplicates of all pairs")
            for end in (process.kill, process.stop):
                end()
                process.start()
                assert len(store) == bound
                assert process.count(MediaCounter.SESSIONS_ACTIVE) == 1
                assert process.count(MediaCounter.PORTS_BOUND) == bound
                assert process.count(MediaCounter.PORTS_QUARANTINED) == resting
    finally:
        control.close()
        process.close()
