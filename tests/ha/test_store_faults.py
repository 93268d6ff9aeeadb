"""The store dies, or stops to answer, while calls are up and new ones come."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from pathlib import Path

from tests.support.callers import Pair, Site, site, spread
from tests.support.loopback import loopback
from tests.support.sbc import eventually
from tests.support.store import StoreServer, records

COMMIT_TIMEOUT_S = 0.05  # the default of timers.commit_timeout_ms
NOISE_S = 0.1  # of a busy machine


def setup_times(at: Site, pairs: list[Pair]) -> list[float]:
    """Seconds from INVITE to 200 of each call."""
    return [pair.a.asked["INVITE"].took_s for pair in pairs]


def test_calls_go_on_without_the_store_and_are_written_when_it_is_back(tmp_path: Path) -> None:
    """kill -9 of the embedded store: BYE works, new calls come up no later than commit_timeout after the usual time,
    and the new store is given a record of each live call, from which a killed SIP worker's successor goes on. Calls
    that had just ended have their CDR though the store took it with it."""
    with site(tmp_path, loopback(sip=2, media=1)) as at:
        socket = at.sbc.directory / "run" / "store.sock"
        pairs = at.establish(30)
        usual = setup_times(at, pairs)
        assert records(socket) == 30

        at.end(pairs[:2])  # written at once, and then the writer gathers for a second
        time.sleep(0.2)
        at.end(pairs[2:6])
        died = at.sbc.kill("store")
        at.end(pairs[6:10])
        new = at.establish(20)
        during = setup_times(at, new)
        respawn_s = at.sbc.respawned("store", died)
        pairs = pairs[10:] + new
        written_s = eventually(lambda: socket.exists() and records(socket) == 40, 10, "a record of each live call")
        print(f"setup before {spread(usual)}, without the store {spread(during)}")
        print(f"there again {respawn_s:.3f} s after that, all written {written_s:.3f} s later")
        assert max(during) < statistics.median(usual) + COMMIT_TIMEOUT_S + NOISE_S

        killed = at.sbc.kill("sip 0")
        at.sbc.respawned("sip 0", killed)
        asked = at.end(pairs)
        print(f"BYE after the death of a SIP worker answered: {spread(one.took_s for one in asked)}")
        at.settled(50)
        assert records(socket) == 0


def test_a_store_that_answers_nothing_holds_no_call_up(tmp_path: Path) -> None:
    """SIGSTOP of an external store for three seconds: new calls come up within 150 ms of the usual time, calls end, and
    after SIGCONT each call has exactly one record."""
    store = StoreServer(tmp_path)
    store.start()
    try:
        with site(tmp_path, loopback(sip=2, media=1, store=f"unix://{store.path}")) as at:
            before = at.establish(20)
            usual = setup_times(at, before)
            store.pause()
            start = time.monotonic()
            first = at.establish(10)  # before anybody has noticed
            at.end(first[::2])
            time.sleep(1)
            later = at.establish(10)
            asked = at.end([*first[1::2], *later])
            time.sleep(max(0.0, start + 3 - time.monotonic()))
            store.resume()
            during = setup_times(at, first) + setup_times(at, later)
            print(f"setup before {spread(usual)}, while the store is stopped {spread(during)}")
            print(f"BYE meanwhile answered: {spread(one.took_s for one in asked)}")
            assert max(during) < statistics.median(usual) + 0.15
            assert max(one.took_s for one in asked) < 0.5
            arrived_s = eventually(lambda: len(at.sbc.cdrs()) >= 20, 10, "the records of that time")
            print(f"records there {arrived_s:.3f} s after the store")
            at.end(before)
            at.settled(40)
            assert records(Path(store.path)) == 0
            assert Counter(cdr["answered"] for cdr in at.sbc.cdrs()) == {True: 40}
    finally:
        store.resume()
        store.kill()


def test_a_sip_worker_that_starts_while_the_store_is_mute_takes_its_calls_up_later(tmp_path: Path) -> None:
    """Both at once: a SIP worker dies while the store is stopped. New calls come up all the same, after the time that
    the new worker waits for the store; the calls of the old one are resumed when the store goes on."""
    store = StoreServer(tmp_path)
    store.start()
    try:
        with site(tmp_path, loopback(sip=1, media=1, store=f"unix://{store.path}")) as at:
            pairs = at.establish(20)
            store.pause()
            at.sbc.respawned("sip 0", at.sbc.kill("sip 0"))
            start = time.monotonic()
            new = at.establish(5)
            print(f"a new call {time.monotonic() - start:.3f} s after the death")
            assert at.sbc.ask("calls")["total"] == 5
            store.resume()
            back_s = eventually(lambda: at.sbc.ask("calls")["total"] == 25, 10, "the calls of before")
            print(f"calls resumed {back_s:.3f} s after the store")
            at.end(pairs + new)
            at.settled(25)
    finally:
        store.resume()
        store.kill()
