"""Locating servers (RFC 3263) against zones on paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc.errors import ResolveError
from sbc.policy.server_location import (
    SERVERS_MAX,
    Answer,
    Naptr,
    Path,
    Question,
    Record,
    Server,
    Srv,
    by_weight,
    is_name,
    locate,
)
from sbc.sip.uri import parse_uri

UDP4, TCP4, TLS4, UDP6 = Path("udp", 4), Path("tcp", 4), Path("tls", 4), Path("udp", 6)
ALL = (UDP4, TCP4, TLS4)
DEAD = None

Zone = Mapping[tuple[str, str], Sequence[Record] | None]

# RFC 3263 §4.1: the server prefers TLS over TCP over UDP.
EXAMPLE: Zone = {
    ("example.com", "NAPTR"): [
        Naptr(90, 50, "s", "SIP+D2T", "", "_sip._tcp.example.com"),
        Naptr(50, 50, "s", "SIPS+D2T", "", "_sips._tcp.example.com"),
        Naptr(100, 50, "s", "SIP+D2U", "", "_sip._udp.example.com"),
    ],
    ("_sip._tcp.example.com", "SRV"): [Srv(0, 1, 5060, "server1.example.com"), Srv(1, 2, 5070, "server2.example.com")],
    ("_sips._tcp.example.com", "SRV"): [Srv(0, 0, 5061, "server1.example.com")],
    ("_sip._udp.example.com", "SRV"): [Srv(0, 0, 5060, "server1.example.com")],
    ("server1.example.com", "A"): ["192.0.2.1"],
    ("server2.example.com", "A"): ["192.0.2.2", "192.0.2.3"],
    ("server1.example.com", "AAAA"): ["2001:DB8:0::1"],
}


class Found:
    def __init__(self, servers: list[Server], steps: list[tuple[Question, ...]]) -> None:
        self.servers = servers
        self.steps = steps

    @property
    def text(self) -> list[str]:
        return [f"{server.transport} {server.host} {server.port}" for server in self.servers]

    @property
    def kinds(self) -> list[str]:
        return ["+".join(question.kind for question in step) for step in self.steps]


def find(uri: str, zone: Zone, paths: Sequence[Path] = (UDP4,), draw: float = 0.5) -> Found:
    """Drive ``locate`` by a zone; what the zone does not name does not exist."""
    location = locate(parse_uri(uri), paths, lambda: draw)
    steps = []
    try:
        questions = next(location)
        while True:
            steps.append(questions)
            answers: list[Answer] = []
            for name, kind in questions:
                records = zone.get((name, kind), ())
                answers.append(None if records is None else tuple(records))
            questions = location.send(answers)
    except StopIteration as done:
        return Found(done.value, steps)


# Short cuts


@pytest.mark.parametrize(
    ("uri", "paths", "server"),
    [
        ("sip:u@192.0.2.9", (UDP4, TCP4), "udp 192.0.2.9 5060"),
        ("sip:u@192.0.2.9:5080", (TCP4,), "tcp 192.0.2.9 5080"),
        ("sip:u@192.0.2.9;transport=TCP", ALL, "tcp 192.0.2.9 5060"),
        ("sip:u@192.0.2.9;transport=tls", ALL, "tls 192.0.2.9 5061"),
        ("sips:u@192.0.2.9", ALL, "tls 192.0.2.9 5061"),
        ("sips:u@192.0.2.9;transport=tcp", ALL, "tls 192.0.2.9 5061"),
        ("sip:u@[2001:DB8::0:9]", (UDP4, UDP6), "udp 2001:db8::9 5060"),
        ("sip:u@name.example;maddr=192.0.2.8", ALL, "udp 192.0.2.8 5060"),
        ("sip:u@name.example;maddr=[2001:db8::8]", (UDP6,), "udp 2001:db8::8 5060"),
    ],
)
def test_an_address_asks_nobody(uri: str, paths: Sequence[Path], server: str) -> None:
    found = find(uri, {}, paths)
    assert found.text == [server]
    assert found.steps == []


def test_a_port_means_addresses_at_that_port() -> None:
    found = find("sip:server2.example.com:5099", EXAMPLE, ALL)
    assert found.text == ["udp 192.0.2.2 5099", "udp 192.0.2.3 5099"]
    assert found.kinds == ["A"]


def test_a_transport_means_no_naptr() -> None:
    found = find("sip:example.com;transport=tcp", EXAMPLE, ALL)
    assert found.text == ["tcp 192.0.2.1 5060", "tcp 192.0.2.2 5070", "tcp 192.0.2.3 5070"]
    assert found.kinds == ["SRV", "A+A"]


@pytest.mark.parametrize(
    ("uri", "paths", "why"),
    [
        ("sip:example.com;transport=sctp", ALL, "no listener for sctp"),
        ("sip:example.com;transport=tls", (UDP4,), "no listener for tls"),
        ("sips:example.com", (UDP4, TCP4), "no listener for sips"),
        ("sips:example.com;transport=udp", ALL, "no listener for udp"),
        ("sip:example.com;transport=ws", (UDP4, Path("ws", 4)), "no listener for ws"),
        ("sip:192.0.2.1", (UDP6,), "over IPv4"),
        ("sip:192.0.2.999", (UDP4,), "no address"),
        ("sip:" + "a." * 130 + "example", (UDP4,), "no host name"),
        ("sip:example.com", (), "no listener"),
    ],
)
def test_what_no_listener_can_reach(uri: str, paths: Sequence[Path], why: str) -> None:
    with pytest.raises(ResolveError, match=why) as caught:
        find(uri, EXAMPLE, paths)
    assert caught.value.status == 503
    assert caught.value.try_elsewhere


# NAPTR, SRV, addresses


def test_the_order_of_the_zone_decides_among_what_we_speak() -> None:
    assert find("sip:example.com", EXAMPLE, ALL).text == [
        "tls 192.0.2.1 5061",
        "tcp 192.0.2.1 5060",
        "tcp 192.0.2.2 5070",
        "tcp 192.0.2.3 5070",
        "udp 192.0.2.1 5060",
    ]
    assert find("sip:example.com", EXAMPLE).text == ["udp 192.0.2.1 5060"]
    assert find("sips:example.com", EXAMPLE, ALL).text == ["tls 192.0.2.1 5061"]


def test_each_step_asks_all_at_once_and_each_name_once() -> None:
    found = find("sip:EXAMPLE.com.", EXAMPLE, ALL)
    assert found.kinds == ["NAPTR", "SRV+SRV+SRV", "A+A"]
    assert found.steps[0] == (Question("example.com", "NAPTR"),)


def test_naptr_records_that_are_not_for_us_are_passed_over() -> None:
    zone = {
        **EXAMPLE,
        ("example.com", "NAPTR"): [
            Naptr(1, 1, "u", "E2U+sip", "!^.*$!sip:x@evil!", ""),
            Naptr(2, 1, "s", "SIP+D2U", "!^.*$!x!", "_sip._udp.evil"),
            Naptr(3, 1, "a", "SIP+D2U", "", "server2.example.com"),
            Naptr(4, 1, "s", "SIP+D2S", "", "_sip._sctp.example.com"),
            Naptr(5, 2, "S", "sip+d2u", "", "_sip._udp.example.com"),
            Naptr(5, 1, "S", "sip+d2t", "", "_sip._tcp.example.com"),
        ],
    }
    found = find("sip:example.com", zone, (UDP4, TCP4))
    assert found.steps[1] == (Question("_sip._tcp.example.com", "SRV"), Question("_sip._udp.example.com", "SRV"))


def test_without_naptr_each_transport_is_asked_for_the_default_first() -> None:
    zone = {key: value for key, value in EXAMPLE.items() if key[1] != "NAPTR"}
    found = find("sip:example.com", zone, (TCP4, UDP4))
    assert found.text[0] == "udp 192.0.2.1 5060"
    assert found.steps[1] == (Question("_sip._udp.example.com", "SRV"), Question("_sip._tcp.example.com", "SRV"))


def test_without_naptr_and_srv_the_default_transport_and_port() -> None:
    zone: Zone = {("host.example", "A"): ["192.0.2.7"], ("host.example", "AAAA"): ["2001:db8::7"]}
    assert find("sip:host.example", zone, ALL).text == ["udp 192.0.2.7 5060"]
    assert find("sips:host.example", zone, ALL).text == ["tls 192.0.2.7 5061"]
    assert find("sip:host.example", zone, (TCP4,)).text == ["tcp 192.0.2.7 5060"]
    assert find("sip:host.example", zone, (UDP6, UDP4)).text == ["udp 2001:db8::7 5060", "udp 192.0.2.7 5060"]


def test_a_service_that_is_not_there_is_not_guessed() -> None:
    zone: Zone = {("_sip._udp.host.example", "SRV"): [Srv(0, 0, 0, "")], ("host.example", "A"): ["192.0.2.7"]}
    with pytest.raises(ResolveError, match="no such service"):
        find("sip:host.example", zone)


def test_a_dead_dns_is_told_from_an_empty_one() -> None:
    with pytest.raises(ResolveError, match="no address"):
        find("sip:nowhere.example", {})
    with pytest.raises(ResolveError, match="no name server answers"):
        find("sip:h.example:5060", {("h.example", "A"): DEAD})
    with pytest.raises(ResolveError, match="no name server answers"):
        find("sip:h.example", {("_sip._udp.h.example", "SRV"): DEAD, ("h.example", "A"): ["192.0.2.80"]})


def test_naptr_that_nobody_can_tell_is_done_without() -> None:
    found = find("sip:example.com", {**EXAMPLE, ("example.com", "NAPTR"): DEAD}, (UDP4,))
    assert found.text == ["udp 192.0.2.1 5060"]


def test_one_dead_target_does_not_hide_the_other() -> None:
    zone = {**EXAMPLE, ("server1.example.com", "A"): DEAD}
    assert find("sip:example.com;transport=tcp", zone, ALL).text == ["tcp 192.0.2.2 5070", "tcp 192.0.2.3 5070"]


def test_addresses_that_no_host_can_have_are_left_out() -> None:
    lies = ["0.0.0.0", "224.0.0.1", "255.255.255.255", "not an address", "2001:db8::1", "192.0.2.1", "192.0.2.1"]
    assert find("sip:h.example:5060", {("h.example", "A"): lies}).text == ["udp 192.0.2.1 5060"]
    lies6 = ["::", "ff02::1", "::ffff:192.0.2.1", "192.0.2.1", "2001:db8::0:1"]
    assert find("sip:h.example:5060", {("h.example", "AAAA"): lies6}, (UDP6,)).text == ["udp 2001:db8::1 5060"]


def test_records_of_the_wrong_kind_are_left_out() -> None:
    zone: Zone = {
        ("h.example", "NAPTR"): ["192.0.2.1", Srv(0, 0, 1, "x")],
        ("_sip._udp.h.example", "SRV"): ["192.0.2.1", Naptr(1, 1, "s", "SIP+D2U", "", "x")],
        ("h.example", "A"): [Srv(0, 0, 1, "x"), "192.0.2.4"],
    }
    assert find("sip:h.example", zone).text == ["udp 192.0.2.4 5060"]


def test_a_zone_of_thousands_leads_to_a_few() -> None:
    zone: dict[tuple[str, str], Sequence[Record]] = {
        ("h.example", "NAPTR"): [Naptr(n, 0, "s", "SIP+D2U", "", f"_sip._udp.{n}") for n in range(500)]
    }
    for n in range(500):
        zone[f"_sip._udp.{n}", "SRV"] = [Srv(m, 0, 5060, f"{n}-{m}.example") for m in range(500)]
        zone[f"{n}-0.example", "A"] = [f"192.0.{n % 256}.{m}" for m in range(1, 200)]
    found = find("sip:h.example", zone)
    assert len(found.servers) == SERVERS_MAX
    assert [len(step) for step in found.steps] == [1, 8, 64]


# RFC 2782


def test_priority_stands_above_weight() -> None:
    records = [Srv(2, 100, 1, "c"), Srv(1, 0, 1, "b"), Srv(0, 0, 1, "a")]
    assert [record.target for record in by_weight(records, lambda: 0.999)] == ["a", "b", "c"]


def test_weights_are_shares() -> None:
    import random

    draw = random.Random(7).random
    records = [Srv(0, 1, 1, "1"), Srv(0, 3, 1, "3"), Srv(0, 6, 1, "6"), Srv(0, 0, 1, "0")]
    first = Counter(by_weight(records, draw)[0].target for _ in range(20_000))
    # a draw of 0 to 10, both included, of which 0 goes to the weight of 0 (RFC 2782)
    for target, share in (("0", 1 / 11), ("1", 1 / 11), ("3", 3 / 11), ("6", 6 / 11)):
        assert abs(first[target] / 20_000 - share) < 0.012


@given(
    st.lists(st.builds(Srv, st.integers(0, 3), st.integers(0, 65535), st.just(5060), st.text(max_size=3)), max_size=12),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=12, max_size=12),
)
def test_every_record_has_its_turn_once(records: list[Srv], draws: list[float]) -> None:
    drawn = iter(draws)
    ordered = by_weight(records, lambda: next(drawn))
    assert sorted(ordered) == sorted(records)
    assert [record.priority for record in ordered] == sorted(record.priority for record in records)


def test_names_and_addresses() -> None:
    for name in ("example.com", "carrier1", "a.b-2.c3", "example.com.", "1.example", "x"):
        assert is_name(name), name
    for address in ("192.0.2.1", "2001:db8::1", "::", "1.2.3", "256.256.256.256", "fe80::a"):
        assert not is_name(address), address
