"""An SBC between two networks on loopback, a SIPp caller on one side and a SIPp callee on the other.

The addresses belong to this test process, so that two runs on one machine do not meet.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.sbc import free_port
from tests.support.sipp import Sipp

NETWORK = f"127.{64 + (os.getpid() >> 8) % 128}.{os.getpid() % 256}"
OUTSIDE, CORE = f"{NETWORK}.1", f"{NETWORK}.2"
CALLER, CALLEE, OTHER, STRANGER = f"{NETWORK}.11", f"{NETWORK}.12", f"{NETWORK}.13", f"{NETWORK}.66"

CONFIG = """\
workers: {{ sip: {sip}, media: {media} }}
store: {store}
realms:
  outside:
    listen: [udp:{outside}:{outside_port}]
    media: {{ address: {outside}, ports: 10000-19999 }}
  core:
    listen: [udp:{core}:{core_port}]
    media: {{ address: {core}, ports: 20000-29999 }}
    trusted: true
peers:
  carrier: {{ realm: outside, addresses: {caller}, direction: from_carrier, calls_to: pbx }}
  other: {{ realm: outside, addresses: {other}, direction: from_carrier, calls_to: pbx }}
  pbx: {{ realm: core, addresses: {callee}, direction: from_pbx, gateway: "sip:{callee}:{callee_port}" }}
"""


@dataclass(frozen=True, slots=True)
class Loopback:
    """One test's ports: ``port`` and ``core_port`` are the SBC's, at ``callee_port`` the callee is expected."""

    text: str
    port: int
    core_port: int
    callee_port: int

    def callee(self, directory: Path, *words: str, scenario: str = "uas") -> Sipp:
        """A SIPp callee, answering what the SBC sends to the peer ``pbx``."""
        return Sipp(scenario, directory, "-i", CALLEE, "-p", str(self.callee_port), "-mi", CALLEE, *words)

    def caller(self, directory: Path, *words: str, scenario: str = "uac", host: str = CALLER) -> Sipp:
        """A SIPp caller: the peer ``carrier``, unless ``host`` is another address."""
        return Sipp(scenario, directory, "-i", host, "-mi", host, "-s", "1001", f"{OUTSIDE}:{self.port}", *words)


def loopback(*, sip: int = 1, media: int = 1, store: str = "embedded", more: str = "") -> Loopback:
    """A configuration for :func:`tests.support.sbc.running` on free ports; ``more`` is appended to it."""
    port, core_port, callee_port = free_port(OUTSIDE), free_port(CORE), free_port(CALLEE)
    text = CONFIG.format(
        sip=sip,
        media=media,
        store=store,
        outside=OUTSIDE,
        core=CORE,
        caller=CALLER,
        other=OTHER,
        callee=CALLEE,
        outside_port=port,
        core_port=core_port,
        callee_port=callee_port,
    )
    return Loopback(text + more, port, core_port, callee_port)
