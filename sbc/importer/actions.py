"""Functions and assignments of a script that do something, as Python statements."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

from sbc.importer import code
from sbc.importer.conditions import Truth, argument, flag
from sbc.importer.context import Context, Value
from sbc.importer.peers import Destination, destination
from sbc.importer.report import Report
from sbc.importer.tree import Address, Assign, Binary, Call, Expression, Literal, Name, Variable
from sbc.importer.values import Unmapped, Values, quoted
from sbc.routing.headers import long_name, refuse_ours
from sbc.routing.routes import RouteError
from sbc.sdp.address import ip_literal

_LEVELS: Final = {
    **{"L_ALERT": "error", "L_CRIT": "error", "L_ERR": "error", "L_BUG": "error", "L_WARN": "warning"},
    **{"L_NOTICE": "info", "L_INFO": "info", "L_DBG": "debug", "L_MEM": "debug"},
}
_BY_ITSELF: Final = {
    "record_route": "the SBC is an end of each dialog, and so in its path",
    "record_route_preset": "the SBC is an end of each dialog, and so in its path",
    "loose_route": "requests inside dialogs are served by the SBC itself",
    "force_rport": "answers go to where the request came from",
    "add_rport": "answers go to where the request came from",
    "fix_nated_contact": "the Contact is made by the SBC, and requests go to where the phone was seen (nat: auto)",
    "fix_nated_register": "a REGISTER gets a Contact of ours, which leads back to where the phone was seen",
    "fix_contact": "the Contact is made by the SBC, and requests go to where the phone was seen (nat: auto)",
    "nat_keepalive": "phones are reached at where their last request came from",
    "t_check_trans": "repeated requests are absorbed before a route sees them",
    "t_newtran": "every request has a transaction before a route sees it",
    "mf_process_maxfwd_header": "Max-Forwards is counted and refused by the SBC itself",
    "create_dialog": "the SBC has every dialog",
    "topology_hiding": "nothing of one side reaches the other anyway",
    "do_accounting": "every call has its record; see cdr in the configuration",
    "acc_log_request": "every call has its record; see cdr in the configuration",
    "acc_db_request": "every call has its record; see cdr in the configuration",
    "rtpproxy_answer": "the answer follows the offer by itself",
    "rtpengine_answer": "the answer follows the offer by itself",
    "rtpproxy_unforce": "media end with their call",
    "unforce_rtp_proxy": "media end with their call",
    "rtpengine_delete": "media end with their call",
    "rtp_relay_delete": "media end with their call",
    "sl_reply_error": "an error is answered by its status",
    "t_reply_error": "an error is answered by its status",
    "consume_credentials": "credentials for us do not cross",
    "force_tcp_alias": "answers and dialogs go by the connection that they came on",
    "tcp_keepalive_enable": "connections are kept as the configuration says",
    "unforce_rport": "answers go to where the request came from",
    "t_wait_for_new_branches": "further targets are given to dial",
    "sst": "session timers are ours on both legs",
    "sstCheckMin": "session timers are ours on both legs",
}
_ENGAGE: Final = frozenset(
    {
        *("rtpproxy_engage", "engage_rtp_proxy", "rtpproxy_offer", "rtp_relay_engage", "rtpengine_offer"),
        *("rtpengine_manage", "rtpengine_engage", "force_rtp_proxy", "rtpproxy_manage"),
    }
)
_REPLIES: Final = frozenset({"sl_send_reply", "send_reply", "t_reply", "sl_reply", "t_reply_with_body"})
_NUMBERS: Final = frozenset({"strip", "strip_tail", "prefix", "rewriteuser", "setuser", "set_user"})
_URIS: Final = frozenset({"rewriteuri", "seturi"})
_HOSTS: Final = frozenset({"rewritehost", "rewritehostport", "sethost", "sethostport"})
_HOPS: Final = frozenset({"setdsturi", "set_dsturi"})
_RESETS: Final = frozenset({"resetdsturi", "reset_dsturi"})
_ARMS: Final = {
    "t_on_failure": ("failure_route", "on_failure"),
    "t_on_branch": ("branch_route", "on_branch"),
    "t_on_reply": ("onreply_route", "on_reply"),
}
SENDS: Final = frozenset({"t_relay", "forward"})
ON_WAY: Final = SENDS | _NUMBERS | _URIS | _HOSTS | _HOPS | _RESETS | frozenset(_ARMS) | {"fix_nated_sdp"}
CHANGES_URI: Final = _NUMBERS | _URIS | _HOSTS


class Plan(Protocol):
    """What the module that is being made knows of its functions."""

    def armed(self, kind: str, name: str, line: int) -> str:
        """The function of a named branch, reply or failure route. Raises Unmapped for none."""

    def called(self, name: str, context: Context) -> tuple[str, list[str], bool]:
        """The function of ``route(name)`` for a context, what it is given, and whether it returns a code. Raises
        Unmapped for none."""

    def use(self, helper: str) -> None:
        """The module needs a piece of its preamble."""


@dataclass(slots=True)
class Actions:
    """Says what functions do in one context. ``depth`` is where their lines stand."""

    context: Context
    values: Values
    report: Report
    plan: Plan
    depth: int = 1
    is_main: bool = True  # not a function that returns a code

    @property
    def stop(self) -> str:
        """The statement that ends the script."""
        return "return" if self.is_main else "return 0"

    # In conditions

    def act(self, call: Call) -> Truth | None:
        """A function that does something and then tells whether it could, None for any other. Raises Unmapped."""
        if call.name == "route":
            function, given, returns = self._called(call)
            code_ = f"await {function}({', '.join(given)})"
            if not returns:
                return Truth("True", always=True, before=(code.line(self.depth, code_),))
            before = (code.line(self.depth, f"code = {code_}"), *self._leave_if_over())
            return Truth("code > 0", 3, None, before, ("code", ">", "0"))
        if call.name in SENDS | _ENGAGE | set(_ARMS) | _REPLIES:
            if call.name in SENDS:
                self.report.itself(call.line, "a request that leads nowhere is refused by the SBC itself")
            return Truth("True", always=True, before=tuple(self.do(call)))
        return None

    def _leave_if_over(self) -> tuple[str, ...]:
        return (code.line(self.depth, "if code == 0:"), code.line(self.depth + 1, self.stop))

    def _called(self, call: Call) -> tuple[str, list[str], bool]:
        if len(call.arguments) > 1:
            raise Unmapped("a route that is given parameters has no counterpart: make it a function of its own")
        return self.plan.called(argument(call, 0), self.context)

    # As statements

    def do(self, call: Call) -> list[str]:
        """The lines of a function that is called for what it does; none where it is done by itself. Raises Unmapped."""
        name, depth = call.name, self.depth
        if name in _BY_ITSELF:
            self.report.itself(call.line, _BY_ITSELF[name])
            return []
        if name == "route":
            function, given, returns = self._called(call)
            if not returns:
                return code.call(depth, f"await {function}(", given)
            return [
                code.line(depth, f"if await {function}({', '.join(given)}) == 0:"),
                code.line(depth + 1, self.stop),
            ]
        if name in ("xlog", "log"):
            return self._log(call)
        if name in ("setflag", "setsflag", "setbflag", "resetflag", "resetsflag", "resetbflag"):
            return self._flag(call)
        if name in _REPLIES:
            return self._reply(call)
        if name in SENDS:
            return self._send(call)
        if name in _ARMS:
            return self._arm(call)
        if name in _ENGAGE:
            return self._engage(call)
        if name == "fix_nated_sdp":
            return self._fix_nated_sdp(call)
        if name in ("append_hf", "insert_hf"):
            return self._append(call)
        if name in ("remove_hf",):
            return self._remove(call)
        if name in _NUMBERS | _URIS | _HOSTS | _HOPS | _RESETS:
            return self._destination(call)
        if name == "append_branch" and self.context.kind == "failure_route" and not call.arguments:
            self.report.itself(call.line, "dialling again makes a new branch")
            return []
        if name == "append_to_reply":
            raise Unmapped("headers of an answer are given to reject() or reply(): headers=[(name, value)]")
        raise Unmapped(f"{name}() has no counterpart")

    def _text(self, given: Expression | None) -> Value:
        if given is None:
            raise Unmapped("an argument is missing")
        return self.values.value(given)

    def _log(self, call: Call) -> list[str]:
        given = [one for one in call.arguments if one is not None]
        if not given or len(given) > 2:
            raise Unmapped(f"{call.name}() takes a level and a text")
        level = "info"
        if len(given) == 2:
            said = argument(call, 0)
            number = int(said) if re.fullmatch(r"-?\d{1,2}", said) else None
            if number is not None:
                level = "error" if number < 1 else "warning" if number == 1 else "info" if number < 4 else "debug"
            elif said in _LEVELS:
                level = _LEVELS[said]
            else:
                raise Unmapped(f"'{said}' is no level of the log")
        text = given[-1]
        if isinstance(text, Literal):
            shown, fields = self.values.fields(str(text.value))
        else:
            shown, fields = "", [("text", self.values.value(text).code)]
        arguments = [quoted(shown or "log"), *(f"{name}={value}" for name, value in fields)]
        return code.call(self.depth, f"{self.context.log}.{level}(", arguments)

    def _flag(self, call: Call) -> list[str]:
        where = "branch.flags" if "bflag" in call.name and self.context.kind == "branch_route" else ""
        where = where or self.context.kept("flags")
        if not where:
            raise Unmapped(f"a {self.context.kind} has no flags")
        if "bflag" in call.name and self.context.kind != "branch_route":
            self.report.assumed(call.line, "this flag is kept with the transaction, not with one branch of it")
        method = "add" if call.name.startswith("set") else "discard"
        return [code.line(self.depth, f"{where}.{method}({quoted(flag(call))})")]

    def _reply(self, call: Call) -> list[str]:
        status = argument(call, 0)
        if self.context.kind == "error_route" and "rcode" in status:
            return [code.line(self.depth, f"await bad.reply({self._text(call.arguments[0]).code})")]
        if not re.fullmatch(r"[1-6]\d\d", status):
            raise Unmapped("the status of an answer is a number of 100 to 699")
        if status.startswith("1"):
            self.report.itself(
                call.line, "100 is sent by the SBC itself, and other provisional answers come from who is called"
            )
            return []
        reason = call.arguments[1] if len(call.arguments) > 1 else None
        given = [status, *([self._text(reason).text()] if reason is not None else [])]
        match self.context.kind:
            case "route" if status.startswith("2"):
                if self.values.only_invite:
                    raise Unmapped("a call is not answered by a route: dial what answers it")
                return code.call(self.depth, "await request.reply(", given)
            case "route":
                return code.call(self.depth, "await request.reject(", given)
            case "failure_route" if not status.startswith("2"):
                return code.call(self.depth, "await failure.call.reject(", given)
            case "error_route" if status[0] in "456":
                return code.call(self.depth, "await bad.reply(", given[:1])
        raise Unmapped(f"a {self.context.kind} cannot answer with {status}")

    def _send(self, call: Call) -> list[str]:
        kind, depth = self.context.kind, self.depth
        if kind not in ("route", "failure_route"):
            raise Unmapped(f"a {kind} sends nothing on")
        lines = []
        if call.arguments and not all(one is None for one in call.arguments):
            place = _place(call)
            if place is not None:
                lines.append(code.line(depth, f"way.next_hop = {quoted(_bare(place.uri))}"))
            elif not re.fullmatch(r"0x[0-9a-fA-F]+|\d+", argument(call, 0)) and not isinstance(call.arguments[0], Name):
                raise Unmapped("where this goes is not a literal destination")
        self.values.uses_way = True
        helper = "send" if kind == "route" else "send_again"
        self.plan.use(helper)
        return [*lines, code.line(depth, f"await {helper}({self.context.subject}, way)")]

    def _arm(self, call: Call) -> list[str]:
        if self.context.kind not in ("route", "failure_route"):
            raise Unmapped(f"a {self.context.kind} arms no other route: give it to dial")
        kind, name = _ARMS[call.name]
        self.values.uses_way = True
        armed = argument(call, 0)
        function = "None" if armed in ("", "0") else self.plan.armed(kind, armed, call.line)
        return [code.line(self.depth, f"way.{name} = {function}")]

    def _engage(self, call: Call) -> list[str]:
        if self.context.kind in ("branch_route", "onreply_route"):
            self.report.itself(
                call.line, "offer and answer follow by themselves where media are engaged before dialling"
            )
            return []
        if self.context.kind not in ("route", "failure_route"):
            raise Unmapped(f"a {self.context.kind} has no media")
        if any(one is not None for one in call.arguments):
            self.report.assumed(
                call.line, "flags and sets are not taken over: how media are treated is the profile of the peer"
            )
        if self.context.kind == "failure_route" or self.values.only_invite:
            return [code.line(self.depth, f"{self.context.call}.media.engage()")]
        return [
            code.line(self.depth, "if request.makes_call:"),
            code.line(self.depth + 1, "request.call.media.engage()"),
        ]

    def _fix_nated_sdp(self, call: Call) -> list[str]:
        if self.context.kind != "route":
            raise Unmapped(f"fix_nated_sdp() in a {self.context.kind} has no counterpart")
        flags = argument(call, 0)
        if not re.fullmatch(r"\d\d?", flags) or not 1 <= int(flags) <= 31:
            raise Unmapped("the flags of fix_nated_sdp() are 1, 2, 4, 8 and 16, and their sums")
        if len(call.arguments) > 2:
            raise Unmapped("fix_nated_sdp() with further lines has no counterpart")
        given = call.arguments[1] if len(call.arguments) > 1 else None
        address = f", address={self._text(given).text()}" if given is not None else ""
        if isinstance(given, Literal) and "$" not in str(given.value) and not ip_literal(str(given.value)):
            raise Unmapped(f"'{given.value}' is no IP address")
        self.report.assumed(call.line, "done to the caller's descriptions; a=oldcip and a=oldoip are left out")
        return [
            code.line(self.depth, "if request.makes_call:"),
            code.line(self.depth + 1, f"request.fix_sdp({int(flags)}{address})"),
        ]

    # Headers

    def _append(self, call: Call) -> list[str]:
        if not self.context.message:
            raise Unmapped(f"a {self.context.kind} has no headers to be changed")
        given = call.arguments[0] if call.arguments else None
        if not isinstance(given, Literal) or ":" not in str(given.value):
            raise Unmapped("a header that is no literal 'Name: value' has no counterpart")
        name, _, value = str(given.value).partition(":")
        self._changeable(name.strip())
        said = self.values.format(value.strip())
        return code.call(self.depth, f"{self.context.message}.headers.add(", [quoted(name.strip()), said.text()])

    def _remove(self, call: Call) -> list[str]:
        if not self.context.message:
            raise Unmapped(f"a {self.context.kind} has no headers to be changed")
        name = argument(call, 0)
        if len([one for one in call.arguments if one is not None]) != 1:
            raise Unmapped("a pattern for the names of headers has no counterpart: name each")
        self._changeable(name)
        return [code.line(self.depth, f"{self.context.message}.headers.remove({quoted(name)})")]

    def _changeable(self, name: str) -> None:
        if not re.fullmatch(r"[-.!%*_+`'~A-Za-z0-9]+", name):
            raise Unmapped(f"'{name}' is no name of a header")
        try:
            refuse_ours(name)
        except RouteError as error:
            raise Unmapped(f"{long_name(name)} is made by the dialog, and no route changes it") from error

    # Where a request goes

    def _destination(self, call: Call) -> list[str]:
        name = call.name
        if name in _RESETS:
            return self._hop('""')
        self._on_way()
        given = call.arguments[0] if call.arguments else None
        value = self._text(given)
        match name:
            case "strip":
                return [code.line(self.depth, f"way.number = way.number[{_count(call)}:]")]
            case "strip_tail":
                return [code.line(self.depth, f"way.number = way.number[:-{_count(call)}]")]
            case "prefix":
                return [code.line(self.depth, f"way.number = {value.text()} + way.number")]
        variable = "$rU" if name in _NUMBERS else "$ru" if name in _URIS else "$rd" if name in _HOSTS else "$du"
        return self._goes(variable, value, given)

    def _on_way(self) -> None:
        if not self.context.is_request:
            raise Unmapped(f"a {self.context.kind} does not say where a request goes")
        self.values.uses_way = True

    def _hop(self, value: str) -> list[str]:
        self._on_way()
        return [code.line(self.depth, f"way.next_hop = {value}")]

    def _goes(self, variable: str, value: Value, given: Expression | None) -> list[str]:
        """The Request-URI, a part of it, or the next hop becomes this."""
        match variable:
            case "$ru":
                self.plan.use("set_uri")
                return [code.line(self.depth, f"way.uri = {value.text()}")]
            case "$rd":
                return [code.line(self.depth, f"way.host = {value.text()}")]
            case "$rU":
                return [code.line(self.depth, f"way.number = {value.text()}")]
            case "$rp":
                raise Unmapped("the port alone cannot be set: set the host with it")
        if value.code == "None":
            return self._hop('""')
        literal = str(given.value) if isinstance(given, Literal) and "$" not in str(given.value) else ""
        place = destination(literal, 0) if literal else None
        if place is not None:
            return self._hop(quoted(_bare(place.uri)))
        return self._hop(f'{Value(value.text(), "str", False).inner()}.removeprefix("sip:")')

    def assign(self, one: Assign) -> list[str]:
        """An assignment. Raises Unmapped."""
        target = one.target.text
        given: Expression = one.value
        if one.sign not in ("=", ":="):
            given = Binary(one.sign[0], one.target, one.value, one.line)
        value = self.values.value(given)
        if target in ("$ru", "$rU", "$rd", "$rp", "$du"):
            if value.code == "None" and target != "$du":
                raise Unmapped(f"{target} cannot be nothing")
            if self.context.kind == "branch_route" and target == "$ru":
                return [code.line(self.depth, f"branch.uri = {value.text()}")]
            self._on_way()
            return self._goes(target, value, given)
        kept = self.values.kept(target)
        if kept is None:
            raise Unmapped(f"{target} cannot be set here")
        if value.code == "None":
            return [code.line(self.depth, f"{kept[0]}.pop({quoted(kept[1])}, None)")]
        return [code.line(self.depth, f"{kept[0]}[{quoted(kept[1])}] = {value.code}")]


def _place(call: Call) -> Destination | None:
    first = call.arguments[0]
    text = argument(call, 0)
    if isinstance(first, Address) and len(call.arguments) > 1:
        text += f":{argument(call, 1)}"
    if "$" in text or isinstance(first, Variable) or re.fullmatch(r"0x[0-9a-fA-F]+|\d+|", text):
        return None
    if isinstance(first, Name) and ":" not in text and "." not in text:
        return None
    return destination(text, call.line)


def _bare(uri: str) -> str:
    return uri.removeprefix("sip:")


def _count(call: Call) -> int:
    text = argument(call, 0)
    if not re.fullmatch(r"[1-9]\d?", text):
        raise Unmapped("the number of digits to take away is a literal of 1 to 99")
    return int(text)
