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
from tests.support.sbc import Sbc, eventually

FIRST = sbc.__version__


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
            shutil.copytree(source, tree / source.name, copy_function=os.link)
        for name, text in {"sbc/__init__.py": _with_version(version), **dict([spoil] if spoil else [])}.items():
            path = tree / name
            path.unlink()
            path.write_text(text)
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                compiled.unlink()
        fresh = self._directory / "fresh"
        fresh.symlink_to(tree)
        fresh.rename(self.place)

    def upgrade(self, node: Sbc, limit_s: float = 60.0) -> dict[str, Any]:  # Any: JSON values
        """Have a node take the release over that is in place; what it tells in the end."""
        path = node.directory / "run" / "upgrade.json"
        path.unlink(missing_ok=True)
        os.kill(node.main_pid, signal.SIGUSR2)

        def told() -> dict[str, Any]:  # Any: as above
            try:
                found: dict[str, Any] = json.loads(path.read_text())  # Any: as above
            except FileNotFoundError:
                return {}
            return found

        try:
            eventually(lambda: told().get("state") in ("done", "refused", "failed"), limit_s, "the end of an upgrade")
        except AssertionError as error:
            raise AssertionError(f"{error}: {told()}\n{node.log[-6000:]}") from None
        return told()


def _with_version(version: str) -> str:
    return Path(sbc.__file__).read_text().replace(f'"{FIRST}"', f'"{version}"')
