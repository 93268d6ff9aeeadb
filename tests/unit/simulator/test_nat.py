"""A dry run says who is taken to be behind NAT, why, and where what is for him goes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from sbc.config.models import Config
from sbc.routing import Request, Routes
from sbc.simulator.stage import Stage
from tests.unit.simulator.world import GIVEN

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    if request.nat.test("contact-port"):
        request.nat.fix_contact()
    if request.makes_call:
        await request.call.dial("carrier-b")
    else:
        await request.relay("carrier-b")


def stage(nat: str = "auto") -> Stage:
    given: dict[str, Any] = deepcopy(GIVEN)
    for realm in given["realms"].values():
        realm["nat"] = nat
    return Stage(Config.model_validate(given), routes)


def told(run: Stage) -> list[str]:
    found = [step.text for step in run.trace.steps if step.kind == "nat"]
    run.close()
    return found


PRIVATE = "is taken to be behind NAT: its Contact 10.1.2.3 is private and it was seen at"


def test_of_a_called_side() -> None:
    run = stage()
    office, carrier = run.party("office"), run.party("carrier-b")
    office.calls("+4930123")
    carrier.gets("INVITE")
    carrier.answers(200, headers=[("Contact", "<sip:gw@10.1.2.3>")])
    office.gets(200)
    office.hangs_up()
    carrier.gets("BYE")
    run.is_over()
    assert told(run) == [f"carrier-b {PRIVATE} 203.0.113.77. What is for it goes to 203.0.113.77:5080."]


REGISTER = (
    "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK1;rport\r\nMax-Forwards: 70\r\n"
    "From: <sip:a@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: r\r\nCSeq: 1 REGISTER\r\n"
    "Contact: <sip:a@{contact}>\r\nContent-Length: 0\r\n\r\n"
)


@pytest.mark.parametrize(
    ("nat", "contact", "said"),
    [
        ("auto", "10.1.2.3:5060", [f"office {PRIVATE} 192.0.2.10. What is for it goes to 192.0.2.10:5060."]),
        ("auto", "192.0.2.10:5060", []),
        ("never", "10.1.2.3:5060", []),
        ("off", "10.1.2.3:5060", []),
        (
            "never",
            "192.0.2.10:5099",
            ["office is taken to be behind NAT: its route says so. What is for it goes to 192.0.2.10:5060."],
        ),
        (
            "always",
            "192.0.2.10:5060",
            ["office is taken to be behind NAT: its realm has nat: always. What is for it goes to 192.0.2.10:5060."],
        ),
    ],
)
def test_of_a_phone_that_registers(nat: str, contact: str, said: list[str]) -> None:
    run = stage(nat)
    office = run.party("office")
    office.sends_as_it_is(REGISTER.format(via="192.0.2.10", contact=contact).encode())
    run.party("carrier-b").gets("REGISTER")
    assert told(run) == said
