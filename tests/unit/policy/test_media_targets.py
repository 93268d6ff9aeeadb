"""Where a peer may have media sent: the deny list, for every way to write an address."""

from __future__ import annotations

import pytest

from media.protocol import Stream
from sbc.config.models import Config
from sbc.errors import SdpError
from sbc.policy.media_targets import MediaTargets, targets_by_realm

OWN = {"10.0.0.5": [(30000, 39999), (5060, 5060)], "204.1.7.4": [(30000, 39999)], "127.0.0.1": [(30000, 39999)]}


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "0:0:0:0:0:ffff:7f00:0001",
        "::127.0.0.1",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "240.0.0.1",
        "ff02::1",
        "::ffff:224.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "169.254.169.254",
        "fe80::1",
        "localhost",
        "",
    ],
)
def test_denied_addresses(address: str) -> None:
    targets = MediaTargets("10.0.0.5", OWN)
    with pytest.raises(SdpError) as refusal:
        targets.check([Stream("192.0.2.1", 4000), Stream(address, 4000)])
    assert refusal.value.status == 488


@pytest.mark.parametrize(
    ("address", "port", "allowed"),
    [
        ("10.0.0.5", 5060, False),
        ("10.0.0.5", 30000, False),
        ("::ffff:10.0.0.5", 39999, False),
        ("204.1.7.4", 35000, False),
        ("10.0.0.5", 40000, True),  # somebody else on this host
        ("10.0.0.6", 30000, True),
    ],
)
def test_our_own_ports(address: str, port: int, allowed: bool) -> None:
    assert (MediaTargets("10.0.0.5", OWN).refusal(address, port) == "") is allowed


@pytest.mark.parametrize(
    ("stream", "allowed"),
    [
        (Stream("10.0.0.5", 6000, rtcp_port=5060), False),
        (Stream("10.0.0.5", 6000, rtcp_port=30001), False),
        (Stream("10.0.0.5", 5059), False),  # where RTCP goes when nothing is said of it
        (Stream("10.0.0.5", 5059, rtcp_mux=True), True),
        (Stream("10.0.0.5", 6000, rtcp_port=6005), True),
    ],
)
def test_rtcp_goes_to_no_port_of_ours_either(stream: Stream, allowed: bool) -> None:
    targets = MediaTargets("10.0.0.5", OWN)
    if allowed:
        targets.check([stream])
    else:
        with pytest.raises(SdpError, match="a port of this node"):
            targets.check([stream])


def test_usual_peers_hold_and_rejected_streams_pass() -> None:
    MediaTargets("10.0.0.5", OWN).check(
        [Stream("192.0.2.1", 4000), Stream("2001:db8::1", 4000), Stream("0.0.0.0", 4000), Stream("224.0.0.1", 0)]
    )


def test_a_realm_on_loopback_has_peers_there() -> None:
    targets = MediaTargets("127.0.0.1", OWN)
    targets.check([Stream("127.0.0.1", 6000), Stream("127.0.0.2", 30000), Stream("::1", 6000)])
    with pytest.raises(SdpError, match="a port of this node"):
        targets.check([Stream("127.0.0.1", 30002)])


def test_a_configuration_keeps_media_off_every_port_of_its_own() -> None:
    config = Config.model_validate(
        {
            "realms": {
                "core": {"listen": ["udp:10.0.0.5:5060"], "media": {"address": "10.0.0.5", "ports": "30000-30999"}},
                "outside": {
                    "listen": ["udp:192.168.0.5:5060"],
                    "advertise": "204.1.7.4",
                    "media": {"address": "192.168.0.5", "advertise": "204.1.7.5", "ports": "40000-40999"},
                },
                "lab": {"listen": ["udp:127.0.0.1:5060"], "media": {"address": "127.0.0.1"}},
            }
        }
    )
    targets = targets_by_realm(config.realms)
    denied = {
        ("10.0.0.5", 5060),
        ("10.0.0.5", 30000),
        ("204.1.7.4", 5060),
        ("192.168.0.5", 40999),
        ("204.1.7.5", 40000),
    }
    for realm in ("core", "outside"):
        assert {place for place in denied if targets[realm].refusal(*place)} == denied
        assert targets[realm].refusal("127.0.0.1", 4000)
        assert not targets[realm].refusal("204.1.7.5", 30000)
    assert not targets["lab"].refusal("127.0.0.1", 4000)


def test_a_proxy_in_a_trusted_realm_may_send_a_call_back() -> None:
    """With the description that we gave it: of that realm, and of no other, and no port of SIP."""
    config = Config.model_validate(
        {
            "realms": {
                "core": {
                    "listen": ["udp:10.0.0.5:5060"],
                    "media": {"address": "10.0.0.5", "ports": "30000-30999"},
                    "trusted": True,
                },
                "outside": {"listen": ["udp:10.0.0.6:5060"], "media": {"address": "10.0.0.6", "ports": "30000-30999"}},
            }
        }
    )
    targets = targets_by_realm(config.realms)
    assert not targets["core"].refusal("10.0.0.5", 30000)
    assert targets["core"].refusal("10.0.0.6", 30000)
    assert targets["core"].refusal("10.0.0.5", 5060)
    assert targets["outside"].refusal("10.0.0.5", 30000)
    assert targets["outside"].refusal("10.0.0.6", 30000)
