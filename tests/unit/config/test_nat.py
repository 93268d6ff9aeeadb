"""What a realm says of NAT in the configuration."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sbc.config.models import Config
from sbc.services.keep_alive import KeepAliveSettings
from sbc.worker.settings import keep_alive_settings


def config(**fields: Any) -> Config:  # Any: what the YAML would hold
    realm = {"listen": ["udp:192.0.2.1:5060"], "media": {"address": "192.0.2.2"}, **fields}
    return Config.model_validate({"realms": {"phones": realm}, "peers": {}})


@pytest.mark.parametrize(
    ("given", "nat"),
    [("off", "never"), (False, "never"), ("never", "never"), ("auto", "auto"), ("always", "always")],
)
def test_nat(given: object, nat: str) -> None:
    assert config(nat=given).realms["phones"].nat == nat


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (None, []),
        (False, []),
        (True, [KeepAliveSettings("phones")]),
        ({}, [KeepAliveSettings("phones", "crlf", 30.0, 3, True)]),
        (
            {"method": "options", "interval_s": 45, "misses": 2, "only_nated": False},
            [KeepAliveSettings("phones", "options", 45.0, 2, False)],
        ),
    ],
)
def test_keep_alive(given: object, settings: list[KeepAliveSettings]) -> None:
    assert keep_alive_settings(config(keep_alive=given)) == settings


@pytest.mark.parametrize(
    "given", [{"method": "stun"}, {"interval_s": 0}, {"misses": 0}, {"intervall_s": 30}, "crlf", 30]
)
def test_what_is_no_keep_alive(given: object) -> None:
    with pytest.raises(ValidationError):
        config(keep_alive=given)
