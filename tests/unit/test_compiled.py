"""What mypyc asks of the modules that it compiles and would not say by itself (``ext/compiled.txt``)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = [line for line in (ROOT / "ext" / "compiled.txt").read_text().splitlines() if line and not line.startswith("#")]


def source(name: str) -> Path:
    return ROOT.joinpath(*name.split(".")).with_suffix(".py")


def classes(path: Path) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))


def bases(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).rpartition(".")[2] for base in node.bases}


def namesakes(path: Path) -> set[str]:
    """Names that a module has from modules that are not compiled."""
    return {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module not in NAMES
        for alias in node.names
    }


@pytest.mark.parametrize("name", NAMES)
def test_class_attributes_say_that_they_are(name: str) -> None:
    """Without ClassVar an assignment is a default of instances, and what a subclass assigns may not be seen."""
    for node in classes(source(name)):
        if bases(node) & {"NamedTuple", "Protocol", "Enum", "IntEnum"}:
            continue
        bare = [ast.unparse(target) for stmt in node.body if isinstance(stmt, ast.Assign) for target in stmt.targets]
        assert set(bare) <= {"__slots__"}, f"{name}.{node.name}"


def test_nobody_else_derives_from_a_compiled_class() -> None:
    compiled = {
        node.name
        for name in NAMES
        for node in classes(source(name))
        if not bases(node) & {"NamedTuple", "Protocol", "ValueError"} and not node.name.startswith("_")
    }
    for path in [*(ROOT / "sbc").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]:
        if ".".join(path.relative_to(ROOT).with_suffix("").parts) not in NAMES:
            others = namesakes(path)
            for node in classes(path):
                assert not (bases(node) & compiled) - others, f"{path}: {node.name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_dataclass_has_fields_of_types_that_are_there_when_it_runs(name: str) -> None:
    tree = ast.parse(source(name).read_text())
    later = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for stmt in node.body
        if isinstance(stmt, ast.ImportFrom)
        for alias in stmt.names
    }
    for node in classes(source(name)):
        if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            used = {
                part.id
                for stmt in node.body
                if isinstance(stmt, ast.AnnAssign)
                for part in ast.walk(stmt.annotation)
                if isinstance(part, ast.Name)
            }
            assert not used & later, f"{name}.{node.name}"


def test_the_interpreter_serves_where_the_environment_says_so() -> None:
    program = "import sbc.compiled, sbc.transaction.timers as t; print(sbc.compiled.in_use(), t.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "SBC_PURE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == ["False", str(ROOT / "sbc" / "transaction" / "timers.py")]
