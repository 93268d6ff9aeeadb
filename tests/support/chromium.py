"""Chromium without a window, with the page of ``browser/``: a phone that is steered over the DevTools protocol."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from tests.support.sbc import eventually

PAGE = Path(__file__).parent / "browser" / "page.html"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--ignore-certificate-errors"),
    *("--autoplay-policy=no-user-gesture-required", "--allow-loopback-in-peer-connection"),
    "--remote-debugging-port=0",
)


class Chromium:
    """One browser with a profile of its own under ``directory``; the page is there when the block begins."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={directory / 'profile'}", PAGE.as_uri()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it has many children
        )
        self._number = 0
        self._open = ExitStack()
        self._tools: ClientConnection | None = None
        try:
            self._attach()
        except BaseException as error:
            self.stop()
            error.add_note((directory / "log").read_text(errors="replace"))
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and its children."""
        self._open.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def run(self, script: str) -> Any:  # Any: JSON
        """The value of an expression of JavaScript; promises are waited for."""
        found = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def until(self, script: str, timeout_s: float, what: str) -> None:
        """Wait until an expression is true."""
        eventually(lambda: bool(self.run(script)), timeout_s, what)

    def _attach(self) -> None:
        there = self.directory / "profile" / "DevToolsActivePort"
        eventually(lambda: there.exists() and there.read_text().count("\n") == 1, 20, "a browser")
        port, path = there.read_text().splitlines()
        self._tools = self._open.enter_context(connect(f"ws://127.0.0.1:{port}{path}", max_size=None, compression=None))
        self._session = ""

        def attached() -> bool:
            pages = [one for one in self._ask("Target.getTargets")["targetInfos"] if one["url"] == PAGE.as_uri()]
            if pages and not self._session:
                found = self._ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
                self._session = found["sessionId"]
            return bool(pages) and self.run("typeof Phone") == "function"

        eventually(attached, 10, "the page")

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:  # Any: JSON
        assert self._tools is not None
        self._number += 1
        request: dict[str, Any] = {"id": self._number, "method": method, "params": params}  # Any: JSON
        if self._session:
            request["sessionId"] = self._session
        self._tools.send(json.dumps(request))
        end = time.monotonic() + 15
        while True:
            reply = json.loads(self._tools.recv(max(0.0, end - time.monotonic())))
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise AssertionError(f"{method}: {reply['error']['message']}")
                found: dict[str, Any] = reply["result"]  # Any: JSON
                return found
