"""Virtual addresses: put on an interface and taken from it by netlink, and made known to the neighbours.

Layouts from <linux/rtnetlink.h>, <linux/if_addr.h>, RFC 826, RFC 5227 (an announcement is an ARP request for oneself),
RFC 4861 §4.4 and §7.2.6 (unsolicited neighbour advertisement). Needs CAP_NET_ADMIN and CAP_NET_RAW.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import NamedTuple

from sbc.errors import Fault, SbcError

RTM_NEWADDR, RTM_DELADDR = 20, 21
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL = 0x1, 0x4, 0x400, 0x200
NLMSG_ERROR = 2
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_NODAD = 0x02  # no second of waiting: the lease says that nobody else has it
ETH_ARP, ETH_IPV6 = 0x0806, 0x86DD
BROADCAST = b"\xff" * 6
ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
ALL_NODES_MAC = b"\x33\x33\x00\x00\x00\x01"
ANSWER_S = 1.0


class Virtual(NamedTuple):
    """An address with its prefix, and the interface that it is to be on."""

    address: IPv4Interface | IPv6Interface
    interface: str

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if self.address.version == 6 else socket.AF_INET

    def __str__(self) -> str:
        return f"{self.address} on {self.interface}"


class AddressError(SbcError):
    """The kernel refused; the text is a plain sentence."""

    fault = Fault.US


def add(virtual: Virtual) -> bool:
    """Put it there; one that is there already stays. Whether it was not there. Raises AddressError."""
    return _change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, virtual, (errno.EEXIST,))


def remove(virtual: Virtual) -> None:
    """Take it away; from now on the kernel sends nothing from it (IPv4), nor takes what comes for it. Raises
    AddressError."""
    _change(RTM_DELADDR, 0, virtual, (errno.EADDRNOTAVAIL,))


def message(kind: int, flags: int, virtual: Virtual, index: int, sequence: int) -> bytes:
    """One request of rtnetlink(7) as octets."""
    packed = virtual.address.ip.packed
    attributes = b"".join(struct.pack("=HH", 4 + len(packed), which) + packed for which in (IFA_LOCAL, IFA_ADDRESS))
    body = struct.pack("=BBBBi", virtual.family, virtual.address.network.prefixlen, IFA_F_NODAD, 0, index) + attributes
    return struct.pack("=iHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence, 0) + body


def has_carrier(interface: str) -> bool:
    """Whether a cable leads somewhere; False also where the interface is down or is not there."""
    try:
        return Path(f"/sys/class/net/{interface}/carrier").read_text().strip() == "1"
    except OSError:
        return False


def _change(kind: int, flags: int, virtual: Virtual, fine: tuple[int, ...]) -> bool:
    try:
        index = socket.if_nametoindex(virtual.interface)
    except OSError:
        if kind == RTM_DELADDR:
            return False  # the address went with its interface
        raise AddressError(f"{virtual}: there is no such interface") from None
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
            netlink.settimeout(ANSWER_S)
            netlink.send(message(kind, flags, virtual, index, 1))
            answer = netlink.recv(4096)
    except OSError as error:
        raise AddressError(f"{virtual}: {(error.strerror or str(error)).lower()}") from error
    number = -struct.unpack_from("=i", answer, 16)[0] if struct.unpack_from("=H", answer, 4)[0] == NLMSG_ERROR else 0
    if number and number not in fine:
        why = "needs CAP_NET_ADMIN: start as root" if number == errno.EPERM else os.strerror(number).lower()
        raise AddressError(f"{virtual}: {why}")
    return number == 0


def announce(*virtual: Virtual) -> None:
    """Tell every neighbour once where the addresses are now. What cannot be sent is not: an interface without hardware
    addresses (lo, tun) has no neighbours to tell."""
    for interface in dict.fromkeys(one.interface for one in virtual):  # to close such a socket takes some 10 ms
        with suppress(OSError), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind((interface, 0))
            mac = sock.getsockname()[4]
            if len(mac) == 6 and any(mac):
                for frame in [frame for one in virtual if one.interface == interface for frame in frames(one, mac)]:
                    sock.send(frame)


def frames(virtual: Virtual, mac: bytes) -> list[bytes]:
    """ARP request and reply for oneself (some listen to one only), or the neighbour advertisement, in Ethernet."""
    own = virtual.address.ip.packed
    if virtual.address.version == 4:
        head = BROADCAST + mac + struct.pack(">H", ETH_ARP)
        return [
            head + struct.pack(">HHBBH", 1, 0x0800, 6, 4, what) + mac + own + target + own
            for what, target in ((1, bytes(6)), (2, BROADCAST))
        ]
    override = 0x2000_0000
    body = struct.pack(">BBHI", 136, 0, 0, override) + own + b"\x02\x01" + mac
    pseudo = own + ALL_NODES + struct.pack(">II", len(body), 58)
    total = checksum(pseudo + body)
    body = body[:2] + struct.pack(">H", total) + body[4:]
    packet = struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + own + ALL_NODES + body
    return [ALL_NODES_MAC + mac + struct.pack(">H", ETH_IPV6) + packet]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
