"""Which headers an operator may let pass into a realm."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sbc.config.models import Realm


def realm(name: object) -> Realm:
    media = {"address": "192.0.2.1"}
    return Realm.model_validate({"listen": ["udp:192.0.2.1:5060"], "media": media, "pass_headers": [name]})


def test_an_unknown_header() -> None:
    assert realm("X-Account").pass_headers == ["X-Account"]


@pytest.mark.parametrize("name", ["Via", "i", "contact", "Authorization", "P-Asserted-Identity", "X Y", "X:", "", 7])
def test_what_is_ours_or_no_header(name: object) -> None:
    with pytest.raises(ValidationError):
        realm(name)
