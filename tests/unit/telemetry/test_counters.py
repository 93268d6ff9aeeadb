"""The page of counters: shared with forked processes, kept over their deaths, and never a reason to fail."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

from sbc.telemetry.counters import FIRST, GAUGES, MAGIC, WORDS, Counter, Kind
from sbc.telemetry.page import Page


def test_every_counter_has_a_word_of_its_own_and_a_sentence() -> None:
    words = [int(counter) for counter in Counter]
    assert words == list(range(FIRST, FIRST + len(words)))
    assert words[-1] < WORDS
    for counter in Counter:
        assert re.fullmatch(r"[A-Z0-9].*\.", counter.text), counter.name


def test_every_name_that_the_code_counts_exists() -> None:
    """A name that does not would be counted as OTHER, and nobody would see what was dropped."""
    used = {}
    for path in sorted((Path(__file__).parents[3] / "sbc").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = ast.unparse(node.func).rpartition(".")[2].lstrip("_").lower()
                if called == "count" and isinstance(node.args[0].value, str) and node.args[0].value.isupper():
                    used[node.args[0].value] = f"{path.name}:{node.lineno}"
    assert {name: place for name, place in used.items() if name not in Counter.__members__} == {}
    assert len(used) > 20


def test_counts_and_gauges() -> None:
    page = Page()
    page.open(Kind.SIP, 42, now_ns=7, wall_ns=2_000_000_000)
    assert (page.words[0], page.pid, page.beat_ns, page.start_s, page.words[4]) == (MAGIC, 42, 7, 2.0, Kind.SIP)
    page.count("DATAGRAMS_IN")
    page.count("DATAGRAMS_IN", 5)
    page.add(Counter.CALLS_ACTIVE, 2)
    page.add(Counter.CALLS_ACTIVE, -1)
    page.set(Counter.STORE_DOWN, 1)
    assert page.get(Counter.DATAGRAMS_IN) == 6
    assert page.values()[Counter.CALLS_ACTIVE] == 1
    assert page.get(Counter.STORE_DOWN) == 1
    page.count("CALLS_ACTIVE", -9)
    assert page.get(Counter.CALLS_ACTIVE) == 0


def test_an_unknown_name_counts_as_other_and_is_told_once() -> None:
    page = Page()
    told: list[str] = []
    page.on_unknown = told.append
    for _ in range(3):
        page.count("NO_SUCH_COUNTER")
    assert page.get(Counter.OTHER) == 3
    assert told == ["NO_SUCH_COUNTER"]


def test_a_new_life_keeps_counters_and_resets_gauges() -> None:
    page = Page()
    page.open(Kind.SIP, 1)
    page.ready()
    for counter in Counter:
        page.set(counter, 9)
    page.open(Kind.SIP, 2)
    assert not page.is_ready
    assert (page.pid, page.restarts) == (2, 1)
    assert {counter for counter, value in page.values().items() if value == 0} == GAUGES
    assert page.get(Counter.CALLS_STARTED) == 9


def test_a_media_page_is_left_alone_but_for_the_header() -> None:
    page = Page()
    page.open(Kind.MEDIA, 1)
    for word in range(FIRST, WORDS):
        page.words[word] = 3
    page.open(Kind.MEDIA, 2)
    assert set(page.words[FIRST:].tolist()) == {3}


def test_a_child_writes_and_its_parent_reads() -> None:
    page = Page()
    page.open(Kind.SIP, 0, now_ns=0)
    pid = os.fork()
    if pid == 0:
        page.count("CALLS_STARTED", 3)
        page.ready()
        os._exit(0)
    os.waitpid(pid, 0)
    assert page.get(Counter.CALLS_STARTED) == 3
    assert page.is_ready
    assert page.beat_ns > 0
