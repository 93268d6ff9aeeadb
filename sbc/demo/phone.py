"""A small SIP telephone for the demonstration call: one call at a time, over UDP, with its own RTP.

It is a user agent like any other on the network: it knows nothing of the SBC between it and the far side.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sbc.sip.build import build_request, reply_to
from sbc.sip.ids import Ids
from sbc.sip.message import Message

PACKET_INTERVAL_S = 0.020
SAMPLES_PER_PACKET = 160  # G.711 at 8 kHz
_RTP = struct.Struct("!BBHII")
_CONNECTION = re.compile(r"^c=IN IP4 (\S+)", re.M)
_AUDIO = re.compile(r"^m=audio (\d+)", re.M)


class CallFailed(Exception):
    """The demonstration call did not go as a call should; the text says at which step."""


@dataclass(slots=True)
class Traced:
    """One message as a phone saw it."""

    at: float
    phone: str
    sent: bool
    summary: str


@dataclass(slots=True)
class Heard:
    """What one phone received: arrival quality by RFC 3550, and whether the octets were those that were spoken."""

    expected: int = 0
    packets: int = 0
    altered: int = 0
    jitter_ms: float = 0.0
    sequences: set[int] = field(default_factory=set)

    @property
    def lost(self) -> int:
        return self.expected - len(self.sequences)


def spoken(speaker: str, sequence: int) -> bytes:
    """The 160 octets that ``speaker`` puts into its packet ``sequence``: no two packets are alike."""
    seed = sum(speaker.encode()) * 31 + sequence
    return bytes((seed * 7 + i * (1 + seed % 13)) & 0xFF for i in range(SAMPLES_PER_PACKET))


class _Port(asyncio.DatagramProtocol):
    """A UDP port that hands what arrives to a function."""

    def __init__(self, received: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._received(data, addr)


async def _bind(host: str, received: Callable[[bytes, tuple[str, int]], None]) -> tuple[asyncio.DatagramTransport, int]:
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind((host, 0))
    sock.setblocking(False)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Port(received), sock=sock)
    return transport, sock.getsockname()[1]


class Phone:
    """One telephone with one SIP and one RTP socket on ``host``."""

    def __init__(self, name: str, host: str, trace: list[Traced]) -> None:
        self.name = name
        self.host = host
        self.heard = Heard()
        self._trace = trace
        self._ids = Ids()
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._last_transit: float | None = None
        self._far_name = ""

    async def open(self) -> None:
        """Bind both sockets."""
        self._sip, self.port = await _bind(self.host, self._sip_received)
        self._rtp, self.rtp_port = await _bind(self.host, self._rtp_received)

    def close(self) -> None:
        self._sip.close()
        self._rtp.close()

    # --- signalling -----------------------------------------------------------------------------------------------

    async def call(self, gateway: tuple[str, int], number: str, far_name: str) -> None:
        """Place a call through ``gateway`` and return when it is answered and acknowledged."""
        self._gateway = gateway
        self._far_name = far_name
        self._local = f"<sip:{self.name}@{self.host}>;tag={self._ids.tag()}"
        self._remote = f"<sip:{number}@{gateway[0]}>"
        self._call_id = f"{self._ids.token()}@{self.host}"
        self._target = f"sip:{number}@{gateway[0]}:{gateway[1]}"
        self._cseq = 1
        offer = self._request("INVITE", self._sdp())
        answer = await self._transact(offer, "INVITE", 10.0)
        self._remote = answer.get("To") or ""
        self._take_target(answer)
        self._far_media(answer.body)
        self._send(self._request("ACK"))

    async def answer(self, far_name: str, ring_s: float = 0.3) -> None:
        """Wait for a call, ring, answer it, and return when the answer is acknowledged."""
        self._far_name = far_name
        invite = await self._expect("INVITE", 10.0)
        self._invited_by(invite)
        self._reply(invite, 180)
        await asyncio.sleep(ring_s)
        self._reply(invite, 200, self._sdp())
        await self._expect("ACK", 5.0)

    async def hang_up(self) -> None:
        """Send BYE and wait for its answer."""
        self._cseq += 1
        await self._transact(self._request("BYE"), "BYE", 5.0)

    async def hung_up(self) -> None:
        """Wait for the far side's BYE and answer it."""
        self._reply(await self._expect("BYE", 10.0), 200)

    def _invited_by(self, invite: Message) -> None:
        self._tag = self._ids.tag()
        self._local = f"{invite.get('To')};tag={self._tag}"
        self._remote = invite.get("From") or ""
        self._call_id = invite.call_id
        self._cseq = 1
        self._take_target(invite)
        self._far_media(invite.body)

    def _take_target(self, message: Message) -> None:
        contact = message.contact()
        if contact is None:
            raise CallFailed(f"{self.name}: {message.method or message.status} came without a Contact")
        self._target = str(contact.uri)
        self._gateway = (contact.uri.host, contact.uri.port or 5060)

    def _request(self, method: str, body: bytes = b"") -> bytes:
        headers = [
            ("Via", f"SIP/2.0/UDP {self.host}:{self.port};rport;branch={self._ids.branch()}"),
            ("Max-Forwards", "70"),
            ("From", self._local),
            ("To", self._remote),
            ("Call-ID", self._call_id),
            ("CSeq", f"{self._cseq} {method}"),
            ("Contact", f"<sip:{self.name}@{self.host}:{self.port}>"),
            ("User-Agent", f"{self.name}-phone/1.0"),
        ]
        if body:
            headers.append(("Content-Type", "application/sdp"))
        return build_request(method, self._target, headers, body)

    def _reply(self, request: Message, status: int, body: bytes = b"") -> None:
        headers = [("Contact", f"<sip:{self.name}@{self.host}:{self.port}>")]
        if body:
            headers.append(("Content-Type", "application/sdp"))
        self._send(reply_to(request, status, to_tag=self._tag, received=None, headers=headers, body=body))

    async def _transact(self, data: bytes, method: str, timeout_s: float) -> Message:
        """Send a request until it is answered; returns the 2xx, raises CallFailed on any other final answer."""
        deadline = time.monotonic() + timeout_s
        wait_s, provisional = 0.5, False
        self._send(data)
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self._inbox.get(), left if provisional else min(wait_s, left))
            except TimeoutError:
                self._send(data)
                wait_s *= 2
                continue
            if message.is_request or message.cseq_method != method:
                continue
            provisional = True
            if message.status >= 300:
                raise CallFailed(f"{self.name}: {method} was answered with {message.status} {message.reason}")
            if message.status >= 200:
                return message
        raise CallFailed(f"{self.name}: no answer to {method} within {timeout_s:g} s")

    async def _expect(self, method: str, timeout_s: float) -> Message:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self._inbox.get(), left)
            except TimeoutError:
                break
            if message.is_request and message.method == method:
                return message
        raise CallFailed(f"{self.name}: no {method} came within {timeout_s:g} s")

    def _send(self, data: bytes) -> None:
        self._note(Message.parse(data), sent=True)
        self._sip.sendto(data, self._gateway)

    def _sip_received(self, data: bytes, source: tuple[str, int]) -> None:
        message = Message.parse(data)
        if message.is_request and message.method == "INVITE":
            self._gateway = source
        self._note(message, sent=False)
        self._inbox.put_nowait(message)

    def _note(self, message: Message, *, sent: bool) -> None:
        first = f"{message.method}" if message.is_request else f"{message.status} {message.reason}"
        body = " (SDP)" if message.body else ""
        self._trace.append(Traced(time.monotonic(), self.name, sent, first + body))

    # --- media ----------------------------------------------------------------------------------------------------

    def _sdp(self) -> bytes:
        lines = (
            "v=0",
            f"o={self.name} 1 1 IN IP4 {self.host}",
            "s=-",
            f"c=IN IP4 {self.host}",
            "t=0 0",
            f"m=audio {self.rtp_port} RTP/AVP 0",
            "a=rtpmap:0 PCMU/8000",
            "a=sendrecv",
        )
        return ("\r\n".join(lines) + "\r\n").encode()

    def _far_media(self, body: bytes) -> None:
        text = body.decode()
        address, port = _CONNECTION.search(text), _AUDIO.search(text)
        if address is None or port is None:
            raise CallFailed(f"{self.name}: the far side described no audio")
        self._far = (address[1], int(port[1]))

    async def talk(self, seconds: float) -> int:
        """Send one packet every 20 ms for ``seconds``; returns how many."""
        count = round(seconds / PACKET_INTERVAL_S)
        ssrc = sum(self.name.encode()) * 0x01010101 & 0xFFFFFFFF
        start = time.monotonic()
        for sequence in range(count):
            head = _RTP.pack(0x80, 0, sequence, sequence * SAMPLES_PER_PACKET, ssrc)
            self._rtp.sendto(head + spoken(self.name, sequence), self._far)
            await asyncio.sleep(max(0.0, start + (sequence + 1) * PACKET_INTERVAL_S - time.monotonic()))
        return count

    def _rtp_received(self, data: bytes, source: tuple[str, int]) -> None:
        if len(data) < _RTP.size:
            return
        _, _, sequence, timestamp, _ = _RTP.unpack_from(data)
        heard = self.heard
        heard.packets += 1
        heard.sequences.add(sequence)
        if data[_RTP.size :] != spoken(self._far_name, sequence):
            heard.altered += 1
        transit = time.monotonic() * 1000 - timestamp / 8  # ms
        if self._last_transit is not None:  # RFC 3550 §6.4.1
            heard.jitter_ms += (abs(transit - self._last_transit) - heard.jitter_ms) / 16
        self._last_transit = transit
