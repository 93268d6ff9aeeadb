"""How tests of routes read: those of ring.py. Run them with `pytest conf/routes/tests`; no SBC need run."""

from sbc.testing import Sbc, staged

CONFIG = {
    "realms": {
        "outside": {"listen": ["udp:198.51.100.1:5060"], "media": {"address": "198.51.100.1"}},
        "inside": {"listen": ["udp:10.0.0.1:5060"], "media": {"address": "10.0.0.1"}},
    },
    "peers": {
        "carrier": {"realm": "outside", "addresses": "198.51.100.7"},
        "desk": {"realm": "inside", "addresses": "10.0.0.20", "gateway": "sip:10.0.0.20:5060"},
        "mobile": {"realm": "inside", "addresses": "10.0.0.21", "gateway": "sip:10.0.0.21:5060"},
        "voicemail": {"realm": "inside", "addresses": "10.0.0.30", "gateway": "sip:10.0.0.30:5060"},
    },
}
sbc = staged(CONFIG, "../ring.py")  # a node of its own for each test


def test_desk_and_mobile_ring_together_and_the_first_answer_wins(sbc: Sbc) -> None:
    carrier, desk, mobile = sbc.party("carrier"), sbc.party("desk"), sbc.party("mobile")
    carrier.calls("42")
    desk.gets("INVITE")
    mobile.gets("INVITE")
    desk.answers(180)
    carrier.gets(180)
    mobile.answers(200)
    carrier.gets(200)
    desk.gets("CANCEL")
    carrier.hangs_up()
    mobile.gets("BYE")
    sbc.is_over()


def test_the_voicemail_answers_when_nobody_does_for_20_seconds(sbc: Sbc) -> None:
    carrier, desk, mobile, voicemail = (sbc.party(name) for name in ("carrier", "desk", "mobile", "voicemail"))
    carrier.calls("42")
    desk.gets("INVITE")
    desk.answers(180)
    mobile.gets("INVITE")
    mobile.answers(486)
    sbc.after(19)
    voicemail.gets_nothing()
    sbc.after(2)
    assert voicemail.gets("INVITE").uri == "sip:42@10.0.0.30:5060"
    voicemail.answers(200)
    carrier.gets(180)
    carrier.gets(200)


def test_who_declines_everywhere_is_not_sent_to_the_voicemail(sbc: Sbc) -> None:
    report = sbc.dry_run("42", "carrier", answers={"desk": "180+603", "mobile": "180+timeout"})
    assert report.status == 603
    assert [attempt.gateway for attempt in report.attempts] == ["desk", "mobile"]


def test_nobody_else_may_call(sbc: Sbc) -> None:
    assert sbc.dry_run("42", "desk").status == 403
