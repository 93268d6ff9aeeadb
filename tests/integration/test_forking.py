"""Two phones that ring together, and one that sends the call elsewhere, through a real SBC with real media."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.loopback import CALLEE, NETWORK, Loopback, loopback
from tests.support.sbc import eventually, free_port, running
from tests.support.sipp import Sipp

MOBILE, FORWARDER = f"{NETWORK}.14", f"{NETWORK}.15"
CALLS = 40

ROUTES = """
from sbc.routing import Request, Routes

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    request.call.media.engage()
    await request.call.dial([["mobile", "pbx"], "forwarder"] if request.called_number == "1001" else "forwarder")
"""


class Phones:
    """The SBC's other phones, besides the one that always answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mobile_port, self.forwarder_port = free_port(MOBILE), free_port(FORWARDER)
        routes = folder / "ring.py"
        routes.write_text(ROUTES)
        net = loopback(sip=2, more=f"routes: {routes}\n")
        more = (
            f'  mobile: {{ realm: core, addresses: {MOBILE}, gateway: "sip:{MOBILE}:{self.mobile_port}" }}\n'
            f"  forwarder: {{ realm: core, addresses: {FORWARDER}, follow_redirects: realm,"
            f' gateway: "sip:{FORWARDER}:{self.forwarder_port}" }}\n'
        )
        self.net = Loopback(net.text.replace("peers:\n", "peers:\n" + more), net.port, net.core_port, net.callee_port)

    def mobile(self) -> Sipp:
        words = ("-i", MOBILE, "-p", str(self.mobile_port), "-mi", MOBILE, "-m", str(CALLS))
        return Sipp("uas_rings", self.folder, *words)

    def forwarder(self) -> Sipp:
        words = ("-i", FORWARDER, "-p", str(self.forwarder_port), "-key", "where", f"{CALLEE}:{self.net.callee_port}")
        return Sipp("uas_moved", self.folder, *words)


@pytest.mark.peer("sipp")
def test_one_answers_and_the_other_is_told(tmp_path: Path) -> None:
    """The mobile rings with early media until the desk has answered: each time, and nothing is sent twice."""
    phones = Phones(tmp_path)
    net = phones.net
    with running(tmp_path / "sbc", net.text) as sbc, net.callee(tmp_path), phones.mobile() as mobile:
        with net.caller(tmp_path, "-r", "20", "-m", str(CALLS), "-d", "500") as uac:
            counted = uac.finish()
        assert counted.successful == CALLS
        assert counted.retransmissions == 0
        assert mobile.finish().successful == CALLS, "each was cancelled with the reason that it checks for"
        eventually(lambda: len(sbc.cdrs()) == CALLS, 10, "CDRs")
        for cdr in sbc.cdrs():
            assert [(one["gateway"], one["status"]) for one in cdr["attempts"]] == [("mobile", 487), ("pbx", 200)]
            assert (cdr["b_peer"], cdr["answered"], cdr["hangup"]) == ("pbx", True, "a")
        eventually(lambda: sbc.total("SESSIONS_ACTIVE") == 0, 5, "no media session left")
        assert sbc.total("MEDIA_REFUSED") == 0
        assert sbc.total("RETRANSMISSION_OUT") == 0


@pytest.mark.peer("sipp")
def test_audio_follows_the_one_that_answers(tmp_path: Path) -> None:
    """The caller hears the mobile first; then the desk answers, and what it echoes comes back."""
    phones = Phones(tmp_path)
    net = phones.net
    with (
        running(tmp_path / "sbc", net.text) as sbc,
        net.callee(tmp_path, "-rtp_echo"),
        phones.mobile(),
        net.caller(tmp_path, "-m", "1", "-d", "2000", scenario="uac_audio") as uac,
    ):
        assert uac.finish().successful == 1
        eventually(lambda: len(sbc.cdrs()) == 1, 10, "a CDR")
        (cdr,) = sbc.cdrs()
        sent, echoed = cdr["media"]["a"], cdr["media"]["b"]
        assert sent["packets"] > 50
        assert echoed["packets"] >= sent["packets_out"] > 50


@pytest.mark.peer("sipp")
def test_a_redirect_leads_to_a_peer_of_the_realm_and_nowhere_else(tmp_path: Path) -> None:
    """302 with a premium number somewhere, which is not called, and with the desk's address, which is."""
    phones = Phones(tmp_path)
    net = phones.net
    with running(tmp_path / "sbc", net.text) as sbc, net.callee(tmp_path), phones.forwarder():
        with net.caller(tmp_path, "-r", "10", "-m", "10", "-d", "200", "-s", "1002") as uac:
            assert uac.finish().successful == 10
        eventually(lambda: len(sbc.cdrs()) == 10, 10, "CDRs")
        for cdr in sbc.cdrs():
            assert [(one["gateway"], one["uri"], one["status"]) for one in cdr["attempts"]] == [
                ("forwarder", f"sip:1002@{FORWARDER}:{phones.forwarder_port}", 302),
                ("pbx", f"sip:moved@{CALLEE}:{net.callee_port}", 200),
            ]
        assert sbc.total("REDIRECTS_FOLLOWED") == 10
        assert "redirect not followed" in sbc.log
