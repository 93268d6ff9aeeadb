"""URIs of SIP: sip, sips and tel taken apart, any other scheme carried whole (RFC 3261 §19.1, RFC 3966)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote

from sbc.errors import SipSyntaxError
from sbc.sip._message import usual_uri

Params = Mapping[str, str | None]
NO_PARAMS: Params = MappingProxyType({})

_SIP_SCHEMES: Final = frozenset({"sip", "sips"})
_HOST_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_SCHEME_CHARS = _HOST_CHARS | {"+"}
_IPV6_CHARS = frozenset("0123456789abcdefABCDEF:.")
_NOT_IN_URI: Final = frozenset(map(chr, range(33))) | frozenset('"<>\x7f')
_TEL_CHARS = frozenset("0123456789ABCDEFabcdef*#-.()")
_TEL_DIGITS = frozenset("0123456789ABCDEFabcdef*#")


class Uri(NamedTuple):
    """One URI, its text kept as received: escapes are not decoded, names of parameters keep their case.

    Of a tel URI ``user`` is the number; of a scheme other than sip, sips and tel it is all that follows the colon.
    ``host`` keeps the brackets of an IPv6 reference; ``address`` is without. A parameter without '=' has value None.
    """

    scheme: str
    user: str | None = None
    password: str | None = None
    host: str = ""
    port: int | None = None
    params: Params = NO_PARAMS
    headers: str = ""  # what follows '?', raw

    @property
    def address(self) -> str:
        """The host without the brackets of an IPv6 reference."""
        return self.host[1:-1] if self.host.startswith("[") else self.host

    @property
    def is_sip(self) -> bool:
        """Scheme sip or sips."""
        return self.scheme in _SIP_SCHEMES

    def param(self, name: str) -> str | None:
        """Value of a parameter by name in any case, '' for one without a value, None for none."""
        return find_param(self.params, name)

    def replace(
        self,
        *,
        scheme: str | None = None,
        user: str | None = None,
        host: str | None = None,
        port: int | None = None,
        params: Params | None = None,
    ) -> Uri:
        """A copy with what is given changed; use ``_replace`` to take a user or port away."""
        return Uri(
            self.scheme if scheme is None else scheme,
            self.user if user is None else user,
            self.password,
            self.host if host is None else host,
            self.port if port is None else port,
            self.params if params is None else params,
            self.headers,
        )

    def __str__(self) -> str:
        text = self.scheme + ":"
        if self.host:
            if self.user is not None:
                text += self.user
                if self.password is not None:
                    text += ":" + self.password
                text += "@"
            text += self.host
            if self.port is not None:
                text += f":{self.port}"
        else:
            text += self.user or ""
        if self.params:
            text += format_params(self.params)
        if self.headers:
            text += "?" + self.headers
        return text

    def equivalent(self, other: Uri) -> bool:
        """Do both name the same resource by the rules of RFC 3261 §19.1.4 (tel: RFC 3966 §5)?"""
        if self.scheme != other.scheme:
            return False
        if self.scheme == "tel":
            return _tel_key(self) == _tel_key(other)
        if self.scheme not in _SIP_SCHEMES:
            return str(self) == str(other)
        if (
            self.host.lower() != other.host.lower()
            or self.port != other.port
            or _unescaped(self.user) != _unescaped(other.user)
            or _unescaped(self.password) != _unescaped(other.password)
            or _header_set(self.headers) != _header_set(other.headers)
        ):
            return False
        mine, theirs = _param_set(self.params), _param_set(other.params)
        if any(theirs[name] != value for name, value in mine.items() if name in theirs):
            return False
        alone = mine.keys() ^ theirs.keys()
        return not any(name in alone for name in ("user", "ttl", "method", "maddr", "transport"))


def find_param(params: Params, name: str) -> str | None:
    """Value of a parameter by name in any case, '' for one without a value, None for none."""
    if name in params:
        return params[name] or ""
    name = name.lower()
    for key, value in params.items():
        if key.lower() == name:
            return value or ""
    return None


def format_params(params: Params) -> str:
    """``;name=value;flag``"""
    return "".join([f";{name}" if value is None else f";{name}={value}" for name, value in params.items()])


def parse_uri(text: str) -> Uri:
    """Parse one URI without angle brackets. Raises SipSyntaxError (400); an unknown scheme is no error."""
    return usual_uri(Uri, NO_PARAMS, text) or _parse_any(text)


def _parse_any(text: str) -> Uri:
    if not _NOT_IN_URI.isdisjoint(text):
        raise SipSyntaxError("a URI holds a blank, a control character, a quote or an angle bracket")
    scheme, colon, rest = text.partition(":")
    if not colon or not rest or not scheme[:1].isalpha() or not _SCHEME_CHARS.issuperset(scheme):
        raise SipSyntaxError("a URI has no scheme, or nothing behind it")
    scheme = scheme.lower()
    if scheme == "tel":
        return _parse_tel(rest)
    if scheme not in _SIP_SCHEMES:
        return Uri(scheme, rest)

    user: str | None
    password: str | None = None
    user, at, where = rest.partition("@")
    if at:
        if not user:
            raise SipSyntaxError("a SIP URI has an empty user")
        if ":" in user:
            user, _, password = user.partition(":")
    else:
        user, where = None, rest
    where, _, headers = where.partition("?")
    host_port, semicolon, tail = where.partition(";")
    if "@" in tail:
        raise SipSyntaxError("a SIP URI has two @")
    host, port = parse_host_port(host_port)
    return Uri(scheme, user, password, host, port, _uri_params(tail) if semicolon else NO_PARAMS, headers)


def parse_host_port(text: str) -> tuple[str, int | None]:
    """``host[:port]``; an IPv6 reference keeps its brackets. Raises SipSyntaxError."""
    if text[:1] == "[":
        host, bracket, rest = text.partition("]")
        if not bracket or not _IPV6_CHARS.issuperset(host[1:]) or host.count(":") < 2:
            raise SipSyntaxError("an IPv6 reference is malformed")
        host += "]"
        if not rest:
            return host, None
        if rest[0] != ":":
            raise SipSyntaxError("something follows an IPv6 reference")
        return host, _port(rest[1:])
    host, colon, port = text.partition(":")
    if not host or not _HOST_CHARS.issuperset(host):
        raise SipSyntaxError("a host is malformed")
    return host, _port(port) if colon else None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or (port := int(text)) > 65535:
        raise SipSyntaxError("a port is malformed")
    return port


def _uri_params(text: str) -> Params:
    """What follows the first ';'. An empty name, and the second of a repeated one, are left out."""
    params: dict[str, str | None] = {}
    for item in text.split(";"):
        name, equals, value = item.partition("=")
        if name and name not in params:
            params[name] = value if equals else None
    return params


def _parse_tel(text: str) -> Uri:
    number, semicolon, tail = text.partition(";")
    digits = number.removeprefix("+")
    if not digits or not _TEL_CHARS.issuperset(digits) or _TEL_DIGITS.isdisjoint(digits):
        raise SipSyntaxError("a tel URI holds no number")
    return Uri("tel", number, params=_uri_params(tail) if semicolon else NO_PARAMS)


def _unescaped(text: str | None) -> str | None:
    return text if text is None or "%" not in text else unquote(text, errors="surrogateescape")


def _param_set(params: Params) -> dict[str, str]:
    return {unquote(name).lower(): unquote(value or "").lower() for name, value in params.items()}


def _header_set(headers: str) -> list[tuple[str, str]]:
    pairs = (item.partition("=") for item in headers.split("&") if item)
    return sorted((unquote(name).lower(), unquote(value)) for name, _, value in pairs)


def _tel_key(uri: Uri) -> tuple[str, dict[str, str]]:
    visual = str.maketrans("", "", "-.()")
    return (uri.user or "").translate(visual).lower(), _param_set(uri.params)
