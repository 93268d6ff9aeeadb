"""Asks a running SBC: JSON-RPC 2.0, one object per line, over its Unix socket. Synchronous, for the command line."""

from __future__ import annotations

import json
import socket
from typing import Any

from sbc.errors import Fault, SbcError


class ManagementError(SbcError):
    """The question could not be asked, or was refused; the text is a plain sentence."""

    fault = Fault.US


class NotRunning(ManagementError):
    """Nobody answers at the socket."""


def ask(path: str, method: str, params: dict[str, Any] | None = None, *, timeout_s: float = 5.0) -> Any:
    """The result of ``method`` (JSON values); raises NotRunning or ManagementError."""
    # Any above: JSON values, which the caller knows by method.
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"no socket at {path}") from error
        except PermissionError as error:
            raise ManagementError(f"you may not use {path}: run this as root or as the SBC's user") from error
        except OSError as error:
            raise ManagementError(f"cannot reach {path}: {(error.strerror or str(error)).lower()}") from error
        try:
            sock.sendall(json.dumps(request).encode() + b"\n")
            line = _read_line(sock)
        except TimeoutError as error:
            raise ManagementError(
                f"the SBC did not answer within {timeout_s:.0f} s: it hangs or is overloaded"
            ) from error
        except OSError as error:
            raise ManagementError("the SBC closed the connection: it may be stopping") from error
    try:
        reply = json.loads(line)
        if "error" in reply:
            raise ManagementError(f"the SBC refused '{method}': {reply['error']['message']}")
        return reply["result"]
    except (ValueError, KeyError, TypeError) as error:
        raise ManagementError("the SBC sent something that is no answer") from error


def _read_line(sock: socket.socket) -> bytes:
    chunks = bytearray()
    while not chunks.endswith(b"\n"):
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionError("closed")
        chunks += chunk
    return bytes(chunks)
