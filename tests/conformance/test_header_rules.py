"""Header rules on both legs: requests and replies, in and out of dialogs, and what they leave as it was."""

from __future__ import annotations

from typing import Any

from sbc.b2bua.effects import RouteKind
from sbc.config.header_rules import HeaderRule
from sbc.policy.header_rules import HeaderRules
from sbc.policy.wire import WirePolicy
from sbc.sip.message import Message
from tests.conformance.test_subscriptions import relay_b
from tests.support.ladder import A_HOST, OUR_A, OUR_B, Ladder, sdp

Rules = list[dict[str, Any]]  # Any: what the YAML would hold


def policy(inbound: Rules = [], outbound: Rules = []) -> WirePolicy:  # noqa: B006  # never changed
    lists = {
        "in": [HeaderRule.model_validate(rule) for rule in inbound],
        "out": [HeaderRule.model_validate(rule) for rule in outbound],
    }
    return WirePolicy(HeaderRules(["in"], lists), HeaderRules(["out"], lists))


def ladder(**policies: WirePolicy) -> Ladder:
    return Ladder(requests=relay_b, wire={name.replace("_", "-"): one for name, one in policies.items()})


def invited(f: Ladder, *extra: tuple[str, str]) -> Message:
    f.a.request("INVITE", body=sdp(A_HOST), extra=extra)
    f.a.expect(100)
    return f.b.expect("INVITE")


def answered(f: Ladder, *extra: tuple[str, str]) -> Message:
    f.b.reply(200, body=sdp("198.51.100.20"), extra=extra)
    ok = f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    return ok


def test_a_request_changes_where_it_comes_in_and_where_it_leaves() -> None:
    f = ladder(
        phones=policy(
            [{"do": [{"replace": "Request-URI.user", "matches": r"^\+49", "to": "0"}, {"set": "Subject", "to": "in"}]}]
        ),
        carrier_b=policy(
            outbound=[
                {
                    "do": [
                        {"set": "P-Charging-Vector", "to": "icid-value=${call}"},
                        {"set": "Subject", "to": "${Subject} out"},
                    ]
                }
            ]
        ),
    )
    invite = invited(f)
    assert f.call.ruri == f"sip:030123@{OUR_A}"
    assert invite.get("P-Charging-Vector") == f"icid-value={f.call.key}"
    assert invite.get("Subject") == "in out"


def test_a_reply_changes_on_both_sides() -> None:
    f = ladder(
        phones=policy(
            outbound=[
                {"when": {"message": "reply", "status": "2xx"}, "do": [{"add": "X-Seen", "to": "${status} ${method}"}]}
            ]
        ),
        carrier_b=policy([{"when": {"message": "reply"}, "do": [{"rename": "X-Tone", "to": "Subject"}]}]),
    )
    invited(f)
    f.b.reply(180, extra=[("X-Tone", "busy")])
    ringing = f.a.expect(180)
    assert ringing.get("Subject") == "busy"
    assert ringing.get("X-Seen") is None
    assert answered(f).get("X-Seen") == "200 INVITE"


def test_the_sender_hears_of_what_it_sent() -> None:
    """RFC 3261 §8.2.6.2, §12.2.1.1: From and To of answers, and of our requests to A, are A's own."""
    change = [
        {"set": "From.host", "to": "inside.example"},
        {"set": "From.user", "to": "42"},
        {"set": "To.user", "to": "9"},
    ]
    f = ladder(phones=policy([{"do": change}]))
    invite = invited(f)
    assert invite.from_().uri.user == "42"
    assert f.call.from_uri == "sip:42@inside.example"
    ok = answered(f)
    assert ok.from_().uri.user == "alice"
    assert ok.from_().uri.host == A_HOST
    assert ok.to().uri.user == "+4930123"
    f.b.request("BYE")
    bye = f.a.expect("BYE")
    assert (bye.to().uri.user, bye.to().uri.host) == ("alice", A_HOST)


def test_a_changed_from_is_that_of_the_dialog() -> None:
    rules: Rules = [
        {"do": [{"set": "From.host", "to": "carrier.example"}, {"replace": "From.user", "matches": "^", "to": "00"}]}
    ]
    f = ladder(carrier_b=policy(outbound=rules))
    invite = invited(f)
    assert invite.from_().uri.user == "00alice"
    answered(f)
    f.a.request("BYE")
    bye = f.b.expect("BYE")
    assert str(bye.from_()) == str(invite.from_())


def test_a_cancel_has_the_from_of_its_invite() -> None:
    f = ladder(carrier_b=policy(outbound=[{"do": [{"set": "From.host", "to": "carrier.example"}]}]))
    invite = invited(f)
    f.b.reply(180)
    f.a.expect(180)
    f.a.cancel()
    assert f.b.expect("CANCEL").get("From") == invite.get("From")


