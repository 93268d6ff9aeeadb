"""Row C1: the wall clock of a node jumps and drifts, and a SIP worker dies afterwards."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sbc.selftest.agents import Agent, Asked, UaCall
from sbc.selftest.measure import Measures
from sbc.selftest.node import CALLER, CORE, OUTSIDE, wait
from sbc.selftest.row import Row
from sbc.selftest.site import Call, Setup, Site
from sbc.selftest.wall_clock import compiler

JUMPS_S = (3600.0, -3600.0)
DRIFT_S, STEPS = 60.0, 20
NOTICED_S = 2.5  # whatever looks once a second has looked
PHONES = 8
REALM, PASSWORD = "selftest", "a word of the kit's"
FORGOT = "the store lost what it held: all live calls are written again"
ROUTES = f"""\
from sbc.routing import Request, Routes
from sbc.routing.builtin import hunt, main

routes = Routes()
routes.failure_route(hunt)


@routes.route
async def who_registers(request: Request) -> None:
    if request.method == "REGISTER" and not await request.authenticate({REALM!r}, lambda user: {PASSWORD!r}):
        return
    await main(request)
"""
_CHALLENGE = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


@dataclass(slots=True)
class Phone:
    """A phone that has registered, or is about to: what it was challenged with, and how often it has answered that."""

    dialog: UaCall
    nonce: str = ""
    count: int = 0


class Phones(Agent):
    """Phones at one address, each of which registers and answers a challenge by MD5 (RFC 7616 §3.4)."""

    def phone(self, server: tuple[str, int], number: int) -> Phone:
        asked_for = f"<sip:phone{number}@{server[0]}>"
        dialog = UaCall(
            f"phone{number}.{id(self)}@{self.host}", f"{asked_for};tag={number}t{id(self)}", remote=asked_for
        )
        dialog.target, dialog.far = f"sip:{server[0]}", server
        return Phone(dialog)

    def register(self, phone: Phone) -> Asked:
        """A REGISTER with the nonce that the phone knows; its final answer."""
        dialog, extra = phone.dialog, ["Expires: 300"]
        with self._lock:
            dialog.cseq += 1
            if phone.nonce:
                phone.count += 1
                extra.append(f"Authorization: {_credentials(phone)}")
            asked = self._ask(dialog, "REGISTER", extra=extra)
        wait(lambda: asked.status != 0, 35, "an answer to REGISTER")
        if asked.status == 401 and asked.reply is not None:
            values = asked.reply.headers.get("www-authenticate", [])
            found = [{m[1]: m[2] or m[3] or "" for m in _CHALLENGE.finditer(value)} for value in values]
            phone.nonce = next(one["nonce"] for one in found if one.get("algorithm", "MD5").upper() == "MD5")
            phone.count = 0
        return asked


def _credentials(phone: Phone) -> str:
    user = phone.dialog.local.partition("sip:")[2].partition("@")[0]
    count, mine = f"{phone.count:08x}", "c1"

    def md5(*parts: str) -> str:
        return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()

    secret, request = md5(user, REALM, PASSWORD), md5("REGISTER", phone.dialog.target)
    response = md5(secret, phone.nonce, count, mine, "auth", request)
    return (
        f'Digest username="{user}", realm="{REALM}", nonce="{phone.nonce}", uri="{phone.dialog.target}", '
        f'response="{response}", algorithm=MD5, qop=auth, nc={count}, cnonce="{mine}"'
    )


def clock_jumps(site: Site, measures: Measures) -> None:
    """Of all processes of the node, the store included: an hour ahead, two back, then slowly on."""
    clock, node = site.clock, site.node
    assert clock is not None
    routes = node.folder / "routes.py"
    routes.write_text(ROUTES)
    node.config.write_text(f"{node.text}routes: {routes}\n")
    node.start()
    with Phones(CALLER) as phones:
        known = [phones.phone((OUTSIDE, node.port), number) for number in range(PHONES)]
        _register(phones, known, measures, challenged=PHONES, when="before the clock is set")
        calls = site.establish(site.calls)
        answered = {call.a.call_id: _answered_at(call) for call in calls}
        site.control(calls, measures)
        fault_at = time.time()
        for jump_s in JUMPS_S:
            clock.set(jump_s)
            time.sleep(NOTICED_S)
            _all_is_well(site, calls, measures)
            _register(phones, known, measures, challenged=0, when=f"after a jump to {jump_s:+.0f} s")
            site.end(site.establish(2, talk=False), measures, max_s=1.0)
        measures.expect(bool(node.logged(FORGOT)), "the store did not notice that its clock was an hour ahead")
        for step in range(STEPS):
            clock.set(JUMPS_S[-1] + DRIFT_S * (step + 1) / STEPS)
            time.sleep(NOTICED_S / STEPS)
        _all_is_well(site, calls, measures)
        clock.set(JUMPS_S[0])  # after the records were written by which a successor goes
        died = node.kill("sip 0")
        node.back("sip 0", died)
        site.heard_again(calls, time.time(), 5)
        site.measure_gap(calls, fault_at, measures, max_s=0.15)
        _all_is_well(site, calls, measures)
        _reached(site, phones, measures)
        _register(phones, known, measures, challenged=None, when="after a worker's death")
    site.end(calls, measures, what="BYE answered after a worker's death", max_s=1.0)
    site.settled(measures)
    told = {cdr["a_call_id"]: float(cdr["duration_s"] or 0) for cdr in node.cdrs()}
    errors = [abs(told[name] - (_ended_at(call) - answered[name])) for call in calls if (name := call.a.call_id)]
    measures.add("error of the duration in records", errors, max_s=1.0)


def _all_is_well(site: Site, calls: Sequence[Call], measures: Measures) -> None:
    """All calls are there, and are when something is asked in them."""
    measures.expect(len(site.node.calls()) == len(calls), f"{len(calls)} calls were up, {len(site.node.calls())} are")
    asked = [site.caller.modify(call.a, "sendrecv") for call in calls]
    wait(lambda: all(one.status for one in asked), 35, "answers to re-INVITE")
    refused = Counter(one.status for one in asked if one.status != 200)
    measures.expect(not refused, f"of {len(asked)} re-INVITEs these were refused: {dict(refused)}")


def _register(phones: Phones, known: Sequence[Phone], measures: Measures, *, challenged: int | None, when: str) -> None:
    """Each registers with the nonce that it has; ``challenged`` of them, or some, are given another one."""
    found = 0
    for phone in known:
        asked = phones.register(phone)
        if asked.status == 401:
            found += 1
            asked = phones.register(phone)
        measures.expect(asked.status == 200, f"a REGISTER {when} was answered with {asked.status}")
    if challenged is None:
        measures.note(
            f"run {measures.runs}: {found} of {len(known)} phones got a new nonce {when}, as theirs died with it"
        )
        measures.expect(found < len(known), f"all phones were challenged {when}, those of the other worker as well")
    else:
        measures.expect(found == challenged, f"{found} of {len(known)} phones were challenged {when}, not {challenged}")


def _reached(site: Site, phones: Phones, measures: Measures) -> None:
    """A call to a phone comes up, by what its registrar was told first of all."""
    user = site.callee.registered[0].partition("sip:")[2].partition("@")[0]
    call = site.callee.call((CORE, site.node.core_port), user)
    wait(lambda: call.asked["INVITE"].status != 0, 35, "an answer to a call to a registered phone")
    measures.expect(call.up, f"a call to a phone that had registered was answered with {call.asked['INVITE'].status}")
    if call.up:
        site.expect_records([call])
        ended = site.callee.hang_up(call)
        wait(lambda: ended.status != 0, 35, "an answer to its BYE")
        wait(lambda: all(one.ended_by_far for one in phones.all_calls()), 10, "its BYE at the phone")


def _answered_at(call: Call) -> float:
    """When the caller had its answer, by the monotonic clock."""
    invite = call.a.asked["INVITE"]
    return invite.sent_at + invite.took_s


def _ended_at(call: Call) -> float:
    """When one side sent its BYE."""
    return next(side.asked["BYE"].sent_at for side in (call.a, call.b) if "BYE" in side.asked)


def needs_compiler() -> None:
    compiler()


ROWS = (
    Row(
        "C1",
        "the wall clock jumps by an hour, both ways, and drifts; then a SIP worker is killed",
        "no call ends or stalls, before or after; registrations and nonces stay good; records are right to 1 s",
        clock_jumps,
        Setup(clock=True, no_node=True),
        limit_s=120.0,
        check=needs_compiler,
    ),
)
