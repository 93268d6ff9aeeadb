"""An SBC with a foot in each of two networks, behind a firewall that shows its private address as a public one.

```
 caller             firewall (1:1 NAT)               SBC                    callee
 198.51.100.20 ──── 203.0.113.7 ⇄ 10.0.0.5 ──── 10.0.0.5 · 10.10.11.5 ──── 10.10.11.12
```

Every host is a network namespace, caller and callee are SIPp, and what crosses the callers' wire and the callees' wire
is recorded to the last octet: two calls with sound, one ended by the caller, one by the callee.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from sbc.selftest.netns import Lab
from tests.support.sbc import Sbc, eventually, running
from tests.support.sipp import Counted, Sipp
from tests.support.sniff import Datagram, read, recording

CALLER, PUBLIC, GATEWAY, OUTSIDE = "198.51.100.20", "203.0.113.7", "10.0.0.1", "10.0.0.5"
CORE, CALLEE = "10.10.11.5", "10.10.11.12"

CONFIG = f"""\
workers: {{ sip: 2, media: 1 }}
store: embedded
realms:
  outside:
    listen: [udp:{OUTSIDE}:5060]
    advertise: {PUBLIC}
    media: {{ address: {OUTSIDE}, advertise: {PUBLIC}, ports: 40000-40999 }}
  core:
    listen: [udp:{CORE}:5060]
    media: {{ address: {CORE}, ports: 30000-30999 }}
    trusted: true
peers:
  carrier: {{ realm: outside, addresses: {CALLER}, direction: from_carrier, calls_to: pbx }}
  pbx: {{ realm: core, addresses: {CALLEE}, direction: from_pbx, gateway: "sip:{CALLEE}:5060" }}
"""

pytestmark = [pytest.mark.peer("sipp", "ip", "nft", "root")]


@dataclass(slots=True)
class Wire:
    """What one side and the SBC said to each other."""

    party: str  # the address of the side that this wire belongs to
    datagrams: list[Datagram]

    @property
    def sip(self) -> list[Datagram]:
        return [datagram for datagram in self.datagrams if datagram.is_sip]

    def said(self) -> list[bytes]:
        """The SIP messages of the party itself, not those of the SBC."""
        return [datagram.payload for datagram in self.sip if datagram.source[0] == self.party]

    def sound(self, *, sent: bool) -> list[bytes]:
        """RTP payloads that the party sent, or those that it was sent, in order."""
        end = [datagram.source if sent else datagram.destination for datagram in self.datagrams]
        return [
            d.payload[12:] for d, (host, _) in zip(self.datagrams, end, strict=True) if d.is_rtp and host == self.party
        ]


@dataclass(slots=True)
class Seen:
    """The two recordings, and what the parties and the SBC counted."""

    outside: Wire
    core: Wire
    cdrs: list[dict[str, Any]]  # Any: JSON
    counted: list[Counted]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """One call after the other, recorded."""
    folder = tmp_path_factory.mktemp("multihomed")
    with Lab() as lab:
        for host in ("caller", "firewall", "sbc", "callee"):
            lab.host(host)
        lab.wire("caller", f"{CALLER}/24", "firewall", "198.51.100.1/24")
        lab.wire("firewall", f"{GATEWAY}/24", "sbc", f"{OUTSIDE}/24")
        lab.wire("sbc", f"{CORE}/24", "callee", f"{CALLEE}/24")
        lab.route("caller", "default", "198.51.100.1")
        lab.route("sbc", "default", GATEWAY)
        lab.translate("firewall", PUBLIC, OUTSIDE)
        counted = []
        with (
            running(folder / "sbc", CONFIG, prefix=lab.inside("sbc")) as sbc,
            recording(folder / "outside", lab.inside("caller")),
            recording(folder / "core", lab.inside("callee")),
        ):
            for number, (caller_does, callee_does) in enumerate((("uac_audio", "uas"), ("uac_waits", "uas_bye")), 1):
                caller = ["-i", CALLER, "-mi", CALLER, "-s", "1001", f"{PUBLIC}:5060", "-m", "1", "-d", "2500"]
                callee = ["-i", CALLEE, "-mi", CALLEE, "-p", "5060", "-m", "1", "-d", "500", "-rtp_echo"]
                with (
                    Sipp(callee_does, folder, *callee, prefix=lab.inside("callee"), timeout_s=20) as uas,
                    Sipp(caller_does, folder, *caller, prefix=lab.inside("caller"), timeout_s=20) as uac,
                ):
                    counted += [uac.finish(), uas.finish()]
                eventually(partial(written, sbc, number), 10, "the CDR")
            cdrs = sbc.cdrs()
        outside, core = (Wire(party, read(folder / name)) for name, party in (("outside", CALLER), ("core", CALLEE)))
        yield Seen(outside, core, cdrs, counted)


def test_both_calls_go_through_and_each_side_can_end_one(seen: Seen) -> None:
    assert [(c.successful, c.failed, c.retransmissions) for c in seen.counted] == [(1, 0, 0)] * 4
    assert [cdr["hangup"] for cdr in seen.cdrs] == ["a", "b"]
    assert all(cdr["answered"] and cdr["status"] == 200 for cdr in seen.cdrs)
    flow = [starts(d.payload) for d in seen.outside.sip]
    ladder = ["INVITE", "100", "180", "200", "ACK", "BYE", "200"]
    assert flow == ladder * 2
    core = [starts(d.payload) for d in seen.core.sip]
    assert core == [word for word in ladder if word != "100"] * 2  # the callee sends no 100


def test_the_caller_is_shown_the_public_address_alone(seen: Seen) -> None:
    """The SBC's private address is on the wire between it and the firewall, never in anything that the caller reads."""
    for datagram in seen.outside.datagrams:
        assert not {datagram.source[0], datagram.destination[0]} & {OUTSIDE, GATEWAY}
        assert not words_in(datagram.payload, {OUTSIDE, GATEWAY})
    answer = next(
        d.payload.decode() for d in seen.outside.sip if starts(d.payload) == "200" and b"m=audio" in d.payload
    )
    assert re.search(rf"^Contact: <sip:[^@>]+@{PUBLIC}:5060>\r$", answer, re.M)
    assert re.search(rf"^o=\S+ \d+ \d+ IN IP4 {PUBLIC}\r$", answer, re.M)
    assert re.search(rf"^c=IN IP4 {PUBLIC}\r$", answer, re.M)


