"""Releases of the product beside each other: copies of the package tree, of which one is in place, as after an
installation."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import media
import sbc
from sbc.selftest.node import wait

FIRST = sbc.__version__
ENDED = ("done", "refused", "failed")


class Releases:
    """``place`` is where the interpreter finds the product; :meth:`install` puts another release there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.place = directory / "packages"
        self.install(FIRST)

    @property
    def prefix(self) -> list[str]:
        """Before a command that is to find the release in place."""
        return ["env", "-C", str(self.place), f"PYTHONPATH={self.place}"]

    def install(self, version: str, *, spoil: tuple[str, str] | None = None) -> None:
        """Put a release there that calls itself so. ``spoil``: a file of it, and what stands in it instead."""
        tree = self._directory / f"release-{version}"
        for package in (sbc, media):
            source = Path(package.__path__[0])
            shutil.copytree(source, tree / source.name, copy_function=_linked)
        for name, text in {"sbc/__init__.py": _with_version(version), **dict([spoil] if spoil else [])}.items():
            path = tree / name
            path.unlink()
            path.write_text(text)
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                compiled.unlink()
        fresh = self._directory / "fresh"
        fresh.symlink_to(tree)
        fresh.rename(self.place)

    def take_over(self, folder: Path, main_pid: int, limit_s: float = 60.0) -> dict[str, Any]:  # Any: JSON values
        """Have the node of that folder and keeper take the release over that is in place; what it tells in the end.
        Failed where it does not come to one."""
        path = folder / "run" / "upgrade.json"
        path.unlink(missing_ok=True)
        os.kill(main_pid, signal.SIGUSR2)
        wait(lambda: told(path).get("state") in ENDED, limit_s, "the end of an upgrade")
        return told(path)


def told(path: Path) -> dict[str, Any]:  # Any: JSON values
    """How far an upgrade has come."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())  # Any: as above
    except FileNotFoundError:
        return {}
    return found


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)
    return target


def _with_version(version: str) -> str:
    return Path(sbc.__file__).read_text().replace(f'"{FIRST}"', f'"{version}"')
