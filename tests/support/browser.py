"""The media of a browser for tests: a full ICE agent, a DTLS client and SRTP on one socket. It blocks."""

from __future__ import annotations

import socket
import time

import pylibsrtp
from OpenSSL import SSL

from media.dtls import DTLS_1_2, LABEL, MTU, PROFILES, Identity, datagrams
from media.protocol import Endpoint, Ice, Stream
from tests.support.stun import Agent, error_code, mapped

LIBSRTP = {
    b"SRTP_AEAD_AES_256_GCM": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12),
    b"SRTP_AEAD_AES_128_GCM": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    b"SRTP_AES128_CM_SHA1_80": (pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
}


def dtls_end(identity: Identity, *, active: bool, profiles: bytes = b":".join(PROFILES)) -> SSL.Connection:
    """One end of a handshake over memory."""
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(DTLS_1_2)
    context.set_max_proto_version(DTLS_1_2)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    context.set_tlsext_use_srtp(profiles)
    context.use_privatekey(identity.key)
    context.use_certificate(identity.certificate)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    connection = SSL.Connection(context, None)
    connection.set_ciphertext_mtu(MTU)
    if active:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    return connection


def flight(connection: SSL.Connection) -> list[bytes]:
    """What it wants to send."""
    try:
        return datagrams(connection.bio_read(65536))
    except SSL.WantReadError:
        return []


def proceed(connection: SSL.Connection) -> bool:
    """Is its handshake done?"""
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def masters(connection: SSL.Connection) -> tuple[bytes, bytes]:
    """Master key and salt of the client and of the server."""
    _, key, salt = LIBSRTP[connection.get_selected_srtp_profile()]
    octets = connection.export_keying_material(LABEL, 2 * (key + salt))
    client = octets[:key] + octets[2 * key : 2 * key + salt]
    return client, octets[key : 2 * key] + octets[2 * key + salt :]


class Browser:
    """One leg: what it describes, and what it does with what it was shown."""

    def __init__(self, ufrag: str = "abcd", *, profiles: bytes = b":".join(PROFILES)) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.05)
        self.identity = Identity()
        self.ice = Ice(ufrag, "w" * 22)
        self.profiles = profiles
        self.far = ("127.0.0.1", 0)
        self.agent = Agent("", "")
        self.connection = dtls_end(self.identity, active=True, profiles=profiles)
        self.sending: pylibsrtp.Session | None = None
        self.receiving: pylibsrtp.Session | None = None

    def stream(self, setup: str = "actpass") -> Stream:
        """Its m= line, before it knows any candidate."""
        stream = Stream("0.0.0.0", 9, protocol="UDP/TLS/RTP/SAVPF", rtcp_mux=True, ice=self.ice)
        stream.fingerprints, stream.setup = [self.identity.fingerprint], setup  # type: ignore[assignment]  # a Setup
        return stream

    def see(self, endpoint: Endpoint) -> None:
        """Take what it was shown."""
        assert endpoint.ice is not None
        self.far = ("127.0.0.1", endpoint.port)
        self.agent = Agent(endpoint.ice.ufrag, endpoint.ice.password, self.ice.ufrag)

    def check(self, agent: Agent | None = None, *, sock: socket.socket | None = None, nominate: bool = True) -> bytes:
        """One connectivity check; the answer."""
        ours = sock or self.socket
        for _ in range(40):
            ours.sendto((agent or self.agent).check(nominate=nominate), self.far)
            answer = _next(ours, lambda data: data[0] < 4)
            if answer:
                return answer
        raise AssertionError("a check is not answered")

    def connect(self, timeout_s: float = 10.0) -> None:
        """A check, the handshake, and SRTP under its keys."""
        answer = self.check()
        assert mapped(answer) == self.socket.getsockname(), error_code(answer)
        assert self.handshake(timeout_s), "no handshake"

    def handshake(self, timeout_s: float = 10.0) -> bool:
        """As the client; False where it does not end."""
        end = time.monotonic() + timeout_s
        done = proceed(self.connection)
        while not done and time.monotonic() < end:
            for datagram in flight(self.connection):
                self.socket.sendto(datagram, self.far)
            data = _next(self.socket, lambda data: 20 <= data[0] <= 63)
            if data:
                self.connection.bio_write(data)
            elif (self.connection.DTLSv1_get_timeout() or 1.0) <= 0:
                self.connection.DTLSv1_handle_timeout()
            done = proceed(self.connection)
        for datagram in flight(self.connection):
            self.socket.sendto(datagram, self.far)
        if done:
            self._key()
        return done

    def _key(self) -> None:
        ours, theirs = masters(self.connection)
        profile = LIBSRTP[self.connection.get_selected_srtp_profile()][0]
        any_out, any_in = pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND
        self.sending = pylibsrtp.Session(pylibsrtp.Policy(key=ours, ssrc_type=any_out, srtp_profile=profile))
        self.receiving = pylibsrtp.Session(pylibsrtp.Policy(key=theirs, ssrc_type=any_in, srtp_profile=profile))

    def send(self, packet: bytes, *, rtcp: bool = False) -> None:
        """Protected."""
        assert self.sending is not None
        self.socket.sendto(self.sending.protect_rtcp(packet) if rtcp else self.sending.protect(packet), self.far)

    def hear(self, *, rtcp: bool = False) -> bytes:
        """The next RTP or RTCP packet in clear (as it came, where there are no keys); b"" for none."""
        data = _next(self.socket, lambda data: data[0] >= 128 and (192 <= data[1] <= 223) == rtcp)
        if not data or self.receiving is None:
            return data
        return bytes(self.receiving.unprotect_rtcp(data) if rtcp else self.receiving.unprotect(data))

    def close(self) -> None:
        """Its socket."""
        self.socket.close()


def _next(sock: socket.socket, wanted: object) -> bytes:
    assert callable(wanted)
    for _ in range(200):
        try:
            data = sock.recv(4096)
        except TimeoutError:
            return b""
        if data and wanted(data):
            return data
    return b""
