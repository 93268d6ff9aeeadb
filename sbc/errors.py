"""Every error of the signalling plane says whose fault it is, its SIP status, and whether to try elsewhere."""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """Whose fault an error is."""

    PEER = "peer"
    US = "us"
    MEDIA = "media"
    STORE = "store"
    CONFIG = "config"


class SbcError(Exception):
    """Base of all errors that Portcullis raises itself.

    ``status`` is the SIP status that answers a request which met this error; ``try_elsewhere`` tells whether another
    gateway or media node may be tried for the same call.
    """

    fault: Fault = Fault.US
    status: int = 500
    try_elsewhere: bool = False


class SipSyntaxError(SbcError):
    """A message or one of its parts breaks the grammar (RFC 3261 §25).

    ``status`` is the answer that a request deserves (400, 413, 414, 416, 505 ...); ``reason`` is a plain sentence.
    ``droppable`` is True where no answer can or may be built (a broken response, no usable Via).
    """

    fault = Fault.PEER
    status = 400

    def __init__(self, reason: str, status: int = 400, *, droppable: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.droppable = droppable


class SdpError(SbcError):
    """A session description breaks RFC 8866, or asks for what cannot be done; answered with 488."""

    fault = Fault.PEER
    status = 488


class EndpointMismatch(SdpError):
    """The media plane answered with another number of endpoints than the description has streams."""

    fault = Fault.MEDIA
    status = 500
    try_elsewhere = True


class ResolveError(SbcError):
    """A name leads to no server that can be reached: it does not exist, nobody can tell, or no listener speaks its
    transport."""

    fault = Fault.PEER
    status = 503
    try_elsewhere = True


class StoreError(SbcError):
    """Redis refused, timed out or is away. Calls never fail for it."""

    fault = Fault.STORE


class ConfigError(SbcError):
    """The configuration cannot be used; ``faults`` are lines ``file:line:column: path: message``."""

    fault = Fault.CONFIG

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
