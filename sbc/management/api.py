"""What the control worker answers over its socket: the state of the node, and its calls, asked of the SIP workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from media.counters import GAUGES
from sbc import __version__
from sbc.management import rpc
from sbc.management.metrics import HUNG_AFTER_S, process_usage, split_name
from sbc.management.routes import RouteVersions
from sbc.management.slot import ControlSlot
from sbc.telemetry.counters import WORD_KIND, Counter, Kind
from sbc.telemetry.page import Page

DEADLINE_S = 1.0  # of one question to a SIP worker
MAX_CALLS = 10_000  # of one answer

Answer = dict[str, Any]  # Any: JSON values


class Api:
    """The methods by name. ``store``, ``cdr`` and ``certificates`` describe those for ``status``.

    A SIP worker must offer ``calls {limit, offset}`` -> ``{"total": n, "calls": [...]}``, ``call {key}`` -> an object
    or null, ``quality {key, samples}`` -> the same with media, or null, ``hangup {key, reason}`` -> true, or false
    where it does not own the call, ``registrations`` and ``media`` -> a list, ``media_drain {node, on}`` -> true, or
    false where there is no such media node, ``record {key, on, format}`` and ``play {key, leg, file}`` -> an
    object, with ``refused`` where that could not be, or null, so ``media_move {key, direct}``, with ``state``, and
    ``routes`` -> the version of the routes that it serves, and its calls by version, and ``troubles`` -> what ails its
    store and its spool of CDRs.
    """

    def __init__(
        self,
        slot: ControlSlot,
        store: Callable[[], Answer],
        cdr: Callable[[], Answer],
        certificates: Callable[[], list[Answer]],
    ) -> None:
        self._slot = slot
        self._store = store
        self._cdr = cdr
        self._certificates = certificates
        self._routes = RouteVersions(slot.config.state_dir, self._ask_all)

    def methods(self) -> dict[str, rpc.Method]:
        """For :func:`sbc.management.rpc.serve`."""
        return {
            "ping": lambda _: "pong",
            "which": lambda _: sorted(self.methods()),
            "status": self.status,
            "calls": self.calls,
            "call": self.call,
            "quality": self.quality,
            "hangup": self.hangup,
            "record": self.record,
            "play": self.play,
            "registrations": self.registrations,
            "media": self.media,
            "media_drain": self.media_drain,
            **self._routes.methods(),
            "media_move": self.media_move,
        }

    async def status(self, _params: rpc.Params) -> Answer:
        """Processes, totals over all SIP workers, levels over all media workers, store and CDRs."""
        pages = self._slot.pages
        sip = [page for page in pages.values() if page.words[WORD_KIND] == Kind.SIP]
        totals = {counter.name.lower(): sum(page.get(counter) for page in sip) for counter in Counter}
        cell = self._slot.cell
        store, spool = await self._troubles(sip)
        return {
            "node": self._slot.config.node,
            "version": __version__,
            **({} if cell is None else {"role": cell.role.name.lower()}),
            "processes": [_process(name, page) for name, page in pages.items() if not page.is_spare],
            "calls": {
                "active": totals["calls_active"],
                "started": totals["calls_started"],
                "answered": totals["calls_answered"],
                "failed": totals["calls_failed"],
            },
            "registrations": {
                "configured": totals["registrations"],
                "registered": totals["registrations_active"],
            },
            "media": {
                member.name.lower(): sum(page.words[member] for page in pages.values() if _is_media(page))
                for member in sorted(GAUGES)
            },
            "store": {**self._store(), **store},
            "cdr": {**self._cdr(), **spool},
            "certificates": self._certificates(),
            "totals": {name: value for name, value in totals.items() if value},
        }

    async def _troubles(self, sip: list[Page]) -> tuple[Answer, Answer]:
        """Why the store does not take what it is given, and the disk no CDRs, in the words of the workers."""
        if not any(page.get(Counter.CDR_SPOOL_DOWN) or page.get(Counter.STORE_REFUSES) for page in sip):
            return {}, {}
        answers, _ = await self._ask_all("troubles", {})
        store, spool = (
            "; ".join(f"{worker}: {told[name]}" for worker, told in answers if told.get(name))
            for name in ("store", "spool")
        )
        unsaved = sum(page.get(Counter.CDR_UNSAVED) for page in sip)
        return (
            {"state": "refuses", "error": store} if store else {},
            {"spool_error": spool, "kept_in_memory": unsaved} if spool else {},
        )

    async def calls(self, params: rpc.Params) -> Answer:
        """``{limit, offset}`` -> calls in the order of the workers, their total, and which worker did not answer."""
        limit = _count(params, "limit", 1000)
        offset = _count(params, "offset", 0)
        answers, silent = await self._ask_all("calls", {"limit": min(offset + limit, MAX_CALLS), "offset": 0})
        found: list[Answer] = []
        total = 0
        for worker, answer in answers:
            rows = answer.get("calls", []) if isinstance(answer, dict) else []
            total += int(answer.get("total", len(rows))) if isinstance(answer, dict) else 0
            found += [{**row, "worker": worker} for row in rows if isinstance(row, dict)]
        return {"calls": found[offset : offset + limit], "total": total, "offset": offset, "no_answer": silent}

    async def call(self, params: rpc.Params) -> Answer:
        """``{key}`` -> the call."""
        key = _key(params)
        answers, silent = await self._ask_all("call", {"key": key})
        for worker, answer in answers:
            if isinstance(answer, dict):
                return {**answer, "worker": worker}
        raise _no_call(key, silent)

    async def quality(self, params: rpc.Params) -> Answer:
        """``{key, samples}`` -> ``{call, media}``: a call by its key, a beginning of that, or a Call-ID, and how its
        streams go, by leg, with what was sampled in the last seconds."""
        key = _key(params)
        wanted = {"key": key, "samples": _count(params, "samples", 10)}
        answers, silent = await self._ask_all("quality", wanted)
        for worker, answer in answers:
            if isinstance(answer, dict):
                return {**answer, "worker": worker}
        raise _no_call(key, silent)

    async def hangup(self, params: rpc.Params) -> Answer:
        """``{key, reason}`` -> ends the call on both sides."""
        key = _key(params)
        reason = str(params.get("reason", "ended by the operator"))[:200]
        answers, silent = await self._ask_all("hangup", {"key": key, "reason": reason})
        for worker, answer in answers:
            if answer:
                return {"key": key, "worker": worker}
        raise _no_call(key, silent)

    async def record(self, params: rpc.Params) -> Answer:
        """``{key, on, format}`` -> the call is recorded from now on (``wav`` or ``pcap``), or no longer."""
        on, kind = params.get("on", True), params.get("format", "wav")
        if not isinstance(on, bool) or kind not in ("wav", "pcap"):
            raise rpc.RpcError(rpc.INVALID_PARAMS, "on must be true or false, format wav or pcap")
        return {"on": on, **await self._of_call("record", params, {"on": on, "format": kind})}

    async def play(self, params: rpc.Params) -> Answer:
        """``{key, leg, file}`` -> leg ``a`` or ``b`` hears a prompt once; without ``file`` its peer again."""
        leg, file = params.get("leg"), params.get("file", "")
        if not isinstance(leg, str) or not isinstance(file, str):
            raise rpc.RpcError(rpc.INVALID_PARAMS, "leg must name a leg of the call, file a prompt")
        return {"leg": leg, **await self._of_call("play", params, {"leg": leg, "file": file})}

    async def _of_call(self, method: str, params: rpc.Params, more: rpc.Params) -> Answer:
        """Ask the worker that has the call of ``params``; raises RpcError where there is none, or it refuses."""
        key = _key(params)
        answers, silent = await self._ask_all(method, {"key": key, **more})
        for worker, answer in answers:
            if not isinstance(answer, dict):
                continue
            if "refused" in answer:
                raise rpc.RpcError(rpc.REFUSED, str(answer["refused"]))
            return {"key": key, "worker": worker, **answer}
        raise _no_call(key, silent)

    async def registrations(self, _params: rpc.Params) -> Answer:
        """Where this node registers, by peer, and which worker did not answer."""
        answers, silent = await self._ask_all("registrations", {})
        found = [{**row, "worker": worker} for worker, rows in answers for row in rows]
        return {"registrations": sorted(found, key=lambda row: str(row["peer"])), "no_answer": silent}

    async def media(self, _params: rpc.Params) -> Answer:
        """Every media node as each SIP worker sees it, and which worker did not answer."""
        answers, silent = await self._ask_all("media", {})
        found = [{**row, "worker": worker} for worker, rows in answers for row in rows]
        return {"media": sorted(found, key=lambda row: str(row["node"])), "no_answer": silent}

    async def media_drain(self, params: rpc.Params) -> Answer:
        """``{node, on}`` -> a media node gets no new sessions, or gets them again; the present ones go on."""
        node, on = params.get("node"), params.get("on", True)
        if not isinstance(node, str) or not isinstance(on, bool):
            raise rpc.RpcError(rpc.INVALID_PARAMS, "node must name a media node, on must be true or false")
        answers, silent = await self._ask_all("media_drain", {"node": node, "on": on})
        if not any(known for _, known in answers):
            text = f"no media node {node!r}; sbc media list shows them"
            raise rpc.RpcError(rpc.UNAVAILABLE if silent else rpc.NOT_FOUND, text, {"no_answer": silent})
        return {"node": node, "draining": on, "no_answer": silent}

    async def media_move(self, params: rpc.Params) -> Answer:
        """``{key, direct}`` -> both sides of a call are asked to exchange media directly, or by the relay again."""
        key, direct = _key(params), params.get("direct")
        if not isinstance(direct, bool):
            raise rpc.RpcError(rpc.INVALID_PARAMS, "direct must be true or false")
        answers, silent = await self._ask_all("media_move", {"key": key, "direct": direct})
        for worker, answer in answers:
            if isinstance(answer, dict):
                if answer.get("state") == "refused":
                    raise rpc.RpcError(rpc.REFUSED, f"the media stay where they are: {answer.get('reason')}")
                return {**answer, "key": key, "worker": worker}
        raise _no_call(key, silent)

    async def _ask_all(self, method: str, params: rpc.Params) -> tuple[list[tuple[str, Any]], list[str]]:
        """(answers with their worker's name, names of the workers that gave none). Any: JSON values."""
        numbers = self._slot.sip_numbers()
        replies = await asyncio.gather(
            *(rpc.call(self._slot.sip_sockets[number], method, params, timeout_s=DEADLINE_S) for number in numbers),
            return_exceptions=True,
        )
        answers: list[tuple[str, Any]] = []  # Any: JSON values
        silent: list[str] = []
        for number, reply in zip(numbers, replies, strict=True):
            if isinstance(reply, rpc.RpcError):
                if reply.code != rpc.NOT_FOUND:
                    silent.append(f"sip {number}: {reply.message}")
            elif isinstance(reply, BaseException):
                raise reply
            else:
                answers.append((f"sip {number}", reply))
        return answers, silent


def _is_media(page: Page) -> bool:
    return not page.is_spare and page.words[WORD_KIND] == Kind.MEDIA


def _process(name: str, page: Page) -> Answer:
    age_s = (time.monotonic_ns() - page.beat_ns) / 1e9 if page.beat_ns else None
    usage = process_usage(page.pid) if page.pid else None
    if usage is None:
        state = "dead"
    elif not page.is_ready:
        state = "starting"
    elif age_s is None or age_s > HUNG_AFTER_S:
        state = "hung"
    elif page.is_leaving:
        state = "leaving"
    else:
        state = "ready"
    kind, slot = split_name(name)
    return {
        "name": name,
        "kind": kind,
        "slot": int(slot) if slot else None,
        "pid": page.pid,
        "state": state,
        "version": page.version,
        "uptime_s": round(max(0.0, time.time() - page.start_s), 1),
        "restarts": page.restarts,
        "cpu_s": round(usage[0], 2) if usage else None,
        "memory_bytes": usage[1] if usage else None,
    }


def _count(params: rpc.Params, name: str, default: int) -> int:
    value = params.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_CALLS:
        raise rpc.RpcError(rpc.INVALID_PARAMS, f"{name} must be a number from 0 to {MAX_CALLS}")
    return value


def _key(params: rpc.Params) -> str:
    key = params.get("key")
    if not isinstance(key, str) or not key:
        raise rpc.RpcError(rpc.INVALID_PARAMS, "key must name a call, as the list of calls shows it")
    return key


def _no_call(key: str, silent: list[str]) -> rpc.RpcError:
    if silent:
        return rpc.RpcError(rpc.UNAVAILABLE, f"no call {key!r} with the workers that answered", {"no_answer": silent})
    return rpc.RpcError(rpc.NOT_FOUND, f"no call {key!r}")
