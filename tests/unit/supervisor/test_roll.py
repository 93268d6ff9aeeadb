"""What a supervisor leaves for the next one: who lives, who has ended how, and the configuration that serves."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator

import pytest

from sbc.config.models import Config
from sbc.supervisor.accepted import AcceptedConfig
from sbc.supervisor.adoption import adopt, take_in_the_lost
from sbc.supervisor.child import Group, State
from sbc.supervisor.lifeline import Lifeline
from sbc.supervisor.members import Member
from sbc.supervisor.roll import Roll, reap

MINIMAL: dict[str, object] = {
    "realms": {"core": {"listen": ["udp:127.0.0.1:5060"], "media": {"address": "127.0.0.1"}}},
}


@pytest.fixture
def roll() -> Iterator[Roll]:
    made = Roll(4)
    yield made
    made.close()


def sleeper(roll: Roll, row: int, note: int = 0) -> int:
    """A child that has entered itself and lives until it is killed."""
    pid = os.fork()
    if pid == 0:
        roll.begin(row, os.getpid(), time.monotonic_ns(), note)
        time.sleep(30)
        os._exit(0)
    while roll.pid(row) != pid:
        time.sleep(0.001)
    return pid


def members(count: int = 3) -> list[Member]:
    made = [Member(Group.MEDIA, slot) for slot in range(count)]
    for row, member in enumerate(made):
        member.row = row
    return made


def test_an_end_is_noted_with_its_status(roll: Roll) -> None:
    pid, other = sleeper(roll, 0), sleeper(roll, 2)
    assert roll.living() == [pid, other]
    assert reap(roll) == []
    os.kill(pid, signal.SIGKILL)
    while not (found := reap(roll)):
        time.sleep(0.001)
    assert found == [(pid, signal.SIGKILL)]
    assert (roll.pid(0), roll.ended(0), roll.ended(2)) == (pid, signal.SIGKILL, None)
    assert roll.living() == [other]
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)  # taken in
    child = os.fork()
    if child == 0:
        os._exit(3)
    while not (found := reap(roll)):
        time.sleep(0.001)
    assert found == [(child, 3 << 8)]  # in no row: told, not noted
    roll.clear(0)
    assert roll.pid(0) == 0
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)


def test_the_living_are_adopted_the_dead_are_told_and_the_missing_are_due(roll: Roll) -> None:
    config = Config.model_validate(MINIMAL)
    ours = members()
    ours[0].page.ready()
    before = time.monotonic()
    pid = sleeper(roll, 0, note=1)
    roll.begin(1, 999_999_999, 5_000_000_000)
    roll.end(999_999_999, 11)
    living, dead = adopt(ours, roll, config, 100.0)
    assert living == [ours[0]]
    assert dead == [(ours[1], 11)]
    assert [member.child.state for member in ours] == [State.READY, State.STARTING, State.BACKOFF]
    assert (ours[0].pid, ours[0].config, ours[0].was_stopped) == (pid, config, True)
    assert before <= ours[0].child.started_s <= time.monotonic()
    assert ours[1].child.started_s == 5.0
    assert ours[2].child.due_s == 100.0
    take_in_the_lost(ours, roll)
    assert roll.ended(0) is None
    ours[0].send(signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    take_in_the_lost(ours, roll)
    assert roll.ended(0) == signal.SIGTERM
    os.waitpid(pid, 0)
    ours[0].send(signal.SIGTERM)  # nobody's any more, and not another's
    ours[0].forget()
    assert (ours[0].pid, ours[0].pidfd, ours[0].was_stopped) == (0, -1, False)


def test_the_configuration_in_force_is_kept_whatever_its_size() -> None:
    kept = AcceptedConfig(Config.model_validate(MINIMAL))
    told = [kept.is_told]
    for size in (1, 80, 10, 300, 3, 1, 120):
        peers = {f"p{n}": {"realm": "core", "addresses": f"10.0.{n // 250}.{n % 250}"} for n in range(size)}
        config = Config.model_validate({**MINIMAL, "peers": peers})
        kept.write(config)
        told.append(kept.is_told)
        assert kept.read() == config
        kept.told()
        told.append(kept.is_told)
        assert kept.read() == config
    assert told == [True] + [False, True] * 7
    kept.close()


def test_the_lifeline_ends_children_with_the_keeper_and_not_with_their_parent() -> None:
    """Keeper, its child, and two grandchildren, of which one has become another program."""
    news, tell = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        lifeline = Lifeline()
        if os.fork() == 0:
            lifeline.let_go()
            lifeline.take()
            for is_program in (False, True):
                if os.fork() == 0:
                    lifeline.take()
                    lifeline.arm(over_exec=is_program)
                    os.write(tell, b"%d\n" % os.getpid())
                    if is_program:
                        os.execvp("sleep", ["sleep", "30"])
                    time.sleep(30)
                    os._exit(0)
            os._exit(0)
        time.sleep(30)
        os._exit(0)
    text = b""
    while text.count(b"\n") < 2:
        text += os.read(news, 100)
    pidfds = [os.pidfd_open(int(pid)) for pid in text.split()]
    try:
        time.sleep(0.05)
        for fd in pidfds:
            signal.pidfd_send_signal(fd, 0)  # both live though their parent has ended
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        poll = select.poll()
        for fd in pidfds:
            poll.register(fd, select.POLLIN)
        ended: set[int] = set()
        while len(ended) < 2:
            ready = poll.poll(10_000)
            assert ready, "somebody outlives the keeper"
            for fd, _ in ready:
                ended.add(fd)
                poll.unregister(fd)
    finally:
        for fd in (*pidfds, news, tell):
            os.close(fd)
