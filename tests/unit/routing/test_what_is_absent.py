"""What a route may not do is not on its object: not when it runs, and mypy says so before.

One line of LINES for each thing that a route type may not do. All go through mypy together, as a reload would check
them (:mod:`sbc.supervisor.proof`); the line that may be done stands beside each that may not.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sbc.routing import BadMessage, Branch, CallView, EstablishedCall, Failure, LocalRequest, Node, Reply, Request

ROOT = Path(__file__).parents[3]

# (route type, its object, what may not be done there, its name on the object)
FORBIDDEN = [
    ("branch_route", "Branch", "await it.reply(486)", "reply"),
    ("branch_route", "Branch", "await it.reject(486)", "reject"),
    ("branch_route", "Branch", 'await it.dial("carrier-b")', "dial"),
    ("branch_route", "Branch", 'await it.relay("carrier-b")', "relay"),
    ("branch_route", "Branch", 'await it.call.dial("carrier-b")', "call.dial"),
    ("branch_route", "Branch", "await it.call.reject(486)", "call.reject"),
    ("branch_route", "Branch", 'await it.call.release("no")', "call.release"),
    ("branch_route", "Branch", "it.call.media.engage()", "call.media"),
    ("onreply_route", "Reply", "await it.reject(486)", "reject"),
    ("onreply_route", "Reply", 'await it.dial("carrier-b")', "dial"),
    ("onreply_route", "Reply", 'await it.redirect("sip:1@192.0.2.1")', "redirect"),
    ("onreply_route", "Reply", "await it.call.dial_next()", "call.dial_next"),
    ("failure_route", "Failure", "it.drop()", "drop"),
    ("failure_route", "Failure", 'await it.relay("carrier-b")', "relay"),
    ("local_route", "LocalRequest", "await it.reply(200)", "reply"),
    ("local_route", "LocalRequest", "await it.reject(486)", "reject"),
    ("local_route", "LocalRequest", 'await it.dial("carrier-b")', "dial"),
    ("local_route", "LocalRequest", "it.drop()", "drop"),
    ("error_route", "BadMessage", 'await it.dial("carrier-b")', "dial"),
    ("error_route", "BadMessage", "it.call.key", "call"),
    ("error_route", "BadMessage", 'it.headers.set("X-A", "1")', "headers"),
    ("startup_route", "Node", "await it.reject(500)", "reject"),
    ("startup_route", "Node", "it.headers", "headers"),
    ("timer_route", "Node", 'await it.dial("carrier-b")', "dial"),
    ("event_route", "EstablishedCall", 'await it.dial("carrier-b")', "dial"),
    ("event_route", "EstablishedCall", "await it.reject(486)", "reject"),
    ("event_route", "EstablishedCall", "it.headers", "headers"),
]
# The same for what is there: a fault in the types of the facade would make the test above pass for the wrong reason.
ALLOWED = [
    ("route", "Request", "await it.reject(486)"),
    ("route", "Request", 'await it.call.dial("carrier-b")'),
    ("branch_route", "Branch", 'it.headers.set("X-A", "1")'),
    ("branch_route", "Branch", "it.drop()"),
    ("onreply_route", "Reply", 'it.headers.set("X-A", "1")'),
    ("failure_route", "Failure", "await it.call.dial_next()"),
    ("local_route", "LocalRequest", 'it.headers.set("X-A", "1")'),
    ("error_route", "BadMessage", "await it.reply(400)"),
    ("startup_route", "Node", 'it.log.info("up")'),
    ("timer_route(every_s=30)", "Node", "it.calls()"),
    ('event_route("own.event")', "EstablishedCall", 'await it.release("no")'),
]
CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (BadMessage, Branch, CallView, EstablishedCall, Failure, LocalRequest, Node, Reply, Request)
}
_PARTS = {("Branch", "call"): CallView, ("Reply", "call"): CallView}


def _module() -> list[str]:
    """A routes module with a route for each line above; line numbers count from 1."""
    lines = [f"from sbc.routing import Routes, {', '.join(CLASSES)}", "routes = Routes()", ""]
    for number, (kind, of, said, *_) in enumerate([*ALLOWED, *FORBIDDEN]):
        decorator = {"timer_route": "timer_route(every_s=30)", "event_route": 'event_route("own.event")'}.get(
            kind, kind
        )
        lines += [f"@routes.{decorator}", f"async def route{number}(it: {of}) -> None:", f"    {said}"]
    return lines


def _found() -> dict[str, list[str]]:
    """What mypy says of each statement."""
    lines = _module()
    folder = ROOT / ".mypy_cache" / "routes"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "absent.py"
    file.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={folder}", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        match = re.match(r".*absent\.py:(\d+): error: (.*)", line)
        assert match is not None, line
        number = int(match[1]) - 1
        found.setdefault(f"{lines[number - 1].partition(': ')[2]} {lines[number].strip()}", []).append(match[2])
    return found


def _key(of: str, said: str) -> str:
    return f"{of}) -> None: {said}"


def test_types_tell_what_a_route_may_do_from_what_it_may_not() -> None:
    pytest.importorskip("mypy")
    found = _found()
    for _, of, said, name in FORBIDDEN:
        (error, *_) = found.pop(_key(of, said), [f"{of}: {said} is no error"])
        assert f'has no attribute "{name.rpartition(".")[2]}"' in error
    assert found == {}  # nor is anything that may be done an error


@pytest.mark.parametrize(("kind", "of", "said", "name"), FORBIDDEN, ids=lambda value: str(value)[:24])
def test_what_a_route_may_not_do_is_not_on_its_object(kind: str, of: str, said: str, name: str) -> None:
    facade = CLASSES[of]
    *path, last = name.split(".")
    for part in path:
        facade = _PARTS[of, part]
    assert not hasattr(facade, last)
