"""Calls through a real SBC on loopback: how many, how they end, their records, and what the commands show."""

from __future__ import annotations

import csv
import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.callers import site
from tests.support.loopback import OUTSIDE, loopback
from tests.support.sbc import eventually, running


@pytest.mark.peer("sipp")
def test_500_concurrent_calls_from_one_address_reach_every_worker(tmp_path: Path) -> None:
    """50 calls/s to 500 concurrent on 2 SIP and 2 media workers: none fails, nothing is sent twice, all work."""
    net = loopback(sip=2, media=2)
    with running(tmp_path / "sbc", net.text) as sbc, net.callee(tmp_path) as uas:
        with net.caller(tmp_path, "-r", "50", "-m", "550", "-d", "10500", "-l", "600") as uac:
            eventually(lambda: sbc.ask("calls", limit=0)["total"] >= 500, 20, "500 calls at the same time")
            up = sbc.calls()
            counted = uac.finish()
        assert counted.successful == 550
        assert counted.retransmissions == 0
        assert uas.counted().retransmissions == 0
        assert sbc.total("RETRANSMISSION_OUT") == 0
        assert sbc.total("RETRANSMISSION_IN") == 0
        # Half of the calls each, as far as chance goes: 150 of 500 is nine standard deviations away.
        for column in ("worker", "media_node"):
            share = Counter(call[column] for call in up if call[column])  # one may still wait for its media node
            assert len(share) == 2
            assert min(share.values()) > 150, share
        eventually(lambda: len(sbc.cdrs()) >= 550, 10, "550 CDRs")
        cdrs = sbc.cdrs()
        assert len({cdr["id"] for cdr in cdrs}) == len(cdrs) == 550
        assert all(cdr["answered"] and cdr["hangup"] == "a" for cdr in cdrs)


@pytest.mark.peer("sipp")
@pytest.mark.parametrize(("caller", "callee", "by"), [("uac", "uas", "a"), ("uac_waits", "uas_bye", "b")])
def test_either_side_hangs_up(caller: str, callee: str, by: str, tmp_path: Path) -> None:
    net = loopback(sip=2)
    with running(tmp_path / "sbc", net.text) as sbc, net.callee(tmp_path, "-d", "300", scenario=callee) as uas:
        with net.caller(tmp_path, "-r", "40", "-m", "40", "-d", "300", scenario=caller) as uac:
            counted = uac.finish()
        eventually(lambda: len(sbc.cdrs()) == 40, 10, "40 CDRs")
        eventually(lambda: uas.counted().successful == 40, 10, "the callee's 40 calls")
        assert (counted.successful, counted.failed) == (40, 0)
        assert [(cdr["hangup"], cdr["answered"], cdr["cause"]) for cdr in sbc.cdrs()] == [(by, True, 16)] * 40


