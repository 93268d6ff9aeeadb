"""A phone behind NAT that registers through a real SBC: it is pinged, and every worker forgets it when it is silent."""

from __future__ import annotations

from pathlib import Path

from tests.integration.test_requests import DOMAIN, Party
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, loopback
from tests.support.raw import Raw
from tests.support.sbc import eventually, running

PINGS = "    nat: auto\n    keep_alive: { method: options, interval_s: 1, misses: 2 }\n"
HIDDEN = "sip:alice@192.168.7.7:5062"


def test_a_silent_phone_is_forgotten_until_it_registers_again(tmp_path: Path) -> None:
    net = loopback(sip=2)
    text = net.text.replace("  outside:\n", "  outside:\n" + PINGS, 1)
    with running(tmp_path / "sbc", text) as sbc, Raw(CALLER) as ours, Raw(CALLEE, net.callee_port) as theirs:
        phone, registrar = Party(ours, (OUTSIDE, net.port)), Party(theirs, (CORE, net.core_port))

        def registers(cseq: int) -> str:
            phone.ask("REGISTER", DOMAIN, "Call-ID: phone", f"CSeq: {cseq} REGISTER", f"Contact: <{HIDDEN}>")
            sent = registrar.next("REGISTER")
            registrar.answer(sent, 200, [("Contact", f"{sent.get('Contact')};expires=600")])
            eventually(lambda: b"SIP/2.0 200" in ours.next(1.0), 10, "the answer to the REGISTER")
            return (sent.get("Contact") or "")[1:-1]

        uri = registers(1)
        ping = phone.next("OPTIONS")
        assert ping.uri == HIDDEN
        phone.answer(ping, 200)
        assert sbc.total("BINDINGS_WATCHED") == 1
        eventually(lambda: sbc.total("BINDINGS_LOST") == 1, 20, "the phone to be given up")
        assert sbc.total("BINDINGS_WATCHED") == 0
        assert "a phone does not answer: its binding is forgotten" in sbc.log
        for number in range(8):  # by whichever worker: nobody rings in vain
            registrar.ask("MESSAGE", uri, f"Call-ID: {number}-in-vain")
            registrar.next(405)

        assert registers(2) == uri
        ours.take()
        for number in range(8):
            registrar.ask("MESSAGE", uri, f"Call-ID: {number}-of-registrar")
            while (data := ours.next(5.0)).startswith(b"OPTIONS"):
                pass
            assert data.startswith(f"MESSAGE {HIDDEN}".encode())
            ours.take()
        assert sbc.total("CORE_FAULTS") == sbc.total("CORE_ERRORS") == sbc.total("OTHER") == 0
