"""The journal against a real store: normal work, a killed, stopped, emptied or full store, and hostile values."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from sbc.b2bua.effects import DropRecord, FinishCall, SaveCall
from sbc.store.breaker import State
from sbc.store.journal import Journal
from sbc.store.keys import Keys
from sbc.store.loading import StoredCall
from sbc.store.spool import Spool
from tests.support.store import StoreServer

NODE = "test-node"
KEYS = Keys(NODE)
COMMIT_S = 0.05
LATE_S = 0.02  # what a busy machine may add


@pytest.fixture
def look(store: StoreServer) -> redis.Redis:
    """A plain client to see what the store holds."""
    return redis.Redis(unix_socket_path=store.path, socket_timeout=5)


class Recorder:
    """A journal and everything that it told us."""

    def __init__(self, store: StoreServer, **options: Any) -> None:  # Any: the journal's own keyword arguments
        self.counts: dict[str, int] = {}
        self.notes: list[str] = []
        self.restored = 0
        options.setdefault("on_restored", self._restored)
        options.setdefault("commit_timeout_s", COMMIT_S)
        self.journal = Journal(
            store.address, NODE, asyncio.get_running_loop(), count=self._count, note=self._note, **options
        )

    def _count(self, name: str, amount: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def _note(self, _level: str, event: str, _fields: dict[str, Any]) -> None:  # Any: log fields
        self.notes.append(event)

    def _restored(self) -> None:
        self.restored += 1

    async def save(self, effect: SaveCall) -> tuple[bool, float]:
        """(stored, seconds until we heard)."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[bool] = loop.create_future()
        start = time.perf_counter()
        self.journal.save(effect, heard.set_result)
        return await asyncio.wait_for(heard, 5), time.perf_counter() - start


@pytest.fixture
async def recorder(store: StoreServer) -> AsyncIterator[Recorder]:
    made = Recorder(store)
    made.journal.start()
    assert await made.journal.ready(5)
    yield made
    await made.journal.close(0)


def record(number: int, version: int = 1, text: bytes = b"record") -> SaveCall:
    return SaveCall(f"call{number}", number % 1024, version, b"%b %d v%d" % (text, number, version), wait=True)


def finished(number: int, *, saved: bool = True) -> FinishCall:
    return FinishCall(f"call{number}", number % 1024, {"id": f"call{number}-1", "node": NODE}, saved)


def outbox(look: redis.Redis) -> list[dict[str, Any]]:  # Any: JSON values
    entries: Any = look.xrange(KEYS.cdr_stream)  # Any: redis-py types it as a union over protocol versions
    return [orjson.loads(fields[b"cdr"]) for _, fields in entries]


async def loaded(journal: Journal) -> list[StoredCall]:
    return [stored async for stored in journal.load(range(1024))]


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.005)


async def test_a_saved_call_is_loaded_again_and_a_finished_one_leaves_only_its_cdr(
    recorder: Recorder, look: redis.Redis
) -> None:
    for number in range(300):
        recorder.journal.save(record(number))
    assert (await recorder.save(record(7, 2)))[0]
    found = {stored.key: stored for stored in await loaded(recorder.journal)}
    assert len(found) == 300
    assert found["call7"] == StoredCall("call7", 7, b"record 7 v2", 2)
    for number in range(300):
        recorder.journal.finish(finished(number))
    assert await recorder.journal.close() == 0
    assert len({str(cdr) for cdr in outbox(look)}) == 300, "on a busy machine some go out twice"
    assert sorted(look.keys()) == [KEYS.cdr_stream.encode(), KEYS.marker.encode()]


async def test_a_dropped_record_leaves_nothing_behind(recorder: Recorder, look: redis.Redis) -> None:
    """Not even where its last version was never confirmed."""
    for number in range(10):
        assert (await recorder.save(record(number)))[0]
        recorder.journal.save(record(number, 2))
        recorder.journal.drop(DropRecord(f"call{number}", number))
    assert recorder.journal.waiting == 0
    await until(lambda: look.keys() == [KEYS.marker.encode()])


