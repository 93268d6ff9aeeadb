"""Registering at a carrier that is Kamailio: digest, refresh, calls from there, and what may go wrong."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.kamailio import Kamailio
from tests.support.loopback import CALLER, NETWORK, OTHER, OUTSIDE, Loopback, loopback
from tests.support.sbc import Sbc, eventually, free_port, running
from tests.support.sipp import Sipp

pytestmark = pytest.mark.peer("kamailio")
SUBSCRIBER = f"{NETWORK}.21"


def site(port: int, *, password: str = "sesame", transport: str = "udp", expires_s: int = 600) -> Loopback:
    """The loopback site whose peer ``carrier`` is a registrar on ``port``."""
    net = loopback(sip=2)
    text = net.text
    if transport == "tcp":
        text = text.replace(f"[udp:{OUTSIDE}:{net.port}]", f"[udp:{OUTSIDE}:{net.port}, tcp:{OUTSIDE}:{net.port}]")
    trunk = (
        f"auth: {{ username: trunk-7, password: {password}, realm: carrier.example }}, "
        f'gateway: "sip:{CALLER}:{port};transport={transport}", register: {{ registrar: "sip:carrier.example", '
        f'proxy: "sip:{CALLER}:{port};transport={transport}", expires_s: {expires_s} }}'
    )
    text = text.replace("calls_to: pbx }", f"calls_to: pbx, {trunk} }}", 1)
    return Loopback(text, net.port, net.core_port, net.callee_port)


def registration(sbc: Sbc) -> dict[str, Any]:  # Any: JSON values
    answer = sbc.ask("registrations")
    assert not answer["no_answer"]
    return dict(answer["registrations"][0]) if answer["registrations"] else {"state": "none", "registered": False}


def registers(carrier: Kamailio) -> list[str]:
    """Each REGISTER that it took, once: one that it was slow to answer comes again."""
    return list(dict.fromkeys(carrier.lines("REGISTER")))


def is_registered(sbc: Sbc) -> bool:
    return bool(registration(sbc)["registered"])


@pytest.mark.peer("sipp")
@pytest.mark.parametrize(("algorithm", "transport"), [("", "udp"), ("SHA-256", "udp"), ("SHA-256", "tcp")])
def test_registered_called_and_gone(tmp_path: Path, algorithm: str, transport: str) -> None:
    """The registrar calls our Contact for a subscriber of its own; a stop of the node unregisters."""
    port = free_port(CALLER)
    net = site(port, transport=transport)
    with Kamailio(tmp_path / "kamailio", CALLER, port, algorithm=algorithm) as carrier:
        with running(tmp_path / "sbc", net.text) as sbc:
            eventually(lambda: is_registered(sbc), 10, f"a registration\n{sbc.log}")
            assert registration(sbc)["server"] == f"{transport}:{CALLER}:{port}"
            assert sbc.ask("status")["registrations"] == {"configured": 1, "registered": 1}
            assert carrier.lines("REGISTER trunk-7")[0].count(f"sip:trunk-7@{OUTSIDE}:{net.port}") == 1
            with net.callee(tmp_path, "-m", "2"):
                caller = Sipp(
                    "uac",
                    tmp_path,
                    *("-i", SUBSCRIBER, "-mi", SUBSCRIBER, "-s", "trunk-7", f"{CALLER}:{port}"),
                    *("-m", "2", "-r", "2", "-d", "300"),
                )
                assert caller.finish().successful == 2
            assert len(carrier.lines("INVITE trunk-7 goes to")) == 2
            eventually(lambda: len(sbc.cdrs()) == 2, 10, "the records")
            assert sbc.total("CORE_ERRORS") == 0
            assert {record["a_peer"] for record in sbc.cdrs()} == {"carrier"}
        assert [line.split(" expires ")[1].split()[0] for line in registers(carrier)] == ["600", "0"]
        assert "sesame" not in sbc.log


def test_refresh_stale_nonces_and_a_dead_worker(tmp_path: Path) -> None:
    """Nonces live for 2 s, bindings for 10: each refresh meets a stale nonce. A killed worker's successor goes on."""
    port = free_port(CALLER)
    with (
        Kamailio(tmp_path / "kamailio", CALLER, port, algorithm="MD5", nonce_s=2) as carrier,
        running(tmp_path / "sbc", site(port, expires_s=10).text) as sbc,
    ):
        eventually(lambda: len(registers(carrier)) == 2, 12, f"a refresh\n{sbc.log}")
        assert sbc.total("CHALLENGES_ANSWERED") >= 2
        assert sbc.total("CREDENTIALS_REFUSED") == 0
        name = registration(sbc)["worker"]
        sbc.respawned(name, sbc.kill(name))
        eventually(lambda: len(registers(carrier)) >= 3, 8, "the successor's registration")
        eventually(lambda: is_registered(sbc), 5, "the successor's registration, as it is known")
        seen = [line.split() for line in registers(carrier)]
        assert len({words[2] for words in seen}) == 1  # Call-ID
        numbers = [int(words[3]) for words in seen]
        assert numbers == sorted(set(numbers))
        assert sbc.total("CORE_ERRORS") == 0
        assert sbc.total("CORE_FAULTS") == 0


