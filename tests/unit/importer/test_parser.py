"""Scripts that cannot be read say where and why, and those that can are read whole."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sbc.config.loader import check_text
from sbc.importer.opensips import import_opensips
from sbc.importer.parser import parse
from sbc.importer.tokens import InputFault
from sbc.importer.tree import Assign, Binary, Call, Do, If, Leave, Literal, Loop, Not, Variable


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("route {\n  exit;\n", "x.cfg:3:1: a '}' is missing: the file ends within a block"),
        ("route {\n  exit\n  drop;\n}", "x.cfg:3:3: ';' is expected after the statement of line 2, not 'drop'"),
        ('route {\n  xlog("abc);\n}\n', "x.cfg:2:8: this string has no end: its closing quote is missing"),
        ("/* nothing", "x.cfg:1:1: this comment has no end: '*/' is missing"),
        ("debug 3\n", "x.cfg:1:7: '=' is expected after 'debug'"),
        ("route { if src_ip == 1.2.3.4 exit; }", "x.cfg:1:12: '(' is expected after 'if', not 'src_ip'"),
        ("route { $du; }", "x.cfg:1:12: '=' is expected after '$du', not ';'"),
        ("route { else { exit; } }", "x.cfg:1:9: 'else' belongs to nothing here"),
        ("route { $ = 1; }", "x.cfg:1:9: '$' is not followed by the name of a variable"),
        ("route { exit; }\nroute { exit; }", "x.cfg:2:1: route is there already, on line 1"),
        ("route { if (" + "(" * 100 + "1))) exit; }", "x.cfg:1:72: more than 60 blocks or parentheses"),
        ("route { if (1" + " or 1" * 300 + ") exit; }", "x.cfg:1:1020: more than 200 values are joined here"),
        ("route { if (1) exit;" + " else if (1) exit;" * 300 + " }", "x.cfg:1:3609: more than 200 conditions"),
        ("modparam('tm', 'x')", "x.cfg:1:19: ',' is expected after the name of the parameter, not ')'"),
        ("route { `id` }", "x.cfg:1:9: '`' begins nothing that a script may hold"),
        ("route { strip(99999999999999999999); }", "x.cfg:1:15: a number of more than 18 digits"),
    ],
)
def test_a_fault_has_its_place_and_a_sentence(text: str, fault: str) -> None:
    with pytest.raises(InputFault) as raised:
        parse(text, "x.cfg")
    assert str(raised.value).startswith(fault)


def test_all_nine_kinds_of_route_are_read_with_their_names() -> None:
    kinds = ["route", "branch_route", "failure_route", "onreply_route", "error_route", "local_route", "startup_route"]
    text = "".join(f"{kind} {{ }}\n" for kind in kinds) + "route[10] { }\nroute[to-core] { }\nfailure_route[a] { }\n"
    script = parse(text + "timer_route[gc, 30] { }\nevent_route[E_X] { }", "x.cfg")
    assert [(one.kind, one.name, one.parameter) for one in script.blocks] == [
        *((kind, "", "") for kind in kinds),
        ("route", "10", ""),
        ("route", "to-core", ""),
        ("failure_route", "a", ""),
        ("timer_route", "gc", "30"),
        ("event_route", "E_X", ""),
    ]


def test_parameters_are_read_as_they_are_written() -> None:
    text = (
        'log_level=3 # much\nlisten=udp:10.0.0.1:5060 as 1.2.3.4 use_workers 2 // here\nserver_header="Server: a # b"\n'
    )
    script = parse(text + 'loadmodule "/usr/lib/tm.so"\nmodparam("tm", "fr_timeout", -5)\n', "x.cfg")
    assert [(one.name, one.value) for one in script.settings] == [
        ("log_level", "3"),
        ("listen", "udp:10.0.0.1:5060 as 1.2.3.4 use_workers 2"),
        ("server_header", "Server: a # b"),
    ]
    assert [one.name for one in script.modules] == ["tm"]
    assert [(one.module, one.name, one.value) for one in script.parameters] == [("tm", "fr_timeout", "-5")]
    assert script.comments == {1: "much", 2: "here"}


def test_a_long_chain_of_conditions_is_read_and_mapped() -> None:
    chain = " else ".join(f"if (src_ip == 10.0.{n}.1) {{ setflag({n}); }}" for n in range(190))
    made = import_opensips(f"listen=udp:10.9.9.9:5060\nroute {{ {chain} }}", "x.cfg")
    assert made.routes.count("elif ") == 189
    assert made.report.complete


def test_statements_have_the_shape_of_the_language() -> None:
    text = (
        'route {\n if (!a("x") and $rU == "1" || b()) exit; else if (c()) { return(-1); }\n $var(x) = $(rU{s.len});\n }'
    )
    first, second = parse(text, "x.cfg").blocks[0].body
    assert isinstance(first, If)
    condition = first.condition
    assert isinstance(condition, Binary)
    assert condition.sign == "or"
    assert condition.right == Call("b", (), 2)
    assert isinstance(condition.left, Binary)
    assert condition.left.sign == "and"
    assert condition.left.left == Not(Call("a", (Literal("x", 2),), 2), 2)
    assert first.then == (Leave("exit", None, 2),)
    assert isinstance(first.otherwise[0], If)
    assert first.otherwise[0].then == (Leave("return", Literal(-1, 2), 2),)
    assert second == Assign(Variable("$var(x)", 3), "=", Variable("$(rU{s.len})", 3), 3)


def test_loops_are_read_over() -> None:
    text = 'route { while ($var(i) < (3)) { exit; } switch ($rU) { case "1": exit; break; default: drop; } f(); }'
    body = parse(text, "x.cfg").blocks[0].body
    assert [type(one) for one in body] == [Loop, Loop, Do]


WORDS = st.sampled_from(
    [
        *(
            "route",
            "failure_route",
            "[",
            "]",
            "{",
            "}",
            "(",
            ")",
            ";",
            ",",
            "if",
            "else",
            "exit",
            "return",
            "drop",
            "!",
        ),
        *("and", "or", "==", "!=", "=~", "<", "=", "$ru", "$rU", "$du", "$var(x)", "$(rU{s.len})", "src_ip", "method"),
        *("10.0.0.1", "10.0.0.0/8", "[2001:db8::1]", '"sip:10.0.0.9:5060"', '"INVITE"', "INVITE", "1", "0", "-", "+"),
        *(
            "xlog",
            "t_relay",
            "has_totag",
            "is_method",
            "setflag",
            "isflagset",
            "t_on_failure",
            "fix_nated_sdp",
            "strip",
        ),
        *("listen=udp:10.0.0.1:5060\n", "log_level=3\n", 'loadmodule "tm.so"\n', "# from_x\n", "\n", "'", '"', "NULL"),
        *(
            "send_reply",
            "rewritehost",
            "append_hf",
            '"A: b"',
            '"$fu {"',
            "nat_uac_test",
            "while",
            "switch",
            "case",
            ":",
        ),
        *("import_file", "modparam", "alias", "myself", "\\", "é", "\udcff", "\x00", "timer_route", "onreply_route"),
    ]
)


@given(st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=60).map(" ".join)))
@example("route { if (src_ip == myself) { route(10); } }\nroute[10] { route(10); }")
@example('listen=udp:10.0.0.1:5060\nroute { $ru = "x"; if ($avp(a) > "b") t_relay(); }')
@example("route { return(1); exit; }")
def test_any_text_gives_a_report_or_a_fault(text: str) -> None:
    """Never a traceback; what is made is Python, and a configuration without faults but the missing routes file."""
    try:
        made = import_opensips(text, "x.cfg")
    except InputFault:
        return
    compile(made.routes, "routes.py", "exec")
    _, faults = check_text(made.config, "x.yaml")
    assert [fault for fault in faults if fault.path != "routes"] == []
    assert made.report.text()


def _within(statement: str) -> str:
    head = f"listen=udp:10.0.0.1:5060\nroute {{\n{statement}\n}}\n"
    return head + f"route[r] {{ {statement} }}\nfailure_route[f] {{ {statement} }}"


STATEMENTS = st.lists(
    st.sampled_from(
        [
            *("exit;", "drop;", "return(1);", "return;", "route(r);", "t_relay();", 't_on_failure("f");', "strip(1);"),
            *(
                '$du = "sip:10.0.0.9";',
                '$rU = "1" + $rU;',
                "$var(x) = $var(x) + 1;",
                '$avp(y) = "a$fU";',
                "setflag(3);",
            ),
            *("if (isflagset(3)) {", "if (!route(r)) {", "if (src_ip == 10.0.0.7 || src_ip == 10.0.0.8) {", "} else {"),
            *("if (has_totag()) {", 'if (is_method("INVITE|ACK") and $rs == 3) {', "}", "if (ds_select_dst(1)) {"),
            *('if ($rU =~ "^0[1-9]$") {', 'xlog("L_INFO", "$fu $hdr(X-Y) $$");', 'append_hf("X: $rU\\r\\n");', "f();"),
            *(
                'sl_send_reply("404", "No");',
                'fix_nated_sdp("11", "192.0.2.1");',
                "rtpproxy_engage();",
                "while (1) { }",
            ),
        ]
    ),
    max_size=14,
)


@given(STATEMENTS)
@example(["if (isflagset(3)) {", "} else {", "exit;", "}"])
@example(["if (has_totag()) {", "exit;", "} else {", "f();", "}"])
def test_any_order_of_statements_makes_python(parts: list[str]) -> None:
    """Braces that do not fit are faults; all else compiles."""
    try:
        made = import_opensips(_within("\n".join(parts)), "x.cfg")
    except InputFault:
        return
    compile(made.routes, "routes.py", "exec")
