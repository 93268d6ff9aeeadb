"""Who a sender is, by digest (RFC 7616, RFC 8760): challenges of our own, and what answers them.

Nonces are of one worker, whose key nobody else has: a sender whose next request another worker takes is challenged
anew, with stale=true, and asks nobody for a password again.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Final, NamedTuple

from sbc.clock import Clock
from sbc.errors import SipSyntaxError
from sbc.sip import digest, nonce
from sbc.sip.uri import parse_uri

if TYPE_CHECKING:
    from sbc.routing.request import Request

ALGORITHMS: Final = ("SHA-256", "MD5")
LIFETIME_S: Final = 300.0
REMEMBERED: Final = 20_000  # nonces whose count is known; the oldest goes, and is stale
Secret = str | Mapping[str, str] | None
PasswordSource = Callable[[str], Secret | Awaitable[Secret]]
_NOBODYS: Final = secrets.token_hex(16)


class Judged(NamedTuple):
    """``user`` is '' for who has proved nothing; ``stale``: he has, but for a nonce that is good no more."""

    user: str = ""
    stale: bool = False
    header: str = ""


def challenge_of(method: str) -> tuple[str, int]:
    """The header and status of a challenge: a registrar asks for itself, for all else we stand in the way."""
    return ("WWW-Authenticate", 401) if method == "REGISTER" else ("Proxy-Authenticate", 407)


class Nonces:
    """The nonces of one worker, and how often each was used."""

    __slots__ = ("_clock", "_counts", "_key", "_serial")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._serial = 0
        self._counts: dict[int, int] = {}  # by serial number, the highest nonce count that was taken; oldest first

    def challenges(self, realm: str, source: str, algorithms: Sequence[str], stale: bool) -> list[str]:
        """The values of a challenge. ValueError for a realm that cannot be written between quotes."""
        self._serial += 1
        if len(self._counts) >= REMEMBERED:
            del self._counts[next(iter(self._counts))]
        self._counts[self._serial] = 0
        made = nonce.mint(self._key, self._clock.monotonic(), self._serial, realm=realm, source=source)
        return digest.challenges(realm, made, algorithms=algorithms, stale=stale)

    async def judge(
        self, request: Request, realm: str, password_of: PasswordSource, algorithms: Sequence[str]
    ) -> Judged:
        """What the credentials of a request prove."""
        header = "Authorization" if request.method == "REGISTER" else "Proxy-Authorization"
        given = next(_credentials(request, header, realm, algorithms), None)
        if given is None:
            return Judged()
        secret = password_of(given.username)
        if isawaitable(secret):
            secret = await secret
        name = given.hash.removesuffix("-sess")
        if isinstance(secret, Mapping):
            ha1 = secret.get(name)
        else:
            ha1 = None if secret is None else digest.ha1(name, given.username, realm, secret)
        # As much work for a user that there is not: the time tells nobody which names there are.
        known = ha1 or digest.ha1(name, given.username, realm, _NOBODYS)
        received = request._received
        proved = digest.verify(given, known, received.method, received.body)
        if not proved or ha1 is None or not _is_for(given.uri, received.uri):
            return Judged()
        fresh = self._take(given, realm, request.source[0])
        return Judged(given.username, header=header) if fresh else Judged(stale=True)

    def _take(self, given: digest.Authorization, realm: str, source: str) -> bool:
        """Whether this is a nonce of ours, good still, with a count that it was not yet used with."""
        found = nonce.check([self._key], given.nonce, self._clock.monotonic(), LIFETIME_S, realm=realm, source=source)
        if found.verdict is not nonce.Verdict.GOOD:
            return False
        count = given.nc or 1  # RFC 2069 counts nothing: once, then
        if count <= self._counts.get(found.serial, count):
            return False
        self._counts[found.serial] = count
        return True


def _credentials(
    request: Request, header: str, realm: str, algorithms: Sequence[str]
) -> Iterator[digest.Authorization]:
    """Those for this realm, by an algorithm that was offered."""
    for value in request._received.get_all(header):
        try:
            given = digest.parse_authorization(value)
        except SipSyntaxError:
            continue
        known = given is not None and given.hash.removesuffix("-sess") in algorithms
        if given is not None and known and given.realm == realm and not given.userhash:
            yield given


def _is_for(uri: str, asked_for: str) -> bool:
    """Whether credentials were made for this Request-URI: the same user at the same host, whatever else differs."""
    try:
        signed, asked = parse_uri(uri), parse_uri(asked_for)
    except SipSyntaxError:
        return False
    return signed.user == asked.user and signed.host.lower() == asked.host.lower()
