"""The spool of CDRs: what is on the disk when, what a successor finds, and what it makes of a broken disk or file."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sbc.store.spool import HEADER, SEGMENT_BYTES, Spool, open_spool


class Notes(list[tuple[str, dict[str, Any]]]):  # Any: log fields
    """What was logged."""

    def __call__(self, level: str, event: str, fields: dict[str, Any]) -> None:  # Any: log fields
        self.append((event, fields))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self]


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def made(tmp_path: Path, notes: Notes) -> Iterator[Callable[..., Spool]]:
    spools: list[Spool] = []

    def make(folder: str = "sip-0", *others: str) -> Spool:
        spool = Spool(tmp_path / folder, notes, [tmp_path / other for other in others], gather_s=0.001, retry_s=0.01)
        spools.append(spool)
        return spool

    yield make
    for spool in spools:
        spool.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def cdr(number: int) -> bytes:
    return b'{"id":"call%d"}' % number


def put(spool: Spool, *numbers: int) -> None:
    for number in numbers:
        spool.add(number, number % 1024, f"call{number}", cdr(number))
    until(lambda: not spool.unsaved and not spool._waiting and on_disk(spool, numbers))


def on_disk(spool: Spool, numbers: tuple[int, ...]) -> bool:
    return sum(segment.last >= number >= segment.first for segment in spool._segments for number in numbers) == len(
        numbers
    )


def files(spool: Spool) -> list[Path]:
    return sorted(spool._folder.glob("*.cdr"))


def text(spool: Spool) -> bytes:
    try:
        return b"".join(path.read_bytes() for path in files(spool))
    except FileNotFoundError:  # removed by its thread just now
        return b""


def test_what_is_not_in_the_database_is_found_by_a_successor(made: Callable[..., Spool]) -> None:
    first = made()
    assert first.recover() == []
    assert first.next_number == 1
    first.start()
    put(first, 1, 2, 3)
    first.close()
    second = made()
    left = second.recover()
    assert [(item.member, item.shard, item.cdr) for item in left] == [(f"call{n}", n, cdr(n)) for n in (1, 2, 3)]
    assert [item.number for item in left] == [1, 2, 3]
    assert second.next_number == 4


def test_the_segment_in_use_is_emptied_and_an_old_one_removed_when_all_is_in_the_database(
    made: Callable[..., Spool],
) -> None:
    first = made()
    first.recover()
    first.start()
    put(first, 1, 2)
    assert text(first).count(b"\n") == 3
    first.written([2, 1])
    until(lambda: text(first) == HEADER)
    put(first, 3)
    first.close()
    second = made()
    [left] = second.recover()
    second.start()
    put(second, 2, 3)
    assert len(files(second)) == 2
    second.written([left.number])
    until(lambda: len(files(second)) == 1)
    second.written([2, 3])
    until(lambda: text(second) == HEADER)


def test_a_mark_tells_a_successor_what_is_in_the_database(made: Callable[..., Spool]) -> None:
    first = made()
    first.recover()
    first.start()
    put(first, 1, 2, 3)
    first.written([3, 1])
    until(lambda: first._segments[0].low == 1)
    put(first, 4)
    first.close()
    assert b" written 1\n" in text(first)
    assert [item.cdr for item in made().recover()] == [cdr(2), cdr(3), cdr(4)]


def test_what_is_in_the_database_before_the_disk_has_it_is_not_written(made: Callable[..., Spool]) -> None:
    spool = made()
    spool.recover()
    for number in (1, 2, 3):
        spool.add(number, 0, f"call{number}", cdr(number))
    spool.written([1, 3])
    assert spool.unsaved == 1
    spool.start()
    until(lambda: b"call2" in text(spool))
    assert b"call1" not in text(spool)
    spool.written([2])
    until(lambda: text(spool) == HEADER)
    assert not spool._early


def test_segments_change_by_size(made: Callable[..., Spool]) -> None:
    spool = made()
    spool.recover()
    spool.start()
    long = b'{"x":"%b"}' % (b"x" * 100_000)
    numbers = range(1, 3 * SEGMENT_BYTES // len(long))
    for number in numbers:
        spool.add(number, 0, "call", long)
        until(lambda: not spool._waiting)
    until(lambda: on_disk(spool, tuple(numbers)) and len(files(spool)) == 3)
    spool.written(numbers)
    until(lambda: text(spool) == HEADER and len(files(spool)) == 1)


def test_a_line_torn_by_a_death_costs_itself_only(made: Callable[..., Spool], notes: Notes) -> None:
    first = made()
    first.recover()
    first.start()
    put(first, 1, 2)
    first.close()
    [path] = files(first)
    whole = path.read_bytes()
    for cut in range(len(HEADER), len(whole)):
        path.write_bytes(whole[:cut])
        second = made()
        found = [item.cdr for item in second.recover()]
        assert found == [cdr(1), cdr(2)][: whole[:cut].count(b"\n") - 1]
        second.close()
    assert not any("set aside" in event for event in notes.events)


@pytest.mark.parametrize(
    "rubbish",
    [b"deadbeef 7 0 x {}\n", b"\0" * 300 + b"\n", b"\n", b"88888888 written 99\n"],
)
def test_lines_that_nobody_can_read_are_passed_over_and_the_file_is_set_aside_afterwards(
    made: Callable[..., Spool], notes: Notes, rubbish: bytes
) -> None:
    first = made()
    first.recover()
    first.start()
    put(first, 1, 2)
    first.close()
    [path] = files(first)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], rubbish, *lines[2:]]))
    second = made()
    assert [item.cdr for item in second.recover()] == [cdr(1), cdr(2)]
    assert any("cannot be read" in event for event in notes.events)
    second.start()
    second.written([1, 2])
    until(lambda: not path.exists())
    assert rubbish in path.with_suffix(".bad").read_bytes()
    second.close()
    assert made().recover() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"portcullis-cdr-spool 2\nsomething", "another version"), (b"\x7fELF" + b"\0" * 5000, "no CDR spool")],
)
def test_a_file_of_another_kind_is_set_aside(
    made: Callable[..., Spool], notes: Notes, tmp_path: Path, content: bytes, said: str
) -> None:
    folder = tmp_path / "sip-0"
    folder.mkdir()
    (folder / "00000007.cdr").write_bytes(content)
    (folder / "00000009.cdr").write_bytes(HEADER[:10])  # torn as it was made
    (folder / "letter.txt").write_text("not ours")
    spool = made()
    assert spool.recover() == []
    assert said in notes.events[0]
    assert (folder / "00000007.bad").read_bytes() == content
    spool.start()
    put(spool, 1)
    assert [path.name for path in files(spool)] == ["00000010.cdr"]
    assert (folder / "letter.txt").exists()


def test_a_full_disk_keeps_cdrs_in_memory_until_there_is_room(
    made: Callable[..., Spool], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that ends half way leaves no half line in front of what comes later."""
    spool = made()
    spool.recover()
    spool.start()
    put(spool, 1)
    full = True
    write = os.write

    def writing(fd: int, data: Any) -> int:  # Any: a buffer
        if fd != spool._fd or not full:
            return write(fd, data)
        if len(data) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, bytes(data)[: len(data) // 2])

    def reserve(_fd: int, _start: int, _length: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", writing)
    monkeypatch.setattr(os, "posix_fallocate", reserve)
    for number in range(2, 50):
        spool.add(number, 0, f"call{number}", cdr(number))
    until(lambda: bool(spool.error))
    assert "no space left on device" in spool.error
    assert str(spool._folder) in spool.error
    until(lambda: spool.unsaved == 48)
    spool.written(range(10, 50))  # these are in the database; the error is still one while there is no room
    time.sleep(0.05)
    assert spool.error
    assert spool.unsaved == 8
    spool.written(range(2, 10))
    time.sleep(0.05)
    assert spool.error
    spool.add(50, 0, "call50", cdr(50))
    full = False
    until(lambda: not spool.error)
    assert notes.events.count("CDRs cannot be kept on disk: they are kept in memory") == 1
    assert notes.events[-1] == "CDRs are kept on disk again"
    spool.close()
    assert [item.cdr for item in made().recover()] == [cdr(1), cdr(50)]


def test_a_folder_that_cannot_be_used_is_told_of_and_tried_again(
    made: Callable[..., Spool], notes: Notes, tmp_path: Path
) -> None:
    (tmp_path / "sip-0").write_text("in the way")
    spool = made()
    assert spool.recover() == []
    spool.start()
    spool.add(1, 0, "call1", cdr(1))
    until(lambda: bool(spool.error))
    assert spool.unsaved == 1
    (tmp_path / "sip-0").unlink()
    until(lambda: not spool.error)
    spool.close()
    assert [item.cdr for item in made().recover()] == [cdr(1)]


def test_a_folder_in_use_is_left_alone_until_its_user_has_ended(made: Callable[..., Spool], tmp_path: Path) -> None:
    first = made()
    first.recover()
    first.start()
    put(first, 1)
    second = made()
    assert second.recover() == []
    assert "another process" in second.error
    second.start()
    second.add(1, 0, "call9", cdr(9))
    first.close()
    until(lambda: not second.error)
    second.close()
    assert [item.cdr for item in made().recover()] == [cdr(1), cdr(9)]


def test_a_worker_takes_over_what_one_left_that_is_no_more(made: Callable[..., Spool], tmp_path: Path) -> None:
    for name, number in (("sip-0", 1), ("sip-2", 2)):
        spool = made(name)
        spool.recover()
        spool.start()
        spool.add(1, number, f"call{number}", cdr(number))
        spool.close()
    after = made("sip-0", "sip-2")
    assert [(item.number, item.cdr) for item in after.recover()] == [(1, cdr(1)), (2, cdr(2))]
    after.start()
    put(after, 3)
    until(lambda: not list((tmp_path / "sip-2").glob("*.cdr")))
    after.close()
    assert [item.cdr for item in made().recover()] == [cdr(1), cdr(2), cdr(3)]


def test_each_worker_sees_to_some_of_those_that_are_no_more(tmp_path: Path, notes: Notes) -> None:
    for name in ("sip-0", "sip-1", "sip-2", "sip-3", "sip-5", "sip-x", "media-7"):
        (tmp_path / name).mkdir()
    config: Any = type("Config", (), {"cdr": type("Cdr", (), {"spool": str(tmp_path)}), "state_dir": ""})
    assert [path.name for path in open_spool(config, 0, notes, lambda n: n > 1 and n % 2 == 0)._others] == ["sip-2"]
    assert [path.name for path in open_spool(config, 1, notes, lambda n: n > 1 and n % 2 == 1)._others] == [
        "sip-3",
        "sip-5",
    ]
    config.cdr.spool, config.state_dir = "", str(tmp_path / "none")
    assert open_spool(config, 0, notes, lambda _: True)._folder == tmp_path / "none" / "spool" / "sip-0"


def test_a_folder_that_somebody_removed_is_no_place_to_write_on(made: Callable[..., Spool]) -> None:
    spool = made()
    spool.recover()
    spool.start()
    put(spool, 1)
    files(spool)[0].unlink()
    put(spool, 2)
    assert b"call2" in text(spool)
