"""Phones (baresip) that register through the SBC at a registrar behind it (Kamailio), and call each other by it.

```
 alice (twice), bob 10.1.0.2 ──── 10.1.0.1 sbc 10.2.0.1 ──── kamailio 10.2.0.2
```
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbc.selftest.netns import Lab
from tests.support.baresip import LOUD, Baresip
from tests.support.kamailio import Kamailio
from tests.support.sbc import eventually, running

pytestmark = pytest.mark.peer("baresip", "kamailio", "ip", "root")
PHONES, OUTSIDE, CORE, REGISTRAR = "10.1.0.2", "10.1.0.1", "10.2.0.1", "10.2.0.2"
DOMAIN = "carrier.example"
CLEAR = LOUD * 0.8
TALK_S = 2.0
CONFIG = f"""\
workers: {{ sip: 2, media: 1 }}
realms:
  outside:
    listen: [udp:{OUTSIDE}:5060, tcp:{OUTSIDE}:5060]
    media: {{ address: {OUTSIDE}, ports: 30000-30999 }}
  core:
    listen: [udp:{CORE}:5060]
    media: {{ address: {CORE}, ports: 31000-31999 }}
    trusted: true
peers:
  phones: {{ realm: outside, addresses: {PHONES}, calls_to: registrar }}
  registrar: {{ realm: core, addresses: {REGISTRAR}, gateway: "sip:{REGISTRAR}:5060" }}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        for host in ("phones", "sbc", "registrar"):
            made.host(host)
        made.wire("phones", f"{PHONES}/24", "sbc", f"{OUTSIDE}/24")
        made.wire("sbc", f"{CORE}/24", "registrar", f"{REGISTRAR}/24")
        yield made


def phone(
    directory: Path, lab: Lab, user: str, port: int, *, tone_hz: int, transport: str = "udp", answers: bool = True
) -> Baresip:
    directory = directory / str(port)
    directory.mkdir()
    return Baresip(
        directory,
        lab,
        user,
        "phones",
        PHONES,
        port=port,
        outbound=f"sip:{OUTSIDE}:5060;transport={transport}",
        domain=DOMAIN,
        transport=transport,
        tone_hz=tone_hz,
        account=f"regint=60;auth_user={user};auth_pass=sesame",
        answers=answers,
    )


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_registered_phones_call_each_other(tmp_path: Path, lab: Lab, transport: str) -> None:
    """Bob calls Alice, whose two phones ring; one answers, the other is told to stop."""
    with (
        Kamailio(tmp_path / "kamailio", REGISTRAR, 5060, lab=lab, inside="registrar") as registrar,
        running(tmp_path / "sbc", CONFIG, prefix=lab.inside("sbc")) as sbc,
    ):
        with (
            phone(tmp_path, lab, "alice", 5060, tone_hz=440, transport=transport, answers=False) as desk,
            phone(tmp_path, lab, "alice", 5070, tone_hz=650, transport=transport, answers=False) as hall,
            phone(tmp_path, lab, "bob", 5080, tone_hz=1000, transport=transport) as bob,
        ):
            for one in (desk, hall, bob):
                one.registered()
            bob.dial(f"sip:alice@{DOMAIN}")
            desk.expect("CALL_INCOMING")
            hall.expect("CALL_INCOMING")
            desk.command("accept")
            bob.expect("CALL_ESTABLISHED")
            hall.expect("CALL_CLOSED")
            time.sleep(TALK_S)
            desk.command("hangup")
            bob.expect("CALL_CLOSED")
        assert bob.heard(440) > CLEAR
        assert desk.heard(1000) > CLEAR
        assert PHONES not in registrar.log
        eventually(lambda: len(sbc.cdrs()) == 3, 10, "the records")
        # Bob to the registrar, the registrar to both phones of Alice.
        assert sorted(cdr["status"] for cdr in sbc.cdrs()) == [200, 200, 487]
        for cdr in sbc.cdrs():
            for leg in cdr["media"].values():
                assert not cdr["answered"] or min(leg["packets"], leg["packets_out"]) > 30 * TALK_S
        assert sbc.total("CORE_ERRORS") == sbc.total("CORE_FAULTS") == 0


def test_a_blind_transfer(tmp_path: Path, lab: Lab) -> None:
    """Bob calls Alice, who hands him on to Carol, by the registrar: then Bob and Carol hear each other."""
    with (
        Kamailio(tmp_path / "kamailio", REGISTRAR, 5060, lab=lab, inside="registrar"),
        running(tmp_path / "sbc", CONFIG, prefix=lab.inside("sbc")) as sbc,
    ):
        with (
            phone(tmp_path, lab, "alice", 5060, tone_hz=440) as alice,
            phone(tmp_path, lab, "carol", 5070, tone_hz=650) as carol,
            phone(tmp_path, lab, "bob", 5080, tone_hz=1000) as bob,
        ):
            for one in (alice, carol, bob):
                one.registered()
            bob.dial(f"sip:alice@{DOMAIN}")
            bob.expect("CALL_ESTABLISHED")
            alice.expect("CALL_ESTABLISHED")
            alice.command("transfer", f"sip:carol@{DOMAIN}")
            carol.expect("CALL_ESTABLISHED")
            alice.expect("CALL_CLOSED")
            time.sleep(TALK_S)
            bob.command("hangup")
            carol.expect("CALL_CLOSED")
        assert bob.heard(650) > CLEAR
        assert carol.heard(1000) > CLEAR
        assert bob.heard(440) < CLEAR / 20
        eventually(lambda: not sbc.calls(), 5, "no call left")
        assert sbc.total("CORE_ERRORS") == sbc.total("CORE_FAULTS") == 0


def test_a_wrong_password_is_the_phones_and_the_registrars_business(tmp_path: Path, lab: Lab) -> None:
    """The challenge and its answer cross; what the registrar says of it too."""
    with (
        Kamailio(tmp_path / "kamailio", REGISTRAR, 5060, password="other", lab=lab, inside="registrar") as registrar,
        running(tmp_path / "sbc", CONFIG, prefix=lab.inside("sbc")) as sbc,
        phone(tmp_path, lab, "bob", 5080, tone_hz=1000) as bob,
    ):
        eventually(lambda: "401 Unauthorized" in bob.log, 8, f"a refusal\n{bob.log}")
        assert not registrar.lines("REGISTER")
        assert sbc.total("CREDENTIALS_REFUSED") == 0
