"""Everything that outlives a worker: its listening sockets, its inbox, the memory of its media sessions."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from dataclasses import dataclass

from sbc.config.models import Config, Listen
from sbc.errors import ConfigError
from sbc.telemetry import log

BUFFER_BYTES = 4 << 20  # 1 s of a burst of 4,000 large messages
BACKLOG = 1024  # connections not accepted yet, by listener and slot; net.core.somaxconn is the limit
# Linux <asm-generic/socket.h>, <linux/in.h>: not all of them are in the socket module of Python 3.11.
PUNCH_HOLE = 0x02 | 0x01  # and keep the size: <linux/falloc.h>
SO_SNDBUFFORCE, SO_RCVBUFFORCE, IP_FREEBIND = 32, 33, 15


@dataclass(slots=True)
class SlotSockets:
    """What one SIP slot owns."""

    listeners: list[socket.socket]  # of the seat, by listener index
    inbox: socket.socket  # of the worker: read end of datagrams handed over
    hand_over: socket.socket  # write end, shared by all workers


def bind_all(config: Config, slots: int, workers: int = 0) -> list[SlotSockets]:
    """Bind every listener once per slot; raises ConfigError naming each listener that cannot be bound. Further rows, up
    to ``workers``, have no listeners."""
    faults: list[str] = []
    bound: list[list[socket.socket]] = [[] for _ in range(slots)]
    for realm, listen in config.listeners:
        try:
            free = _probe(realm, listen)
            for row in bound:
                row.append(_bound(listen, free))
        except OSError as error:
            faults.append(f"realms.{realm}.listen: {text(listen)}: {_reason(error)}")
    if faults:
        for row in bound:
            for sock in row:
                sock.close()
        raise ConfigError(faults)
    bound += [[] for _ in range(workers - slots)]
    return [SlotSockets(row, *_pair()) for row in bound]


def bind_one_more(config: Config) -> list[socket.socket]:
    """Bind every listener of a node that serves once more; raises ConfigError."""
    bound: list[socket.socket] = []
    for realm, listen in config.listeners:
        try:
            bound.append(_bound(listen, True))
        except OSError as error:
            for sock in bound:
                sock.close()
            raise ConfigError([f"realms.{realm}.listen: {text(listen)}: {_reason(error)}"]) from error
    return bound


def text(listen: Listen) -> str:
    """As it is written in the configuration."""
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"{listen.transport}:{host}:{listen.port}"


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there"
        case errno.EACCES:
            return "ports below 1024 need root or CAP_NET_BIND_SERVICE"
        case _:
            return (error.strerror or str(error)).lower()


def _family(listen: Listen) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in listen.host else socket.AF_INET


def _probe(realm: str, listen: Listen) -> bool:
    """Bind without SO_REUSEPORT, which would share the port with a stranger in silence. True: the address is not ours
    (yet), as with one that moves between nodes, so bind it all the same."""
    with socket.socket(_family(listen), _kind(listen)) as sock:
        _only_v6(sock)
        _reuse_address(sock)
        try:
            sock.bind((listen.host, listen.port))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            log.get().warning("this address is not on this machine (yet)", realm=realm, address=listen.host)
            return True
    return False


def _kind(listen: Listen) -> socket.SocketKind:
    return socket.SOCK_STREAM if listen.is_stream else socket.SOCK_DGRAM


def _reuse_address(sock: socket.socket) -> None:
    """Connections of a former run that still close must not keep us from listening; two listeners never share so."""
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _only_v6(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def _bound(listen: Listen, free: bool) -> socket.socket:
    """A bound socket; one for streams listens, so that what connects while its worker is away waits in the queue."""
    sock = socket.socket(_family(listen), _kind(listen))
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _only_v6(sock)
        if free:  # at level IPPROTO_IP for IPv6 too
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if listen.is_stream:
            _reuse_address(sock)
            sock.bind((listen.host, listen.port))
            sock.listen(BACKLOG)
        else:
            enlarge_buffers(sock)
            sock.bind((listen.host, listen.port))
    except OSError:
        sock.close()
        raise
    return sock


def enlarge_buffers(sock: socket.socket) -> None:
    """As large as we may: FORCE needs CAP_NET_ADMIN, without it net.core.[rw]mem_max is the limit."""
    for force, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)


def _pair() -> tuple[socket.socket, socket.socket]:
    """(read end, write end). A pair is not bound by net.unix.max_dgram_qlen, which is 10 by default."""
    read, write = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in (read, write):
        sock.setblocking(False)
        enlarge_buffers(sock)
    return read, write


def empty(fd: int) -> None:
    """Make shared memory all zeros again, for whoever has it mapped, too."""
    size = os.fstat(fd).st_size
    if ctypes.CDLL(None, use_errno=True).fallocate(fd, PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(size)):
        raise OSError(ctypes.get_errno(), "fallocate")


def memory(name: str, size: int) -> int:
    """The file descriptor of ``size`` zeroed octets of shared memory, taken from the machine as they are touched."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd
