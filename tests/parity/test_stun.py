"""ICE lite: the compiled code and the Python reference answer alike, and as the RFCs say."""

from __future__ import annotations

import base64
import csv
import json
import random
from typing import Any

import pytest

from media import reference_stun as stun
from media.counters import Handled, Reason
from media.rules import NO_ADDRESS, Address, Feature, RuleFlag
from media.srtp import Suite
from media.webrtc import CHECKS_PER_S, CONSENT_NS, REFUSALS_PER_S
from tests.parity.test_datapath import SOURCES, Twin, corpus, rtp
from tests.support.secure import TwinKeys, master
from tests.support.shared import shared_data
from tests.support.stun import COOKIE, Agent, attributes, error_code, is_authentic, mapped

VECTORS: list[dict[str, Any]] = json.loads(shared_data("vectors", "stun.json").read_text())  # Any: JSON values
AGENT = Agent("ourufrag", "p" * 24)
FORMER = Agent("oldufrag", "q" * 24)
HERE, THERE, SIX = SOURCES[0], SOURCES[7], SOURCES[10]
S = 10**9


class Ice(Twin):
    """Rule 0 is a leg with ICE that nobody has been heard of, rule 1 a plain one."""

    def __init__(self, features: int = Feature.ICE, former: Agent | None = None, theirs: str = "abcd", **more: Any):
        super().__init__(**more)
        for rules, legs in ((self.compiled, self.compiled_webrtc), (self.reference, self.reference_webrtc)):
            rules[0].features = features
            rules[0].flags |= RuleFlag.RTCP_MUX
            for name in ("rtp_remote", "rtcp_remote", "rtp_signalled", "rtcp_signalled"):
                setattr(rules[0], name, Address.from_buffer_copy(NO_ADDRESS))
            for agent, credentials in ((AGENT, legs[0].present), (former, legs[0].former)):
                if agent is not None:
                    credentials.valid = credentials.theirs_known = 1
                    credentials.ufrag[:] = list(agent.ufrag.encode())
                    credentials.password[:] = list(agent.password.encode())
                    credentials.theirs[: len(theirs)] = list(theirs.encode())
                    credentials.theirs_bytes = len(theirs)
            legs[0].fresh = 1

    @property
    def place(self) -> str:
        return str(self.compiled[0].rtp_remote)


def name(source: bytes) -> str:
    return str(Address.from_buffer_copy(source))


@pytest.mark.parametrize("source", [HERE, SIX])
def test_a_check_is_answered_and_tells_where_the_leg_is(source: bytes) -> None:
    twin = Ice()
    assert twin.feed(rtp(1, 0), SOURCES[0], S, index=1) is Reason.NO_REMOTE
    assert twin.feed(AGENT.check(), source, 2 * S) is Handled.ANSWERED
    assert twin.answer[:2] == b"\1\1"
    host, port = mapped(twin.answer)
    assert name(source) in (f"{host}:{port}", f"[{host}]:{port}")
    assert is_authentic(twin.answer, AGENT.password)
    assert twin.place == name(source)
    assert twin.feed(rtp(2, 0), SOURCES[0], 3 * S, index=1) is Reason.FORWARD


def test_before_nomination_the_first_check_counts_then_the_nominated_pair() -> None:
    twin = Ice()
    twin.feed(AGENT.check(), HERE, S)
    twin.feed(AGENT.check(), THERE, S)
    assert twin.place == name(HERE)
    twin.feed(AGENT.check(nominate=True), THERE, S)
    assert twin.place == name(THERE)
    twin.feed(AGENT.check(), HERE, S)
    assert twin.place == name(THERE)


@pytest.mark.parametrize(
    "agent",
    [Agent("ourufrag", "wrong" * 5), Agent("nobodys1", "p" * 24), Agent("ourufrag", "p" * 24, "else"), Agent("", "x")],
)
def test_a_stranger_is_told_so_with_no_more_octets_than_it_sent(agent: Agent) -> None:
    twin = Ice()
    request = agent.check(nominate=True)
    assert twin.feed(request, HERE, S) is Handled.ANSWERED
    assert error_code(twin.answer) == 401
    assert len(twin.answer) <= len(request)
    assert stun.MESSAGE_INTEGRITY not in attributes(twin.answer)
    assert twin.place == ""
    assert twin.feed(rtp(1, 0), HERE, S) is Reason.WRONG_SOURCE


def test_the_shortest_request_of_a_stranger_gets_no_more() -> None:
    request = stun.build(stun.REQUEST, COOKIE + bytes(12), [(stun.USERNAME, b"")], b"x")
    bare = request[:2] + (len(request) - 28).to_bytes(2, "big") + request[4:-8]  # without FINGERPRINT
    twin = Ice()
    assert twin.feed(bare, HERE, S) is Handled.ANSWERED
    assert len(twin.answer) == len(bare) == 48