def test_each_way_to_end_has_one_record_and_one_row(tmp_path: Path) -> None:
    """Answered and ended by either side, given up by the caller, busy, not answered: CDR and CSV row say the same."""
    path = tmp_path / "cdr.csv"
    net = loopback(sip=2, more=f"cdr: {{ csv: {path} }}\ntimers: {{ invite_timeout_s: 2 }}\n")
    with site(tmp_path, net) as at:
        by_caller, by_callee = at.establish(2)
        asked = [at.caller.hang_up(by_caller.a), at.callee.hang_up(by_callee.b)]
        eventually(lambda: [one.status for one in asked] == [200, 200], 5, "BYE answered")
        eventually(lambda: by_caller.b.ended_by_far and by_callee.a.ended_by_far, 5, "BYE on the other side")

        [given_up] = at.ringing(1)
        cancel = at.caller.cancel(given_up.a)
        eventually(lambda: given_up.a.asked["INVITE"].status == 487, 5, "487 at the caller")
        eventually(lambda: given_up.b.got == ["CANCEL"], 5, "CANCEL at the callee")
        assert cancel.status == 200

        busy = at.caller.call((OUTSIDE, net.port), "486001")
        eventually(lambda: busy.asked["INVITE"].status == 486, 5, "486 at the caller")

        [unanswered] = at.ringing(1)
        eventually(lambda: unanswered.b.got == ["CANCEL"], 5, "CANCEL for a callee that rings too long")
        eventually(lambda: unanswered.a.asked["INVITE"].status == 408, 5, "408 at the caller")

        eventually(lambda: len(at.sbc.cdrs()) == 5, 10, "five CDRs")
        cdrs = {cdr["a_call_id"]: cdr for cdr in at.sbc.cdrs()}
        expected = [
            (by_caller.a, 200, True, "a", 16),
            (by_callee.a, 200, True, "b", 16),
            (given_up.a, 487, False, "a", 16),
            (busy, 486, False, "b", 17),
            (unanswered.a, 408, False, "sbc", 102),
        ]
        for call, status, answered, hangup, cause in expected:
            cdr = cdrs.pop(call.call_id)
            assert (cdr["status"], cdr["answered"], cdr["hangup"], cdr["cause"]) == (status, answered, hangup, cause)
            assert (cdr["a_peer"], cdr["b_peer"], cdr["direction"]) == ("carrier", "pbx", "from_carrier")
            assert (cdr["answer"] is not None) == answered == (cdr["duration_s"] > 0)
            assert [attempt["status"] for attempt in cdr["attempts"]] == [200 if answered else status]
        assert not cdrs
        eventually(lambda: path.exists() and path.read_bytes().count(b"\r\n") == 6, 5, "a header and five rows")
        assert rows_of(path) == table_of(tmp_path / "sbc" / "state" / "sbc.db")
        time.sleep(0.5)
        assert path.read_bytes().count(b"\n") == 6


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table_of(database: Path) -> list[dict[str, str]]:
    """The table as the file shows it: without ``record``, times in UTC with milliseconds, nothing for NULL."""

    def shown(name: str, value: str | float | None) -> str:
        if value is not None and name.endswith("_time"):
            return datetime.fromtimestamp(float(value), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return "" if value is None else str(value)

    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM cdr ORDER BY sequence").fetchall()
    return [{n: shown(n, v) for n, v in dict(row).items() if n not in ("sequence", "record")} for row in rows]


def test_the_commands_show_calls_while_they_are_up(tmp_path: Path) -> None:
    net = loopback(sip=2)
    with site(tmp_path, net) as at:
        pairs = at.establish(3)
        config = str(tmp_path / "sbc" / "sbc.yaml")
        shown = json.loads(sbc_command("calls", "-c", config, "--json").stdout)
        assert shown["total"] == 3
        assert {row["a_call_id"] for row in shown["calls"]} == {pair.a.call_id for pair in pairs}
        assert {row["b_call_id"] for row in shown["calls"]} == {pair.b.call_id for pair in pairs}
        assert {(row["state"], row["a_peer"], row["b_peer"]) for row in shown["calls"]} == {("up", "carrier", "pbx")}
        status = json.loads(sbc_command("status", "-c", config, "--json").stdout)
        assert status["calls"] == {"active": 3, "started": 3, "answered": 3, "failed": 0}
        states = {process["name"]: (process["pid"], process["state"]) for process in status["processes"]}
        pids = {name: (pid, "ready") for name, pid in at.sbc.pids().items() if name != "store"}
        assert states.items() >= pids.items()
        table = sbc_command("calls", "-c", config).stdout
        assert table.count("carrier") == 3
        at.end(pairs)
        eventually(lambda: json.loads(sbc_command("calls", "-c", config, "--json").stdout)["total"] == 0, 5, "no calls")
    gone = sbc_command("status", "-c", config, "--json")
    assert gone.returncode == 1
    assert "no SBC is running" in json.loads(gone.stdout)["errors"][0]


def test_check_names_every_fault_by_line_and_column(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(loopback().text)
    done = sbc_command("check", "-c", str(good))
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 realms, 2 listeners, 3 peers" in done.stdout
    bad.write_text(good.read_text().replace("trusted:", "trustd:").replace("calls_to: pbx }", "calls_to: pbxx }", 1))
    lines = bad.read_text().splitlines()
    done = sbc_command("check", "-c", str(bad))
    assert done.returncode == 1
    faults = done.stdout.splitlines()
    assert len(faults) == 2
    for word, path, mean in (("trustd", "realms.core.trustd", "trusted"), ("pbxx", "peers.carrier.calls_to", "pbx")):
        [line] = [number for number, text in enumerate(lines, 1) if word in text]
        [fault] = [fault for fault in faults if path in fault]
        assert fault.startswith(f"{bad}:{line}:{lines[line - 1].index(word) + 1}: {path}: ")
        assert f"did you mean '{mean}'?" in fault
    as_json = json.loads(sbc_command("check", "-c", str(bad), "--json").stdout)
    assert (as_json["ok"], len(as_json["faults"])) == (False, 2)


def test_help_is_there_within_200_ms() -> None:
    """The installed command, warm. What else runs on the machine only ever adds to it, so the best of a few counts:
    five on an idle machine, more while none of them had the processor to itself."""
    sbc_command("--help")
    times: list[float] = []
    while len(times) < 5 or (min(times) >= 0.2 and len(times) < 30):
        start = time.monotonic()
        done = sbc_command("--help")
        times.append(time.monotonic() - start)
        assert "demo" in done.stdout
    assert min(times) < 0.2, times


def sbc_command(*words: str) -> subprocess.CompletedProcess[str]:
    """The command as it is installed."""
    program = Path(sys.executable).with_name("sbc")
    return subprocess.run([program, *words], check=False, capture_output=True, text=True, timeout=20)
