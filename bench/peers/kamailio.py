"""Kamailio in two jobs: a plain stateful proxy, and the SBC's full job with Redis and rtpengine beside it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from bench import sipp
from bench.figures import NotMeasuredError
from bench.machine import Cores, require_program
from bench.peers import redis, rtpengine
from bench.peers.templates import fill
from bench.processes import Process, wait_for_port
from bench.wire import Anchors, check_hidden

ADDRESS = "127.0.1.10"
PORT = 5060
CALLEE = f"{sipp.CALLEE}:{sipp.CALLEE_PORT}"
# On one core: enough that a blocking Redis or rtpengine round trip of one leaves another to work.
PROXY_CHILDREN = 2
FULL_CHILDREN = 4


class Kamailio:
    """One running system; a context manager. ``full`` adds dialogs, topology hiding in Redis and rtpengine."""

    target = (ADDRESS, PORT)

    def __init__(self, cores: Cores, directory: Path, *, full: bool) -> None:
        self.full = full
        self._cores = cores
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._parts: list[Process] = []
        self._redis_path = Path()

    def __enter__(self) -> Kamailio:
        try:
            if self.full:
                self._start_full()
            else:
                self._start_kamailio("kamailio-proxy.cfg.in", PROXY_CHILDREN)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_full(self) -> None:
        core = self._cores.system
        self._parts.append(self._stack.enter_context(rtpengine.start(core, self._directory)))
        store, self._redis_path = redis.start(core, self._directory)
        self._parts.append(self._stack.enter_context(store))
        control = "{}:{}".format(*rtpengine.CONTROL)
        self._start_kamailio("kamailio-full.cfg.in", FULL_CHILDREN, NG=control, REDIS=self._redis_path)

    def _start_kamailio(self, template: str, children: int, **values: object) -> None:
        program = require_program("kamailio", "kamailio")
        config = fill(
            template,
            self._directory / "kamailio.cfg",
            ADDRESS=ADDRESS,
            PORT=PORT,
            CHILDREN=children,
            CALLEE=CALLEE,
            **values,
        )
        # -b: the receive buffer that it may ask for; -DD: stay in the foreground, with children
        command: list[str | Path] = [
            program,
            "-DD",
            "-E",
            "-f",
            config,
            "-m",
            "512",
            "-M",
            "16",
            "-b",
            str(4 * 1024 * 1024),
        ]
        command += ["-Y", self._directory, "-P", self._directory / "kamailio.pid"]
        process = self._stack.enter_context(Process("kamailio", command, self._cores.system, self._directory))
        self._parts.append(process)
        wait_for_port(process, ADDRESS, PORT)

    def cpu_by_part(self) -> dict[str, float]:
        """CPU seconds of Kamailio, Redis and rtpengine."""
        return {part.name: part.cpu_s() for part in self._parts}

    def members(self) -> list[Process]:
        return self._parts

    def verify(self) -> None:
        """Place one call and see that the whole job was done; NotMeasuredError tells what was not."""
        before = redis.key_count(self._redis_path) if self.full else 0
        caller, callee = sipp.trace_one(self.target, self._cores)
        if not self.full:
            if "Record-Route" not in callee:
                raise NotMeasuredError("the proxy did not record-route")
            return
        # topos leaves these as they are; hiding them as well would take topoh on top and cost more
        kept = ("From:", "To:", "Call-ID:")
        check_hidden(caller, callee, Anchors(rtpengine.ADDRESS, rtpengine.ADDRESS), apart_from=kept)
        if redis.key_count(self._redis_path) <= before:
            raise NotMeasuredError("topology hiding left nothing in Redis")
