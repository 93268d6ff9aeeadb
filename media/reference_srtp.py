"""SRTP and SRTCP in plain Python over the same memory as ``ext/c/srtp.c``: the specification of the compiled code.

The same packets give the same octets, reasons and state. It is not used to relay, and only it needs the package
``cryptography``.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from media.counters import Reason
from media.srtp import MKI_BYTES, SOURCES, WINDOW, LegKeys, SessionKeys, Source, Stream, Suite

LAST_INDEX = 2**48 - 1
ROLLOVER = 2**16  # the first index of rollover 1
LAST_RTCP_INDEX = 2**31 - 1
ENCRYPTED = 0x80000000  # E of SRTCP
RTCP_HEADER = 8
AEAD = (Suite.AEAD_AES_128_GCM, Suite.AEAD_AES_256_GCM)
SHORT_TAG = (Suite.AES_CM_128_HMAC_SHA1_32, Suite.AES_256_CM_HMAC_SHA1_32)
U128 = 2**128 - 1


def counter_mode(key: bytes, iv: bytes, data: bytes) -> bytes:
    """AES in counter mode over ``data``."""
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)


def derive(suite: Suite, master: bytes, label: int, size: int) -> bytes:
    """RFC 3711 §4.3.1 and §4.3.3 with a key derivation rate of 0; RFC 7714 §11 pads its salt on the right."""
    key, salt = master[: suite.key_bytes], master[suite.key_bytes :].ljust(14, b"\0")
    iv = int.from_bytes(salt, "big") ^ label << 48
    return counter_mode(key, (iv << 16).to_bytes(16, "big"), bytes(size))


def install(stream: Stream, number: int, master: bytes, mki: bytes = b"") -> None:
    """Start a stream under a master key and salt; raises ValueError for a suite or sizes that do not exist."""
    if number not in Suite.__members__.values() or len(master) != Suite(number).master_bytes or len(mki) > MKI_BYTES:
        raise ValueError("no such suite, or a master key or MKI that does not fit it")
    suite = Suite(number)
    ctypes.memset(ctypes.byref(stream), 0, ctypes.sizeof(Stream))
    stream.master[: len(master)] = list(master)
    stream.mki[: len(mki)] = list(mki)
    stream.mki_bytes = len(mki)
    for keys, label in ((stream.rtp, 0), (stream.rtcp, 3)):
        keys.cipher[: suite.key_bytes] = list(derive(suite, master, label, suite.key_bytes))
        keys.auth[:] = list(derive(suite, master, label + 1, 20))
        keys.salt[: suite.salt_bytes] = list(derive(suite, master, label + 2, suite.salt_bytes))
    stream.suite = suite


def estimate(latest: int, sequence: int) -> int:
    """RFC 3711 appendix A. Before the first rollover there is no counter one lower."""
    rollovers, last = latest >> 16, latest & 0xFFFF
    if last < 0x8000:
        if rollovers and sequence - last > 0x8000:
            rollovers -= 1
    elif last - 0x8000 > sequence:
        rollovers += 1
    return rollovers << 16 | sequence


Window = ctypes.Array[ctypes.c_uint64]


def _bits(window: Window) -> int:
    return int(window[1]) << 64 | int(window[0])


def is_used(window: Window, latest: int, index: int) -> bool:
    """RFC 3711 §3.3.2: used, or too old to know."""
    behind = latest - index
    return behind >= WINDOW or (behind >= 0 and bool(_bits(window) >> behind & 1))


def use(window: Window, latest: int, index: int) -> int:
    """Mark an index; returns the latest one."""
    bits = _bits(window)
    if not bits:
        bits, latest = 1, index
    elif index > latest:
        ahead = index - latest
        bits, latest = (bits << ahead | 1) & U128 if ahead < WINDOW else 1, index
    else:
        bits |= 1 << (latest - index)
    window[0], window[1] = bits & 2**64 - 1, bits >> 64
    return latest


def _find(stream: Stream, ssrc: int) -> Source | None:
    return next((source for source in stream.source[: stream.sources] if source.ssrc == ssrc), None)


def _add(stream: Stream, ssrc: int, receiving: bool) -> Source | None:
    at = stream.sources
    if at == SOURCES:
        if not receiving:
            return None  # its indices could be used a second time
        at = stream.next
        stream.next = (stream.next + 1) % SOURCES
    source: Source = stream.source[at]
    ctypes.memset(ctypes.byref(source), 0, ctypes.sizeof(Source))
    source.ssrc = ssrc
    stream.sources = min(stream.sources + 1, SOURCES)
    return source


def _doubt(stream: Stream, source: Source, sequence: int) -> None:
    """A source that is new since a take-over: the former node may have used indices of it."""
    if sequence <= stream.unsure:
        stream.doubtful |= 1 << (stream.sources - 1)
    if stream.renumbered:
        source.latest = sequence + stream.unsure
        source.window[:] = [2**64 - 1] * 2


def _key(suite: Suite, keys: SessionKeys) -> bytes:
    return bytes(keys.cipher)[: suite.key_bytes]


def _crypt(suite: Suite, keys: SessionKeys, ssrc: int, index: int, data: bytes) -> bytes:
    """RFC 3711 §4.1.1."""
    if suite is Suite.NULL_HMAC_SHA1_80:
        return data
    iv = int.from_bytes(bytes(keys.salt), "big") << 16 ^ ssrc << 64 ^ index << 16
    return counter_mode(_key(suite, keys), iv.to_bytes(16, "big"), data)


def _tag(keys: SessionKeys, data: bytes) -> bytes:
    return hmac.new(bytes(keys.auth), data, hashlib.sha1).digest()


def _nonce(keys: SessionKeys, ssrc: int, index: int) -> bytes:
    """RFC 7714 §8.1 and §9.1."""
    return (int.from_bytes(bytes(keys.salt)[:12], "big") ^ ssrc << 48 ^ index).to_bytes(12, "big")


def _header_bytes(data: bytes) -> int:
    header = 12 + 4 * (data[0] & 15)
    if data[0] & 16:
        header += 4 + 4 * int.from_bytes(data[header + 2 : header + 4], "big")
    return header


def _rtp_tag_bytes(suite: Suite) -> int:
    return 16 if suite in AEAD else 4 if suite in SHORT_TAG else 10


def _rtcp_tag_bytes(suite: Suite) -> int:
    return 16 if suite in AEAD else 10


def _candidates(known: Source | None, former: Source | None, sequence: int) -> list[int]:
    """Indices that the next packet of a source may have, the likeliest first (see ``candidates`` in srtp.c)."""
    if known is not None and any(known.window):
        return [estimate(known.latest, sequence)]
    found = [sequence]
    if former is not None and any(former.window) and estimate(former.latest, sequence) != sequence:
        found.append(estimate(former.latest, sequence))
    if sequence < 0x8000:
        found.append(0x10000 | sequence)
    return found


def _unprotect_rtp(stream: Stream, former: Stream, data: bytes) -> tuple[Reason, bytes]:
    suite = Suite(stream.suite)
    header, tag_bytes = _header_bytes(data), _rtp_tag_bytes(suite)
    if len(data) < header + tag_bytes + stream.mki_bytes:
        return Reason.SHORT, data
    ssrc, sequence = int.from_bytes(data[8:12], "big"), int.from_bytes(data[2:4], "big")
    end = len(data) - tag_bytes - stream.mki_bytes
    trailer = data[end:]
    if suite in AEAD:
        tag, mki = trailer[:tag_bytes], trailer[tag_bytes:]
    else:
        mki, tag = trailer[: stream.mki_bytes], trailer[stream.mki_bytes :]
    if mki != bytes(stream.mki)[: stream.mki_bytes]:
        return Reason.AUTH_FAILED, data
    source = _find(stream, ssrc)
    for index in _candidates(source, _find(former, ssrc) if former.suite else None, sequence):
        if source is not None and any(source.window) and is_used(source.window, source.latest, index):
            return Reason.REPLAYED, data
        if index > LAST_INDEX:
            return Reason.AUTH_FAILED, data
        if suite in AEAD:
            try:
                opened = AESGCM(_key(suite, stream.rtp)).decrypt(
                    _nonce(stream.rtp, ssrc, index), data[header:end] + tag, data[:header]
                )
            except InvalidTag:
                continue
        else:
            if _tag(stream.rtp, data[:end] + (index >> 16).to_bytes(4, "big"))[:tag_bytes] != tag:
                continue
            opened = _crypt(suite, stream.rtp, ssrc, index, data[header:end])
        source = source or _add(stream, ssrc, receiving=True)
        assert source is not None
        source.latest = use(source.window, source.latest, index)
        return Reason.FORWARD, data[:header] + opened
    return Reason.AUTH_FAILED, data


def _unprotect_rtcp(stream: Stream, data: bytes) -> tuple[Reason, bytes]:
    """RFC 3711 §3.4. With HMAC the tag is last; RFC 7714 §9.3 puts it before the index."""
    suite = Suite(stream.suite)
    tag_bytes, mki_bytes = _rtcp_tag_bytes(suite), stream.mki_bytes
    if len(data) < RTCP_HEADER + 4 + tag_bytes + mki_bytes:
        return Reason.SHORT, data
    body = len(data) - 4 - tag_bytes - mki_bytes
    at = body + (tag_bytes if suite in AEAD else 0)
    word, mki = data[at : at + 4], data[at + 4 : at + 4 + mki_bytes]
    tag = data[body:at] if suite in AEAD else data[len(data) - tag_bytes :]
    value = int.from_bytes(word, "big")
    index, ssrc = value & LAST_RTCP_INDEX, int.from_bytes(data[4:8], "big")
    if mki != bytes(stream.mki)[:mki_bytes]:
        return Reason.AUTH_FAILED, data
    source = _find(stream, ssrc)
    if source and any(source.rtcp_window) and is_used(source.rtcp_window, source.rtcp_latest, index):
        return Reason.REPLAYED, data
    clear = RTCP_HEADER if value & ENCRYPTED else body
    if suite in AEAD:
        try:
            opened = AESGCM(_key(suite, stream.rtcp)).decrypt(
                _nonce(stream.rtcp, ssrc, index), data[clear:body] + tag, data[:clear] + word
            )
        except InvalidTag:
            return Reason.AUTH_FAILED, data
    else:
        if _tag(stream.rtcp, data[: body + 4])[:tag_bytes] != tag:
            return Reason.AUTH_FAILED, data
        opened = _crypt(suite, stream.rtcp, ssrc, index, data[clear:body])
    source = source or _add(stream, ssrc, receiving=True)
    assert source is not None
    source.rtcp_latest = use(source.rtcp_window, source.rtcp_latest, index)
    return Reason.FORWARD, data[:clear] + opened


def unprotect(keys: LegKeys, rtcp: bool, data: bytes) -> tuple[Reason, bytes]:
    """A sound SRTP or SRTCP packet as RTP or RTCP, or the reason why not and the packet as it was."""
    receiving, former = keys.receiving, keys.former
    if not receiving.suite:
        return Reason.NO_KEY, data
    attempt: Callable[[Stream], tuple[Reason, bytes]]
    attempt = (lambda s: _unprotect_rtcp(s, data)) if rtcp else (lambda s: _unprotect_rtp(s, former, data))
    reason, opened = attempt(receiving)
    if not former.suite:
        return reason, opened
    if reason is Reason.FORWARD:
        keys.grace -= 1
        if not keys.grace:
            ctypes.memset(ctypes.byref(former), 0, ctypes.sizeof(Stream))
        return reason, opened
    second, other = attempt(former)
    return (second, other) if second is Reason.FORWARD else (reason, data)


def protect(keys: LegKeys, rtcp: bool, data: bytes) -> tuple[Reason, bytes]:
    """A sound RTP or RTCP packet as SRTP or SRTCP, or the reason why not."""
    stream = keys.sending
    if not stream.suite:
        return Reason.NO_KEY, data
    suite = Suite(stream.suite)
    return _protect_rtcp(suite, stream, data) if rtcp else _protect_rtp(suite, stream, data)


def _protect_rtp(suite: Suite, stream: Stream, data: bytes) -> tuple[Reason, bytes]:
    header, ssrc = _header_bytes(data), int.from_bytes(data[8:12], "big")
    sequence = int.from_bytes(data[2:4], "big")
    source = _find(stream, ssrc)
    if source is None:
        source = _add(stream, ssrc, receiving=False)
        if source is None:
            return Reason.SOURCES_FULL, data
        if stream.unsure:
            _doubt(stream, source, sequence)
    heard = any(source.window)
    index = estimate(source.latest, sequence) if heard else sequence
    if index > LAST_INDEX:
        return Reason.KEY_SPENT, data
    number = next(n for n in range(SOURCES) if stream.source[n].ssrc == ssrc)
    if stream.doubtful >> number & 1 and abs(index - ROLLOVER) <= stream.unsure:
        return Reason.INDEX_USED, data
    if heard and is_used(source.window, source.latest, index):
        return Reason.INDEX_USED, data
    source.latest = use(source.window, source.latest, index)
    if suite in AEAD:
        sealed = AESGCM(_key(suite, stream.rtp)).encrypt(_nonce(stream.rtp, ssrc, index), data[header:], data[:header])
        return Reason.FORWARD, data[:header] + sealed
    packet = data[:header] + _crypt(suite, stream.rtp, ssrc, index, data[header:])
    tag = _tag(stream.rtp, packet + (index >> 16).to_bytes(4, "big"))
    return Reason.FORWARD, packet + tag[: _rtp_tag_bytes(suite)]


def _protect_rtcp(suite: Suite, stream: Stream, data: bytes) -> tuple[Reason, bytes]:
    if stream.rtcp_index >= LAST_RTCP_INDEX:
        return Reason.KEY_SPENT, data
    stream.rtcp_index += 1
    index, ssrc = stream.rtcp_index, int.from_bytes(data[4:8], "big")
    word = (index if suite is Suite.NULL_HMAC_SHA1_80 else index | ENCRYPTED).to_bytes(4, "big")
    head, rest = data[:RTCP_HEADER], data[RTCP_HEADER:]
    if suite in AEAD:
        sealed = AESGCM(_key(suite, stream.rtcp)).encrypt(_nonce(stream.rtcp, ssrc, index), rest, head + word)
        return Reason.FORWARD, head + sealed + word
    packet = head + _crypt(suite, stream.rtcp, ssrc, index, rest) + word
    return Reason.FORWARD, packet + _tag(stream.rtcp, packet)[: _rtcp_tag_bytes(suite)]
