"""Beside us in P3: rtpengine (Debian's ``rtpengine-daemon``, in user space) is killed, and restores from its Redis."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from sbc.demo.run import free_port
from sbc.selftest import ng
from sbc.selftest.agents import SUITE, UaCall
from sbc.selftest.measure import Failed, Measures, NotTried
from sbc.selftest.node import CALLEE, CALLER, CORE, OUTSIDE, dying_with_us, wait
from sbc.selftest.processes import PREPARED_S, needs_pylibsrtp
from sbc.selftest.replicated import HOST, free_ports
from sbc.selftest.row import Row
from sbc.selftest.site import Call, Setup, Site
from sbc.selftest.store import Store
from sbc.selftest.talk import BEFORE_S, INTERVAL_S, Stream

WRITTEN_S = 8.0  # it writes a call about 4 s after its setup once more, in life long before the first rollover
HEARD_S = 5.0  # who is not heard again by then never is
SETTLED_S = 1.0  # after the last one: what comes back may go again
PACKETS = 5
_ADDRESS = re.compile(r"^c=IN IP4 (\S+)", re.M)
_PORT = re.compile(r"^m=audio (\d+)", re.M)
_KEY = re.compile(rf"^a=crypto:(\d+) {SUITE} inline:([^\s|]+)", re.M)


class Redis(Store):
    """The store of the kit, on a TCP port as well: rtpengine knows no other."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_ports(1)[0]


class Daemon:
    """One rtpengine, always with the same arguments."""

    def __init__(self, folder: Path, redis_port: int) -> None:
        self._control = (CORE, free_port(CORE))
        self._log = folder / "rtpengine.log"
        self._command = [
            *dying_with_us(),
            _program(),
            *("--config-file=none", "--table=-1", "--foreground", "--log-stderr", "--log-level=3"),
            *(f"--interface={OUTSIDE}", "--port-min=20000", "--port-max=29999"),
            f"--listen-ng={self._control[0]}:{self._control[1]}",
            f"--redis={HOST}:{redis_port}/0",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Failed when it does not answer."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait(self._answers, 10, "an answer of rtpengine")
        except Failed as failed:
            raise Failed(f"{failed}: {self._log.read_text(errors='replace')[-300:]}") from failed

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, command: str, **values: ng.Value) -> ng.Value:
        """The SDP that it answers. Failed when it refuses."""
        told = ng.ask(self._control, {"command": command, **values})
        if told.get("result") != "ok":
            raise Failed(f"rtpengine refuses {command}: {told.get('error-reason', told)}")
        return told.get("sdp", "")

    def processor_s(self) -> tuple[float, float]:
        """Seconds for which its first thread, which reads the store, had a processor, and waited for one."""
        assert self._process is not None
        with suppress(OSError, ValueError):
            ran, waited, _ = Path(f"/proc/{self._process.pid}/schedstat").read_text().split()
            return int(ran) / 1e9, int(waited) / 1e9
        return 0.0, 0.0

    def _answers(self) -> bool:
        with suppress(OSError):
            return ng.ask(self._control, {"command": "ping"}, timeout_s=0.2).get("result") == "pong"
        return False


@contextmanager
def _daemon(site: Site) -> Iterator[Daemon]:
    daemon = Daemon(site.folder, site.store.port)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.kill()


def daemon_killed(site: Site, measures: Measures, *, secure: bool = False, rollovers: int = 0) -> None:
    """kill -9, and a start at once; with ``secure`` callers speak RTP and callees SRTP."""
    with _daemon(site) as daemon:
        calls = [_set_up(site, daemon, number, secure=secure) for number in range(site.calls)]
        time.sleep(WRITTEN_S)
        site.age(calls, rollovers)
        site.prepare(calls, PREPARED_S)
        streams = [stream for call in calls for stream in call.streams]
        for stream in streams:
            stream.forget()
        site.control(calls, measures)
        fault_at, fault_s = time.time(), time.monotonic()
        daemon.kill()
        daemon.start()
        measures.add("daemon answers again", [time.monotonic() - fault_s])
        ran_s, waited_s = daemon.processor_s()
        measures.add("processor time that it took", [ran_s])
        measures.add("wait for that processor", [waited_s])
        _tell(measures, calls, fault_at, _dumb(streams, time.time()))
        site.silence(calls)


