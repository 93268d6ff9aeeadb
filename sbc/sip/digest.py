"""Digest authentication (RFC 3261 §22 with RFC 7616 and RFC 8760): challenges, answers to them, and their check.

Text of quoted strings stays as it stands between the quotes, backslashes included: that is what is hashed (``unq(X)``
of RFC 7616 §3.4.1) and what is sent back. Only user names and passwords of ours are escaped and unescaped.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sbc.errors import SipSyntaxError

# Strongest first. The names are compared without case; -sess variants rank with their hash.
HASHES: Final = {"SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"}
ALGORITHMS: Final = tuple(name + session for name in HASHES for session in ("-sess", ""))
CHALLENGES_MAX: Final = 16
PARAMS_MAX: Final = 32

_TOKEN: Final = r"[-.!%*_+`'~A-Za-z0-9]+"
# One auth-param, perhaps with the scheme that begins a challenge before it. No part can match in two ways.
_PARAM: Final = re.compile(
    rf"[ \t,]*(?:({_TOKEN})[ \t]+)?({_TOKEN})[ \t]*=[ \t]*"
    r'(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^ \t,"\\]+))[ \t]*(?=,|$)',
    re.DOTALL,
)
_REST: Final = re.compile(r"[ \t,]*$")
_LHEX: Final = re.compile(r"[0-9a-fA-F]+$")
_TRUE: Final = "true"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server asks for. ``proxy``: it came in a 407.

    ``algorithm`` is as it was written, '' where none was, which means MD5. ``qop`` in lower case, () where the server
    speaks RFC 2069 only. ``stale``: the answer was right, but its nonce too old.
    """

    realm: str
    nonce: str
    algorithm: str = ""
    qop: tuple[str, ...] = ()
    opaque: str | None = None
    stale: bool = False
    userhash: bool = False
    proxy: bool = False

    @property
    def hash(self) -> str:
        """Which of :data:`ALGORITHMS` it names; '' for another."""
        return _canonical(self.algorithm)

    @property
    def answerable(self) -> bool:
        """Whether we know its algorithm and one of its qop values."""
        return bool(self.hash) and (not self.qop or "auth" in self.qop or "auth-int" in self.qop)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whom we are for one realm. ``realm`` '' would offer the password to whoever asks: leave it only where the peer
    that may ask is known otherwise."""

    username: str
    password: str
    realm: str = ""


@dataclass(frozen=True, slots=True)
class Authorization:
    """The answer to a challenge, as a request carries it. ``username`` is unescaped; ``nc`` is 0 without qop."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str = ""
    cnonce: str = ""
    qop: str = ""
    nc: int = 0
    opaque: str | None = None
    userhash: bool = False

    @property
    def hash(self) -> str:
        """Which of :data:`ALGORITHMS` it names; '' for another."""
        return _canonical(self.algorithm)


def parse_challenges(values: Iterable[str], *, proxy: bool) -> list[Challenge]:
    """The digest challenges of WWW-Authenticate (or, with ``proxy``, Proxy-Authenticate) values, in order.

    A value may hold several. One that is malformed, or names a parameter twice, is left out, as are other schemes.
    """
    found: list[Challenge] = []
    for value in values:
        for scheme, params in _parse(value):
            if scheme.lower() != "digest" or "realm" not in params or "nonce" not in params:
                continue
            qop = tuple(option.strip().lower() for option in params.get("qop", "").split(",") if option.strip())
            found.append(
                Challenge(
                    params["realm"],
                    params["nonce"],
                    params.get("algorithm", ""),
                    qop,
                    params.get("opaque"),
                    params.get("stale", "").lower() == _TRUE,
                    params.get("userhash", "").lower() == _TRUE,
                    proxy,
                )
            )
            if len(found) >= CHALLENGES_MAX:
                return found
    return found


def choose(
    challenges: Iterable[Challenge], realm: str = "", *, algorithms: Sequence[str] = ALGORITHMS
) -> Challenge | None:
    """The challenge to answer: the strongest that we can, of equals the first; None for none.

    ``realm`` other than '' leaves out the challenges of other realms. RFC 8760 §2.4 lets local policy prefer: ours is
    strength, so that nobody on the way can talk two sides into MD5 by the order of headers.
    """
    best: tuple[int, Challenge] | None = None
    for challenge in challenges:
        if challenge.answerable and challenge.hash in algorithms and (not realm or challenge.realm == realm):
            rank = ALGORITHMS.index(challenge.hash) // 2
            if best is None or rank < best[0]:
                best = rank, challenge
    return None if best is None else best[1]


