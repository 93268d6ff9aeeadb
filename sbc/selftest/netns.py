"""Network namespaces: hosts that a test makes, wires together, and removes. For root alone."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from sbc.selftest.measure import Failed

CLONE_NEWNET = 0x40000000  # of setns(2)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)


@dataclass(slots=True)
class Lab:
    """Some namespaces whose names belong to this process; ``close()`` ends whatever runs in them and removes them."""

    prefix: str = field(default_factory=lambda: f"pc{os.getpid()}")
    hosts: dict[str, str] = field(default_factory=dict)
    links: int = 0

    def host(self, name: str) -> str:
        """Make a host; returns the name of its namespace."""
        namespace = f"{self.prefix}-{name}"
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        self.hosts[name] = namespace
        return namespace

    def wire(self, left: str, left_address: str, right: str, right_address: str) -> None:
        """A cable between two hosts with an address (``10.0.0.1/24``) at each end."""
        self.links += 1
        ends = [f"v{os.getpid() % 100000}l{self.links}{end}" for end in "ab"]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for end, host, address in ((ends[0], left, left_address), (ends[1], right, right_address)):
            namespace = self.hosts[host]
            _ip("link", "set", end, "netns", namespace)
            _ip("-n", namespace, "address", "add", address, "dev", end)
            _ip("-n", namespace, "link", "set", end, "up")

    def bridge(self, host: str) -> None:
        """Make ``host`` a switch."""
        namespace = self.hosts[host]
        _ip("-n", namespace, "link", "add", "br0", "type", "bridge")
        _ip("-n", namespace, "link", "set", "br0", "up")

    def plug(self, switch: str, host: str, *addresses: str) -> str:
        """A cable from ``host`` to a switch, with addresses at its end; returns the name of the interface there."""
        self.links += 1
        near, far = (f"v{os.getpid() % 100000}l{self.links}{end}" for end in "ab")
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        _ip("link", "set", near, "netns", self.hosts[host])
        _ip("link", "set", far, "netns", self.hosts[switch])
        _ip("-n", self.hosts[switch], "link", "set", far, "master", "br0", "up")
        for address in addresses:
            _ip("-n", self.hosts[host], "address", "add", address, "dev", near)
        _ip("-n", self.hosts[host], "link", "set", near, "up")
        return near

    def address(self, host: str, address: str) -> None:
        """One more address of a host, on its loopback."""
        _ip("-n", self.hosts[host], "address", "add", address, "dev", "lo")

    def route(self, host: str, destination: str, via: str) -> None:
        """A route of ``host``."""
        _ip("-n", self.hosts[host], "route", "add", destination, "via", via)

    def forward(self, host: str) -> None:
        """Make ``host`` a router."""
        self.kernel(host, "net/ipv4/ip_forward", 1)

    def kernel(self, host: str, name: str, value: int) -> None:
        """Set a parameter of the kernel (sysctl) for ``host``."""
        self._run(host, ["sh", "-c", f"echo {value} >/proc/sys/{name}"])

    def firewall(self, host: str, rules: str) -> None:
        """Give ``host`` these rules of nft."""
        self._run(host, ["nft", "-f", "-"], rules)

    def translate(self, host: str, public: str, private: str) -> None:
        """Make ``host`` a firewall that shows ``private`` to the world as ``public``, each port as itself."""
        self.forward(host)
        rules = f"""
            table ip nat {{
                chain inwards {{ type nat hook prerouting priority -100; ip daddr {public} dnat to {private}; }}
                chain outwards {{ type nat hook postrouting priority 100; ip saddr {private} snat to {public}; }}
            }}"""
        self.firewall(host, rules)

    def _run(self, host: str, words: list[str], given: str = "") -> None:
        done = subprocess.run(
            [*self.inside(host), *words], input=given, check=False, capture_output=True, text=True, timeout=10
        )
        if done.returncode:
            raise Failed(f"{' '.join(words)} in {host}: {done.stderr}")

    def pids(self, host: str) -> list[int]:
        """All processes within a host."""
        words = ["ip", "netns", "pids", self.hosts[host]]
        found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
        return [int(pid) for pid in found.stdout.split()]

    def inside(self, host: str) -> list[str]:
        """The words that put a command into this host."""
        return ["ip", "netns", "exec", self.hosts[host]]

    def open_socket(
        self, host: str, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, protocol: int = 0
    ) -> socket.socket:
        """A socket within a host, for this process."""
        made: list[socket.socket] = []

        def make() -> None:
            with open(f"/run/netns/{self.hosts[host]}", "rb") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    return
            made.append(socket.socket(family, kind, protocol))

        # A socket stays in the namespace that it was made in; so does the thread, which ends.
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def connect(self, host: str, address: tuple[str, int]) -> socket.socket:
        """A TCP connection made within a host, for this process. OSError where nobody listens."""
        sock = self.open_socket(host, kind=socket.SOCK_STREAM)
        sock.settimeout(1)
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for host, namespace in self.hosts.items():
            for pid in self.pids(host):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
