"""Row P7T: customers by TLS and WSS whose node dies."""

from __future__ import annotations

import time

from sbc.selftest.agents import Agent, Asked, UaCall
from sbc.selftest.measure import Measures, NotTried
from sbc.selftest.node import wait
from sbc.selftest.pair import PairSite, needs_root
from sbc.selftest.pairs import AFTER_S, AUDIO_S, PAIR, active_one_dies, on_pair
from sbc.selftest.phones import TlsPhone
from sbc.selftest.row import Row
from sbc.selftest.site import Call

RECONNECTED_S = 5.0


def phones_reconnect(two: PairSite, measures: Measures) -> None:
    """kill -9 of the active node and its link down, beneath calls of phones with a connection."""
    phones = two.ends.phones
    if not phones:
        raise NotTried("phones by TLS speak SRTP: install pylibsrtp")
    calls: dict[TlsPhone, list[Call]] = {}
    for phone in phones:
        phone.connect()
        phone.register()
        calls[phone] = [two.call_from(phone) for _ in range(3)]
    every = [call for some in calls.values() for call in some]
    fault_at, died_s = active_one_dies(two, every, measures)
    two.heard_again(every, time.time(), AUDIO_S)
    time.sleep(AFTER_S)
    two.measure_gap(every, fault_at, measures, max_s=2.0)
    for phone in phones:
        took_s = phone.expect_back(died_s)
        measures.add(f"{phone.transport}: connected again after", [took_s], max_s=RECONNECTED_S)
    for phone in phones:
        by_phone, by_far, modified = calls[phone]
        _hang_up(phone, by_phone.a, by_phone.b, f"{phone.transport}: phone's BYE answered", measures)
        _hang_up(two.callee, by_far.b, by_far.a, f"{phone.transport}: far side's BYE answered", measures)
        held = phone.modify(modified.a, "sendonly")
        _answered(held, f"{phone.transport}: phone's re-INVITE answered", measures)
        _hang_up(two.callee, modified.b, modified.a, f"{phone.transport}: far side's BYE answered", measures)
    two.silence(every)
    two.settled(measures)


def _hang_up(agent: Agent, here: UaCall, there: UaCall, what: str, measures: Measures) -> None:
    """The BYE of one side is answered, and reaches the other one."""
    _answered(agent.hang_up(here), what, measures)
    began_s = time.monotonic()
    while not there.ended_by_far and time.monotonic() - began_s < 5.0:
        time.sleep(0.01)
    measures.expect(there.ended_by_far, f"{what}, but the other side does not learn that the call is over")


def _answered(asked: Asked, what: str, measures: Measures) -> None:
    wait(lambda: asked.status != 0, 35, f"an answer to {asked.method}")
    measures.add(what, [asked.took_s], max_s=1.0)
    measures.expect(asked.status == 200, f"{what}, but with {asked.status}")


ROWS = (
    Row(
        "P7T",
        "the active one of two nodes dies beneath calls of phones by TLS and WSS",
        "audio is back within 2 s; the phones connect and register again, and the BYE of either side is answered and "
        "reaches the other one; each call has exactly one record",
        on_pair(phones_reconnect),
        PAIR,
        limit_s=120.0,
        check=needs_root,
    ),
)
