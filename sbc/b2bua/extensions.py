"""Which SIP extensions (option tags) we speak in a realm, and which a message may require of us."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sbc.b2bua.settings import CoreSettings
    from sbc.sip.message import Message

Headers = list[tuple[str, str]]


def tags(settings: CoreSettings) -> tuple[str, ...]:
    """The option tags that we support towards every realm."""
    return ("timer",) if settings.session_timers.interval_s else ()


def supported(settings: CoreSettings) -> Headers:
    """The Supported header of what we send (RFC 3261 §20.37), or nothing."""
    found = tags(settings)
    return [("Supported", ", ".join(found))] if found else []


def unsupported(settings: CoreSettings, request: Message) -> list[str]:
    """What a request requires that we do not speak: the Unsupported of a 420 (§8.2.2.3)."""
    required = request.get_all("Require")
    if not required:
        return required
    known = tags(settings)
    return [tag for tag in required if tag.lower() not in known]
