"""What a media worker is told comes from the configuration."""

from __future__ import annotations

from media.config import MediaConfig
from sbc.config.models import Config
from sbc.supervisor.child import Group
from sbc.supervisor.members import MEDIA_QUARANTINE_S, Entries, Estate
from sbc.supervisor.segments import Reader


def test_a_media_worker_is_told_its_share_and_its_limits() -> None:
    media = {"address": "127.0.0.1", "ports": "31000-31999"}
    config = Config.model_validate(
        {
            "workers": {"sip": 1, "media": 2},
            "store": "none",
            "realms": {"core": {"listen": ["udp:127.0.0.1:15999"], "media": media}},
            "timers": {"media_silence_s": 7},
        }
    )
    told: list[MediaConfig] = []

    def run_media(given: MediaConfig) -> int:
        told.append(given)
        return 3

    def other(_: object) -> int:
        raise AssertionError("not a media worker")

    estate = Estate(config, "", b"k" * 16, Entries(other, run_media, other, segment=Reader(4096)))
    member = next(member for member in estate.members if member.group is Group.MEDIA and member.slot == 1)
    assert estate.run(member) == 3
    assert (told[0].media_timeout_s, told[0].quarantine_s) == (7.0, MEDIA_QUARANTINE_S)
    assert told[0].realms["core"].ports == (31500, 31999)
    assert Config.model_validate({**config.model_dump(mode="json"), "timers": {}}).timers.media_silence_s == 60.0
