"""The control worker as a process: its socket, its metrics, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from media.counters import MediaCounter
from sbc.config.models import Cdr, Config, Management, Realm
from sbc.management import control, rpc
from sbc.management.client import ManagementError, ask
from sbc.management.slot import ControlSlot
from sbc.store.keys import Keys
from sbc.telemetry.counters import Counter, Kind
from sbc.telemetry.page import Page
from tests.support.store import StoreServer


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Node:
    """A control worker with pages of workers that do not run, and one SIP worker's socket played by the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = StoreServer(folder)
        self.store.start()
        self.port = free_port()
        realm = {"listen": ["udp:127.0.0.1:5060"], "media": {"address": "127.0.0.1"}}
        self.config = Config(
            run_dir=str(folder),
            state_dir=str(folder),
            database=f"sqlite:///{folder / 'state' / 'sbc.db'}",
            cdr=Cdr(csv=str(folder / "cdr.csv")),
            management=Management(metrics=f"127.0.0.1:{self.port}"),
            realms={"lo": Realm.model_validate(realm)},
        )
        kinds = {"supervisor": Kind.SUPERVISOR, "sip 0": Kind.SIP, "sip 1": Kind.SIP, "media 0": Kind.MEDIA}
        self.pages = {name: Page() for name in (*kinds, "control")}
        for name, kind in kinds.items():
            self.pages[name].open(kind, os.getpid())
            self.pages[name].ready()
        self.slot = ControlSlot(
            config=self.config,
            config_path=str(folder / "sbc.yaml"),
            page=self.pages["control"],
            pages=self.pages,
            sip_sockets=[str(folder / "sip-0.sock"), str(folder / "sip-1.sock")],
            media_endpoints={},
            store_url=f"unix://{self.store.path}",
        )
        self.pid = os.fork()
        if self.pid == 0:
            self.pages["control"].open(Kind.CONTROL, os.getpid())
            os._exit(control.run(self.slot))
        deadline = time.monotonic() + 10
        while not self.pages["control"].is_ready:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def ask(self, method: str, **params: Any) -> Any:  # Any: JSON values
        return ask(self.slot.control_path, method, params)

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            rows = answer.read().decode().splitlines()
        return {row.rpartition(" ")[0]: float(row.rpartition(" ")[2]) for row in rows if not row.startswith("#")}

    def end(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    try:
        os.kill(made.pid, signal.SIGKILL)
        os.waitpid(made.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    made.store.kill()


def test_status_metrics_and_a_clean_end(node: Node) -> None:
    node.pages["sip 0"].add(Counter.CALLS_STARTED, 3)
    node.pages["sip 1"].add(Counter.CALLS_STARTED, 4)
    node.pages["sip 0"].add(Counter.MAX_CALLS_REFUSED, 2)
    node.pages["media 0"].words[MediaCounter.DROP_WRONG_SOURCE] = 9
    node.pages["media 0"].words[MediaCounter.SESSIONS_ACTIVE] = 5
    status = node.ask("status")
    assert status["node"] == "sbc1"
    assert status["calls"]["started"] == 7
    assert {row["name"]: row["state"] for row in status["processes"]} == dict.fromkeys(node.pages, "ready")
    assert status["store"]["state"] == "ready"
    assert status["cdr"]["state"] == "ready"
    found = node.metrics()
    assert found['sbc_calls_started_total{process="sip",slot="0"}'] == 3
    assert found['sbc_refused_total{process="sip",reason="max_calls",slot="0"}'] == 2
    assert found['sbc_media_dropped_total{process="media",reason="wrong_source",slot="0"}'] == 9
    assert found['sbc_media_sessions_active{process="media",slot="0"}'] == 5
    assert found['sbc_process_up{process="control",slot=""}'] == 1
    assert found['sbc_process_resident_memory_bytes{process="control",slot=""}'] > 1e6
    assert stat.S_IMODE(os.stat(node.slot.control_path).st_mode) == 0o600
    assert node.end() == 0
    assert not os.path.exists(node.slot.control_path)


def test_registrations_by_peer(node: Node) -> None:
    """From the worker that answers; the metrics ask nobody until a worker says that it registers anywhere."""
    assert not [name for name in node.metrics() if name.startswith("sbc_registration_")]
    row = {"peer": "carrier-a", "state": "registered", "registered": True, "expires_s": 99.5}
    off = {"peer": "carrier-b", "state": "failed", "registered": False, "expires_s": None}

    async def worker() -> None:
        def rows(_: object) -> list[dict[str, Any]]:  # Any: JSON values
            return [off, row]

        server = await rpc.serve(node.slot.sip_sockets[0], {"registrations": rows}, lambda method, error: None)
        ready.set()
        await asyncio.to_thread(done.wait, 20)
        await server.close()

    ready, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(worker(),))
    thread.start()
    try:
        assert ready.wait(5)
        node.pages["sip 0"].set(Counter.REGISTRATIONS, 2)
        node.pages["sip 0"].set(Counter.REGISTRATIONS_ACTIVE, 1)
        answer = node.ask("registrations")
        assert answer["registrations"] == [{**row, "worker": "sip 0"}, {**off, "worker": "sip 0"}]
        assert [line.partition(":")[0] for line in answer["no_answer"]] == ["sip 1"]
        assert node.ask("status")["registrations"] == {"configured": 2, "registered": 1}
        found = node.metrics()
        assert found['sbc_registration_up{peer="carrier-a"}'] == 1
        assert found['sbc_registration_up{peer="carrier-b"}'] == 0
        assert found['sbc_registration_expires_seconds{peer="carrier-a"}'] == 99.5
        assert found['sbc_registrations{process="sip",slot="0"}'] == 2
    finally:
        done.set()
        thread.join(5)


def test_cdrs_are_written_and_counted(node: Node) -> None:
    look = redis.Redis(unix_socket_path=node.store.path)
    stream = Keys("sbc1").cdr_stream
    for number in range(3):
        look.xadd(stream, {"cdr": orjson.dumps({"id": f"c{number}", "node": "sbc1"})})
    deadline = time.monotonic() + 10
    while node.metrics().get('sbc_cdr_written_total{process="control",slot=""}') != 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert node.end() == 0
    assert (node.folder / "cdr.csv").read_text().count("\n") == 4
    assert look.xlen(stream) == 0


async def test_calls_come_from_the_workers_that_answer(node: Node) -> None:
    ended: list[str] = []

    def hangup(params: rpc.Params) -> bool:
        ended.append(params["key"])
        return bool(params["key"] == "k1")

    methods: dict[str, rpc.Method] = {
        "calls": lambda params: {"total": 5, "calls": [{"key": f"k{n}"} for n in range(5)][: params["limit"]]},
        "call": lambda params: {"key": "k1"} if params["key"] == "k1" else None,
        "hangup": hangup,
    }
    server = await rpc.serve(node.slot.sip_sockets[0], methods)
    path = node.slot.control_path
    listed = await rpc.call(path, "calls", {"limit": 2, "offset": 1}, timeout_s=3)
    assert [row["key"] for row in listed["calls"]] == ["k1", "k2"]
    assert listed["total"] == 5
    assert listed["calls"][0]["worker"] == "sip 0"
    assert [text.partition(":")[0] for text in listed["no_answer"]] == ["sip 1"]
    assert (await rpc.call(path, "call", {"key": "k1"}))["worker"] == "sip 0"
    assert await rpc.call(path, "hangup", {"key": "k1"}) == {"key": "k1", "worker": "sip 0"}
    with pytest.raises(rpc.RpcError) as missing:
        await rpc.call(path, "hangup", {"key": "k9"})
    assert missing.value.code == rpc.UNAVAILABLE, "the other worker may hold it"
    second = await rpc.serve(node.slot.sip_sockets[1], {name: lambda _: None for name in methods})
    with pytest.raises(rpc.RpcError) as missing:
        await rpc.call(path, "hangup", {"key": "k9"})
    assert missing.value.code == rpc.NOT_FOUND
    await second.close()

    async def never(_: rpc.Params) -> None:
        await asyncio.sleep(60)

    hung = await rpc.serve(node.slot.sip_sockets[1], {"calls": never})
    start = time.monotonic()
    listed = await rpc.call(path, "calls", timeout_s=3)
    assert 0.9 < time.monotonic() - start < 2
    assert listed["no_answer"] == ["sip 1: no answer within 1 s"]
    await hung.close()
    await server.close()


async def test_requests_that_are_none(node: Node) -> None:
    reader, writer = await asyncio.open_unix_connection(node.slot.control_path)

    async def say(text: bytes) -> Any:  # Any: a JSON value
        writer.write(text + b"\n")
        return orjson.loads(await asyncio.wait_for(reader.readline(), 5))

    assert (await say(b"{"))["error"]["code"] == rpc.PARSE_ERROR
    assert (await say(b"7"))["error"]["code"] == rpc.INVALID_REQUEST
    assert (await say(b"[]"))["error"]["code"] == rpc.INVALID_REQUEST
    assert (await say(b'{"jsonrpc":"2.0","id":1,"method":"nothing"}'))["error"]["code"] == rpc.METHOD_NOT_FOUND
    assert (await say(b'{"jsonrpc":"2.0","id":1,"method":"call"}'))["error"]["code"] == rpc.INVALID_PARAMS
    assert (await say(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}'))["error"]["code"] == rpc.INVALID_PARAMS
    assert (await say(b'{"jsonrpc":"2.0","id":"x","method":"ping"}')) == {"jsonrpc": "2.0", "id": "x", "result": "pong"}
    batch = b'[{"jsonrpc":"2.0","method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]'
    assert [answer["id"] for answer in await say(batch)] == [2]
    writer.write(b"x" * (rpc.MAX_LINE_BYTES + 65537) + b"\n")
    assert orjson.loads(await asyncio.wait_for(reader.readline(), 5))["error"]["code"] == rpc.INVALID_REQUEST
    writer.close()
    assert await rpc.call(node.slot.control_path, "ping") == "pong"


def test_media_nodes_in_metrics_and_their_drain_by_command(node: Node) -> None:
    """As each worker sees them; one worker that answers is enough for a drain."""
    rows = [
        {"node": "media-0", "state": "up", "why": "", "sessions": 7},
        {"node": "10.0.0.9:7700", "state": "down", "why": "mute", "sessions": 3},
    ]
    drained: list[object] = []

    def drain(params: Any) -> bool:  # Any: JSON values
        drained.append(params)
        return bool(params["node"] == "media-0")

    async def worker() -> None:
        methods: dict[str, rpc.Method] = {"media": lambda _: rows, "media_drain": drain}
        server = await rpc.serve(node.slot.sip_sockets[0], methods, lambda method, error: None)
        ready.set()
        await asyncio.to_thread(done.wait, 20)
        await server.close()

    ready, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(worker(),))
    thread.start()
    try:
        assert ready.wait(5)
        found = node.metrics()
        assert found['sbc_media_node_up{node="media-0",reason="",slot="0",state="up"}'] == 1
        assert found['sbc_media_node_up{node="10.0.0.9:7700",reason="mute",slot="0",state="down"}'] == 0
        assert found['sbc_media_node_sessions{node="10.0.0.9:7700",slot="0"}'] == 3
        answer = node.ask("media")
        assert [row["node"] for row in answer["media"]] == ["10.0.0.9:7700", "media-0"]
        assert node.ask("media_drain", node="media-0")["draining"] is True
        assert node.ask("media_drain", node="media-0", on=False)["draining"] is False
        assert drained == [{"node": "media-0", "on": True}, {"node": "media-0", "on": False}]
        with pytest.raises(ManagementError, match="no media node 'media-7'"):
            node.ask("media_drain", node="media-7")
    finally:
        done.set()
        thread.join()
