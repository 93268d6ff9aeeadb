"""A store of our own invention in the test's event loop: it records commands and answers when it is told to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import hiredis


class FakeStore:
    """Speaks RESP on a Unix socket. ``mute`` stops the answers, ``ping_only`` those to all but the greeting."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "fake.sock")
        self.commands: list[list[bytes]] = []
        self.chunks = 0  # how often something was read
        self.connections = 0
        self.mute = False
        self.ping_only = False
        self.replies: dict[bytes, bytes] = {}  # by command name, raw RESP
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    def stop(self) -> None:
        """As a killed server: the socket is gone, connections end."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.hang_up()

    def hang_up(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def names(self) -> list[str]:
        """The commands so far, without the greeting."""
        greeting = (b"PING", b"CLIENT", b"INFO")
        return [command[0].decode() for command in self.commands if command[0] not in greeting]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(1 << 20):
                self.chunks += 1
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.commands.append(command)
                    if not self.mute:
                        writer.write(self._answer(command))
        except OSError:
            return
        finally:
            writer.close()

    def _answer(self, command: list[bytes]) -> bytes:
        name = command[0]
        if name in self.replies:
            return self.replies[name]
        if name == b"PING":
            return b"+PONG\r\n"
        if name == b"CLIENT":
            return b":%d\r\n" % self.connections
        if name == b"INFO":
            return b"$10\r\nrun_id:abc\r\n"
        if self.ping_only:
            return b""
        if name == b"ECHO":
            return b"$%d\r\n%b\r\n" % (len(command[1]), command[1])
        return b":1\r\n"
