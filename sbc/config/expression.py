"""Regular expressions that an operator writes, by RE2: the time that they take is linear in the text, whatever it is.

Look-ahead and back references do not exist there. Texts are those of SIP messages, with surrogate escapes for octets
that are not UTF-8; such octets match nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 1 << 20  # of the compiled automaton; RE2 refuses an expression that would need more
MAX_GROUP = 9


class Match:
    """Where an expression was found: ``start`` and ``end`` in octets of the text, and the groups."""

    __slots__ = ("_match", "end", "start")

    def __init__(self, match: Any) -> None:  # Any: re2 has no types
        self._match = match
        self.start, self.end = match.span()

    def group(self, number: int) -> str:
        """The text of a group, 0 for all of it; '' for one that took no part."""
        found = self._match.group(number)
        return "" if found is None else str(found, "utf-8", "surrogateescape")


class Expression:
    """One expression, case-sensitive unless it says ``(?i)``. Raises ValueError with a sentence for one that RE2 does
    not take."""

    __slots__ = ("_compiled", "groups", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._compiled = re2.compile(text.encode("utf-8"), _OPTIONS)
        except (re2.error, UnicodeEncodeError) as error:
            said = error.args[0] if error.args else error
            reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            raise ValueError(f"'{text}' is no regular expression of RE2: {reason}") from None
        self.groups: int = self._compiled.groups

    def search(self, text: str) -> Match | None:
        """The first place in ``text`` that matches."""
        found = self._compiled.search(text.encode("utf-8", "surrogateescape"))
        return None if found is None else Match(found)

    def matches(self, text: str) -> Iterator[Match]:
        """Every place, from left to right, that do not overlap."""
        for found in self._compiled.finditer(text.encode("utf-8", "surrogateescape")):
            yield Match(found)
