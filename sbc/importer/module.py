"""The routes module that a script makes: one function for each route block that is reached, and what they share."""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sbc.importer import code, preamble
from sbc.importer.actions import CHANGES_URI, ON_WAY
from sbc.importer.body import Body
from sbc.importer.conditions import argument
from sbc.importer.context import BY_KIND, Context
from sbc.importer.peers import Peers
from sbc.importer.report import Report
from sbc.importer.tree import Assign, Block, Call, If, Leave, Script, Variable, expressions, statements, used
from sbc.importer.values import Unmapped

_DECORATED: Final = {
    "branch_route": "@routes.branch_route",
    "failure_route": "@routes.failure_route",
    "onreply_route": "@routes.onreply_route",
}
_RESERVED: Final = frozenset(
    {
        "main",
        "send",
        "flags_of",
        "variables_of",
        "unmapped",
        "send_again",
        "way_of",
        "routes",
        "way",
        "request",
        "code",
        "re",
        "unnamed",
    }
)


@dataclass(slots=True)
class _Function:
    name: str
    context: Context
    block: Block
    returns: bool  # a code
    takes_way: bool
    lines: list[str] = field(default_factory=list)


class Module:
    """Makes the text. ``helpers`` are the pieces of the preamble that are needed."""

    def __init__(self, script: Script, peers: Peers, report: Report) -> None:
        self._script = script
        self._peers = peers
        self._report = report
        self._blocks = {(block.kind, block.name): block for block in script.blocks}
        self._functions: dict[tuple[str, str, str], _Function] = {}
        self._waiting: list[_Function] = []
        self._names: set[str] = set(_RESERVED)
        self._changes_uri = any(
            _changes_uri(block) for block in script.blocks if block.kind in ("route", "failure_route")
        )
        self._on_way = self._closed({name for name in self._blocks if self._uses_way(self._blocks[name])})
        self._leaving = self._closed({name for name in self._blocks if _leaves(self._blocks[name])})
        self._asked = {name for block in script.blocks for name in _asked_routes(block)}
        self.helpers: set[str] = set()

    # Plan

    def use(self, helper: str) -> None:
        """See :class:`sbc.importer.actions.Plan`."""
        self.helpers.add(helper)

    def armed(self, kind: str, name: str, line: int) -> str:
        """See :class:`sbc.importer.actions.Plan`."""
        block = self._blocks.get((kind, name))
        if block is None:
            raise Unmapped(f"there is no {kind}[{name}]")
        return self._function(block, BY_KIND[kind], is_sub=False).name

    def called(self, name: str, context: Context) -> tuple[str, list[str], bool]:
        """See :class:`sbc.importer.actions.Plan`."""
        block = self._blocks.get(("route", name))
        if block is None or not name:
            raise Unmapped(f"there is no route[{name}]")
        function = self._function(block, context, is_sub=True)
        given = [context.subject, *(["way"] if function.takes_way else [])]
        return function.name, given, function.returns

    def _function(self, block: Block, context: Context, *, is_sub: bool) -> _Function:
        key = (block.kind, block.name, context.kind)
        found = self._functions.get(key)
        if found is None:
            reached = (block.kind, block.name)
            returns = is_sub and (reached in self._leaving or block.name in self._asked)
            takes_way = is_sub and reached in self._on_way and context.kind in ("route", "failure_route")
            found = _Function(self._named(block, context, is_sub), context, block, returns, takes_way)
            self._functions[key] = found
            self._waiting.append(found)
        return found

    def _named(self, block: Block, context: Context, is_sub: bool) -> str:
        if not is_sub and block.kind in ("route", "local_route", "error_route", "startup_route") and not block.name:
            name = "main" if block.kind == "route" else block.kind
            if name == "main":
                return name
        else:
            name = code.identifier(block.name)
            if name[0].isdigit() or not is_sub or keyword.iskeyword(name) or name in _RESERVED:
                name = f"{block.kind}_{name}"
        name += context.suffix if is_sub else ""
        number, free = 2, name
        while free in self._names or keyword.iskeyword(free):
            free, number = f"{name}_{number}", number + 1
        self._names.add(free)
        return free

    # What blocks are like

    def _uses_way(self, block: Block) -> bool:
        if block.kind not in ("route", "failure_route"):
            return False
        for one in used(block.body):
            if isinstance(one, Call) and one.name in ON_WAY:
                return True
            read = ("$du", "$ru", "$rU", "$rd") if self._changes_uri else ("$du",)
            if isinstance(one, Variable) and (one.text in read or (self._changes_uri and "(r" in one.text)):
                return True
        return False

    def _closed(self, found: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """With the routes that call one of these, directly or not."""
        found = set(found)
        while True:
            more = {
                key
                for key, block in self._blocks.items()
                if key not in found and any(("route", name) in found for name in _called_routes(block))
            }
            if not more:
                return found
            found |= more

    # The text

    def text(self) -> str:
        """The whole module."""
        main = self._blocks.get(("route", "")) or self._blocks.get(("route", "0"))
        if main is None:
            self._report.unmapped(1, "the script has no route: nothing decides about requests, and all are refused")
        for block in self._script.blocks:
            if block is main or (block.kind in BY_KIND and block.kind != "route" and self._is_asked(block)):
                self._function(block, BY_KIND[block.kind], is_sub=False)
            elif block.kind == "event_route":
                self._report.unmapped(block.line, f"no event of the SBC is {block.name or 'this one'}")
        while self._waiting:
            self._write(self._waiting.pop(0), main)
        for block in self._script.blocks:
            if block.kind != "event_route" and not any(one.block is block for one in self._functions.values()):
                self._report.itself(block.line, "nothing leads to this route")
        functions = sorted(self._functions.values(), key=lambda one: one.block.line)
        parts = [one.lines for one in functions]
        if main is None:
            parts.insert(0, preamble.NO_MAIN)
        contexts = {one.context.type for one in functions} | ({"Request"} if main is None else set())
        body = "\n\n\n".join("\n".join(lines) for lines in parts)
        marks = {"re": "re.search(", **{name: f"{name}(" for name in preamble.KEPT}}
        uses = self.helpers | {name for name, mark in marks.items() if mark in body}
        return preamble.text(self._script.file, contexts, uses, self._changes_uri) + "\n\n" + body + "\n"

    def _is_asked(self, block: Block) -> bool:
        """Whether the SBC asks it without being armed: those that have no name, and timers."""
        return not block.name or block.kind in ("timer_route", "startup_route", "local_route", "error_route")

    def _write(self, function: _Function, main: Block | None) -> None:
        block, context = function.block, function.context
        is_main = not function.returns
        body = Body(context, self._peers, self._report, self, is_main=is_main, changes_uri=self._changes_uri)
        lines, ends = body.lines(block.body, 1)
        if any("unmapped(" in line for line in lines):
            self.use("unmapped")
        if function.returns and not ends:
            lines.append(code.line(1, "return 1"))
        while is_main and lines and lines[-1] == "    return":
            lines.pop()
        head = self._head(function, block is main)
        if body.values.uses_way or any("way)" in line or "way." in line for line in lines):
            self.use("way")
            if not function.takes_way:
                lines.insert(0, code.line(1, f"way = {self._way_of(context)}"))
        if not any(line.strip() and not line.lstrip().startswith("#") for line in lines) and not head[-1].endswith(
            '"""'
        ):
            lines.append(code.line(1, "pass"))
        function.lines = head + lines

    def _way_of(self, context: Context) -> str:
        if context.kind != "failure_route":
            return "way_of(request.uri)"
        if not self._changes_uri:
            return "way_of(failure.call.request_uri)"
        self.use("parse_uri")
        return 'way_of(parse_uri(failure.call.transaction.variables["$ru"]))'

    def _head(self, function: _Function, is_main: bool) -> list[str]:
        block, context = function.block, function.context
        lines = []
        if function.takes_way:
            self.use("way")
        if is_main:
            lines.append("@routes.route")
        elif block.kind in _DECORATED and block.name:
            lines.append(_DECORATED[block.kind])
        elif block.kind in _DECORATED:
            lines.append(f"{_DECORATED[block.kind]}(always=True)")
            self._report.assumed(block.line, "this runs for the calls that arm no other route of this kind")
        elif block.kind == "timer_route":
            seconds = int(block.parameter) if block.parameter.isdigit() and int(block.parameter[:9]) else 60
            if str(seconds) != block.parameter:
                self._report.unmapped(block.line, "the interval of a timer route is a number of seconds; 60 was taken")
            lines.append(f"@routes.timer_route(every_s={seconds})")
        elif block.kind in ("startup_route", "local_route", "error_route"):
            lines.append(f"@routes.{block.kind}")
        way = ", way: Way" if function.takes_way else ""
        result = "int" if function.returns else "None"
        lines.append(f"async def {function.name}({context.subject}: {context.type}{way}) -> {result}:")
        called = f"{block.kind}[{block.name}]" if block.name else block.kind
        text = f"{called}, lines {block.line}-{block.end_line}."
        if function.returns:
            text += " The code is 0 where the script ends here, below 0 where it is false."
        lines.append(code.line(1, f'"""{code.printable(text)}"""'.replace("\\", "/")))
        return lines


def _changes_uri(block: Block) -> bool:
    for one in statements(block.body):
        if isinstance(one, Assign) and one.target.text in ("$ru", "$rU", "$rd"):
            return True
    return any(isinstance(one, Call) and one.name in CHANGES_URI for one in used(block.body))


def _leaves(block: Block) -> bool:
    """Whether the script may end within it."""
    return any(
        isinstance(one, Leave) and (one.how in ("exit", "drop") or one.code is not None)
        for one in statements(block.body)
    )


def _called_routes(block: Block) -> Iterator[str]:
    for one in used(block.body):
        if isinstance(one, Call) and one.name == "route":
            yield argument(one, 0)


def _asked_routes(block: Block) -> Iterator[str]:
    """The routes whose code a condition asks for."""
    for one in statements(block.body):
        if isinstance(one, If):
            for inner in expressions(one.condition):
                if isinstance(inner, Call) and inner.name == "route":
                    yield argument(inner, 0)