async def test_what_is_written_again_lives_as_long_as_if_it_were_new(recorder: Recorder, look: redis.Redis) -> None:
    """The store's clock may have been set ahead, and left it less."""
    assert (await recorder.save(record(1)))[0]
    new_s = int(look.ttl(KEYS.call("call1")))
    look.expire(KEYS.call("call1"), 60)
    assert (await recorder.save(record(1)))[0]
    assert int(look.ttl(KEYS.call("call1"))) > new_s - 60
    assert 0 < int(look.ttl(KEYS.marker)) < new_s, "it goes before a record does"


async def test_an_older_version_never_overwrites_a_newer_one(recorder: Recorder, look: redis.Redis) -> None:
    assert (await recorder.save(record(1, 5)))[0]
    assert (await recorder.save(record(1, 4)))[0], "something newer is stored: the call is safe"
    assert look.get(KEYS.call("call1")) == b"1 0 5\nrecord 1 v5"


async def test_a_later_owner_is_never_overwritten(store: StoreServer, recorder: Recorder, look: redis.Redis) -> None:
    later = Recorder(store, epoch=2)
    later.journal.start()
    assert (await later.save(record(1, 1)))[0]
    assert not (await recorder.save(record(1, 9)))[0]
    assert look.get(KEYS.call("call1")) == b"1 2 1\nrecord 1 v1"
    assert "a later owner holds calls that this worker has: they are let go" in recorder.notes
    assert recorder.journal.waiting == 0
    await later.journal.close(0)


async def test_a_failed_call_writes_only_a_cdr(recorder: Recorder, look: redis.Redis) -> None:
    recorder.journal.finish(finished(1, saved=False))
    assert await recorder.journal.close() == 0
    assert [cdr["id"] for cdr in outbox(look)] == ["call1-1"]


async def test_a_forgotten_script_is_sent_again(recorder: Recorder, look: redis.Redis) -> None:
    look.script_flush()
    recorder.journal.save(record(1))
    await until(lambda: recorder.journal.waiting == 0)
    look.script_flush()
    recorder.journal.finish(finished(1))
    await until(lambda: recorder.journal.waiting == 0)
    assert look.xlen(KEYS.cdr_stream) == 1
    assert not look.exists(KEYS.call("call1"))


async def test_a_killed_store_holds_up_nobody_and_gets_everything_when_it_returns(
    store: StoreServer, recorder: Recorder, look: redis.Redis
) -> None:
    live = {number: record(number) for number in range(500)}
    recorder.journal.on_restored = lambda: recorder.journal.republish(list(live.values()))
    for number in range(500):
        recorder.journal.save(live[number])
    assert (await recorder.save(live[0]))[0]
    store.kill()
    await until(lambda: recorder.journal.is_away)
    answers: list[bool] = []
    start = time.perf_counter()
    for number in range(100, 200):
        live[number] = record(number, 2)
        recorder.journal.save(live[number], answers.append)
    assert answers == [False] * 100, "with the circuit open the answer comes at once"
    assert time.perf_counter() - start < 0.02
    for number in range(50):
        del live[number]
        recorder.journal.finish(finished(number))
    assert recorder.journal.waiting == 150

    store.start()
    look.connection_pool.disconnect()
    await until(lambda: look.scard(KEYS.shard(499)) == 1 and recorder.journal.waiting == 0)
    found = {stored.key: stored.record for stored in await loaded(recorder.journal)}
    assert found == {effect.key: effect.record for effect in live.values()}
    assert [cdr["id"] for cdr in outbox(look)] == [f"call{number}-1" for number in range(50)], (
        "in the order in which they ended"
    )


async def test_a_stopped_store_is_answered_for_in_time(store: StoreServer, recorder: Recorder) -> None:
    store.pause()
    try:
        late: list[float] = []
        for number in range(12):
            stored, after_s = await recorder.save(record(number))
            assert not stored
            late.append(after_s)
        assert max(late) < COMMIT_S + LATE_S
        assert recorder.journal.is_away
        assert late[-1] < 0.005, "by then the circuit is open"
    finally:
        store.resume()
    await until(lambda: recorder.journal.waiting == 0)
    assert {stored.key for stored in await loaded(recorder.journal)} == {f"call{number}" for number in range(12)}
    assert recorder.restored == 0, "the same store, with all that it held"


