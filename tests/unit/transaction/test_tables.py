"""The machines as data: complete, closed, and each timer in its place."""

from __future__ import annotations

import pytest

from sbc.transaction import tables as t
from sbc.transaction.timers import Settings

MACHINES = [t.INVITE_CLIENT, t.NON_INVITE_CLIENT, t.INVITE_SERVER, t.NON_INVITE_SERVER]
RESPONSES = {t.PROVISIONAL, t.SUCCESS, t.FAILURE}
BY_NAME = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def possible(machine: t.Machine) -> set[tuple[int, int]]:
    """Each live state with each event of its side, and with the timers that it starts."""
    inputs = RESPONSES | {t.TRANSPORT_ERROR} | ({t.CANCEL} if "client" in machine.name else {t.REQUEST})
    if machine is t.INVITE_SERVER:
        inputs |= {t.ACK}
    pairs = set()
    for state, timers in machine.timers.items():
        if state != t.TERMINATED:
            pairs |= {(state, event) for event in inputs | set(timers) - {t.NONE}}
    return pairs


@BY_NAME
def test_every_pair_is_a_row_or_ignored(machine: t.Machine) -> None:
    assert set(machine.table) | machine.ignored == possible(machine)
    assert not set(machine.table) & machine.ignored


@BY_NAME
def test_every_state_is_reached_and_leads_to_an_end(machine: t.Machine) -> None:
    reached = {machine.initial} | {target for target, _ in machine.table.values()}
    assert reached == set(machine.timers)
    ends = {t.TERMINATED}
    while True:
        more = {state for (state, _), (target, _) in machine.table.items() if target in ends} - ends
        if not more:
            break
        ends |= more
    assert ends == set(machine.timers)


@BY_NAME
def test_the_user_is_called_last(machine: t.Machine) -> None:
    for _, actions in machine.table.values():
        assert not t.LAST_ACTIONS & set(actions[:-1])


@BY_NAME
def test_a_repeating_timer_starts_itself_again(machine: t.Machine) -> None:
    for state, (repeat, _) in machine.timers.items():
        if repeat != t.NONE:
            target, actions = machine.table[state, repeat]
            assert target == state
            assert actions[0] == t.RETRANSMIT
            assert actions[1] in (t.DOUBLE, t.DOUBLE_TO_T2, t.EVERY_T2)


def test_durations_of_rfc_3261_table_4() -> None:
    udp = t.durations(Settings(), reliable=False)
    tcp = t.durations(Settings(), reliable=True)
    for timer, on_udp, on_tcp in [
        (t.TIMER_A, 0.5, t.NEVER),
        (t.TIMER_B, 32, 32),
        (t.TIMER_C, 180, 180),
        (t.TIMER_D, 32, 0),
        (t.TIMER_E, 0.5, t.NEVER),
        (t.TIMER_F, 32, 32),
        (t.TIMER_G, 0.5, t.NEVER),
        (t.TIMER_H, 32, 32),
        (t.TIMER_I, 5, 0),
        (t.TIMER_J, 32, 0),
        (t.TIMER_K, 5, 0),
        (t.TIMER_L, 32, 32),
        (t.TIMER_M, 32, 32),
    ]:
        assert (udp[timer], tcp[timer]) == (on_udp, on_tcp), t.EVENT_NAMES[timer]
