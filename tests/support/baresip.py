"""baresip as a phone: it plays a tone, records what it hears, and is steered over a socket (its module ctrl_tcp)."""

from __future__ import annotations

import json
import math
import re
import select
import struct
import subprocess
import time
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from sbc.selftest.netns import Lab
from tests.support.sbc import eventually

CONTROL = 10_000  # its control port, above its SIP port
RATE_HZ = 8000
LOUD = 8000  # amplitude of the tone that it plays, of 32767
# Without its jitter buffer, which compares the sequence numbers of a new SSRC with those of the former one (1.0.0), and
# so drops half of all partners that a transfer brings.
CONFIG = """\
sip_listen {host}:{port}
{tls}
call_max_calls 4
audio_source aufile,{directory}/tone.wav
audio_alert none,none
ausrc_srate 8000
auplay_srate 8000
ausrc_channels 1
auplay_channels 1
net_interface {host}
rtp_ports {low}-{high}
rtcp_mux {mux}
jitter_buffer_delay 0-0
module_path {modules}
module g711.so
module aufile.so
module sndfile.so
module srtp.so
module dtls_srtp.so
module ice.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
snd_path {directory}
ctrl_tcp_listen {host}:{control}
"""


def _modules() -> str:
    found = [str(path.parent) for path in Path("/usr/lib").glob("**/baresip/modules/ctrl_tcp.so")]
    assert found, "baresip has no modules"
    return found[0]


