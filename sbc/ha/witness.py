"""Routers as witnesses: asked by ICMP echo (RFC 792, RFC 4443 §4) whether they are there, with every heartbeat.

An unprivileged ping socket where the system allows it (net.ipv4.ping_group_range), else a raw one (CAP_NET_RAW). What
comes back has to have the octets that were sent lately, which nobody knows who has not seen them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from sbc.ha.addresses import checksum

ECHO = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
COOKIE_BYTES = 16
COOKIES_KEPT = 8
_HEAD = struct.Struct(">BBHHH")


class Witness:
    """``heard_s``: when each of ``addresses`` last answered, in the loop's time. ``fault``: why nobody can be asked.
    ``answered`` is called with each answer."""

    def __init__(
        self,
        addresses: Sequence[IPv4Address | IPv6Address],
        loop: asyncio.AbstractEventLoop,
        answered: Callable[[], None],
    ) -> None:
        self.addresses = addresses
        self.heard_s = [float("-inf")] * len(addresses)
        self.fault = ""
        self._loop = loop
        self._answered = answered
        self._sockets: dict[int, socket.socket] = {}  # by version of IP
        self._cookies: list[bytes] = []
        self._sequence = 0

    def start(self) -> None:
        """Open what is needed."""
        for version in {one.version for one in self.addresses}:
            try:
                sock = _open(version)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                self.fault = f"routers cannot be asked ({why}): start as root, or set net.ipv4.ping_group_range"
                continue
            sock.setblocking(False)
            self._sockets[version] = sock
            self._loop.add_reader(sock.fileno(), self._readable, version, sock)

    def close(self) -> None:
        for sock in self._sockets.values():
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()

    def ask(self) -> None:
        """Each of them once. What cannot be sent is not: there will be no answer."""
        if not self.addresses:
            return
        cookie = os.urandom(COOKIE_BYTES)
        self._cookies = [*self._cookies[1 - COOKIES_KEPT :], cookie]
        self._sequence = (self._sequence + 1) & 0xFFFF
        for address in self.addresses:
            if sock := self._sockets.get(address.version):
                try:
                    sock.sendto(echo(address.version, self._sequence, cookie), (str(address), 0))
                except OSError:
                    continue

    def silent(self, now: float, after_s: float) -> list[str]:
        """Those that have not answered for so long."""
        found = zip(self.addresses, self.heard_s, strict=True)
        return [str(address) for address, heard_s in found if now - heard_s >= after_s]

    def _readable(self, version: int, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                data, source = sock.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:
                continue  # what an ICMP error left there
            cookie = cookie_in(version, data, has_header=version == 4 and sock.type == socket.SOCK_RAW)
            if cookie not in self._cookies:
                continue
            for number, address in enumerate(self.addresses):
                if str(address) == source[0].partition("%")[0]:
                    self.heard_s[number] = self._loop.time()
                    self._answered()


def echo(version: int, sequence: int, cookie: bytes) -> bytes:
    """A request; the kernel fills in the checksum of ICMPv6, and the identifier of a ping socket."""
    identifier = os.getpid() & 0xFFFF
    body = _HEAD.pack(ECHO[version], 0, 0, identifier, sequence) + cookie
    total = checksum(body) if version == 4 else 0
    return body[:2] + struct.pack(">H", total) + body[4:]


def cookie_in(version: int, data: bytes, *, has_header: bool) -> bytes:
    """The octets that an echo reply brings back; none for everything else. ``has_header``: with that of IPv4."""
    if has_header:
        data = data[(data[0] & 15) * 4 :] if data else b""
    if len(data) < _HEAD.size or data[:2] != bytes((ECHO_REPLY[version], 0)):
        return b""
    return data[_HEAD.size :]


def _open(version: int) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    try:
        return socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        return socket.socket(family, socket.SOCK_RAW, protocol)
