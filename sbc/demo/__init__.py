"""The demonstration: one real call with audio through a real SBC on loopback (``sbc demo``)."""

from __future__ import annotations

from sbc.demo.run import main

__all__ = ["main"]
