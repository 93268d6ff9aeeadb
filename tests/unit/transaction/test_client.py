"""Client transactions against the timers of RFC 3261 §17.1 and CANCEL of §9.1, on UDP."""

from __future__ import annotations

import pytest

from sbc.sip.message import Message
from sbc.transaction import tables as t
from sbc.transaction.timers import Settings
from tests.unit.transaction.rig import TCP, Rig, request, response, stray

INVITE = request()
OPTIONS = request("OPTIONS")
CANCEL = request("CANCEL")


def test_unanswered_invite_doubles_timer_a_without_a_cap_until_timer_b() -> None:
    rig = Rig()
    tx = rig.send(INVITE)
    rig.run_to(31.99)
    assert rig.times(b"INVITE") == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert rig.user.seen == []
    rig.run_to(100)
    assert rig.user.seen == [(32.0, "timeout B")]
    assert tx.terminated
    assert rig.counts == {"TRANSACTIONS": 1, "RETRANSMISSION_OUT": 6, "TIMER_B": 1}
    rig.assert_empty()


def test_unanswered_request_doubles_timer_e_up_to_t2_until_timer_f() -> None:
    rig = Rig()
    rig.send(OPTIONS)
    rig.run_to(100)
    assert rig.times(b"OPTIONS") == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert rig.user.seen == [(32.0, "timeout F")]
    rig.assert_empty()


def test_provisional_slows_a_request_to_t2_and_timer_f_goes_on() -> None:
    rig = Rig()
    rig.send(OPTIONS)
    rig.run_to(0.6)
    rig.receive(response(100, OPTIONS))
    rig.run_to(100)
    # the interval that ran stands; from then on T2
    assert rig.times(b"OPTIONS") == [0, 0.5, 1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5, 29.5]
    assert rig.user.events == [100, "timeout F"]
    assert rig.user.seen[-1][0] == 32.0
    rig.assert_empty()


def test_final_response_to_a_request_comes_once_and_timer_k_absorbs() -> None:
    rig = Rig()
    rig.send(OPTIONS)
    rig.run_to(1)
    assert rig.receive(response(200, OPTIONS))
    rig.run_to(5.9)
    assert rig.receive(response(200, OPTIONS))
    assert rig.user.events == [200]
    assert rig.counts["RETRANSMISSION_IN"] == 1
    assert len(rig.layer) == 1
    rig.run_to(6.0)
    rig.assert_empty()
    assert not rig.receive(response(200, OPTIONS))
    assert rig.counts["STRAY_RESPONSE"] == 1


def test_provisional_stops_retransmission_of_invite() -> None:
    rig = Rig()
    rig.send(INVITE)
    rig.run_to(0.7)
    rig.receive(response(100, INVITE))
    rig.receive(response(180, INVITE))
    rig.run_to(60)
    assert rig.times(b"INVITE") == [0, 0.5]
    assert rig.user.events == [100, 180]


def test_2xx_is_passed_up_each_time_in_accepted_until_timer_m() -> None:
    rig = Rig()
    tx = rig.send(INVITE)
    rig.run_to(1)
    rig.receive(response(200, INVITE))
    assert tx.state == t.ACCEPTED
    rig.run_to(1.5)
    rig.receive(response(200, INVITE))
    rig.receive(response(200, INVITE, "fork"))
    rig.receive(response(486, INVITE))
    assert rig.user.events == [200, 200, 200]
    assert rig.times(b"ACK") == []
    rig.run_to(32.99)
    assert len(rig.layer) == 1
    rig.run_to(33)
    rig.assert_empty()


def test_refusal_is_acknowledged_each_time_and_passed_up_once_until_timer_d() -> None:
    rig = Rig()
    tx = rig.send(INVITE)
    rig.run_to(1)
    for _ in range(3):
        rig.receive(response(486, INVITE))
    rig.receive(response(180, INVITE))
    rig.receive(response(200, INVITE))
    assert rig.user.events == [486]
    assert tx.last_status == 486
    assert rig.times(b"ACK") == [1, 1, 1]
    assert rig.counts["RETRANSMISSION_IN"] == 2
    rig.run_to(32.99)
    assert len(rig.layer) == 1
    rig.run_to(33)
    rig.assert_empty()


