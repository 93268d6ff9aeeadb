"""Session timers of one dialog (RFC 4028): how long a session lives without a refresh, and who refreshes it.

Sans-IO: times are monotonic seconds and arguments. Intervals are whole seconds, as on the wire. Each leg of a call has
a timer of its own, so one side may refresh by itself while we do it on the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from sbc.sip.message import Message

DEFAULT_MIN_SE_S: Final = 90  # RFC 4028 §4: the absolute minimum, and what a missing Min-SE means
MAX_INTERVAL_S: Final = 7 * 86_400  # nobody means more; keeps a hostile number out of our arithmetic
MAX_RAISES = 4  # of our interval by 422, until one is agreed

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Policy:
    """What we ask for: ``interval_s`` (0: no session timers at all) and the shortest interval that we accept."""

    interval_s: int = 0
    min_se_s: int = DEFAULT_MIN_SE_S


class Wanted(NamedTuple):
    """A Session-Expires value; ``refresher`` is ``uac``, ``uas`` or '' for none named."""

    interval_s: int
    refresher: str


def session_expires(message: Message) -> Wanted | None:
    """The Session-Expires of a message; None: there is none that can be read (then it counts as absent)."""
    value = message.get("Session-Expires")
    if value is None:
        return None
    number, *params = value.split(";")
    interval_s = _seconds(number)
    if interval_s is None:
        return None
    for param in params:
        name, _, role = param.partition("=")
        if name.strip().lower() == "refresher":
            role = role.strip().lower()
            return Wanted(interval_s, role if role in ("uac", "uas") else "")
    return Wanted(interval_s, "")


def min_se(message: Message) -> int:
    """The Min-SE of a message, :data:`DEFAULT_MIN_SE_S` without one (§5)."""
    value = message.get("Min-SE")
    seconds = None if value is None else _seconds(value.partition(";")[0])
    return DEFAULT_MIN_SE_S if seconds is None else max(seconds, DEFAULT_MIN_SE_S)


def knows_timer(request: Message) -> bool:
    """Whether the sender of a request understands session timers."""
    return _lists(request, "Supported", "timer") or _lists(request, "Require", "timer")


def is_too_short(policy: Policy, request: Message) -> bool:
    """Whether a request must be refused with 422 and our Min-SE (§9): only its sender's own wish, never a proxy's."""
    wanted = session_expires(request)
    return wanted is not None and wanted.interval_s < policy.min_se_s and knows_timer(request)


class SessionTimer:
    """The session timer of one dialog.

    ``interval_s`` is agreed; ``asks_s`` is what our next request asks for, more than that only after a 422.
    ``ours``: we refresh. ``update``: the other side allows UPDATE, which is preferred to re-INVITE (§7.4).
    ``refreshed_at``: when a 2xx last confirmed the session. ``retry_at``: not to be refreshed before, after a failure.
    """

    __slots__ = ("asks_s", "interval_s", "min_se_s", "ours", "raises", "refreshed_at", "retry_at", "update")

    def __init__(self, interval_s: int, min_se_s: int, *, ours: bool = True) -> None:
        self.interval_s = self.asks_s = interval_s
        self.min_se_s = min_se_s
        self.ours = ours
        self.raises = 0
        self.update = False
        self.refreshed_at = 0.0
        self.retry_at = 0.0

    @property
    def gives_up_at(self) -> float:
        """When to send BYE for want of a refresh: min(32 s, a third) before the session expires (§10)."""
        return self.refreshed_at + self.interval_s - min(32.0, self.interval_s / 3)

    @property
    def acts_at(self) -> float:
        """When something is to be done: our refresh at half the interval (§10), or giving up."""
        if not self.ours:
            return self.gives_up_at
        return min(max(self.refreshed_at + self.interval_s / 2, self.retry_at), self.gives_up_at)

    def failed(self, now: float) -> None:
        """A refresh was refused for a reason that may pass: try again at half of what is left."""
        self.retry_at = now + max(1.0, (self.gives_up_at - now) / 2)

    # As UAC

    def request_headers(self) -> Headers:
        """Session-Expires, and Min-SE where it is not the default, of a session refresh request (§7.1, §7.4)."""
        headers = [("Session-Expires", f"{self.asks_s};refresher={'uac' if self.ours else 'uas'}")]
        if self.min_se_s > DEFAULT_MIN_SE_S:
            headers.append(("Min-SE", str(self.min_se_s)))
        return headers

    def raised(self, refusal: Message) -> bool:
        """Take the Min-SE of a 422 (§7.3); False: it asks for nothing more, or for more each time, so to try again
        would be in vain. The session that is in force still expires when it would have."""
        wanted = min_se(refusal)
        if not self.min_se_s < wanted <= MAX_INTERVAL_S or self.raises >= MAX_RAISES:
            return False
        self.raises += 1
        self.min_se_s = wanted
        self.asks_s = max(self.asks_s, wanted)
        return True

    def confirmed(self, response: Message, now: float) -> None:
        """Take what a 2xx to our request says (§7.2). Without Session-Expires the other side knows no timers: then we
        refresh alone, since a dead peer answers no refresh either way."""
        agreed = session_expires(response)
        if agreed is None:
            self.interval_s = self.asks_s
            self.ours = True
        else:
            self.interval_s = max(min(self.asks_s, agreed.interval_s), DEFAULT_MIN_SE_S)
            self.ours = agreed.refresher != "uas"
        self._heard(response, now)

    # As UAS

    def accepted(self, policy: Policy, request: Message, now: float) -> Headers:
        """Agree to a session refresh request (§9); what our 2xx says of it."""
        wanted = session_expires(request)
        known = knows_timer(request)
        interval_s = policy.interval_s or self.interval_s
        if wanted is not None:
            interval_s = min(interval_s, wanted.interval_s)
        self.min_se_s = max(policy.min_se_s, min(min_se(request), MAX_INTERVAL_S))
        self.interval_s = max(interval_s, self.min_se_s)
        if not known:
            self.ours = True
        elif wanted is not None and wanted.refresher:
            self.ours = wanted.refresher == "uas"
        self._heard(request, now)
        headers = [("Session-Expires", f"{self.interval_s};refresher={'uas' if self.ours else 'uac'}")]
        if known:
            headers.append(("Require", "timer"))
        return headers

    def _heard(self, message: Message, now: float) -> None:
        self.refreshed_at = now
        self.retry_at = 0.0
        self.asks_s = self.interval_s
        self.raises = 0
        if message.get("Allow") is not None:
            self.update = _lists(message, "Allow", "update")


def _seconds(text: str) -> int | None:
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    return min(int(text), MAX_INTERVAL_S)


def _lists(message: Message, name: str, tag: str) -> bool:
    return any(value.lower() == tag for value in message.get_all(name))
