"""Whether the compiled form of the hot modules is used: where each was made of the very source beside it, and not when
the environment says SBC_PURE=1. Otherwise all of them are interpreted, since compiled modules call each other directly.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).parent.parent


def choose() -> None:
    """Before any of these modules is imported: make them the interpreter's where they must be."""
    try:
        record: dict[str, str] = json.loads((_ROOT / "sbc" / "compiled.json").read_bytes())
    except (OSError, ValueError):
        return  # never compiled
    if os.environ.get("SBC_PURE") == "1" or not all(_is_of(_source(name), made_of) for name, made_of in record.items()):
        sys.meta_path.insert(0, _Interpreted(record))


def in_use() -> bool:
    """Whether this process runs the compiled form."""
    core = sys.modules.get("sbc.transaction.timers")
    return core is not None and not (core.__file__ or "").endswith(".py")


class _Interpreted(MetaPathFinder):
    """Finds the source of a module though its compiled form stands beside it."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_file_location(fullname, _source(fullname)) if fullname in self._names else None


def _source(name: str) -> Path:
    return _ROOT.joinpath(*name.split(".")).with_suffix(".py")


def _is_of(source: Path, made_of: str) -> bool:
    try:
        return hashlib.blake2b(source.read_bytes(), digest_size=16).hexdigest() == made_of
    except OSError:
        return False
