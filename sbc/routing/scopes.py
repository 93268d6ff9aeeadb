"""Flags and variables of a call, which live as long as it does, in the journal too; and of a transaction that is over.

What cannot go into the journal is refused where it is assigned. A change in an answered call is written at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, MutableSet
from math import isfinite
from typing import Any, Final, NoReturn

import orjson

from sbc.b2bua import subjects
from sbc.b2bua.scope import Scope
from sbc.b2bua.tables import CallState
from sbc.routing.node import Node
from sbc.routing.routes import RouteError

FLAGS_MAX: Final = 1024
NAME_MAX: Final = 256
VARIABLES_MAX_BYTES: Final = 65_536  # of all variables of a call as JSON; a record of the journal has a limit
DEPTH_MAX: Final = 32
_ANSWERED: Final = (CallState.ANSWERED, CallState.UP)


class Variables(MutableMapping[str, Any]):  # Any: JSON values of the author's choice
    """The variables of a call. Raises RouteError for what is no JSON value, or too much."""

    __slots__ = ("_call", "_node")

    def __init__(self, node: Node, call: subjects.Call) -> None:
        self._node = node
        self._call = call

    def __getitem__(self, name: str) -> Any:  # Any: as above
        return self._call.variables[name]

    def __setitem__(self, name: str, value: Any) -> None:  # Any: as above
        if not isinstance(name, str):
            raise RouteError(f"call.variables[{name!r}]: the name of a variable is text")
        check(value, f"call.variables[{name!r}]")
        if len(orjson.dumps({**self._call.variables, name: value}, default=_text)) > VARIABLES_MAX_BYTES:
            raise RouteError(
                f"call.variables[{name!r}]: all variables of a call have {VARIABLES_MAX_BYTES} octets at most"
            )
        self._call.variables[name] = value
        _changed(self._node, self._call)

    def __delitem__(self, name: str) -> None:
        del self._call.variables[name]
        _changed(self._node, self._call)

    def __iter__(self) -> Iterator[str]:
        return iter(self._call.variables)

    def __len__(self) -> int:
        return len(self._call.variables)

    def __repr__(self) -> str:
        return repr(self._call.variables)


class Flags(MutableSet[str]):
    """The flags of a call. Raises RouteError for what is no name."""

    __slots__ = ("_call", "_node")

    def __init__(self, node: Node, call: subjects.Call) -> None:
        self._node = node
        self._call = call

    def __contains__(self, name: object) -> bool:
        return name in self._call.flags

    def __iter__(self) -> Iterator[str]:
        return iter(self._call.flags)

    def __len__(self) -> int:
        return len(self._call.flags)

    def __repr__(self) -> str:
        return repr(self._call.flags)

    @classmethod
    def _from_iterable(cls, names: Iterable[str]) -> set[str]:  # type: ignore[override]  # what | & - ^ make is a set
        return set(names)

    def add(self, name: str) -> None:
        """Set it."""
        if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX or not name.isprintable():
            raise RouteError(f"call.flags.add({name!r}): a flag is a name of up to {NAME_MAX} printable characters")
        if len(self) >= FLAGS_MAX and name not in self:
            raise RouteError(f"call.flags.add({name!r}): a call has {FLAGS_MAX} flags at most")
        self._call.flags.add(name)
        _changed(self._node, self._call)

    def discard(self, name: str) -> None:
        """Take it away, where it is set."""
        self._call.flags.discard(name)
        _changed(self._node, self._call)

    def update(self, *names: Iterable[str]) -> None:
        """Set all of them."""
        for some in names:
            for name in some:
                self.add(name)


class _Over(Scope):
    """Of an INVITE that has its final answer: empty, and nothing can be kept in it."""

    __slots__ = ()

    def __init__(self) -> None:
        self.flags = _NoFlags()
        self.variables = _NoVariables()


def _over(*_: object, **__: object) -> NoReturn:
    raise RouteError(
        "the INVITE has its final answer, and its transaction is over: keep it in call.variables or call.flags"
    )


class _NoFlags(set[str]):
    add = update = __ior__ = __ixor__ = _over


class _NoVariables(dict[str, Any]):  # Any: there is none
    __setitem__ = setdefault = update = __ior__ = _over


OVER: Final = _Over()


def transaction_of(call: subjects.Call) -> Scope:
    """What is kept until the INVITE has its final answer."""
    if call.state >= CallState.ANSWERED:
        return OVER
    if call.transaction is None:
        call.transaction = Scope()
    return call.transaction


def check(value: Any, where: str, depth: int = 0) -> None:  # Any: what is to be looked at
    """Raises RouteError unless it is a JSON value: it would not survive the death of a worker."""
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return
    if isinstance(value, float) and isfinite(value):
        return
    if depth < DEPTH_MAX:
        if isinstance(value, list | tuple):
            for number, item in enumerate(value):
                check(item, f"{where}[{number}]", depth + 1)
            return
        if isinstance(value, dict):
            for name, item in value.items():
                if not isinstance(name, str):
                    raise RouteError(f"{where}: the names in a JSON object are texts, and {name!r} is none")
                check(item, f"{where}[{name!r}]", depth + 1)
            return
    what = f"{value!r}" if isinstance(value, int | float) else f"{type(value).__name__}"
    raise RouteError(
        f"{where} = {what}: not a JSON value (text, number, truth value, None, list, or dict of such), "
        "so it could not be kept with the call"
    )


def _text(value: Any) -> str:  # Any: what a list held that was changed after it was assigned
    return str(value)


def _changed(node: Node, call: subjects.Call) -> None:
    if call.state in _ANSWERED:
        node.core.requests.core.keep(call, node.clock.monotonic())
