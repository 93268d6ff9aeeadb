"""How the streams of a leg are keyed (SDES, RFC 4568; DTLS-SRTP, RFC 5763), from what it offers or answers and from the
policy for it.

Policies, for each leg: ``off`` speaks RTP alone; ``optional`` takes whatever the leg offers, and offers it RTP that may
become SRTP (OSRTP, RFC 8643); ``required`` speaks SRTP alone; ``pass`` leaves keys to the two ends where both legs have
it, and is ``optional`` otherwise; ``dtls`` speaks SRTP alone, with keys from a handshake (``media.dtls``).

Our keys towards a leg follow from a secret beside its rule, so that a successor of the worker can still keep what was
offered. A key that was used is kept while its suite is, and never comes back once it was replaced.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from media import _datapath, association
from media.endpoint import Unusable, relayable
from media.protocol import Offer, Setup, Stream
from media.rules import AT_AVPF, AT_FEATURES, AT_FLAGS, RULE_BYTES, Feature, RuleFlag
from media.sdes import OFFERED, Key, read_key, write_key
from media.session import NO_STREAM
from media.srtp import GRACE, LegKeys, Suite
from media.srtp import Stream as Direction
from media.state import Arena

_SRTP, _KEYED, _SECURE = int(RuleFlag.SRTP), int(RuleFlag.KEYED), int(RuleFlag.SECURE)
_DTLS = int(Feature.DTLS)


class Mode(IntEnum):
    """``LegKeys.mode`` and ``offered_mode``."""

    PLAIN = 0
    SDES = 1  # RTP/SAVP with a=crypto
    OPPORTUNISTIC = 2  # RTP/AVP with a=crypto: RTP until it is answered with a key
    PASSED = 3  # nothing of ours: the ends have the keys
    DTLS = 4


class Choice(NamedTuple):
    """What one stream of an offer comes to; ``key`` is what the leg sends with, ``peer`` what its handshake takes."""

    mode: Mode
    key: Key | None = None
    peer: association.Peer | None = None


class Shown(NamedTuple):
    """What the other leg is shown of a stream: a protocol, "" for the same as described, values of a=crypto, and of
    a=setup (our fingerprint goes with it)."""

    protocol: str = ""
    keys: tuple[str, ...] = ()
    setup: Setup = ""


PLAIN, UNCHANGED = Choice(Mode.PLAIN), Shown()


def read_offer(request: Offer) -> list[Choice] | None:
    """What each stream of an offer comes to; None for a call that has nothing to do with SRTP. Raises Unusable."""
    policy, other = request.from_srtp, request.to_srtp
    if policy == other == "off" and not any(s.protocol != "RTP/AVP" and _is_secure(s) for s in request.streams):
        return None
    return [choose(stream, policy, other) if relayable(stream) else PLAIN for stream in request.streams]


def offer(
    arena: Arena, request: Offer, choices: list[Choice], giving: Sequence[int], taking: Sequence[int]
) -> list[Shown]:
    """Note what the leg with the rules ``giving`` offers; what to offer to the leg with the rules ``taking``."""
    shown = []
    for stream, choice, own, facing in zip(request.streams, choices, giving, taking, strict=False):
        if own == NO_STREAM or facing == NO_STREAM or not relayable(stream):
            shown.append(UNCHANGED)
            continue
        arena.octets[own * RULE_BYTES + AT_AVPF] = stream.protocol.upper().endswith("F")
        note_offer(arena, own, choice)
        shown.append(show_offer(arena, facing, choice, request.to_srtp, stream))
    return shown


def answer(arena: Arena, streams: list[Stream], giving: Sequence[int], taking: Sequence[int]) -> list[Shown] | None:
    """The leg with the rules ``giving`` answers that with the rules ``taking``, which is shown the result; None for a
    call that has nothing to do with SRTP. Raises Unusable with nothing changed."""
    octets = arena.octets
    for stream, own, facing in zip(streams, giving, taking, strict=True):
        if (
            (own != NO_STREAM and octets[own * RULE_BYTES + AT_FLAGS] & _KEYED)
            or (facing != NO_STREAM and octets[facing * RULE_BYTES + AT_FLAGS] & _KEYED)
            or (stream.protocol != "RTP/AVP" and _is_secure(stream))
        ):
            break
    else:
        return None
    legs = list(zip(streams, giving, taking, strict=True))
    alive = [own != NO_STREAM and facing != NO_STREAM and relayable(stream) for stream, own, facing in legs]
    choices = [
        read_answer(arena, own, stream) if lives else PLAIN for (stream, own, _), lives in zip(legs, alive, strict=True)
    ]
    shown = []
    for (stream, own, facing), lives, choice in zip(legs, alive, choices, strict=True):
        if facing == NO_STREAM:
            shown.append(UNCHANGED)
        elif lives:
            take_answer(arena, own, choice)
            shown.append(show_answer(arena, facing, stream))
        else:
            shown.append(show_refused(arena, facing, stream))
    return shown


def choose(stream: Stream, policy: str, other_policy: str) -> Choice:
    """What an offered stream comes to. Raises Unusable (``unsupported``) where the policy or we cannot serve it."""
    secure = _is_secure(stream)
    if policy == "dtls":
        return Choice(Mode.DTLS, peer=association.read(stream))
    if policy == other_policy == "pass" and (secure or stream.keys) and "TLS" not in stream.protocol.upper():
        return Choice(Mode.PASSED)
    key = next(filter(None, map(read_key, stream.keys)), None) if policy != "off" else None
    if secure:
        if policy == "off":
            raise Unusable("unsupported", "SRTP is off for this side")
        if key is None:
            raise Unusable("unsupported", f"{stream.protocol} without a key that we can use")
        return Choice(Mode.SDES, key)
    if key is not None:
        return Choice(Mode.OPPORTUNISTIC, key)
    if policy == "required":
        raise Unusable("unsupported", "RTP is offered where SRTP is required")
    return PLAIN


def note_offer(arena: Arena, index: int, choice: Choice) -> None:
    """The leg of a rule has offered this; what is in force stays until the answer."""
    keys = _keys(arena, index, choice.mode)
    if keys is None:
        return
    keys.offered_mode = choice.mode
    if choice.peer is not None:
        _speak_dtls(arena, index)
        association.take(arena.webrtc[index], choice.peer, offered=True)
    if choice.key is None:
        return
    keys.offered_tag, keys.offered_suite = choice.key.tag, choice.key.suite
    keys.offered_mki_bytes = len(choice.key.mki)
    keys.offered_master[: len(choice.key.master)] = list(choice.key.master)
    keys.offered_mki[: len(choice.key.mki)] = list(choice.key.mki)


def show_offer(arena: Arena, index: int, choice: Choice, policy: str, stream: Stream) -> Shown:
    """What to offer to the leg of a rule for ``stream`` of the other leg."""
    mode = choice.mode
    if mode is not Mode.PASSED:
        modes = {"off": Mode.PLAIN, "required": Mode.SDES, "dtls": Mode.DTLS}
        mode = modes.get(policy, Mode.OPPORTUNISTIC)
        if mode is Mode.OPPORTUNISTIC and _flags(arena, index) & _KEYED and arena.keys[index].mode == Mode.SDES:
            mode = Mode.SDES  # what it offered itself
    keys = _keys(arena, index, mode)
    if keys is not None:
        keys.offered_mode = mode
    if mode is Mode.PASSED:
        return Shown("", tuple(stream.keys))
    if mode is Mode.DTLS:
        _speak_dtls(arena, index)
        association.begin(arena.webrtc[index])
        return Shown(_protocol(arena, index, mode, stream), setup="actpass")
    protocol = _protocol(arena, index, mode, stream)
    if keys is None or mode is Mode.PLAIN:
        return Shown(protocol)
    suites = list(OFFERED)
    if keys.sending.suite:  # what is in force comes first, so that it stays: there are phones that cannot change it
        present = Suite(keys.sending.suite)
        suites = [present, *(suite for suite in OFFERED if suite is not present)]
    return Shown(protocol, tuple(write_key(suite, suite, _our_master(keys, suite)) for suite in suites))


def read_answer(arena: Arena, index: int, stream: Stream) -> Choice:
    """What the answer of the leg of a rule comes to. Raises Unusable (``unsupported``) for RTP where SRTP alone was
    offered, for SRTP where it was not, and for a key that does not fit the offer."""
    keys = arena.keys[index] if _flags(arena, index) & _KEYED else None
    offered = Mode(keys.offered_mode) if keys is not None else Mode.PLAIN
    if offered is Mode.PASSED:
        return Choice(offered)
    if offered is Mode.DTLS:
        return Choice(offered, peer=association.read(stream))
    if keys is None or offered is Mode.PLAIN or (offered is Mode.OPPORTUNISTIC and not stream.keys):
        if _is_secure(stream):
            raise Unusable("unsupported", f"{stream.protocol} answers an offer of RTP")
        return PLAIN
    key = next(filter(None, map(read_key, stream.keys)), None)
    if key is None or (key.suite not in OFFERED and key.suite != keys.sending.suite):
        raise Unusable("unsupported", "an offer of SRTP is answered without a key that we offered")
    return Choice(offered, key)


def take_answer(arena: Arena, index: int, choice: Choice) -> None:
    """What the leg of a rule has answered is in force."""
    if choice.key is not None:
        keys = arena.keys[index]
        _install(arena, index, keys, choice.mode, choice.key, _our_master(keys, choice.key.suite))
    elif choice.peer is not None:
        arena.keys[index].mode = Mode.DTLS
        association.take(arena.webrtc[index], choice.peer, offered=False)
    elif choice.mode is Mode.PLAIN:
        _make_plain(arena, index)


def show_answer(arena: Arena, index: int, stream: Stream) -> Shown:
    """The offer of the leg of a rule is answered, with ``stream`` of the other leg: what to show to it."""
    if not _flags(arena, index) & _KEYED:
        return Shown(_protocol(arena, index, Mode.PLAIN, stream))
    keys = arena.keys[index]
    mode = Mode(keys.offered_mode)
    if mode is Mode.PASSED:
        return Shown("", tuple(stream.keys))
    protocol = _protocol(arena, index, mode, stream)
    if mode is Mode.DTLS:
        keys.mode = mode
        return Shown(protocol, setup=association.shown_setup(arena.webrtc[index]))
    if mode is Mode.PLAIN:
        _make_plain(arena, index)
        return Shown(protocol)
    suite = Suite(keys.offered_suite)
    master = bytes(keys.offered_master)[: suite.master_bytes]
    key = Key(keys.offered_tag, suite, master, bytes(keys.offered_mki)[: keys.offered_mki_bytes])
    if keys.receiving.suite and not _is_under(keys.receiving, key):
        # Who changes its own key makes a new context for both directions, mostly: ours begins anew as well.
        keys.secret[:] = list(secrets.token_bytes(32))
        ours = _derive(keys, suite)
    else:
        ours = _our_master(keys, suite)
    _install(arena, index, keys, mode, key, ours)
    return Shown(protocol, (write_key(key.tag, suite, ours),))


def show_refused(arena: Arena, index: int, stream: Stream) -> Shown:
    """The other leg refused a stream (RFC 3264 §6): the protocol of the offer is said again."""
    if not _flags(arena, index) & _KEYED:
        return Shown(_protocol(arena, index, Mode.PLAIN, stream))
    mode = Mode(arena.keys[index].offered_mode)
    return UNCHANGED if mode is Mode.PASSED else Shown(_protocol(arena, index, mode, stream))


def _is_secure(stream: Stream) -> bool:
    return "SAVP" in stream.protocol.upper()


def _flags(arena: Arena, index: int) -> int:
    return arena.octets[index * RULE_BYTES + AT_FLAGS]


def _keys(arena: Arena, index: int, mode: Mode) -> LegKeys | None:
    """The keys of a rule, begun when this is the first that is heard of any; None where there are none to speak of."""
    at = index * RULE_BYTES + AT_FLAGS
    if not arena.octets[at] & _KEYED:
        if mode is Mode.PLAIN:
            return None
        arena.wipe_keys(index)
        arena.keys[index].secret[:] = list(secrets.token_bytes(32))
        arena.octets[at] |= _KEYED
        if mode is Mode.SDES or mode is Mode.DTLS:
            arena.octets[at] |= _SRTP  # from now on nothing in clear
        elif mode is Mode.PASSED:
            arena.octets[at] |= _SECURE
    return arena.keys[index]


def _speak_dtls(arena: Arena, index: int) -> None:
    """The leg of a rule has its keys from handshakes, from now on."""
    arena.octets[index * RULE_BYTES + AT_FLAGS] |= _SRTP
    arena.octets[index * RULE_BYTES + AT_FEATURES] |= _DTLS


def speaks_dtls(arena: Arena, index: int) -> bool:
    """Does it?"""
    return bool(arena.octets[index * RULE_BYTES + AT_FEATURES] & _DTLS)


def _protocol(arena: Arena, index: int, mode: Mode, stream: Stream) -> str:
    """RTP/AVP or RTP/SAVP, with feedback (RFC 4585) as the other leg has it; but a browser always has it, so beside one
    it is as the leg itself has offered."""
    if mode is Mode.DTLS:
        return association.PROTOCOLS[arena.webrtc[index].protocol]
    if stream.fingerprints:
        feedback = arena.octets[index * RULE_BYTES + AT_AVPF] != 0
    else:
        feedback = stream.protocol.upper().endswith("F")
    return ("RTP/SAVP" if mode is Mode.SDES else "RTP/AVP") + ("F" if feedback else "")


def _derive(keys: LegKeys, suite: Suite) -> bytes:
    return hmac.digest(bytes(keys.secret), suite.name.encode(), hashlib.sha512)[: suite.master_bytes]


def _our_master(keys: LegKeys, suite: Suite) -> bytes:
    """The key that we send with under this suite: the present one, or one that was never used."""
    if keys.sending.suite == suite:
        return bytes(keys.sending.master)[: suite.master_bytes]
    return _derive(keys, suite)


def _is_under(direction: Direction, key: Key) -> bool:
    return (direction.suite, bytes(direction.mki)[: direction.mki_bytes]) == (key.suite, key.mki) and bytes(
        direction.master
    )[: len(key.master)] == key.master


def _install(arena: Arena, index: int, keys: LegKeys, mode: Mode, key: Key, ours: bytes) -> None:
    """Both directions are under these keys; those that were before go on with their counters."""
    if not _is_under(keys.receiving, key):
        if keys.receiving.suite:
            keys.former = keys.receiving
            keys.grace = GRACE
        _datapath.install(keys.receiving, key.suite, key.master, key.mki)
    if not _is_under(keys.sending, Key(0, key.suite, ours, b"")):
        replaced = keys.sending.suite != 0
        _datapath.install(keys.sending, key.suite, ours)
        if replaced:  # what was derived for other suites may have been used before
            keys.secret[:] = list(secrets.token_bytes(32))
    keys.mode = mode
    arena.octets[index * RULE_BYTES + AT_FLAGS] |= _SRTP


def install_exported(arena: Arena, index: int, suite: Suite, theirs: bytes, ours: bytes) -> None:
    """Both directions of the leg of a rule are under what its handshake gave. What is still under way under the keys
    before is taken for a while."""
    keys = arena.keys[index]
    if keys.receiving.suite:
        keys.former = keys.receiving
        keys.grace = GRACE
    _datapath.install(keys.receiving, suite, theirs)
    _datapath.install(keys.sending, suite, ours)
    arena.webrtc[index].established = 1


def forget_exported(arena: Arena, index: int) -> None:
    """The leg of a rule has ended its association: nothing is sent or taken any more."""
    keys = arena.keys[index]
    for direction in (keys.receiving, keys.former, keys.sending):
        ctypes.memset(ctypes.byref(direction), 0, ctypes.sizeof(Direction))
    arena.webrtc[index].established = 0


def _make_plain(arena: Arena, index: int) -> None:
    """RTP in clear is agreed; no key is ever used again."""
    at = index * RULE_BYTES + AT_FLAGS
    if arena.octets[at] & _KEYED:
        arena.octets[at] &= ~(_SRTP | _KEYED | _SECURE)
        if speaks_dtls(arena, index):
            arena.octets[index * RULE_BYTES + AT_FEATURES] &= ~_DTLS
            association.forget(arena.webrtc[index])
        ctypes.memset(ctypes.byref(arena.keys[index]), 0, ctypes.sizeof(LegKeys))
