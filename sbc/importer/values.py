"""Values of a script as Python expressions: literals, variables with their transformations, formats, sums."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sbc.importer.context import Context, Value
from sbc.importer.tokens import variable_length
from sbc.importer.tree import Address, Binary, Expression, Literal, Name, Variable


class Unmapped(Exception):
    """What cannot be said here; the text is the reason, a sentence without its end."""


_KEPT: Final = re.compile(r"^\$(var|avp|dlg_val)\((?:s:|i:)?([\w.-]+)\)$")
_HEADER: Final = re.compile(r"^\$\(?hdr\(([-\w.]+)\)(?:\[0\])?\)?$")
_TRANSFORMED: Final = re.compile(r"^\$\(([\w.]+(?:\([^(){}]*\))?)((?:\{[^{}]*\})+)\)$")
_STEP: Final = re.compile(r"\{([^{}]*)\}")


class Values:
    """Says the values of one context. ``uses_way``: one of them was what the script has said of the way so far.
    ``only_invite``: nothing but an INVITE comes here. ``changes_uri``: the script changes the Request-URI somewhere, so
    what it is now is said by the way."""

    def __init__(self, context: Context, changes_uri: bool) -> None:
        self.context = context
        self.changes_uri = changes_uri
        self.uses_way = False
        self.only_invite = False

    def value(self, one: Expression) -> Value:
        """Any value. Raises Unmapped."""
        if isinstance(one, Literal):
            return Value(str(one.value), "int") if isinstance(one.value, int) else self.format(one.value)
        if isinstance(one, Address):
            return Value(quoted(one.text), "str")
        if isinstance(one, Variable):
            return self.variable(one.text)
        if isinstance(one, Name):
            return self._name(one)
        if isinstance(one, Binary) and one.sign in ("+", "-", "*", "/", "%"):
            return self._sum(one)
        raise Unmapped("a condition is no value that could be kept")

    def _name(self, one: Name) -> Value:
        if one.text in ("NULL", "null"):
            return Value("None", "any")
        known = self.variable_or_none(one.text)
        if known is not None:
            return known
        if one.text.isupper() or re.fullmatch(r"[A-Z]\w*", one.text):  # INVITE, UDP, a flag
            return Value(quoted(one.text), "str")
        raise Unmapped(f"'{one.text}' has no counterpart in a {self.context.kind}")

    def _sum(self, one: Binary) -> Value:
        left, right = self.value(one.left), self.value(one.right)
        if one.sign == "+" and ("str" in (left.type, right.type) or "optional" in (left.type, right.type)):
            return Value(f"{left.text()} + {right.text()}", "str", False)
        if "str" in (left.type, right.type) or "optional" in (left.type, right.type):
            raise Unmapped(f"text cannot be computed with '{one.sign}'")
        left, right = number(left), number(right)
        sign = "//" if one.sign == "/" else one.sign
        return Value(f"{left.inner()} {sign} {right.inner()}", "int", False)

    def variable(self, text: str) -> Value:
        """A ``$...`` or a bare word that stands for one. Raises Unmapped."""
        known = self.variable_or_none(text)
        if known is None:
            raise Unmapped(f"{text} has no counterpart in a {self.context.kind}")
        return known

    def variable_or_none(self, text: str) -> Value | None:
        """As :meth:`variable`, None for what has no counterpart."""
        if text == "$$":
            return Value('"$"', "str")
        if text == "$du" and self.context.is_request:
            self.uses_way = True
            return Value("way.next_hop", "str")
        uri = self._uri(text)
        if uri is not None:
            return uri
        if text in self.context.variables:
            return self.context.variables[text]
        if text.startswith("$(") and f"${text[2:-1]}" in self.context.variables:
            return self.context.variables[f"${text[2:-1]}"]
        kept = self.kept(text)
        if kept is not None:
            return Value(f"{kept[0]}.get({quoted(kept[1])})", "any")
        header = _HEADER.match(text)
        if header is not None and self.context.message:
            where = "received" if self.context.kind == "onreply_route" else "headers"
            return Value(f"{self.context.message}.{where}.get({quoted(header[1])})", "optional")
        changed = _TRANSFORMED.match(text)
        if changed is not None:
            inner = self.variable_or_none(f"${changed[1]}")
            if inner is not None:
                return self._transformed(inner, text, _STEP.findall(changed[2]))
        return None

    def _uri(self, text: str) -> Value | None:
        """The Request-URI, or a part of it."""
        if not self.context.is_request or text not in ("$ru", "$rU", "$rd", "uri"):
            return None
        if self.changes_uri:
            self.uses_way = True
            host = Value('way.host.partition(":")[0]', "str")
            return {"$rU": Value("way.number", "str"), "$rd": host}.get(text, Value("way.uri", "str"))
        call = self.context.kind == "failure_route"
        uri = "failure.call.request_uri" if call else "request.uri"
        number = Value("failure.call.called_number" if call else "request.called_number", "str")
        return {"$rU": number, "$rd": Value(f"{uri}.host", "str")}.get(text, Value(f"str({uri})", "str"))

    def kept(self, text: str) -> tuple[str, str] | None:
        """Where a variable of the script is kept, and its name; None for another one. Raises Unmapped."""
        match = _KEPT.match(text)
        if match is None:
            return None
        where = self.context.kept("variables")
        if match[1] == "dlg_val":
            if self.context.kind == "route" and not self.only_invite:
                raise Unmapped(f"{text} is kept with a call: request.call.variables, once it is known that this is one")
            where = f"{self.context.call}.variables" if self.context.call else ""
        return (where, match[2]) if where else None

    def _transformed(self, value: Value, text: str, steps: list[str]) -> Value:
        for step in steps:
            name, *given = [part.strip() for part in step.split(",")]
            inner = value.text()
            numbers = [int(part) for part in given if re.fullmatch(r"-?\d{1,4}", part)]
            if name == "s.len":
                value = Value(f"len({inner})", "int")
            elif name == "s.int":
                value = Value(f"int({inner})", "int")
            elif name in ("s.tolower", "s.toupper"):
                value = Value(f"{_atom(inner)}.{name[4:]}()", "str")
            elif name == "s.substr" and len(numbers) == len(given) == 2 and numbers[0] >= 0 and numbers[1] >= 0:
                start, length = numbers
                end = str(start + length) if length else ""
                value = Value(f"{_atom(inner)}[{start or ''}:{end}]", "str")
            elif name == "s.trim":
                value = Value(f"{_atom(inner)}.strip()", "str")
            else:
                raise Unmapped(f"the transformation {{{step}}} of {text} has no counterpart")
        return value

    # Text with variables in it

    def format(self, text: str) -> Value:
        """A string of the script: an f-string where variables stand in it. Raises Unmapped."""
        pieces = list(pieces_of(text))
        if len(pieces) == 1 and pieces[0][1]:
            return self.variable(pieces[0][0])
        if not any(is_variable for _, is_variable in pieces):
            return Value(quoted("".join(piece for piece, _ in pieces)), "str")
        code = ""
        for piece, is_variable in pieces:
            if is_variable:
                value = self.variable(piece)
                inner = value.text() if value.type in ("optional", "str") else value.code
                if '"' in inner or "\\" in inner:
                    inner = inner.replace('"', "'")
                code += "{" + inner + "}"
            else:
                code += quoted(piece)[1:-1].replace("{", "{{").replace("}", "}}")
        return Value(f'f"{code}"', "str")

    def fields(self, text: str) -> tuple[str, list[tuple[str, str]]]:
        """A line of the log: the text with the names of its variables, and the variables by these names."""
        shown, fields = "", []
        for piece, is_variable in pieces_of(text):
            shown += piece
            if is_variable:
                value = self.variable(piece)
                name = re.sub(r"\W+", "_", piece).strip("_")
                if (name, value.code) not in fields:
                    fields.append((name, value.code))
        return shown.strip(), fields


def number(value: Value) -> Value:
    """As an operand of a sum or an order: a variable that was never set counts as 0."""
    if value.type == "any" and value.code.endswith('")') and ".get(" in value.code:
        return Value(value.code[:-1] + ", 0)", "any")
    return value


def pieces_of(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of a format, and whether each is a variable."""
    plain, at = "", 0
    while at < len(text):
        if text.startswith("$$", at):
            plain, at = plain + "$", at + 2
            continue
        length = variable_length(text, at) if text[at] == "$" else 0
        if length:
            if plain:
                yield plain, False
            yield text[at : at + length], True
            plain, at = "", at + length
        else:
            plain, at = plain + text[at], at + 1
    if plain or not text:
        yield plain, False


def quoted(text: str) -> str:
    """A Python literal in double quotes."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable() and not 0xD800 <= ord(char) <= 0xDFFF:
            out.append(char)
        else:
            code = ord(char)
            short = {10: "\\n", 13: "\\r", 9: "\\t"}.get(code)
            out.append(
                short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}")
            )
    return '"' + "".join(out) + '"'


def _atom(code: str) -> str:
    return code if re.fullmatch(r"[\w.\[\]]+(?:\([^()]*\))?|\(.*\)", code) else f"({code})"
