"""A real media worker in a process of its own, as a supervisor would start it, and a plain blocking control client."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import zmq

from media import protocol
from media.config import PAGE_WORDS
from media.counters import WORD_HEARTBEAT_NS, MediaCounter
from media.state import state_size

ROOT = Path(__file__).resolve().parents[2]

_CHILD = """
import json, mmap, signal, sys
import sbc  # decides between compiled and interpreted modules
from media.config import MediaConfig, RealmInterface
from media.worker import run
given = json.loads(sys.argv[1])
page = memoryview(mmap.mmap(given.pop("page_fd"), 8 * 512)).cast("Q")
realms = {
    name: RealmInterface(**{**realm, "ports": tuple(realm["ports"])}) for name, realm in given.pop("realms").items()
}
idle = given.pop("idle", False)  # until SIGUSR1 in any case
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
config = MediaConfig(realms=realms, page=page, idle=lambda: idle and not page[511], **given)
sys.exit(run(config))
"""


class MediaProcess:
    """A worker over a memfd that outlives it: ``kill`` and ``start`` again resume the same sessions."""

    def __init__(self, endpoint: str, realms: dict[str, dict[str, object]], **options: object) -> None:
        self.capacity = int(str(options.setdefault("capacity", 256)))
        self.endpoint = endpoint
        self.state_fd = os.memfd_create("media-state")
        os.ftruncate(self.state_fd, state_size(self.capacity))
        self.page_fd = os.memfd_create("media-page")
        os.ftruncate(self.page_fd, 8 * PAGE_WORDS)
        self.page = memoryview(mmap.mmap(self.page_fd, 8 * PAGE_WORDS)).cast("Q")
        self._arguments = {"slot": 0, "endpoint": endpoint, "realms": realms, **options}
        self._channel = [int(str(options["pairs_fd"]))] if "pairs_fd" in options else []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running worker."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, prefix: tuple[str, ...] = ()) -> None:
        """Start a worker and wait for its first heartbeat."""
        self.page[WORD_HEARTBEAT_NS] = 0
        given = json.dumps({**self._arguments, "state_fd": self.state_fd, "page_fd": self.page_fd})
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-c", _CHILD, given],
            cwd=ROOT,
            pass_fds=(self.state_fd, self.page_fd, *self._channel),
        )
        deadline = time.monotonic() + 10
        while not self.page[WORD_HEARTBEAT_NS]:
            assert self._process.poll() is None, "the media worker ended at once"
            assert time.monotonic() < deadline, "the media worker has no heartbeat"
            time.sleep(0.002)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=5)

    def count(self, counter: MediaCounter) -> int:
        """A word of the counters page."""
        return int(self.page[counter])

    def close(self) -> None:
        """End everything."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self.page.release()
        os.close(self.state_fd)
        os.close(self.page_fd)


class MediaControl:
    """One request at a time, blocking."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RCVTIMEO, 3000)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        self._serial = 0
        self.notifications: list[dict[str, object]] = []

    def send(self, request_id: bytes, body: bytes) -> protocol.Reply:
        """Send a body under an id and wait for the reply."""
        self.socket.send_multipart((protocol.VERSION, request_id, body))
        while True:
            reply = None
            for got, answer in protocol.items(self.socket.recv_multipart()):
                if got == protocol.NOTIFICATION:
                    self.notifications.append(json.loads(answer))
                elif got == request_id:
                    reply = protocol.decode_reply(answer)
            if reply is not None:
                return reply

    def ask(self, request: protocol.Request) -> protocol.Reply:
        """A fresh request."""
        self._serial += 1
        return self.send(self._serial.to_bytes(8, "big"), protocol.encode(request))

    def wait_notification(self, timeout_s: float) -> dict[str, object] | None:
        """The next notification, or None."""
        if self.notifications:
            return self.notifications.pop(0)
        if not self.socket.poll(int(timeout_s * 1000)):
            return None
        for got, answer in protocol.items(self.socket.recv_multipart()):
            assert got == protocol.NOTIFICATION
            self.notifications.append(json.loads(answer))
        return self.notifications.pop(0)

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)
