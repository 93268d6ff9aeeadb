"""A node whose workers are fakes of a few lines: what the supervisor's own tests run as a process.

``python -m tests.support.fake_node CONFIG``. A fake SIP worker answers each datagram with ``slot:pid:datagram``; the
datagrams ``die``, ``hang`` and ``fail`` do that to it, ``give`` has it hand something to the other one. FAKE_BOOT=fail
makes ``sip 1`` fail at its first start, FAKE_DRAIN_S is how long a SIP worker drains.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from media.config import MediaConfig
from sbc.config import loader
from sbc.management.slot import ControlSlot
from sbc.supervisor import supervisor
from sbc.supervisor.members import Entries
from sbc.supervisor.segments import Reader
from sbc.telemetry import log
from sbc.worker.slot import SipSlot

STATE_BYTES = 4096


def sip(slot: SipSlot) -> int:
    if os.environ.get("FAKE_BOOT") == "fail" and slot.slot == 1:
        raise RuntimeError("no such table: gateways")
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: asked.append(n))
    slot.page.ready()
    end_s = float("inf")
    while time.monotonic() < end_s:
        slot.page.beat()
        if signal.SIGTERM in asked and end_s == float("inf"):
            end_s = time.monotonic() + float(os.environ.get("FAKE_DRAIN_S", "0"))
            log.get().info("fake drains")
        elif asked.count(signal.SIGTERM) > 1:
            asked.remove(signal.SIGTERM)
            log.get().info("fake is hurried")
        if signal.SIGHUP in asked:
            asked.remove(signal.SIGHUP)
            log.get().info("fake reloads", node=loader.load(slot.config_path).peers["b"].direction)
        for sock in select.select([*slot.sockets, slot.inbox], [], [], 0.02)[0]:
            data, source = sock.recvfrom(2048)
            match data:
                case b"die":
                    os._exit(3)
                case b"fail":
                    raise RuntimeError("told to fail")
                case b"hang":
                    time.sleep(60)
                case b"give":
                    slot.hand_over[1 - slot.slot].send(b"%d" % slot.slot)
                case _ if sock is slot.inbox:
                    log.get().info("fake was given", by=int(data))
                case _:
                    sock.sendto(b"%d:%d:%s" % (slot.slot, os.getpid(), data), source)
    return 0


def media(config: MediaConfig) -> int:
    assert config.page is not None
    lives = os.pread(config.state_fd, 1, 0)[0] + 1  # shared memory that outlives us
    os.pwrite(config.state_fd, bytes([lives]), 0)
    log.get().info("fake media", lives=lives, ports=list(config.realms["core"].ports))
    config.page[5] = 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        config.page[2] = time.monotonic_ns()
        time.sleep(0.05)


def control(slot: ControlSlot) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log.get().info(
        "fake control", pages=sorted(name for name, page in slot.pages.items() if not page.is_spare), user=os.geteuid()
    )
    slot.page.ready()
    while True:
        slot.page.beat()
        time.sleep(0.05)


if __name__ == "__main__":
    path = sys.argv[1]
    entries = Entries(sip=sip, media=media, control=control, segment=Reader(STATE_BYTES))
    sys.exit(supervisor.run(path, loader.load(path), entries))
