"""A pair with embedded stores and a router as its witness: which node serves when neither hears the other."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from sbc.selftest.netns import Lab
from sbc.selftest.pair import DIRECT, OWN, STORE
from tests.support.pair import duo
from tests.support.sbc import eventually


def isolate(lab: Lab, host: str, other: str, *, router: bool) -> None:
    """Nothing goes between the nodes any more, nor between this one and the router if ``router``."""
    away = [OWN[other], DIRECT[other], *([STORE] if router else [])]
    rules = {
        "out": f"type filter hook output priority 0; ip daddr {{ {', '.join(away)} }} drop;",
        "in": f"type filter hook input priority 0; ip saddr {{ {', '.join(away)} }} drop;",
    }
    text = "".join(f"chain {name} {{ {rule} }}\n" for name, rule in rules.items())
    lab.firewall(host, f"table ip cut\ndelete table ip cut\ntable ip cut {{\n{text}}}\n")


def test_the_node_that_reaches_the_router_serves(tmp_path: Path) -> None:
    """Both paths are cut. The active node reaches the router: nothing happens. Then it is the other one that does: the
    active one is silent first. Without the router nobody is ready, and it is said."""
    if os.geteuid() or shutil.which("nft") is None:
        pytest.skip("needs root, ip of iproute2 and nft")
    with duo(tmp_path, embedded=True, routed=True) as two:
        two.start("a")
        eventually(lambda: two.roles() == {"a": "active"}, 20, f"a is active: {two.status('a')}")
        two.start("b")
        two.ready()

        isolate(two.lab, "b", "a", router=True)
        eventually(lambda: bool(two.status("b")["why_not"]), 10, "the standby is cut off")
        time.sleep(2)
        assert two.roles() == {"a": "active", "b": "passive"}
        why = " ".join(two.status("b")["why_not"])
        assert "a is not heard" in why
        assert f"no answer from {STORE}" in why
        assert not two.holds("b")
        two.cut("b")
        two.ready()

        isolate(two.lab, "a", "b", router=True)
        both_s, last = 0.0, time.monotonic()
        while not two.holds("b"):
            assert time.monotonic() - last < 20, two.logs()
            time.sleep(0.02)
        while two.holds("a"):
            both_s = time.monotonic() - last
            assert both_s < 10, two.logs()
            time.sleep(0.02)
        two.answers(5)
        eventually(lambda: two.roles() == {"a": "passive", "b": "active"}, 10, "one is active")
        two.cut("a")
        two.ready()
        assert two.roles() == {"a": "passive", "b": "active"}
