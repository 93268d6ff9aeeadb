"""SIP over WebSocket (RFC 7118): one message in each WebSocket message, over TCP (``ws``) or TLS (``wss``)."""

from __future__ import annotations

from websockets.exceptions import InvalidState, PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from sbc.sip.flow import Flow
from sbc.sip.framing import head_of
from sbc.transport.tcp import ANSWER_S, PONG, Connection, Owner

PING = b"\r\n\r\n"  # RFC 5626 §3.5.1, which RFC 7118 §6 lets clients use here too
GOING_AWAY, POLICY = 1001, 1008  # RFC 6455 §7.4.1
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class WebSocket(Connection):
    """A connection that a client made. The HTTP handshake must offer the subprotocol ``sip`` (RFC 7118 §4.1); it, and
    each message, must be whole in the time that a message has."""

    __slots__ = ("_limits", "_parts", "_protocol")

    def __init__(self, owner: Owner, flow: Flow, *, outbound: bool) -> None:
        super().__init__(owner, flow, outbound=outbound)
        self._protocol = ServerProtocol(subprotocols=[Subprotocol("sip")], max_size=owner.framing.message_bytes)
        self._limits = owner.framing
        self._parts: list[bytes] = []  # of a message in several frames

    def _begin(self) -> None:
        self._owner.began(self, handshake=True)

    def _take(self, data: bytes) -> None:
        owner, protocol = self._owner, self._protocol
        protocol.receive_data(data)
        events = protocol.events_received()
        for event in events:
            if isinstance(event, Request):
                self._handshake(event)
            elif isinstance(event, Frame) and event.opcode in _DATA:
                self._frame(event)
        self._write()
        if events:
            owner.ended(self)
        if protocol.parser_exc is not None and not self._over:
            self._over = True
            owner.count("STREAM_OVERSIZE" if isinstance(protocol.parser_exc, PayloadTooBig) else "STREAM_BROKEN")
            owner.note("info", "connection closed: the stream cannot be read", self.flow, str(protocol.parser_exc))
        if not events or self._parts or protocol.reader.buffer or protocol.state is State.CONNECTING:
            owner.began(self, handshake=protocol.state is State.CONNECTING)

    def _handshake(self, request: Request) -> None:
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if response.status_code == 101:
            self._owner.opened(self)
        else:
            self._owner.count("HANDSHAKES_FAILED")
            reason = str(self._protocol.handshake_exc)
            self._owner.note("warning", "connection refused: the WebSocket handshake failed", self.flow, reason)

    def _frame(self, frame: Frame) -> None:
        message = bytes(frame.data)
        if not frame.fin:
            self._parts.append(message)
            return
        if self._parts:
            message = b"".join([*self._parts, message])
            self._parts = []
        if message == PING:
            self._owner.count("KEEPALIVE")
            self.send(PONG)
        elif excess := self._limits.excess(head_of(message)):
            self._owner.count("STREAM_OVERSIZE")
            self._owner.note("info", "connection closed: the stream cannot be read", self.flow, excess)
            self._protocol.fail(POLICY, excess)
        elif message.strip(PONG):
            self._owner.received(message, self.flow)

    def send(self, data: bytes) -> None:
        """One message, as text unless it holds what is none (RFC 7118 §5)."""
        try:
            if data.isascii() or _is_text(data):
                self._protocol.send_text(data)
            else:
                self._protocol.send_binary(data)
        except InvalidState:  # it is closing: as good as gone
            return
        self._write()

    def _write(self) -> None:
        for piece in self._protocol.data_to_send():
            if piece:
                self._put(piece)
            else:  # the end of what we say
                self._owner.forget(self)
                self._owner.later(ANSWER_S, self, "half_close")

    def close(self) -> None:
        """Say so (RFC 6455 §7.1.2), then end it."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(GOING_AWAY)
            self._write()
            self.flush()
        super().close()


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
