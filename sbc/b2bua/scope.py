"""What a route author keeps for as long as a branch or a transaction lasts. The core carries it and does not look."""

from __future__ import annotations

from typing import Any


class Scope:
    """``flags`` are names that are set or not, ``variables`` any values by name. No journal has them."""

    __slots__ = ("flags", "variables")

    def __init__(self) -> None:
        self.flags: set[str] = set()
        self.variables: dict[str, Any] = {}  # Any: of the author's choice
