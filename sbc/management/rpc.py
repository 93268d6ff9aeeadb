"""JSON-RPC 2.0 over a Unix socket, one JSON value per line: what the control worker and the SIP workers answer."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from sbc.store.jsontext import to_json

# Any: parameters and results are JSON values
Params = dict[str, Any]
Method = Callable[[Params], Any | Awaitable[Any]]

MAX_LINE_BYTES = 1 << 20  # of a request
MAX_REPLY_BYTES = 64 << 20  # of a reply: a long list of calls
MAX_CONNECTIONS = 64
IDLE_S = 300.0

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
NOT_FOUND = -32001  # no such call
REFUSED = -32003  # it cannot be done to this call
UNAVAILABLE = -32002  # the process that should answer does not
REFUSED = -32003  # it cannot be done, and the message says why


class RpcError(Exception):
    """An error reply: ``code`` and ``message`` of JSON-RPC 2.0 §5.1, ``data`` a JSON value or None."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:  # Any: a JSON value
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class RpcServer:
    """Serves ``methods`` on the Unix socket ``path`` (mode 0600). Made by :func:`serve`.

    Requests of one connection are answered in their order. A method gets the parameters by name and returns a JSON
    value, raises RpcError, or KeyError, TypeError and ValueError for parameters that it cannot use.
    """

    def __init__(self, path: str, methods: Mapping[str, Method], on_fault: Callable[[str, Exception], None]) -> None:
        self.path = path
        self._methods = methods
        self._on_fault = on_fault
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Bind, in place of a socket that a former process left behind. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        mask = os.umask(0o177)  # never, not for a moment, open to others
        try:
            self._server = await asyncio.start_unix_server(self._connected, self.path, limit=MAX_LINE_BYTES)
        finally:
            os.umask(mask)

    async def close(self) -> None:
        """Stop listening, end the connections and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the other side went away, or never spoke
        except asyncio.CancelledError:
            pass  # close(); swallowed so that the stream's own callback does not log it
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await asyncio.wait_for(reader.readuntil(b"\n"), IDLE_S)
            except asyncio.LimitOverrunError:
                writer.write(
                    _encode(_error(None, INVALID_REQUEST, f"a request is longer than {MAX_LINE_BYTES} octets"))
                )
                await writer.drain()
                return  # where the next request begins cannot be known
            if not line.strip():
                continue
            answer = await self._answer_line(line)
            if answer is not None:
                writer.write(_encode(answer))
                await asyncio.wait_for(writer.drain(), IDLE_S)

    async def _answer_line(self, line: bytes) -> Any:  # Any: a JSON value
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return _error(None, PARSE_ERROR, f"not JSON: {error}")
        if not isinstance(request, list):
            return await self._answer(request)
        if not request:
            return _error(None, INVALID_REQUEST, "an empty batch")
        answers = [answer for one in request if (answer := await self._answer(one)) is not None]
        return answers or None

    async def _answer(self, request: Any) -> dict[str, Any] | None:  # Any: JSON values
        """The reply to one request, or None to a notification (JSON-RPC 2.0 §4.1)."""
        if not isinstance(request, dict) or request.get("jsonrpc") != "2.0":
            return _error(None, INVALID_REQUEST, "not a JSON-RPC 2.0 request")
        identity = request.get("id")
        name, params = request.get("method"), request.get("params", {})
        if not isinstance(name, str) or not isinstance(identity, str | int | float | None):
            return _error(None, INVALID_REQUEST, "not a JSON-RPC 2.0 request")
        answer = await self._perform(identity, name, params)
        return answer if "id" in request else None

    async def _perform(self, identity: Any, name: str, params: Any) -> dict[str, Any]:  # Any: JSON values
        method = self._methods.get(name)
        if method is None:
            return _error(identity, METHOD_NOT_FOUND, f"no method {name!r}", sorted(self._methods))
        if not isinstance(params, dict):
            return _error(identity, INVALID_PARAMS, "parameters are given by name")
        try:
            result = method(params)
            if inspect.isawaitable(result):
                result = await result
            return {"jsonrpc": "2.0", "id": identity, "result": result}
        except RpcError as error:
            return _error(identity, error.code, error.message, error.data)
        except (KeyError, TypeError, ValueError) as error:
            self._on_fault(name, error)
            return _error(identity, INVALID_PARAMS, f"{type(error).__name__}: {error}")
        except Exception as error:
            self._on_fault(name, error)
            return _error(identity, INTERNAL_ERROR, f"{type(error).__name__}: {error}")


async def serve(
    path: str, methods: Mapping[str, Method], on_fault: Callable[[str, Exception], None] | None = None
) -> RpcServer:
    """Begin to serve; ``on_fault(method, error)`` hears of every exception that is no RpcError. Raises OSError."""
    server = RpcServer(path, methods, on_fault or (lambda _method, _error: None))
    await server.start()
    return server


async def call(path: str, method: str, params: Params | None = None, *, timeout_s: float = 1.0) -> Any:
    """The result of one method of the process behind ``path``. Any: a JSON value.

    Raises RpcError: what the other side answered, or UNAVAILABLE when it does not answer within ``timeout_s``.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_REPLY_BYTES)
            try:
                writer.write(_encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}))
                reply = orjson.loads(await reader.readuntil(b"\n"))
            finally:
                writer.close()
    except TimeoutError:
        raise RpcError(UNAVAILABLE, f"no answer within {timeout_s:g} s") from None
    except (OSError, EOFError, asyncio.LimitOverrunError, orjson.JSONDecodeError) as error:
        raise RpcError(UNAVAILABLE, str(error) or type(error).__name__) from error
    if not isinstance(reply, dict) or ("result" not in reply and not isinstance(reply.get("error"), dict)):
        raise RpcError(UNAVAILABLE, "the answer is not JSON-RPC 2.0")
    if "result" in reply:
        return reply["result"]
    error_reply = reply["error"]
    code, message = error_reply.get("code"), error_reply.get("message")
    raise RpcError(code if isinstance(code, int) else INTERNAL_ERROR, str(message), error_reply.get("data"))


def _error(identity: Any, code: int, message: str, data: Any = None) -> dict[str, Any]:  # Any: JSON values
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": identity, "error": error}


def _encode(value: Any) -> bytes:  # Any: a JSON value
    return to_json(value) + b"\n"
