"""Sets of flags as operators write them: names, numbers, sums, also as text (``"19"``, ``"via-ip,via-port"``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntFlag
from typing import TypeVar

Flags = TypeVar("Flags", bound=IntFlag)


def mask_of(given: Iterable[str | int], names: Mapping[str, Flags], kind: type[Flags], what: tuple[str, str]) -> Flags:
    """All that ``given`` names. Numbers are decimal: ``"11"`` is 1 + 2 + 8.

    Raises ValueError for what is neither one of ``names`` nor a sum of the numbers of ``kind``; ``what`` says
    what one of them is, and what several are.
    """
    found = kind(0)
    for one in given:
        parts = one.replace("|", ",").split(",") if isinstance(one, str) else [one]
        for part in parts:
            found |= _one(part.strip() if isinstance(part, str) else part, names, kind, what)
    return found


def _one(flag: str | int, names: Mapping[str, Flags], kind: type[Flags], what: tuple[str, str]) -> Flags:
    if isinstance(flag, str):
        named = names.get(flag.lower())
        if named is not None:
            return named
        if not (flag.isascii() and flag.isdigit()):
            raise ValueError(f"{flag!r} is no {what[0]}; there are: {', '.join(names)}")
        flag = int(flag)
    numbers = [int(member) for member in kind]
    if not 0 <= flag <= sum(numbers):
        raise ValueError(f"{flag} is no sum of {what[1]}: they are {', '.join(map(str, numbers))}")
    return kind(flag)
