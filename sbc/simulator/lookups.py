"""What look-ups come to in a dry run: what a script says, and nothing else unless real servers may be asked.

A script is a mapping from what is asked to the answer. What is asked is written as the trace writes it, ``*`` stands
for anything (``[`` and ``?`` for themselves), and the first that fits counts::

    "GET https://lcr.example/route?to=4930*": {carrier: carrier-b}   # 200 with that as JSON
    "GET https://lcr.example/*": 404                                # a status
    "POST https://lcr.example/*": timeout                           # no answer in time; away: the server is dead
    "redis rates GET blocked:*": "1"                                # what the store replies; a mapping for HGETALL
    "database crm SELECT * FROM numbers *": [{name: office}]        # rows; a number for statements that change some

An HTTP answer with both is ``{status: 409, json: …}`` or ``{status: 409, text: …}``. In Python an answer may also be a
function, which is given what is asked (:class:`~sbc.lookups.asking.HttpRequest` and its kin) and returns one of these.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import orjson

from sbc.lookups.asking import Asked, Asker, HttpAnswer, HttpRequest, RedisCommand, Row, Statement
from sbc.lookups.errors import LookupFailed, LookupTimeout, LookupUnknown, ServerAway
from sbc.simulator.trace import Trace, here

Script = Mapping[str, Any]  # Any: JSON values, or functions that return them

TIMEOUT: Final = "timeout"
AWAY: Final = "away"
DEFAULT_TIMEOUT_S: Final = 2.0
_MISSING: Final = object()
_FORM: Final = frozenset({"status", "json", "text", "headers"})


class ScriptedLookups:
    """:class:`sbc.lookups.asking.Asker` of a stage. ``asked`` has what routes asked since the run began, in order.

    ``real``, where given, makes what answers whatever no script does.
    """

    def __init__(self, trace: Trace, answers: Script, real: Callable[[], Asker] | None) -> None:
        self.asked: list[str] = []
        self.trial: Script = {}  # of one dry run, before the others
        self._own: dict[str, Any] = {}  # Any: see Script
        self._answers = answers
        self._trace = trace
        self._make = real
        self._real: Asker | None = None

    def answer(self, asked: str, answer: Any) -> None:  # Any: see Script
        """From now on this is answered so; what was said last for the same text counts."""
        self._own[asked] = answer

    def begin(self) -> None:
        """Another run begins."""
        self.asked = []

    def ask_no_more(self) -> None:
        """From now on only scripts answer."""
        self.close()
        self._make = None

    async def http(self, request: HttpRequest) -> HttpAnswer:
        """As in Asker."""
        found = await self._find(request, request.timeout_s)
        if found is _MISSING:
            return await self._ask_really().http(request)
        return _http(request, found)

    async def redis(self, command: RedisCommand) -> Any:  # Any: as in Asker
        """As in Asker."""
        found = await self._find(command, 0.0)
        return await self._ask_really().redis(command) if found is _MISSING else found

    async def database(self, statement: Statement) -> Sequence[Row] | int:
        """As in Asker."""
        found = await self._find(statement, statement.timeout_s)
        if found is _MISSING:
            return await self._ask_really().database(statement)
        if isinstance(found, Mapping):
            return [dict(found)]
        if isinstance(found, int) and not isinstance(found, bool):
            return found
        if isinstance(found, Sequence) and all(isinstance(row, Mapping) for row in found):
            return [dict(row) for row in found]
        raise LookupUnknown(f"the script answers {statement.text} with {found!r}: a list of rows or a number is wanted")

    def close(self) -> None:
        """As in Asker."""
        if self._real is not None:
            self._real.close()
            self._real = None

    def _ask_really(self) -> Asker:
        assert self._make is not None  # _find() has looked
        if self._real is None:
            self._real = self._make()
        return self._real

    def _said(self, asked: str) -> Any:  # Any: see Script
        for pattern, answer in self._all():
            if _pattern(pattern).fullmatch(asked):
                return answer
        return _MISSING

    def _all(self) -> Iterator[tuple[str, Any]]:  # Any: see Script
        for script in (dict(reversed(self._own.items())), self.trial, self._answers):
            yield from script.items()

    async def _find(self, asked: Asked, timeout_s: float) -> Any:  # Any: an answer, or _MISSING: really ask
        text = asked.text
        self.asked.append(text)
        answer = self._said(text)
        if answer is _MISSING:
            if self._make is not None:
                self._trace.add("lookup", f"Asks {text}.", here())
                return _MISSING
            self._trace.add(
                "lookup", f"Would ask {text}: nothing is asked in a dry run, and no script answers.", here()
            )
            raise ServerAway(text, "a dry run asks nobody: say under lookups.answers what is answered, or use --ask")
        if callable(answer):
            answer = answer(asked)
        self._trace.add("lookup", f"Asks {text}; the script answers {_shown(answer)}.", here())
        if answer == TIMEOUT:
            timeout_s = timeout_s or DEFAULT_TIMEOUT_S
            await asyncio.sleep(timeout_s)
            raise LookupTimeout(text, f"no answer within {timeout_s:g} s")
        if answer == AWAY:
            raise ServerAway(text, "the server has not answered for some time")
        return answer


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """``*`` stands for anything, everything else for itself; values of a statement need not be named."""
    return re.compile(".*".join(re.escape(part) for part in " ".join(text.split()).split("*")) + r"(?: \{.*\})?", re.S)


def _http(request: HttpRequest, answer: Any) -> HttpAnswer:  # Any: see Script
    headers: dict[str, str] = {}
    status, body = 200, answer
    if isinstance(answer, HttpAnswer):
        return answer
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 100 <= answer <= 599:
            raise LookupFailed(request.text, f"the script answers {answer}, which is no status of HTTP")
        status, body = answer, ""
    elif isinstance(answer, Mapping) and "status" in answer and answer.keys() <= _FORM:
        status = int(answer["status"])
        headers = {str(name).lower(): str(value) for name, value in dict(answer.get("headers", {})).items()}
        body = answer["json"] if "json" in answer else str(answer.get("text", ""))
    data = body.encode() if isinstance(body, str) else orjson.dumps(body)
    return HttpAnswer(request.text, status, headers, data)


def _shown(answer: Any) -> str:  # Any: see Script
    text = str(answer)
    return text if len(text) <= 120 else text[:117] + "…"
