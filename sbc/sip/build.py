"""Outgoing messages: see the signatures in ``_message.pyi``."""

from __future__ import annotations

from sbc.sip._message import build_request, build_response, reply_to

__all__ = ["build_request", "build_response", "reply_to"]
