"""Two instances on one machine: the example for two active nodes, and what they must not share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sbc.cli import app
from sbc.config import loader
from sbc.config.beside import clashes
from sbc.config.models import Config

EXAMPLES = Path(__file__).parents[3] / "conf" / "active-active"


def example(folder: Path, group: str, *changes: tuple[str, str]) -> Path:
    """The example as on a machine that has its interfaces."""
    text = re.sub(r"eth\d", "lo", (EXAMPLES / f"{group}.yaml").read_text())
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / f"{group}.key").write_text("k" * 64)
    path = folder / f"{group}.yaml"
    path.write_text(text)
    return path


def both(folder: Path, *changes: tuple[str, str]) -> tuple[Config, Config]:
    return loader.load(example(folder, "east", *changes)), loader.load(example(folder, "west"))


def test_the_examples_are_good_and_fit_beside_each_other(tmp_path: Path) -> None:
    east, west = both(tmp_path)
    assert clashes(east, west) == clashes(west, east) == []
    assert east.ha is not None
    assert west.ha is not None
    assert (east.ha.prefers, west.ha.prefers) == (True, False)
    assert loader.check(tmp_path / "east.yaml")[1] == []
    said = CliRunner().invoke(
        app, ["check", "-c", str(tmp_path / "east.yaml"), "--beside", str(tmp_path / "west.yaml")]
    )
    assert said.exit_code == 0, said.output


def test_the_other_machine_has_what_the_comments_say(tmp_path: Path) -> None:
    """The lines with a star are all that differs, and the two ends of the paths meet."""
    for group in ("east", "west"):
        starred = [line for line in (EXAMPLES / f"{group}.yaml").read_text().splitlines() if "# *" in line]
        assert [line.split()[0] for line in starred] == ["name:", "prefers:", "-", "-"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("node: east", "node: west", "node: both are called west"),
        ("/run/sbc-east", "/run/sbc-west", "run_dir: both use /run/sbc-west"),
        ("state_dir: /var/lib/sbc-east", "state_dir: /var/lib/sbc-west", "state_dir: both use"),
        ("127.0.0.1:9091", "127.0.0.1:9092", "management.metrics: 127.0.0.1 port 9092 (tcp)"),
        ("127.0.0.1:9091", "0.0.0.0:9092", "management.metrics: 0.0.0.0 port 9092 (tcp)"),
        ("10.9.0.1:7400", "10.9.0.1:7500", "ha.paths: 10.9.0.1 port 7500 (udp) is also that of ha.paths"),
        ("192.0.2.10", "192.0.2.20", "ha.addresses: 192.0.2.20 is in both groups"),
        ("192.0.2.10", "192.0.2.20", "realms.outside.listen: 192.0.2.20 port 5060 (tcp)"),
        ("192.0.2.10, ports: 40000-49999", "192.0.2.20, ports: 49000-49999", "realms.outside.media: 192.0.2.20 port"),
    ],
)
def test_what_both_want_is_named(tmp_path: Path, before: str, after: str, said: str) -> None:
    east, west = both(tmp_path, (before, after))
    assert any(clash.startswith(said) for clash in clashes(east, west)), clashes(east, west)


def test_embedded_stores_need_a_port_each(tmp_path: Path) -> None:
    for group in ("east", "west"):
        example(tmp_path, group, ("store: redis://10.9.0.5:6379/0", "store: embedded"))
    east, west = (loader.load(tmp_path / f"{group}.yaml") for group in ("east", "west"))
    assert [clash.partition(":")[0] for clash in clashes(east, west)] == ["ha.store_port"] * 2


def test_the_command_names_a_clash_as_a_fault(tmp_path: Path) -> None:
    example(tmp_path, "east", ("127.0.0.1:9091", "127.0.0.1:9092"))
    example(tmp_path, "west")
    said = CliRunner().invoke(
        app, ["check", "-c", str(tmp_path / "east.yaml"), "--beside", str(tmp_path / "west.yaml")]
    )
    assert said.exit_code == 1
    assert "management.metrics: 127.0.0.1 port 9092 (tcp) is also that of management.metrics" in said.output
