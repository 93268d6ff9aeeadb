"""What a new supervisor finds: workers that a former one has started, as the roll and their pages tell."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress

from sbc.config.models import Config
from sbc.supervisor.child import Group, State
from sbc.supervisor.members import Member
from sbc.supervisor.roll import Roll


def adopt(
    members: Sequence[Member], roll: Roll, config: Config | None, now: float
) -> tuple[list[Member], list[tuple[Member, int]]]:
    """Members whose process lives, and those whose process has ended without a supervisor that took it in, with its
    wait status; members that have no process are due. ``config`` is what all of them run with, None where that is not
    known.
    """
    living: list[Member] = []
    dead: list[tuple[Member, int]] = []
    for member in members:
        pid = roll.pid(member.row)
        if not pid and member.page.is_spare:
            continue
        if not pid:
            member.child.adopt(State.BACKOFF, now, now)
            continue
        ready = member.group is Group.STORE or member.page.is_ready
        member.child.adopt(State.READY if ready else State.STARTING, roll.started_s(member.row), now)
        member.pid = pid
        member.config = config
        member.was_stopped = bool(roll.note(member.row))
        with suppress(ProcessLookupError):
            member.pidfd = os.pidfd_open(pid)
        # The keeper notes an end before the pid can be another's: so without one, this was our process when we opened.
        status = roll.ended(member.row)
        if status is None:
            living.append(member)
        else:
            dead.append((member, status))
    return living, dead


def take_in_the_lost(members: Sequence[Member], roll: Roll) -> None:
    """Without a keeper: note the end of adopted members, whose status nobody can tell."""
    for member in members:
        if member.pidfd >= 0 and roll.ended(member.row) is None:
            poll = select.poll()
            poll.register(member.pidfd, select.POLLIN)
            if poll.poll(0):
                roll.end(member.pid, signal.SIGTERM)


def proof_under_way(roll: Roll) -> int | None:
    """The attempt after which a former supervisor began to prove a reload, None where it did not. What is left of the
    processes of that proof is ended: the first one was told by the kernel."""
    row = roll.rows - 1
    pid = roll.pid(row)
    if not pid:
        return None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    roll.clear(row)
    return roll.note(row)
