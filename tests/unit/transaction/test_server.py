"""Server transactions against the timers of RFC 3261 §17.2 and RFC 6026 on UDP, and matching by §17.2.3."""

from __future__ import annotations

import pytest

from sbc.sip.message import Message
from sbc.transaction import tables as t
from sbc.transaction.server import ServerTransaction
from tests.unit.transaction.rig import TCP, UDP, Rig, request, response

INVITE = request()
OPTIONS = request("OPTIONS")
ACK = request("ACK", to_tag="b")


def accept(rig: Rig, data: bytes) -> ServerTransaction:
    tx = rig.layer.receive_request(Message.parse(data), UDP, rig.now)
    assert tx is not None
    return tx


def absorbed(rig: Rig, data: bytes) -> bool:
    return rig.layer.receive_request(Message.parse(data), UDP, rig.now) is None


def match_ack(rig: Rig, data: bytes) -> bool:
    return rig.layer.match_ack(Message.parse(data), rig.now)


def test_retransmitted_invite_gets_the_last_provisional() -> None:
    rig = Rig()
    tx = accept(rig, INVITE)
    assert absorbed(rig, INVITE)
    assert rig.sent == []
    tx.respond(100, response(100, INVITE), rig.now)
    assert absorbed(rig, INVITE)
    tx.respond(180, response(180, INVITE), rig.now)
    assert absorbed(rig, INVITE)
    assert [data.split()[1] for _, data in rig.sent] == [b"100", b"100", b"180", b"180"]
    assert rig.counts == {"TRANSACTIONS": 1, "RETRANSMISSION_IN": 3, "RETRANSMISSION_OUT": 2}


def test_refusal_doubles_timer_g_up_to_t2_until_timer_h() -> None:
    rig = Rig()
    tx = accept(rig, INVITE)
    failed: list[float] = []
    tx.on_failure = lambda tx, now: failed.append(now - 1000)
    tx.respond(486, response(486, INVITE), rig.now)
    rig.run_to(100)
    assert rig.times(b"SIP/2.0 486") == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert failed == [32.0]
    assert rig.counts["TIMER_H"] == 1
    rig.assert_empty()


def test_ack_stops_the_refusal_and_timer_i_absorbs_more() -> None:
    rig = Rig()
    tx = accept(rig, INVITE)
    tx.respond(486, response(486, INVITE), rig.now)
    rig.run_to(0.6)
    assert match_ack(rig, ACK)
    assert tx.state == t.CONFIRMED
    rig.run_to(5.5)
    assert match_ack(rig, ACK)
    assert absorbed(rig, INVITE)
    assert rig.times(b"SIP/2.0 486") == [0, 0.5]
    assert len(rig.layer) == 1
    rig.run_to(5.6)
    rig.assert_empty()


def test_lost_ack_brings_the_refusal_again() -> None:
    rig = Rig()
    tx = accept(rig, INVITE)
    tx.respond(503, response(503, INVITE), rig.now)
    rig.run_to(0.1)
    assert absorbed(rig, INVITE)
    assert rig.times(b"SIP/2.0 503") == [0, 0.1]


def test_2xx_is_not_repeated_here_and_timer_l_absorbs_the_invite() -> None:
    """RFC 6026 §7.1"""
    rig = Rig()
    tx = accept(rig, INVITE)
    ok = response(200, INVITE)
    tx.respond(200, ok, rig.now)
    assert tx.state == t.ACCEPTED
    rig.run_to(10)
    assert absorbed(rig, INVITE)
    assert rig.times(b"SIP/2.0 200") == [0]
    assert not match_ack(rig, ACK)  # a careless peer's ACK to the 2xx with the branch of the INVITE: the dialog's
    tx.respond(200, ok, rig.now)  # by the dialog
    tx.respond(486, response(486, INVITE), rig.now)
    assert rig.times(b"SIP/2.0") == [0, 10]
    rig.run_to(31.99)
    assert len(rig.layer) == 1
    rig.run_to(32)
    rig.assert_empty()


def test_answered_request_is_answered_again_until_timer_j() -> None:
    rig = Rig()
    tx = accept(rig, OPTIONS)
    assert absorbed(rig, OPTIONS)
    assert rig.sent == []
    tx.respond(200, response(200, OPTIONS), rig.now)
    tx.respond(500, response(500, OPTIONS), rig.now)
    rig.run_to(31.99)
    assert absorbed(rig, OPTIONS)
    assert rig.times(b"SIP/2.0 200") == [0, 31.99]
    assert rig.times(b"SIP/2.0 500") == []
    assert tx.last_status == 200
    rig.run_to(32)
    rig.assert_empty()
    assert tx.terminated
    tx.respond(200, response(200, OPTIONS), rig.now)
    assert len(rig.sent) == 2


def test_provisional_to_a_request_is_repeated() -> None:
    rig = Rig()
    tx = accept(rig, OPTIONS)
    tx.respond(100, response(100, OPTIONS), rig.now)
    assert tx.state == t.PROCEEDING
    assert absorbed(rig, OPTIONS)
    assert rig.times(b"SIP/2.0 100") == [0, 0]


def test_ack_of_nothing_is_left_to_the_dialog_and_counted() -> None:
    rig = Rig()
    assert not match_ack(rig, ACK)
    assert absorbed(rig, ACK)
    assert rig.counts == {"STRAY_ACK": 1}
    accept(rig, INVITE)
    assert not match_ack(rig, ACK)  # before any final response


def test_ack_may_come_without_the_time() -> None:
    rig = Rig()
    tx = accept(rig, INVITE)
    tx.respond(486, response(486, INVITE), rig.now)
    rig.run_to(1)
    assert rig.layer.match_ack(Message.parse(ACK))
    assert tx.state == t.CONFIRMED


