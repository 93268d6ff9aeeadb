"""The proof of a reload, in a process of its own: the routes are imported, type-checked where mypy is installed, and
pass their tests and the dry runs of the configuration; only then they are taken to serve.

What it comes to is in the index of the versions (:mod:`sbc.routing.versions`). Whatever the operator's code does, it
costs this process, which has a limit of time.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import sbc
from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.routing.loader import load_routes
from sbc.routing.routes import Routes
from sbc.routing.versions import Candidate, Versions

LIMIT_S: Final = 120.0
TYPES_LIMIT_S: Final = 90.0
TESTS_LIMIT_S: Final = 90.0
FAULTS_MAX: Final = 20


def prove(config: Config, versions: Versions) -> bool:
    """Prove what is to serve with ``config``, and take it; False: it is refused, and the index says why."""
    wish = versions.take_wish()
    try:
        candidate = versions.candidate(config.routes, wish) if config.routes else None
        if candidate is None and wish is not None and wish.version:
            raise ConfigError(["the built-in routes serve; they have no versions"])
        faults = _faults(config, candidate, versions.folder)
        if not faults:
            versions.take(candidate or Candidate(b"", "", "", is_new=False))
    except ConfigError as error:
        faults = error.faults
    if faults:
        left_out = len(faults) - FAULTS_MAX
        versions.refuse([*faults[:FAULTS_MAX], *([f"and {left_out} more"] if left_out > 0 else [])])
    return not faults


def _faults(config: Config, candidate: Candidate | None, folder: Path) -> list[str]:
    routes: Routes | None = None
    if candidate is not None:
        routes = load_routes(config.routes, candidate.text)
        if candidate.is_new and (faults := type_faults(candidate, folder)):
            return faults
        if config.routes_tests and is_file(candidate) and (faults := test_faults(config.routes_tests)):
            return faults
    from sbc.simulator import command

    try:
        # Startup routes are about to ask real servers in every worker: what they find there decides now.
        tried = command.try_all(config, routes, ask_to_start=True)
    except Exception as error:  # whatever the operator's code raises
        return [f"a startup route failed: {sentence}" for sentence in command.sentences(error)]
    return [f"{one.title}: {one.unmet}" for one in tried if one.unmet]


def is_file(candidate: Candidate) -> bool:
    """Whether a candidate is what the file holds now, which is what tests try; a version of old was proven once."""
    try:
        return Path(candidate.source).read_bytes() == candidate.text
    except OSError:
        return False


def test_faults(paths: Sequence[str]) -> list[str]:
    """What the tests of the routes find, a sentence for each that failed. A missing pytest is a fault, too."""
    if importlib.util.find_spec("pytest") is None:
        return ["routes_tests: pytest is not installed here, so the routes cannot be tried: pip install pytest"]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-rfE", "--no-header", "-p", "no:cacheprovider"]
    folder = Path(os.path.commonpath(paths))
    environment = {**os.environ, "COLUMNS": "400", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *paths],
            capture_output=True,
            text=True,
            timeout=TESTS_LIMIT_S,
            env=environment,
            cwd=folder if folder.is_dir() else folder.parent,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"routes_tests: the tests took longer than {TESTS_LIMIT_S:.0f} s"]
    if done.returncode == 0:
        return []
    heads = "FAILED ", "ERROR "
    failed = [line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith(heads)]
    if not failed:
        failed = [(done.stdout + done.stderr).strip()[-300:]]
    return [f"routes_tests: {sentence}" for sentence in failed]


def type_faults(candidate: Candidate, folder: Path) -> list[str]:
    """What mypy finds in a text, a sentence with file and line each; none where it is not installed."""
    if importlib.util.find_spec("mypy") is None:
        return []
    copy = folder / "candidate" / Path(candidate.source).name
    try:
        copy.parent.mkdir(mode=0o750, exist_ok=True, parents=True)
        copy.write_bytes(candidate.text)
    except OSError as error:
        return [f"state_dir: cannot write {copy}: {(error.strerror or str(error)).lower()}"]
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-color-output", "--check-untyped-defs"]
    command += [
        "--follow-imports=silent",
        "--ignore-missing-imports",
        "--config-file=",
        f"--cache-dir={folder / 'mypy'}",
    ]
    environment = dict(os.environ)
    parent = str(Path(sbc.__file__).resolve().parents[1])
    if "-packages" not in parent:  # a checkout; mypy finds an installed package by itself
        environment["MYPYPATH"] = parent
    try:
        done = subprocess.run(
            [*command, str(copy)],
            capture_output=True,
            text=True,
            timeout=TYPES_LIMIT_S,
            env=environment,
            cwd=folder,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"the type check took longer than {TYPES_LIMIT_S:.0f} s"]
    if done.returncode == 0:
        return []
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    named = str(copy.relative_to(folder)), str(copy)
    found = [line.replace(named[1], candidate.source).replace(named[0], candidate.source) for line in lines]
    return found or [f"the type check failed: {(done.stderr or done.stdout).strip()[-300:]}"]
