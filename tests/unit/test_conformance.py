"""``docs/conformance.md`` says which test holds us to what: this holds the page to the tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = (ROOT / "docs" / "conformance.md").read_text()
NAMED = re.findall(r"`((?:\w+/)+test_\w+)(?:::(\w+))?`", PAGE)
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("|---", "| Section |"))]
# Every test of these is a flow of an RFC, so each must have its place on the page.
WHOLE = ("test_rfc3665", "test_rfc5359", "test_rfc5407", "test_offer_answer", "test_topology_edges")


@cache
def names_in(module: str) -> frozenset[str]:
    """The names of the tests of a module below tests/; empty where there is no such module."""
    path = TESTS / f"{module}.py"
    if not path.is_file():
        return frozenset()
    found = ast.parse(path.read_text()).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in found if isinstance(node, kinds) and node.name.startswith("test_"))


def test_the_page_is_read() -> None:
    assert len(NAMED) > 150
    assert len(ROWS) > 90


@pytest.mark.parametrize(("module", "name"), sorted(set(NAMED)))
def test_a_named_test_exists(module: str, name: str) -> None:
    names = names_in(module)
    assert names, f"there is no tests/{module}.py with a test"
    assert not name or name in names, f"tests/{module}.py has no {name}"


def test_every_row_names_a_test_or_says_that_there_is_none() -> None:
    bare = [row for row in ROWS if "`" not in row and "*not covered*" not in row]
    heads = [row for row in bare if row.endswith("| Tests |")]
    assert bare == heads


@pytest.mark.parametrize("module", WHOLE)
def test_every_flow_has_its_place(module: str) -> None:
    named = {name for path, name in NAMED if path == f"conformance/{module}"}
    assert names_in(f"conformance/{module}") - named == set()