class Session:
    """Our side of one authentication: answers with one nonce, counted, until the server gives another.

    ``cnonce`` is a fresh random token (no quotes or backslashes). Raises ValueError for a challenge that is not
    answerable, or that comes from another realm than the credentials are for.
    """

    __slots__ = ("_ha1", "_qop", "_username", "challenge", "cnonce", "count", "credentials")

    def __init__(self, challenge: Challenge, credentials: Credentials, cnonce: str) -> None:
        if not challenge.answerable:
            raise ValueError("this challenge asks for what we do not know")
        if credentials.realm and challenge.realm != credentials.realm:
            raise ValueError(f"the credentials are for {credentials.realm}, not for {challenge.realm}")
        self.challenge = challenge
        self.credentials = credentials
        self.cnonce = cnonce
        self.count = 0
        name = challenge.hash
        self._ha1 = ha1(name, credentials.username, challenge.realm, credentials.password)
        if name.endswith("-sess"):
            self._ha1 = session_key(name, self._ha1, challenge.nonce, cnonce)
        # auth-int breaks where anything on the way touches the body, so it is for servers that leave no choice
        self._qop = "" if not challenge.qop else "auth" if "auth" in challenge.qop else "auth-int"
        self._username = (
            digest(name, f"{credentials.username}:{challenge.realm}")
            if challenge.userhash
            else _escaped(credentials.username)
        )

    @property
    def header(self) -> str:
        """The header that answers: Authorization or Proxy-Authorization."""
        return "Proxy-Authorization" if self.challenge.proxy else "Authorization"

    def refused(self, challenge: Challenge) -> bool:
        """Whether a challenge that came back for our answer means that the credentials are wrong: then do not try
        again (RFC 7616 §3.3: with ``stale`` the answer was right). Somebody else's challenge does not say so."""
        ours = self.challenge
        return self.count > 0 and (challenge.realm, challenge.proxy) == (ours.realm, ours.proxy) and not challenge.stale

    def renew(self, info: str) -> None:
        """Take the Authentication-Info of a 2xx: with ``nextnonce``, that nonce is the one from now on (RFC 7616 §3.5).
        The key of a -sess algorithm stays, as no new challenge has come (§3.4.2)."""
        for _, params in _parse("Digest " + info):
            if nonce := params.get("nextnonce"):
                self.challenge = replace(self.challenge, nonce=nonce, stale=False)
                self.count = 0

    def answer(self, method: str, uri: str, body: bytes = b"") -> str:
        """The value of :attr:`header` for one request; ``uri`` is its Request-URI as sent."""
        challenge, qop = self.challenge, self._qop
        self.count += 1
        response = response_of(
            challenge.hash, self._ha1, challenge.nonce, method, uri, self.count, self.cnonce, qop, body
        )
        parts = [
            f'Digest username="{self._username}"',
            f'realm="{challenge.realm}"',
            f'nonce="{challenge.nonce}"',
            f'uri="{uri}"',
            f'response="{response}"',
        ]
        if challenge.algorithm:
            parts.append(f"algorithm={challenge.algorithm}")
        if qop:
            parts.append(f'cnonce="{self.cnonce}"')
            parts.append(f"qop={qop}")
            parts.append(f"nc={self.count:08x}")
        elif challenge.hash.endswith("-sess"):
            parts.append(f'cnonce="{self.cnonce}"')
        if challenge.opaque is not None:
            parts.append(f'opaque="{challenge.opaque}"')
        if challenge.userhash:
            parts.append("userhash=true")
        return ", ".join(parts)


# Server side.


def challenges(
    realm: str,
    nonce: str,
    *,
    algorithms: Sequence[str] = ("SHA-256", "MD5"),
    qop: Sequence[str] = ("auth",),
    opaque: str = "",
    stale: bool = False,
) -> list[str]:
    """Values of WWW-Authenticate headers, one for each algorithm in this order: put the preferred one first
    (RFC 8760 §2.3). ValueError where realm, nonce or opaque hold a quote or a backslash."""
    if any(mark in text for text in (realm, nonce, opaque) for mark in '"\\\r\n'):
        raise ValueError("realm, nonce and opaque are sent between quotes as they are")
    common = f'Digest realm="{realm}", nonce="{nonce}"'
    if qop:
        common += f', qop="{",".join(qop)}"'
    if opaque:
        common += f', opaque="{opaque}"'
    if stale:
        common += ", stale=true"
    return [f"{common}, algorithm={algorithm}" for algorithm in algorithms]


