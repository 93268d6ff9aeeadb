"""The handshakes of DTLS-SRTP (RFC 5764) over memory: datagrams in, datagrams out, and keys into the arena.

One certificate serves all legs of a worker. It lies with its key in the arena, which only the supervisor and its
workers can read and which has the session keys of all calls anyway; so a successor of the worker is the same to those
that it was described to. A handshake in progress is lost with the worker and begins anew; the keys in force stay.

A leg's certificate is looked at when the handshake has ended and the description of the leg is there, whichever is the
later; before that no key reaches its rule. Each step costs some 0.5 ms of CPU, so few of them are made in one round.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from media import association, ice, keying
from media.association import Role
from media.counters import MediaCounter
from media.rules import RuleFlag
from media.srtp import Suite
from media.state import Arena
from media.webrtc import has_consent

MTU = 1200  # octets of a datagram of ours
IN_FLIGHT = 256  # handshakes of a worker
IN_FLIGHT_OF_SOURCE = 64  # and of one address: an office behind one NAT
IN_FLIGHT_OF_RULE = 3  # only without ICE: a forged ClientHello may not keep out the leg's own
AGAIN_NS = 10**9  # a leg begins a handshake so often at most
PATIENCE_NS = 30 * 10**9  # until one that has not ended is given up
CERTIFICATE_DAYS = 3650  # nobody looks: it is known by its fingerprint
LABEL = b"EXTRACTOR-dtls_srtp"  # RFC 5764 §4.2
PROFILES = {
    b"SRTP_AEAD_AES_256_GCM": Suite.AEAD_AES_256_GCM,
    b"SRTP_AEAD_AES_128_GCM": Suite.AEAD_AES_128_GCM,
    b"SRTP_AES128_CM_SHA1_80": Suite.AES_CM_128_HMAC_SHA1_80,
}
CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA"
ALERT, HANDSHAKE, CLIENT_HELLO = 21, 22, 1
RECORD_HEADER = 13
DTLS_1_2 = 0xFEFD


@dataclass(slots=True, eq=False)
class Handshake:
    """One association, in progress or done. ``address`` is where its last datagram came from."""

    rule: int
    number: int  # WebrtcLeg.association
    connection: SSL.Connection
    address: bytes
    begun_ns: int
    passive: bool
    certificate: bytes = b""  # theirs, once the handshake is done
    keyed: bool = False


class Identity:
    """Our key and certificate."""

    def __init__(self, blob: bytes = b"") -> None:
        if not blob:
            blob = _make_identity()
        size = int.from_bytes(blob[:2], "big")
        self.blob = blob
        key = serialization.load_der_private_key(blob[2 : 2 + size], None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.key = key
        self.certificate = x509.load_der_x509_certificate(blob[2 + size :])
        digest = hashlib.sha256(blob[2 + size :]).hexdigest().upper()
        self.fingerprint = "sha-256 " + ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


class Dtls:
    """All handshakes of one worker. ``send`` takes a rule, a packed address and a datagram; times are monotonic."""

    def __init__(
        self,
        arena: Arena,
        send: Callable[[int, bytes, bytes], int],
        count: Callable[[MediaCounter, int], None],
    ) -> None:
        self._arena = arena
        self._send = send
        self._count = count
        self._made: Identity | None = None
        self._contexts: dict[str, SSL.Context] = {}
        self._secret = secrets.token_bytes(32)
        # by rule and, without ICE, the address that it is made with
        self._open: dict[tuple[int, bytes], Handshake] = {}
        self._keys: dict[int, list[tuple[int, bytes]]] = {}  # those of a rule
        self._in_flight: dict[tuple[int, bytes], Handshake] = {}
        self._sources: Counter[bytes] = Counter()  # of those in flight, by address without port
        self._begun: dict[int, int] = {}  # when a rule last began one
        self._waiting: set[int] = set()  # rules that have to begin, but it is not known where their leg is

    def fingerprint(self) -> str:
        """Of our certificate, as a=fingerprint has it."""
        return self._identity().fingerprint

    def forget_identity(self) -> None:
        """The arena has another certificate by now."""
        self._made = None
        self._contexts.clear()

    @property
    def pending(self) -> int:
        """Handshakes in progress."""
        return len(self._in_flight)

    def look(self, index: int, now_ns: int) -> None:
        """The leg of a rule was described, has gone, or is somewhere else."""
        leg = self._arena.webrtc[index]
        number = leg.association if self._is_dtls(index) else 0
        for key in list(self._keys.get(index, ())):
            handshake = self._open[key]
            if handshake.number != number:
                self._drop(key)
                continue
            if not key[1] and self._arena.rules[index].rtp_remote.family:
                handshake.address = bytes(self._arena.rules[index].rtp_remote)  # ICE has moved it
            if handshake.certificate and not handshake.keyed and leg.prints:
                self._settle(key, handshake)
        self._waiting.discard(index)
        if not number:
            self._begun.pop(index, None)
        elif leg.role == Role.ACTIVE and not leg.established and index not in self._keys:
            self._waiting.add(index)
            self._begin_active(index, now_ns)

    def receive(self, index: int, source: bytes, data: bytes, now_ns: int) -> None:
        """A datagram of the leg of a rule, which the datapath has found to come from a place of its leg."""
        if not self._is_dtls(index) or len(data) <= RECORD_HEADER:
            return
        leg = self._arena.webrtc[index]
        key = (index, b"" if ice.is_on(self._arena, index) else source)
        handshake = self._open.get(key)
        if handshake is not None and handshake.number != leg.association:
            self._drop(key)
            handshake = None
        if data[0] == ALERT and data[3:5] == b"\0\0":
            return  # in clear: anybody could have written it (RFC 6347 §4.1.2.7)
        if handshake is None:
            if leg.role != Role.PASSIVE or not _is_client_hello(data):
                return
            handshake = self._begin(key, source, now_ns, passive=True)
            if handshake is None:
                return
        handshake.address = source
        handshake.connection.bio_write(data)
        self._advance(key, handshake)

    def tick(self, now_ns: int) -> None:
        """Repeat what was lost, and give up what takes too long."""
        for key, handshake in list(self._in_flight.items()):
            wait_s = handshake.connection.DTLSv1_get_timeout()
            if now_ns - handshake.begun_ns > PATIENCE_NS:
                self._fail(key, MediaCounter.DTLS_FAILED)
            elif wait_s is not None and wait_s <= 0:
                try:
                    handshake.connection.DTLSv1_handle_timeout()
                except SSL.Error:
                    self._fail(key, MediaCounter.DTLS_FAILED)
                    continue
                self._flush(handshake)
        for index in list(self._waiting):
            self._begin_active(index, now_ns)
        if len(self._begun) > IN_FLIGHT:
            self._begun = {index: at for index, at in self._begun.items() if now_ns - at < AGAIN_NS}

    # -- parts

    def _is_dtls(self, index: int) -> bool:
        return bool(self._arena.rules[index].flags & RuleFlag.IN_USE) and keying.speaks_dtls(self._arena, index)

    def _identity(self) -> Identity:
        if self._made is None:
            self._made = Identity(self._arena.identity)
            self._arena.keep_identity(self._made.blob)
        return self._made

    def _begin_active(self, index: int, now_ns: int) -> None:
        """Say hello, where it is known by now where the leg is."""
        rule = self._arena.rules[index]
        placed = bool(rule.rtp_remote.family) and now_ns - self._begun.get(index, now_ns - AGAIN_NS) >= AGAIN_NS
        if ice.is_on(self._arena, index):
            placed = placed and has_consent(self._arena.webrtc[index], now_ns)
        if not placed:
            return
        source = bytes(rule.rtp_remote)
        key = (index, b"" if ice.is_on(self._arena, index) else source)
        handshake = self._begin(key, source, now_ns, passive=False)
        if handshake is not None:
            self._waiting.discard(index)
            self._advance(key, handshake)

    def _begin(self, key: tuple[int, bytes], source: bytes, now_ns: int, *, passive: bool) -> Handshake | None:
        index, host = key[0], _host(source)
        own = [other for other in self._keys.get(index, ()) if other in self._in_flight]
        with_ice = not key[1]
        too_often = with_ice and now_ns - self._begun.get(index, now_ns - AGAIN_NS) < AGAIN_NS
        if len(own) >= IN_FLIGHT_OF_RULE:
            self._drop(own[0])
        if too_often or len(self._in_flight) >= IN_FLIGHT or self._sources[host] >= IN_FLIGHT_OF_SOURCE:
            self._count(MediaCounter.DTLS_LIMITED, 1)
            return None
        self._begun[index] = now_ns
        connection = SSL.Connection(self._context("client" if not passive else "ice" if with_ice else "cookie"), None)
        connection.set_app_data(source)  # for the cookie
        connection.set_ciphertext_mtu(MTU)
        if passive:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
        number = self._arena.webrtc[index].association
        handshake = Handshake(index, number, connection, source, now_ns, passive)
        self._open[key] = self._in_flight[key] = handshake
        self._keys.setdefault(index, []).append(key)
        self._sources[host] += 1
        self._count(MediaCounter.DTLS_STARTED, 1)
        return handshake

    def _advance(self, key: tuple[int, bytes], handshake: Handshake) -> None:
        """Make what there is of it."""
        connection = handshake.connection
        try:
            if key in self._in_flight:
                connection.do_handshake()
                self._land(key)
                self._finish(key, handshake)
            else:  # a repetition of what was lost, or the end
                while True:
                    connection.recv(2048)  # nothing that we would want to know
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._close(key, handshake)
        except SSL.Error:
            if key in self._in_flight:
                self._fail(key, MediaCounter.DTLS_FAILED)
            else:
                self._close(key, handshake)
        self._flush(handshake)

    def _finish(self, key: tuple[int, bytes], handshake: Handshake) -> None:
        certificate = handshake.connection.get_peer_certificate(as_cryptography=True)
        if certificate is None or handshake.connection.get_selected_srtp_profile() not in PROFILES:
            self._fail(key, MediaCounter.DTLS_FAILED)
            return
        handshake.certificate = certificate.public_bytes(serialization.Encoding.DER)
        if self._arena.webrtc[handshake.rule].prints:
            self._settle(key, handshake)

    def _settle(self, key: tuple[int, bytes], handshake: Handshake) -> None:
        """The handshake is done and the description is there: do they belong together?"""
        leg = self._arena.webrtc[handshake.rule]
        digest = hashlib.new(association.NAMES[leg.hash], handshake.certificate).digest()
        if not any(hmac.compare_digest(digest, named) for named in association.digests(leg)):
            self._fail(key, MediaCounter.DTLS_WRONG_CERTIFICATE)
            return
        suite = PROFILES[handshake.connection.get_selected_srtp_profile()]
        material = handshake.connection.export_keying_material(LABEL, 2 * suite.master_bytes)
        salts = 2 * suite.key_bytes
        masters = [
            material[at * suite.key_bytes : (at + 1) * suite.key_bytes]
            + material[salts + at * suite.salt_bytes : salts + (at + 1) * suite.salt_bytes]
            for at in (0, 1)
        ]  # the client's, the server's
        theirs, ours = masters if handshake.passive else reversed(masters)
        slot = self._arena.rules[handshake.rule].slot
        self._arena.begin(slot)
        keying.install_exported(self._arena, handshake.rule, suite, theirs, ours)
        self._arena.end(slot)
        handshake.keyed = True
        self._count(MediaCounter.DTLS_ESTABLISHED, 1)
        for other in [other for other in self._keys[key[0]] if other != key]:
            self._drop(other)

    def _close(self, key: tuple[int, bytes], handshake: Handshake) -> None:
        """The leg has ended the association: RFC 5764 §3 ends SRTP with it."""
        if handshake.keyed:
            keying.forget_exported(self._arena, handshake.rule)
        with contextlib.suppress(SSL.Error):
            handshake.connection.shutdown()
        self._count(MediaCounter.DTLS_CLOSED, 1)
        self._drop(key)

    def _fail(self, key: tuple[int, bytes], why: MediaCounter) -> None:
        self._count(why, 1)
        handshake = self._open[key]
        index = handshake.rule
        self._drop(key)
        leg = self._arena.webrtc[index]
        if leg.role == Role.ACTIVE and leg.association == handshake.number and not leg.established:
            self._waiting.add(index)  # they may be ready by the next time

    def _land(self, key: tuple[int, bytes]) -> None:
        """It is in flight no more."""
        handshake = self._in_flight.pop(key, None)
        if handshake is None:
            return
        host = _host(bytes(handshake.connection.get_app_data()))
        self._sources[host] -= 1
        if self._sources[host] <= 0:
            del self._sources[host]

    def _drop(self, key: tuple[int, bytes]) -> None:
        self._land(key)
        del self._open[key]
        own = self._keys[key[0]]
        own.remove(key)
        if not own:
            del self._keys[key[0]]

    def _flush(self, handshake: Handshake) -> None:
        try:
            data = handshake.connection.bio_read(65536)
        except SSL.WantReadError:
            return
        for datagram in datagrams(data):
            self._send(handshake.rule, handshake.address, datagram)

    def _context(self, kind: str) -> SSL.Context:
        context = self._contexts.get(kind)
        if context is not None:
            return context
        identity = self._identity()
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_min_proto_version(DTLS_1_2)
        context.set_max_proto_version(DTLS_1_2)
        context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(CIPHERS)
        context.set_tlsext_use_srtp(b":".join(PROFILES))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _any_certificate)
        context.use_privatekey(identity.key)
        context.use_certificate(identity.certificate)
        if kind == "cookie":  # RFC 6347 §4.2.1: whoever says hello has to be where he says
            assert SSL.OP_COOKIE_EXCHANGE is not None
            context.set_options(SSL.OP_COOKIE_EXCHANGE)
            context.set_cookie_generate_callback(self._cookie)
            context.set_cookie_verify_callback(
                lambda connection, cookie: hmac.compare_digest(self._cookie(connection), cookie)
            )
        self._contexts[kind] = context
        return context

    def _cookie(self, connection: SSL.Connection) -> bytes:
        return hmac.digest(self._secret, bytes(connection.get_app_data()), "sha256")


def datagrams(data: bytes) -> list[bytes]:
    """Records in a row as datagrams of at most MTU octets, of whole records."""
    found, begin, at = [], 0, 0
    while at + RECORD_HEADER <= len(data):
        end = at + RECORD_HEADER + int.from_bytes(data[at + 11 : at + 13], "big")
        if end - begin > MTU and at > begin:
            found.append(data[begin:at])
            begin = at
        at = end
    if begin < len(data):
        found.append(data[begin:])
    return found


def _is_client_hello(data: bytes) -> bool:
    """Or a fragment of one; in clear."""
    return len(data) > 25 and data[0] == HANDSHAKE and data[3:5] == b"\0\0" and data[13] == CLIENT_HELLO


def _host(address: bytes) -> bytes:
    """A packed address without its port."""
    return address[:2] + address[4:]


def _any_certificate(connection: SSL.Connection, certificate: object, error: int, depth: int, known: int) -> bool:
    """It proves that its owner is at the other end; whether it is the right one is looked at afterwards."""
    return True


def _make_identity() -> bytes:
    """Octets of the key's length, the key, the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "media")])  # RFC 8827 §6.5: tells nothing
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .sign(key, hashes.SHA256())
    )
    octets = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return len(octets).to_bytes(2, "big") + octets + certificate.public_bytes(serialization.Encoding.DER)
