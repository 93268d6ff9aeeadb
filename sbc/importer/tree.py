"""An OpenSIPS script as it was read: parameters, modules, route blocks, statements, expressions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Literal:
    """A string or a number."""

    value: str | int
    line: int


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address, or a network with its prefix length, without brackets."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Variable:
    """``$ru``, ``$var(x)``, ``$(rU{s.len})``: as it was written."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Name:
    """A bare word: ``src_ip``, ``INVITE``, ``myself``."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function and what it is given."""

    name: str
    arguments: tuple[Expression | None, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    operand: Expression
    line: int


@dataclass(frozen=True, slots=True)
class Binary:
    """``sign`` is ``and``, ``or``, a comparison, or one of ``+ - * / %``."""

    sign: str
    left: Expression
    right: Expression
    line: int


Expression = Literal | Address | Variable | Name | Call | Not | Binary


@dataclass(frozen=True, slots=True)
class Do:
    """A function that is called for what it does."""

    call: Call
    line: int


@dataclass(frozen=True, slots=True)
class Assign:
    """``target sign value``; ``value`` None is NULL."""

    target: Variable
    sign: str
    value: Expression
    line: int


@dataclass(frozen=True, slots=True)
class If:
    """``end_line`` is where its first block ends."""

    condition: Expression
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Leave:
    """``exit``, ``drop``, ``return`` or ``break``; ``code`` of a return, where one is given."""

    how: str
    code: Expression | None
    line: int


@dataclass(frozen=True, slots=True)
class Loop:
    """``while``, ``for`` or ``switch``: read, so that what follows can be, and never mapped."""

    kind: str
    body: tuple[Statement, ...]
    line: int


Statement = Do | Assign | If | Leave | Loop


@dataclass(frozen=True, slots=True)
class Block:
    """A route block: ``kind`` is ``route``, ``failure_route``, ...; ``name`` '' for the unnamed one. ``parameter`` is
    the interval of a timer route."""

    kind: str
    name: str
    parameter: str
    body: tuple[Statement, ...]
    line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Setting:
    """A global parameter, its value as text."""

    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class ModuleParameter:
    """``modparam("module", "name", value)``."""

    module: str
    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Module:
    """``loadmodule "name.so"``; the name without directory and ``.so``."""

    name: str
    line: int


@dataclass(slots=True)
class Script:
    """The whole file. ``lines`` is its text, line by line; ``comments`` by line."""

    file: str
    lines: list[str]
    settings: list[Setting] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)
    parameters: list[ModuleParameter] = field(default_factory=list)
    includes: list[Setting] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    comments: dict[int, str] = field(default_factory=dict)

    def text(self, line: int) -> str:
        """One line without the blanks around it."""
        return self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""


def statements(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """Every statement, those within others too, in order."""
    for one in body:
        yield one
        if isinstance(one, If):
            yield from statements(one.then)
            yield from statements(one.otherwise)
        elif isinstance(one, Loop):
            yield from statements(one.body)


def expressions(one: Expression | None) -> Iterator[Expression]:
    """An expression and all within it."""
    if one is None:
        return
    yield one
    if isinstance(one, Not):
        yield from expressions(one.operand)
    elif isinstance(one, Binary):
        yield from expressions(one.left)
        yield from expressions(one.right)
    elif isinstance(one, Call):
        for argument in one.arguments:
            yield from expressions(argument)


def used(body: tuple[Statement, ...]) -> Iterator[Expression]:
    """Every expression of a block."""
    for one in statements(body):
        if isinstance(one, Do):
            yield from expressions(one.call)
        elif isinstance(one, Assign):
            yield from expressions(one.target)
            yield from expressions(one.value)
        elif isinstance(one, If):
            yield from expressions(one.condition)
        elif isinstance(one, Leave):
            yield from expressions(one.code)
