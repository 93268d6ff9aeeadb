"""What the supervisor prepares before it forks: folders, keys, commands, and what a reload may change."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.supervisor import embedded_store, folders, process, sockets
from sbc.supervisor.notify import Notify
from sbc.supervisor.reload import restart_only

MINIMAL: dict[str, object] = {
    "realms": {"core": {"listen": ["udp:127.0.0.1:5060"], "media": {"address": "127.0.0.1"}}},
    "workers": {"sip": 1, "media": 1},
}


def config(**changes: object) -> Config:
    return Config.model_validate({**MINIMAL, **changes})


def test_folders_are_made_and_locked_against_a_second_owner(tmp_path: Path) -> None:
    mine = config(run_dir=str(tmp_path / "a" / "run"), state_dir=str(tmp_path / "state"))
    folders.prepare(mine)
    assert (tmp_path / "a" / "run").stat().st_mode & 0o777 == 0o750
    lock = folders.Lock(mine.run_dir)
    with pytest.raises(ConfigError, match=rf"an SBC runs there already \(pid {os.getpid()}\)"):
        folders.Lock(mine.run_dir)
    lock.close()
    folders.Lock(mine.run_dir).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"run_dir: cannot use {tmp_path}/file/run: not a directory"):
        folders.prepare(config(run_dir=str(tmp_path / "file" / "run"), state_dir=str(tmp_path)))


def test_the_shard_key_stays_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    mine = config(state_dir=str(tmp_path))
    key = folders.shard_key(mine)
    assert len(key) == 16
    assert folders.shard_key(mine) == key
    assert list(tmp_path.iterdir()) == [tmp_path / "shard.key"]
    (tmp_path / "shard.key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="should hold 16 octets, not 5"):
        folders.shard_key(mine)


def test_an_unknown_user_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no user 'nosuchuser'"):
        folders.account_of(config(user="nosuchuser"))


def test_the_store_is_ours_only_when_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded_store.store_url(config(run_dir="/run/x")) == "unix:///run/x/store.sock"
    assert embedded_store.store_url(config(store="redis://h:1/0")) == "redis://h:1/0"
    line = embedded_store.arguments(config(run_dir="/run/x"))
    assert line[line.index("--port") + 1] == "0"
    assert line[line.index("--save") + 1] == ""
    assert line[line.index("--unixsocketperm") + 1] == "700"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="apt-get install redis-server"):
        embedded_store.find_server()


def test_one_socket_per_listener_and_slot_on_one_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    realms = {"core": {"listen": [f"udp:127.0.0.1:{port}", f"udp:[::1]:{port}"], "media": {"address": "127.0.0.1"}}}
    rows = sockets.bind_all(config(realms=realms), 3)
    assert [sock.getsockname()[:2] for row in rows for sock in row.listeners] == [
        ("127.0.0.1", port),
        ("::1", port),
    ] * 3
    first = rows[0]
    for number in range(200):  # beyond net.unix.max_dgram_qlen
        first.hand_over.send(b"%d" % number)
    assert [first.inbox.recv(10) for _ in range(200)] == [b"%d" % number for number in range(200)]
    with pytest.raises(BlockingIOError):
        first.inbox.recv(10)
    with pytest.raises(ConfigError, match="another program listens there"):
        sockets.bind_all(config(realms=realms), 1)
    for row in rows:
        for sock in (*row.listeners, row.inbox, row.hand_over):
            sock.close()


def test_reload_refuses_what_takes_a_restart() -> None:
    old = config()
    assert restart_only(old, config(peers={"a": {"realm": "core", "addresses": "10.0.0.1"}})) == []
    assert restart_only(old, config(workers={"sip": 5, "media": old.workers.media})) == []
    assert restart_only(old, config(run_dir="/x", workers={"sip": 2, "media": 7})) == [
        "run_dir: a change takes a restart",
        "workers.media: a change takes a restart, since media workers share out the RTP ports. Without one, a media "
        "node (sbc media run) that is added to media_sets takes more, and sbc media drain takes less",
    ]
    assert restart_only(old, config(media={"prompts": "/p"})) == ["media: a change takes a restart"]
    moved = {"core": {"listen": ["udp:127.0.0.1:5070"], "media": {"address": "127.0.0.2"}}}
    assert restart_only(old, config(realms=moved)) == [
        "realms: a change of listeners takes a restart",
        "realms.core: a change of media or nat takes a restart",
    ]


def test_reload_says_how_a_pair_comes_to_another_number_of_media_workers(tmp_path: Path) -> None:
    pair = {"name": "a", "key_file": "ha.key", "paths": [{"local": "10.9.0.1:7400", "peer": "10.9.0.2:7400"}]}
    old = config(ha=pair, store="redis://10.9.0.9")
    (told,) = restart_only(old, config(ha=pair, store="redis://10.9.0.9", workers={"sip": 1, "media": 2}))
    assert told.startswith("workers.media: a change takes a restart")
    assert "restart the passive one with it, then sbc ha switch at a quiet time, then restart the other one" in told


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "10000000")
        notify = Notify()
        assert "NOTIFY_SOCKET" not in os.environ
        notify.ready("serving")
        assert sock.recv(200).startswith(b"READY=1\nSTATUS=serving\n")
        for now in (0.0, 4.9, 5.0, 9.9):
            notify.alive(now)
        assert [sock.recv(200) for _ in range(2)] == [b"WATCHDOG=1"] * 2
        with pytest.raises(BlockingIOError):
            sock.recv(200)


def test_the_supervisor_speaks_to_systemd_by_the_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify = Notify()
        pid = os.fork()
        if pid == 0:
            notify.become_sender()
            notify.ready("serving")
            os._exit(0)
        os.waitpid(pid, 0)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        notify.relay()
        assert manager.recv(100) == b"READY=1\nSTATUS=serving\nMAINPID=%d" % os.getpid()
        notify.relay()  # nothing more
        notify.close()


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    notify = Notify()
    notify.alive(100.0)
    assert notify.period_s == 0.0


@pytest.mark.parametrize(
    ("status", "text"), [(9, "SIGKILL"), (3 << 8, "exit code 3"), (11, "SIGSEGV"), (63, "signal 63")]
)
def test_an_exit_is_told_in_words(status: int, text: str) -> None:
    assert process.describe_exit(status) == text


def test_a_service_manager_that_does_not_read_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify = Notify()
        for _ in range(1000):
            notify.ready("serving")
        assert manager.recv(100).startswith(b"READY=1")
