"""Which peer a source is where an address alone does not tell."""

from __future__ import annotations

from typing import Any

import pytest

from sbc.config.loader import check_text
from sbc.config.matching import ambiguous, covers
from sbc.config.models import Config
from sbc.policy.admission import Admission
from sbc.simulator.stage import Stage
from sbc.sip.flow import IDENTITY_SHIFT

UDP, UDP_2, TCP, WS = range(4)
REALMS: dict[str, Any] = {  # Any: what the YAML would hold
    "outside": {
        "listen": ["udp:192.0.2.5:5060", "udp:192.0.2.5:5070", "tcp:192.0.2.5:5060", "ws:192.0.2.5:8080"],
        "media": {"address": "192.0.2.5"},
    },
}
HOST = "198.51.100.7"


def admission(**peers: dict[str, object]) -> Admission:
    given = {name: {"realm": "outside", "addresses": HOST, **peer} for name, peer in peers.items()}
    config = Config.model_validate({"realms": REALMS, "peers": given})
    return Admission(config.peers, config.realms)


def who(policy: Admission, listener: int, port: int = 5060, host: str = HOST) -> str:
    source = policy.admit(listener, host, port, 0 if listener < TCP else 1)
    return source.peer if source is not None else ""


def test_the_port_tells_two_apart_who_share_an_address() -> None:
    policy = admission(
        a={"match": {"ports": 5060}}, b={"match": {"ports": ["5070-5080", 6000]}}, rest={"direction": "from_rest"}
    )
    for _ in range(2):
        assert [who(policy, UDP, port) for port in (5060, 5070, 5080, 6000, 5081)] == ["a", "b", "b", "b", "rest"]


def test_listener_and_transport_tell() -> None:
    policy = admission(
        trunk={"match": {"listeners": "udp:192.0.2.5:5070"}},
        streams={"match": {"transports": ["tcp", "ws"]}},
        both={"match": {"listeners": "udp:192.0.2.5:5070", "ports": 9}},
    )
    assert [who(policy, listener) for listener in (UDP, UDP_2, TCP, WS)] == ["", "trunk", "streams", "streams"]
    assert who(policy, UDP_2, 9) == "both"


def test_the_longest_prefix_goes_before_what_is_matched_and_a_wider_one_takes_what_does_not_match() -> None:
    policy = admission(
        net={"addresses": "198.51.100.0/24", "match": {"ports": 5060}},
        one={"match": {"ports": 5061}},
        all={"addresses": "0.0.0.0/0"},
    )
    assert who(policy, UDP, 5061) == "one"
    assert who(policy, UDP, 5060) == "net"
    assert who(policy, UDP, 5062) == "all"
    assert who(policy, UDP, 5060, "198.51.100.8") == "net"
    assert who(policy, UDP, 5061, "198.51.100.8") == "all"


def test_where_a_call_goes_the_port_need_not_be_known() -> None:
    assert who(admission(a={"match": {"ports": 5061}}), UDP, 0) == "a"


@pytest.mark.parametrize(
    ("one", "two", "meant"),
    [
        ({}, {}, True),
        ({"ports": 5060}, {}, False),
        ({"ports": 5060}, {"ports": "5000-5100"}, True),
        ({"ports": 5060}, {"ports": 5061}, False),
        ({"ports": 5060, "transports": "udp"}, {"ports": 5060, "transports": "tcp"}, False),
        ({"ports": 5060}, {"transports": "udp"}, False),  # the port goes first
        ({"certificate": "a.example"}, {"certificate": "*.example"}, True),
        ({"certificate": "a.example"}, {"certificate": "b.example"}, False),
    ],
)
def test_two_peers_of_one_network_must_not_both_be_meant(
    one: dict[str, object], two: dict[str, object], meant: bool
) -> None:
    peers = {"a": {"match": one} if one else {}, "b": {"match": two} if two else {}}
    config = Config.model_validate(
        {"realms": REALMS, "peers": {k: {"realm": "outside", "addresses": HOST, **v} for k, v in peers.items()}}
    )
    assert ambiguous(config.peers["a"].match, config.peers["b"].match) is meant


