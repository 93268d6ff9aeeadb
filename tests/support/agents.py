"""The user agents that the product brings along for its own fault tests, under the name that tests know."""

from __future__ import annotations

from sbc.selftest.agents import SUITE, Address, Agent, Asked, Received, UaCall

__all__ = ["SUITE", "Address", "Agent", "Asked", "Received", "UaCall"]
