"""Imports go downwards only: the layer list of docs/architecture.md, held against the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Higher number: higher layer. A package may import its own layer's listed friends and anything strictly lower.
LAYERS: dict[str, int] = {
    "sbc.__main__": 15,
    "sbc.testing": 15,
    "sbc.cli": 14,
    "sbc.selftest": 13,
    "sbc.demo": 12,
    "sbc.supervisor": 11,
    "sbc.importer": 10,
    "sbc.ha": 10,
    "sbc.simulator": 10,
    "sbc.worker": 9,
    "sbc.management": 8,
    "sbc.routing": 7,
    "sbc.lookups": 6,
    "sbc.media_client": 5,
    "sbc.services": 5,
    "sbc.store": 5,
    "sbc.database": 5,
    "sbc.transport": 5,
    "sbc.telemetry": 5,
    "sbc.b2bua": 4,
    "sbc.policy": 3,
    "sbc.dialog": 3,
    "sbc.transaction": 2,
    "sbc.sdp": 2,
    "sbc.sip": 1,
    "sbc.config": 1,
    "sbc.clock": 0,
    "sbc.errors": 0,
    "sbc.masks": 0,
    "sbc.compiled": 0,
}
# Modules of the core: nothing here may touch a clock, a socket, a log, an event loop or a random number.
CORE = ("sbc.sip", "sbc.sdp", "sbc.transaction", "sbc.dialog", "sbc.policy", "sbc.b2bua", "sbc.services")
IMPURE = {"socket", "time", "asyncio", "logging", "structlog", "random", "secrets", "select", "threading", "subprocess"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for top in ("sbc", "media"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.append((name, path))
    return found


def imports(path: Path) -> set[str]:
    """Names of all modules that a file imports, also inside functions; not those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(child for stmt in node.body for child in ast.walk(stmt))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def package(name: str) -> str:
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_downwards(name: str, path: Path) -> None:
    for target in imports(path):
        if name.startswith("media"):
            assert not target.startswith("sbc"), f"{name} imports {target}: the media plane knows nothing of sbc"
            continue
        if target.startswith("media") and not name.startswith(
            ("sbc.supervisor", "sbc.management", "sbc.demo", "sbc.cli", "sbc.ha")
        ):
            assert target == "media" or target.startswith("media.protocol"), f"{name} imports {target}"
        mine, theirs = package(name), package(target)
        if not theirs.startswith("sbc.") or theirs == mine or theirs not in LAYERS:
            continue
        assert mine in LAYERS or name == "sbc", f"{name}: say in LAYERS where {mine} belongs"
        assert LAYERS[theirs] < LAYERS.get(mine, 99), f"{name} imports {target}: upwards or sideways"


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_core_is_pure(name: str, path: Path) -> None:
    if name.startswith(CORE):
        found = {target.split(".")[0] for target in imports(path)} & IMPURE
        assert not found, f"{name} imports {found}: the core is handed time, randomness and bytes"


def test_every_package_has_a_layer() -> None:
    packages = {package(name) for name, path in modules() if name.startswith("sbc.")}
    assert not {p for p in packages if p not in LAYERS}
