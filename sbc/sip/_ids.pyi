from collections.abc import Callable
from typing import final

@final
class Mint:
    """Random letters a-z2-7 from octets of ``source``, which is asked for at least ``size`` octets at a time."""

    def __init__(self, source: Callable[[int], bytes], size: int) -> None: ...
    def letters(self, prefix: str, count: int) -> str:
        """``prefix`` (ASCII) and ``count`` random letters of five bits each; ValueError beyond 57 characters."""
