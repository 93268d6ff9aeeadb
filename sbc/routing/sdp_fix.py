"""The offer of a call with another address in it, for a sender who knows only that of his own network.

It is for media that are not relayed: where they are, the descriptions have our addresses. It is done to the INVITE that
opens the call; offers within the call cross as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sbc.routing.messages import Branch
from sbc.routing.routes import BranchRoute
from sbc.sdp.address import connection_data, ip_literal

ACTIVE: Final = 1  # a=direction:active
CONNECTION: Final = 2  # c= lines have the address
ORIGIN: Final = 8  # the o= line has it


@dataclass(frozen=True)
class SdpFix:
    """``flags`` is a sum of the numbers above, ``address`` an IP literal; ValueError for another one."""

    flags: int
    address: str

    def __post_init__(self) -> None:
        if not ip_literal(self.address):
            raise ValueError(f"{self.address!r} is no IP address")

    def before(self, route: BranchRoute | None) -> BranchRoute:
        """A branch route that does this to the offer, and then what ``route`` does."""

        async def fixed(branch: Branch) -> None:
            branch.body = self.of(branch.body)
            if route is not None:
                await route(branch)

        return fixed

    def of(self, body: bytes) -> bytes:
        """A description with the address in it; anything else as it is."""
        if not body.startswith(b"v="):
            return body
        address = connection_data(self.address).encode()
        lines = []
        pending = bool(self.flags & ACTIVE) and b"a=direction:active" not in body
        for line in body.splitlines(keepends=True):
            end = line[len(line.rstrip(b"\r\n")) :]
            if line.startswith(b"m=") and pending:
                lines.append(b"a=direction:active" + end)
                pending = False
            if line.startswith(b"c=") and self.flags & CONNECTION:
                line = b"c=" + address + end
            elif line.startswith(b"o=") and self.flags & ORIGIN:
                line = b"o=" + b" ".join([*line[2:].split()[:3], address]) + end
            lines.append(line)
        return b"".join(lines)