async def test_what_a_stopped_store_still_had_in_its_buffers_does_not_bring_a_finished_call_back(
    store: StoreServer, recorder: Recorder, look: redis.Redis
) -> None:
    assert (await recorder.save(record(1)))[0]
    store.pause()
    for version in range(2, 400):
        recorder.journal.save(record(1, version, b"x" * 400))
    stored, _ = await recorder.save(record(1, 400))
    assert not stored
    recorder.journal.finish(finished(1))
    store.resume()
    await until(lambda: recorder.journal.waiting == 0)
    await asyncio.sleep(0.1)
    assert not look.exists(KEYS.call("call1"))
    assert look.xlen(KEYS.cdr_stream) >= 1


async def test_an_emptied_store_is_noticed_and_filled_again(recorder: Recorder, look: redis.Redis) -> None:
    live = [record(number) for number in range(20)]
    recorder.journal.on_restored = lambda: recorder.journal.republish(iter(live))
    for effect in live:
        recorder.journal.save(effect)
    await until(lambda: recorder.journal.waiting == 0)
    look.flushall()
    await until(lambda: len(look.keys(KEYS.call("*"))) == 20, 3)
    assert "the store lost what it held: all live calls are written again" in recorder.notes


async def test_a_full_store_is_named_and_tried_again(recorder: Recorder, look: redis.Redis) -> None:
    look.config_set("maxmemory", 1)
    assert not (await recorder.save(record(1)))[0]
    recorder.journal.finish(finished(2))
    await until(lambda: "the store refused to write" in recorder.notes)
    assert not recorder.journal.is_away, "it answers"
    assert recorder.journal.waiting == 2
    look.config_set("maxmemory", 0)
    await until(lambda: recorder.journal.waiting == 0)
    assert look.exists(KEYS.call("call1"))
    assert look.xlen(KEYS.cdr_stream) == 1


async def test_hostile_values_harm_nobody(recorder: Recorder, look: redis.Redis) -> None:
    assert (await recorder.save(record(1)))[0]
    look.set(KEYS.call("call2"), b"\xff\x00 not ours")
    look.sadd(KEYS.shard(2), "call2", "../../x", b"\xff\xfe", "*", "gone")
    look.hset(KEYS.call("call3"), "field", "value")
    look.sadd(KEYS.shard(3), "call3")
    look.set(KEYS.shard(4), "no set")
    look.lpush(KEYS.cdr_stream, "no stream")
    look.delete(KEYS.marker)
    look.lpush(KEYS.marker, "no string")
    found = {stored.key: stored.record for stored in await loaded(recorder.journal)}
    assert found == {"call1": b"record 1 v1", "call2": b"\xff\x00 not ours"}
    recorder.journal.quarantine("call2", 2)
    assert (await recorder.save(record(3)))[0]
    assert (await recorder.save(record(4)))[0]
    recorder.journal.finish(finished(1))
    await until(lambda: recorder.journal.waiting == 0)
    found = {stored.key: stored.record for stored in await loaded(recorder.journal)}
    assert found == {"call3": b"record 3 v1", "call4": b"record 4 v1"}
    assert look.get(KEYS.bad("call2")) == b"\xff\x00 not ours"
    assert 0 < int(look.ttl(KEYS.bad("call2"))) <= 86_400
    assert look.xlen(KEYS.cdr_stream) == 1


async def test_text_of_a_peer_never_stands_in_a_key(recorder: Recorder, look: redis.Redis) -> None:
    hostile = "a b*{}\r\nFLUSHALL\udcff"
    assert (await recorder.save(SaveCall(hostile, 5, 1, b"hostile", wait=True)))[0]
    [key] = look.keys(KEYS.call("*"))
    assert isinstance(key, bytes)
    assert key.startswith(KEYS.call("~").encode())
    [stored] = await loaded(recorder.journal)
    assert stored.record == b"hostile"
    recorder.journal.finish(FinishCall(hostile, 5, {"id": "h", "from_user": "bad \udcff octet"}, True))
    await until(lambda: recorder.journal.waiting == 0)
    assert not look.keys(KEYS.call("*"))
    assert [cdr["from_user"] for cdr in outbox(look)] == ["bad \\xff octet"]


