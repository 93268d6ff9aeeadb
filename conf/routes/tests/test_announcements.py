"""Those of announcements.py: every prompt takes three seconds of the time that no test waits for."""

from sbc.testing import Sbc, staged

CONFIG = {
    "realms": {
        "outside": {"listen": ["udp:198.51.100.1:5060"], "media": {"address": "198.51.100.1"}},
        "inside": {"listen": ["udp:10.0.0.1:5060"], "media": {"address": "10.0.0.1"}},
    },
    "peers": {
        "carrier": {"realm": "outside", "addresses": "198.51.100.7"},
        "desk": {"realm": "inside", "addresses": "10.0.0.20", "gateway": "sip:10.0.0.20:5060"},
        "voicemail": {"realm": "inside", "addresses": "10.0.0.30", "gateway": "sip:10.0.0.30:5060"},
    },
}
sbc = staged(CONFIG, "../announcements.py")


def test_a_number_that_is_gone_is_announced_before_it_is_refused(sbc: Sbc) -> None:
    carrier = sbc.party("carrier")
    carrier.calls("4711")
    carrier.gets(183)
    sbc.after(4)
    carrier.gets(410)
    sbc.is_over()


def test_a_busy_desk_is_announced_before_the_voicemail_answers(sbc: Sbc) -> None:
    carrier, desk, voicemail = sbc.party("carrier"), sbc.party("desk"), sbc.party("voicemail")
    carrier.calls("42")
    desk.gets("INVITE")
    desk.answers(486)
    carrier.gets(183)
    sbc.after(4)
    voicemail.gets("INVITE")
    voicemail.answers(200)
    carrier.gets(200)
    carrier.hangs_up()
    voicemail.gets("BYE")
    sbc.is_over()