def test_the_ack_to_a_refusal_is_built_from_the_invite() -> None:
    """§17.1.1.3"""
    routes = (("Route", "<sip:p1;lr>"), ("Route", "<sip:p2;lr>"))
    invite = request(cseq=77, headers=(*routes, ("Proxy-Authorization", 'Digest realm="x"'), ("Contact", "<sip:a@b>")))
    rig = Rig()
    rig.send(invite)
    rig.receive(response(407, invite, "theirs"))
    ack = Message.parse(rig.sent[-1][1])
    sent = Message.parse(invite)
    assert (ack.method, ack.uri) == ("ACK", sent.uri)
    assert ack.get_all("Via") == sent.get_all("Via")
    assert (ack.cseq_number, ack.cseq_method) == (77, "ACK")
    assert (ack.call_id, ack.from_tag, ack.to_tag) == (sent.call_id, sent.from_tag, "theirs")
    assert ack.get_all("Route") == ["<sip:p1;lr>", "<sip:p2;lr>"]
    assert ack.get("Proxy-Authorization") == 'Digest realm="x"'
    assert ack.get("Contact") is None
    assert ack.max_forwards == 70
    assert ack.body == b""


def test_cancel_leaves_at_once_after_a_provisional() -> None:
    rig = Rig()
    tx = rig.send(INVITE)
    rig.receive(response(180, INVITE))
    rig.run_to(2)
    tx.cancel(CANCEL, rig.now)
    tx.cancel(CANCEL, rig.now)
    assert rig.times(b"CANCEL") == [2]
    rig.receive(response(200, CANCEL))
    rig.receive(response(487, INVITE))
    assert rig.user.events == [180, 487]
    assert rig.times(b"ACK") == [2]
    rig.run_to(100)
    assert rig.times(b"CANCEL") == [2]
    rig.assert_empty()


def test_cancel_is_held_until_a_provisional_and_invite_goes_on_meanwhile() -> None:
    rig = Rig()
    tx = rig.send(INVITE, cancel_data=CANCEL)
    rig.run_to(0.2)
    tx.cancel(None, rig.now)
    rig.run_to(1.6)
    assert rig.times(b"CANCEL") == []
    assert rig.times(b"INVITE") == [0, 0.5, 1.5]
    rig.receive(response(100, INVITE))
    assert rig.times(b"CANCEL") == [1.6]
    rig.run_to(40)
    assert rig.times(b"INVITE") == [0, 0.5, 1.5]
    assert rig.user.events == [100, "timeout CANCEL"]
    assert rig.user.seen[-1][0] == pytest.approx(33.6)
    rig.assert_empty()


def test_held_cancel_is_dropped_when_a_final_response_comes_first() -> None:
    for status in (200, 486):
        rig = Rig()
        tx = rig.send(INVITE)
        tx.cancel(CANCEL, rig.now)
        rig.receive(response(status, INVITE))
        rig.run_to(100)
        assert rig.times(b"CANCEL") == []
        assert rig.user.events == [status]
        rig.assert_empty()


def test_held_cancel_of_an_invite_that_nobody_answers_ends_with_timer_b() -> None:
    rig = Rig()
    rig.send(INVITE).cancel(CANCEL, rig.now)
    rig.run_to(100)
    assert rig.times(b"CANCEL") == []
    assert rig.user.seen == [(32.0, "timeout B")]
    rig.assert_empty()


def test_cancel_after_a_final_response_does_nothing() -> None:
    for status in (200, 486):
        rig = Rig()
        tx = rig.send(INVITE)
        rig.receive(response(status, INVITE))
        tx.cancel(CANCEL, rig.now)
        rig.run_to(100)
        tx.cancel(CANCEL, rig.now)
        assert rig.times(b"CANCEL") == []


def test_cancel_that_crosses_a_200() -> None:
    rig = Rig()
    tx = rig.send(INVITE)
    rig.receive(response(180, INVITE))
    tx.cancel(CANCEL, rig.now)
    rig.receive(response(200, INVITE))
    rig.receive(response(481, CANCEL))
    assert rig.user.events == [180, 200]
    rig.run_to(100)
    rig.assert_empty()