def parse_authorization(value: str) -> Authorization | None:
    """The value of an Authorization or Proxy-Authorization header; None for a scheme other than Digest.

    Raises SipSyntaxError (400) for a malformed one, which includes a parameter that is named twice.
    """
    if value.lstrip(" \t")[:7].lower() not in ("digest ", "digest\t"):
        return None
    parsed = list(_parse(value))
    if len(parsed) != 1:
        raise SipSyntaxError("the credentials of a request are malformed")
    params = parsed[0][1]
    missing = [name for name in ("username", "realm", "nonce", "uri", "response") if name not in params]
    if missing:
        raise SipSyntaxError(f"the credentials of a request have no {missing[0]}")
    qop = params.get("qop", "").lower()
    nc = params.get("nc", "")
    if qop:
        if len(nc) != 8 or not _LHEX.match(nc):
            raise SipSyntaxError("the nonce count of a request is malformed")
        if "cnonce" not in params:
            raise SipSyntaxError("the credentials of a request have no cnonce")
    return Authorization(
        _unescaped(params["username"]),
        params["realm"],
        params["nonce"],
        params["uri"],
        params["response"],
        params.get("algorithm", ""),
        params.get("cnonce", ""),
        qop,
        int(nc, 16) if qop else 0,
        params.get("opaque"),
        params.get("userhash", "").lower() == _TRUE,
    )


def verify(authorization: Authorization, ha1: str, method: str, body: bytes = b"") -> bool:
    """Whether the response proves knowledge of ``ha1``, in constant time.

    ``ha1`` is :func:`ha1` of the user for the authorization's hash, without session: keep one for each hash. Realm,
    nonce, nonce count and URI are the caller's to judge. An unknown algorithm or qop is False.
    """
    name = authorization.hash
    if not name or authorization.qop not in ("", "auth", "auth-int"):
        return False
    if name.endswith("-sess"):
        ha1 = session_key(name, ha1, authorization.nonce, authorization.cnonce)
    expected = response_of(
        name,
        ha1,
        authorization.nonce,
        method,
        authorization.uri,
        authorization.nc,
        authorization.cnonce,
        authorization.qop,
        body,
    )
    return hmac.compare_digest(expected.encode(), _octets(authorization.response.lower()))


# Both sides.


def digest(algorithm: str, text: str | bytes) -> str:
    """H of RFC 7616 §3.4: the hash behind one of :data:`ALGORITHMS`, in lower-case hexadecimal."""
    octets = _octets(text) if isinstance(text, str) else text
    return hashlib.new(HASHES[algorithm.removesuffix("-sess")], octets, usedforsecurity=False).hexdigest()


def ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """H(A1) without session: all that a server need keep of a password (RFC 7616 §3.4.2)."""
    return digest(algorithm, f"{username}:{realm}:{password}")


def session_key(algorithm: str, ha1: str, nonce: str, cnonce: str) -> str:
    """H(A1) of a -sess algorithm, from that without (RFC 7616 §3.4.2)."""
    return digest(algorithm, f"{ha1}:{nonce}:{cnonce}")


def response_of(
    algorithm: str, ha1: str, nonce: str, method: str, uri: str, nc: int, cnonce: str, qop: str, body: bytes = b""
) -> str:
    """The response (RFC 7616 §3.4.1); ``qop`` '' is that of RFC 2069."""
    a2 = f"{method}:{uri}"
    if qop == "auth-int":
        a2 += ":" + digest(algorithm, body)
    ha2 = digest(algorithm, a2)
    if not qop:
        return digest(algorithm, f"{ha1}:{nonce}:{ha2}")
    return digest(algorithm, f"{ha1}:{nonce}:{nc:08x}:{cnonce}:{qop}:{ha2}")


def _canonical(algorithm: str) -> str:
    if not algorithm:
        return "MD5"
    lowered = algorithm.lower()
    return next((name for name in ALGORITHMS if name.lower() == lowered), "")


def _parse(value: str) -> Iterable[tuple[str, Mapping[str, str]]]:
    """Scheme and parameters of each challenge in a header value, names in lower case; malformed ones left out."""
    found: list[tuple[str, dict[str, str] | None]] = []
    at = 0
    while match := _PARAM.match(value, at):
        scheme, name, quoted, token = match.groups()
        if scheme is not None:
            found.append((scheme, {}))
        elif not found:
            return []
        params = found[-1][1]
        if params is not None:
            name = name.lower()
            if name in params or len(params) >= PARAMS_MAX:
                found[-1] = found[-1][0], None
            else:
                params[name] = token if quoted is None else quoted
        at = match.end()
    if not _REST.match(value, at) and found:
        found[-1] = found[-1][0], None  # whatever follows is not known to belong to another
    return [(scheme, params) for scheme, params in found if params is not None]


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL) if "\\" in text else text