def test_what_comes_again_is_the_same_again() -> None:
    f = ladder(carrier_b=policy(outbound=[{"do": [{"add": "X-Once", "to": "1"}]}]))
    invite = invited(f)
    f.after(0.6)
    again = f.b.expect("INVITE")
    assert again.raw == invite.raw


def test_inside_a_dialog() -> None:
    f = ladder(
        phones=policy(
            [
                {
                    "when": {"dialog": "inside", "methods": ["INFO"]},
                    "do": [{"set": "Subject", "to": "x"}, {"set": "From.host", "to": "no"}],
                }
            ]
        ),
        carrier_b=policy(
            [{"when": {"message": "reply", "methods": "INFO"}, "do": [{"set": "Subject", "to": "y"}]}],
            [{"when": {"dialog": "inside"}, "do": [{"set": "Priority", "to": "urgent"}]}],
        ),
    )
    assert invited(f).get("Priority") is None
    answered(f)
    f.a.request("INFO", body=b"x", content_type="text/plain")
    info = f.b.expect("INFO")
    assert (info.get("Subject"), info.get("Priority"), info.body) == ("x", "urgent", b"x")
    f.b.reply(200, to=info)
    assert f.a.expect(200).get("Subject") == "y"
    f.a.request("BYE")
    assert f.b.expect("BYE").get("Priority") == "urgent"


def test_a_value_travels_from_one_side_to_the_other() -> None:
    """By a variable of the call, which routes see as well."""
    f = ladder(
        phones=policy([{"do": [{"store": "X-Account", "as": "account"}]}]),
        carrier_b=policy(outbound=[{"do": [{"set": "P-Account", "to": "${account}"}]}]),
    )
    assert invited(f, ("X-Account", "42")).get("P-Account") == "42"
    assert f.call.variables == {"account": "42"}
    answered(f)
    f.a.request("INFO", extra=[("X-Account", "43")])
    assert f.b.expect("INFO").get("P-Account") == "43"


def test_a_refused_request() -> None:
    rules: Rules = [{"when": {"caller": "^alice$"}, "do": [{"reject": 433, "reason": "Say who you are"}]}]
    f = ladder(phones=policy(rules))
    f.a.request("INVITE", body=sdp(A_HOST))
    refused = f.a.expect(433)
    assert refused.reason == "Say who you are"
    assert f.counts["HEADER_RULES_REFUSED"] == 1
    assert not f.core.calls
    f.a.again()
    f.a.expect(433)


def test_a_branch_route_comes_first() -> None:
    f = Ladder(
        wire={"carrier-b": policy(outbound=[{"do": [{"set": "Subject", "to": "${Subject}, rule"}]}])},
        routes=frozenset({RouteKind.REQUEST, RouteKind.BRANCH}),
        hooks={RouteKind.BRANCH.value: lambda _, branch: branch.headers.append(("Subject", "route"))},
    )
    assert invited(f).get("Subject") == "route, rule"


def test_what_could_not_be_sent_stays_as_it_was() -> None:
    f = ladder(phones=policy([{"do": [{"set": "Request-URI.host", "to": "[bad"}, {"set": "Subject", "to": "s"}]}]))
    assert invited(f).get("Subject") == "s"
    assert f.call.ruri == f"sip:+4930123@{OUR_A}"


def test_protected_headers_stay_whatever_is_removed() -> None:
    f = ladder(carrier_b=policy(outbound=[{"do": [{"remove": "C*"}, {"remove": "M*"}, {"remove": "A*"}]}]))
    invite = invited(f)
    assert invite.get("Contact")
    assert invite.get("Allow")
    assert invite.get("Max-Forwards") == "69"
    assert invite.get("Content-Type") == "application/sdp"


def test_a_request_outside_a_dialog() -> None:
    f = ladder(
        phones=policy([{"when": {"methods": ["MESSAGE"]}, "do": [{"set": "Subject", "to": "s"}]}]),
        carrier_b=policy(
            [{"when": {"message": "reply"}, "do": [{"set": "Subject", "to": "r"}]}],
            [{"do": [{"set": "To.host", "to": "far.example"}, {"set": "From.display", "to": ""}]}],
        ),
    )
    f.a.request("MESSAGE", body=b"hi", content_type="text/plain")
    got = f.b.expect("MESSAGE")
    assert got.get("Subject") == "s"
    assert got.to().uri.host == "far.example"
    assert (got.get("From") or "").startswith(f"<sip:alice@{OUR_B}>")
    f.b.reply(200, to=got)
    assert f.a.expect(200).get("Subject") == "r"


def test_nobody_pays_who_has_no_rules() -> None:
    f = Ladder()
    assert f.core.wire is None
    assert f.core.layer.dress is None
