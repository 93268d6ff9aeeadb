"""Each construct of a script, and the Python that it becomes."""

from __future__ import annotations

import pytest

from sbc.importer.opensips import Imported, import_opensips
from sbc.importer.report import Outcome

HEAD = "listen=udp:10.0.0.1:5060\n"


def made(body: str, more: str = "") -> Imported:
    return import_opensips(f"{HEAD}route {{\n{body}\n}}\n{more}", "x.cfg")


def function(routes: str, name: str) -> list[str]:
    """The lines of a function without its docstring, one depth less."""
    _, _, rest = routes.partition(f"async def {name}(")
    lines = rest.partition("\n\n\n")[0].splitlines()[2:]
    return [line.removeprefix("    ") for line in lines]


def main_of(body: str) -> list[str]:
    found = function(made(body).routes, "main")
    return [line for line in found if line != "way = way_of(request.uri)"]


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        # methods, bodies, flags
        ('if (is_method("INVITE")) setflag(1);', ['if request.method == "INVITE":', '    flags_of(request).add("1")']),
        (
            "if (method == INVITE) setsflag(NAT);",
            ['if request.method == "INVITE":', '    flags_of(request).add("NAT")'],
        ),
        ('if ($rm != "INFO") resetflag(1);', ['if request.method != "INFO":', '    flags_of(request).discard("1")']),
        (
            'if (is_method("INVITE|REGISTER|ACK")) setflag(1);',
            ['if request.method in ("INVITE", "REGISTER"):', '    flags_of(request).add("1")'],
        ),
        ("if (!isflagset(1)) exit;", ['if "1" not in flags_of(request):', "    return"]),
        ("if (has_body()) setflag(1);", ["if request.body:", '    flags_of(request).add("1")']),
        (
            'if (not has_body("application/sdp")) setflag(1);',
            [
                'if not (request.body and (request.headers.get("Content-Type") or "").startswith("application/sdp")):',
                '    flags_of(request).add("1")',
            ],
        ),
        # comparisons
        (
            'if ($si == "10.0.0.7") setflag(1);',
            ['if request.direction == "from_10_0_0_7":', '    flags_of(request).add("1")'],
        ),
        ("if ($sp < 1024) setflag(1);", ["if request.source[1] < 1024:", '    flags_of(request).add("1")']),
        ('if ($rU == "42") setflag(1);', ['if request.called_number == "42":', '    flags_of(request).add("1")']),
        (
            'if ($rU =~ "^00[1-9]") setflag(1);',
            ['if re.search("^00[1-9]", request.called_number, re.IGNORECASE):', '    flags_of(request).add("1")'],
        ),
        (
            'if ($ua !~ "friendly\\\\.scanner") setflag(1);',
            [
                'if not re.search(r"friendly\\.scanner", (request.headers.get("User-Agent") or ""), re.IGNORECASE):',
                '    flags_of(request).add("1")',
            ],
        ),
        (
            'if ($fd == "a.example" && $tU != "x" || $hdr(X-A) == NULL) setflag(1);',
            [
                'if (request.from_.uri.host == "a.example" and request.to.uri.user != "x")'
                ' or request.headers.get("X-A") is None:',
                '    flags_of(request).add("1")',
            ],
        ),
        ("if (uri == myself) setflag(1);", ["if request.is_for_us:", '    flags_of(request).add("1")']),
        (
            "if ($(rU{s.len}) > 15) setflag(1);",
            ["if len(request.called_number) > 15:", '    flags_of(request).add("1")'],
        ),
        (
            'if ($(fU{s.substr,0,2}) == "00") setflag(1);',
            ['if (request.from_.uri.user or "")[:2] == "00":', '    flags_of(request).add("1")'],
        ),
        # else
        (
            "if (isflagset(1)) setflag(2); else if (isflagset(3)) setflag(4); else setflag(5);",
            [
                'if "1" in flags_of(request):',
                '    flags_of(request).add("2")',
                'elif "3" in flags_of(request):',
                '    flags_of(request).add("4")',
                "else:",
                '    flags_of(request).add("5")',
            ],
        ),
        # the log
        (
            'xlog("L_WARN", "$rm from $fu\\n");',
            ['request.log.warning("$rm from $fu", rm=request.method, fu=str(request.from_.uri))'],
        ),
        ('log(1, "hello");', ['request.log.warning("hello")']),
        ('xlog("to $ru {}");', ['request.log.info("to $ru {}", ru=str(request.uri))']),
        # answers
        ('sl_send_reply("403", "Forbidden");', ['await request.reject(403, "Forbidden")']),
        ('send_reply(200, "OK");', ['await request.reply(200, "OK")']),
        ('t_reply(404, "no $rU");', ['await request.reject(404, f"no {request.called_number}")']),
        ('sl_send_reply("100", "Trying");', []),
        # headers
        (
            'append_hf("X-A: from $fU\\r\\n");',
            ['request.headers.add("X-A", f"from {(request.from_.uri.user or \'\')}")'],
        ),
        ('remove_hf("X-A");', ['request.headers.remove("X-A")']),
        # variables
        ('$avp(s:a) = "x";', ['variables_of(request)["a"] = "x"']),
        ("$var(n) = $var(n) + 1;", ['variables_of(request)["n"] = variables_of(request).get("n", 0) + 1']),
        ("$var(n) += 2;", ['variables_of(request)["n"] = variables_of(request).get("n", 0) + 2']),
        ("$avp(a) = NULL;", ['variables_of(request).pop("a", None)']),
        # where it goes
        ('$du = "sip:10.0.0.9:5070"; t_relay();', ['way.next_hop = "10.0.0.9:5070"', "await send(request, way)"]),
        ('setdsturi("sip:10.0.0.9"); t_relay();', ['way.next_hop = "10.0.0.9"', "await send(request, way)"]),
        (
            'rewritehostport("10.0.0.9:5070"); forward();',
            ['way.host = "10.0.0.9:5070"', "await send(request, way)"],
        ),
        ("forward(10.0.0.9:5070);", ['way.next_hop = "10.0.0.9:5070"', "await send(request, way)"]),
        ('t_relay("tcp:10.0.0.9:5060");', ['way.next_hop = "10.0.0.9;transport=tcp"', "await send(request, way)"]),
        ('t_relay("0x02");', ["await send(request, way)"]),
        (
            'strip(2); prefix("9"); $rU = "0" + $rU; $rd = "10.0.0.9";',
            [
                "way.number = way.number[2:]",
                'way.number = "9" + way.number',
                'way.number = "0" + way.number',
                'way.host = "10.0.0.9"',
            ],
        ),
        ('$ru = "sip:1@10.0.0.9";', ['way.uri = "sip:1@10.0.0.9"']),
        ('if (nat_uac_test("19")) exit;', ["if request.nat.test(19):", "    return"]),
        ('if (nat_uac_test("private-contact")) exit;', ['if request.nat.test("private-contact"):', "    return"]),
        ("if (client_nat_test(3)) exit;", ["if request.nat.test(19):", "    return"]),
        # media
        ("rtpproxy_engage();", ["if request.makes_call:", "    request.call.media.engage()"]),
        (
            'if (is_method("INVITE")) { rtp_relay_engage(); }',
            ['if request.method == "INVITE":', "    request.call.media.engage()"],
        ),
        (
            'fix_nated_sdp("11", "204.1.7.4");',
            ["if request.makes_call:", '    request.fix_sdp(11, address="204.1.7.4")'],
        ),
        ("fix_nated_sdp(31);", ["if request.makes_call:", "    request.fix_sdp(31)"]),
    ],
)
def test_a_construct_of_the_main_route(body: str, lines: list[str]) -> None:
    assert main_of(body) == lines
    assert made(body).report.complete, made(body).report.text()


