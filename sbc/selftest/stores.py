"""Rows of the family R: the state store dies, hangs, forgets, is full, or holds rubbish."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from sbc.selftest.measure import Measures
from sbc.selftest.node import wait
from sbc.selftest.row import Row
from sbc.selftest.site import Call, Setup, Site
from sbc.selftest.store import PREFIX

NEW = 8  # calls that are made while the store is away
OWN = Setup(own_store=True)
RUBBISH = (b"", b"\0\1\2", b"1 0 1\n", b"1 0 1\n{", b"9 9 9\n[]", b"\xff" * 2000, b"1 x y\n{}", b"2 0 1\n{}")


def setup_times(calls: Sequence[Call]) -> list[float]:
    """From INVITE to 200 of each."""
    return [call.a.asked["INVITE"].took_s for call in calls]


def _through_an_outage(
    site: Site, measures: Measures, begin: Callable[[], None], finish: Callable[[], None], cause: str = ""
) -> None:
    """Calls are up, new ones come, some end while it lasts; afterwards the store has a record of each that is up."""
    calls = site.establish(site.calls)
    usual = setup_times(calls)
    site.control(calls, measures)
    fault_at, fault_s = time.time(), time.monotonic()
    begin()
    new = site.establish(NEW // 2)
    told_s = wait(
        lambda: is_alarmed(site, cause), 5, f"an alarm{f' that says {cause!r}' if cause else ''} in sbc status"
    )
    new += site.establish(NEW // 2)
    site.end(new[::2], measures, max_s=1.0)
    others = []
    while (left_s := site.away_s - (time.monotonic() - fault_s)) > 0:
        time.sleep(min(left_s, 1.0))
        if left_s > 2:
            others += site.establish(1)
    site.measure_gap(calls, fault_at, measures, max_s=0.15)
    finish()
    back_s = time.monotonic()
    left = len(calls) + len(new) - len(new[::2]) + len(others)
    wait(lambda: len(site.store.call_keys()) == left, 15, "a record of each live call in the store")
    measures.add("alarm after", [told_s], max_s=2.0)
    measures.add("setup before", usual)
    extra = [max(0.0, took_s - statistics.median(usual)) for took_s in setup_times([*new, *others])]
    measures.add("setup takes longer by", extra, max_s=0.15)
    measures.add("all written again after", [time.monotonic() - back_s], max_s=10.0)
    site.end([*calls, *new[1::2], *others], measures, what="BYE answered afterwards", max_s=1.0)
    site.settled(measures)


def is_alarmed(site: Site, cause: str) -> bool:
    """Whether ``sbc status`` says that the store is away, or why it takes nothing."""
    status = site.node.patient("status")
    told = str(status["store"].get("error", ""))
    down = bool(status["totals"].get("store_down")) or bool(told)
    return cause in told if cause else down


def store_killed(site: Site, measures: Measures) -> None:
    """kill -9, nothing there for a while, then an empty one."""
    _through_an_outage(site, measures, site.store.kill, site.store.start)


def store_hung(site: Site, measures: Measures) -> None:
    """It accepts everything and answers nothing."""
    _through_an_outage(site, measures, lambda: site.store.pause(True), lambda: site.store.pause(False))


def store_emptied(site: Site, measures: Measures) -> None:
    """FLUSHALL; what the workers know is written again, and a successor can go on from it."""
    calls = site.establish(site.calls)
    site.control(calls, measures)
    fault_at, fault_s = time.time(), time.monotonic()
    site.store.client().flushall()
    wait(lambda: len(site.store.call_keys()) == len(calls), 10, "a record of each live call in the store")
    measures.add("all written again after", [time.monotonic() - fault_s], max_s=10.0)
    site.measure_gap(calls, fault_at, measures, max_s=0.15)
    died = site.node.kill("sip 0")
    site.node.back("sip 0", died)
    site.end(calls, measures, what="BYE answered after a worker's death", max_s=1.0)
    site.settled(measures)


def store_put_back(site: Site, measures: Measures) -> None:
    """The store comes back with what it had some time ago: calls have ended, changed and begun since."""
    calls = site.establish(site.calls)
    old = site.store.snapshot()
    quarter = max(1, len(calls) // 4)
    ended, changed, left = calls[:quarter], calls[quarter : 2 * quarter], calls[quarter:]
    site.end(ended, measures)
    for direction in ("sendonly", "sendrecv"):
        asked = [site.caller.modify(call.a, direction) for call in changed]
        wait(lambda asked=asked: all(one.status for one in asked), 35, "answers to re-INVITE")  # type: ignore[misc]
        refused = sum(one.status != 200 for one in asked)
        measures.expect(not refused, f"{refused} re-INVITEs were refused")
    left += site.establish(max(1, quarter))
    wait(lambda: len(site.store.call_keys()) == len(left), 10, "a record of each live call in the store")
    time.sleep(0.5)
    before = site.store.headers()
    site.control(left, measures)
    fault_at = time.time()
    site.store.kill()
    site.store.put_back(old)
    site.store.start()
    back_s = time.monotonic()

    def written() -> bool:
        now = site.store.headers()
        return all(key in now and now[key][-1] >= header[-1] for key, header in before.items())

    wait(written, 15, "each live call in the store as it was before, or later")
    measures.add("all written again after", [time.monotonic() - back_s], max_s=10.0)
    wait(lambda: site.store.headers().keys() == before.keys(), 15, "the end of the records of calls that have ended")
    measures.add("what had ended was removed after", [time.monotonic() - back_s], max_s=15.0)
    for name in ("sip 0", "sip 1"):
        site.node.back(name, site.node.kill(name))
    site.heard_again(left, time.time(), 5)
    site.measure_gap(left, fault_at, measures, max_s=0.15)
    later = site.store.headers()
    older = [key for key, header in before.items() if later.get(key, [0])[-1] < header[-1]]
    measures.expect(not older, f"{len(older)} records are older than before")
    site.end(left, measures, what="BYE answered after both deaths", max_s=1.0)
    time.sleep(0.5)
    back = site.node.calls()
    measures.expect(not back, f"{len(back)} calls are back, of {len(ended)} that had ended since the snapshot")
    site.settled(measures)


def store_full(site: Site, measures: Measures) -> None:
    """Every write is refused for want of memory."""
    client = site.store.client()
    _through_an_outage(
        site,
        measures,
        lambda: _configure(client.config_set, "maxmemory", 1),
        lambda: _configure(client.config_set, "maxmemory", 0),
        "OOM",
    )


def store_read_only(site: Site, measures: Measures) -> None:
    """The server has become the replica of one that does not exist, and takes no writes."""
    client = site.store.client()
    _through_an_outage(
        site,
        measures,
        lambda: _configure(client.execute_command, "REPLICAOF", "127.0.0.1", "1"),
        lambda: _configure(client.execute_command, "REPLICAOF", "NO", "ONE"),
        "READONLY",
    )


def _configure(command: Callable[..., object], *words: object) -> None:
    command(*words)


def store_spoilt(site: Site, measures: Measures) -> None:
    """Records are overwritten with rubbish, and foreign ones added; a successor of a SIP worker meets them."""
    calls = site.establish(site.calls, talk=False)
    client = site.store.client()
    keys = sorted(site.store.call_keys())
    measures.expect(len(keys) == len(calls), f"{len(keys)} records for {len(calls)} calls")
    spoilt = keys[: len(RUBBISH)]
    for key, value in zip(spoilt, RUBBISH, strict=True):
        client.set(key, value)
    for shard in range(0, 64):
        client.sadd(f"{PREFIX}shard:{shard}", b"../../x", b"\xff\xfe", f"foreign{shard}")
    client.set(f"{PREFIX}call:foreign1", b"1 0 1\n" + b"[" * 5000)
    died = site.node.kill("sip 0")
    measures.add("worker serves again", [site.node.back("sip 0", died)], max_s=2.0)
    left = len(site.node.calls())
    asked = site.hang_up(calls)
    wait(lambda: all(one.status for one in asked), 35, "an answer to each BYE")
    lost = [call for call, bye in zip(calls, asked, strict=True) if bye.status != 200]
    measures.note(f"run {measures.runs}: {len(spoilt)} records were spoilt, {len(lost)} calls lost by that")
    measures.expect(len(lost) <= len(spoilt), f"{len(lost)} calls are lost, and {len(spoilt)} records were spoilt")
    measures.expect(left >= len(calls) - len(lost), f"only {left} calls were known afterwards")
    measures.expect(not site.node.logged("worker died", worker="sip 0", how="exit code 70"), "a worker died of it")
    site.forget(lost)
    site.settled(measures)


ROWS = (
    Row(
        "R1",
        "the store is killed and away for a while",
        "calls that are up notice nothing, new ones come up, an alarm within 2 s, all written again within 10 s",
        store_killed,
        OWN,
    ),
    Row(
        "R3",
        "the store hangs for a while",
        "setup takes at most 150 ms longer, media go on, BYE is answered",
        store_hung,
        OWN,
    ),
    Row(
        "R4",
        "the store is emptied",
        "what the workers know wins: all is written again within 10 s, and survives a worker then",
        store_emptied,
        OWN,
    ),
    Row(
        "R4O",
        "the store comes back with an old snapshot, then the SIP workers die",
        "an older record never takes the place of a later one; no call ends, comes back or gets a second record",
        store_put_back,
        OWN,
        limit_s=120.0,
    ),
    Row("R5", "the store is full", "as R1; the alarm names the cause", store_full, OWN),
    Row("R5R", "the store has become read-only", "as R5", store_read_only, OWN),
    Row(
        "R6",
        "rubbish in the store meets a worker that starts",
        "only calls whose records were spoilt are lost, no worker dies of it",
        store_spoilt,
        OWN,
    ),
)
