"""The pool against real media workers: spreading, failover, deadlines, notifications, deletes that are not lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from media.counters import MediaCounter
from media.protocol import Answer, Delete, Drain, Engage, ListSessions, Offer, Query, Reply, Request, Stream
from sbc.b2bua.effects import MediaCommand
from sbc.config.media import MediaHealth
from sbc.media_client.client import MediaPool, Notification
from sbc.media_client.nodes import Address, Sets
from tests.support.media_process import MediaProcess


class Asking:
    """A pool over two workers, and awaitable requests."""

    def __init__(self, workers: dict[str, MediaProcess], deadline_s: float = 0.25) -> None:
        self.workers = workers
        self.states: list[tuple[str, str]] = []
        sets: Sets = {
            "local": dict.fromkeys(workers, 1),
            "second": {"media-0": 0, "media-1": 1},
        }
        self.notified: asyncio.Queue[tuple[str, Notification]] = asyncio.Queue()
        endpoints = {name: Address(worker.endpoint) for name, worker in workers.items()}
        self.pool = MediaPool(
            endpoints,
            asyncio.get_running_loop(),
            deadline_s,
            lambda *event: self.notified.put_nowait(event),
            sets=sets,
            health=MediaHealth(probe_interval_s=0.1, disable_s=0.3),
            identity=b"sbc1/sip-0",
            on_state=lambda node: self.states.append((node.name, node.state.name)),
        )

    def described(self, name: str) -> dict[str, Any]:  # Any: JSON values
        return next(row for row in self.pool.describe() if row["node"] == name)

    async def ask(self, request: Request, node: str = "", media_set: str = "") -> Reply:
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def done(request_id: int, reply: Reply) -> None:
            assert request_id == 7
            answered.set_result(reply)

        self.pool.perform(MediaCommand(7, request, node, media_set), done)
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


async def test_with_gather_requests_wait_for_flush(asking: Asking) -> None:
    pool = asking.pool
    pool.gather(True)
    asked = asyncio.create_task(asking.ask(offer("s")))
    await asyncio.sleep(0.05)
    assert not asked.done()
    pool.flush()
    for _ in range(100):
        await asyncio.sleep(0.01)
        pool.poll()
        if asked.done():
            break
    reply = await asked
    assert reply.ok
    asked = asyncio.create_task(asking.ask(Delete("s"), reply.worker))
    await asyncio.sleep(0)
    pool.gather(False)  # nothing is left behind
    assert (await asked).ok


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
        if asking.described(probe.worker)["missed"] == 0:
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


async def eventually(what: Any, timeout_s: float = 3.0) -> None:  # Any: a condition
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not what():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


async def test_a_mute_node_is_found_by_probes_and_comes_back(asking: Asking) -> None:
    await eventually(lambda: asking.described("media-0")["state"] == "up")
    os.kill(asking.workers["media-0"].pid, signal.SIGSTOP)
    try:
        await eventually(lambda: ("media-0", "DOWN") in asking.states)
        assert asking.described("media-0")["why"] == "mute"
        for n in range(20):
            reply = await asking.ask(offer(f"s{n}"))
            assert (reply.ok, reply.worker) == (True, "media-1"), "no call waits for it"
    finally:
        os.kill(asking.workers["media-0"].pid, signal.SIGCONT)
    await eventually(lambda: asking.states[-1] == ("media-0", "UP"))
    assert asking.states == [("media-0", "DOWN"), ("media-0", "UP")]


async def test_a_spare_takes_calls_only_while_the_others_do_not(asking: Asking) -> None:
    for n in range(20):
        assert (await asking.ask(offer(f"s{n}"), media_set="second")).worker == "media-1"
    assert asking.pool.drain("media-1", True)
    await eventually(lambda: asking.workers["media-1"].count(MediaCounter.CONTROL_REQUESTS) > 20)
    assert (await asking.ask(offer("t"), media_set="second")).worker == "media-0"
    assert asking.described("media-1")["reason"] == "drained by command"
    assert (await asking.ask(Answer("s0", "b1", "a", [Stream("127.0.0.1", 19)]), "media-1")).ok, "present calls go on"
    assert asking.pool.drain("media-1", False)
    assert (await asking.ask(offer("u"), media_set="second")).worker == "media-1"
    assert not asking.pool.drain("media-9", True)


async def test_a_node_that_drains_by_itself_is_asked_no_more(asking: Asking) -> None:
    await asking.ask(Drain(), "media-1")
    await eventually(lambda: asking.described("media-1")["state"] == "draining")
    assert asking.described("media-1")["why"] == "draining"
    refused = asking.workers["media-1"].count(MediaCounter.REFUSED_DRAINING)
    assert (await asking.ask(offer("s"), media_set="second")).worker == "media-0"
    assert asking.workers["media-1"].count(MediaCounter.REFUSED_DRAINING) == refused


async def test_a_set_that_is_not_there_and_one_that_comes_with_a_reload(asking: Asking) -> None:
    reply = await asking.ask(offer("s"), media_set="third")
    assert (reply.ok, reply.code, reply.reason) == (False, "unreachable", "no media set 'third'")
    nodes = {name: Address(worker.endpoint) for name, worker in asking.workers.items()}
    asking.pool.configure(nodes, {"third": {"media-0": 1}}, MediaHealth())
    assert (await asking.ask(offer("s"), media_set="third")).worker == "media-0"


async def test_only_the_sessions_of_one_client_node_are_listed(asking: Asking) -> None:
    reply = await asking.ask(offer("s"))
    assert (await asking.ask(ListSessions(owner="sbc1/"), reply.worker)).sessions == ["s"]
    other = await asking.ask(ListSessions(owner="sbc2/"), reply.worker)
    assert (other.sessions, other.total) == ([], 0)


async def test_being_held_up_ourselves_is_no_fault_of_a_node(asking: Asking) -> None:
    """The loop stands still for longer than the deadline while a request still waits to be sent."""
    answers: list[Reply] = []
    for number in range(50):
        asking.pool.perform(MediaCommand(number, offer(f"s{number}"), ""), lambda _, reply: answers.append(reply))
    time.sleep(0.4)  # noqa: ASYNC251  # what a pause of the collector does
    await eventually(lambda: len(answers) == 50)
    assert all(reply.ok for reply in answers), answers
    assert asking.pool.counts["timeouts"] == 0
    assert asking.states == []
