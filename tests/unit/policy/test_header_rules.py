"""What each verb of a header rule does, when a rule is for a message, and how long the worst of them takes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sbc.config.expression import Expression
from sbc.config.header_rules import HeaderRule
from sbc.policy.draft import Draft, elements
from sbc.policy.header_rules import Context, HeaderRules, Refusal
from sbc.sip.message import Message

INVITE = """\
INVITE sip:+4930123@192.0.2.1 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK1
Max-Forwards: 70
f: "Alice" <sip:+4989111@192.0.2.10:5070;x=y>;tag=a
To: <sip:+4930123@192.0.2.1>
Call-ID: c1
CSeq: 1 INVITE
Contact: <sip:alice@192.0.2.10>
X-Account: 42
X-Trace: abc
s: hello
P-Asserted-Identity: "A, B" <sip:+4989111@192.0.2.10>, <tel:+4989111>
Content-Length: 0

"""
RINGING = """\
SIP/2.0 180 Ringing
Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1
From: <sip:1@192.0.2.1>;tag=a
To: <sip:2@192.0.2.1>;tag=b
Call-ID: c1
CSeq: 1 INVITE
Server: Switch/3
Content-Length: 0

"""


def draft_of(text: str = INVITE) -> Draft:
    return Draft(Message.parse(text.replace("\n", "\r\n").encode()))


def rules(*given: dict[str, Any]) -> HeaderRules:  # Any: what the YAML would hold
    return HeaderRules(["mine"], {"mine": [HeaderRule.model_validate(one) for one in given]})


def done(*actions: dict[str, Any], text: str = INVITE, **context: Any) -> Message:  # Any: as above
    """The message after these actions."""
    draft = draft_of(text)
    assert (
        rules({"when": {"message": "any"}, "do": list(actions)} if text is RINGING else {"do": list(actions)}).apply(
            draft, Context("from_phones", **context)
        )
        is None
    )
    return Message.parse(draft.octets())


@pytest.mark.parametrize(
    ("action", "header", "values"),
    [
        ({"set": "X-Account", "to": "7"}, "X-Account", ["7"]),
        ({"set": "x-new", "to": "a ${X-Account} b"}, "X-New", ["a 42 b"]),
        ({"set": "p-charging-vector", "to": "icid-value=1"}, "P-Charging-Vector", ["icid-value=1"]),
        ({"set": "X-New", "to": "${X-Missing}"}, "X-New", []),
        ({"add": "X-Account", "to": "7"}, "X-Account", ["42", "7"]),
        ({"remove": "X-Account"}, "X-Account", []),
        ({"remove": "X-Account", "matches": "^4"}, "X-Account", []),
        ({"remove": "X-Account", "matches": "^5"}, "X-Account", ["42"]),
        ({"remove": "X-*"}, "X-Trace", []),
        ({"remove": "Subject"}, "Subject", []),
        ({"replace": "Subject", "matches": "l(.)", "to": r"<\1${method}>"}, "Subject", ["he<lINVITE>o"]),
        ({"replace": "Subject", "matches": "l", "to": "\\\\"}, "Subject", ["he\\\\o"]),
        ({"rename": "X-Account", "to": "P-Account"}, "P-Account", ["42"]),
        ({"set": "From.host", "to": "example.com"}, "From", ["Alice <sip:+4989111@example.com:5070;x=y>;tag=a"]),
        ({"set": "From.user", "to": "anonymous"}, "From", ["Alice <sip:anonymous@192.0.2.10:5070;x=y>;tag=a"]),
        ({"set": "From.display", "to": 'B "C"'}, "From", ['"B \\"C\\"" <sip:+4989111@192.0.2.10:5070;x=y>;tag=a']),
        (
            {"set": "From.uri", "to": "sip:anonymous@anonymous.invalid"},
            "From",
            ["Alice <sip:anonymous@anonymous.invalid>;tag=a"],
        ),
        ({"set": "From.uri", "to": "no uri"}, "From", ['"Alice" <sip:+4989111@192.0.2.10:5070;x=y>;tag=a']),
        ({"set": "From.user", "to": "a@b;tag=c"}, "From", ['"Alice" <sip:+4989111@192.0.2.10:5070;x=y>;tag=a']),
        (
            {"replace": "P-Asserted-Identity.user", "matches": r"^\+49", "to": "0"},
            "P-Asserted-Identity",
            ['"A, B" <sip:089111@192.0.2.10>', "<tel:089111>"],
        ),
        (
            {"set": "P-Asserted-Identity.host", "to": "h.example"},
            "P-Asserted-Identity",
            ['"A, B" <sip:+4989111@h.example>', "<tel:+4989111>"],
        ),
        ({"set": "Subject", "to": "${peer}/${realm}"}, "Subject", ["office/inside"]),
        ({"set": "Subject", "to": "${limit}"}, "Subject", ["5"]),
        ({"set": "Subject", "to": "${broken}"}, "Subject", ["hello"]),
    ],
)
def test_a_verb(action: dict[str, Any], header: str, values: list[str]) -> None:
    known = {"peer": "office", "realm": "inside"}
    msg = done(action, known=known, variables={"limit": 5, "broken": "a\r\nVia: x"})
    assert msg.get_all(header) == values
    assert [name for name, _ in msg.items()][:7] == ["Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq", "Contact"]


def test_the_request_uri() -> None:
    assert done({"replace": "Request-URI.user", "matches": r"^\+49", "to": "0"}).uri == "sip:030123@192.0.2.1"
    assert done({"set": "Request-URI", "to": "sip:1@h;user=phone"}).uri == "sip:1@h;user=phone"
    assert done({"set": "Request-URI", "to": "sip:1@h SIP/2.0"}).uri == "sip:+4930123@192.0.2.1"


def test_what_is_stored_serves_the_next_action_and_the_call() -> None:
    draft, context = draft_of(), Context("")
    rules(
        {"do": [{"store": "From.user", "as": "caller"}, {"store": "X-Trace", "matches": "a(b)", "as": "bit"}]},
        {"do": [{"set": "Subject", "to": "${caller} ${bit}"}, {"store": "X-Missing", "as": "missing"}]},
    ).apply(draft, context)
    assert draft.lines("subject") == ["+4989111 b"]
    assert context.stored == {"caller": "+4989111", "bit": "b"}


@pytest.mark.parametrize(
    ("when", "applies"),
    [
        ({}, True),
        ({"message": "reply"}, False),
        ({"methods": ["INVITE", "BYE"]}, True),
        ({"methods": "BYE"}, False),
        ({"dialog": "outside"}, True),
        ({"dialog": "inside"}, False),
        ({"direction": "from_phones"}, True),
        ({"direction": ["from_core"]}, False),
        ({"caller": r"^\+4989"}, True),
        ({"caller": "^0"}, False),
        ({"called": r"^\+4930"}, True),
        ({"headers": [{"header": "X-Account"}]}, True),
        ({"headers": [{"header": "X-Account", "matches": "^4.$"}, {"header": "X-Other", "absent": True}]}, True),
        ({"headers": [{"header": "X-Account", "matches": "^5"}]}, False),
        ({"headers": [{"header": "X-Account", "absent": True}]}, False),
        ({"headers": [{"header": "From.host", "matches": r"^192\.0\.2\."}]}, True),
    ],
)
def test_when(when: dict[str, Any], applies: bool) -> None:
    draft = draft_of()
    rules({"when": when, "do": [{"remove": "Subject"}]}).apply(draft, Context("from_phones"))
    assert draft.changed is applies


@pytest.mark.parametrize(
    ("status", "applies"), [("180", True), ("1xx", True), (["181-199", 180], True), ("2xx", False)]
)
def test_the_status_of_a_reply(status: object, applies: bool) -> None:
    draft = draft_of(RINGING)
    rules({"when": {"message": "reply", "status": status}, "do": [{"remove": "Server"}]}).apply(draft, Context(""))
    assert draft.changed is applies
    assert draft.octets().startswith(b"SIP/2.0 180 Ringing\r\n")


def test_a_refusal_ends_it_and_leaves_bye_alone() -> None:
    given = rules({"do": [{"reject": 403, "reason": "No"}]}, {"do": [{"remove": "Subject"}]})
    draft = draft_of()
    assert given.apply(draft, Context("")) == Refusal(403, "No")
    assert not draft.changed
    bye = draft_of(INVITE.replace("INVITE", "BYE"))
    assert given.apply(bye, Context("")) is None


def test_each_change_is_told_with_its_place() -> None:
    heard: list[tuple[str, str]] = []
    rule = HeaderRule.model_validate({"name": "tidy", "do": [{"set": "From.host", "to": "h"}, {"remove": "X-*"}]})
    rule._place = "sbc.yaml:7"
    HeaderRules(["a"], {"a": [rule]}).apply(draft_of(), Context("", told=lambda *said: heard.append(said)))
    assert heard == [
        ("Rule tidy: From.host: 192.0.2.10 → h.", "sbc.yaml:7"),
        ("Rule tidy: removes X-Account: 42, X-Trace: abc.", "sbc.yaml:7"),
    ]


def test_octets_that_are_no_text_pass_and_match_nothing() -> None:
    raw = INVITE.replace("\n", "\r\n").encode().replace(b"hello", b"h\xffllo")
    draft = Draft(Message.parse(raw))
    rules({"do": [{"replace": "Subject", "matches": "l+", "to": "L"}]}).apply(draft, Context(""))
    assert b"Subject: h\xffLo\r\n" in draft.octets()
    assert Expression("^h.l").search("h\udcffl") is None


def test_a_value_grows_to_a_limit() -> None:
    draft, context = draft_of(), Context("")
    actions = [{"set": "X-Long", "to": "y" * 4000}, {"set": "X-More", "to": "${X-Long}${X-Long}"}]
    rules({"do": actions}).apply(draft, context)
    assert draft.lines("x-more") == []
    assert context.faults == 1


def test_the_worst_expression_is_linear() -> None:
    """Nested repetition takes a backtracking engine longer than the age of the world for these."""
    text = "a" * 30_000 + "!"
    expression = Expression("^(a+)+$")
    began = time.perf_counter()
    assert expression.search(text) is None
    assert time.perf_counter() - began < 5


def test_elements_of_a_list() -> None:
    assert elements("diversion", '"a, \\" b" <sip:1@h,x>;a="1,2", <sip:2@h>') == [
        '"a, \\" b" <sip:1@h,x>;a="1,2"',
        "<sip:2@h>",
    ]
    assert elements("subject", "a, b") == ["a, b"]
