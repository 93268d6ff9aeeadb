"""When a server is worth asking."""

from __future__ import annotations

from sbc.lookups.circuit import Circuit


def test_some_failures_in_a_row_open_it_and_one_answer_closes_it() -> None:
    circuit = Circuit(failures=3, retry_s=5.0)
    assert [circuit.failed(0.0) for _ in range(3)] == [False, False, True]
    assert not circuit.admits(4.9)
    assert circuit.admits(5.0)  # one
    assert not circuit.admits(5.0)  # and no other
    assert circuit.succeeded()
    assert circuit.admits(5.1)


def test_an_answer_in_between_begins_the_row_anew() -> None:
    circuit = Circuit(failures=2, retry_s=5.0)
    circuit.failed(0.0)
    assert not circuit.succeeded()
    assert not circuit.failed(0.0)
    assert circuit.admits(0.0)


def test_a_failed_attempt_waits_for_the_next_turn() -> None:
    circuit = Circuit(failures=1, retry_s=5.0)
    circuit.failed(0.0)
    assert circuit.admits(6.0)
    assert not circuit.failed(7.0)  # open already: told once
    assert not circuit.admits(11.9)
    assert circuit.admits(12.0)