def _set_up(site: Site, daemon: Daemon, number: int, *, secure: bool) -> Call:
    """One call with audio, by an offer and its answer."""
    near, far = site.talks
    name = f"peer{number:04}"
    sides = [UaCall(name, ""), UaCall(name, "")]
    streams = []
    for side, talk in zip(sides, (near, far), strict=True):
        side.audio_port = talk.open()
        streams.append(talk.stream(side.audio_port))
        streams[-1].call = name.encode()
    common: dict[str, ng.Value] = {"call-id": name, "from-tag": "a", "ICE": "remove", "DTLS": "off"}
    profile = "RTP/SAVP" if secure else "RTP/AVP"
    offer = str(daemon.ask("offer", **common, sdp=_sdp(CALLER, streams[0].port), **{"transport-protocol": profile}))
    crypto = ""
    if secure:
        offered = _KEY.search(offer)
        if offered is None:
            raise Failed(f"rtpengine offers no {SUITE}")
        key = base64.b64encode(os.urandom(30)).decode()
        streams[1].secure(key, offered[2])
        crypto = f"a=crypto:{offered[1]} {SUITE} inline:{key}\r\n"
    answer = str(daemon.ask("answer", **common, **{"to-tag": "b"}, sdp=_sdp(CALLEE, streams[1].port, crypto)))
    streams[0].far, streams[1].far = _audio(answer), _audio(offer)
    return Call(sides[0], sides[1], (streams[0], streams[1]))


def _sdp(host: str, port: int, crypto: str = "") -> str:
    head = f"v=0\r\no=ua 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    profile = "RTP/SAVP" if crypto else "RTP/AVP"
    return f"{head}m=audio {port} {profile} 0\r\na=rtpmap:0 PCMU/8000\r\n{crypto}"


def _audio(sdp: str) -> tuple[str, int]:
    host, port = _ADDRESS.search(sdp), _PORT.search(sdp)
    if host is None or port is None:
        raise Failed("rtpengine's SDP names no address for audio")
    return host[1], int(port[1])


def _dumb(streams: Sequence[Stream], since: float) -> list[Stream]:
    """Those that bring nothing after that moment (wall clock) that is authentic and their own."""
    waiting = list(streams)

    def heard() -> bool:
        waiting[:] = [one for one in waiting if sum(at > since for at, _ in one.heard[-PACKETS:]) < PACKETS]
        return not waiting

    with suppress(Failed):
        wait(heard, HEARD_S, "audio in each call")
    time.sleep(SETTLED_S)
    return waiting


def _tell(measures: Measures, calls: Sequence[Call], fault_at: float, dumb: Sequence[Stream]) -> None:
    end = time.time() - INTERVAL_S
    streams = [stream for call in calls for stream in call.streams]
    heard = [one for one in streams if not any(one is other for other in dumb)]
    measures.add("gap", [one.gap(fault_at - BEFORE_S, end) for one in heard])
    losses = [one.losses(fault_at - BEFORE_S, end) for one in heard]
    if losses:
        lost, again = (sum(part) for part in zip(*losses, strict=True))
        measures.note(f"run {measures.runs}: packets lost {lost}, twice {again}, of {len(heard)} streams")
    ends = ("caller", "callee")
    silent = [sum(one.side == n for one in dumb) for n in range(len(ends))]
    for end_name, count in zip(ends, silent, strict=True):
        if count:
            measures.note(f"run {measures.runs}: {count} of {len(calls)} {end_name}s hear nothing again")
    whole = len({call.a.call_id for call in calls} - {one.call.decode() for one in dumb})
    measures.note(f"run {measures.runs}: {whole} of {len(calls)} calls have audio both ways again")
    forged = sum(one.forged for one in streams)
    if forged:
        measures.note(f"run {measures.runs}: {forged} packets of SRTP are not authentic, or came twice")


def _program() -> str:
    return shutil.which("rtpengine") or shutil.which("rtpengine", path="/usr/sbin:/usr/local/sbin") or ""


def needs_rtpengine() -> None:
    """NotTried where it is not installed."""
    if not _program():
        raise NotTried("rtpengine-daemon is not installed")


def _needs_both() -> None:
    needs_rtpengine()
    needs_pylibsrtp()


BESIDE = "nothing is promised: another product in the same place, for comparison"
ROLLOVERS = {"P3S-rtpengine": 0, "P3S2-rtpengine": 2}
SETUP = Setup(own_store=Redis, no_node=True)

ROWS = (
    Row(
        "P3-rtpengine",
        "rtpengine is killed and started again, with its Redis",
        BESIDE,
        daemon_killed,
        SETUP,
        check=needs_rtpengine,
        is_beside=True,
    ),
    *(
        Row(
            name,
            f"rtpengine is killed and started again, SRTP on one side, after {rollovers or 'no'} rollovers",
            BESIDE,
            partial(daemon_killed, secure=True, rollovers=rollovers),
            SETUP,
            limit_s=120.0,
            check=_needs_both,
            is_beside=True,
        )
        for name, rollovers in ROLLOVERS.items()
    ),
)
