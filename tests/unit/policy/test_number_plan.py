"""Numbers as peers write them, as E.164, and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbc.config.number_plans import NumberPlan
from sbc.policy.draft import Draft
from sbc.policy.header_rules import HeaderRules
from sbc.policy.number_plan import Numbers
from sbc.policy.wire import WirePolicy
from sbc.sip.message import Message
from tests.conformance.test_subscriptions import relay_b
from tests.support.ladder import A_HOST, B_HOST, OUR_A, OUR_B, Ladder, sdp

BERLIN: dict[str, Any] = {"country": "49", "area": "30"}  # Any: what the YAML would hold
NEW_YORK: dict[str, Any] = {"country": "1", "area": "", "international": "011", "national": "1"}


def numbers(**keys: Any) -> Numbers:  # Any: as above
    return Numbers("plan", NumberPlan(**keys))


@pytest.mark.parametrize(
    ("plan", "written", "meant"),
    [
        (BERLIN, "+4930123456", "+4930123456"),
        (BERLIN, "+49 30", "+49 30"),
        (BERLIN, "004930123456", "+4930123456"),
        (BERLIN, "030123456", "+4930123456"),
        (BERLIN, "(030)123-456", "+4930123456"),
        (BERLIN, "1234567", "+49301234567"),
        (BERLIN, "112", "112"),
        (BERLIN, "116117", "116117"),
        (BERLIN, "alice", "alice"),
        (BERLIN, "*100#", "*100#"),
        (BERLIN, "00", "00"),
        (BERLIN, "00049301234", "00049301234"),
        (BERLIN, "+0301234567", "+0301234567"),
        (BERLIN, "0" * 40, "0" * 40),
        (BERLIN | {"keep": ["0800123456"]}, "0800123456", "0800123456"),
        (BERLIN | {"area": None}, "1234567", "1234567"),
        (BERLIN | {"plus": False}, "4930123456", "+4930123456"),
        (BERLIN | {"short_digits": 3}, "1234", "+49301234"),
        (NEW_YORK, "2125551234", "+12125551234"),
        (NEW_YORK, "12125551234", "+12125551234"),
        (NEW_YORK, "0114930123456", "+4930123456"),
        (NEW_YORK, "911", "911"),
    ],
)
def test_inbound(plan: dict[str, Any], written: str, meant: str) -> None:
    assert numbers(**plan).inbound(written) == meant


@pytest.mark.parametrize(
    ("plan", "towards", "home", "abroad"),
    [
        (BERLIN, "e164", "+4930123456", "+33123456789"),
        (BERLIN | {"plus": False}, "e164", "4930123456", "33123456789"),
        (BERLIN, "national", "030123456", "0033123456789"),
        (BERLIN, "international", "004930123456", "0033123456789"),
        (BERLIN, "as_is", "+4930123456", "+33123456789"),
        (BERLIN | {"international": ""}, "national", "030123456", "+33123456789"),
        # A plan under which "03…" would be read as something else says it in full
        (BERLIN | {"international": "03"}, "national", "+4930123456", "0333123456789"),
    ],
)
def test_outbound(plan: dict[str, Any], towards: str, home: str, abroad: str) -> None:
    there = numbers(**plan, towards=towards)
    assert (there.outbound("+4930123456"), there.outbound("+33123456789")) == (home, abroad)
    assert there.outbound("112") == "112"
    assert there.outbound("alice") == "alice"


prefixes = st.text("0123456789", max_size=3)
plans: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    country=st.from_regex(r"[1-9][0-9]{0,2}", fullmatch=True),
    area=st.none() | prefixes,
    international=st.text("0123456789", min_size=1, max_size=3),
    national=prefixes,
    towards=st.sampled_from(["e164", "national", "international", "as_is"]),
    plus=st.booleans(),
    short_digits=st.integers(0, 10),
)


@settings(max_examples=300, deadline=None)
@given(plans, plans, st.text("0123456789+", max_size=18) | st.text(max_size=8))
def test_what_was_understood_stays_understood(a: dict[str, Any], b: dict[str, Any], text: str) -> None:
    here, there = numbers(**a), numbers(**b)
    meant = here.inbound(text)
    assert here.inbound(meant) == meant or not meant.startswith("+")
    for plan in (here, there):
        if meant.startswith("+"):
            assert plan.inbound(plan.outbound(meant)) == meant
        else:
            assert plan.outbound(meant) == meant


def draft(*headers: str, method: str = "INVITE", uri: str = "sip:030123456@h") -> Draft:
    head = [f"{method} {uri} SIP/2.0", "Via: SIP/2.0/UDP h;branch=z9hG4bK1", "Call-ID: c", f"CSeq: 1 {method}"]
    return Draft(Message.parse("\r\n".join([*head, *headers, "Content-Length: 0", "", ""]).encode()))


def test_every_header_that_names_a_number() -> None:
    d = draft(
        'From: "0301" <sip:030111111@h;x=y>;tag=030222222',
        "To: <sip:030123456;phone-context=+49@h;user=phone>",
        "P-Asserted-Identity: <sip:030111111@h>, <tel:030111111;phone-context=+49>",
        "P-Preferred-Identity: <sip:030111111@h>",
        "Remote-Party-ID: <sip:%2B4930111111@h>;party=calling;privacy=full",
        "Diversion: <sip:(030)11-1111@h;user=phone>;reason=no-answer, <sip:alice@h>",
        "History-Info: <sip:030111111@h?Reason=SIP%3Bcause%3D302>;index=1",
        "Refer-To: <sip:030111111@h?Replaces=030222222%3Bto-tag%3D1>",
        "Referred-By: <sip:112@h>",
        "Privacy: id",
        "Subject: 030111111",
    )
    heard: list[str] = []
    numbers(**BERLIN).arriving(d, True, lambda text, where: heard.append(text))
    assert d.uri == "sip:+4930123456@h"
    assert d.lines("from") == ["0301 <sip:+4930111111@h;x=y>;tag=030222222"]
    assert d.lines("to") == ["<sip:+4930123456@h;user=phone>"]
    assert d.lines("p-asserted-identity") == ["<sip:+4930111111@h>, <tel:+4930111111>"]
    assert d.lines("p-preferred-identity") == ["<sip:+4930111111@h>"]
    assert d.lines("remote-party-id") == ["<sip:%2B4930111111@h>;party=calling;privacy=full"]
    assert d.lines("diversion") == ["<sip:+4930111111@h;user=phone>;reason=no-answer, <sip:alice@h>"]
    assert d.lines("history-info") == ["<sip:+4930111111@h?Reason=SIP%3Bcause%3D302>;index=1"]
    assert d.lines("refer-to") == ["<sip:+4930111111@h?Replaces=030222222%3Bto-tag%3D1>"]
    assert d.lines("referred-by") == ["<sip:112@h>"]
    assert d.lines("privacy") == ["id"]
    assert d.lines("subject") == ["030111111"]
    assert heard[0] == "Number plan plan: Request-URI: sip:030123456@h → sip:+4930123456@h."
    assert "Number plan plan: From: 030111111 → +4930111111." in heard


def test_a_record_is_no_number() -> None:
    d = draft("From: <sip:030111111@h>;tag=1", "To: <sip:030111111@h>", method="REGISTER")
    numbers(**BERLIN).arriving(d, True, None)
    assert not d.changed


def test_a_call_between_two_ways_of_writing() -> None:
    none = HeaderRules([], {})
    f = Ladder(
        requests=relay_b,
        wire={
            "phones": WirePolicy(none, none, numbers(**BERLIN)),
            "carrier-b": WirePolicy(none, none, numbers(country="49", towards="international")),
        },
    )
    f.a.request(
        "INVITE",
        body=sdp(A_HOST),
        uri=f"sip:0891234567@{OUR_A}",
        extra=[("P-Asserted-Identity", f"<sip:7654321@{A_HOST}>")],
    )
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    assert f.call.ruri == f"sip:+49891234567@{OUR_A}"
    assert invite.uri == f"sip:004930123@{B_HOST}:5070"  # TARGET_B, as its route dialled it
    assert invite.to().uri.user == "004930123"
    f.b.reply(200, body=sdp(B_HOST), extra=[("P-Asserted-Identity", f"<sip:00498977777@{B_HOST}>")])
    ok = f.a.expect(200)
    assert ok.to().uri.user == "+4930123"  # as A wrote it
    f.a.ack()
    f.b.expect("ACK")
    f.a.request("BYE")
    assert f.b.expect("BYE").get("To") == f"<sip:004930123@{B_HOST}>;tag=tag-of-b"


def test_a_message_outside_a_dialog() -> None:
    none = HeaderRules([], {})
    there = numbers(country="49", towards="national", short_digits=3)
    f = Ladder(requests=relay_b, wire={"carrier-b": WirePolicy(none, none, there)})
    f.a.request("MESSAGE", body=b"x", content_type="text/plain")
    got = f.b.expect("MESSAGE")
    assert got.uri == f"sip:030123@{B_HOST}:5070"
    assert got.from_().uri.host == OUR_B
