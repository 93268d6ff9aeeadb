"""The pool against real media workers: spreading, failover, deadlines, notifications, deletes that are not lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from media.counters import MediaCounter
from media.protocol import Answer, Delete, Drain, Engage, ListSessions, Offer, Query, Reply, Request, Stream
from sbc.b2bua.effects import MediaCommand
from sbc.media_client.client import MediaPool, Notification
from tests.support.media_process import MediaProcess


class Asking:
    """A pool over two workers, and awaitable requests."""

    def __init__(self, workers: dict[str, MediaProcess], deadline_s: float = 0.25) -> None:
        self.workers = workers
        self.notified: asyncio.Queue[tuple[str, Notification]] = asyncio.Queue()
        endpoints = {name: worker.endpoint for name, worker in workers.items()}
        self.pool = MediaPool(
            endpoints,
            asyncio.get_running_loop(),
            deadline_s,
            lambda *event: self.notified.put_nowait(event),
            identity=b"sip-0",
        )

    async def ask(self, request: Request, node: str = "") -> Reply:
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def done(request_id: int, reply: Reply) -> None:
            assert request_id == 7
            answered.set_result(reply)

        self.pool.perform(MediaCommand(7, request, node), done)
        assert not answered.done()
        return await asyncio.wait_for(answered, 3)


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    workers = {}
    for slot, name in enumerate(("media-0", "media-1")):
        ports = [32000 + 200 * slot, 32199 + 200 * slot]
        realms: dict[str, dict[str, object]] = {"core": {"address": "127.0.0.1", "ports": ports}}
        workers[name] = MediaProcess(f"ipc://{tmp_path}/{name}.sock", realms, slot=slot, media_timeout_s=0.5)
        workers[name].start()
    context = Asking(workers)
    yield context
    context.pool.close()
    for worker in workers.values():
        worker.close()


def offer(session: str) -> Offer:
    return Offer(session, "a", "b1", "core", "core", [Stream("127.0.0.1", 9)])


async def test_new_sessions_spread_and_stay(asking: Asking) -> None:
    replies = await asyncio.gather(*(asking.ask(offer(f"s{n}")) for n in range(60)))
    assert all(reply.ok for reply in replies)
    by_node = {name: sum(reply.worker == name for reply in replies) for name in asking.workers}
    assert min(by_node.values()) > 15, by_node
    for n, reply in enumerate(replies):
        assert (await asking.ask(Delete(f"s{n}"), reply.worker)).worker == reply.worker


async def test_a_mute_node_costs_one_deadline_and_leaves_no_ports(asking: Asking) -> None:
    probe = await asking.ask(Engage("s"))
    mute = asking.workers[probe.worker]
    assert (await asking.ask(Delete("s"), probe.worker)).ok
    os.kill(mute.pid, signal.SIGSTOP)
    try:
        started = asyncio.get_running_loop().time()
        reply = await asking.ask(offer("s"))
        assert reply.ok
        assert reply.worker != probe.worker
        assert asyncio.get_running_loop().time() - started < 0.6
        pinned = await asking.ask(Query("s"), probe.worker)
        assert (pinned.ok, pinned.code, pinned.worker) == (False, "timeout", probe.worker)
        started = asyncio.get_running_loop().time()
        assert (await asking.ask(offer("s"))).ok
        assert asyncio.get_running_loop().time() - started < 0.2, "it is avoided by now"
    finally:
        os.kill(mute.pid, signal.SIGCONT)
    for _ in range(100):
        await asyncio.sleep(0.05)
        if asking.pool.health()[probe.worker]["missed"] == 0:
            break
    assert (await asking.ask(ListSessions(), probe.worker)).total == 0, "the late offer was undone"
    assert mute.count(MediaCounter.SESSIONS_OPENED) >= 2


async def test_a_refusal_that_may_be_tried_elsewhere_is(asking: Asking) -> None:
    first = await asking.ask(Engage("s"))
    await asking.ask(Delete("s"), first.worker)
    assert (await asking.ask(Drain(), first.worker)).ok
    moved = await asking.ask(offer("s"))
    assert moved.ok
    assert moved.worker != first.worker
    other = next(name for name in asking.workers if name != first.worker)
    await asking.ask(Drain(), other)
    assert (await asking.ask(offer("t"))).code == "draining"


async def test_a_description_that_is_no_text_is_refused(asking: Asking) -> None:
    reply = await asking.ask(Offer("s", "a", "b1", "core", "core", [Stream("\udcff", 9)]))
    assert (reply.ok, reply.code) == (False, "malformed")


async def test_an_unknown_node_is_unreachable(asking: Asking) -> None:
    reply = await asking.ask(Query("s"), "media-9")
    assert (reply.ok, reply.code) == (False, "unreachable")


async def test_time_outs_are_told_even_after_a_restart(asking: Asking) -> None:
    reply = await asking.ask(offer("s"))
    await asking.ask(Answer("s", "b1", "a", [Stream("127.0.0.1", 19)]), reply.worker)
    event = await asyncio.wait_for(asking.notified.get(), 3)
    assert (event[0], event[1]["event"], event[1]["session"]) == (reply.worker, "timeout", "s")
    worker = asking.workers[reply.worker]
    worker.kill()
    worker.start()
    event = await asyncio.wait_for(asking.notified.get(), 5)
    assert (event[0], event[1]["event"], event[1]["session"]) == (reply.worker, "timeout", "s")


async def test_a_delete_reaches_a_worker_that_was_away(asking: Asking) -> None:
    reply = await asking.ask(offer("s"))
    worker = asking.workers[reply.worker]
    worker.kill()
    assert (await asking.ask(Delete("s"), reply.worker)).code == "timeout"
    worker.start()
    assert worker.count(MediaCounter.SESSIONS_RESUMED) == 1
    for _ in range(60):
        await asyncio.sleep(0.05)
        if (await asking.ask(ListSessions(), reply.worker)).total == 0:
            break
    else:
        pytest.fail("the session was never deleted")
