"""Calls between real phones (baresip) through a real SBC, each in a network of its own: what each hears of the other.

```
 a 10.1.0.2 ──── 10.1.0.1 sbc 10.2.0.1 ──── b 10.2.0.2
```
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.baresip import LOUD, RATE_HZ, Baresip
from tests.support.certificates import Authority, Pair
from tests.support.netns import Lab
from tests.support.sbc import Sbc, eventually, running

pytestmark = pytest.mark.peer("baresip", "ip", "root")
A, OUTSIDE, CORE, B = "10.1.0.2", "10.1.0.1", "10.2.0.1", "10.2.0.2"
A_HZ, B_HZ = 440, 1000
CLEAR = LOUD * 0.8  # a tone that came through whole; the codec costs a little
PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}
TALK_S = 2.0


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


def config(authority: Authority, transport: str) -> str:
    pair = authority.sign("sbc", f"IP:{OUTSIDE},IP:{CORE}")
    tls = f"tls: {{ certificate: {pair.certificate}, key: {pair.key}, ca: {authority.certificate} }}"
    listen = "[udp:{0}:5060, tcp:{0}:5060, tls:{0}:5061]"
    return f"""\
workers: {{ sip: 2, media: 1 }}
realms:
  outside:
    listen: {listen.format(OUTSIDE)}
    {tls}
    media: {{ address: {OUTSIDE}, ports: 30000-30999 }}
  core:
    listen: {listen.format(CORE)}
    {tls}
    media: {{ address: {CORE}, ports: 31000-31999 }}
    trusted: true
peers:
  a: {{ realm: outside, addresses: {A}, calls_to: b, gateway: "sip:{A}:{PORTS[transport]};transport={transport}" }}
  b: {{ realm: core, addresses: {B}, calls_to: a, gateway: "sip:{B}:{PORTS[transport]};transport={transport}" }}
"""


def phone(
    directory: Path, lab: Lab, name: str, transport: str, authority: Authority, pair: Pair | None = None
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
        certificate=pem,
        ca=authority.certificate,
    )


def a_record(sbc: Sbc) -> None:
    """One call is on record, with packets both ways on both legs."""
    eventually(lambda: len(sbc.cdrs()) == 1, 10, "a record")
    (cdr,) = sbc.cdrs()
    assert cdr["answered"]
    for leg in ("a", "b"):
        assert cdr["media"][leg]["packets"] > 30 * TALK_S
        assert cdr["media"][leg]["packets_out"] > 30 * TALK_S
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
            calling, called = (a, b) if caller == "a" else (b, a)
            calling.dial(f"sip:{called.name}@{OUTSIDE if caller == 'a' else CORE}")
            calling.expect("CALL_ESTABLISHED")
            called.expect("CALL_ESTABLISHED")
            time.sleep(TALK_S)
            called.command("hangup")
            calling.expect("CALL_CLOSED")
        assert a.heard(B_HZ) > CLEAR
        assert b.heard(A_HZ) > CLEAR
        assert a.heard(A_HZ) < CLEAR / 20
        a_record(sbc)


def test_hold_and_resume(tmp_path: Path, lab: Lab, authority: Authority) -> None:
    """While a holds, b is told so and hears nothing of it; then both hear each other again."""
    with running(tmp_path / "sbc", config(authority, "udp"), prefix=lab.inside("sbc")) as sbc:
        with phone(tmp_path, lab, "a", "udp", authority) as a, phone(tmp_path, lab, "b", "udp", authority) as b:
            a.dial(f"sip:b@{OUTSIDE}")
            a.expect("CALL_ESTABLISHED")
            b.expect("CALL_ESTABLISHED")
            eventually(lambda: len(b.recording()) > RATE_HZ // 2, 5, "sound")
            a.command("hold")
            time.sleep(0.5)
            before = len(b.recording())
            time.sleep(1)
            held = len(b.recording()) - before
            a.command("resume")
            time.sleep(TALK_S)
            a.command("hangup")
            b.expect("CALL_CLOSED")
        assert held < RATE_HZ // 10
        assert a.heard(B_HZ) > CLEAR
        assert b.heard(A_HZ) > CLEAR
        a_record(sbc)


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
