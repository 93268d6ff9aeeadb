"""Starts an SBC of its own on loopback, places a call through it, and tells what happened."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbc.demo.phone import CallFailed, Phone, Traced

TALK_S = 3.0
ALICE_HOST, OUTSIDE_HOST = "127.0.0.11", "127.0.0.1"  # the caller's network: phone and SBC
BOB_HOST, CORE_HOST = "127.0.0.12", "127.0.0.2"  # the callee's network

CONFIG = """\
node: demo
run_dir: {directory}/run
state_dir: {directory}/state
workers: {{ sip: 1, media: 1 }}
store: embedded
database: sqlite:///{directory}/state/sbc.db
realms:
  outside:
    listen: [udp:{outside}:{outside_port}]
    media: {{ address: {outside}, ports: 20000-20999 }}
  core:
    listen: [udp:{core}:{core_port}]
    media: {{ address: {core}, ports: 21000-21999 }}
    trusted: true
peers:
  alice: {{ realm: outside, addresses: {alice}, direction: from_outside, calls_to: bob }}
  bob: {{ realm: core, addresses: {bob}, direction: from_core, gateway: "sip:{bob}:{bob_port}" }}
management: {{ metrics: "" }}
log: {{ level: info }}
"""


@dataclass(slots=True)
class Direction:
    """Audio of one direction, as the phone that listened measured it."""

    name: str
    sent: int
    received: int
    lost: int
    altered: int
    jitter_ms: float
    mos: float

    @property
    def intact(self) -> bool:
        """Whether audio arrived, every octet unchanged, and (on loopback) at least 98 of 100 packets."""
        return self.received > 0 and self.altered == 0 and self.lost <= self.sent // 50


@dataclass(slots=True)
class Outcome:
    """Everything that the demonstration has to show."""

    ladder: list[Traced]
    audio: list[Direction]
    cdr: dict[str, Any] | None  # Any: the JSON of the record
    error: str = ""

    @property
    def good(self) -> bool:
        return not self.error and self.cdr is not None and len(self.audio) == 2 and all(d.intact for d in self.audio)


def free_port(host: str) -> int:
    """A UDP port that nobody has on ``host`` right now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_sbc(
    config: Path, log: Path, timeout_s: float = 15.0, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """An SBC process with this configuration, stopped again at the end; raises CallFailed when it does not start.

    Readiness is what a service manager would go by: READY=1 on the notification socket. ``prefix`` stands before the
    command, for example to run it in a network namespace.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, log.open("wb") as out:
        address = str(config.parent / "notify.sock")
        Path(address).unlink(missing_ok=True)  # of an earlier run
        notify.bind(address)
        notify.settimeout(0.2)
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "sbc", "run", "-c", str(config)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NOTIFY_SOCKET": address},
        )
        try:
            deadline = time.monotonic() + timeout_s
            while True:
                if process.poll() is not None:
                    raise CallFailed("the SBC did not start")
                if time.monotonic() > deadline:
                    raise CallFailed(f"the SBC was not ready after {timeout_s:g} s")
                with suppress(TimeoutError):
                    if b"READY=1" in notify.recv(4096):
                        break
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def read_cdr(database: Path, timeout_s: float = 3.0) -> dict[str, Any] | None:
    """The record of the call from the SBC's database, once it is written; None if it never is."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(sqlite3.Error), sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            row = connection.execute("SELECT record FROM cdr").fetchone()
            if row is not None:
                record: dict[str, Any] = json.loads(row[0])
                return record
        time.sleep(0.05)
    return None


async def converse(trace: list[Traced], outside_port: int, bob: Phone, alice: Phone) -> list[Direction]:
    """The call itself: Alice calls, Bob answers, both talk, Alice hangs up."""
    from media.quality import estimate  # the E-model that the relay uses as well

    answering = asyncio.create_task(bob.answer("alice"))
    try:
        await alice.call((OUTSIDE_HOST, outside_port), "1001", "bob")
        await answering
    finally:
        answering.cancel()
    sent_by_alice, sent_by_bob = await asyncio.gather(alice.talk(TALK_S), bob.talk(TALK_S))
    await asyncio.sleep(0.1)  # the last packets are still on their way
    await asyncio.gather(alice.hang_up(), bob.hung_up())
    directions = []
    for name, listener, sent in (("alice to bob", bob, sent_by_alice), ("bob to alice", alice, sent_by_bob)):
        heard = listener.heard
        heard.expected = sent
        score = estimate(heard.packets, heard.lost, heard.jitter_ms)
        directions.append(Direction(name, sent, heard.packets, heard.lost, heard.altered, heard.jitter_ms, score))
    return directions


async def _call(directory: Path) -> Outcome:
    trace: list[Traced] = []
    alice, bob = Phone("alice", ALICE_HOST, trace), Phone("bob", BOB_HOST, trace)
    await alice.open()
    await bob.open()
    outside_port, core_port = free_port(OUTSIDE_HOST), free_port(CORE_HOST)
    config = directory / "sbc.yaml"
    config.write_text(
        CONFIG.format(
            directory=directory,
            outside=OUTSIDE_HOST,
            core=CORE_HOST,
            alice=ALICE_HOST,
            bob=BOB_HOST,
            outside_port=outside_port,
            core_port=core_port,
            bob_port=bob.port,
        )
    )
    audio: list[Direction] = []
    cdr, error = None, ""
    try:
        with running_sbc(config, directory / "sbc.log"):
            audio = await converse(trace, outside_port, bob, alice)
            cdr = await asyncio.to_thread(read_cdr, directory / "state" / "sbc.db")
            if cdr is None:
                raise CallFailed("no CDR was written")
    except CallFailed as failure:
        error = f"{failure}\n{(directory / 'sbc.log').read_text(errors='replace')}"
    finally:
        alice.close()
        bob.close()
    return Outcome(trace, audio, cdr, error)


def main(*, as_json: bool = False) -> int:
    """Run the demonstration; returns 0 only if audio arrived unchanged both ways and the CDR was written."""
    with tempfile.TemporaryDirectory(prefix="sbc-demo-") as name:
        outcome = asyncio.run(_call(Path(name)))
    from sbc.demo.show import show

    show(outcome, as_json=as_json)
    return 0 if outcome.good else 1