def test_faults_have_their_line() -> None:
    text = """realms:
  outside:
    listen: [udp:192.0.2.5:5060]
    media: { address: 192.0.2.5 }
peers:
  a: { realm: outside, addresses: 198.51.100.7, match: { ports: 5060-5070 } }
  b: { realm: outside, addresses: 198.51.100.7, match: { ports: [5080, 5070] } }
  c: { realm: outside, addresses: 198.51.100.8, match: { listeners: udp:192.0.2.5:5061, transports: tls } }
  d: { realm: outside, addresses: 198.51.100.9, match: { certificate: a.example } }
  e: { realm: outside, addresses: 198.51.100.10, match: { ports: 5070-5060 } }
"""
    lines = [str(fault) for fault in check_text(text, "x.yaml")[1]]
    assert any(line.startswith("x.yaml:10:") and "the lower one first" in line for line in lines), lines
    lines = [str(fault) for fault in check_text(text.replace("5070-5060", "5060"), "x.yaml")[1]]
    said = (
        ("x.yaml:7:", "198.51.100.7/32 belongs to peers.a in the same realm, and what both match could be the same"),
        ("x.yaml:8:", "has no 'udp:192.0.2.5:5061', did you mean 'udp:192.0.2.5:5060'?"),
        ("x.yaml:8:", "realms.outside has no tls listener"),
        ("x.yaml:9:", "realms.outside.tls must ask for it: verify: peer"),
    )
    for place, sentence in said:
        assert any(line.startswith(place) and sentence in line for line in lines), (place, sentence, lines)


def test_a_certificate_tells_who_is_there() -> None:
    realms: dict[str, Any] = {"outside": {**REALMS["outside"], "listen": ["udp:192.0.2.5:5060", "tls:192.0.2.5:5061"]}}
    peers: dict[str, Any] = {  # Any: what the YAML would hold
        "carrier": {"match": {"certificate": ["sip.carrier.example", "*.carrier.example"]}},
        "other": {"match": {"certificate": "other.example"}},
    }
    config = Config.model_validate(
        {
            "realms": realms,
            "peers": {name: {"realm": "outside", "addresses": "0.0.0.0/0", **it} for name, it in peers.items()},
        }
    )
    policy = Admission(config.peers, config.realms)

    def by(*names: str) -> str:
        source = policy.admit(1, HOST, 40000, policy.identity_of(1, names) << IDENTITY_SHIFT | 1 << 32 | 7)
        return source.peer if source is not None else ""

    assert by("sip.carrier.example") == by("edge7.carrier.example") == "carrier"
    assert by("x.example", "other.example") == "other"
    assert by("a.b.carrier.example") == by("evil.example") == by() == ""
    assert policy.admit(0, HOST, 5060, 0) is None  # a datagram shows none
    assert policy.admit(1, HOST) is not None  # whoever connects may show one


def test_names_stand_for_one_label() -> None:
    assert covers("*.a.example", "b.a.example")
    assert not covers("*.a.example", "a.example")
    assert not covers("*.a.example", "c.b.a.example")
    assert covers("a.example", "A.Example.")


def test_a_dry_run_says_by_what_a_source_was_known() -> None:
    config = Config.model_validate(
        {
            "realms": REALMS,
            "peers": {
                "a": {"realm": "outside", "addresses": HOST, "match": {"ports": 5060}, "direction": "from_a"},
                "b": {"realm": "outside", "addresses": HOST, "match": {"transports": "tcp"}, "direction": "from_b"},
            },
        }
    )
    from sbc.simulator.dry_run import Trial, run

    stage = Stage(config)
    said = run(stage, Trial(source=f"{HOST}:5060", call="1")).steps[0].text
    assert said == (
        "198.51.100.7 on udp:192.0.2.5:5060 is peer a (198.51.100.7/32; port 5060), realm outside, direction from_a."
    )
    said = run(stage, Trial(source=f"{HOST}:7000", call="1")).steps[0].text
    assert "on tcp:192.0.2.5:5060 is peer b (198.51.100.7/32; transport tcp)" in said
    stage.close()
