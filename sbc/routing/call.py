"""A call as routes see it: to be read, to be ended, or waiting for a decision.

The objects are thin views of the core's subjects: a change is made there at once, an action is a decision of the core
and complete when its ``await`` returns. Methods are ``async`` although not all of them wait, so that later ones may.
"""

from __future__ import annotations

from collections.abc import Sequence

from media.protocol import StreamStats
from sbc.b2bua import subjects
from sbc.b2bua.announce import Announcement
from sbc.b2bua.scope import Scope
from sbc.b2bua.subjects import Attempt, Redirects, Target
from sbc.errors import SipSyntaxError
from sbc.routing import media
from sbc.routing.node import STRANGER, Node, Peer, flattened
from sbc.routing.routes import BranchRoute, FailureRoute, ReplyRoute, RequestRoute, RouteError
from sbc.routing.scopes import Flags, Variables, transaction_of
from sbc.sip.uri import Uri, parse_uri
from sbc.telemetry.log import Logger

Where = str | Peer | Target
Elsewhere = str | tuple[str, float]  # a URI, with its preference q where there are several


class CallView:
    """A call, to be read; and what the author keeps with it."""

    __slots__ = ("_call", "_log", "node")

    def __init__(self, node: Node, call: subjects.Call) -> None:
        self.node = node
        self._call = call
        self._log: Logger | None = None

    @property
    def key(self) -> str:
        """The name of the call in log, journal and CDR."""
        return self._call.key

    @property
    def direction(self) -> str:
        """The direction of the caller's peer, as configured."""
        return self._call.direction

    @property
    def realm(self) -> str:
        """The realm that the call came from."""
        return self._call.a.realm

    @property
    def peer(self) -> Peer:
        """The peer that the call came from."""
        return self.node.peers.get(self._call.a.peer, STRANGER)

    @property
    def request_uri(self) -> Uri:
        """The URI that was called, as the main route leaves it; raises SipSyntaxError when it is none."""
        changes = self._call.changes
        return parse_uri(self._call.ruri if changes is None else changes.uri)

    @property
    def called_number(self) -> str:
        """The user part of the called URI, as the main route leaves it; '' where there is none."""
        changes = self._call.changes
        return user_of(self._call.ruri if changes is None else changes.uri)

    @property
    def calling_number(self) -> str:
        """The user part of the caller's From, as the main route leaves it; '' where there is none. Nobody has proved
        it."""
        changes = self._call.changes
        return user_of(self._call.from_uri if changes is None else changes.from_uri)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every branch that was tried, in order."""
        return tuple(self._call.attempts)

    @property
    def variables(self) -> Variables:
        """Kept with the call, in the journal too: JSON values only."""
        return Variables(self.node, self._call)

    @property
    def flags(self) -> Flags:
        """Names that are set or not; kept like variables."""
        return Flags(self.node, self._call)

    @property
    def transaction(self) -> Scope:
        """Flags and variables of any kind that are kept from the INVITE to its final answer, and then gone."""
        return transaction_of(self._call)

    async def media_statistics(self) -> dict[str, list[StreamStats]]:
        """What the relay has counted, by leg, a list of its streams each; empty where nothing is relayed."""
        return await media.query(self.node, self._call)

    @property
    def log(self) -> Logger:
        """The log, bound to the call."""
        if self._log is None:
            self._log = self.node.log.bind(call=self._call.key)
        return self._log


class EstablishedCall(CallView):
    """A call that can be ended."""

    __slots__ = ()

    async def release(self, reason: str, *, cause: int = 16, status: int = 500) -> None:
        """End the call on both sides: BYE where it is answered, CANCEL or ``status`` where it is not.

        ``cause`` is the Q.850 cause for the CDR and the Reason header (RFC 3326).
        """
        node = self.node
        with node.acts:
            node.core.release(self._call, node.clock.monotonic(), reason=reason, cause=cause, status=status)

    def let_media_go(self) -> str:
        """Let the two sides exchange media directly from now on; each then learns the other's media address.

        Both are asked; should one refuse, everything stays as it is, and the log says so. Returns '' when they are
        being asked, else in a sentence why that cannot be (SRTP, NAT, other IP versions, a call that is not up).
        """
        return self._move_media(None)

    def relay_media(self, profile: str = "") -> str:
        """The reverse; ``profile`` is for the caller's side, '' that of its peer. RouteError for an unknown one."""
        node = self.node
        profile = profile or node.relay_profile(self._call.a.peer)
        if profile not in node.media_profiles or node.media_profiles[profile].direct:
            raise RouteError(f"no media profile {profile!r} that relays is configured")
        return self._move_media(profile)

    def _move_media(self, profile: str | None) -> str:
        node = self.node
        with node.acts:
            return node.core.move_media(self._call, profile, _whatever, node.clock.monotonic())