@pytest.mark.parametrize(
    "body",
    [
        "record_route();",
        "force_rport();",
        "fix_nated_contact();",
        "fix_nated_register();",
        "t_check_trans();",
        'if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }',
        "if (has_totag()) { if (loose_route()) { t_relay(); } exit; }",
        'if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }',
        'if (is_method("ACK|BYE")) exit;',
        'if (nat_uac_test("19")) { force_rport(); fix_nated_contact(); }',
    ],
)
def test_what_is_done_by_itself_is_listed_and_leaves_nothing(body: str) -> None:
    made_ = made(body)
    assert main_of(body) == []
    assert made_.report.complete
    assert {item.line for item in made_.report.of(Outcome.ITSELF)} == {3}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('ds_select_dst("1", "4");', "ds_select_dst() has no counterpart"),
        ('lb_start("1", "pstn");', "lb_start() has no counterpart"),
        ("do_routing(1);", "do_routing() has no counterpart"),
        ('save("location");', "save() has no counterpart"),
        ('remove_hf("Via");', "Via is made by the dialog, and no route changes it"),
        ("if (from_uri == myself) exit;", "whether 'from_uri' is ours is not known in a route"),
        ('$fs = "udp:10.0.0.1:5060";', "$fs cannot be set here"),
        ("while ($var(i) < 3) { exit; }", "'while' is not taken over"),
        ('t_on_failure("none");', "there is no failure_route[none]"),
        ("route(none);", "there is no route[none]"),
        ("$var(x) = $(rU{re.subst,/a/b/});", "the transformation {re.subst,/a/b/} of $(rU{re.subst,/a/b/}) has no"),
        ('fix_nated_sdp("32");', "the flags of fix_nated_sdp() are 1, 2, 4, 8 and 16, and their sums"),
        ('if (nat_uac_test("300")) setflag(1);', "nat_uac_test(): 300 is no sum of tests"),
        ('if ($rU =~ "[[:digit:]]+") exit;', "this pattern holds what Python's patterns say otherwise"),
        ('xlog("$stat(x)");', "$stat(x) has no counterpart in a route"),
    ],
)
def test_what_cannot_be_mapped_is_listed_with_line_text_and_reason(body: str, reason: str) -> None:
    report = made(body).report
    [item] = report.of(Outcome.UNMAPPED)
    assert (item.line, item.text) == (3, body)
    assert item.reason.startswith(reason)
    assert not report.complete
    assert f"x.cfg:3: {body}" in report.text()


