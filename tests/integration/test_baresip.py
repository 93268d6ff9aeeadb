"""Calls between real phones (baresip) through a real SBC, each in a network of its own: what each hears of the other.

```
 a 10.1.0.2 ──── 10.1.0.1 sbc 10.2.0.1 ──── b 10.2.0.2
```
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pylibsrtp
import pytest

from sbc.selftest.netns import Lab
from tests.support.baresip import LOUD, Baresip, amplitude, spoken
from tests.support.certificates import Authority, Pair
from tests.support.sbc import Sbc, eventually, running
from tests.support.sniff import Datagram, read, recording

pytestmark = pytest.mark.peer("baresip", "ip", "root")
A, OUTSIDE, CORE, B = "10.1.0.2", "10.1.0.1", "10.2.0.1", "10.2.0.2"
A_HZ, B_HZ = 440, 1000
CLEAR = LOUD * 0.8  # a tone that came through whole; the codec costs a little
PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}
TALK_S, HOLD_S = 2.0, 1.5


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        for host in ("a", "sbc", "b"):
            made.host(host)
        made.wire("a", f"{A}/24", "sbc", f"{OUTSIDE}/24")
        made.wire("sbc", f"{CORE}/24", "b", f"{B}/24")
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


def config(authority: Authority, transport: str, srtp: str = "off", profile: str = "default") -> str:
    pair = authority.sign("sbc", f"IP:{OUTSIDE},IP:{CORE}")
    tls = f"tls: {{ certificate: {pair.certificate}, key: {pair.key}, ca: {authority.certificate} }}"
    listen = "[udp:{0}:5060, tcp:{0}:5060, tls:{0}:5061]"
    return f"""\
workers: {{ sip: 2, media: 1 }}
realms:
  outside:
    listen: {listen.format(OUTSIDE)}
    {tls}
    media: {{ address: {OUTSIDE}, ports: 30000-30999, srtp: {srtp} }}
  core:
    listen: {listen.format(CORE)}
    {tls}
    media: {{ address: {CORE}, ports: 31000-31999 }}
    trusted: true
peers:
  a:
    realm: outside
    addresses: {A}
    calls_to: b
    gateway: "sip:{A}:{PORTS[transport]};transport={transport}"
    profile: {profile}
  b: {{ realm: core, addresses: {B}, calls_to: a, gateway: "sip:{B}:{PORTS[transport]};transport={transport}" }}
"""


def phone(
    directory: Path,
    lab: Lab,
    name: str,
    transport: str,
    authority: Authority,
    pair: Pair | None = None,
    account: str = "regint=0",
    mux: bool = False,
) -> Baresip:
    address, sbc = (A, OUTSIDE) if name == "a" else (B, CORE)
    pem = directory / f"{name}.pem"
    pair = pair or authority.sign(name, f"IP:{address}")
    pem.write_text(pair.key.read_text() + pair.certificate.read_text())
    return Baresip(
        directory,
        lab,
        name,
        name,
        address,
        outbound=f"sip:{sbc}:{PORTS[transport]};transport={transport}",
        transport=transport,
        tone_hz=A_HZ if name == "a" else B_HZ,
        account=account,
        certificate=pem,
        ca=authority.certificate,
        mux=mux,
    )


def talk(calling: Baresip, called: Baresip) -> None:
    """A whole call, which the called one ends."""
    calling.dial(f"sip:{called.name}@{OUTSIDE if calling.name == 'a' else CORE}")
    calling.expect("CALL_ESTABLISHED")
    called.expect("CALL_ESTABLISHED")
    time.sleep(TALK_S)
    called.command("hangup")
    calling.expect("CALL_CLOSED")


def a_record(sbc: Sbc, talk_s: float = TALK_S) -> None:
    """One call is on record, with packets both ways on both legs, for so long."""
    eventually(lambda: len(sbc.cdrs()) == 1, 10, "a record")
    (cdr,) = sbc.cdrs()
    assert cdr["answered"]
    for leg in ("a", "b"):
        assert cdr["media"][leg]["packets"] > 30 * talk_s
        assert cdr["media"][leg]["packets_out"] > 30 * talk_s
    assert sbc.total("CORE_ERRORS") == sbc.total("CORE_FAULTS") == 0


@pytest.mark.parametrize("caller", ["a", "b"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_two_phones_hear_each_other(
    tmp_path: Path, lab: Lab, authority: Authority, transport: str, caller: str
) -> None:
    """Whoever calls, whoever hangs up."""
    with running(tmp_path / "sbc", config(authority, transport), prefix=lab.inside("sbc")) as sbc:
        with (
            phone(tmp_path, lab, "a", transport, authority) as a,
            phone(tmp_path, lab, "b", transport, authority) as b,
        ):
            talk(*((a, b) if caller == "a" else (b, a)))
        assert a.heard(B_HZ) > CLEAR
        assert b.heard(A_HZ) > CLEAR
        assert a.heard(A_HZ) < CLEAR / 20
        a_record(sbc)


@pytest.mark.parametrize("caller", ["a", "b"])
@pytest.mark.parametrize("profile", ["webrtc", "keyed"])
def test_dtls_srtp_reaches_a_phone_with_plain_rtp(
    tmp_path: Path, lab: Lab, authority: Authority, profile: str, caller: str
) -> None:
    """With ICE as browsers have it, and without."""
    account = "regint=0;mediaenc=dtls_srtp" + (";medianat=ice" if profile == "webrtc" else "")
    text = config(authority, "udp", profile=profile) + "media_profiles: { keyed: { srtp: dtls } }\n"
    with running(tmp_path / "sbc", text, prefix=lab.inside("sbc")) as sbc:
        with (
            phone(tmp_path, lab, "a", "udp", authority, account=account, mux=True) as a,
            phone(tmp_path, lab, "b", "udp", authority) as b,
        ):
            talk(*((a, b) if caller == "a" else (b, a)))
        assert a.heard(B_HZ) > CLEAR
        assert b.heard(A_HZ) > CLEAR
        a_record(sbc, TALK_S - 1.0)  # a first hello that comes before the answer is repeated after a second


@pytest.mark.parametrize("srtp", ["off", "required"])
@pytest.mark.parametrize("holder", ["a", "b"])
def test_hold_and_resume(tmp_path: Path, lab: Lab, authority: Authority, holder: str, srtp: str) -> None:
    """Each is told of the other's hold and both fall silent; after the resume each gets the other's tone again.

    Judged by what crosses the SBC's wires, in order. ``srtp`` is for a alone.
    """
    account = "regint=0" if srtp == "off" else "regint=0;mediaenc=srtp-mand"
    with (
        recording(tmp_path / "wires", lab.inside("sbc")),
        running(tmp_path / "sbc", config(authority, "udp", srtp), prefix=lab.inside("sbc")) as sbc,
    ):
        with (
            phone(tmp_path, lab, "a", "udp", authority, account=account) as a,
            phone(tmp_path, lab, "b", "udp", authority) as b,
        ):
            a.dial(f"sip:b@{OUTSIDE}")
            a.expect("CALL_ESTABLISHED")
            b.expect("CALL_ESTABLISHED")
            time.sleep(TALK_S)
            holding = a if holder == "a" else b
            holding.command("hold")
            time.sleep(HOLD_S)
            holding.command("resume")
            time.sleep(TALK_S)
            a.command("hangup")
            b.expect("CALL_CLOSED")
        a_record(sbc)
    wires = read(tmp_path / "wires")
    for address, own_hz, other_hz in ((A, A_HZ, B_HZ), (B, B_HZ, A_HZ)):
        leg = [it for it in wires if address in (it.source[0], it.destination[0])]
        assert directions(leg) == ["sendrecv", "sendrecv", "sendonly", "recvonly", "sendrecv", "sendrecv"]
        before, held, after = phases(leg, address)
        assert len(before) > 40 * TALK_S
        assert len(held) < 5  # what was on its way
        assert len(after) > 40 * TALK_S
        if srtp != "off" and address == A:
            after = in_clear(leg, after)
        samples = spoken(after[-50:])
        assert amplitude(samples, other_hz) > CLEAR
        assert amplitude(samples, own_hz) < CLEAR / 20


def in_clear(leg: Sequence[Datagram], packets: Sequence[bytes]) -> list[bytes]:
    """What a's phone makes of SRTP packets, by the key that it was told last."""
    found = [it.payload for it in leg if it.is_sip and it.destination[0] == A and b"a=crypto:" in it.payload]
    key = re.search(rb"a=crypto:\d+ AES_CM_128_HMAC_SHA1_80 inline:([\w+/=]+)", found[-1])
    assert key is not None
    policy = pylibsrtp.Policy(key=base64.b64decode(key[1]), ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND)
    session = pylibsrtp.Session(policy)
    return [session.unprotect(packet) for packet in packets]