def _whatever(reason: str, now: float) -> None:
    """The core writes into the log how it ended."""


class Media:
    """Where the media of one call goes. Say it before dialling."""

    __slots__ = ("_call", "_node")

    def __init__(self, node: Node, call: subjects.Call) -> None:
        self._node = node
        self._call = call

    def engage(self, profile: str = "", *, media_set: str = "") -> None:
        """Relay the media for the whole call: offer, answer and delete follow by themselves.

        ``profile`` is for the caller's side, '' that of its peer; the called side has that of its own peer. ``direct``
        is as :meth:`direct`. ``media_set`` names the media workers that may relay, '' those of the caller's peer or
        realm. Raises RouteError for a profile or set that is not configured.
        """
        node, call = self._node, self._call
        profile = profile or node.media_profile(call.a.peer)
        if profile not in node.media_profiles:
            raise RouteError(f"no media profile {profile!r} is configured; there are: {', '.join(node.media_profiles)}")
        if media_set and media_set not in node.media_sets:
            raise RouteError(f"no media set {media_set!r} is configured; there are: {', '.join(node.media_sets)}")
        call.media_profile = None if node.media_profiles[profile].direct else profile
        call.media_set = media_set or node.media_set(call.a.peer, call.a.realm)

    def direct(self) -> None:
        """Let the two sides exchange media directly. Each then learns the other's media address."""
        self._call.media_profile = None

    def offer(self, profile: str = "", *, media_set: str = "") -> None:
        """As :meth:`engage`, for the branches that are dialled from now on: each may choose anew (``branch.media``).

        Raises RouteError also for another set than that of the session which the call has: :meth:`delete` ends it.
        """
        media.choose_set(self._node, self._call, media_set)
        self.engage(profile, media_set=self._call.media_set)

    async def delete(self) -> None:
        """End what the relay has of this call; the next branches are direct unless they are offered it again."""
        await media.delete(self._node, self._call)
        self._call.media_profile = None

    async def query(self) -> dict[str, list[StreamStats]]:
        """What the relay has counted, by leg, a list of its streams each; empty where nothing is relayed."""
        return await media.query(self._node, self._call)


