"""Transfers through a real SBC of two SIP and two media workers: who talks in the end, and what is recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agents import Agent, UaCall
from tests.support.audio import Audio, Stream
from tests.support.callers import Site, site
from tests.support.loopback import CALLEE, CALLER, loopback
from tests.support.sbc import eventually

CALLS = 12  # enough that some pairs of calls are of one worker and some of two: all alike once in 30 000 runs


@contextmanager
def stage(directory: Path) -> Iterator[tuple[Site, Audio, Audio]]:
    """What the PBX transfers goes to numbers of the PBX."""
    net = loopback(sip=2, media=2)
    text = net.text.replace("direction: from_pbx,", "direction: from_pbx, calls_to: pbx,")
    net = type(net)(text, net.port, net.core_port, net.callee_port)
    with Audio(CALLER) as near, Audio(CALLEE) as far, site(directory, net, near.open, far.open) as there:
        yield there, near, far


def talk(pairs: Sequence[tuple[Stream, UaCall, Stream, UaCall]], *audios: Audio) -> None:
    """Both ends of each pair hear each other."""
    for one, one_call, other, other_call in pairs:
        one.far, other.far = one_call.far_audio, other_call.far_audio
    for audio in audios:
        audio.talk()

    def heard() -> bool:
        return all(len(end.heard) > 20 for one, _, other, _ in pairs for end in (one, other))

    eventually(heard, 10, "audio in both directions of every pair")


def over(there: Site, agents: Sequence[tuple[Agent, UaCall]], cdrs: int) -> None:
    """One side of each call hangs up, and nothing is left."""
    for agent, call in agents:
        agent.hang_up(call)
    there.settled(cdrs)


def test_blind(tmp_path: Path) -> None:
    """The called party transfers its caller to another number: they talk, and each call has its record."""
    with stage(tmp_path) as (there, near, far):
        pairs = there.establish(CALLS)
        for n, pair in enumerate(pairs):
            there.callee.refer(pair.b, f"19{n:04}")
        eventually(lambda: all(pair.b.notified[-1:] == [200] for pair in pairs), 15, "200 by NOTIFY")
        eventually(lambda: all(pair.b.ended_by_far for pair in pairs), 10, "BYE to each transferor")
        targets = {call.number: call for call in there.callee.all_calls() if call.number.startswith("19")}
        assert len(targets) == CALLS
        calls = list(targets.values())
        eventually(lambda: all(call.up for call in (*calls, *(pair.a for pair in pairs))), 10, "every ACK")
        assert all(not pair.a.ended_by_far for pair in pairs)
        talk(
            [
                (near.streams[pair.a.audio_port], pair.a, far.streams[call.audio_port], call)
                for pair, call in zip(pairs, (targets[f"19{n:04}"] for n in range(CALLS)), strict=True)
            ],
            near,
            far,
        )
        over(there, [(there.caller, pair.a) for pair in pairs], 2 * CALLS)
        records = {cdr["id"]: cdr for cdr in there.sbc.cdrs()}
        went = [cdr for cdr in records.values() if cdr["transferred_to"]]
        assert len(went) == CALLS
        assert all(records[cdr["transferred_to"]]["transferred_from"] == cdr["id"] for cdr in went)
        assert there.sbc.total("TRANSFERS_DONE") == CALLS
        assert there.sbc.total("CORE_FAULTS") == 0


def test_attended_between_workers(tmp_path: Path) -> None:
    """A caller with two calls brings both called parties together, whichever workers own the calls."""
    with stage(tmp_path) as (there, _, far):
        first, second = there.establish(CALLS), there.establish(CALLS)
        for one, other in zip(first, second, strict=True):
            there.caller.refer(one.a, other.a.number, instead_of=other.a)
        eventually(lambda: all(one.a.asked["REFER"].status for one in first), 10, "an answer to each REFER")
        assert {one.a.asked["REFER"].status for one in first} == {202}
        eventually(lambda: all(one.a.notified[-1:] == [200] for one in first), 15, "200 by NOTIFY")
        lines = [*first, *second]
        eventually(lambda: all(line.a.ended_by_far for line in lines), 10, "BYE to both lines of each transferor")
        eventually(lambda: all(line.b.up for line in lines), 10, "every ACK")
        assert not any(line.b.ended_by_far for line in lines)
        assert 0 < there.sbc.total("CALLS_GIVEN") < CALLS  # some had to come over, some were there
        assert there.sbc.total("CALLS_GIVEN") == there.sbc.total("CALLS_LODGED")
        talk(
            [
                (far.streams[one.b.audio_port], one.b, far.streams[other.b.audio_port], other.b)
                for one, other in zip(first, second, strict=True)
            ],
            far,
        )
        over(there, [(there.callee, other.b) for other in second], 2 * CALLS)
        eventually(lambda: all(one.b.ended_by_far for one in first), 10, "BYE to the other ends")
        assert there.sbc.total("CORE_FAULTS") == 0


def test_joined_calls_survive_either_worker(tmp_path: Path) -> None:
    """kill -9 of each SIP worker in turn, after calls went from one to the other."""
    with stage(tmp_path) as (there, _, _):
        first, second = there.establish(CALLS), there.establish(CALLS)
        for one, other in zip(first, second, strict=True):
            there.caller.refer(one.a, other.a.number, instead_of=other.a)
        lines = [*first, *second]
        eventually(lambda: all(line.a.ended_by_far for line in lines), 15, "BYE to every line")
        eventually(lambda: len(there.sbc.calls()) == CALLS, 10, "as many calls as pairs")
        time.sleep(0.2)  # the journal has them
        for name in ("sip 0", "sip 1"):
            there.sbc.respawned(name, there.sbc.kill(name))
            eventually(lambda: len(there.sbc.calls()) == CALLS, 15, "every call is back")
        asked = [there.callee.ask(line.b, "INFO") for line in lines]
        eventually(lambda: all(one.status for one in asked), 15, "an answer to each INFO")
        assert {one.status for one in asked} == {200}
        over(there, [(there.callee, other.b) for other in second], 2 * CALLS)


@pytest.mark.parametrize("hang_up_at_once", [False, True])
def test_the_target_is_busy(hang_up_at_once: bool, tmp_path: Path) -> None:
    """The old call goes on; where the transferor has gone, its partner is released."""
    with stage(tmp_path) as (there, _, _):
        (pair,) = there.establish(1)
        there.callee.refer(pair.b, "486000")
        eventually(lambda: pair.b.notified[-1:] == [486], 10, "486 by NOTIFY")
        assert not pair.a.ended_by_far
        if hang_up_at_once:
            there.callee.refer(pair.b, "2000")  # rings, and never answers
            eventually(lambda: pair.b.notified[-1:] == [180], 10, "180 by NOTIFY")
            there.callee.hang_up(pair.b)
            eventually(lambda: "BYE" in pair.b.asked and pair.b.asked["BYE"].status == 200, 5, "200 to BYE")
            assert not pair.a.ended_by_far
            there.caller.hang_up(pair.a)
            there.settled(3)
        else:
            there.end([pair])
            there.settled(2)
