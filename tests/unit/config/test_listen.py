"""Listeners: where they bind, and what peers are told."""
# ruff: noqa: E501  # sentences are compared whole

from __future__ import annotations

import pytest

from sbc.b2bua.effects import RouteKind
from sbc.config import loader
from sbc.policy.admission import Admission
from sbc.worker.settings import core_settings

TEXT = """\
run_dir: run
realms:
  outside:
    listen: [{listen}]
    advertise: 203.0.113.9
    media: {{ address: 127.0.0.1, ports: 30000-30999 }}
"""


def told(*listen: str) -> list[tuple[str, int]]:
    config, faults = loader.check_text(TEXT.format(listen=", ".join(f'"{it}"' for it in listen)), "/etc/sbc/sbc.yaml")
    assert config is not None, faults
    admission = Admission(config.peers, config.realms)
    settings = core_settings(config, b"0" * 16, admission, frozenset({RouteKind.REQUEST}))
    return [(it.advertised_host, it.advertised_port) for it in settings.listeners]


def test_what_peers_are_told() -> None:
    """A listener's own address and port, else the realm's address, which stands for none of the other IP version."""
    assert told(
        "udp:10.0.0.5:5060",
        "tcp:10.0.0.5:5060 as 203.0.113.7",
        "udp:10.0.0.6:5061 as 203.0.113.7:15061",
        "udp:[2001:db8::5]:5060",
        "tcp:[2001:db8::5]:5060 as [2001:db8::99]:5062",
        "ws:0.0.0.0:8080 as 203.0.113.8",
    ) == [
        ("203.0.113.9", 5060),
        ("203.0.113.7", 5060),
        ("203.0.113.7", 15061),
        ("2001:db8::5", 5060),
        ("2001:db8::99", 5062),
        ("203.0.113.8", 8080),
    ]


@pytest.mark.parametrize(
    ("listen", "fault"),
    [
        (
            "udp:10.0.0.5:5060 as [2001:db8::1]",
            "4:14: realms.outside.listen.0: udp:10.0.0.5:5060 is of IPv4, but 2001:db8::1 is not",
        ),
        (
            "udp:10.0.0.5:5060 as here",
            "4:14: realms.outside.listen.0: 'udp:10.0.0.5:5060 as here' is not transport:address:port, for example udp:10.0.0.5:5060",
        ),
        (
            "udp:10.0.0.5:5060 as 203.0.113.7:99999",
            "4:14: realms.outside.listen.0: should be at most 65535, not '99999'",
        ),
    ],
)
def test_faults(listen: str, fault: str) -> None:
    config, faults = loader.check_text(TEXT.format(listen=f'"{listen}"'), "/etc/sbc/sbc.yaml")
    assert config is None
    assert [str(it).removeprefix("/etc/sbc/sbc.yaml:") for it in faults] == [fault]
