"""SRTP: the compiled code against published vectors, real captures, the Python reference, and libsrtp."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pylibsrtp
import pytest

from media import _datapath, reference_srtp
from media.counters import Reason
from media.srtp import KEYS_BYTES, SOURCES, WINDOW, Stream, Suite, distrust
from tests.support.captures import udp_payloads
from tests.support.secure import SUITES, TwinKeys, master, rtcp, rtp
from tests.support.shared import shared_data

Vector = dict[str, Any]  # Any: JSON values
VECTORS: list[Vector] = json.loads(shared_data("vectors", "srtp.json").read_text())
PROFILES = {**Suite.__members__, "NULL_CIPHER_HMAC_SHA1_80": Suite.NULL_HMAC_SHA1_80}
LIBSRTP = {
    Suite.AES_CM_128_HMAC_SHA1_80: pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    Suite.AES_CM_128_HMAC_SHA1_32: pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    Suite.AEAD_AES_128_GCM: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    Suite.AEAD_AES_256_GCM: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}
CAPTURES = {
    "srtp-alice.pcap": ("9sOd+W72ilwfNgNt0FzlGYj6YZPMqN1sJJx43UuS", 1556),
    "srtp-bob.pcap": ("NhqBK/JjtVJgmOgPyDKpvMTEjvFCQ4eiyVQelF6x", 1564),
}


def of_type(*kinds: str) -> list[Any]:  # Any: what parametrize takes
    return [pytest.param(vector, id=vector["id"]) for vector in VECTORS if vector["type"] in kinds]


def advance(twin: TwinKeys, ssrc: int, latest: int) -> None:
    """Both directions have seen everything up to this index."""
    for keys in (twin.compiled, twin.reference):
        for stream in (keys.receiving, keys.sending):
            stream.sources = 1
            source = stream.source[0]
            source.ssrc, source.latest = ssrc, latest
            source.window[0] = 1


def test_the_layouts_agree() -> None:
    assert _datapath.KEYS_BYTES == KEYS_BYTES


def test_every_vector_is_looked_at() -> None:
    assert len(of_type("keystream", "kdf", "srtp", "srtcp")) == len(VECTORS) == 13


@pytest.mark.parametrize("vector", of_type("srtp"))
def test_rtp_vectors(vector: Vector) -> None:
    plain, secret = bytes.fromhex(vector["rtp"]), bytes.fromhex(vector["srtp"])
    twin = TwinKeys(PROFILES[vector["profile"]], bytes.fromhex(vector["master_key"] + vector["master_salt"]))
    if vector["roc"]:
        advance(twin, int.from_bytes(plain[8:12], "big"), vector["roc"] << 16 | 0xFFFE if plain[2] else 0xFFFF)
    assert twin.protect(plain) == (Reason.FORWARD, secret)
    assert twin.unprotect(secret) == (Reason.FORWARD, plain)
    assert twin.unprotect(secret)[0] is Reason.REPLAYED


@pytest.mark.parametrize("vector", of_type("srtcp"))
def test_rtcp_vectors(vector: Vector) -> None:
    plain, secret = bytes.fromhex(vector["rtcp"]), bytes.fromhex(vector["srtcp"])
    twin = TwinKeys(PROFILES[vector["profile"]], bytes.fromhex(vector["master_key"] + vector["master_salt"]))
    assert twin.protect(plain, is_rtcp=True) == (Reason.FORWARD, secret)
    assert twin.unprotect(secret, is_rtcp=True) == (Reason.FORWARD, plain)
    assert twin.unprotect(secret, is_rtcp=True)[0] is Reason.REPLAYED


@pytest.mark.parametrize("vector", of_type("kdf"))
def test_key_derivation_vector(vector: Vector) -> None:
    stream = Stream()
    _datapath.install(stream, 1, bytes.fromhex(vector["master_key"] + vector["master_salt"]))
    assert bytes(stream.rtp.cipher)[:16].hex() == vector["cipher_key"]
    assert bytes(stream.rtp.salt).hex() == vector["cipher_salt"]
    assert bytes(stream.rtp.auth).hex() == vector["auth_key_94"][:40]


def test_key_derivation_with_256_bits() -> None:
    """RFC 6188 §7.2."""
    stream = Stream()
    key = "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6"
    _datapath.install(stream, Suite.AES_256_CM_HMAC_SHA1_80, bytes.fromhex(key + "3b04803de51ee7c96423ab5b78d2"))
    assert bytes(stream.rtp.cipher).hex() == "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"
    assert bytes(stream.rtp.salt).hex() == "fa31791685ca444a9e07c6c64e93"
    assert bytes(stream.rtp.auth).hex() == "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"


@pytest.mark.parametrize("vector", of_type("keystream"))
def test_keystream_vector(vector: Vector) -> None:
    twin = TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80)
    for keys in (twin.compiled, twin.reference):
        keys.sending.rtp.cipher[:16] = list(bytes.fromhex(vector["session_key"]))
        keys.sending.rtp.salt[:] = list(bytes.fromhex(vector["session_salt"]))
    reason, packet = twin.protect(rtp(vector["seq"], bytes(48), int(vector["ssrc"], 16)))
    assert reason is Reason.FORWARD
    assert packet[12:60].hex() == vector["keystream_first_48_octets"]


@pytest.mark.parametrize("name", CAPTURES)
def test_every_packet_of_a_capture_is_authentic(name: str) -> None:
    key, count = CAPTURES[name]
    twin = TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80, base64.b64decode(key))
    reasons = [twin.unprotect(packet)[0] for packet in udp_payloads(shared_data("pcap", name))]
    assert reasons == [Reason.FORWARD] * count
    assert twin.compiled.receiving.sources == 1
    assert twin.compiled.receiving.source[0].latest < 0x10000


@pytest.mark.parametrize("suite", Suite)
def test_what_is_protected_is_read_again(suite: Suite) -> None:
    draw = random.Random(suite)
    twin = TwinKeys(suite)
    for sequence in range(200):
        packet = rtp(sequence, draw.randbytes(draw.choice((0, 1, 15, 16, 17, 160, 1200))))
        if draw.random() < 0.3:  # two CSRCs and a header extension of one word
            packet = b"\x92" + packet[1:12] + draw.randbytes(8) + b"\xbe\xde\x00\x01" + draw.randbytes(4) + packet[12:]
        assert twin.unprotect(twin.protect(packet)[1]) == (Reason.FORWARD, packet)
        report = rtcp(words=draw.randrange(30))
        assert twin.unprotect(twin.protect(report, is_rtcp=True)[1], is_rtcp=True) == (Reason.FORWARD, report)


@pytest.mark.parametrize("suite", SUITES)
def test_nothing_that_was_changed_is_accepted(suite: Suite) -> None:
    for is_rtcp, packet in ((False, rtp(40_000)), (False, rtp(7)), (True, rtcp())):
        twin = TwinKeys(suite)
        secret = twin.protect(packet, is_rtcp=is_rtcp)[1]
        before = bytes(twin.compiled)
        for at in range(8 if is_rtcp else 4, len(secret)):
            forged = bytearray(secret)
            forged[at] ^= 1 << at % 8
            reason, _ = twin.unprotect(bytes(forged), is_rtcp=is_rtcp)
            assert reason is Reason.AUTH_FAILED
        for length in range(12, len(secret)):
            assert twin.unprotect(secret[:length], is_rtcp=is_rtcp)[0] in (Reason.SHORT, Reason.AUTH_FAILED)
        assert bytes(twin.compiled) == before
        assert twin.unprotect(secret, is_rtcp=is_rtcp) == (Reason.FORWARD, packet)


class Libsrtp:
    """The same key in libsrtp, one session for each direction; its replay window is as long as ours."""

    def __init__(self, suite: Suite) -> None:
        policies = []
        for kind in (pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND):
            policy = pylibsrtp.Policy(key=master(suite), ssrc_type=kind, srtp_profile=LIBSRTP[suite])
            policy.window_size = WINDOW
            policies.append(policy)
        self.sender, self.receiver = map(pylibsrtp.Session, policies)

    def protect(self, packet: bytes, is_rtcp: bool) -> bytes | None:
        return self._try(self.sender.protect_rtcp if is_rtcp else self.sender.protect, packet)

    def unprotect(self, packet: bytes, is_rtcp: bool) -> bytes | None:
        return self._try(self.receiver.unprotect_rtcp if is_rtcp else self.receiver.unprotect, packet)

    @staticmethod
    def _try(step: Any, packet: bytes) -> bytes | None:  # Any: pylibsrtp has no types
        try:
            return bytes(step(packet))
        except pylibsrtp.Error:
            return None


@pytest.mark.parametrize("suite", LIBSRTP)
@pytest.mark.parametrize("seed", range(4))
def test_as_libsrtp(suite: Suite, seed: int) -> None:
    """Losses, duplicates, reordering, forgeries and rollovers: the same octets leave, the same packets are accepted.

    RTCP is of one SSRC: we number the reports of all SSRCs in one row, libsrtp each for itself.
    """
    draw = random.Random(f"{suite}-{seed}")
    twin, other = TwinKeys(suite), Libsrtp(suite)
    index = {ssrc: draw.choice((0, 100, 32_767, 32_768, 65_500)) for ssrc in (1, 2, 3)}
    sent: list[tuple[bool, bytes]] = []
    accepted = rollovers = 0
    for _ in range(3000):
        ssrc = draw.choice((1, 1, 1, 1, 2, 3))
        is_rtcp = draw.random() < 0.05
        before = index[ssrc]
        index[ssrc] += draw.choice((1,) * 40 + (2, 90, 128, 3000, 20_000))
        step = draw.choice((0,) * 20 + (-1, -3, -50, -127, -128, -200, -30_000))
        rollovers += index[ssrc] >> 16 != before >> 16
        packet = rtcp(1) if is_rtcp else rtp(max(0, index[ssrc] + step), draw.randbytes(draw.randrange(40)), ssrc)
        reason, secret = twin.protect(packet, is_rtcp=is_rtcp)
        expected = other.protect(packet, is_rtcp)
        assert (secret if reason is Reason.FORWARD else None) == expected
        if expected is None:
            assert reason is Reason.INDEX_USED
            continue
        fate = draw.random()
        if fate < 0.1:
            continue  # lost
        sent.append((is_rtcp, secret))
        arriving = [sent.pop(draw.randrange(max(0, len(sent) - 6), len(sent)))] if fate < 0.9 or len(sent) > 200 else []
        if arriving and draw.random() < 0.1:
            arriving.append(arriving[0])
        if arriving and draw.random() < 0.05:
            forged = bytearray(arriving[0][1])
            forged[draw.randrange(12, len(forged))] ^= 1 << draw.randrange(8)
            arriving.insert(0, (arriving[0][0], bytes(forged)))
        for kind, octets in arriving:
            reason, opened = twin.unprotect(octets, is_rtcp=kind)
            expected = other.unprotect(octets, kind)
            assert (opened if reason is Reason.FORWARD else None) == expected
            accepted += expected is not None
    assert accepted > 1000
    assert rollovers > 5


@pytest.mark.parametrize("rollover", [0, 1, 2, 300])
@pytest.mark.parametrize("suite", SUITES)
def test_audio_of_any_age(suite: Suite, rollover: int) -> None:
    twin = TwinKeys(suite)
    advance(twin, 1, rollover << 16 | 65_000)
    for sequence in range(65_001, 66_200):
        packet = rtp(sequence)
        assert twin.unprotect(twin.protect(packet)[1]) == (Reason.FORWARD, packet)
    assert twin.compiled.receiving.source[0].latest >> 16 == rollover + 1


def test_a_receiver_that_came_after_the_first_rollover() -> None:
    """The first packets were lost, and the sequence number wrapped meanwhile: libsrtp would stay deaf."""
    sender, receiver = TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80), TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80)
    sender.protect(rtp(65_535))
    assert receiver.unprotect(sender.protect(rtp(65_536))[1]) == (Reason.FORWARD, rtp(65_536))
    assert receiver.compiled.receiving.source[0].latest == 0x10000


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("keeps_counter", [True, False])
def test_rekeying(suite: Suite, keeps_counter: bool) -> None:
    """The rollover counter after it is 0 for most, and the former one for those who follow RFC 3711 §3.3.1."""
    twin, late = TwinKeys(suite, master(suite, 1)), TwinKeys(suite, master(suite, 1))
    for one in (twin, late):
        advance(one, 1, 300 << 16 | 500)
    overtaken = [late.protect(rtp(501 + i))[1] for i in range(3)]
    new = TwinKeys(suite, master(suite, 2))
    if keeps_counter:
        advance(new, 1, 300 << 16 | 503)
    twin.rekey(suite, master(suite, 2), grace=4)
    assert twin.unprotect(overtaken[0]) == (Reason.FORWARD, rtp(501))
    assert twin.unprotect(new.protect(rtp(504))[1]) == (Reason.FORWARD, rtp(504))
    assert twin.unprotect(overtaken[1]) == (Reason.FORWARD, rtp(502))
    assert twin.unprotect(overtaken[1])[0] is not Reason.FORWARD
    for sequence in (505, 506, 507):
        assert twin.unprotect(new.protect(rtp(sequence))[1]) == (Reason.FORWARD, rtp(sequence))
    assert not any(bytes(twin.compiled.former))
    assert twin.unprotect(overtaken[2])[0] is Reason.AUTH_FAILED


@pytest.mark.parametrize("suite", SUITES)
def test_an_mki_is_skipped_and_must_be_right(suite: Suite) -> None:
    key = master(suite)
    sender, receiver = TwinKeys(suite, key), TwinKeys(suite, key, b"\x00\x00\x00\x07")
    tag_bytes = 16 if "GCM" in suite.name else 4 if suite.name.endswith("_32") else 10
    for mki, expected in ((b"\x00\x00\x00\x07", Reason.FORWARD), (b"\x00\x00\x00\x08", Reason.AUTH_FAILED)):
        packet, report = rtp(mki[3]), rtcp()
        secret = sender.protect(packet)[1]
        at = len(secret) if "GCM" in suite.name else len(secret) - tag_bytes
        assert receiver.unprotect(secret[:at] + mki + secret[at:])[0] is expected
        secret = sender.protect(report, is_rtcp=True)[1]
        at = len(secret) if "GCM" in suite.name else len(secret) - 10
        assert receiver.unprotect(secret[:at] + mki + secret[at:], is_rtcp=True)[0] is expected


def test_sources_are_bounded() -> None:
    """Of the sending side none is forgotten, so no index is used twice; the receiving side makes room."""
    twin = TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80)
    outside = [TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80) for _ in range(SOURCES + 1)]
    for ssrc in range(SOURCES + 1):
        reason, _ = twin.protect(rtp(1, ssrc=ssrc))
        assert reason is (Reason.FORWARD if ssrc < SOURCES else Reason.SOURCES_FULL)
        assert twin.unprotect(outside[ssrc].protect(rtp(1, ssrc=ssrc))[1])[0] is Reason.FORWARD
    assert twin.protect(rtp(2, ssrc=0))[0] is Reason.FORWARD


def test_a_spent_key_is_used_no_more() -> None:
    twin = TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80)
    advance(twin, 1, 2**48 - 1)
    for keys in (twin.compiled, twin.reference):
        keys.sending.rtcp_index = 2**31 - 1
    assert twin.protect(rtp(0))[0] is Reason.KEY_SPENT
    assert twin.protect(rtcp(), is_rtcp=True)[0] is Reason.KEY_SPENT


def test_without_a_key() -> None:
    twin = TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80)
    for keys in (twin.compiled, twin.reference):
        keys.sending.suite = keys.receiving.suite = 0
    assert twin.protect(rtp(1))[0] is twin.unprotect(rtp(1))[0] is Reason.NO_KEY


@pytest.mark.parametrize("install", [_datapath.install, reference_srtp.install])
def test_keys_that_do_not_fit(install: Any) -> None:  # Any: the two take the same
    for suite, length, mki in (
        (0, 30, b""),
        (8, 30, b""),
        (1, 29, b""),
        (1, 46, b""),
        (6, 30, b""),
        (1, 30, bytes(17)),
    ):
        with pytest.raises(ValueError, match="suite"):
            install(Stream(), suite, bytes(length), mki)


def test_a_successor_uses_no_index_again() -> None:
    twin = TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80)
    twin.protect(rtp(10))
    twin.protect(rtp(12))
    twin.protect(rtcp(), is_rtcp=True)
    for keys in (twin.compiled, twin.reference):
        distrust(keys)
    assert twin.protect(rtp(11))[0] is Reason.INDEX_USED
    assert twin.protect(rtp(13))[0] is Reason.FORWARD
    assert int.from_bytes(twin.protect(rtcp(), is_rtcp=True)[1][-14:-10], "big") & 0x7FFFFFFF == 1 + 16 + 1


@pytest.mark.parametrize("renumbered", [0, 1])
@pytest.mark.parametrize("first", [3, 20, 21, 65_530])
def test_a_source_that_is_new_since_a_takeover(renumbered: int, first: int) -> None:
    """A known source is as before; a new one leaves out what it may have used already, if that may be ahead of it."""
    twin = TwinKeys(Suite.AES_CM_128_HMAC_SHA1_80)
    twin.protect(rtp(65_500))
    for keys in (twin.compiled, twin.reference):
        keys.sending.unsure, keys.sending.renumbered = 20, renumbered
    assert twin.protect(rtp(65_535))[0] is Reason.FORWARD
    sent = [first, *range(first + 1, 65_000, 1000), *range(max(first + 1, 65_500), 65_600)]
    passed = [number for number in sent if twin.protect(rtp(number & 0xFFFF, ssrc=9))[0] is Reason.FORWARD]
    assert (first in passed) is not bool(renumbered)
    around = {number for number in sent if abs(number - 65_536) <= 20 and number > first + 20 * renumbered}
    assert set(passed) & around == (set() if first <= 20 else around)
    assert passed[-1] == 65_599
