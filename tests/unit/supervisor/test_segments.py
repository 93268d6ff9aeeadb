"""Files of media memory: what is found again, what is set aside, what is never touched, and what is left behind."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from media import segment, state
from media.rules import Rule
from media.state import Arena, state_size
from sbc.config.models import Config
from sbc.supervisor import segments
from sbc.supervisor.segments import Reader, Segments, aside, place
from sbc.telemetry import log

CAPACITY = 8
READER = Reader(state_size(CAPACITY), lambda fd: segment.fault(fd, CAPACITY), lambda fd: segment.sessions(fd, CAPACITY))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Config:
    """A node whose run_dir is on a disk, with a folder of the test for files in memory."""
    monkeypatch.setattr(segments, "SHARED", tmp_path / "shm")
    monkeypatch.setattr(segments, "LOCK_WAIT_S", 0.05)
    monkeypatch.setattr(segments, "_filesystem", lambda path: "ext4")
    (tmp_path / "shm").mkdir()
    (tmp_path / "run").mkdir()
    log.configure("debug", "json", "test")
    return Config.model_construct(realms={}, run_dir=str(tmp_path / "run"))


def leave(config: Config, *, sessions: int = 1, identity: bytes = b'{"s":"x"}') -> Path:
    """What a former run has left, its processes gone."""
    made = Segments(config, 1, READER, lasting=True)
    arena = Arena(made.fds[0], CAPACITY)
    for _ in range(sessions):
        slot = arena.take_slot()
        assert slot is not None
        arena.commit(slot, identity)
    os.close(made.fds[0])
    return place(config, 0)


def said(capfd: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_file_with_sessions_is_found_again_and_one_without_is_removed(config: Config) -> None:
    path = leave(config)
    assert path.stat().st_mode & 0o7777 == 0o600
    second = Segments(config, 1, READER, lasting=True)
    assert Arena(second.fds[0], CAPACITY).scan() == ({0: b'{"s":"x"}'}, 0)
    second.close()
    assert path.exists()
    third = Segments(config, 1, READER, lasting=True)
    arena = Arena(third.fds[0], CAPACITY)
    assert arena.resumed
    arena.commit(0, b"")
    third.close()
    assert not path.exists()


def test_sessions_that_were_being_written_count(config: Config) -> None:
    made = Segments(config, 1, READER, lasting=True)
    Arena(made.fds[0], CAPACITY).take_slot()
    assert READER.sessions(made.fds[0]) == 1
    made.close()
    assert place(config, 0).exists()


def test_what_cannot_outlive_the_node_is_no_file(config: Config) -> None:
    made = Segments(config, 2, READER, lasting=False)
    assert not place(config, 0).exists()
    assert os.fstat(made.fds[1]).st_size == READER.size
    made.close()


def test_it_lies_in_run_dir_where_that_is_in_memory(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place(config, 3).parent.name == "shm"
    assert place(config, 3) != place(config, 4)
    monkeypatch.setattr(segments, "_filesystem", lambda path: "tmpfs")
    assert place(config, 3) == Path(config.run_dir) / "media-3.state"


@pytest.mark.parametrize(
    ("at", "octets", "reason"),
    [
        (0, b"\xff", "is damaged"),
        (8, b"\x63", "was written by another version of the program"),
        (12, b"\x63", "was written by another version of the program"),
        (32, b"\xa5\xa5", "was left before the machine started anew"),
    ],
)
def test_what_cannot_be_gone_on_with_is_set_aside_with_one_line(
    config: Config, capfd: pytest.CaptureFixture[str], at: int, octets: bytes, reason: str
) -> None:
    path = leave(config)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(octets)
    capfd.readouterr()
    second = Segments(config, 1, READER, lasting=True)
    lines = said(capfd)
    assert len(lines) == 1
    assert reason in lines[0]["event"]
    assert aside(path).exists()
    assert not Arena(second.fds[0], CAPACITY).resumed
    second.close()
    assert not path.exists()
    assert not aside(path).exists()


def test_a_file_of_another_size_is_set_aside(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    path = leave(config)
    os.truncate(path, READER.size - 4096)
    capfd.readouterr()
    Segments(config, 1, READER, lasting=True).close()
    assert "is damaged" in capfd.readouterr().err


def test_no_link_is_followed_and_nothing_of_others_is_touched(
    config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    path = place(config, 0)
    path.symlink_to(other)
    made = Segments(config, 1, READER, lasting=True)
    assert "media memory cannot be a file" in capfd.readouterr().err
    assert os.fstat(made.fds[0]).st_size == READER.size  # memory all the same
    made.close()
    assert path.is_symlink()
    path.unlink()
    os.link(other, path)
    Segments(config, 1, READER, lasting=True).close()
    assert "not ours" in capfd.readouterr().err
    assert other.read_bytes() == b"precious"


def test_what_others_could_read_is_not_gone_on_with(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    path = leave(config)
    path.chmod(0o644)
    made = Segments(config, 1, READER, lasting=True)
    assert "could be read by others" in capfd.readouterr().err
    assert os.fstat(made.fds[0]).st_mode & 0o777 == 0o600
    made.close()


def test_a_file_in_use_is_waited_for_and_then_set_aside(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    path = leave(config)
    with path.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        made = Segments(config, 1, READER, lasting=True)
        assert "is still in use" in capfd.readouterr().err
        assert not Arena(made.fds[0], CAPACITY).resumed
        made.close()


def test_memory_of_workers_that_are_no_more_is_removed(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    for fd in Segments(config, 3, READER, lasting=True).fds:
        os.close(fd)
    Segments(config, 1, READER, lasting=True).close()
    assert [place(config, slot).exists() for slot in range(3)] == [False] * 3
    assert capfd.readouterr().err.count("fewer media workers") == 2


def test_the_shape_tells_versions_apart_by_every_field() -> None:
    """A field that only changed its name, or its place, is another state."""
    fields = state._fields(Rule)
    assert "last_arrival_ns@56:c_ulong8" in fields
    assert "rtp_remote@" in fields
    assert "family@0" in fields
