"""Media profiles of the configuration as the core wants them."""

from __future__ import annotations

import pytest

from sbc.b2bua.settings import MediaProfile, SrtpPolicies
from sbc.config.models import Config
from sbc.policy.admission import Admission
from sbc.sdp.codecs import CodecFilter
from sbc.worker.settings import core_settings


def test_profiles_that_ask_for_something_by_name_and_peer() -> None:
    config = Config.model_validate(
        {
            "realms": {"core": {"listen": ["udp:127.0.0.1:5060"], "media": {"address": "127.0.0.1"}}},
            "media_profiles": {
                "narrow": {"codecs": {"allow": ["PCMA"], "order": ["pcma"]}, "silence_s": 20},
                "idle": {},
            },
            "peers": {
                "phones": {"realm": "core", "addresses": ["10.0.0.1"], "profile": "narrow"},
                "carrier": {"realm": "core", "addresses": ["10.0.0.2"], "profile": "secure"},
                "other": {"realm": "core", "addresses": ["10.0.0.3"]},
            },
        }
    )
    settings = core_settings(config, b"k" * 16, Admission(config.peers, config.realms, workers=1), frozenset())
    narrow = MediaProfile(silence_s=20.0, codecs=CodecFilter(frozenset({"pcma"}), order=("pcma",)))
    secure = MediaProfile(srtp="required")
    profiles = settings.media_profiles
    assert profiles.named == {
        "carrier": MediaProfile(latch="fixed"),
        "phone-behind-nat": MediaProfile(latch="learn"),
        "secure": secure,
        "webrtc": MediaProfile(srtp="dtls", ice="lite"),
        "narrow": narrow,
    }
    assert profiles.peers == {"phones": narrow, "carrier": secure}


@pytest.mark.parametrize(
    ("realm", "peer", "policies"),
    [
        ("off", None, None),
        ("optional", None, SrtpPolicies({"core": "optional"}, {}, dtls=False)),
        ("off", "dtls", SrtpPolicies({"core": "off"}, {"phones": "dtls"}, dtls=True)),
        ("dtls", "required", SrtpPolicies({"core": "dtls"}, {"phones": "required"}, dtls=True)),
    ],
)
def test_srtp_of_realms_and_peers_and_whether_one_is_dtls(
    realm: str, peer: str | None, policies: SrtpPolicies | None
) -> None:
    media = {"address": "127.0.0.1", "srtp": realm}
    phones = {"realm": "core", "addresses": ["10.0.0.1"]} | ({"srtp": peer} if peer else {})
    config = Config.model_validate(
        {"realms": {"core": {"listen": ["udp:127.0.0.1:5060"], "media": media}}, "peers": {"phones": phones}}
    )
    settings = core_settings(config, b"k" * 16, Admission(config.peers, config.realms, workers=1), frozenset())
    assert settings.srtp == policies
