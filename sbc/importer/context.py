"""In which kind of route a piece of the script runs, and how its variables are said there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_IN_TRANSACTION: Final = frozenset({"branch_route", "onreply_route", "failure_route"})


@dataclass(frozen=True, slots=True)
class Context:
    """``kind`` is that of the script; ``subject`` what the function is given, ``type`` its type; ``call`` the
    expression for the call, '' where there is none; ``message`` what has headers and a body, '' for nothing.
    ``variables`` are the read-only ones of the script, as Python."""

    kind: str
    subject: str
    type: str
    call: str
    variables: dict[str, Value]
    message: str = ""

    @property
    def suffix(self) -> str:
        """What distinguishes the name of a sub-route that is called from here."""
        return "" if self.kind == "route" else f"_in_{self.kind.removesuffix('_route').replace('onreply', 'reply')}"

    def kept(self, what: str) -> str:
        """Where ``flags`` or ``variables`` of the script are, '' where there are none: they live as long as the
        transaction."""
        if self.kind == "route":
            return f"{what}_of({self.message})"
        return f"{self.call}.transaction.{what}" if self.kind in _IN_TRANSACTION else ""

    @property
    def is_request(self) -> bool:
        """Whether a request of the network waits for a decision."""
        return self.kind in ("route", "failure_route")

    @property
    def log(self) -> str:
        """Whose log it is."""
        if self.kind == "error_route":
            return "bad.node.log"
        return f"{self.subject}.log" if self.kind == "route" or not self.call else f"{self.call}.log"

    @property
    def direction(self) -> str:
        """The direction of who sent the request, '' where it is not known."""
        who = self.message if self.kind == "route" else self.call
        return f"{who}.direction" if who else ""


@dataclass(frozen=True, slots=True)
class Value:
    """A Python expression: ``type`` is str, int, bool, optional (str or None) or any. ``atomic``: it needs no
    parentheses within another."""

    code: str
    type: str
    atomic: bool = True

    def text(self) -> str:
        """As a str."""
        if self.type == "str":
            return self.code
        if self.type == "optional":
            return f'({self.code} or "")'
        return f"str({self.code})"

    def inner(self) -> str:
        """As an operand."""
        return self.code if self.atomic else f"({self.code})"


def _of_request(request: str) -> dict[str, Value]:
    found: dict[str, Value] = {
        "$rm": Value(f"{request}.method", "str"),
        "method": Value(f"{request}.method", "str"),
        "$si": Value(f"{request}.source[0]", "str"),
        "src_ip": Value(f"{request}.source[0]", "str"),
        "$sp": Value(f"{request}.source[1]", "int"),
        "src_port": Value(f"{request}.source[1]", "int"),
        "$rb": Value(f'{request}.body.decode("utf-8", "replace")', "str"),
        "from_uri": Value(f"str({request}.from_.uri)", "str"),
        "to_uri": Value(f"str({request}.to.uri)", "str"),
        "$ft": Value(f"{request}.from_.tag", "str"),
        "$tt": Value(f"{request}.to.tag", "str"),
        "$fn": Value(f"{request}.from_.display", "str"),
        "$tn": Value(f"{request}.to.display", "str"),
    }
    for letter, address in (("f", f"{request}.from_"), ("t", f"{request}.to")):
        found[f"${letter}u"] = Value(f"str({address}.uri)", "str")
        found[f"${letter}U"] = Value(f"{address}.uri.user", "optional")
        found[f"${letter}d"] = Value(f"{address}.uri.host", "str")
    named = {
        "$cT": "Content-Type",
        "$ci": "Call-ID",
        "$ua": "User-Agent",
        "$ct": "Contact",
        "$rt": "Refer-To",
        "$ai": "P-Asserted-Identity",
    }
    for name, header in named.items():
        found[name] = Value(f'{request}.headers.get("{header}")', "optional")
    return found


def _of_call(call: str) -> dict[str, Value]:
    return {
        "$fU": Value(f"{call}.calling_number", "str"),
        "$rm": Value('"INVITE"', "str"),
        "method": Value('"INVITE"', "str"),
    }


REQUEST: Final = Context("route", "request", "Request", "request.call", _of_request("request"), "request")
BRANCH: Final = Context(
    "branch_route",
    "branch",
    "Branch",
    "branch.call",
    _of_call("branch.call")
    | {
        "$ru": Value("branch.uri", "str"),
        "uri": Value("branch.uri", "str"),
    },
    "branch",
)
REPLY: Final = Context(
    "onreply_route",
    "reply",
    "Reply",
    "reply.call",
    _of_call("reply.call")
    | {
        "$rs": Value("reply.status", "int"),
        "status": Value("reply.status", "int"),
        "$rr": Value("reply.reason", "str"),
        "$rb": Value('reply.body.decode("utf-8", "replace")', "str"),
    },
    "reply",
)
FAILURE: Final = Context(
    "failure_route",
    "failure",
    "Failure",
    "failure.call",
    _of_call("failure.call")
    | {
        "$rs": Value("failure.best_status", "int"),
        "status": Value("failure.best_status", "int"),
        "$T_reply_code": Value("failure.best_status", "int"),
    },
)
LOCAL: Final = Context(
    "local_route",
    "request",
    "LocalRequest",
    "request.call",
    _of_call("request.call") | {"$rm": Value("request.method", "str"), "method": Value("request.method", "str")},
    "request",
)
ERROR: Final = Context(
    "error_route",
    "bad",
    "BadMessage",
    "",
    {
        "$si": Value("bad.source[0]", "str"),
        "src_ip": Value("bad.source[0]", "str"),
        "$sp": Value("bad.source[1]", "int"),
        "src_port": Value("bad.source[1]", "int"),
        "$err.info": Value("str(bad.error)", "str"),
        "$(err.info)": Value("str(bad.error)", "str"),
        "$(err.rreason)": Value("str(bad.error)", "str"),
        "$err.rreason": Value("str(bad.error)", "str"),
        "$(err.rcode)": Value("bad.error.status", "int"),
        "$err.rcode": Value("bad.error.status", "int"),
    },
)
NODE: Final = Context("timer_route", "node", "Node", "", {})

BY_KIND: Final = {
    "route": REQUEST,
    "branch_route": BRANCH,
    "onreply_route": REPLY,
    "failure_route": FAILURE,
    "local_route": LOCAL,
    "error_route": ERROR,
    "startup_route": NODE,
    "timer_route": NODE,
}
