"""The statements of one function, mapped one after the other."""

from __future__ import annotations

from typing import Final

from sbc.importer import code
from sbc.importer.actions import Actions, Plan
from sbc.importer.conditions import AND, Conditions, Truth
from sbc.importer.context import Context
from sbc.importer.peers import Peers
from sbc.importer.report import Report
from sbc.importer.tree import (
    Assign,
    Binary,
    Call,
    Expression,
    If,
    Leave,
    Literal,
    Loop,
    Statement,
    expressions,
    statements,
)
from sbc.importer.values import Unmapped, Values

_MAKES_CALL: Final = "if request.makes_call:"
_ONLY_INVITE: Final = 'request.method == "INVITE"'


class Body:
    """Maps the body of one route for one context; ``is_main``: it is asked by the SBC, not by another route."""

    def __init__(
        self, context: Context, peers: Peers, report: Report, plan: Plan, *, is_main: bool, changes_uri: bool
    ) -> None:
        self.context = context
        self.report = report
        self.is_main = is_main
        self.values = Values(context, changes_uri)
        self.actions = Actions(context, self.values, report, plan, is_main=is_main)
        self.conditions = Conditions(context, self.values, peers, report, self.actions.act)

    def lines(self, body: tuple[Statement, ...], depth: int) -> tuple[list[str], bool]:
        """The lines, and whether nothing comes after them."""
        out: list[str] = []
        for index, one in enumerate(body):
            self.actions.depth = depth
            split = _split(one)
            if split is not None:
                one = split
            found, ends = self._statement(one, depth)
            out += found
            if ends:
                for left in body[index + 1 : index + 2]:
                    self.report.itself(left.line, "this is never reached")
                return out, True
        return out, False

    def _statement(self, one: Statement, depth: int) -> tuple[list[str], bool]:
        if isinstance(one, If):
            return self._if(one, depth, "if")
        if isinstance(one, Leave):
            return self._leave(one, depth)
        try:
            if isinstance(one, Loop):
                raise Unmapped(f"'{one.kind}' is not taken over: write it in Python")
            if isinstance(one, Assign):
                return self.actions.assign(one), False
            return self.actions.do(one.call), False
        except Unmapped as reason:
            return self._unmapped(one, str(reason), depth), False

    def _unmapped(self, one: Statement, reason: str, depth: int) -> list[str]:
        self.report.unmapped(one.line, reason)
        text = self.report.script.text(one.line)
        return code.comment(depth, f"Not mapped, line {one.line}: {text} ({reason})")

    def _leave(self, one: Leave, depth: int) -> tuple[list[str], bool]:
        kind = self.context.kind
        if one.how == "break":
            return self._unmapped(one, "'break' is not within what is taken over", depth), False
        lines = []
        if one.how == "drop":
            if kind == "branch_route":
                lines.append(code.line(depth, "branch.drop()"))
            elif kind == "onreply_route":
                lines += [code.line(depth, "if not reply.is_final:"), code.line(depth + 1, "reply.drop()")]
        if self.is_main:
            return [*lines, code.line(depth, "return")], True
        result = "0" if one.how in ("exit", "drop") else "1"
        if one.how == "return" and one.code is not None:
            result = _code_of(one.code)
            if not result:
                lines = self._unmapped(one, "the code of a return is a literal number", depth)
                result = "1"
        return [*lines, code.line(depth, f"return {result}")], True

    def _if(self, one: If, depth: int, word: str) -> tuple[list[str], bool]:
        self.actions.depth = depth
        asked_from = len(self.report.items)
        truth = self.conditions.truth(one.condition)
        asked_to = len(self.report.items)
        before = list(truth.before)
        if truth.always is not None:
            taken, left = (one.then, one.otherwise) if truth.always else (one.otherwise, one.then)
            self._left_out(one, left)
            lines, ends = self.lines(taken, depth)
            return before + lines, ends
        invite, self.values.only_invite = self.values.only_invite, self.values.only_invite or _is_invite(truth)
        then, then_ends = self.lines(one.then, depth + 1)
        self.values.only_invite = invite
        otherwise, else_ends = self._otherwise(one, depth)
        if not _has_code(then) and not _has_code(otherwise):
            self.report.forgive(asked_from, asked_to, "nothing depends on this: what it leads to is done anyway")
            return before + _raised(then) + otherwise, False
        asked = truth.code
        if (
            not otherwise
            and then
            and then[0].strip() == _MAKES_CALL
            and all(_deeper(row, depth + 1) for row in then[1:])
        ):
            asked, then = f"{truth.at(AND)} and request.makes_call", [row.removeprefix("    ") for row in then[1:]]
        then = then if _has_code(then) else [*then, code.line(depth + 1, "pass")]
        lines = before + code.condition(depth, word, asked) + then + otherwise
        return lines, then_ends and else_ends

    def _otherwise(self, one: If, depth: int) -> tuple[list[str], bool]:
        """``elif`` where the other block is another condition alone, ``else`` for anything else."""
        if not one.otherwise:
            return [], False
        if len(one.otherwise) == 1 and isinstance(one.otherwise[0], If):
            chained, ends = self._if(one.otherwise[0], depth, "elif")
            if chained and chained[0].lstrip().startswith("elif "):
                return chained, ends
            if not chained:
                return [], ends
        lines, ends = self.lines(one.otherwise, depth + 1)
        if not _has_code(lines):
            return _raised(lines), False
        return [code.line(depth, "else:"), *lines], ends

    def _left_out(self, one: If, left: tuple[Statement, ...]) -> None:
        if left:
            numbers = [inner.line for inner in statements(left)]
            said = (
                f"line {min(numbers)} is"
                if min(numbers) == max(numbers)
                else f"lines {min(numbers)}-{max(numbers)} are"
            )
            self.report.itself(one.line, f"{said} not needed: this condition is always the same here")


def _split(one: Statement) -> If | None:
    """``if (a && f())`` as two, where f does something: so it is done only where a is true."""
    if not isinstance(one, If) or one.otherwise or not isinstance(one.condition, Binary) or one.condition.sign != "and":
        return None
    right: Expression = one.condition.right
    return If(one.condition.left, (If(right, one.then, (), right.line),), (), one.line) if _acts(right) else None


def _acts(one: Expression) -> bool:
    names = {"t_relay", "forward", "route"}
    return any(isinstance(inner, Call) and inner.name in names for inner in expressions(one))


def _is_invite(truth: Truth) -> bool:
    return truth.code == _ONLY_INVITE or truth.code.startswith(_ONLY_INVITE + " and ")


def _deeper(row: str, depth: int) -> bool:
    return row.startswith("    " * (depth + 1))


def _raised(comments: list[str]) -> list[str]:
    """Comments of a block that is not written, one depth less."""
    return [one.removeprefix("    ") for one in comments]


def _has_code(lines: list[str]) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def _code_of(one: Expression) -> str:
    if isinstance(one, Literal):
        try:
            return str(int(one.value))
        except ValueError:
            return ""
    return ""