def test_a_statement_that_cannot_be_mapped_stands_in_a_comment_at_its_place() -> None:
    assert main_of('setflag(1);\nds_select_dst("1", "4");\nsetflag(2);') == [
        'flags_of(request).add("1")',
        '# Not mapped, line 4: ds_select_dst("1", "4"); (ds_select_dst() has no counterpart)',
        'flags_of(request).add("2")',
    ]


def test_a_condition_that_cannot_be_mapped_refuses_who_gets_there() -> None:
    made_ = made('if (isflagset(1) && !ds_select_dst("1", "4")) { sl_send_reply("503", "Full"); exit; }')
    assert function(made_.routes, "main")[0] == (
        'if "1" in flags_of(request) and not unmapped(3, "ds_select_dst() has no counterpart"):'
    )
    assert "raise RouteError(" in made_.routes


def test_where_the_source_is_asked_for_the_route_asks_for_the_direction() -> None:
    body = """if (src_ip == 10.0.0.7) { # from_gateway
    setflag(1);
} else if (src_ip == 10.0.0.8 || src_ip == 10.0.1.0/24 || src_ip == 10.0.0.9) {
    route(from_core);
}
if (src_ip != 10.0.0.7 and src_ip != 10.0.0.8) setflag(2);"""
    made_ = made(body, "route[from_core] { setflag(3); }")
    assert main_of(body)[:1] == ['if request.direction == "from_gateway":']
    assert function(made_.routes, "main") == [
        'if request.direction == "from_gateway":',
        '    flags_of(request).add("1")',
        # 10.0.0.8 is told apart from the others below, so it is a peer of its own
        'elif request.direction in ("from_10_0_0_8", "from_core"):',
        "    await from_core(request)",
        'if request.direction != "from_gateway" and request.direction != "from_10_0_0_8":',
        '    flags_of(request).add("2")',
    ]


def test_who_is_ourselves_has_the_addresses_that_are_listened_on() -> None:
    made_ = made("if (src_ip == myself) exit;\nsetflag(1);")
    assert 'if request.direction == "from_10_0_0_1":' in made_.routes
    assert "addresses: [10.0.0.1]" in made_.config


def test_a_sub_route_that_may_end_the_script_says_so() -> None:
    made_ = made("route(a);\nsetflag(1);", "route[a] { if (isflagset(2)) exit; route(b); }\nroute[b] { setflag(3); }")
    assert function(made_.routes, "main") == ["if await a(request) == 0:", "    return", 'flags_of(request).add("1")']
    assert function(made_.routes, "a") == [
        'if "2" in flags_of(request):',
        "    return 0",
        "await b(request)",
        "return 1",
    ]
    assert "async def b(request: Request) -> None:" in made_.routes


