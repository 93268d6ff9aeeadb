"""The words of an OpenSIPS script, each with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final


class InputFault(Exception):
    """The script cannot be read: ``file:line:column: a sentence``."""

    def __init__(self, file: str, line: int, column: int, sentence: str) -> None:
        super().__init__(f"{file}:{line}:{column}: {sentence}")


class Kind(Enum):
    """What a token is. ``ADDRESS`` is an IP address, perhaps with a prefix length; ``VARIABLE`` a ``$...``."""

    NAME = "name"
    NUMBER = "number"
    ADDRESS = "address"
    STRING = "string"
    VARIABLE = "variable"
    SIGN = "sign"
    END = "end of the file"


@dataclass(frozen=True, slots=True)
class Token:
    """One word; ``text`` of a string is without quotes and escapes."""

    kind: Kind
    text: str
    line: int
    column: int

    def __str__(self) -> str:
        return self.kind.value if self.kind is Kind.END else f"'{self.text}'"


_BLANK: Final = re.compile(r"[ \t\r\n\f\v]+")
_IPV4: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2}(?:\.\d{1,3}){0,3})?(?![\w.])")
_IPV6: Final = re.compile(r"\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\](?:/\d{1,3})?")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|\d+(?![\w])")
_NAME: Final = re.compile(r"[A-Za-z_]\w*(?:[.-]\w+)*|\d+[A-Za-z_]\w*")
_PLAIN_VARIABLE: Final = re.compile(r"\$[A-Za-z_]\w*(?:\.\w+)*(?:->\w+)?")
_SIGN: Final = re.compile(r"==|!=|=~|!~|<=|>=|&&|\|\||:=|\+=|-=|\*=|/=|->|[-{}()\[\];,:=<>!+*/%|&.@?~^]")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "0": "\0"}
# Variables that take something in parentheses; behind any other the parenthesis is one of the expression.
_WITH_NAME: Final = frozenset(
    {
        *("hdr", "hdrcnt", "avp", "var", "dlg_val", "param", "return", "stat", "time", "json", "xml", "shv", "script"),
        *("ct.fields", "cookie", "msg", "socket_in", "socket_out", "branch", "env", "ctime", "rl_count"),
        *("path", "xavp", "ru.param", "dlg.json", "tls_peer", "sdp", "sdp.line", "sdp.stream", "def"),
    }
)


class Lexer:
    """Reads a script word by word. ``comments`` has the text of each comment by the line that it stands on."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.comments: dict[int, str] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._line_start = 0

    def fault(self, sentence: str, token: Token | None = None) -> InputFault:
        """What is wrong at a token, or where the lexer is."""
        if token is not None:
            return InputFault(self.file, token.line, token.column, sentence)
        return InputFault(self.file, self._line, self._at - self._line_start + 1, sentence)

    def next(self) -> Token:
        """The next word. Raises InputFault for what is none."""
        self._skip()
        line, column, text = self._line, self._at - self._line_start + 1, self._text
        if self._at >= len(text):
            return Token(Kind.END, "", line, column)
        first = text[self._at]
        if first in "\"'":
            return Token(Kind.STRING, self._string(first), line, column)
        if first == "$":
            return Token(Kind.VARIABLE, self._variable(), line, column)
        for kind, pattern in (
            (Kind.ADDRESS, _IPV4),
            (Kind.ADDRESS, _IPV6),
            (Kind.NUMBER, _NUMBER),
            (Kind.NAME, _NAME),
            (Kind.SIGN, _SIGN),
        ):
            match = pattern.match(text, self._at)
            if match is not None:
                self._at = match.end()
                return Token(kind, match[0], line, column)
        raise self.fault(f"{first!r} begins nothing that a script may hold")

    def rest_of_line(self) -> Token:
        """What is left of this line, without a comment: the value of a parameter that has a syntax of its own."""
        text = self._text
        while self._at < len(text) and text[self._at] in " \t":
            self._at += 1
        start, line, column = self._at, self._line, self._at - self._line_start + 1
        quote = ""
        while self._at < len(text) and text[self._at] != "\n":
            here = text[self._at]
            if quote:
                quote = "" if here == quote else quote
            elif here in "\"'":
                quote = here
            elif here == "#" or text.startswith(("//", "/*"), self._at):
                break
            self._at += 1
        return Token(Kind.STRING, text[start : self._at].strip().rstrip(";").strip(), line, column)

    def _skip(self) -> None:
        """Go over blanks and comments."""
        text = self._text
        while self._at < len(text):
            blank = _BLANK.match(text, self._at)
            if blank is not None:
                self._pass(blank.end())
            elif text[self._at] == "#" or text.startswith("//", self._at):
                end = text.find("\n", self._at)
                end = len(text) if end < 0 else end
                self._comment(text[self._at : end].lstrip("#/"))
                self._at = end
            elif text.startswith("/*", self._at):
                end = text.find("*/", self._at + 2)
                if end < 0:
                    raise self.fault("this comment has no end: '*/' is missing")
                self._comment(text[self._at + 2 : end])
                self._pass(end + 2)
            else:
                return

    def _comment(self, text: str) -> None:
        self.comments[self._line] = f"{self.comments.get(self._line, '')} {text}".strip()

    def _pass(self, end: int) -> None:
        """Go on at ``end``, and count the lines up to there."""
        lines = self._text.count("\n", self._at, end)
        if lines:
            self._line += lines
            self._line_start = self._text.rindex("\n", self._at, end) + 1
        self._at = end

    def _string(self, quote: str) -> str:
        begin = self.fault("this string has no end: its closing quote is missing")
        text, at = self._text, self._at + 1
        found: list[str] = []
        while at < len(text):
            here = text[at]
            if here == quote:
                self._pass(at + 1)
                return "".join(found)
            if here == "\\" and at + 1 < len(text):
                following = text[at + 1]
                # What is no escape keeps its backslash: it may be one of a regular expression.
                found.append(_ESCAPES.get(following, here + following))
                at += 2
                continue
            found.append(here)
            at += 1
        raise begin

    def _variable(self) -> str:
        length = variable_length(self._text, self._at)
        if length == 0:
            raise self.fault("'$' is not followed by the name of a variable")
        start = self._at
        self._pass(start + length)
        return self._text[start : self._at]


def variable_length(text: str, at: int) -> int:
    """How many characters from ``at``, where a ``$`` stands, are a variable; 0 where they are none."""
    if text.startswith("$(", at):
        end = _closing(text, at + 1)
        return end - at if end else 0
    match = _PLAIN_VARIABLE.match(text, at)
    if match is None:
        return 0
    end = match.end()
    if match[0][1:] in _WITH_NAME and text.startswith("(", end):
        end = _closing(text, end)
        if not end:
            return 0
    if text.startswith("[", end):
        closing = text.find("]", end)
        if closing > 0 and re.fullmatch(r"-?\d+|\*|\$\w+(?:\(\w+\))?", text[end + 1 : closing]):
            end = closing + 1
    return end - at


def _closing(text: str, at: int) -> int:
    """Behind the bracket that closes the one at ``at``; 0 where there is none in the same line."""
    depth = 0
    for index in range(at, min(len(text), at + 1000)):
        here = text[index]
        if here in "({":
            depth += 1
        elif here in ")}":
            depth -= 1
            if depth == 0:
                return index + 1
        elif here == "\n":
            break
    return 0