class Baresip:
    """One phone, ``name`` in the host ``host`` of a lab, at ``address``; what it dials goes to ``outbound``, a SIP URI.
    It plays a tone of ``tone_hz``.

    ``account`` are further parameters of its account (``auth_pass=…``, ``regint=…``), ``certificate`` a PEM file with
    key and certificate, ``ca`` the authorities that it trusts. It answers by itself unless ``answers`` is False.
    With ``mux`` it offers one port for RTP and RTCP (RFC 5761).
    """

    def __init__(
        self,
        directory: Path,
        lab: Lab,
        name: str,
        host: str,
        address: str,
        *,
        port: int = 5060,
        outbound: str = "",
        domain: str = "",
        transport: str = "udp",
        tone_hz: int = 440,
        account: str = "regint=0",
        certificate: Path | None = None,
        ca: Path | None = None,
        answers: bool = True,
        mux: bool = False,
    ) -> None:
        self.directory = directory / f"baresip-{name}"
        self.directory.mkdir(parents=True)
        self.name, self._lab, self._host, self.address = name, lab, host, (address, CONTROL + port)
        self.events: list[dict[str, Any]] = []  # Any: JSON values
        self._octets = b""
        self._replies: dict[str, dict[str, Any]] = {}  # Any: JSON values
        self._token = 0
        low = 40_000 + port % 100 * 100
        _write_tone(self.directory / "tone.wav", tone_hz)
        tls = f"sip_certificate {certificate}\n" if certificate is not None else ""
        if ca is not None:
            tls += f"sip_cafile {ca}\n"
        (self.directory / "config").write_text(
            CONFIG.format(
                **{"host": address, "port": port, "tls": tls, "directory": self.directory, "modules": _modules()},
                **{"low": low, "high": low + 98, "control": CONTROL + port, "mux": "yes" if mux else "no"},
            )
        )
        (self.directory / "contacts").touch()
        params = [f"transport={transport}"] if transport != "udp" else []
        words = [account, "audio_codecs=PCMU", "ptime=20", "answermode=" + ("auto" if answers else "manual")]
        if outbound:
            words.append(f'outbound="{outbound}"')
        uri = ";".join([f"sip:{name}@{domain or f'{address}:{port}'}", *params])
        (self.directory / "accounts").write_text(f"<{uri}>;{';'.join(words)}\n")
        self._log = (self.directory / "log").open("wb")
        self._process = subprocess.Popen(
            [*lab.inside(host), "baresip", "-f", str(self.directory), "-v"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
        )
        try:
            eventually(self._connected, 15, f"baresip\n{self.log}")
        except BaseException:
            self.stop()
            raise

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it in order, so that its recordings are whole."""
        if hasattr(self, "_socket"):
            self._socket.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    # steering

    def command(self, command: str, params: str = "") -> str:
        """Have it do something that its menu offers; returns what it says."""
        self._token += 1
        token = str(self._token)
        text = json.dumps({"command": command, "params": params, "token": token}).encode()
        self._socket.sendall(b"%d:%b," % (len(text), text))
        self._until(lambda: token in self._replies, 5, f"an answer to {command}")
        return str(self._replies.pop(token).get("data", ""))

    def dial(self, where: str) -> None:
        """Call a URI."""
        self.command("dial", where)

    def registered(self) -> None:
        """Wait for its registration, which may come before we can be told of it."""
        eventually(lambda: " 200 OK " in self.log, 8, f"{self.name} registered\n{self.log}")

    def expect(self, kind: str, timeout_s: float = 8.0) -> dict[str, Any]:  # Any: JSON values
        """The next event of a type (CALL_ESTABLISHED, CALL_CLOSED, REGISTER_OK …); those before it are dropped."""

        def there() -> bool:
            return any(event.get("type") == kind for event in self.events)

        self._until(there, timeout_s, f"{kind} at {self.name}")
        while True:
            event = self.events.pop(0)
            if event.get("type") == kind:
                return event

    def _until(self, check: Any, timeout_s: float, what: str) -> None:  # Any: Callable[[], bool], for a lambda
        deadline = time.monotonic() + timeout_s
        while not check():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise AssertionError(f"not within {timeout_s:g} s: {what}\n{self.events}\n{self.log[-3000:]}")
            if select.select([self._socket], [], [], left_s)[0]:
                data = self._socket.recv(65_536)
                assert data, f"baresip has ended\n{self.log[-3000:]}"
                self._octets += data
                self._parse()

    def _parse(self) -> None:
        while match := re.match(rb"(\d+):", self._octets):
            start, end = match.end(), match.end() + int(match[1])
            if len(self._octets) <= end:
                return
            message = json.loads(self._octets[start:end])
            self._octets = self._octets[end + 1 :]
            if message.get("event"):
                self.events.append(message)
            else:
                self._replies[str(message.get("token"))] = message

    def _connected(self) -> bool:
        assert self._process.poll() is None, self.log
        try:
            self._socket = self._lab.connect(self._host, self.address)
        except OSError:
            return False
        return True

    # what it heard

    def heard(self, hz: int) -> float:
        """The amplitude of a tone in the last second of what it heard in its last call, which has ended.

        Not for calls with a hold: baresip 1.0.0 drops its recorder at a hold for good (its issue 1496), also in a call
        from phone to phone. There, see :func:`spoken`.
        """
        samples = self.recording()[-RATE_HZ:]
        return amplitude(samples, hz) if len(samples) >= RATE_HZ // 2 else 0.0

    @property
    def recorded_s(self) -> float:
        """How long the last recording of what came in is by now."""
        found = self._recordings()
        return found[-1].stat().st_size / 2 / RATE_HZ if found else 0.0

    def _recordings(self) -> list[Path]:
        return sorted(self.directory.glob("dump-*-dec.wav"), key=lambda path: path.stat().st_mtime_ns)

    def recording(self) -> list[int]:
        """Samples of the last recording of what came in."""
        found = self._recordings()
        if not found:
            return []
        data = found[-1].read_bytes()
        start = data.find(b"data") + 8  # the header's length is written when it is closed
        octets = data[start : len(data) - (len(data) - start) % 2]
        return list(struct.unpack(f"<{len(octets) // 2}h", octets))


def amplitude(samples: Sequence[int], hz: int) -> float:
    """Of one frequency in samples (Goertzel's sum, plainly); 0 where there are none."""
    step = 2 * math.pi * hz / RATE_HZ
    real = sum(sample * math.cos(step * at) for at, sample in enumerate(samples))
    imaginary = sum(sample * math.sin(step * at) for at, sample in enumerate(samples))
    return 2 * math.hypot(real, imaginary) / max(1, len(samples))


def spoken(packets: Sequence[bytes]) -> list[int]:
    """The samples of RTP packets, in which it sends PCMU (ITU-T G.711) behind a header of 12 octets."""
    return [_LINEAR[octet] for packet in packets for octet in packet[12:]]


def _linear(octet: int) -> int:
    inverted = ~octet
    magnitude = (((inverted & 15) << 3) + 132 << (inverted >> 4 & 7)) - 132
    return -magnitude if inverted & 128 else magnitude


_LINEAR = [_linear(octet) for octet in range(256)]


def _write_tone(path: Path, hz: int) -> None:
    samples = [int(LOUD * math.sin(2 * math.pi * hz * at / RATE_HZ)) for at in range(RATE_HZ)]  # of whole periods
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(struct.pack(f"<{RATE_HZ}h", *samples) * 30)
