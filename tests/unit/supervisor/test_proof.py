"""What a reload must pass before it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sbc.config.models import Config
from sbc.routing.versions import Candidate, Versions, Wish
from sbc.supervisor import proof
from tests.unit.simulator.world import GIVEN

HEAD = "from sbc.routing import Node, Request, Routes\nroutes = Routes()\n"
ROUTE = "@routes.route\nasync def main(request: Request) -> None:\n"
GOOD = HEAD + ROUTE + '    await request.call.dial("carrier-b")\n'


class Bench:
    """A node with one good version; a reload is proven as the supervisor's child does it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mine.py"
        self.file.write_text(GOOD)
        self.versions = Versions(str(folder / "state"))
        self.versions.adopt(str(self.file))
        self.given: dict[str, Any] = {**GIVEN, "routes": str(self.file)}  # Any: what the YAML would hold
        self.given["dry_runs"] = [{"call": "1", "source": "office", "by": "carrier-b"}]

    def proven(self, text: str) -> list[str]:
        self.file.write_text(text)
        good = proof.prove(Config.model_validate(self.given), self.versions)
        refused = list(self.versions.read().refused)
        assert good is not bool(refused)
        return refused


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(proof, "type_faults", lambda *_: [])
    return Bench(tmp_path)


def test_what_passes_is_taken(bench: Bench) -> None:
    assert bench.proven(GOOD + "# better\n") == []
    assert bench.versions.read().current == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = (\n", "{file}:1: '(' was never closed"),
        ("import nothing_of_this_name\n", "{file}:1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        (HEAD, "{file}: has no function under @routes.route"),
        (
            HEAD + ROUTE + "    await request.reject(480)\n",
            "dry run 1, INVITE 1 from office: expected 200 OK, got 480 Temporarily Unavailable",
        ),
        (
            GOOD + "@routes.startup_route\nasync def load(node: Node) -> None:\n    raise OSError('no table')\n",
            "a startup route failed: {file}:8: OSError: no table",
        ),
    ],
)
def test_what_does_not_leaves_the_old_one_with_the_reason(bench: Bench, text: str, reason: str) -> None:
    assert bench.proven(text) == [reason.format(file=bench.file)]
    assert bench.versions.read().current == 1


def test_a_rollback_must_pass_too(bench: Bench) -> None:
    bench.proven(HEAD + ROUTE + '    await request.call.dial("carrier-a")\n')
    assert bench.versions.read().current == 1
    bench.given["dry_runs"] = [{"call": "1", "source": "office", "by": "carrier-a"}]
    assert bench.proven(bench.file.read_text()) == []
    bench.versions.wish(Wish(1))
    assert "expected an answer by carrier-a, got one by carrier-b" in bench.proven(bench.file.read_text())[0]
    assert bench.versions.read().current == 2
    bench.versions.wish(Wish(9))
    assert "no version 9 of" in bench.proven(bench.file.read_text())[0]


TESTS = """\
from sbc.testing import Sbc, staged

sbc = staged({given}, {routes!r})


def test_calls_of_the_office_go_to_carrier_b(sbc: Sbc) -> None:
    assert sbc.dry_run("1", "office").by == "carrier-b"


def test_nothing() -> None:
    pass
"""


def test_tests_of_the_operators_own_are_run(bench: Bench, tmp_path: Path) -> None:
    """Those of the file; a version that was proven in its day is not tried by the tests of today."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_mine.py").write_text(TESTS.format(given=repr(GIVEN), routes=str(bench.file)))
    bench.given["routes_tests"] = [str(tests)]
    bench.given["dry_runs"] = []
    assert bench.proven(GOOD + "# better\n") == []
    (fault,) = bench.proven(GOOD.replace("carrier-b", "carrier-a"))
    assert fault.startswith("routes_tests: test_mine.py::test_calls_of_the_office_go_to_carrier_b - ")
    assert "carrier-a" in fault
    assert bench.versions.read().current == 2
    (tests / "test_mine.py").write_text("def test_of_today() -> None:\n    assert not 'this'\n")
    bench.versions.wish(Wish(1))
    assert bench.proven(GOOD + "# another\n") == []
    assert bench.versions.read().current == 3
    assert "test_of_today" in bench.proven(GOOD + "# more\n")[0]


def test_tests_that_cannot_be_read_are_a_fault(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name\n")
    bench.given["routes_tests"] = [str(tmp_path / "test_broken.py")]
    (fault,) = bench.proven(GOOD)
    assert "test_broken.py" in fault


def test_the_built_in_routes_have_no_versions_but_dry_runs(bench: Bench) -> None:
    bench.given.update(routes="", dry_runs=[{"call": "1", "source": "carrier-b"}])
    assert "got 404 Not Found" in bench.proven("")[0]
    bench.versions.wish(Wish(1))
    assert bench.proven("") == ["the built-in routes serve; they have no versions"]


def test_faults_of_types_have_the_name_of_the_file(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    file = str(tmp_path / "mine.py")
    wrong = Candidate(b"def rate(number: str) -> int:\n    return number\n\n\nrate(7)\n", file, "reload")
    found = proof.type_faults(wrong, tmp_path)
    assert [line.partition(": error:")[0] for line in found] == [f"{file}:2", f"{file}:5"]
    assert proof.type_faults(Candidate(b"x: int = 1\n", file, "reload"), tmp_path) == []
