"""The configuration of a pair: what is taken, and the sentences about what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sbc.config import loader

BASE = """\
realms:
  one: { listen: [udp:192.0.2.10:5060], media: { address: 192.0.2.10 } }
"""
HA = """\
store: redis://10.9.0.5:6379/0
ha:
  name: left
  key_file: pair.key
  paths:
    - { local: "10.9.0.1:7400", peer: "10.9.0.2:7400" }
    - { local: "[2001:db8::1]:7400", peer: "[2001:db8::2]:7400" }
  addresses: [192.0.2.10/24 on lo, "2001:db8::10/64 on lo"]
"""


def faults(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "pair.key").write_text("k" * 64)
    (tmp_path / "sbc.yaml").write_text(f"run_dir: {tmp_path}\nstate_dir: {tmp_path}\n" + BASE + text)
    return [str(fault) for fault in loader.check(tmp_path / "sbc.yaml")[1]]


def test_a_pair(tmp_path: Path) -> None:
    assert faults(tmp_path, HA) == []
    ha = loader.load(tmp_path / "sbc.yaml").ha
    assert ha is not None
    assert ha.key_file == str(tmp_path / "pair.key")
    assert ha.paths[1].peer == ("2001:db8::2", 7400)
    assert [str(one.address) for one in ha.addresses] == ["192.0.2.10/24", "2001:db8::10/64"]
    assert (ha.heartbeat_ms, ha.misses, ha.lease_ms, ha.decided_by) == (200, 3, 1000, "lease")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("10.9.0.1:7400", "10.9.0.1", "is not address:port"),
        ("10.9.0.1:7400", "10.9.0.2:7400", "local and peer are the same"),
        ("10.9.0.1:7400", "[2001:db8::9]:7400", "both be IPv4 or both IPv6"),
        ("192.0.2.10/24 on lo", "192.0.2.10/24", "is not address/prefix on interface"),
        ("192.0.2.10/24 on lo", "192.0.2.10/24 on nowhere0", "there is no interface 'nowhere0'"),
        ("pair.key", "none.key", "make it with sbc ha keygen"),
        ("10.9.0.5:6379", "10.9.0.2:6379", "is one of the two nodes"),
        ("10.9.0.5:6379", "127.0.0.1:6379", "is one of the two nodes"),
        ("redis://10.9.0.5:6379/0", "sentinel://10.9.0.1,10.9.0.5,10.9.0.1:2/s", "2 of the 3 hosts are on one of"),
        ("redis://10.9.0.5:6379/0", "cluster://10.9.0.2", "1 of the 1 hosts are on one of the two nodes"),
        ("redis://10.9.0.5:6379/0", "none", "a pair needs a store"),
        ("redis://10.9.0.5:6379/0", "unix:///run/redis.sock", "that both nodes reach"),
        ("name: left", "name: left\n  lease_ms: 500", "is less than 3 heartbeats"),
        ("name: left", "name: left\n  decided_by: keepalived", "it is keepalived that has the addresses"),
        ("name: left", "name: left\n  preempt: true", "unknown key"),
        ("name: left", "name: left\n  witness: [192.0.2.1]", "the store is the witness here"),
        ("redis://10.9.0.5:6379/0\nha:", "embedded\nha:\n  witness: [10.9.0.2]", "is of one of the two nodes"),
        ("redis://10.9.0.5:6379/0\nha:", "embedded\nha:\n  witness: [192.0.2.10]", "is of one of the two nodes"),
        ("redis://10.9.0.5:6379/0\nha:", "embedded\nha:\n  witness: [router]", "is not an IP address"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in HA
    assert any(said in fault for fault in faults(tmp_path, HA.replace(before, after))), faults(
        tmp_path, HA.replace(before, after)
    )


def test_sentinels_on_both_nodes_and_a_third_machine_are_good(tmp_path: Path) -> None:
    assert faults(tmp_path, HA.replace("redis://10.9.0.5:6379/0", "sentinel://10.9.0.1,10.9.0.2,10.9.0.5/s")) == []


def test_embedded_stores_take_two_paths(tmp_path: Path) -> None:
    text = HA.replace("store: redis://10.9.0.5:6379/0\n", "")
    assert faults(tmp_path, text) == []
    one = text.replace('    - { local: "[2001:db8::1]:7400", peer: "[2001:db8::2]:7400" }\n', "")
    assert any("there must be two paths" in fault for fault in faults(tmp_path, one))


def test_a_short_key_is_none(tmp_path: Path) -> None:
    faults(tmp_path, HA)
    (tmp_path / "pair.key").write_text("short")
    assert any("a key has at least 32" in str(fault) for fault in loader.check(tmp_path / "sbc.yaml")[1])


def test_routers_as_witnesses(tmp_path: Path) -> None:
    text = HA.replace("redis://10.9.0.5:6379/0", "embedded") + '  witness: [192.0.2.1, "2001:db8::ff"]\n'
    assert faults(tmp_path, text) == []
    ha = loader.load(tmp_path / "sbc.yaml").ha
    assert ha is not None
    assert [str(one) for one in ha.witness] == ["192.0.2.1", "2001:db8::ff"]
