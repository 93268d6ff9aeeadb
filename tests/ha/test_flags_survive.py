"""Flags and variables of a call outlive its worker, those of the request and those that were set later."""

from __future__ import annotations

from pathlib import Path

from tests.support.callers import site
from tests.support.loopback import loopback
from tests.support.sbc import eventually

ROUTES = """\
import os

from sbc.routing import Node, Request, Routes

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    call = request.call
    call.flags.add("from the request")
    call.variables["pid"] = os.getpid()
    call.transaction.flags.add("gone")
    await call.dial("pbx")


@routes.timer_route(every_s=0.2)
async def look(node: Node) -> None:
    for call in node.calls():
        if call.variables["pid"] == os.getpid():
            if "later" not in call.flags:
                call.flags.add("later")
                call.variables["later"] = {"n": 7}
        else:
            kept = sorted(call.flags), call.variables["later"]["n"], sorted(call.transaction.flags)
            await call.release(f"kept {kept}")
"""


def test_flags_outlive_kill_9_of_the_worker(tmp_path: Path) -> None:
    directory = tmp_path / "sbc"
    directory.mkdir()
    (directory / "mine.py").write_text(ROUTES)
    with site(tmp_path, loopback(sip=1, more="routes: mine.py\n")) as at:
        pair = at.establish(1)[0]
        # the answer, its ACK, and what the timer route has set
        eventually(lambda: at.sbc.total("JOURNAL_SAVED") >= 3, 15, "three records written")
        at.sbc.respawned("sip 0", at.sbc.kill("sip 0"))
        eventually(lambda: pair.a.ended_by_far and pair.b.ended_by_far, 30, "a BYE on both sides")
        eventually(lambda: bool(at.sbc.cdrs()), 15, "its record")
        [cdr] = at.sbc.cdrs()
        assert cdr["note"] == "kept (['from the request', 'later'], 7, [])"
        assert cdr["variables"]["later"] == {"n": 7}
