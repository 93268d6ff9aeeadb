"""Header rules as the configuration has them, and what of a message they may touch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from sbc.config.base import Model
from sbc.config.expression import MAX_GROUP, Expression

REQUEST_URI = "request-uri"
PARTS = ("user", "host", "display", "uri")
# Of these only parts may be changed, in a request that opens a dialog or has none: the tag is the dialog's, and
# Refer-To and Referred-By are rebuilt where they cross.
ADDRESSES = frozenset({"from", "to", "refer-to", "referred-by"})
# What makes a message one of its transaction, dialog or session, what was agreed with the other side, and what proves
# or frames something. Compact names too: a rule says them as it likes.
PROTECTED = frozenset(
    {
        *("via", "v", "route", "record-route", "path", "service-route", "call-id", "i", "cseq", "max-forwards"),
        *("max-breadth", "contact", "m", "content-length", "l", "content-type", "c", "content-encoding", "e"),
        *("content-disposition", "content-id", "mime-version", "timestamp", "require", "proxy-require", "supported"),
        *("k", "unsupported", "session-expires", "x", "min-se", "rseq", "rack", "replaces", "join", "target-dialog"),
        *("event", "o", "subscription-state", "expires", "min-expires", "sip-etag", "sip-if-match", "refer-sub"),
        *("authorization", "proxy-authorization", "www-authenticate", "proxy-authenticate", "authentication-info"),
        *("security-client", "security-server", "security-verify", "recv-info", "info-package"),
    }
)
_LONG = {"f": "from", "t": "to", "r": "refer-to", "b": "referred-by"}
# What ``${...}`` knows besides variables of the call and fields of the message
BUILT_IN = frozenset({"peer", "realm", "direction", "node", "call", "method", "status", "source"})

_TOKEN = r"[-.!%*_+`'~A-Za-z0-9]+"
_FIELD = re.compile(rf"^({_TOKEN}?)(?:\.(user|host|display|uri))?$")
_WILDCARD = re.compile(r"^[-!%_+`'~A-Za-z0-9.]+\*$")
_VARIABLE = re.compile(r"^[a-z][a-z0-9_]{0,63}$")
_METHOD = re.compile(r"^[A-Z]{1,32}$")
_STATUS = re.compile(r"^(?:([1-6])xx|([1-6]\d\d)(?:-([1-6]\d\d))?)$")
_PIECE = re.compile(r"\$\{([^}]*)\}|\\(\d)|\\\\|\$\{|\\")

Piece = tuple[Literal["text", "group", "variable", "field"], str]


def split_field(text: str) -> tuple[str, str]:
    """Header name in lower case and the part of its address ('' for all of it). Raises ValueError."""
    match = _FIELD.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no header, such as Subject, nor a part of one, such as From.user")
    name = match[1].lower()
    return _LONG.get(name, name), match[2] or ""


def pieces(text: str) -> tuple[Piece, ...]:
    """What a value is made of: text, ``\\1`` groups, ``${variables}`` and ``${Headers}``. Raises ValueError."""
    if any(c in text for c in "\r\n\0"):
        raise ValueError("a value with a line end or NUL could smuggle in another header")
    found: list[Piece] = []
    at = 0
    for match in _PIECE.finditer(text):
        if match.start() > at:
            found.append(("text", text[at : match.start()]))
        at = match.end()
        if match[2] is not None:
            found.append(("group", match[2]))
        elif match[1] is not None:
            found.append(_reference(match[1]))
        elif match[0] == "${":
            raise ValueError(f"{text!r} has a ${{ that is not closed")
        else:
            found.append(("text", "\\"))
    if at < len(text):
        found.append(("text", text[at:]))
    return tuple(found)


def _reference(name: str) -> Piece:
    if _VARIABLE.match(name):
        return ("variable", name)
    if not name[:1].isupper():
        raise ValueError(
            f"${{{name}}} is neither a variable (small letters, digits and _) nor a header (a capital letter first)"
        )
    split_field(name)
    return ("field", name)


def status_range(value: Any) -> Any:  # Any: whatever the YAML held
    """``503``, ``5xx`` or ``500-599`` as the lowest and the highest status."""
    match = _STATUS.match(str(value)) if isinstance(value, str | int) else None
    if match is None:
        raise ValueError(f"'{value}' is neither a status such as 503, nor 5xx or 500-599")
    if match[1]:
        return (int(match[1]) * 100, int(match[1]) * 100 + 99)
    low, high = int(match[2]), int(match[3] or match[2])
    if low > high:
        raise ValueError(f"'{value}' falls: write the lower status first")
    return (low, high)


def _one_or_more(value: Any) -> Any:  # Any: whatever the YAML held
    return value if isinstance(value, list) else [value]


def _expression(value: str) -> str:
    if value:
        Expression(value)
    return value


StatusRange = Annotated[tuple[int, int], BeforeValidator(status_range)]
Statuses = Annotated[list[StatusRange], BeforeValidator(_one_or_more)]
Words = Annotated[list[str], BeforeValidator(_one_or_more)]


class HeaderTest(Model):
    """Whether a header is there, or one of its values matches; ``absent``: whether it is not."""

    header: str
    matches: str = ""
    absent: bool = False

    @field_validator("header")
    @classmethod
    def _field(cls, value: str) -> str:
        split_field(value)
        return value

    @field_validator("matches")
    @classmethod
    def _matches(cls, value: str) -> str:
        return _expression(value)


class When(Model):
    """All of it must hold; what is not said does."""

    message: Literal["request", "reply", "any"] = "request"
    methods: Words = []
    status: Statuses = []  # of replies
    dialog: Literal["any", "outside", "inside"] = "any"  # of requests: outside one, or within
    direction: Words = []  # of the peer
    caller: str = ""  # an expression that the user part of From matches
    called: str = ""  # the same of the Request-URI
    headers: list[HeaderTest] = []

    @field_validator("methods")
    @classmethod
    def _methods(cls, value: list[str]) -> list[str]:
        for method in value:
            if not _METHOD.match(method):
                raise ValueError(f"{method!r} is no method, such as INVITE")
            if method in ("ACK", "CANCEL"):
                raise ValueError(f"{method} belongs to an INVITE and is not touched by rules")
        return value

    @field_validator("caller", "called")
    @classmethod
    def _number(cls, value: str) -> str:
        return _expression(value)

    @model_validator(mode="after")
    def _fits(self) -> When:
        if self.status and self.message != "reply":
            raise ValueError("status is of replies: add message: reply")
        if self.called and self.message != "request":
            raise ValueError("called is about the Request-URI, which only requests have")
        return self


_VERBS = ("set", "add", "remove", "replace", "rename", "store", "reject")
# What each takes besides, and what of it must be there
_TAKES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "set": (frozenset({"to"}), frozenset({"to"})),
    "add": (frozenset({"to"}), frozenset({"to"})),
    "remove": (frozenset({"matches"}), frozenset()),
    "replace": (frozenset({"matches", "to"}), frozenset({"matches", "to"})),
    "rename": (frozenset({"to"}), frozenset({"to"})),
    "store": (frozenset({"matches", "as"}), frozenset({"as"})),
    "reject": (frozenset({"reason"}), frozenset()),
}


class HeaderAction(Model):
    """One verb, and what it takes: see ``docs/header-rules.md``."""

    set: str | None = None
    add: str | None = None
    remove: str | None = None
    replace: str | None = None
    rename: str | None = None
    store: str | None = None
    reject: Annotated[int | None, Field(ge=400, le=699)] = None
    to: str | None = None
    matches: str | None = None
    variable: Annotated[str | None, Field(alias="as")] = None
    reason: str | None = None

    @property
    def verb(self) -> str:
        """Which of them it is."""
        return next(verb for verb in _VERBS if getattr(self, verb) is not None)

    @property
    def target(self) -> str:
        """The field that the verb is about; '' for ``reject``."""
        value = getattr(self, self.verb)
        return value if isinstance(value, str) else ""

    @model_validator(mode="after")
    def _sound(self) -> HeaderAction:
        verbs = [verb for verb in _VERBS if getattr(self, verb) is not None]
        if len(verbs) != 1:
            known = ", ".join(_VERBS)
            raise ValueError(f"an action has one verb ({known}), not {' and '.join(verbs) or 'none'}")
        verb = verbs[0]
        given = {key for key in ("to", "matches", "reason") if getattr(self, key) is not None}
        given |= {"as"} if self.variable is not None else set()
        allowed, needed = _TAKES[verb]
        if given - allowed:
            raise ValueError(f"{verb} does not take '{sorted(given - allowed)[0]}'")
        if needed - given:
            raise ValueError(f"{verb} takes '{sorted(needed - given)[0]}' as well")
        if self.matches is not None and not self.matches:
            raise ValueError("matches is empty: it would match everywhere")
        groups = Expression(self.matches).groups if self.matches else 0
        if verb == "store":
            split_field(self.target)
            if not _VARIABLE.match(self.variable or "") or self.variable in BUILT_IN:
                raise ValueError(f"'{self.variable}' is no name for a variable: small letters, digits and _")
        elif verb != "reject":
            _writable(self.target, verb)
        if verb == "rename":
            _writable(self.to or "", "add")
        elif self.to is not None:
            for kind, text in pieces(self.to):
                if kind == "group" and verb != "replace":
                    raise ValueError(f"\\{text} is a group of matches, which {verb} does not have")
                if kind == "group" and int(text) > min(groups, MAX_GROUP):
                    raise ValueError(f"\\{text}: '{self.matches}' has {groups} groups")
        if self.reason is not None and any(c in self.reason for c in "\r\n\0"):
            raise ValueError("a phrase with a line end could smuggle in a header")
        return self

    @property
    def is_of_request(self) -> bool:
        """Whether only a request can bear it."""
        return self.verb == "reject" or split_field(self.target)[0] in (REQUEST_URI, "from", "to")


def _writable(text: str, verb: str) -> None:
    """Raises ValueError where a rule may not do that."""
    if verb == "remove" and text.endswith("*"):
        if not _WILDCARD.match(text):
            raise ValueError(f"{text!r} is no beginning of header names, such as X-*")
        return
    name, part = split_field(text)
    if name == REQUEST_URI:
        if verb not in ("set", "replace"):
            raise ValueError(f"the Request-URI cannot be {_DONE[verb]}: it is always there, once")
        if part == "display":
            raise ValueError("the Request-URI has no display name")
        return
    if name in PROTECTED:
        raise ValueError(
            f"{text.partition('.')[0]} belongs to the transaction, the dialog or the body: no rule may change it"
        )
    if name in ADDRESSES:
        if not part:
            parts = f"{text}.user, {text}.host, {text}.display or {text}.uri"
            raise ValueError(f"{text} as a whole belongs to the dialog: change {parts}")
        if verb not in ("set", "replace"):
            raise ValueError(f"{text} cannot be {_DONE[verb]}, only set or replaced")
    elif part and verb not in ("set", "replace"):
        raise ValueError(f"a part of a header cannot be {_DONE[verb]}, only set or replaced")


_DONE = {"add": "added", "remove": "removed", "rename": "renamed", "set": "set", "replace": "replaced"}


class HeaderRule(Model):
    """What is done to a message that it is for. ``name`` is for traces; without one it is ``list.number``."""

    name: str = ""
    when: When = When()
    do: Annotated[list[HeaderAction], Field(min_length=1)]
    _place: str = PrivateAttr(default="")  # file:line, '' where it is not known

    @model_validator(mode="after")
    def _sound(self) -> HeaderRule:
        for action in self.do:
            if action.is_of_request and self.when.message != "request":
                what = action.target or "reject"
                raise ValueError(f"{what}: only requests bear that, so the rule must be for them (message: request)")
            if action.verb == "reject" and {"BYE", "PRACK"} & {*self.when.methods}:
                raise ValueError("BYE and PRACK are never refused: they would leave a call half open")
        return self

    @property
    def place(self) -> str:
        """``file:line`` of the configuration."""
        return self._place

    @property
    def only_in(self) -> str:
        """What of it can be done to arriving messages only; '' for nothing."""
        for action in self.do:
            if action.verb == "reject":
                return "reject"
            if action.verb in ("set", "replace") and split_field(action.target)[0] == REQUEST_URI:
                return "Request-URI"
        return ""


class RuleLists(Model):
    """Names of lists of ``header_rules``: for what comes in, and for what goes out; one after the other."""

    inbound: Annotated[Words, Field(alias="in")] = []
    outbound: Annotated[Words, Field(alias="out")] = []
