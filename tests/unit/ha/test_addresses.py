"""Virtual addresses on a real interface of a namespace, and what the neighbours hear of them."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_interface

import pytest

from sbc.ha import addresses
from sbc.ha.addresses import AddressError, Virtual
from sbc.selftest.netns import CLONE_NEWNET, Lab

MAC = bytes.fromhex("020000000001")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("needs root and ip of iproute2")
    with Lab(f"va{os.getpid()}") as made:
        made.host("node")
        made.host("near")
        made.wire("node", "192.0.2.1/24", "near", "192.0.2.2/24")
        yield made


def within(lab: Lab, act: Callable[[], object]) -> None:
    """Do something in the node's namespace; what it raises is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            with open(f"/run/netns/{lab.hosts['node']}", "rb") as namespace:
                assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0
            act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def shown(lab: Lab, host: str = "node") -> dict[str, dict[str, object]]:
    words = [*lab.inside(host), "ip", "-j", "address"]
    links = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return {row["local"]: {**row, "link": link["ifname"]} for link in links for row in link.get("addr_info", ())}


def interface(lab: Lab) -> str:
    return str(shown(lab)["192.0.2.1"]["link"])


@pytest.mark.parametrize("text", ["192.0.2.10/24", "2001:db8::10/64"])
def test_added_announced_and_removed(lab: Lab, text: str) -> None:
    virtual = Virtual(ip_interface(text), interface(lab))
    address = text.partition("/")[0]
    kind = 0x0806 if virtual.address.version == 4 else 0x86DD
    with lab.open_socket("near", socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as ear:
        ear.settimeout(3)
        within(lab, lambda: addresses.add(virtual))
        within(lab, lambda: addresses.add(virtual))
        row = shown(lab)[address]
        assert row["prefixlen"] == int(text.partition("/")[2])
        assert not row.get("tentative")
        within(lab, lambda: addresses.announce(virtual))
        wanted = addresses.frames(virtual, bytes.fromhex(_mac(lab).replace(":", "")))
        heard: list[bytes] = []
        while not set(wanted) <= set(heard):
            heard.append(ear.recv(2048))
    within(lab, lambda: addresses.remove(virtual))
    within(lab, lambda: addresses.remove(virtual))
    assert address not in shown(lab)


def test_a_datagram_socket_bound_in_advance_is_silent_without_the_address(lab: Lab) -> None:
    """The fence that the kernel keeps: what is bound to the address sends while that is there, no longer."""
    virtual = Virtual(ip_interface("192.0.2.20/24"), interface(lab))
    with lab.open_socket("node") as sock:
        sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        sock.bind(("192.0.2.20", 5060))
        with pytest.raises(OSError, match=r"nvalid argument|nreachable"):
            sock.sendto(b"x", ("192.0.2.2", 9))
        within(lab, lambda: addresses.add(virtual))
        assert sock.sendto(b"x", ("192.0.2.2", 9)) == 1
        within(lab, lambda: addresses.remove(virtual))
        with pytest.raises(OSError, match=r"nvalid argument|nreachable"):
            sock.sendto(b"x", ("192.0.2.2", 9))


def test_what_the_kernel_refuses_is_said(lab: Lab) -> None:
    with pytest.raises(AddressError, match=r"192\.0\.2\.9/24 on nowhere0: there is no such interface"):
        addresses.add(Virtual(ip_interface("192.0.2.9/24"), "nowhere0"))
    within(lab, lambda: addresses.announce(Virtual(ip_interface("192.0.2.9/24"), "lo")))  # nobody to tell


def test_frames_are_as_the_standards_say() -> None:
    request, reply = addresses.frames(Virtual(ip_interface("192.0.2.9/24"), "x"), MAC)
    assert request[:6] == reply[:6] == b"\xff" * 6
    assert request[6:12] == MAC
    for frame, what in ((request, 1), (reply, 2)):
        assert struct.unpack(">HHHBBH", frame[12:22]) == (0x0806, 1, 0x0800, 6, 4, what)
        assert frame[28:32] == frame[38:42] == bytes([192, 0, 2, 9])
    (advertisement,) = addresses.frames(Virtual(ip_interface("2001:db8::9/64"), "x"), MAC)
    packet = advertisement[14:]
    source, body = packet[8:24], packet[40:]
    assert packet[7] == 255, "RFC 4861 §7.1.2: else it is dropped"
    assert body[0] == 136
    assert body[4] == 0x20
    assert body[8:24] == source
    assert addresses.checksum(packet[8:40] + struct.pack(">II", len(body), 58) + body) == 0


def _mac(lab: Lab) -> str:
    words = [*lab.inside("node"), "cat", f"/sys/class/net/{interface(lab)}/address"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_a_carrier_is_seen(lab: Lab) -> None:
    name = interface(lab)
    found: list[bool] = []

    def look() -> None:
        found.append(addresses.has_carrier(name))

    words = [*lab.inside("node"), "cat", f"/sys/class/net/{name}/carrier"]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "1\n"
    look()  # from outside: there is no such interface
    assert found == [False]
    assert not addresses.has_carrier("nowhere0")
