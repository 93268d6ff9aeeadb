"""Header rules: what an operator has done to the messages of a realm or peer, as data (``docs/header-rules.md``).

Lists of rules are compiled once; to apply them is a pure function of a message and of who it is from or for. The time
is linear in the message, whatever the rules say (:mod:`sbc.config.expression`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sbc.config.expression import Expression, Match
from sbc.config.header_rules import (
    PROTECTED,
    REQUEST_URI,
    HeaderAction,
    HeaderRule,
    HeaderTest,
    Piece,
    pieces,
    split_field,
)
from sbc.policy.draft import Draft, Field, long_name, spelled

MAX_VALUE: Final = 4096  # characters of a value that a rule makes; a longer one stays as it was

_PARTS_ONLY: Final = ("from", "to")
# What the wildcard of a removal leaves alone
_KEPT: Final = PROTECTED | {"from", "to", "allow"}

Told = Callable[[str, str], None]  # a sentence, and file:line


class Refusal(NamedTuple):
    """What a rule answers a request with; ``reason`` '' is the standard phrase."""

    status: int
    reason: str


@dataclass(slots=True)
class Context:
    """Whom a message is from or for, and what is known besides.

    ``addresses``: whether From, To and the Request-URI may be changed: in a request that opens a dialog or has none.
    ``known`` are the values of ``${peer}`` and its kin. ``variables`` are those of the call, as it has them; what rules
    store is in ``stored``. ``faults`` counts the values that could not be used. ``told`` hears of each change.
    """

    direction: str
    inside: bool = False
    addresses: bool = True
    known: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    stored: dict[str, str] = field(default_factory=dict)
    faults: int = 0
    told: Told | None = None


class HeaderRules:
    """Lists of rules, one after the other. ``lists`` by name, as configured."""

    __slots__ = ("_rules",)

    def __init__(self, names: Iterable[str], lists: Mapping[str, Iterable[HeaderRule]]) -> None:
        self._rules = tuple(
            _Rule(rule, f"{name}.{number}") for name in names for number, rule in enumerate(lists[name], 1)
        )

    def __bool__(self) -> bool:
        return bool(self._rules)

    def apply(self, draft: Draft, context: Context) -> Refusal | None:
        """Do to ``draft`` what the rules say; the refusal of the first rule that has one ends it."""
        for rule in self._rules:
            if rule.fits(draft, context):
                refusal = rule.apply(draft, context)
                if refusal is not None:
                    return refusal
        return None


class _Test:
    __slots__ = ("absent", "expression", "field")

    def __init__(self, test: HeaderTest) -> None:
        self.field = _field(test.header)
        self.expression = Expression(test.matches) if test.matches else None
        self.absent = test.absent

    def holds(self, draft: Draft) -> bool:
        values = draft.values(self.field)
        expression = self.expression
        found = bool(values) if expression is None else any(expression.search(value) for value in values)
        return found is not self.absent


class _Rule:
    __slots__ = ("actions", "methods", "name", "place", "status", "tests", "when")

    def __init__(self, rule: HeaderRule, name: str) -> None:
        self.name = rule.name or name
        self.place = rule.place
        self.when = rule.when
        self.methods = frozenset(rule.when.methods)
        self.status = tuple(rule.when.status)
        tests = [_Test(test) for test in rule.when.headers]
        for expression, header in ((rule.when.caller, "From.user"), (rule.when.called, "Request-URI.user")):
            if expression:
                tests.append(_Test(HeaderTest(header=header, matches=expression)))
        self.tests = tests
        self.actions = [_Action(action) for action in rule.do]

    def fits(self, draft: Draft, context: Context) -> bool:
        when = self.when
        if when.message != "any" and (when.message == "request") is not draft.is_request:
            return False
        if self.methods and draft.method not in self.methods:
            return False
        if self.status and not any(low <= draft.status <= high for low, high in self.status):
            return False
        if when.dialog != "any" and (when.dialog == "inside") is not context.inside:
            return False
        if when.direction and context.direction not in when.direction:
            return False
        return all(test.holds(draft) for test in self.tests)

    def apply(self, draft: Draft, context: Context) -> Refusal | None:
        for action in self.actions:
            said = action.apply(draft, context)
            if said and context.told is not None:
                context.told(f"Rule {self.name}: {said}.", self.place)
            if action.refusal is not None and said:
                return action.refusal
        return None


class _Action:
    """One action; :meth:`apply` tells what it did, '' for nothing."""

    __slots__ = ("_apply", "expression", "field", "label", "new_name", "prefix", "refusal", "value", "variable")

    def __init__(self, action: HeaderAction) -> None:
        verb, target = action.verb, action.target
        self._apply: Callable[[_Action, Draft, Context], str] = _VERBS[verb]
        self.label = target
        self.prefix = target[:-1].lower() if verb == "remove" and target.endswith("*") else ""
        self.field: Field = ("", "") if self.prefix or verb == "reject" else _field(target)
        self.expression = Expression(action.matches) if action.matches else None
        self.new_name = spelled(action.to or "") if verb == "rename" else ""
        self.value: tuple[Piece, ...] = pieces(action.to) if action.to is not None and verb != "rename" else ()
        self.variable = action.variable or ""
        self.refusal = Refusal(action.reject, action.reason or "") if action.reject is not None else None

    def apply(self, draft: Draft, context: Context) -> str:
        locked = self.field[0] in _PARTS_ONLY or self.field[0] == REQUEST_URI
        if locked and not context.addresses and not self.variable:
            return ""
        return self._apply(self, draft, context)

    def set(self, draft: Draft, context: Context) -> str:
        value = _filled(self.value, draft, context)
        if value is None:
            return ""
        name, part = self.field
        if part or name == REQUEST_URI:
            return self._changed(draft.change(self.field, lambda _: value))
        if draft.lines(name) == [value]:
            return ""
        gone = draft.remove(lambda header, _: header == name)
        draft.add(spelled(self.label), value)
        return self._changed([(", ".join(old for _, old in gone), value)])

    def add(self, draft: Draft, context: Context) -> str:
        value = _filled(self.value, draft, context)
        if value is None:
            return ""
        draft.add(spelled(self.label), value)
        return f"adds {self.label}: {value}"

    def remove(self, draft: Draft, context: Context) -> str:
        name, expression, prefix = self.field[0], self.expression, self.prefix

        def wanted(header: str, value: str) -> bool:
            named = header.startswith(prefix) and header not in _KEPT if prefix else header == name
            return named and (expression is None or expression.search(value) is not None)

        gone = draft.remove(wanted)
        return f"removes {', '.join(f'{header}: {value}' for header, value in gone)}" if gone else ""

    def replace(self, draft: Draft, context: Context) -> str:
        expression = self.expression
        assert expression is not None
        unusable = False

        def replaced(value: str) -> str:
            nonlocal unusable
            octets = value.encode("utf-8", "surrogateescape")
            parts, at = [], 0
            for match in expression.matches(value):
                new = _filled(self.value, draft, context, match)
                if new is None:
                    unusable = True
                    return value
                parts += [octets[at : match.start], new.encode("utf-8", "surrogateescape")]
                at = match.end
            result = b"".join([*parts, octets[at:]]).decode("utf-8", "surrogateescape")
            if len(result) > MAX_VALUE:
                unusable = True
                return value
            return result

        said = self._changed(draft.change(self.field, replaced))
        context.faults += unusable
        return said

    def rename(self, draft: Draft, context: Context) -> str:
        name, new = self.field[0], self.new_name
        gone = draft.remove(lambda header, _: header == name)
        for _, value in gone:
            draft.add(new, value)
        return f"renames {self.label} to {new}" if gone else ""

    def store(self, draft: Draft, context: Context) -> str:
        for value in draft.values(self.field):
            found = value
            if self.expression is not None:
                match = self.expression.search(value)
                if match is None:
                    continue
                found = match.group(1 if self.expression.groups else 0)
            context.stored[self.variable] = found[:MAX_VALUE]
            return f"stores {self.variable} = {found}"
        return ""

    def reject(self, draft: Draft, context: Context) -> str:
        refusal = self.refusal
        if refusal is None or not draft.is_request or draft.method in ("BYE", "PRACK"):
            return ""
        return f"refuses the {draft.method} with {refusal.status}"

    def _changed(self, pairs: list[tuple[str, str]]) -> str:
        return "; ".join(f"{self.label}: {old or 'nothing'} → {new or 'nothing'}" for old, new in pairs)


_VERBS: Final[dict[str, Callable[[_Action, Draft, Context], str]]] = {
    "set": _Action.set,
    "add": _Action.add,
    "remove": _Action.remove,
    "replace": _Action.replace,
    "rename": _Action.rename,
    "store": _Action.store,
    "reject": _Action.reject,
}


def _field(text: str) -> Field:
    name, part = split_field(text)
    return long_name(name), part


def _filled(value: tuple[Piece, ...], draft: Draft, context: Context, match: Match | None = None) -> str | None:
    """The text of a value; None where something that it names is not there, or it could not be sent."""
    text = ""
    for kind, content in value:
        if kind == "text":
            text += content
        elif kind == "group":
            text += match.group(int(content)) if match is not None else ""
        elif kind == "field":
            found = draft.values(_field(content))
            if not found:
                return None
            text += found[0]
        else:
            known = _variable(content, draft, context)
            if known is None:
                return None
            text += known
    if len(text) > MAX_VALUE or "\r" in text or "\n" in text or "\0" in text:
        context.faults += 1
        return None
    return text


def _variable(name: str, draft: Draft, context: Context) -> str | None:
    if name == "method":
        return draft.method
    if name == "status":
        return str(draft.status) if draft.status else None
    known = context.known.get(name) or context.stored.get(name)
    if known is not None:
        return known
    value = context.variables.get(name)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
