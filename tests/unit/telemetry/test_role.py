"""The role of a node in shared memory."""

from __future__ import annotations

import os
import select

from sbc.telemetry.role import Role, RoleCell


def test_a_change_is_seen_by_others_and_nudges_each_of_them() -> None:
    cell = RoleCell(["sip 0", "control"])
    assert cell.role is Role.PASSIVE
    child = os.fork()
    if child == 0:
        cell.set(Role.ACTIVE, 7)
        os._exit(0)
    os.waitpid(child, 0)
    assert cell.is_active
    assert cell.token == 7
    for name in ("sip 0", "control"):
        assert select.select([cell.bell(name)], [], [], 0)[0]
        cell.heard(name)
        cell.heard(name)
        assert not select.select([cell.bell(name)], [], [], 0)[0]
    cell.close()


def test_media_memory_is_emptied_once_after_each_silence_and_at_the_start() -> None:
    cell = RoleCell([])
    assert [cell.must_empty(0), cell.must_empty(0), cell.must_empty(1)] == [True, False, True]
    cell.set(Role.ACTIVE, 1)
    assert not cell.must_empty(0), "a worker that dies while the node is active goes on with what is there"
    cell.set(Role.LEAVING, 1)
    cell.set(Role.PASSIVE, 1)
    cell.set(Role.PASSIVE, 1)
    assert [cell.must_empty(0), cell.must_empty(0)] == [True, False]
    cell.close()
