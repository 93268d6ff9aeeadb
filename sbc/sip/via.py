"""One Via (RFC 3261 §20.42, RFC 3581)."""

from __future__ import annotations

from typing import NamedTuple

from sbc.errors import SipSyntaxError
from sbc.sip._message import usual_via
from sbc.sip.params import parse_params
from sbc.sip.uri import NO_PARAMS, Params, find_param, format_params, parse_host_port

_DEFAULT_PORTS = {"TLS": 5061, "WSS": 443, "WS": 80}


class Via(NamedTuple):
    """``transport`` in upper case; ``host`` keeps the brackets of an IPv6 reference."""

    transport: str
    host: str
    port: int | None = None
    params: Params = NO_PARAMS

    @property
    def branch(self) -> str:
        """The branch, '' where there is none."""
        return find_param(self.params, "branch") or ""

    @property
    def received(self) -> str | None:
        """The address that the next hop saw, without brackets (RFC 5118 §4.5 shows both)."""
        value = find_param(self.params, "received")
        return value[1:-1] if value and value[0] == "[" and value[-1] == "]" else value

    @property
    def rport(self) -> int | None:
        """The port that the next hop saw; 0 where rport is asked for and not yet filled; None without rport."""
        value = find_param(self.params, "rport")
        if value is None:
            return None
        return int(value) if value.isascii() and value.isdigit() else 0

    def response_address(self) -> tuple[str, int]:
        """Where a response goes by RFC 3261 §18.2.2 and RFC 3581 §4: (host without brackets, port)."""
        host = find_param(self.params, "maddr") or self.received or self.host
        port = self.rport or self.port or _DEFAULT_PORTS.get(self.transport, 5060)
        return (host[1:-1] if host[0] == "[" else host), port

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {self.host}{port}{format_params(self.params)}"


def parse_via(text: str) -> Via:
    """Parse one via-parm, blanks around its separators included. Raises SipSyntaxError."""
    return usual_via(Via, NO_PARAMS, text) or _parse_any(text)


def _parse_any(text: str) -> Via:
    where, semicolon, tail = text.partition(";")
    protocol = where.split("/")
    if len(protocol) != 3:
        raise SipSyntaxError("a Via has no protocol")
    name, version, rest = protocol
    transport, _, sent_by = rest.replace("\t", " ").strip(" ").partition(" ")
    if not sent_by or not transport or not name.strip(" \t") or not version.strip(" \t"):
        raise SipSyntaxError("a Via has no sent-by")
    # COLON of sent-by allows blanks on both sides; a host holds none, so what is left of them is malformed
    host, port = parse_host_port(":".join([part.strip(" \t") for part in sent_by.split(":")]))
    return Via(transport.upper(), host, port, parse_params(semicolon + tail) if semicolon else NO_PARAMS)
