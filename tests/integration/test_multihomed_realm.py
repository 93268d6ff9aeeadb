"""One realm with a foot in three networks: each request leaves from the address that the route to its target takes, and
shows what that listener advertises.

```
 caller 198.51.100.20 ──── 198.51.100.5 ┐
                                        SBC, one realm
 inner  10.10.11.12 ────── 10.10.11.5   ┤   (as 192.0.2.11:15060)
 far    192.168.7.12 ── router ── 10.20.0.5 ┘
```
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbc.selftest.netns import Lab
from tests.support.sbc import eventually, running
from tests.support.sipp import Sipp
from tests.support.sniff import read, recording

CALLER, AT_CALLER = "198.51.100.20", "198.51.100.5"
INNER, AT_INNER, SEEN = "10.10.11.12", "10.10.11.5", "192.0.2.11"
FAR, AT_FAR, ROUTER = "192.168.7.12", "10.20.0.5", "10.20.0.1"

CONFIG = f"""\
workers: {{ sip: 1, media: 1 }}
store: none
realms:
  net:
    listen:
      - udp:{AT_CALLER}:5060
      - udp:{AT_INNER}:5060 as {SEEN}:15060
      - udp:{AT_FAR}:5060
    media: {{ address: {AT_CALLER}, ports: 40000-40999 }}
peers:
  caller: {{ realm: net, addresses: {CALLER}, calls_to: %s }}
  inner: {{ realm: net, addresses: {INNER}, gateway: "sip:{INNER}:5060" }}
  far: {{ realm: net, addresses: {FAR}, gateway: "sip:{FAR}:5060" }}
"""

pytestmark = [pytest.mark.peer("sipp", "ip", "nft", "root")]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        for host in ("caller", "sbc", "inner", "router", "far"):
            made.host(host)
        made.wire("caller", f"{CALLER}/24", "sbc", f"{AT_CALLER}/24")
        made.wire("sbc", f"{AT_INNER}/24", "inner", f"{INNER}/24")
        made.wire("sbc", f"{AT_FAR}/24", "router", f"{ROUTER}/24")
        made.wire("router", "192.168.7.1/24", "far", f"{FAR}/24")
        made.forward("router")
        made.route("sbc", "192.168.7.0/24", ROUTER)
        made.route("far", "default", "192.168.7.1")
        yield made


@pytest.mark.parametrize(
    ("peer", "host", "source", "shown"),
    [("inner", INNER, AT_INNER, f"{SEEN}:15060"), ("far", FAR, AT_FAR, f"{AT_FAR}:5060")],
)
def test_the_source_follows_the_route(tmp_path: Path, lab: Lab, peer: str, host: str, source: str, shown: str) -> None:
    caller = ["-i", CALLER, "-s", "1001", f"{AT_CALLER}:5060", "-m", "1", "-d", "200"]
    with (
        running(tmp_path / "sbc", CONFIG % peer, prefix=lab.inside("sbc")) as sbc,
        recording(tmp_path / "wire", lab.inside(peer)),
        Sipp("uas", tmp_path, "-i", host, "-p", "5060", "-m", "1", prefix=lab.inside(peer), timeout_s=20),
        Sipp("uac", tmp_path, *caller, prefix=lab.inside("caller"), timeout_s=20) as uac,
    ):
        assert uac.finish().successful == 1
        eventually(lambda: not sbc.calls(), 5, "no call left")
    sent = [datagram for datagram in read(tmp_path / "wire") if datagram.is_sip and datagram.destination[0] == host]
    assert [datagram.payload.split(b" ", 1)[0] for datagram in sent] == [b"INVITE", b"ACK", b"BYE"]
    for datagram in sent:
        assert datagram.source == (source, 5060)
        assert f"\r\nVia: SIP/2.0/UDP {shown};rport;branch=".encode() in datagram.payload
        found = {text.decode() for text in re.findall(rb"@([0-9.:]+)", datagram.payload)}
        assert found <= {shown, shown.partition(":")[0], host, f"{host}:5060"}, datagram.payload
