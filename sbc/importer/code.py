"""Python text: lines with their depth, broken where they are too long."""

from __future__ import annotations

import re
from typing import Final

WIDTH: Final = 120


def line(depth: int, code: str) -> str:
    """One line at a depth of blocks."""
    return "    " * depth + code


def call(depth: int, head: str, arguments: list[str], tail: str = ")") -> list[str]:
    """``head(arguments)`` on one line, or broken as a formatter would; ``head`` ends in its parenthesis."""
    whole = line(depth, head + ", ".join(arguments) + tail)
    if len(whole) <= WIDTH or not arguments:
        return [whole]
    inner = line(depth + 1, ", ".join(arguments))
    if len(inner) <= WIDTH:
        return [line(depth, head), inner, line(depth, tail)]
    return [line(depth, head), *(line(depth + 1, one + ",") for one in arguments), line(depth, tail)]


def comment(depth: int, text: str) -> list[str]:
    """A comment, on as many lines as it takes."""
    room, found, now = WIDTH - 4 * depth - 2, [], ""
    for word in printable(text).split(" "):
        if now and len(now) + 1 + len(word) > room:
            found.append(now)
            now = word
        else:
            now = f"{now} {word}" if now else word
    return [line(depth, f"# {one}"[:WIDTH]) for one in [*found, now] if one]


def condition(depth: int, word: str, code: str) -> list[str]:
    """``if code:``, in parentheses over several lines where it is too long."""
    whole = line(depth, f"{word} {code}:")
    if len(whole) <= WIDTH:
        return [whole]
    for joint in (" or ", " and "):
        parts = top_level(code, joint)
        if len(parts) > 1:
            rows = [line(depth + 1, parts[0])]
            rows += [line(depth + 1, f"{joint.strip()} {part}") for part in parts[1:]]
            return [line(depth, f"{word} ("), *rows, line(depth, "):")]
    return [whole + "  # noqa: E501"]


def top_level(code: str, joint: str) -> list[str]:
    """The parts of a condition between joints that are in no parentheses and no string."""
    parts, depth, start, quote, at = [], 0, 0, "", 0
    while at < len(code):
        here = code[at]
        if quote:
            if here == "\\":
                at += 1
            elif here == quote:
                quote = ""
        elif here in "\"'":
            quote = here
        elif here in "([{":
            depth += 1
        elif here in ")]}":
            depth -= 1
        elif depth == 0 and code.startswith(joint, at):
            parts.append(code[start:at])
            at += len(joint)
            start = at
            continue
        at += 1
    return [*parts, code[start:]]


def printable(text: str) -> str:
    """Without what could end a comment or a docstring, or hide in it."""
    return "".join(c if c.isprintable() else "?" for c in text).replace('"""', "'''")


def identifier(text: str) -> str:
    """A name for a function."""
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lower() or "unnamed"
