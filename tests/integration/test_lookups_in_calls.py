"""Routes of a real worker that ask a real server: calls wait for theirs, nobody else waits, and a reload changes whom
they may ask."""

from __future__ import annotations

from pathlib import Path

from sbc.management import client
from tests.support.callers import Site, site
from tests.support.http_server import HttpServer
from tests.support.loopback import OUTSIDE, loopback
from tests.support.sbc import eventually

ROUTES = """\
from sbc.routing import LookupFailed, LookupUnknown, Node, Request, Routes

routes = Routes()


@routes.startup_route
async def start(node: Node) -> None:
    await node.redis("own").set("started", 1)


@routes.route
async def main(request: Request) -> None:
    call, number = request.call, request.called_number
    call.variables["times"] = await call.node.redis("own").incr("calls")
    try:
        if number.startswith("18"):  # hangs
            await call.node.http.get("{url}/slow", timeout_s=60)
        answer = await call.node.http.get("{url}/json", params={{"to": number}}, timeout_s=30)
        call.variables["found"] = answer.json()["path"]
    except LookupFailed:
        return await call.reject(480)
    except LookupUnknown:
        return await call.reject(404)
    await call.dial("pbx")
"""
LOOKUPS = "routes: mine.py\nlookups: {{ http: {{}}, redis: {{ own: {{ timeout_ms: 5000 }} }} }}\n"


def variables_of(at: Site, number: str) -> dict[str, object]:
    eventually(lambda: any(number in cdr["ruri"] for cdr in at.sbc.cdrs()), 15, f"the record of {number}")
    found = next(cdr for cdr in at.sbc.cdrs() if number in cdr["ruri"])
    return dict(found["variables"])


def test_calls_that_wait_for_a_server_hold_up_no_other(tmp_path: Path) -> None:
    server = HttpServer()
    directory = tmp_path / "sbc"
    directory.mkdir()
    (directory / "mine.py").write_text(ROUTES.format(url=server.url))
    try:
        with site(tmp_path, loopback(sip=1, more=LOOKUPS.format())) as at:
            net = at.net
            hanging = [at.caller.call((OUTSIDE, net.port), f"1800{n}") for n in range(4)]
            eventually(lambda: server.requests["/slow"] == 4, 15, "four look-ups that hang")
            pair = at.establish(1)[0]
            assert not any(call.asked["INVITE"].status >= 200 for call in hanging)
            at.end([pair])
            found = variables_of(at, pair.a.number)
            assert found["found"] == f"/json?to={pair.a.number}"
            server.let_go()
            # 480 where the server closed the connection in time, 500 where the budget of the route was over
            eventually(lambda: all(call.asked["INVITE"].status >= 480 for call in hanging), 30, "an end for the others")
            assert at.sbc.total("LOOKUPS") >= 10

            # A reload that takes HTTP away.
            path = directory / "sbc.yaml"
            path.write_text(path.read_text().replace("http: {}, ", ""))
            answer = client.ask(str(directory / "run" / "control.sock"), "routes_reload", {}, timeout_s=100)
            assert answer["ok"], answer
            eventually(lambda: at.sbc.total("RELOADS") >= 1, 15, "the worker to take it over")
            refused = at.caller.call((OUTSIDE, net.port), "10009")
            eventually(lambda: refused.asked["INVITE"].status == 404, 15, "a call whose look-up is not configured")
    finally:
        server.stop()