def test_cancel_without_data_is_built_from_the_invite() -> None:
    """§9.1"""
    invite = request(cseq=9, headers=(("Route", "<sip:p1;lr>"), ("Require", "100rel")))
    rig = Rig()
    tx = rig.send(invite)
    rig.receive(response(180, invite))
    tx.cancel(None, rig.now)
    cancel, sent = Message.parse(rig.sent[-1][1]), Message.parse(invite)
    assert (cancel.method, cancel.uri, cancel.branch) == ("CANCEL", sent.uri, sent.branch)
    assert (cancel.cseq_number, cancel.cseq_method, cancel.call_id) == (9, "CANCEL", sent.call_id)
    assert (cancel.get("From"), cancel.get("To")) == (sent.get("From"), sent.get("To"))
    assert cancel.get_all("Route") == ["<sip:p1;lr>"]
    assert cancel.get("Require") is None


def test_lost_cancel_is_repeated_by_timer_e() -> None:
    rig = Rig()
    tx = rig.send(INVITE)
    rig.receive(response(180, INVITE))
    tx.cancel(CANCEL, rig.now)
    rig.run_to(4)
    assert rig.times(b"CANCEL") == [0, 0.5, 1.5, 3.5]
    rig.receive(response(200, CANCEL))
    rig.receive(response(487, INVITE))
    rig.run_to(100)
    assert rig.user.events == [180, 487]
    rig.assert_empty()


def test_timer_c_starts_again_with_each_provisional_above_100() -> None:
    rig = Rig(Settings(timer_c_s=180))
    tx = rig.send(INVITE)
    rig.user.cancel_on_timer_c = True
    rig.receive(response(100, INVITE))
    rig.run_to(50)
    rig.receive(response(180, INVITE))
    rig.run_to(100)
    rig.receive(response(100, INVITE))
    rig.run_to(229)
    assert rig.times(b"CANCEL") == []
    rig.run_to(231)
    assert rig.user.seen[-1] == (230.0, "timeout C")
    assert rig.times(b"CANCEL") == [230.0, 230.5]
    assert tx.state == t.CANCELLING
    rig.run_to(300)
    assert rig.user.seen[-1] == (262.0, "timeout CANCEL")
    rig.assert_empty()


def test_a_user_that_ignores_timer_c_is_told_again() -> None:
    rig = Rig(Settings(timer_c_s=180))
    rig.send(INVITE)
    rig.receive(response(180, INVITE))
    rig.run_to(400)
    assert rig.user.seen == [(0, 180), (180, "timeout C"), (360, "timeout C")]


def test_transport_error_ends_what_uses_the_flow() -> None:
    rig = Rig()
    rig.send(INVITE)
    rig.send(OPTIONS)
    rig.send(request("OPTIONS", "z9hG4bKtcp"), TCP)
    rig.layer.transport_failed(TCP, rig.now)
    assert rig.user.events == ["transport error"]
    rig.layer.transport_failed(Rig().send(INVITE).flow, rig.now)
    assert rig.user.events == ["transport error"] * 3
    rig.assert_empty()


def test_reliable_transport_repeats_nothing_and_ends_at_once() -> None:
    rig = Rig()
    rig.send(INVITE, TCP)
    rig.send(OPTIONS, TCP)
    rig.run_to(10)
    assert len(rig.sent) == 2
    rig.receive(response(200, OPTIONS))
    rig.receive(response(486, INVITE))
    rig.run_to(10.002)
    rig.assert_empty()


def test_responses_match_by_branch_and_cseq_method() -> None:
    """§17.1.3"""
    rig = Rig()
    rig.send(INVITE)
    assert not rig.layer.receive_response(stray(200, "CANCEL", "z9hG4bKone"), TCP, rig.now)
    assert not rig.layer.receive_response(stray(200, "INVITE", "z9hG4bKtwo"), TCP, rig.now)
    assert rig.counts["STRAY_RESPONSE"] == 2
    assert rig.layer.receive_response(stray(200, "INVITE", "z9hG4bKone"), TCP, rig.now)


def test_a_branch_that_is_in_use_is_refused() -> None:
    rig = Rig()
    rig.send(INVITE)
    with pytest.raises(ValueError, match="under way"):
        rig.send(INVITE)
    assert len(rig.sent) == 1


def test_a_transaction_lets_go_of_its_user() -> None:
    rig = Rig()
    tx = rig.send(OPTIONS)
    rig.receive(response(200, OPTIONS))
    rig.run_to(10)
    assert tx.user is not rig.user