async def test_authentication_and_database_number(tmp_path: Path) -> None:
    server = StoreServer(tmp_path)
    server.start("--requirepass", "secret")
    try:
        from sbc.store.url import parse_store_url

        server.address = parse_store_url(f"unix://:secret@{server.path}?db=3", "")
        right = Recorder(server)
        right.journal.start()
        assert (await right.save(record(1)))[0]
        assert redis.Redis(unix_socket_path=server.path, password="secret", db=3).exists(KEYS.call("call1"))
        await right.journal.close()
        server.address = parse_store_url(f"unix://:wrong@{server.path}", "")
        wrong = Recorder(server)
        wrong.journal.start()
        assert not (await wrong.save(record(1)))[0]
        await until(lambda: wrong.journal.is_away)
        assert wrong.journal._pipe.state in (State.OPEN, State.RETRYING)
        await wrong.journal.close(0)
    finally:
        server.kill()


# Who owns a record


async def worker(store: StoreServer, lost: list[str], **options: Any) -> Recorder:  # Any: the journal's own arguments
    """A journal that gets its epoch from the store, as that of a worker does."""
    made = Recorder(store, epoch=None, on_lost=lost.append, **options)
    made.journal.start()
    assert await made.journal.ready(5)
    return made


async def test_a_successor_takes_records_over_and_the_former_owner_lets_go(
    store: StoreServer, look: redis.Redis
) -> None:
    """A worker that had hung comes back: it can neither overwrite nor finish what its successor has, and hears it."""
    lost: list[str] = []
    former = await worker(store, lost)
    for number in range(3):
        assert (await former.save(record(number, 5)))[0]
    successor = await worker(store, [])
    assert successor.journal.epoch > former.journal.epoch > 0
    found = {stored.key: stored.record for stored in await loaded(successor.journal)}
    assert found == {f"call{number}": b"record %d v5" % number for number in range(3)}
    held = look.get(KEYS.call("call0"))
    assert held == b"1 %d 5\nrecord 0 v5" % successor.journal.epoch
    assert look.ttl(KEYS.call("call0")) > 0

    assert not (await former.save(record(0, 99)))[0]
    former.journal.finish(finished(1))
    former.journal.finish(finished(1))  # as after a lost reply
    await until(lambda: len(lost) == 3)
    assert lost == ["call0", "call1", "call1"]
    assert look.get(KEYS.call("call0")) == held
    assert former.journal.waiting == 0
    assert former.counts["CALLS_FENCED"] == 3
    assert former.notes.count("a later owner holds calls that this worker has: they are let go") == 1
    assert outbox(look) == []
    assert (await former.save(record(8)))[0], "its own new calls are its own"

    assert (await successor.save(record(0, 6)))[0]
    successor.journal.finish(finished(1))
    await until(lambda: len(outbox(look)) == 1)
    assert await former.journal.close() == await successor.journal.close() == 0


async def test_a_later_fencing_token_is_above_every_incarnation(store: StoreServer, look: redis.Redis) -> None:
    """The other node of a pair has the lease: whoever starts here with the former token takes nothing."""
    active = await worker(store, [], token=lambda: 7)
    assert (await active.save(record(1)))[0]
    late = await worker(store, [], token=lambda: 6)
    assert await loaded(late.journal) == []
    assert "a later owner has this call: not resumed" in late.notes
    assert (await active.save(record(1, 2)))[0]
    assert look.get(KEYS.call("call1")) == b"1 %d 2\nrecord 1 v2" % active.journal.epoch
    await late.journal.close()
    await active.journal.close()


async def test_a_store_that_has_lost_count_does_not_keep_calls_from_their_successor(
    store: StoreServer, look: redis.Redis
) -> None:
    """Emptied, and filled again by workers that live: the next incarnation is above theirs all the same."""
    for _ in range(5):
        look.incr(KEYS.incarnation)
    former = await worker(store, [])
    look.flushall()
    assert (await former.save(record(1, 3)))[0]
    successor = await worker(store, [])
    assert [stored.key for stored in await loaded(successor.journal)] == ["call1"]
    assert successor.journal.epoch > former.journal.epoch
    assert not (await former.save(record(1, 4)))[0]
    await former.journal.close()
    await successor.journal.close()


