"""Conditions of a script as Python.

What is always so here, or never, is told as such: a route does not see requests inside dialogs, so ``has_totag()`` is
false. What nobody can answer becomes a call that refuses the request when it is reached.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sbc.importer.context import Context
from sbc.importer.peers import Network, Peers, is_source
from sbc.importer.report import Report
from sbc.importer.tree import Address, Binary, Call, Expression, Literal, Name, Not, Variable
from sbc.importer.values import Unmapped, Values, number, quoted
from sbc.policy.nat import from_client_nat_test, nat_tests

# How tightly the outermost operator of a condition binds.
OR, AND, NOT, COMPARISON, ATOM = range(5)
_NOT_SEEN: Final = frozenset({"ACK", "BYE", "CANCEL", "PRACK", "UPDATE"})
_ALWAYS: Final = {
    "has_totag": (False, "requests inside dialogs are served by the SBC itself, and no route sees them"),
    "loose_route": (False, "requests inside dialogs are served by the SBC itself, and no route sees them"),
    "t_check_trans": (False, "repeated requests are absorbed before a route sees them"),
    "t_newtran": (True, "every request has a transaction before a route sees it"),
    "t_was_cancelled": (False, "a failure route does not run for a call that its caller gave up"),
    "mf_process_maxfwd_header": (True, "Max-Forwards is counted and refused by the SBC itself"),
    "maxfwd_process": (True, "Max-Forwards is counted and refused by the SBC itself"),
    "sanity_check": (True, "what is no proper SIP goes to the error route"),
    "topology_hiding_match": (False, "requests inside dialogs are served by the SBC itself, and no route sees them"),
    "validate_dialog": (True, "requests inside dialogs are held against their dialog by the SBC itself"),
    "force_rport": (True, "answers go to where the request came from"),
    "record_route": (True, "the SBC is an end of each dialog, and so in its path"),
    "fix_nated_contact": (True, "the Contact is made by the SBC, and requests go to where the phone was seen"),
}
_FLIPPED: Final = {
    **{"==": "!=", "!=": "==", "<": ">=", ">": "<=", "<=": ">", ">=": "<"},
    **{"in": "not in", "not in": "in", "is": "is not", "is not": "is"},
}


@dataclass(frozen=True, slots=True)
class Truth:
    """A condition: ``always`` where it needs no asking, else ``code``. ``before`` are statements that run first."""

    code: str
    level: int = ATOM
    always: bool | None = None
    before: tuple[str, ...] = ()
    parts: tuple[str, str, str] | None = None  # of a comparison

    def at(self, level: int) -> str:
        """As an operand of an operator that binds so tightly."""
        return self.code if self.level >= level else f"({self.code})"


def _comparison(left: str, sign: str, right: str) -> Truth:
    return Truth(f"{left} {sign} {right}", COMPARISON, None, (), (left, sign, right))


def _fixed(value: bool, before: tuple[str, ...] = ()) -> Truth:
    return Truth(str(value), ATOM, value, before)


@dataclass(slots=True)
class Conditions:
    """Says the conditions of one context. ``act`` says a function that does something and whether it succeeds."""

    context: Context
    values: Values
    peers: Peers
    report: Report
    act: Callable[[Call], Truth | None]

    def truth(self, one: Expression) -> Truth:
        """Any condition; what cannot be said is reported, and refuses the request when it is asked."""
        asked = self.peers.sources(one)
        if asked is not None and self.context.direction:
            return self._direction(*asked)
        if isinstance(one, Binary) and one.sign in ("and", "or"):
            return self._joined(one)
        if isinstance(one, Not):
            return self._opposite(self.truth(one.operand))
        try:
            return self._atom(one)
        except Unmapped as reason:
            return self._unmapped(one.line, str(reason))

    def _unmapped(self, line: int, reason: str) -> Truth:
        self.report.unmapped(line, reason)
        return Truth(f"unmapped({line}, {quoted(reason)})")

    def _direction(self, networks: frozenset[Network], opposite: bool) -> Truth:
        names = self.peers.directions(networks)
        who = self.context.direction
        if not names:
            return _fixed(opposite)
        if len(names) == 1:
            return _comparison(who, "!=" if opposite else "==", quoted(names[0]))
        listed = ", ".join(quoted(name) for name in names)
        return _comparison(who, "not in" if opposite else "in", f"({listed})")

    def _joined(self, one: Binary) -> Truth:
        left, right = self.truth(one.left), self.truth(one.right)
        stops = one.sign == "or"  # the value of the left side that settles it
        if left.always is not None:
            if left.always is stops:
                return left
            return Truth(right.code, right.level, right.always, left.before + right.before)
        if right.before:
            return self._unmapped(
                one.line, "what does something cannot stand behind 'and' or 'or': write it on its own"
            )
        if right.always is not None:
            # The left side has no effect here, so it need not be asked.
            return Truth(right.code, ATOM, right.always, left.before) if right.always is stops else left
        level = OR if stops else AND
        a, b = (f"({side.code})" if stops and side.level == AND else side.at(level) for side in (left, right))
        return Truth(f"{a} {one.sign} {b}", level, None, left.before)

    def _opposite(self, truth: Truth) -> Truth:
        if truth.always is not None:
            return _fixed(not truth.always, truth.before)
        if truth.parts is not None:
            left, sign, right = truth.parts
            return replace(_comparison(left, _FLIPPED[sign], right), before=truth.before)
        if truth.level == NOT:
            return Truth(truth.code.removeprefix("not "), ATOM, None, truth.before)
        return Truth(f"not {truth.at(NOT)}", NOT, None, truth.before)

    def _atom(self, one: Expression) -> Truth:
        if isinstance(one, Binary):
            return self._compared(one)
        if isinstance(one, Call):
            return self._function(one)
        if isinstance(one, Literal):
            return _fixed(bool(one.value))
        if isinstance(one, Variable | Name):
            value = self.values.value(one)
            return _comparison(value.inner(), "!=", "0") if value.type == "int" else Truth(value.code)
        raise Unmapped("this is no condition")

    # Comparisons

    def _compared(self, one: Binary) -> Truth:
        left, right, sign = one.left, one.right, one.sign
        if sign not in ("==", "!=", "=~", "!~", "<", ">", "<=", ">="):
            value = self.values.value(one)
            return _comparison(value.inner(), "!=", "0")
        if isinstance(right, Name) and right.text == "myself":
            return self._myself(left, sign)
        if is_source(left) and isinstance(right, Address | Literal) and not self.context.direction:
            text = right.text if isinstance(right, Address) else str(right.value)
            return _comparison(self.values.value(left).code, sign, quoted(text))
        method = _method_name(left, right)
        if method is not None and sign in ("==", "!="):
            found = self._methods([method])
            return found if sign == "==" else self._opposite(found)
        if sign in ("=~", "!~"):
            return self._pattern(left, right, sign)
        if isinstance(right, Name) and right.text in ("NULL", "null"):
            value = self.values.value(left)
            if value.type in ("str", "int", "bool"):
                found = _comparison(value.inner(), "!=", "0") if value.type == "int" else Truth(value.code)
                return self._opposite(found) if sign == "==" else found
            return _comparison(value.inner(), "is" if sign == "==" else "is not", "None")
        first, second = self.values.value(left), self.values.value(right)
        if sign in ("<", ">", "<=", ">=") and "optional" in (first.type, second.type):
            raise Unmapped("a header that may be absent has no order: convert it with {s.int}")
        if sign not in ("==", "!="):
            first, second = number(first), number(second)
        a, b = first.inner(), second.inner()
        if {first.type, second.type} == {"str", "int"} or {first.type, second.type} == {"optional", "int"}:
            a, b = (f"str({a})", b) if first.type == "int" else (a, f"str({b})")
            if sign not in ("==", "!="):
                raise Unmapped("text and a number have no order: convert it with {s.int}")
        return _comparison(a, sign, b)

    def _myself(self, left: Expression, sign: str) -> Truth:
        about = left.text if isinstance(left, Name | Variable) else ""
        if about in ("uri", "$ru", "$rd") and self.context.kind == "route" and sign in ("==", "!="):
            found = Truth(f"{self.context.message}.is_for_us")
            return found if sign == "==" else self._opposite(found)
        raise Unmapped(f"whether '{about}' is ours is not known in a {self.context.kind}: compare it with a literal")

    def _pattern(self, left: Expression, right: Expression, sign: str) -> Truth:
        if not isinstance(right, Literal) or not isinstance(right.value, str):
            raise Unmapped("a pattern that is no literal string has no counterpart")
        if "[[:" in right.value or "$" in right.value.rstrip("$").replace("\\$", ""):
            raise Unmapped("this pattern holds what Python's patterns say otherwise: write it by hand")
        try:
            re.compile(right.value)
        except (re.error, RecursionError, OverflowError) as error:
            raise Unmapped(f"this is no pattern for Python: {error}") from error
        value = self.values.value(left)
        code = f"re.search({_raw(right.value)}, {value.text()}, re.IGNORECASE)"
        return Truth(code) if sign == "=~" else Truth(f"not {code}", NOT)

    def _methods(self, names: list[str]) -> Truth:
        if self.context.kind in ("branch_route", "failure_route", "onreply_route"):
            return _fixed("INVITE" in names)
        if "method" not in self.context.variables:
            raise Unmapped(f"a {self.context.kind} is about no method")
        seen = [name for name in names if name not in _NOT_SEEN] if self.context.kind == "route" else names
        if not seen:
            return _fixed(False)
        who = self.context.variables["method"].code
        if len(seen) == 1:
            return _comparison(who, "==", quoted(seen[0]))
        return _comparison(who, "in", f"({', '.join(quoted(name) for name in seen)})")

    # Functions

    def _function(self, call: Call) -> Truth:
        name, kind = call.name, self.context.kind
        acted = self.act(call)
        if acted is not None:
            return acted
        if name in _ALWAYS:
            value, why = _ALWAYS[name]
            self.report.itself(call.line, why)
            return _fixed(value)
        if name == "is_method":
            return self._is_method(call)
        if name in ("has_body", "has_body_part"):
            return self._has_body(call)
        if name in ("isflagset", "issflagset", "isbflagset"):
            return self._flag(call)
        if name in ("is_myself", "is_uri_host_local", "is_domain_local"):
            about = argument(call, 0) or "$rd"
            if kind == "route" and about in ("$rd", "$ru") and name != "is_domain_local":
                return Truth(f"{self.context.message}.is_for_us")
            raise Unmapped("which domains are ours is not configured; a request is for us by the address that it names")
        if name in ("is_present_hf", "is_header_present"):
            if not self.context.message:
                raise Unmapped(f"the headers of a {kind} are not read")
            where = "received" if kind == "onreply_route" else "headers"
            return _comparison(quoted(argument(call, 0)), "in", f"{self.context.message}.{where}")
        if name == "t_check_status":
            return self._status(argument(call, 0))
        if name in ("nat_uac_test", "client_nat_test"):
            return self._nat_test(call)
        if name in ("is_audio_on_hold",):
            raise Unmapped("calls are put on hold inside their dialog, which no route sees")
        raise Unmapped(f"{name}() has no counterpart")

    def _nat_test(self, call: Call) -> Truth:
        if self.context.kind != "route":
            raise Unmapped(f"a {self.context.kind} has no request whose sender could be behind NAT")
        asked = argument(call, 0)
        try:
            if call.name == "nat_uac_test":
                nat_tests([asked])
                return Truth(f"request.nat.test({int(asked) if asked.isdigit() else quoted(asked)})")
            return Truth(f"request.nat.test({int(from_client_nat_test(int(asked)))})")
        except ValueError as error:
            raise Unmapped(f"{call.name}(): {error}") from error

    def _is_method(self, call: Call) -> Truth:
        given = call.arguments[0] if call.arguments else None
        text = given.text if isinstance(given, Name) else argument(call, 0)
        names = [one.strip().upper() for one in text.split("|") if one.strip()]
        if not names or not all(re.fullmatch(r"[A-Z]+", one) for one in names):
            raise Unmapped("is_method() takes names of methods")
        gone = [one for one in names if one in _NOT_SEEN]
        if gone and self.context.kind == "route":
            self.report.itself(call.line, f"{', '.join(gone)}: served by the SBC itself, and no route sees it")
        return self._methods(names)

    def _has_body(self, call: Call) -> Truth:
        message = self.context.message
        if self.context.kind == "failure_route":
            self.report.assumed(call.line, "the INVITE is taken to have a body")
            return _fixed(True)
        if not message:
            raise Unmapped(f"a {self.context.kind} has no body")
        kind = argument(call, 0)
        if not kind:
            return Truth(f"{message}.body")
        if self.context.kind == "route":
            asked = f'(request.headers.get("Content-Type") or "").startswith({quoted(kind)})'
            return Truth(f"request.body and {asked}", AND)
        if kind == "application/sdp":
            return Truth(f'{message}.body.startswith(b"v=")')
        raise Unmapped("only the body of a request can be asked for its type")

    def _flag(self, call: Call) -> Truth:
        where = self.context.kept("flags")
        if call.name == "isbflagset" and self.context.kind == "branch_route":
            where = "branch.flags"
        if not where:
            raise Unmapped(f"a {self.context.kind} has no flags")
        return _comparison(quoted(flag(call)), "in", where)

    def _status(self, pattern: str) -> Truth:
        status = self.context.variables.get("$rs")
        if status is None:
            raise Unmapped(f"a {self.context.kind} has no status")
        codes = pattern.split("|")
        if all(re.fullmatch(r"[1-6]\d\d", code) for code in codes):
            if len(codes) == 1:
                return _comparison(status.code, "==", codes[0])
            return _comparison(status.code, "in", f"({', '.join(codes)})")
        return self._pattern(Variable("$rs", 0), Literal(pattern, 0), "=~")


def argument(call: Call, index: int) -> str:
    """One argument as text, '' where there is none or it is no literal."""
    given = call.arguments[index] if index < len(call.arguments) else None
    if isinstance(given, Literal):
        return str(given.value)
    if isinstance(given, Name | Address | Variable):
        return given.text
    return ""


def flag(call: Call) -> str:
    """The name of the flag that a function is about; those of branches are kept apart. Raises Unmapped."""
    given = [argument(call, index) for index in range(len(call.arguments)) if call.arguments[index] is not None]
    name = given[-1] if given else ""
    if not name or "$" in name:
        raise Unmapped("a flag is a name or a number")
    return f"branch-{name}" if "bflag" in call.name else name


def _method_name(left: Expression, right: Expression) -> str | None:
    """The method that a comparison asks for, None where it is about something else."""
    about = left.text if isinstance(left, Name | Variable) else ""
    if about not in ("method", "$rm"):
        return None
    text = right.text if isinstance(right, Name) else right.value if isinstance(right, Literal) else ""
    return text if isinstance(text, str) and re.fullmatch(r"[A-Z]+", text) else None


def _raw(pattern: str) -> str:
    """A pattern as a Python literal, raw where that is shorter."""
    if "\\" in pattern and '"' not in pattern and pattern.isprintable() and not pattern.endswith("\\"):
        return f'r"{pattern}"'
    return quoted(pattern)
