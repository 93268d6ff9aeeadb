"""A small DNS server on loopback that can be dead, slow, mute, or lie."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Lie = Callable[[dns.message.Message], list[bytes]]


class NameServer(asyncio.DatagramProtocol):
    """Serves ``zone``: (name, type) → texts of records in zone-file form; what is not there is NXDOMAIN.

    ``delay_s`` before each answer, ``dead`` answers nothing, ``rcode`` answers that to all, ``lie`` makes the datagrams
    that are sent ahead of the true answer. ``asked`` counts questions by name and type.
    """

    def __init__(self, zone: dict[tuple[str, str], list[str]], ttl_s: int = 60) -> None:
        self.zone = zone
        self.ttl_s = ttl_s
        self.delay_s = 0.0
        self.dead = False
        self.rcode: dns.rcode.Rcode | None = None
        self.lie: Lie | None = None
        self.truncate = False
        self.asked: Counter[tuple[str, str]] = Counter()

    async def start(self, host: str = "127.0.0.1") -> tuple[str, int]:
        """Bind UDP and TCP to one port of ``host``; the address."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))
        address: tuple[str, int] = self._transport.get_extra_info("sockname")
        self._stream = await asyncio.start_server(self._serve_stream, *address)
        return address

    async def stop(self) -> None:
        self._transport.close()
        self._stream.close()
        await self._stream.wait_closed()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self._note(query)
        if not self.dead:
            asyncio.get_running_loop().call_later(self.delay_s, self._reply, query, addr)

    def _note(self, query: dns.message.Message) -> None:
        (question,) = query.question
        self.asked[_key(question)] += 1

    def _reply(self, query: dns.message.Message, addr: tuple[str, int]) -> None:
        if self._transport.is_closing():
            return
        for datagram in self.lie(query) if self.lie is not None else ():
            self._transport.sendto(datagram, addr)
        response = self.answer(query)
        if self.truncate:
            response.answer = []
            response.flags |= dns.flags.TC
        self._transport.sendto(response.to_wire(), addr)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        query = dns.message.from_wire(await reader.readexactly(length))
        data = self.answer(query).to_wire()
        writer.write(len(data).to_bytes(2, "big") + data)
        await writer.drain()
        writer.close()

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """The true answer."""
        response = dns.message.make_response(query)
        (question,) = query.question
        name, kind = _key(question)
        if self.rcode is not None:
            response.set_rcode(self.rcode)
        elif (name, kind) in self.zone:
            texts = self.zone[name, kind]
            response.answer.append(dns.rrset.from_text_list(question.name, self.ttl_s, "IN", kind, texts))
        elif not any(name == other for other, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response


def _key(question: dns.rrset.RRset) -> tuple[str, str]:
    return question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)


@contextmanager
def serving(server: NameServer, host: str) -> Iterator[tuple[str, int]]:
    """Run a name server on a thread of its own, for tests whose other parts are processes; the address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="name server", daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(host), loop).result(5)
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(5)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
