"""Beside us in P1: one UDP worker of Kamailio (Debian), a proxy that stays in the path of calls, is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sbc.selftest.agents import Asked
from sbc.selftest.measure import Failed, Measures, NotTried
from sbc.selftest.node import CALLEE, OUTSIDE, dying_with_us, wait
from sbc.selftest.row import Row
from sbc.selftest.rtpengine import BESIDE
from sbc.selftest.site import Setup, Site

WORKERS = 2  # as the SBC's
CONTROLS = 4  # calls that end before the fault: it does serve
BYE_S = 1.0
END_S = 2.0  # who lives so long after the death of a worker lives on

CONFIG = """\
#!KAMAILIO
listen=udp:{host}:{port}
children={workers}
disable_tcp=yes
log_stderror=yes
debug=0
auto_aliases=no
dns=no
rev_dns=no
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "dialog.so"
loadmodule "jsonrpcs.so"
modparam("jsonrpcs", "dgram_socket", "{socket}")
modparam("dialog", "db_mode", 0)

request_route {{
    if (is_method("CANCEL")) {{
        if (t_check_trans()) t_relay();
        exit;
    }}
    if (has_totag()) {{
        if (loose_route() || t_check_trans()) t_relay();
        exit;
    }}
    t_check_trans();
    if (is_method("INVITE")) {{
        dlg_manage();
        record_route();
    }}
    $du = "sip:{callee}:{callee_port}";
    if (!t_relay()) sl_reply_error();
}}
"""


class Server:
    """One Kamailio where the SBC would listen."""

    def __init__(self, folder: Path, port: int, callee_port: int) -> None:
        self._folder = folder
        self._socket = folder / "rpc"
        self._log = folder / "kamailio.log"
        self._config = folder / "kamailio.cfg"
        values = {"host": OUTSIDE, "port": port, "callee": CALLEE, "callee_port": callee_port}
        self._config.write_text(CONFIG.format(workers=WORKERS, socket=self._socket, **values))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Failed when it does not answer."""
        words: list[str | Path] = [
            "-DD",
            "-E",
            "-f",
            self._config,
            "-m",
            "64",
            "-Y",
            self._folder,
            "-P",
            self._folder / "kamailio.pid",
        ]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*dying_with_us(), _program(), *words], stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait(lambda: len(self.workers()) == WORKERS, 10, "an answer of kamailio")
        except Failed as failed:
            raise Failed(f"{failed}: {self._log.read_text(errors='replace')[-300:]}") from failed

    def workers(self) -> list[int]:
        """The process ids of those that receive SIP; empty while it does not answer."""
        told = self._ask("core.ps")
        pairs = zip(told[::2], told[1::2], strict=True)
        return [int(pid) for pid, title in pairs if str(title).startswith("udp receiver")]

    def _ask(self, method: str) -> list[Any]:  # Any: JSON values
        ours = self._folder / "asks"
        ours.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
            sock.bind(str(ours))
            sock.settimeout(2)
            sock.sendto(json.dumps({"jsonrpc": "2.0", "method": method, "id": 1}).encode(), str(self._socket))
            return list(json.loads(sock.recv(65536))["result"])
        return []

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self) -> None:
        """End it and all its processes, which are a group of their own."""
        if self.process is None:
            return
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def _server(site: Site) -> Iterator[Server]:
    server = Server(site.folder, site.node.port, site.node.callee_port)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def worker_killed(site: Site, measures: Measures) -> None:
    """As P1: half of the calls are ended at that moment, half afterwards."""
    with _server(site) as server:
        before = site.establish(CONTROLS, talk=False)
        site.end(before, measures, what="BYE answered, no fault")
        calls = site.establish(site.calls, talk=False)
        half = len(calls) // 2
        victim = server.workers()[0]
        fault_s = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        byes = site.hang_up(calls[:half])
        while not server.has_ended() and time.monotonic() < fault_s + END_S:
            time.sleep(0.001)
        if server.has_ended():
            measures.add("the whole server is gone after", [time.monotonic() - fault_s])
        else:
            measures.note(f"run {measures.runs}: the server lives on with {len(server.workers())} of {WORKERS} workers")
        _tell(measures, "at once", byes)
        _tell(measures, "afterwards", site.hang_up(calls[half:]))
        site.forget(calls)


def _tell(measures: Measures, when: str, byes: Sequence[Asked]) -> None:
    time.sleep(BYE_S)
    answered = [bye.took_s for bye in byes if bye.status == 200 and bye.took_s <= BYE_S]
    measures.add("BYE answered", answered)
    measures.note(f"run {measures.runs}: of {len(byes)} BYEs {when} {len(answered)} were answered within {BYE_S:g} s")


def _program() -> str:
    return shutil.which("kamailio") or shutil.which("kamailio", path="/usr/sbin:/usr/local/sbin") or ""


def needs_kamailio() -> None:
    """NotTried where it is not installed."""
    if not _program():
        raise NotTried("kamailio is not installed")


ROWS = (
    Row(
        "P1-kamailio",
        f"one of {WORKERS} UDP workers of Kamailio is killed",
        BESIDE,
        worker_killed,
        Setup(no_node=True),
        check=needs_kamailio,
        is_beside=True,
    ),
)