@pytest.mark.parametrize("more", [[], [(stun.USERNAME, b"ourufrag:abcd")], [(stun.PRIORITY, bytes(4))]])
def test_what_proves_nothing_is_not_answered(more: list[tuple[int, bytes]]) -> None:
    twin = Ice()
    assert twin.feed(stun.build(stun.REQUEST, COOKIE + bytes(12), more), HERE, S) is Reason.STUN_UNPROVEN


def test_before_their_answer_their_part_of_the_name_is_not_known() -> None:
    twin = Ice()
    for legs in (twin.compiled_webrtc, twin.reference_webrtc):
        legs[0].present.theirs_known = 0
    twin.feed(Agent("ourufrag", "p" * 24, "whoever").check(), HERE, S)
    assert twin.place == name(HERE)


def test_a_sender_that_is_controlled_too_hears_of_the_conflict() -> None:
    twin = Ice()
    twin.feed(AGENT.check(role=stun.ICE_CONTROLLED, nominate=True), HERE, S)
    assert error_code(twin.answer) == 487
    assert is_authentic(twin.answer, AGENT.password)
    assert twin.place == ""


def test_attributes_that_must_be_understood_and_are_not() -> None:
    twin = Ice()
    strange = tuple((kind, b"xyz") for kind in range(0x0030, 0x003A))
    twin.feed(AGENT.check(more=strange, nominate=True), HERE, S)
    assert error_code(twin.answer) == 420
    assert attributes(twin.answer)[stun.UNKNOWN_ATTRIBUTES] == bytes.fromhex("0030003100320033003400350036" + "0037")
    assert is_authentic(twin.answer, AGENT.password)
    assert twin.place == ""
    twin.feed(AGENT.check(more=((0xC057, b"12345"),)), HERE, S)  # may be ignored
    assert twin.place == name(HERE)


@pytest.mark.parametrize("kind", [stun.SUCCESS, stun.ERROR, 0x0003, 0x0111])
def test_answers_to_what_we_never_asked_are_dropped(kind: int) -> None:
    twin = Ice()
    message = stun.build(kind, COOKIE + bytes(12), [(stun.USERNAME, b"ourufrag:abcd")], AGENT.password.encode())
    assert twin.feed(message, HERE, S) is Reason.BAD_STUN


def test_an_indication_is_a_keepalive() -> None:
    assert Ice().feed(stun.build(stun.INDICATION, COOKIE + bytes(12), []), HERE, S) is Handled.ABSORBED


def test_after_an_ice_restart_the_former_credentials_last_until_the_new_ones_are_used() -> None:
    twin = Ice(former=FORMER)
    twin.feed(FORMER.check(nominate=True), THERE, S)
    assert (twin.answer[:2], twin.place) == (b"\1\1", "")
    twin.feed(AGENT.check(), HERE, S)
    assert twin.place == name(HERE)
    twin.feed(FORMER.check(nominate=True), THERE, S)
    assert (error_code(twin.answer), twin.place) == (401, name(HERE))


def test_consent_ends_with_the_checks() -> None:
    twin = Ice()
    twin.feed(AGENT.check(), HERE, S)
    twin.feed(AGENT.check(), THERE, 20 * S)  # from elsewhere: says nothing of there
    assert twin.feed(rtp(1, 0), SOURCES[0], S + CONSENT_NS - 1, index=1) is Reason.FORWARD
    assert twin.feed(rtp(2, 0), SOURCES[0], S + CONSENT_NS, index=1) is Reason.NO_CONSENT
    twin.feed(AGENT.check(), HERE, 40 * S)
    assert twin.feed(rtp(3, 0), SOURCES[0], 41 * S, index=1) is Reason.FORWARD


def test_more_checks_than_any_agent_makes_are_not_answered() -> None:
    twin = Ice()
    outcomes = [twin.feed(AGENT.check(), HERE, S + at) for at in range(CHECKS_PER_S + 5)]
    assert outcomes == [Handled.ANSWERED] * CHECKS_PER_S + [Reason.STUN_LIMIT] * 5
    assert twin.feed(AGENT.check(), HERE, 3 * S) is Handled.ANSWERED


def test_strangers_do_not_use_up_what_the_leg_may_ask() -> None:
    twin = Ice()
    stranger = Agent("ourufrag", "w" * 24)
    outcomes = [twin.feed(stranger.check(), THERE, S + at) for at in range(300)]
    assert outcomes.count(Handled.ANSWERED) == REFUSALS_PER_S
    assert twin.feed(AGENT.check(), HERE, S + 400) is Handled.ANSWERED


