"""The node of the simulator's tests: an office, two carriers and a phone, by addresses of documentation."""

from __future__ import annotations

from typing import Any

from sbc.config.models import Config

GIVEN: dict[str, Any] = {  # Any: what the YAML would hold
    "realms": {
        "inside": {"listen": ["udp:192.0.2.1:5060", "tcp:192.0.2.1:5060"], "media": {"address": "192.0.2.2"}},
        "outside": {"listen": ["udp:203.0.113.1:5060"], "media": {"address": "203.0.113.2"}},
    },
    "media_profiles": {"narrow": {"codecs": {"allow": ["PCMA"]}}},
    "peers": {
        "office": {
            "realm": "inside",
            "addresses": "192.0.2.10",
            "direction": "from_office",
            "calls_to": "carrier-a",
            "max_calls": 2,
        },
        "carrier-a": {
            "realm": "outside",
            "addresses": "198.51.100.0/24",
            "gateway": "sip:sip.carrier-a.example",
            "follow_redirects": "peer",
        },
        "carrier-b": {"realm": "outside", "addresses": "203.0.113.77", "gateway": "sip:203.0.113.77:5080"},
        "trunk": {
            "realm": "outside",
            "addresses": "203.0.113.88",
            "gateway": "sip:203.0.113.88",
            "auth": {"username": "us", "password": "x"},
            "register": {"required": True},
        },
    },
}
CONFIG = Config.model_validate(GIVEN)