async def test_who_starts_without_the_store_writes_once_it_is_there(store: StoreServer, look: redis.Redis) -> None:
    store.kill()
    made = Recorder(store, epoch=None)
    made.journal.start()
    assert not (await made.save(record(1)))[0]
    made.journal.finish(finished(2, saved=False))
    assert made.journal.is_away
    store.start()
    await until(lambda: made.journal.waiting == 0)
    assert look.get(KEYS.call("call1")) == b"1 1 1\nrecord 1 v1"
    assert len(outbox(look)) == 1
    await made.journal.close()


async def test_a_replica_is_read_and_not_written(store: StoreServer, look: redis.Redis) -> None:
    """The store was demoted: calls are resumed from it, its refusal is told, and what waits is written in the end."""
    former = await worker(store, [])
    assert (await former.save(record(1)))[0]
    look.slaveof("127.0.0.1", 1)
    look.config_set("replica-serve-stale-data", "yes")
    made = await worker(store, [])
    assert [stored.key for stored in await loaded(made.journal)] == ["call1"]
    assert not (await made.save(record(1, 2)))[0]
    assert "the store refused to write" in made.notes
    look.slaveof()
    await until(lambda: made.journal.waiting == 0)
    assert look.get(KEYS.call("call1")) == b"1 2 2\nrecord 1 v2"
    await former.journal.close()
    await made.journal.close()


async def test_an_older_snapshot_is_overwritten_by_what_lives(store: StoreServer, look: redis.Redis) -> None:
    """The store comes back with what it held an hour ago: old versions, calls that have ended, fewer calls."""
    live: dict[int, SaveCall] = {}
    lost: list[str] = []
    made = Recorder(store, epoch=None, on_lost=lost.append)
    made.journal.on_restored = lambda: made.journal.republish(iter(list(live.values())))
    made.journal.start()
    assert await made.journal.ready(5)
    for number in range(2):
        assert (await made.save(record(number)))[0]
    then = {key: look.dump(key) for key in look.scan_iter()}
    for number in range(3):
        live[number] = record(number, 9)
        assert (await made.save(live[number]))[0]
    store.kill()
    store.start()
    for key, value in then.items():
        assert isinstance(value, bytes)
        look.restore(key, 0, value, replace=True)
    wanted = {KEYS.call(f"call{n}"): b"1 1 9\nrecord %d v9" % n for n in range(3)}
    await until(lambda: {key: look.get(key) for key in wanted} == wanted)
    look.set(KEYS.call("call1"), b"1 1 4\nold")
    assert (await made.save(record(1, 10)))[0]
    assert look.get(KEYS.call("call1")) == b"1 1 10\nrecord 1 v10"
    assert not lost
    await made.journal.close()


async def test_a_call_given_by_a_worker_that_started_later_is_ours(store: StoreServer, look: redis.Redis) -> None:
    """Its record may still be there, where the store was away when it was dropped."""
    lost: list[str] = []
    taker = await worker(store, lost)
    giver = await worker(store, [])
    assert (await giver.save(record(1, 5)))[0]
    given = record(1, 6)
    given.lodged = True
    assert (await taker.save(given))[0]
    assert look.get(KEYS.call("call1")) == b"1 1 6\nrecord 1 v6"
    assert (await giver.save(record(2, 5)))[0]
    end = finished(2)
    end.lodged = True
    taker.journal.finish(end)
    await until(lambda: len(outbox(look)) == 1)
    assert look.get(KEYS.call("call2")) is None
    other_node = await worker(store, [], token=lambda: 1)
    assert (await other_node.save(record(3, 5)))[0]
    end = finished(3)
    end.lodged = True
    taker.journal.finish(end)
    await until(lambda: lost == ["call3"])
    for made in (taker, giver, other_node):
        await made.journal.close()


TOKEN = KEYS.token


