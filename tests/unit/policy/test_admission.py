"""Who is let in: longest prefix per realm, and the limits of each peer."""

from __future__ import annotations

import pytest

from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.policy.admission import KNOWN_ADDRESSES, Admission, Source
from sbc.policy.call_tally import CallTally

REALMS = {
    "core": {"listen": ["udp:10.0.0.5:5060"], "media": {"address": "10.0.0.5"}},
    "outside": {"listen": ["udp:192.0.2.5:5060", "udp:[2001:db8::5]:5060"], "media": {"address": "192.0.2.5"}},
}
CORE, OUTSIDE, OUTSIDE_V6 = range(3)


def admission(workers: int = 1, tally: CallTally | None = None, **peers: dict[str, object]) -> Admission:
    config = Config.model_validate({"realms": REALMS, "peers": peers})
    return Admission(config.peers, config.realms, workers=workers, tally=tally)


def test_the_longest_prefix_wins_within_the_realm_of_the_listener() -> None:
    policy = admission(
        everyone={"realm": "outside", "addresses": "0.0.0.0/0", "direction": "from_internet"},
        carrier={"realm": "outside", "addresses": ["198.51.100.0/24", "2001:db8:1::/48"], "direction": "from_carrier"},
        trunk={"realm": "outside", "addresses": "198.51.100.7", "direction": "from_trunk"},
        servers={"realm": "core", "addresses": "10.10.11.0/28", "direction": "from_core"},
    )
    for _ in range(2):  # looked up, then remembered
        assert policy.admit(OUTSIDE, "198.51.100.7") == Source("trunk", "outside", "from_trunk")
        assert policy.admit(OUTSIDE, "198.51.100.8") == Source("carrier", "outside", "from_carrier")
        assert policy.admit(OUTSIDE_V6, "2001:db8:1::9") == Source("carrier", "outside", "from_carrier")
        assert policy.admit(OUTSIDE_V6, "::ffff:198.51.100.8") == Source("carrier", "outside", "from_carrier")
        assert policy.admit(OUTSIDE, "203.0.113.1") == Source("everyone", "outside", "from_internet")
        assert policy.admit(CORE, "10.10.11.15") == Source("servers", "core", "from_core")


@pytest.mark.parametrize("host", ["10.10.11.16", "198.51.100.7", "2001:db8::1", "", "host.example.com", "10.10.11.1.1"])
def test_strangers(host: str) -> None:
    policy = admission(
        servers={"realm": "core", "addresses": "10.10.11.0/28"}, trunk={"realm": "outside", "addresses": "198.51.100.7"}
    )
    assert policy.admit(CORE, host) is None


def test_strangers_leave_no_trace_and_friends_a_bounded_one() -> None:
    policy = admission(net={"realm": "core", "addresses": "10.0.0.0/8"})
    for i in range(3000):
        policy.admit(CORE, f"192.168.{i >> 8}.{i & 255}")
    assert not policy._known["core"]
    for i in range(KNOWN_ADDRESSES + 10):
        policy.admit(CORE, f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}")
    assert len(policy._known["core"]) <= KNOWN_ADDRESSES
    assert policy.admit(CORE, "10.0.0.1") == Source("net", "core", "")


def test_two_peers_cannot_claim_one_network() -> None:
    with pytest.raises(ConfigError, match=r"peers\.b\.addresses: 10\.1\.0\.0/16 is also an address of peer a"):
        admission(a={"realm": "core", "addresses": "10.1.0.0/16"}, b={"realm": "core", "addresses": "10.1.0.0/16"})
    admission(a={"realm": "core", "addresses": "10.1.0.0/16"}, b={"realm": "outside", "addresses": "10.1.0.0/16"})


def test_max_calls() -> None:
    policy = admission(p={"realm": "core", "addresses": "10.0.0.1", "max_calls": 2})
    assert [policy.open_call("p", 1.0) for _ in range(3)] == [None, None, 503]
    policy.close_call("p")
    assert policy.open_call("p", 1.0) is None
    assert policy.open_call("p", 1.0) == 503
    for _ in range(5):  # more closed than opened never becomes credit
        policy.close_call("p")
    assert [policy.open_call("p", 1.0) for _ in range(3)] == [None, None, 503]


def test_max_cps_is_a_bucket_of_one_second() -> None:
    policy = admission(p={"realm": "core", "addresses": "10.0.0.1", "max_cps": 3})
    assert [policy.open_call("p", 100.0) for _ in range(4)] == [None, None, None, 503]
    assert policy.open_call("p", 100.2) == 503
    assert policy.open_call("p", 100.4) is None
    assert [policy.open_call("p", 200.0) for _ in range(4)] == [None, None, None, 503]


def test_a_rate_below_one_lets_the_first_call_pass() -> None:
    policy = admission(p={"realm": "core", "addresses": "10.0.0.1", "max_cps": 0.5})
    assert [policy.open_call("p", t) for t in (10.0, 11.0, 12.0, 13.0, 14.0)] == [None, 503, None, 503, None]


def test_no_limit_means_no_limit() -> None:
    policy = admission(p={"realm": "core", "addresses": "10.0.0.1"})
    assert {policy.open_call("p", 1.0) for _ in range(10_000)} == {None}


def test_calls_that_go_on_count_whatever_the_limits() -> None:
    policy = admission(p={"realm": "core", "addresses": "10.0.0.1", "max_calls": 3, "max_cps": 1})
    for _ in range(3):
        policy.count_call("p")
    assert policy.open_call("p", 1.0) == 503
    policy.close_call("p")
    assert policy.open_call("p", 1.0) is None


def test_a_reload_grants_no_burst() -> None:
    peer: dict[str, object] = {"realm": "core", "addresses": "10.0.0.1", "max_calls": 5, "max_cps": 2}
    tally = CallTally()
    tally.claim(["p"])
    old, new = admission(tally=tally, p=peer), admission(tally=tally, p=peer)
    assert [old.open_call("p", 5.0) for _ in range(3)] == [None, None, 503]
    new.inherit(old)
    assert new.open_call("p", 5.0) == 503
    assert [new.open_call("p", t) for t in (6.0, 7.0, 8.0, 9.0)] == [None, None, None, 503]
