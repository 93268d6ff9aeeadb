"""Lua scripts: sent by digest, and by source where the store does not know them (any more)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import hiredis

from sbc.store.pipe import Argument, OnReply, Pipe, Refusal, Reply

_FOLDER = Path(__file__).parent / "scripts"


class Script:
    """One script of ``scripts/``; ``name`` is its file's, without the extension."""

    __slots__ = ("sha", "source")

    def __init__(self, name: str) -> None:
        self.source = (_FOLDER / f"{name}.lua").read_text("utf-8")
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()  # as EVALSHA names it

    def load(self, pipe: Pipe) -> None:
        """Make the store know it; done after each connect, so that the digest alone nearly always suffices."""
        pipe.send(_ignore, "SCRIPT", "LOAD", self.source)

    def send(self, pipe: Pipe, on_reply: OnReply, keys: int, *arguments: Argument) -> None:
        """Run it by digest; ``arguments`` are the ``keys`` key names, then the rest."""
        command = "EVALSHA", self.sha, keys, *arguments
        pipe.send_packed(on_reply, hiredis.pack_command(command))  # type: ignore[arg-type]  # as in pipe

    def send_source(self, pipe: Pipe, on_reply: OnReply, keys: int, *arguments: Argument) -> None:
        """Run it by source, after :func:`unknown` was the reply to :meth:`send`; the store knows it from then on."""
        pipe.send(on_reply, "EVAL", self.source, keys, *arguments)


def unknown(reply: Reply) -> bool:
    """Whether the store refused a digest that it does not know."""
    return isinstance(reply, Refusal) and str(reply).startswith("NOSCRIPT")


def _ignore(_: Reply) -> None:
    """A failed SCRIPT LOAD shows in what follows it."""