class Call(EstablishedCall):
    """A call that waits for a decision: dial, reject, or dial the next one."""

    __slots__ = ("media",)

    def __init__(self, node: Node, call: subjects.Call) -> None:
        self.node = node
        self._call = call
        self._log = None
        self.media = Media(node, call)

    @property
    def has_next(self) -> bool:
        """Whether a target of the last ``dial`` is left."""
        return self._call.has_next

    @property
    def lifetime_s(self) -> float:
        """How long the call may last once answered; 0: as long as the node lets any call last."""
        return self._call.lifetime_s

    @lifetime_s.setter
    def lifetime_s(self, seconds: float) -> None:
        if not seconds >= 0:
            raise RouteError(f"lifetime_s = {seconds}: a length of time in seconds, 0 for the node's own")
        self._call.lifetime_s = seconds

    async def dial(
        self,
        to: Where | Sequence[Where | Sequence[Where]],
        *,
        number: str | None = None,
        follow_redirects: Redirects | None = None,
        on_branch: BranchRoute | None = None,
        on_reply: ReplyRoute | None = None,
        on_failure: FailureRoute | None = None,
    ) -> None:
        """Send the call on: to one target or to several, one after the other; those of a list within the list at once.

        ``dial([["desk", "mobile"], "voicemail"])`` lets desk and mobile ring together. The first that answers has the
        call. When all of them have failed, ``on_failure`` runs and may say ``dial_next``; without it the next is tried
        by itself, as long as it may do better than a busy user would. 6xx ends the list at once. :func:`by_q` makes
        such a list of targets with preferences.

        A target is a peer or its name (then ``number`` is called at its gateway, by default the called number), the
        SIP URI of a peer's gateway, or a Target. A host name is looked up first (RFC 3263) and stands for all its
        servers, one after the other. ``follow_redirects`` says whether the Contacts of a 3xx are tried: ``never``,
        those of the ``peer`` that redirects, or those of any peer in its ``realm``; None: as the peer is configured.
        Raises RouteError for a target that leads nowhere, and for too many at once.
        """
        wheres: Sequence[Where | Sequence[Where]] = (to,) if isinstance(to, (str, Peer, Target)) else to
        node, call = self.node, self._call
        called = self.called_number if number is None else number
        targets: list[Target | Sequence[Target]] = [
            node.target(where, called)
            if isinstance(where, (str, Peer, Target))
            else [node.target(one, called) for one in where]
            for where in wheres
        ]
        if not targets:
            raise RouteError("dial: there is no target to dial")
        if node.resolver is not None and any(node.is_named(target) for target in flattened(targets)):
            targets = await node.located(targets)
        now = node.clock.monotonic()
        try:
            with node.acts:
                node.core.dial(
                    call,
                    targets,
                    now,
                    follow_redirects=follow_redirects,
                    on_branch=on_branch,
                    on_reply=on_reply,
                    on_failure=on_failure,
                )
        except ValueError as error:
            raise RouteError(f"dial: {error}") from error

    async def announce(
        self,
        file: str,
        *,
        then: int | RequestRoute,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
        limit_s: float = 60.0,
    ) -> None:
        """Let the caller hear a prompt of the media workers before anybody answers (183), then refuse the call with the
        status ``then`` (300 to 699), or run the route ``then``, which decides about it as a first one does.

        ``file`` is a WAV below ``media.prompts``. A caller who cannot hear it (no offer in the INVITE, no PCMA or PCMU,
        no media worker) is spared the wait, which the log tells. It ends after ``limit_s`` at the latest. Media that
        were not engaged are, under the profile of the caller's peer. Raises RouteError for what cannot be a prompt.
        """
        if isinstance(then, int) and not 300 <= then <= 699:
            raise RouteError(f"announce(then={then}): a refusal is a status of 300 to 699")
        if not file or file.startswith("/") or ".." in file.split("/"):
            raise RouteError(f"announce({file!r}): the name of a prompt is relative to the directory of prompts")
        if not 0 < limit_s <= 3600:
            raise RouteError(f"announce(limit_s={limit_s}): seconds, 3600 at most")
        node, call = self.node, self._call
        if call.media_profile is None:
            direct = node.media_profiles[node.media_profile(call.a.peer)].direct
            self.media.engage("default" if direct else "")
        announcement = Announcement(
            node.core.requests.core, call, file, then, limit_s=limit_s, reason=reason, headers=tuple(headers)
        )
        with node.acts:
            announcement.begin(node.clock.monotonic())

    async def dial_next(self, *, on_failure: FailureRoute | None = None) -> bool:
        """Send the call to the next target, or the next group, of the last ``dial``; False when there is none left.

        ``on_failure`` is the failure route of this attempt; None: the one that runs now is armed again.
        """
        node = self.node
        with node.acts:
            return node.core.dial_next(self._call, node.clock.monotonic(), on_failure=on_failure)

    async def reject(self, status: int, reason: str = "", *, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse the call with a final answer of 300 to 699."""
        if not 300 <= status <= 699:
            raise RouteError(f"reject({status}): a refusal is a status of 300 to 699")
        node = self.node
        with node.acts:
            node.core.reject(self._call, status, node.clock.monotonic(), reason=reason, headers=headers)

    async def redirect(self, to: Elsewhere | Sequence[Elsewhere], *, status: int = 302) -> None:
        """Tell the caller to call a URI instead, or one of several, each with a preference q where it is given:
        ``redirect([("sip:desk@a.example", 1.0), ("sip:mobile@a.example", 0.5)])``. ``status`` is 300 to 399."""
        await self.reject(status, headers=contacts(to, status))

    async def drop(self) -> None:
        """Answer nothing more, for a caller that deserves no answer (a scanner): it has had a 100, and gives up by
        itself. Repetitions of its INVITE are absorbed. The CDR says 403."""
        node = self.node
        with node.acts:
            node.core.drop(self._call, node.clock.monotonic())


def contacts(to: Elsewhere | Sequence[Elsewhere], status: int) -> list[tuple[str, str]]:
    """The Contact headers of a redirection (RFC 3261 §8.3); RouteError for what can be none."""
    if not 300 <= status <= 399:
        raise RouteError(f"redirect(status={status}): a redirection is a status of 300 to 399")
    found = []
    for one in [to] if isinstance(to, (str, tuple)) else to:
        uri, q = (one, None) if isinstance(one, str) else one
        if q is not None and not 0 <= q <= 1:
            raise RouteError(f"redirect to {uri}: the preference q = {q} is not within 0 and 1")
        found.append(("Contact", f"<{checked_uri(uri)}>" + ("" if q is None else f";q={q:.3g}")))
    if not found:
        raise RouteError("redirect: there is nowhere to redirect to")
    return found


def checked_uri(uri: str) -> str:
    """The URI itself; raises RouteError where it is none."""
    try:
        parse_uri(uri)
    except SipSyntaxError as error:
        raise RouteError(f"{uri!r} is no URI: {error}") from error
    return uri


def user_of(uri: str) -> str:
    """The user part of a URI's text, without a password; of a tel URI the number; '' where there is none."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "tel":
        return rest.partition(";")[0]
    user, at, _ = rest.partition("@")
    return user.partition(":")[0] if at else ""