def test_nothing_of_one_side_is_on_the_other_wire(seen: Seen) -> None:
    addresses = {"outside": {CALLER, PUBLIC, OUTSIDE, GATEWAY, "198.51.100.1"}, "core": {CORE, CALLEE}}
    for name, here, there in (("outside", seen.outside, seen.core), ("core", seen.core, seen.outside)):
        found = identity(here)
        for kind, values in found.items():
            assert values, f"the {name} side shows no {kind}: the recording proves nothing"
        secrets = addresses[name].union(*found.values())
        for datagram in there.datagrams:
            leaked = words_in(datagram.payload, secrets)
            assert not leaked, f"{leaked} of the {name} side in:\n{datagram.payload.decode(errors='replace')}"


def test_sound_crosses_both_ways_unchanged(seen: Seen) -> None:
    """The callee sends back what it hears, so each packet crosses the SBC twice."""
    spoken = seen.outside.sound(sent=True)
    assert len(spoken) >= 75  # 2.5 s in packets of 30 ms
    assert len(set(spoken)) >= 50  # not silence, which would look unchanged whatever becomes of it
    heard = seen.core.sound(sent=False)
    echoed = seen.core.sound(sent=True)
    returned = seen.outside.sound(sent=False)
    for sent, received in ((spoken, heard), (echoed, returned)):
        lost = len(sent) - len(received)
        assert 0 <= lost <= 3  # what was on its way when the call ended
        rest = iter(sent)
        assert all(payload in rest for payload in received), f"altered or out of order ({lost} lost)"


def written(sbc: Sbc, cdrs: int) -> bool:
    """Whether there are that many CDRs."""
    return len(sbc.cdrs()) == cdrs


def starts(message: bytes) -> str:
    """Method of a request, status of a response."""
    words = message.split(b" ", 2)
    return (words[1] if words[0] == b"SIP/2.0" else words[0]).decode()


def words_in(payload: bytes, words: Iterable[str]) -> set[str]:
    """Which of these are anywhere in the octets; case does not hide one."""
    lower = payload.lower()
    return {word for word in words if word.lower().encode() in lower}


def identity(wire: Wire) -> dict[str, set[str]]:
    """What the messages on a wire tell of those who speak there, by kind.

    Names of the dialog are taken from every message, the SBC's too; what describes a device from the party's own.
    """
    every = b"\r\n\r\n".join(datagram.payload for datagram in wire.sip).decode()
    own = b"\r\n\r\n".join(wire.said()).decode()

    def all_of(pattern: str, text: str) -> set[str]:
        return {value for value in re.findall(pattern, text, re.M | re.I) if value}

    return {
        "Call-ID": all_of(r"^Call-ID: *([^\r]+)", every),
        "tag": all_of(r"^(?:From|To):.*;tag=([^;\r]+)", every),
        "branch": all_of(r"^Via:.*;branch=([^;\r]+)", every),
        "Contact user": all_of(r"^Contact: *<sip:([^@>]+)@", every),
        "product": all_of(r"^(?:User-Agent|Server): *([^\r]+)", own),
        "SDP user": all_of(r"^o=(\S+) ", own),
        "SDP session id": all_of(r"^o=\S+ (\d+) ", own),
        "SDP version": all_of(r"^o=\S+ \d+ (\d{8,}) ", own),
    }