def test_the_code_of_a_sub_route_can_be_asked_for() -> None:
    made_ = made("if (!route(a)) { setflag(1); }", "route[a] { if (isflagset(2)) return(-1); return(1); }")
    assert function(made_.routes, "main") == [
        "code = await a(request)",
        "if code == 0:",
        "    return",
        "if code <= 0:",
        '    flags_of(request).add("1")',
    ]
    assert function(made_.routes, "a") == ['if "2" in flags_of(request):', "    return -1", "return 1"]


def test_what_does_something_behind_and_is_done_only_where_the_first_part_is_true() -> None:
    made_ = made("if (isflagset(1) && route(a)) { setflag(2); }", "route[a] { return(1); }")
    assert function(made_.routes, "main") == [
        'if "1" in flags_of(request):',
        "    code = await a(request)",
        "    if code == 0:",
        "        return",
        "    if code > 0:",
        '        flags_of(request).add("2")',
    ]


def test_armed_routes_are_functions_of_their_kind() -> None:
    more = """branch_route[b] { append_hf("X-B: 1\\r\\n"); if ($rU == "1") drop; $ru = "sip:2@10.0.0.9"; }
onreply_route[r] { if ($rs == 183) { drop; } xlog("$rs $rr"); }
failure_route[f] { if (t_check_status("486|408")) { $du = "sip:10.0.0.8"; t_on_failure("f"); t_relay(); exit; }
  if (t_check_status("5[0-9][0-9]")) t_reply(503, "Away"); }"""
    made_ = made('t_on_branch("b"); t_on_reply("r"); t_on_failure("f"); $du = "sip:10.0.0.9"; t_relay();', more)
    assert "@routes.branch_route\nasync def branch_route_b(branch: Branch) -> None:" in made_.routes
    assert function(made_.routes, "onreply_route_r") == [
        "if reply.status == 183:",
        "    if not reply.is_final:",
        "        reply.drop()",
        "    return",
        'reply.call.log.info("$rs $rr", rs=reply.status, rr=reply.reason)',
    ]
    assert function(made_.routes, "failure_route_f")[1:] == [
        "if failure.best_status in (486, 408):",
        '    way.next_hop = "10.0.0.8"',
        "    way.on_failure = failure_route_f",
        "    await send_again(failure, way)",
        "    return",
        'if re.search("5[0-9][0-9]", str(failure.best_status), re.IGNORECASE):',
        '    await failure.call.reject(503, "Away")',
    ]


def test_the_other_kinds_of_route_are_asked_by_the_sbc() -> None:
    more = """local_route { if (is_method("BYE")) append_hf("X-R: us\\r\\n"); }
error_route { xlog("$si $(err.info)"); sl_send_reply("$(err.rcode)", "$(err.rreason)"); }
startup_route { xlog("up"); }
timer_route[t, 30] { xlog("tick"); }
onreply_route { xlog("$rs"); }
event_route[E_PIKE_BLOCKED] { xlog("x"); }"""
    made_ = made("exit;", more)
    assert function(made_.routes, "local_route") == [
        'if request.method == "BYE":',
        '    request.headers.add("X-R", "us")',
    ]
    assert function(made_.routes, "error_route")[1] == "await bad.reply(bad.error.status)"
    assert function(made_.routes, "startup_route") == ['node.log.info("up")']
    assert "@routes.timer_route(every_s=30)\n" in made_.routes
    assert "@routes.onreply_route(always=True)\n" in made_.routes
    [item] = made_.report.of(Outcome.UNMAPPED)
    assert item.reason == "no event of the SBC is E_PIKE_BLOCKED"


def test_nothing_can_break_out_of_a_string_or_a_comment() -> None:
    body = 'xlog("\\"); import os #$ru{evil}\\\\");\nds_select_dst("\\"\\"\\"");\n$var(x) = "{request}";'
    made_ = made(body, 'route["\\"\\"\\"x"] { exit; }')
    compile(made_.routes, "routes.py", "exec")
    assert 'variables_of(request)["x"] = "{request}"' in made_.routes


def test_a_script_without_routes_refuses_everything() -> None:
    made_ = import_opensips("log_level=3\n", "x.cfg")
    assert "await request.reject(500)" in made_.routes
    assert not made_.report.complete
