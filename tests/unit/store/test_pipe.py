"""The pipe against a store played by the test, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sbc.store.breaker import State
from sbc.store.pipe import Pipe, Refusal, StoreAway
from sbc.store.url import StoreAddress
from tests.support.fake_store import FakeStore
from tests.support.virtual_loop import run_virtually


async def ready(folder: Path, **options: Any) -> tuple[FakeStore, Pipe]:  # Any: the pipe's own keyword arguments
    store = FakeStore(folder)
    await store.start()
    pipe = Pipe(StoreAddress(path=store.path), asyncio.get_running_loop(), **options)
    pipe.start()
    await asyncio.sleep(0.01)
    assert pipe.state is State.READY
    return store, pipe


def test_one_turn_of_the_loop_is_one_write_and_replies_come_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        store, pipe = await ready(tmp_path)
        before = store.chunks
        replies: list[Any] = []  # Any: RESP values
        for number in range(100):
            pipe.send(replies.append, "ECHO", number)
        assert replies == []
        await asyncio.sleep(0.01)
        assert replies == [b"%d" % number for number in range(100)]
        assert store.chunks == before + 1
        pipe.close()
        store.stop()

    run_virtually(main)


def test_a_shell_may_gather_what_it_says_and_flush_it_itself(tmp_path: Path) -> None:
    async def main() -> None:
        store, pipe = await ready(tmp_path)
        before = store.chunks
        replies: list[Any] = []  # Any: RESP values
        pipe.gather(True)
        for number in range(3):
            pipe.send(replies.append, "ECHO", number)
            await asyncio.sleep(0.002)
        assert store.chunks == before
        assert pipe.flush()
        await asyncio.sleep(0.01)
        assert (store.chunks, replies) == (before + 1, []), "replies wait for the shell, too"
        pipe.poll()
        assert replies == [b"0", b"1", b"2"]
        assert not pipe.flush(), "nothing is left to be said"
        pipe.send(replies.append, "ECHO", "left")
        pipe.gather(False)  # nothing is left behind
        await asyncio.sleep(0.01)
        assert replies[3:] == [b"left"]
        pipe.close()
        store.stop()

    run_virtually(main)


def test_a_shell_that_gathers_misses_no_reply_that_is_there_at_the_deadline(tmp_path: Path) -> None:
    async def main() -> None:
        store, pipe = await ready(tmp_path)
        pipe.gather(True)
        replies: list[Any] = []  # Any: RESP values
        pipe.send(replies.append, "ECHO", "x")
        pipe.flush()
        await asyncio.sleep(0.1)  # no turn for as long as that
        assert replies == [b"x"]
        assert pipe.state is State.READY
        pipe.close()
        store.stop()

    run_virtually(main)


def test_a_shell_that_gathers_sees_the_end_of_the_connection_and_the_next_one_waits_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        store, pipe = await ready(tmp_path)
        pipe.gather(True)
        store.hang_up()
        await asyncio.sleep(0.01)
        assert pipe.state is State.READY, "nobody has looked"
        pipe.poll()
        await asyncio.sleep(3)
        assert (store.connections, pipe.state) == (2, State.READY)
        replies: list[Any] = []  # Any: RESP values
        pipe.send(replies.append, "ECHO", "x")
        pipe.flush()
        await asyncio.sleep(0.01)
        assert replies == []
        pipe.poll()
        assert replies == [b"x"]
        pipe.close()
        store.stop()

    run_virtually(main)


def test_a_refusal_concerns_its_command_alone(tmp_path: Path) -> None:
    async def main() -> None:
        store, pipe = await ready(tmp_path)
        store.replies[b"SET"] = b"-OOM command not allowed\r\n"
        replies: list[Any] = []  # Any: RESP values
        pipe.send(replies.append, "SET", "a", "b")
        pipe.send(replies.append, "ECHO", "x")
        await asyncio.sleep(0.01)
        assert isinstance(replies[0], Refusal)
        assert replies[1] == b"x"
        assert pipe.state is State.READY
        pipe.close()
        store.stop()

    run_virtually(main)


def test_a_mute_store_is_answered_for_at_the_deadline_and_the_third_miss_opens_the_circuit(tmp_path: Path) -> None:
    async def main() -> None:
        counts: list[str] = []
        store, pipe = await ready(tmp_path, deadline_s=0.05, count=counts.append)
        loop = asyncio.get_running_loop()
        store.mute = True
        for _ in range(3):
            start = loop.time()
            heard: asyncio.Future[Any] = loop.create_future()  # Any: RESP values
            pipe.send(heard.set_result, "ECHO", "x")
            assert isinstance(await heard, StoreAway)
            assert 0.049 <= loop.time() - start <= 0.052
        assert pipe.is_open
        assert counts.count("STORE_TIMEOUTS") == 3
        replies: list[Any] = []  # Any: RESP values
        pipe.send(replies.append, "ECHO", "x")
        assert isinstance(replies[0], StoreAway), "at once"
        store.mute = False
        await asyncio.sleep(3)
        assert pipe.state is State.READY
        assert await pipe.call("ECHO", "again") == b"again"
        pipe.close()
        store.stop()

    run_virtually(main)


def test_a_late_reply_is_never_taken_for_the_next_one(tmp_path: Path) -> None:
    async def main() -> None:
        store, pipe = await ready(tmp_path)
        store.ping_only = True
        replies: list[Any] = []  # Any: RESP values
        pipe.send(replies.append, "ECHO", "first")
        await asyncio.sleep(0.06)
        assert isinstance(replies[0], StoreAway)
        store.ping_only = False
        assert await pipe.call("ECHO", "second") == b"second"
        assert store.connections == 2
        assert [b"CLIENT", b"KILL", b"ID", b"1"] in store.commands, "what it still held must not be performed later"
        pipe.close()
        store.stop()

    run_virtually(main)


def test_commands_wait_for_a_connection_under_way_and_go_out_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore(tmp_path)
        await store.start()
        pipe = Pipe(StoreAddress(path=store.path), asyncio.get_running_loop())
        pipe.on_ready = lambda: pipe.send(lambda _: None, "SCRIPT", "LOAD", "x")
        pipe.start()
        replies: list[Any] = []  # Any: RESP values
        for number in range(3):
            pipe.send(replies.append, "ECHO", number)
        await asyncio.sleep(0.01)
        assert replies == [b"0", b"1", b"2"]
        assert store.names() == ["SCRIPT", "ECHO", "ECHO", "ECHO"]
        pipe.close()
        store.stop()

    run_virtually(main)


def test_a_store_that_is_not_there_opens_the_circuit_and_is_found_when_it_comes(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore(tmp_path)
        changes: list[State] = []
        pipe = Pipe(
            StoreAddress(path=store.path),
            asyncio.get_running_loop(),
            on_change=lambda state, _reason: changes.append(state),
        )
        pipe.start()
        await asyncio.sleep(1)
        assert pipe.is_open
        await store.start()
        await asyncio.sleep(3)
        assert pipe.state is State.READY
        assert changes[:2] == [State.CONNECTING, State.OPEN]
        store.stop()
        await asyncio.sleep(1)
        assert pipe.is_open
        pipe.close()

    run_virtually(main)


def test_a_full_queue_refuses_and_a_raising_callback_harms_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        store, pipe = await ready(tmp_path, capacity=2)
        faults: list[dict[str, Any]] = []  # Any: asyncio's context
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        replies: list[Any] = []  # Any: RESP values

        def raising(_: Any) -> None:  # Any: RESP values
            raise ValueError("mine")

        pipe.send(raising, "ECHO", "a")
        pipe.send(replies.append, "ECHO", "b")
        pipe.send(replies.append, "ECHO", "c")
        assert len(replies) == 1
        assert isinstance(replies[0], StoreAway)
        await asyncio.sleep(0.01)
        assert replies[1] == b"b"
        assert isinstance(faults[0]["exception"], ValueError)
        pipe.close()
        store.stop()

    run_virtually(main)


def test_octets_that_are_no_resp_end_the_connection(tmp_path: Path) -> None:
    async def main() -> None:
        store, pipe = await ready(tmp_path)
        store.replies[b"ECHO"] = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        replies: list[Any] = []  # Any: RESP values
        pipe.send(replies.append, "ECHO", "a")
        await asyncio.sleep(0.01)
        assert isinstance(replies[0], StoreAway)
        pipe.close()
        store.stop()

    run_virtually(main)
