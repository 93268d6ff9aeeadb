"""By which listener a request leaves a realm that has several."""

from __future__ import annotations

import pytest

from sbc.b2bua.facing import Facing
from sbc.b2bua.settings import ListenerSettings, RealmSettings
from tests.support.ladder import Peers, settings

OURS = (
    ("udp", "10.0.0.5"),
    ("udp", "10.1.0.5"),
    ("udp", "2001:db8::5"),
    ("tcp", "10.1.0.5"),
    ("tls", "0.0.0.0"),
    ("tls", "10.1.0.5"),
)
ROUTES = {"10.0.7.7": "10.0.0.5", "10.1.7.7": "10.1.0.5", "172.16.0.1": "192.168.0.5", "2001:db8::9": "2001:db8::5"}


def facing(asked: list[str] | None = None) -> Facing:
    def source_address(host: str) -> str:
        if asked is not None:
            asked.append(host)
        return ROUTES.get(host, "")

    made = Facing()
    listeners = tuple(ListenerSettings("net", transport, host, 5060, host, 5060) for transport, host in OURS)
    made.face(
        settings(Peers(), listeners=listeners, realms={"net": RealmSettings("net")}, source_address=source_address)
    )
    return made


@pytest.mark.parametrize(
    ("transport", "host", "index"),
    [
        ("udp", "10.0.7.7", 0),
        ("udp", "10.1.7.7", 1),
        ("", "10.1.7.7", 1),
        ("udp", "172.16.0.1", 0),  # by an address of the machine that is none of ours: the first
        ("udp", "203.0.113.1", 0),  # no route
        ("udp", "2001:db8::9", 2),
        ("tcp", "10.0.7.7", 3),
        ("tls", "10.1.7.7", 5),
        ("tls", "10.0.7.7", 4),  # the one that listens on every address
    ],
)
def test_the_source_address_follows_the_route(transport: str, host: str, index: int) -> None:
    assert facing().listener_of("net", transport, host) == index


def test_nobody_is_asked_where_there_is_no_choice() -> None:
    asked: list[str] = []
    made = facing(asked)
    made.listener_of("net", "tcp", "10.0.7.7")
    made.listener_of("net", "", "2001:db8::9")
    assert not asked


@pytest.mark.parametrize(("transport", "host"), [("tcp", "2001:db8::9"), ("ws", "10.0.7.7")])
def test_another_family_or_transport_is_no_path(transport: str, host: str) -> None:
    with pytest.raises(KeyError):
        facing().listener_of("net", transport, host)