async def test_a_former_owner_removes_nothing(store: StoreServer, look: redis.Redis) -> None:
    """It was stopped, a successor took its records, and it comes back: what it drops, sets aside and mends stays."""
    former, lost = await worker(store, [], token=lambda: 1), list[str]()
    for number in range(4):
        assert (await former.save(record(number)))[0]
    assert look.exists(TOKEN) == 0
    successor = await worker(store, lost, token=lambda: 2)
    assert len(await loaded(successor.journal)) == 4
    former.journal.drop(DropRecord("call0", 0))
    former.journal.quarantine("call1", 1)
    former.journal._fencing.mend(KEYS.shard(2), "set")
    former.journal._fencing.mend(KEYS.cdr_stream, "stream", KEYS.bad("cdr"))
    former.journal._remove("call3", 3)
    await former.journal._pipe.call("PING")
    assert sorted(look.scan_iter(KEYS.call("*"))) == [KEYS.call(f"call{n}").encode() for n in range(4)]
    assert all(look.sismember(KEYS.shard(n), f"call{n}") for n in range(4))
    successor.journal.drop(DropRecord("call0", 0))
    successor.journal.quarantine("call1", 1)
    await successor.journal._pipe.call("PING")
    assert sorted(look.scan_iter(KEYS.call("*"))) == [KEYS.call(f"call{n}").encode() for n in (2, 3)]
    assert look.exists(KEYS.bad("call1"))
    assert not look.exists(KEYS.shard(0), KEYS.shard(1))
    await former.journal.close()
    await successor.journal.close()


async def test_a_later_token_fences_what_has_no_record_yet_or_no_more(store: StoreServer, look: redis.Redis) -> None:
    """A call that the successor has ended does not come back; what nobody else has is written once the node is active
    again, or not at all."""
    tokens = [1]
    former = await worker(store, [], token=lambda: tokens[0])
    assert (await former.save(record(1)))[0]
    look.set(TOKEN, 1)
    assert (await former.save(record(1, 2)))[0]
    look.set(TOKEN, 2)
    assert not (await former.save(record(1, 3)))[0]
    assert not (await former.save(record(2)))[0]
    assert look.get(KEYS.call("call1")) == b"1 %d 2\nrecord 1 v2" % former.journal.epoch
    assert look.get(KEYS.call("call2")) is None
    assert former.journal.is_unprotected
    former.journal.finish(finished(1))
    former.journal.drop(DropRecord("call1", 1))
    await former.journal._pipe.call("PING")
    assert look.get(KEYS.call("call1")) is not None, "not taken over yet, and not to be ended any more"
    assert outbox(look) == []
    former.journal.finish(finished(3, saved=False))
    await until(lambda: len(outbox(look)) == 1)
    tokens[0] = 3  # it was made active again meanwhile
    await until(lambda: former.journal.waiting == 0)
    assert len(outbox(look)) == 2
    assert look.get(KEYS.call("call1")) is None
    assert look.get(KEYS.call("call2")) is not None
    await former.journal.close()


async def test_a_cdr_on_the_disk_of_a_former_owner_ends_no_call_of_its_successor(
    store: StoreServer, look: redis.Redis, tmp_path: Path
) -> None:
    """Frozen, replaced, thawed and killed, it left a CDR on the disk; its node serves again later, and resumes the call
    that went on at the other node."""

    def node(token: int) -> Recorder:
        spool = Spool(tmp_path / "spool", lambda _level, _event, _fields: None)
        return Recorder(store, epoch=None, token=lambda: token, spool=spool)

    former = node(1)
    former.journal.start()
    assert await former.journal.ready(5)
    for number in (1, 2):
        assert (await former.save(record(number)))[0]
    successor = await worker(store, [], token=lambda: 2)
    assert len(await loaded(successor.journal)) == 2
    store.pause()
    former.journal.finish(finished(1))
    await former.journal.close(0.5)
    store.resume()
    await until(lambda: successor.journal._pipe.state is State.READY)
    assert (await successor.save(record(1, 7)))[0]
    again = node(3)
    again.journal.start()
    assert await again.journal.ready(5)
    found = {stored.key: stored.record for stored in await loaded(again.journal)}
    assert found == {"call1": b"record 1 v7", "call2": b"record 2 v1"}
    assert outbox(look) == []
    assert again.journal.waiting == 0
    await again.journal.close()
    await successor.journal.close()


async def test_a_store_that_lost_count_of_workers_learns_it_again(store: StoreServer, look: redis.Redis) -> None:
    made = await worker(store, [])
    later = await worker(store, [])
    assert (made.journal.epoch, later.journal.epoch) == (1, 2)
    store.kill()
    store.start()
    await until(lambda: look.get(KEYS.incarnation) == b"2")
    newest = await worker(store, [])
    assert newest.journal.epoch == 3
    for one in (made, later, newest):
        await one.journal.close()