def directions(leg: Sequence[Datagram]) -> list[str]:
    """Of each description, offer and answer by turns, without retransmissions."""
    found: dict[tuple[bytes, bytes], str] = {}
    for it in leg:
        if it.is_sip and (said := re.search(rb"\r\na=(send\w+|recvonly|inactive)\r\n", it.payload)):
            start, number = it.payload.partition(b" ")[0], re.search(rb"(?m)^CSeq: *(\d+)", it.payload)
            assert number is not None
            found.setdefault((start, number[1]), said[1].decode())
    return list(found.values())


def phases(leg: Sequence[Datagram], address: str) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The audio that a phone got up to its first re-INVITE, from the ACK of that to the second, and from the ACK of
    the second on."""
    begins: dict[tuple[bytes, bytes], int] = {}
    for at, it in enumerate(leg):
        method = it.payload.partition(b" ")[0]
        if method in (b"INVITE", b"ACK"):
            number = re.search(rb"(?m)^CSeq: *(\d+)", it.payload)
            assert number is not None
            begins.setdefault((method, number[1]), at)
    invites = [at for (method, _), at in begins.items() if method == b"INVITE"][-2:]
    acks = [at for (method, _), at in begins.items() if method == b"ACK"][-2:]
    edges = [(0, invites[0]), (acks[0], invites[1]), (acks[1], len(leg))]
    audio = [
        [it.payload for it in leg[start:end] if it.is_rtp and it.destination[0] == address] for start, end in edges
    ]
    return audio[0], audio[1], audio[2]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("expired", "certificate has expired"),
        ("name", "IP address mismatch"),
        ("stranger", "unable to get local issuer"),
    ],
)
def test_a_phone_that_cannot_prove_who_it_is_gets_no_call(
    tmp_path: Path, lab: Lab, authority: Authority, fault: str, said: str
) -> None:
    signer = Authority(tmp_path / "stranger", "stranger") if fault == "stranger" else authority
    bad = signer.sign(f"bad-{fault}", f"IP:{A if fault == 'name' else B}", expired=fault == "expired")
    with running(tmp_path / "sbc", config(authority, "tls"), prefix=lab.inside("sbc")) as sbc:
        with (
            phone(tmp_path, lab, "a", "tls", authority) as a,
            phone(tmp_path, lab, "b", "tls", authority, bad),
        ):
            a.dial(f"sip:b@{OUTSIDE}")
            assert "503" in a.expect("CALL_CLOSED")["param"]
        assert f'"source":"{B}:5061","transport":"tls","reason":"certificate: {said}' in sbc.log
        assert sbc.total("CONNECT_FAILED") >= 1
