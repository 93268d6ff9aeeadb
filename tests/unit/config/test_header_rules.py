"""Faults of header rules: each with its place and its exact words."""
# ruff: noqa: E501  # sentences are compared whole

from __future__ import annotations

import pytest

from sbc.config import loader
from sbc.config.models import Config

HEAD = """\
realms:
  core:
    listen: [udp:127.0.0.1:5060]
    media: { address: 127.0.0.1, ports: 30000-30999 }
    header_rules: { in: tidy }
peers:
  core-a: { realm: core, addresses: [10.0.0.1], header_rules: { out: [OUT] } }
header_rules:
  tidy:
"""


def checked(rule: str, out: str = "tidy") -> tuple[Config | None, list[str]]:
    config, found = loader.check_text(HEAD.replace("OUT", out) + f"    - {rule}\n", "/etc/sbc/sbc.yaml")
    return config, [str(fault).removeprefix("/etc/sbc/sbc.yaml:") for fault in found]


def test_rules_know_where_they_stand() -> None:
    config, faults = checked("{ do: [{ remove: X-* }] }")
    assert faults == []
    assert config is not None
    assert config.header_rules["tidy"][0].place == "/etc/sbc/sbc.yaml:10"


@pytest.mark.parametrize(
    "header",
    [
        "Via",
        "Route",
        "Record-Route",
        "Call-ID",
        "i",
        "CSeq",
        "Max-Forwards",
        "Contact",
        "Content-Length",
        "Content-Type",
        "Session-Expires",
        "Require",
        "RAck",
        "Authorization",
    ],
)
def test_protected_headers(header: str) -> None:
    _, faults = checked(f'{{ do: [{{ set: {header}, to: "x" }}] }}')
    assert faults == [
        f"10:14: header_rules.tidy.0.do.0: {header} belongs to the transaction, the dialog or the body: no rule may change it"
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            "{ do: [{ remove: From }] }",
            "10:14: header_rules.tidy.0.do.0: From as a whole belongs to the dialog: change From.user, From.host, From.display or From.uri",
        ),
        (
            "{ do: [{ remove: To.user }] }",
            "10:14: header_rules.tidy.0.do.0: To.user cannot be removed, only set or replaced",
        ),
        (
            "{ do: [{ rename: X-A, to: Via }] }",
            "10:14: header_rules.tidy.0.do.0: Via belongs to the transaction, the dialog or the body: no rule may change it",
        ),
        (
            "{ do: [{ remove: '*' }] }",
            "10:14: header_rules.tidy.0.do.0: '*' is no beginning of header names, such as X-*",
        ),
        (
            "{ do: [{ replace: Subject, matches: '(a', to: x }] }",
            "10:14: header_rules.tidy.0.do.0: '(a' is no regular expression of RE2: missing ): (a",
        ),
        (
            "{ do: [{ replace: Subject, matches: 'a(?=b)', to: x }] }",
            "10:14: header_rules.tidy.0.do.0: 'a(?=b)' is no regular expression of RE2: invalid perl operator: (?=",
        ),
        (
            "{ do: [{ replace: Subject, matches: 'a', to: '\\1' }] }",
            "10:14: header_rules.tidy.0.do.0: \\1: 'a' has 0 groups",
        ),
        ("{ do: [{ set: Subject }] }", "10:14: header_rules.tidy.0.do.0: set takes 'to' as well"),
        (
            "{ do: [{ set: Subject, to: x, matches: y }] }",
            "10:14: header_rules.tidy.0.do.0: set does not take 'matches'",
        ),
        (
            "{ do: [{ set: A, add: B, to: x }] }",
            "10:14: header_rules.tidy.0.do.0: an action has one verb (set, add, remove, replace, rename, store, reject), not set and add",
        ),
        (
            '{ do: [{ set: A, to: "x\\r\\nVia: y" }] }',
            "10:14: header_rules.tidy.0.do.0: a value with a line end or NUL could smuggle in another header",
        ),
        ("{ do: [{ set: A, to: '${Foo' }] }", "10:14: header_rules.tidy.0.do.0: '${Foo' has a ${ that is not closed"),
        (
            "{ do: [{ set: A, to: '${fooBar}' }] }",
            "10:14: header_rules.tidy.0.do.0: ${fooBar} is neither a variable (small letters, digits and _) nor a header (a capital letter first)",
        ),
        (
            "{ do: [{ store: A, as: call }] }",
            "10:14: header_rules.tidy.0.do.0: 'call' is no name for a variable: small letters, digits and _",
        ),
        (
            "{ when: { message: reply }, do: [{ set: From.host, to: x }] }",
            "10:7: header_rules.tidy.0: From.host: only requests bear that, so the rule must be for them (message: request)",
        ),
        (
            "{ when: { methods: ACK }, do: [{ remove: A }] }",
            "10:26: header_rules.tidy.0.when.methods: ACK belongs to an INVITE and is not touched by rules",
        ),
        (
            "{ when: { status: 503 }, do: [{ remove: A }] }",
            "10:15: header_rules.tidy.0.when: status is of replies: add message: reply",
        ),
        (
            "{ when: { message: reply, status: 700 }, do: [{ remove: A }] }",
            "10:41: header_rules.tidy.0.when.status: '700' is neither a status such as 503, nor 5xx or 500-599",
        ),
        (
            "{ when: { methods: BYE }, do: [{ reject: 403 }] }",
            "10:7: header_rules.tidy.0: BYE and PRACK are never refused: they would leave a call half open",
        ),
        (
            "{ do: [{ delete: A }] }",
            "10:16: header_rules.tidy.0.do.0.delete: unknown key; the keys here are set, add, remove, replace, rename, store, reject, to, matches, as, reason",
        ),
        (
            "{ do: [{ reject: 403 }] }",
            "7:71: peers.core-a.header_rules.out.0: tidy has a rule with reject (/etc/sbc/sbc.yaml:10), which is for messages that come in: name it under 'in'",
        ),
        (
            "{ do: [{ set: Request-URI.user, to: '1' }] }",
            "7:71: peers.core-a.header_rules.out.0: tidy has a rule with Request-URI (/etc/sbc/sbc.yaml:10), which is for messages that come in: name it under 'in'",
        ),
    ],
)
def test_a_fault(rule: str, said: str) -> None:
    _, faults = checked(rule)
    assert said in faults


