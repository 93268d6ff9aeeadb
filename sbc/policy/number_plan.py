"""Telephone numbers of a peer as E.164 (ITU-T E.164: + and at most 15 digits), and back as that peer writes them.

What is no number, and what a plan does not understand, stays as it was; so do short numbers. What the peer would read
otherwise than it is meant goes out as E.164: :meth:`Numbers.inbound` of :meth:`Numbers.outbound` is always the number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sbc.config.number_plans import NumberPlan
from sbc.errors import SipSyntaxError
from sbc.policy.draft import Draft
from sbc.sip.address import NameAddr
from sbc.sip.uri import NO_PARAMS, Uri, parse_uri

# Where a number may stand besides From, To and the Request-URI
IDENTITIES: Final = (
    "p-asserted-identity",
    "p-preferred-identity",
    "remote-party-id",
    "diversion",
    "history-info",
    "refer-to",
    "referred-by",
)
# Requests about an address of record or a package: there a user is a name, whatever it looks like.
LEFT_ALONE: Final = frozenset({"REGISTER", "PUBLISH", "SUBSCRIBE", "NOTIFY"})

_VISUAL: Final = str.maketrans("", "", "-.()")  # RFC 3966 §3: for the eye
_PLAIN: Final = re.compile(r"\+?[0-9]+")
_LONGEST: Final = 15
_SHORTEST: Final = 7


class Numbers:
    """One plan, by its name."""

    __slots__ = ("_keep", "_plan", "name")

    def __init__(self, name: str, plan: NumberPlan) -> None:
        self.name = name
        self._plan = plan
        self._keep = frozenset(plan.keep)

    def inbound(self, text: str) -> str:
        """A number as the peer writes it, as E.164; ``text`` where it is none."""
        plan = self._plan
        number = text.translate(_VISUAL)
        if not _PLAIN.fullmatch(number):
            return text
        if number[0] == "+":
            return number if _is_full(number[1:]) else text
        if number in self._keep or len(number) <= plan.short_digits:
            return text
        if plan.international and number.startswith(plan.international):
            full = number[len(plan.international) :]
        elif plan.national and number.startswith(plan.national):
            full = plan.country + number[len(plan.national) :]
        elif not plan.plus:
            full = number
        elif plan.area is not None:
            full = plan.country + plan.area + number
        else:
            return text
        return f"+{full}" if _is_full(full) else text

    def outbound(self, text: str) -> str:
        """An E.164 number as the peer gets it; anything else as it is."""
        plan = self._plan
        if text[:1] != "+" or not _is_full(text[1:]) or plan.towards == "as_is":
            return text
        full = text[1:]
        if plan.towards == "e164":
            written = text if plan.plus else full
        elif plan.towards == "national" and full.startswith(plan.country):
            written = plan.national + full[len(plan.country) :]
        elif plan.international:
            written = plan.international + full
        else:
            written = text if plan.plus else full
        return written if self.inbound(written) == text else text

    # In messages

    def arriving(self, draft: Draft, addresses: bool, told: Callable[[str, str], None] | None) -> None:
        """Every number of a message from the peer; ``addresses`` as in :class:`sbc.policy.header_rules.Context`."""
        if draft.method in LEFT_ALONE:
            return
        if addresses and draft.is_request:
            uri = self.uri(draft.uri, self.inbound)
            if uri != draft.uri:
                self._tell(told, "Request-URI", draft.uri, uri)
                draft.uri, draft.changed = uri, True
        self._headers(draft, addresses, self.inbound, told)

    def leaving(self, draft: Draft, addresses: bool, told: Callable[[str, str], None] | None) -> None:
        """Every number of a message for the peer but that of the Request-URI, which :meth:`called` knows."""
        if draft.method not in LEFT_ALONE:
            self._headers(draft, addresses, self.outbound, told)

    def called(self, uri: str) -> str:
        """The Request-URI for the peer."""
        return self.uri(uri, self.outbound)

    def uri(self, text: str, convert: Callable[[str], str]) -> str:
        """A URI with its number converted; ``text`` where it has none."""
        try:
            uri = parse_uri(text)
        except SipSyntaxError:
            return text
        new = self._converted(uri, convert)
        return text if new is None else str(new)

    def _headers(
        self, draft: Draft, addresses: bool, convert: Callable[[str], str], told: Callable[[str, str], None] | None
    ) -> None:
        def edit(address: NameAddr) -> NameAddr | None:
            uri = self._converted(address.uri, convert)
            return None if uri is None else address.replace(uri=uri)

        names = ("from", "to", *IDENTITIES) if addresses and draft.is_request else IDENTITIES
        present = {name.lower() for name, _ in draft.headers}
        for name in names:
            if name in present:
                for old, new in draft.change_addresses(name, edit, "user"):
                    self._tell(told, name.title(), old, new)

    def _converted(self, uri: Uri, convert: Callable[[str], str]) -> Uri | None:
        """None: there is no number, or it stays as it is."""
        if not uri.user:
            return None
        if uri.scheme == "tel":  # RFC 3966 §5.1.4: global wherever it can be
            number = self.inbound(uri.user)
            if number == uri.user or number[0] != "+":
                return None
            return uri._replace(user=number, params=_without_context(uri))
        if not uri.is_sip:
            return None
        user, semicolon, tail = uri.user.partition(";")
        number = user.replace("%2B", "+").replace("%2b", "+")
        if not _PLAIN.fullmatch(number) and (uri.param("user") or "").lower() != "phone":
            return None
        new = convert(number)
        if new == number:
            return None
        kept = [one for one in tail.split(";") if one and not one.lower().startswith("phone-context=")]
        return uri._replace(user=";".join([new, *kept]) if semicolon else new)

    def _tell(self, told: Callable[[str, str], None] | None, where: str, old: str, new: str) -> None:
        if told is not None:
            told(f"Number plan {self.name}: {where}: {old} → {new}.", "")


def _is_full(digits: str) -> bool:
    return _SHORTEST <= len(digits) <= _LONGEST and digits[0] != "0" and digits.isascii() and digits.isdigit()


def _without_context(uri: Uri) -> dict[str, str | None]:
    kept = {name: value for name, value in uri.params.items() if name.lower() != "phone-context"}
    return kept or dict(NO_PARAMS)
