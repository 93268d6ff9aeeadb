"""``sbc demo``, as an operator's first command: a real call through a real SBC on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

A_LADDER = [
    (True, "INVITE (SDP)"),
    (False, "100 Trying"),
    (False, "180 Ringing"),
    (False, "200 OK (SDP)"),
    (True, "ACK"),
    (True, "BYE"),
    (False, "200 OK"),
]
# The same seen from the other end, where nobody says 100 so soon before 180.
B_LADDER = [(not sent, message) for sent, message in A_LADDER if message != "100 Trying"]


def demo(*words: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("sbc")
    return subprocess.run([program, "demo", *words], check=False, capture_output=True, text=True, timeout=60)


def test_the_demonstration_shows_a_call_with_sound_both_ways() -> None:
    done = demo("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert (shown["ok"], shown["error"]) == (True, "")
    ladders = {
        phone: [(step["sent"], step["message"]) for step in shown["ladder"] if step["phone"] == phone]
        for phone in ("alice", "bob")
    }
    assert ladders == {"alice": A_LADDER, "bob": B_LADDER}
    assert shown["audio"][0]["name"] == "alice to bob"
    assert shown["audio"][1]["name"] == "bob to alice"
    for direction in shown["audio"]:
        assert direction["sent"] >= 140  # 3 s of 20 ms
        assert direction["altered"] == 0
        assert direction["lost"] == direction["sent"] - direction["received"] <= 3
        assert direction["mos"] > 4
    cdr = shown["cdr"]
    assert (cdr["status"], cdr["answered"], cdr["hangup"]) == (200, True, "a")
    assert (cdr["a_peer"], cdr["b_peer"]) == ("alice", "bob")
    assert 2.9 < cdr["duration_s"] < 6
    heard = [direction["received"] for direction in shown["audio"]]
    assert [cdr["media"]["b"]["packets_out"], cdr["media"]["a"]["packets_out"]] == heard
    assert len({cdr["a_call_id"], cdr["b_call_id"]}) == 2
