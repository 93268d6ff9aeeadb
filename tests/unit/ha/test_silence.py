"""Processes that speak are ended, others are not."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from setproctitle import setproctitle

from sbc.ha.silence import Speaking
from sbc.telemetry.counters import Kind
from sbc.telemetry.page import Page


def sleeper(title: str) -> tuple[int, Page]:
    page = Page()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        setproctitle(title)
        os.write(write, b"x")
        time.sleep(30)
        os._exit(0)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    page.open(Kind.SIP, pid)
    return pid, page


def test_those_of_ours_are_ended_and_a_stranger_with_such_a_pid_is_not() -> None:
    ours, one = sleeper("sbc: sip 0")
    stranger, other = sleeper("somebody else")
    gone = Page()
    gone.open(Kind.SIP, 0)

    async def end() -> None:
        speaking = Speaking([one, other, gone])
        assert not await speaking.ended(0.02)
        os.kill(ours, signal.SIGSTOP)  # one that hangs is no exception
        speaking.kill()
        assert await speaking.ended(5)
        speaking.close()

    asyncio.run(end())
    assert os.waitpid(ours, 0)[1] == signal.SIGKILL
    assert os.waitpid(stranger, os.WNOHANG) == (0, 0)
    os.kill(stranger, signal.SIGKILL)
    os.waitpid(stranger, 0)
