"""What the functions of an imported routes module share: imports, and where a request goes."""

from __future__ import annotations

from sbc.importer.code import printable

NO_MAIN = [
    "@routes.route",
    "async def main(request: Request) -> None:",
    '    """The script has no route."""',
    "    await request.reject(500)",
]

_UNMAPPED = '''

def unmapped(line: int, reason: str) -> bool:
    """A condition that could not be mapped: who gets here is refused with 500, and the log says why."""
    raise RouteError(f"line {line} of the script was not mapped: {reason}")
'''

KEPT = ("flags_of", "variables_of")
_FLAGS_OF = '''

def flags_of(request: Request) -> set[str]:
    """The flags of the script: those of a call are there for the routes of its branches, replies and failure, too."""
    return request.call.transaction.flags if request.makes_call else request.flags
'''
_VARIABLES_OF = '''

def variables_of(request: Request) -> dict[str, Any]:  # Any: whatever the script keeps
    """The variables of the script, kept like flags."""
    return request.call.transaction.variables if request.makes_call else request.variables
'''
_WAY = '''

@dataclass
class Way:
    """How a request goes on, as the script has said so far."""

    number: str  # the user of the Request-URI
    host: str  # and its host, with a port where one is named
    next_hop: str = ""  # where it is sent, if not to that host
    on_branch: BranchRoute | None = None
    on_reply: ReplyRoute | None = None
    on_failure: FailureRoute | None = None

    @property
    def uri(self) -> str:
        """The Request-URI."""
        return self._at(self.host)
{set_uri}
    @property
    def target(self) -> str:
        """What is dialled: the number at the next hop, else at the host of the Request-URI."""
        return self._at(self.next_hop or self.host)

    def _at(self, place: str) -> str:
        return f"sip:{{self.number}}@{{place}}" if self.number else f"sip:{{place}}"


def way_of(uri: Uri) -> Way:
    """The way that a request has before anything is said."""
    return Way(uri.user or "", uri.host if uri.port is None else f"{{uri.host}}:{{uri.port}}")
'''
_SET_URI = """
    @uri.setter
    def uri(self, uri: str) -> None:
        other = way_of(parse_uri(uri))
        self.number, self.host = other.number, other.host
"""
_DIAL = "await {}.call.dial(way.target, on_branch={}, on_reply=way.on_reply, on_failure=way.on_failure)"
_SEND = '''

async def send(request: Request, way: Way) -> None:
    """Send a request on. Where it goes must be the gateway of a peer."""
    if request.makes_call:
{remember}        {dial}
    else:
        await request.relay(way.target)
'''
_SEND_AGAIN = '''

async def send_again(failure: Failure, way: Way) -> None:
    """Send a call somewhere else after it has failed."""
    {dial}
'''


def text(file: str, types: set[str], uses: set[str], changes_uri: bool) -> str:
    """Everything above the functions. ``types`` are those of their arguments, ``uses`` what they need."""
    way = bool(uses & {"way", "send", "send_again"})
    types = types | {"Routes"}
    needed = {"send": "Request", "send_again": "Failure", "unmapped": "RouteError"}
    types |= {name for use, name in needed.items() if use in uses} | ({"Request"} if uses & set(KEPT) else set())
    standard = [*(["import re"] if "re" in uses else []), *(["from dataclasses import dataclass"] if way else [])]
    standard += ["from typing import Any"] if "variables_of" in uses else []
    ours = [f"from sbc.routing import {', '.join(sorted(types))}"]
    if way:
        ours.append("from sbc.routing.routes import BranchRoute, FailureRoute, ReplyRoute")
    if way:
        parse = uses & {"parse_uri", "set_uri"}
        ours.append(f"from sbc.sip.uri import Uri{', parse_uri' if parse else ''}")
    name = printable(file).replace("\\", "/").rpartition("/")[2]
    out = f'"""Routes made from {name}. What could not be mapped is in report.txt, and said at its place."""\n\n'
    out += "\n".join(standard) + ("\n\n" if standard else "") + "\n".join(ours) + "\n\nroutes = Routes()\n"
    if "unmapped" in uses:
        out += _UNMAPPED
    if "flags_of" in uses:
        out += _FLAGS_OF
    if "variables_of" in uses:
        out += _VARIABLES_OF
    if way:
        out += _WAY.format(set_uri=_SET_URI if "set_uri" in uses else "")
    if "send" in uses:
        remember = '        request.call.transaction.variables["$ru"] = way.uri\n' if changes_uri else ""
        out += _SEND.format(remember=remember, dial=_DIAL.format("request", "way.on_branch"))
    if "send_again" in uses:
        out += _SEND_AGAIN.format(dial=_DIAL.format("failure", "way.on_branch"))
    return out