def test_a_wrong_password_until_a_reload(tmp_path: Path) -> None:
    port = free_port(CALLER)
    net = site(port, password="guess")
    with (
        Kamailio(tmp_path / "kamailio", CALLER, port, algorithm="SHA-256") as carrier,
        running(tmp_path / "sbc", net.text) as sbc,
    ):
        eventually(lambda: registration(sbc)["state"] == "refused", 10, f"a refusal\n{sbc.log}")
        assert registration(sbc)["reason"] == "user name or password is wrong"
        assert sbc.total("REGISTERS_SENT") == 2
        assert sbc.log.count("a peer refuses our registration") == 1
        file = sbc.directory / "sbc.yaml"
        file.write_text(file.read_text().replace("password: guess", "password: sesame"))
        os.kill(sbc.main_pid, signal.SIGHUP)
        eventually(lambda: is_registered(sbc), 10, f"a registration\n{sbc.log}")
        file.write_text(file.read_text().replace("register:", "#").replace("# {", "profile: default } #"))
        os.kill(sbc.main_pid, signal.SIGHUP)
        eventually(lambda: len(registers(carrier)) == 2, 10, f"an end\n{sbc.log}")
        assert " expires 0 " in registers(carrier)[1]
        eventually(lambda: registration(sbc)["state"] == "none", 5, "an end, as it is known")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_registrar_restarts(tmp_path: Path, transport: str) -> None:
    port = free_port(CALLER)
    carrier = Kamailio(tmp_path / "kamailio", CALLER, port)
    try:
        with running(tmp_path / "sbc", site(port, expires_s=10, transport=transport).text) as sbc:
            eventually(lambda: registration(sbc)["state"] in ("registering", "failed"), 5, "an attempt")
            assert not is_registered(sbc)
            carrier.start()
            eventually(lambda: is_registered(sbc), 12, f"a registration once it is there\n{sbc.log}")
            carrier.stop()
            before = len(registers(carrier))
            carrier.start()  # it has forgotten us
            eventually(lambda: len(registers(carrier)) > before, 12, f"a refresh\n{sbc.log}")
            eventually(lambda: is_registered(sbc), 5, "the registration, as it is known")
    finally:
        carrier.stop()


def test_calls_to_a_peer_that_must_be_registered_and_is_not(tmp_path: Path) -> None:
    """Whichever worker has the call."""
    net = loopback(sip=2)
    trunk = "auth: { username: t, password: p }, register: { required: true }, gateway:"
    text = net.text.replace("gateway:", trunk)
    with running(tmp_path / "sbc", text) as sbc:
        eventually(lambda: "state" in registration(sbc), 5, "a registration that is tried")
        with Sipp(
            "uac", tmp_path, *("-i", OTHER, "-mi", OTHER, "-s", "1001", f"{OUTSIDE}:{net.port}", "-m", "8", "-r", "20")
        ) as caller:
            assert caller.finish(expect_success=False).failed == 8
        eventually(lambda: len(sbc.cdrs()) == 8, 10, "the records")
        assert {attempt["status"] for record in sbc.cdrs() for attempt in record["attempts"]} == {503}
        assert "not registered at pbx" in sbc.log