def test_cancel_has_its_own_transaction_and_finds_the_invite() -> None:
    rig = Rig()
    tx = accept(rig, INVITE)
    cancel = request("CANCEL")
    cancel_tx = accept(rig, cancel)
    assert cancel_tx.method == "CANCEL"
    assert rig.layer.invite_for_cancel(Message.parse(cancel)) is tx
    assert absorbed(rig, cancel)
    elsewhere = request("CANCEL", via="SIP/2.0/UDP 192.0.2.2:5060")
    assert rig.layer.invite_for_cancel(Message.parse(elsewhere)) is None


def test_sent_by_is_part_of_the_match() -> None:
    rig = Rig()
    accept(rig, INVITE)
    for via in ("SIP/2.0/UDP 192.0.2.2:5060", "SIP/2.0/UDP 192.0.2.1:5070", "SIP/2.0/UDP 192.0.2.1"):
        assert accept(rig, request(via=via))
    assert len(rig.layer) == 4


def test_case_and_blanks_of_sent_by_do_not_matter() -> None:
    rig = Rig()
    accept(rig, request(via="SIP/2.0/UDP Host.Example.com:5060"))
    assert absorbed(rig, request(via="SIP / 2.0 / UDP   host.example.COM : 5060 "))


def test_same_branch_for_another_method_is_another_transaction() -> None:
    rig = Rig()
    accept(rig, INVITE)
    assert accept(rig, request("BYE", to_tag="b"))


@pytest.mark.parametrize("branch", ["", "1", "z9hG4bK"])
def test_rfc_2543_requests_match_by_their_fields(branch: str) -> None:
    rig = Rig()
    for method in ("INVITE", "OPTIONS"):
        old = request(method, branch)
        tx = accept(rig, old)
        assert absorbed(rig, old)
        for other in (
            request(method, branch, call_id="other@a"),
            request(method, branch, cseq=2),
            request(method, branch, from_tag="z"),
            request(method, branch, uri="sip:carol@example.net"),
            request(method, branch, via="SIP/2.0/UDP 192.0.2.77"),
        ):
            assert accept(rig, other) is not tx


def test_rfc_2543_ack_matches_by_the_to_tag_of_the_response() -> None:
    rig = Rig()
    old = request(branch="")
    tx = accept(rig, old)
    tx.respond(486, response(486, old, "ours"), rig.now)
    assert not match_ack(rig, request("ACK", "", to_tag="another"))
    assert match_ack(rig, request("ACK", "", to_tag="ours"))
    assert rig.layer.invite_for_cancel(Message.parse(request("CANCEL", ""))) is tx
    rig.run_to(10)
    rig.assert_empty()


def test_rfc_2543_requests_in_a_dialog_match_by_to_tag() -> None:
    rig = Rig()
    accept(rig, request("INFO", "", to_tag="one"))
    assert accept(rig, request("INFO", "", to_tag="two"))
    assert absorbed(rig, request("INFO", "", to_tag="two"))


def test_merged_requests() -> None:
    """§8.2.2.2"""
    rig = Rig()
    first, second = Message.parse(INVITE), Message.parse(request(branch="z9hG4bKby-another-path"))
    assert not rig.layer.is_merged(first)
    tx = rig.layer.receive_request(first, UDP, rig.now)
    assert tx is not None
    assert not rig.layer.is_merged(first)
    assert rig.layer.is_merged(second)
    assert rig.layer.receive_request(second, UDP, rig.now) is not None
    assert rig.layer.is_merged(second)
    assert not rig.layer.is_merged(first)
    for other in (
        request(branch="z9hG4bKx", cseq=2),
        request(branch="z9hG4bKx", call_id="other"),
        request(branch="z9hG4bKx", from_tag="z"),
        request(branch="z9hG4bKx", to_tag="in-dialog"),
        request("CANCEL", branch="z9hG4bKx"),
        request(branch="z9hG4bKx").replace(b"INVITE sip:", b"INVITE sip:another-", 1),
    ):
        assert not rig.layer.is_merged(Message.parse(other))
    tx.respond(200, response(200, INVITE), rig.now)
    rig.run_to(33)
    assert not rig.layer.is_merged(second)


def test_transport_error_ends_the_transaction_and_says_so() -> None:
    for data, status in ((INVITE, None), (INVITE, 180), (INVITE, 486), (OPTIONS, None), (OPTIONS, 200)):
        rig = Rig()
        tx = accept(rig, data)
        told: list[ServerTransaction] = []
        tx.on_failure = lambda tx, now, told=told: told.append(tx)
        if status:
            tx.respond(status, response(status, data), rig.now)
        rig.layer.transport_failed(TCP, rig.now)
        assert len(rig.layer) == 1
        rig.layer.transport_failed(UDP, rig.now)
        assert told == [tx]
        assert tx.user is None
        rig.assert_empty()


def test_reliable_transport_repeats_nothing_and_ends_at_once() -> None:
    rig = Rig()
    invite = rig.layer.receive_request(Message.parse(INVITE), TCP, rig.now)
    options = rig.layer.receive_request(Message.parse(OPTIONS), TCP, rig.now)
    assert invite is not None
    assert options is not None
    invite.respond(486, response(486, INVITE), rig.now)
    options.respond(200, response(200, OPTIONS), rig.now)
    rig.run_to(5)
    assert len(rig.sent) == 2
    assert options.terminated
    assert match_ack(rig, ACK)
    rig.run_to(5.01)
    rig.assert_empty()
