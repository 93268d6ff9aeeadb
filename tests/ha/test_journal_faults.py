"""What the store holds is wrong, or it takes nothing, while calls are up and workers die."""

from __future__ import annotations

import random
from pathlib import Path

import redis

from tests.support.callers import site, spread
from tests.support.loopback import loopback
from tests.support.sbc import eventually
from tests.support.store import StoreServer, records


def test_without_the_store_new_calls_are_refused_where_that_is_configured(tmp_path: Path) -> None:
    """``unprotected: refuse``: 503 while the store is away; calls that are up go on, and when it is back new ones come
    up and the old ones are in it again."""
    store = StoreServer(tmp_path)
    store.start()
    try:
        with site(tmp_path, loopback(store=f"unix://{store.path}", more="unprotected: refuse\n")) as at:
            pairs = at.establish(4)
            store.kill()

            def refused() -> bool:
                (call,) = at.place(1)
                eventually(lambda: bool(call.asked["INVITE"].status), 5, "an answer")
                if call.up:
                    pairs.extend(at.pairs([call]))
                return call.asked["INVITE"].status == 503

            noticed_s = eventually(refused, 5, "a new call is refused")
            asked = at.end([pairs.pop(), pairs.pop()])
            print(f"refused {noticed_s:.3f} s after the store; BYE answered {spread(one.took_s for one in asked)}")
            store.start()
            back_s = eventually(lambda: not refused(), 10, "a new call is served again")
            eventually(lambda: records(Path(store.path)) == len(pairs), 10, "a record of each live call")
            print(f"served again {back_s:.3f} s after its return")
            at.end(pairs)
            eventually(lambda: not at.sbc.calls(), 5, "no call left")
            assert at.sbc.total("UNPROTECTED_REFUSED") > 0
    finally:
        store.kill()


def test_hostile_records_cost_nobody_a_call(tmp_path: Path) -> None:
    """200 records with octets changed, cut and repeated lie beside those of ten calls when a worker dies: its successor
    resumes the ten, sets aside what cannot be read, and serves."""
    draw = random.Random(7)
    store = StoreServer(tmp_path)
    store.start()
    try:
        with site(tmp_path, loopback(store=f"unix://{store.path}")) as at:
            pairs = at.establish(10)
            at.ringing(1)
            eventually(lambda: records(Path(store.path)) == 11, 5, "a record of each")
            prefix = b"sbc:{test}:"
            with redis.Redis(unix_socket_path=store.path) as look:
                templates = [bytes(look.get(key) or b"") for key in look.scan_iter("sbc:{test}:call:*")]
                for number in range(200):
                    octets = bytearray(draw.choice(templates))
                    at_octet = draw.randrange(8, len(octets))
                    match number % 4:
                        case 0:
                            octets[at_octet] ^= 1 << draw.randrange(8)
                        case 1:
                            del octets[at_octet:]
                        case 2:
                            octets[at_octet:at_octet] = octets[8:at_octet]
                        case _:
                            octets = octets.replace(b'"', draw.choice([b"[", b'"\\u0000', b"7"]), draw.randrange(1, 40))
                    member = b"hostile%d" % number
                    look.set(prefix + b"call:" + member, bytes(octets))
                    # the last shard: read after the real ones, whose calls are here by then
                    look.sadd(prefix + b"shard:1023", member)
            at.sbc.respawned("sip 0", at.sbc.kill("sip 0"))
            eventually(lambda: len(at.sbc.calls()) >= 10, 10, "the calls")
            asked = at.end(pairs)
            print(f"BYE answered: {spread(one.took_s for one in asked)}; refused {at.sbc.total('RESUME_REFUSED')}")
            assert at.sbc.total("RESUME_REFUSED") > 150
            assert at.sbc.total("CORE_FAULTS") == at.sbc.total("CORE_ERRORS") == 0
            at.end(at.establish(2))
    finally:
        store.kill()
