"""Which SIP extensions (option tags) we speak in a realm, and which a message may require of us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sbc.b2bua.settings import CoreSettings
    from sbc.sip.message import Message

Headers = list[tuple[str, str]]
_REQUIRING: Final = frozenset({"require", "proxy-require"})


def tags(settings: CoreSettings, realm: str, *, reliable: bool) -> tuple[str, ...]:
    """The option tags that we support towards a realm. ``reliable``: 100rel among them, where the realm allows it."""
    found: tuple[str, ...] = ("timer",) if settings.session_timers.interval_s else ()
    if any(policy != "refuse" for policy in settings.transfers.values()):
        found += ("replaces", "norefersub")  # RFC 3891 §6.2, RFC 4488 §7
    return (*found, "100rel") if reliable and settings.realms[realm].reliable != "never" else found


def supported(settings: CoreSettings) -> dict[str, tuple[Headers, Headers]]:
    """By realm, the Supported header of what we send (RFC 3261 §20.37), or nothing: without 100rel and with it."""

    def header(realm: str, *, reliable: bool) -> Headers:
        found = tags(settings, realm, reliable=reliable)
        return [("Supported", ", ".join(found))] if found else []

    return {realm: (header(realm, reliable=False), header(realm, reliable=True)) for realm in settings.realms}


def unsupported(settings: CoreSettings, realm: str, request: Message) -> list[str]:
    """What a request requires that we do not speak: the Unsupported of a 420 (§8.2.2.3). 100rel is about INVITE.

    What it requires of proxies nobody behind us will ever hear of, so it is refused as well (§20.29).
    """
    if not request.having(_REQUIRING):
        return []
    known = tags(settings, realm, reliable=request.method == "INVITE")
    required = [tag for tag in request.get_all("Require") if tag.lower() not in known]
    return required + request.get_all("Proxy-Require")