def test_without_ice_stun_is_no_rtp() -> None:
    twin = Ice(features=0)
    assert twin.feed(AGENT.check(), HERE, S) is Reason.BAD_VERSION
    assert Ice(features=Feature.DTLS).feed(AGENT.check(), HERE, S) is Reason.BAD_VERSION


def test_only_where_a_check_came_from_may_send_media_or_dtls() -> None:
    twin = Ice(Feature.ICE | Feature.DTLS)
    hello = bytes.fromhex("16feff0000000000000000") + bytes(60)
    for source in SOURCES:
        assert twin.feed(hello, source, S) is Reason.WRONG_SOURCE
        assert twin.feed(rtp(1, 0), source, S) is Reason.WRONG_SOURCE
    twin.feed(AGENT.check(), HERE, S)
    twin.feed(AGENT.check(), THERE, S)
    for source in SOURCES:
        expected = Handled.TO_PYTHON if source in (HERE, THERE) else Reason.WRONG_SOURCE
        assert twin.feed(hello, source, S) is expected
        assert (twin.feed(rtp(1, 0), source, S) is Reason.FORWARD) == (source in (HERE, THERE))
    assert twin.feed(rtp(1, 0), HERE, S, rtcp_port=True) is not Reason.FORWARD


def test_without_ice_dtls_comes_from_the_host_that_was_signalled() -> None:
    twin = Twin()
    for rules in (twin.compiled, twin.reference):
        rules[0].features = Feature.DTLS
    outcomes = {source: twin.feed(b"\x16" + bytes(30), source, S) for source in SOURCES}
    assert outcomes[SOURCES[1]] is outcomes[SOURCES[3]] is Handled.TO_PYTHON
    assert outcomes[SOURCES[7]] is outcomes[SOURCES[10]] is Reason.WRONG_SOURCE


def test_srtp_moves_a_leg_to_where_it_has_proved_to_be_and_nowhere_else() -> None:
    suite = Suite.AEAD_AES_128_GCM
    twin, phone = Ice(suites={0: suite}), TwinKeys(suite, master(suite, 0))
    twin.feed(AGENT.check(nominate=True), HERE, S)
    twin.feed(AGENT.check(), THERE, 20 * S)
    assert twin.feed(phone.protect(rtp(1, 0))[1], SOURCES[8], 21 * S) is Reason.WRONG_SOURCE
    assert twin.feed(rtp(2, 0), THERE, 21 * S) is Reason.AUTH_FAILED
    assert twin.place == name(HERE)
    assert twin.feed(phone.protect(rtp(3, 0))[1], THERE, 22 * S) is Reason.FORWARD
    assert twin.place == name(THERE)
    assert twin.feed(rtp(1, 0), SOURCES[0], 40 * S, index=1) is Reason.FORWARD


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_published_messages(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    message = stun.parse(data)
    if vector.get("fingerprint") == "invalid":
        assert message is None
    elif message is not None and "short-term password" in vector.get("credential", {}):
        tag = stun.integrity(data, message.covered, vector["credential"]["short-term password"].encode())
        assert (tag == message.tag) == (vector["message_integrity"] == "valid")
    twin = Ice()
    assert twin.feed(data, HERE, S) in (Handled.ANSWERED, Reason.STUN_UNPROVEN, Reason.BAD_STUN, Reason.BAD_VERSION)
    assert twin.place == ""


def test_messages_of_browsers_are_sound() -> None:
    lines = [
        line for line in shared_data("vectors", "stun-frombrowsers.csv").read_text().splitlines() if line[0] != "#"
    ]
    twin, seen = Ice(), 0
    for row in csv.DictReader(lines):
        data = base64.b64decode(row["message"])
        assert stun.parse(data) is not None
        assert twin.feed(data, HERE, S) is Reason.STUN_UNPROVEN
        seen += 1
    assert seen > 5


def test_corpus_and_mutations() -> None:
    draw = random.Random(8)
    seeds = [*corpus("stun"), *(bytes.fromhex(vector["hex"]) for vector in VECTORS), AGENT.check(nominate=True)]
    twin, outcomes = Ice(Feature.ICE | Feature.DTLS, former=FORMER), set()
    for turn in range(4000):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.choice((0, 1, 1, 2, 5))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        cut = draw.choice((len(data),) * 5 + (draw.randrange(len(data)),))
        outcomes.add(twin.feed(bytes(data[:cut]), draw.choice(SOURCES), turn * 10_000_000, rtcp_port=turn % 50 == 0))
    assert {Handled.ANSWERED, Reason.BAD_STUN, Reason.STUN_UNPROVEN} <= outcomes