def test_names_that_lead_nowhere() -> None:
    _, faults = checked("{ do: [{ remove: A }] }", "tidi")
    assert faults == ["7:71: peers.core-a.header_rules.out.0: no header_rules are called 'tidi', did you mean 'tidy'?"]
    text = HEAD.replace("OUT", "tidy") + "    - { do: [{ remove: A }] }\n  spare:\n    - { do: [{ remove: A }] }\n"
    _, found = loader.check_text(text, "f")
    assert [str(one) for one in found] == ["f:11:3: header_rules.spare: no realm or peer names these rules"]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("{ country: '49' }", ""),
        ("{ country: 49 }", "12:22: number_plans.berlin.country: should be text: put '49' in quotes"),
        ("{ country: '0' }", "12:11: number_plans.berlin: country: '0' is no country code, such as \"49\""),
        ("{ country: '49', national: x }", "12:38: number_plans.berlin.national: 'x' should be digits only"),
        (
            "{ country: '49', international: '', towards: international }",
            "12:11: number_plans.berlin: towards: international takes the prefix that such numbers have: international",
        ),
    ],
)
def test_number_plans(plan: str, said: str) -> None:
    text = HEAD.replace("OUT", "tidy").replace("header_rules: { in: tidy }", "number_plan: berlin")
    text += "    - { do: [{ remove: A }] }\nnumber_plans:\n  berlin: " + plan + "\n"
    _, found = loader.check_text(text, "f")
    assert [str(one).removeprefix("f:") for one in found] == ([said] if said else [])


def test_a_plan_that_nobody_has_configured() -> None:
    text = HEAD.replace("OUT", "tidy").replace("header_rules: { in: tidy }", "number_plan: berlim")
    text += "    - { do: [{ remove: A }] }\nnumber_plans:\n  berlin: { country: '49' }\n"
    _, found = loader.check_text(text, "f")
    assert [str(one) for one in found] == [
        "f:5:18: realms.core.number_plan: no number_plans are called 'berlim', did you mean 'berlin'?",
        "f:12:3: number_plans.berlin: no realm or peer names this plan",
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{ '503': 500, 4xx: { status: 480, cause: 20 } }", ""),
        ("{ '401': 403 }", "401 asks something of the caller, or is its own doing: it is told as it is"),
        ("{ '302': 480 }", "302: only refusals (400 to 699) are told otherwise"),
        ("{ '503': 407 }", "407 asks something of the caller that only we can know: it is never told instead"),
        ("{ '503': 200 }", "should be at least 400, not '200'"),
        ("{ no: 500 }", "'no' is neither a status such as 503, nor 5xx or 500-599"),
    ],
)
def test_reply_codes(table: str, said: str) -> None:
    text = HEAD.replace("OUT", "tidy").replace("header_rules: { in: tidy }", "reply_codes: { in: table }")
    text += "    - { do: [{ remove: A }] }\nreply_codes:\n  table: " + table + "\n"
    _, found = loader.check_text(text, "f")
    assert [fault.message for fault in found] == ([said] if said else [])


def test_failover_and_tables_that_lead_nowhere() -> None:
    text = HEAD.replace("OUT", "tidy").replace("header_rules: { in: tidy }", "reply_codes: { out: table }")
    text += "    - { do: [{ remove: A }] }\n"
    _, found = loader.check_text(text, "f")
    assert [str(fault) for fault in found] == ["f:5:25: realms.core.reply_codes.out: no reply_codes are called 'table'"]
    _, found = loader.check_text(text.replace("[10.0.0.1],", "[10.0.0.1], failover_on: 6xx,"), "f")
    assert [str(fault) for fault in found] == [
        "f:7:62: peers.core-a.failover_on: only 400 to 599 let another target be tried: a 6xx is final (RFC 3261 §16.7)"
    ]
