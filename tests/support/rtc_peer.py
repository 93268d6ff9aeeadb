"""A phone with WebRTC by aiortc: SIP over WebSocket (RFC 7118), a tone as its microphone, and what it hears."""

from __future__ import annotations

import asyncio
import math
import ssl
import struct
import uuid
from collections import deque
from fractions import Fraction
from typing import Any, Self

import aioice.ice
from aiortc import AudioStreamTrack, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from av import AudioFrame
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.agents import Received

RATE_HZ = 8000
FRAME = 160  # samples of 20 ms
LOUD = 8000


class Microphone(AudioStreamTrack):
    """A tone, frame by frame in real time."""

    def __init__(self, hz: int) -> None:
        super().__init__()
        self._hz = hz
        self._at = 0
        self._begun = 0.0

    async def recv(self) -> AudioFrame:
        now = asyncio.get_running_loop().time()
        self._begun = self._begun or now
        await asyncio.sleep(max(0.0, self._begun + self._at / RATE_HZ - now))
        samples = (int(LOUD * math.sin(2 * math.pi * self._hz * at / RATE_HZ)) for at in self._next())
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(struct.pack(f"<{FRAME}h", *samples))
        frame.sample_rate, frame.time_base, frame.pts = RATE_HZ, Fraction(1, RATE_HZ), self._at
        return frame

    def _next(self) -> range:
        start = self._at
        self._at += FRAME
        return range(start, self._at)


class RtcPeer:
    """One call, made or answered, with the codec of this name alone. Use as an asynchronous context. It offers where it
    is invited without a description, and has one ICE agent and one DTLS association for good, as aiortc does."""

    def __init__(self, url: str, trust: ssl.SSLContext | None, *, codec: str, hz: int, source: str) -> None:
        # It leaves loopback out, where these tests live.
        aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [source]
        self._url, self._trust, self._source = url, trust, source
        self.heard: deque[int] = deque(maxlen=RATE_HZ)  # the last second, at 8 kHz
        self.methods: list[str] = []
        self.offers: list[str] = []  # descriptions that came in INVITEs
        self._cseq = 0
        self._answers: asyncio.Queue[Received] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self.host = f"{uuid.uuid4().hex[:10]}.invalid"
        self._local, self._call_id = f"<sip:rtc@sbc.example>;tag={uuid.uuid4().hex[:8]}", uuid.uuid4().hex
        self._remote = self._target = ""
        self.pc = RTCPeerConnection()
        self.pc.addTrack(Microphone(hz))
        known = RTCRtpReceiver.getCapabilities("audio")
        assert known is not None
        chosen = [one for one in known.codecs if one.mimeType.lower() == f"audio/{codec.lower()}"]
        self.pc.getTransceivers()[0].setCodecPreferences(chosen)
        self.pc.on("track", lambda track: self._tasks.append(asyncio.ensure_future(self._hear(track))))

    async def __aenter__(self) -> Self:
        self._ws: ClientConnection = await connect(
            self._url, subprotocols=[Subprotocol("sip")], ssl=self._trust, local_addr=(self._source, 0)
        )
        self._tasks.append(asyncio.ensure_future(self._read()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pc.close()
        await self._ws.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def register(self) -> int:
        """So that it can be called."""
        self._remote, self._target = self._local.partition(";")[0], "sip:sbc.example"
        self._cseq += 1
        await self._send("REGISTER")
        return (await self._final()).status

    async def call(self, number: str) -> int:
        """The status that the call was answered with."""
        self._remote = self._target = f"sip:{number}@sbc.example"
        self._remote = f"<{self._remote}>"
        return await self.offer()

    async def offer(self, direction: str = "sendrecv") -> int:
        """The first offer, or a later one with another direction."""
        self.pc.getTransceivers()[0].direction = direction
        await self.pc.setLocalDescription(await self.pc.createOffer())
        self._cseq += 1
        await self._send("INVITE", self.pc.localDescription.sdp)
        reply = await self._final()
        if reply.status < 300:
            self._remote, (self._target, _) = reply.one("to"), reply.target()
            await self._send("ACK")
            await self.pc.setRemoteDescription(RTCSessionDescription(reply.body, "answer"))
        return reply.status

    async def hang_up(self) -> int:
        self._cseq += 1
        await self._send("BYE")
        return (await self._final()).status

    async def _final(self) -> Received:
        while True:
            reply = await asyncio.wait_for(self._answers.get(), 5)
            if reply.status >= 200:
                return reply

    async def _send(self, method: str, body: str = "") -> None:
        lines = [
            f"{method} {self._target} SIP/2.0",
            f"Via: SIP/2.0/WSS {self.host};branch=z9hG4bK{uuid.uuid4().hex[:12]}",
            "Max-Forwards: 70",
            f"From: {self._local}",
            f"To: {self._remote}",
            f"Call-ID: {self._call_id}",
            f"CSeq: {self._cseq} {method}",
            *(["Expires: 300"] if method == "REGISTER" else []),
            f"Contact: <sip:rtc@{self.host};transport=ws>",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        await self._ws.send("\r\n".join([*lines, "", body]))

    async def _read(self) -> None:
        while True:
            try:
                text = await self._ws.recv()
            except ConnectionClosed:
                return
            message = Received(text if isinstance(text, bytes) else text.encode())
            if message.status:
                await self._answers.put(message)
                continue
            self.methods.append(message.method)
            if message.method == "ACK":
                if message.body and self.pc.signalingState == "have-local-offer":
                    await self.pc.setRemoteDescription(RTCSessionDescription(message.body, "answer"))
                continue
            to, body = message.one("to"), ""
            if message.method == "INVITE":
                to = await self._invited(message)
                body = self.pc.localDescription.sdp
            vias = [f"Via: {via}" for via in message.headers["via"]]
            kept = [f"{name}: {message.one(name.lower())}" for name in ("From", "Call-ID", "CSeq")]
            more = [f"To: {to}", f"Contact: <sip:rtc@{self.host};transport=ws>", f"Content-Length: {len(body)}"]
            more += ["Content-Type: application/sdp"] if body else []
            await self._ws.send("\r\n".join(["SIP/2.0 200 OK", *vias, *kept, *more, "", body]))

    async def _invited(self, message: Received) -> str:
        """A call, or a change of the one that there is; To as it is answered."""
        to = message.one("to")
        if "tag=" not in to:
            self._local = to = f"{to};tag={uuid.uuid4().hex[:8]}"
            self._remote, self._call_id = message.one("from"), message.call_id
        self._target = message.target()[0]
        if message.body:
            self.offers.append(message.body)
            await self.pc.setRemoteDescription(RTCSessionDescription(message.body, "offer"))
            await self.pc.setLocalDescription(await self.pc.createAnswer())
        else:
            await self.pc.setLocalDescription(await self.pc.createOffer())
        return to

    async def _hear(self, track: Any) -> None:  # Any: aiortc has no types
        while True:
            frame = await track.recv()
            samples = memoryview(bytes(frame.planes[0])[: 2 * frame.samples * len(frame.layout.channels)]).cast("h")
            self.heard.extend(samples[:: len(frame.layout.channels) * frame.sample_rate // RATE_HZ])
