"""Those of wholesale.py: the right supplier for a number, the next one where he fails, and what the customer hears."""

import pytest

from sbc.simulator.command import try_all
from sbc.testing import Sbc, staged

sbc = staged("../../wholesale.yaml")


def test_the_dry_runs_of_the_configuration_come_true(sbc: Sbc) -> None:
    for tried in try_all(sbc.config, None):
        assert not tried.unmet, tried.unmet


def test_the_number_reaches_each_supplier_as_he_wants_it(sbc: Sbc) -> None:
    alpha, north, south = sbc.party("alpha"), sbc.party("north"), sbc.party("south")
    alpha.calls("004930123456", headers=[("Subject", "rates"), ("X-Internal", "7")])
    first = north.gets("INVITE")
    assert first.uri == "sip:4930123456@198.51.100.17"
    assert first.get("Subject") is None
    assert first.get("X-Internal") is None
    north.answers(503)
    second = south.gets("INVITE")
    assert second.uri == "sip:77014930123456@198.51.100.33"
    assert second.get("X-Route") == first.get("X-Route")
    south.answers(200)
    alpha.gets(200)
    alpha.hangs_up()
    south.gets("BYE")
    sbc.is_over()
    [cdr] = sbc.cdrs
    variables = cdr["variables"]
    assert isinstance(variables, dict)
    assert variables["account"] == "alpha"
    assert (variables["number"], variables["prefix"], variables["supplier"]) == ("+4930123456", "+49", "south")
    assert variables["rates"] == {"north": 0.004, "south": 0.006}


def test_the_longest_prefix_decides(sbc: Sbc) -> None:
    report = sbc.dry_run("+493212345678", "alpha")
    assert [attempt.gateway for attempt in report.attempts] == ["south"]


def test_a_supplier_that_failed_is_tried_last_for_a_while(sbc: Sbc) -> None:
    alpha, north, south = sbc.party("alpha"), sbc.party("north"), sbc.party("south")
    for waits_s, first in ((0, north), (1, south), (40, north)):
        sbc.after(waits_s)
        alpha.calls("+4930123456")
        first.gets("INVITE")
        first.answers(503 if first is north else 486)
        if first is north:
            south.gets("INVITE")
            south.answers(486)
        alpha.gets(486)


@pytest.mark.parametrize(("said", "heard"), [("403", 503), ("404", 404), ("486", 486), ("timeout", 504), ("603", 603)])
def test_what_a_supplier_says_of_us_is_not_told_to_the_customer(sbc: Sbc, said: str, heard: int) -> None:
    report = sbc.dry_run("+4930123456", "alpha", answers={"north": said, "south": said})
    assert report.status == heard


def test_media_are_relayed_for_one_customer_and_direct_for_the_other(sbc: Sbc) -> None:
    for customer, address in (("alpha", "198.51.100.1"), ("beta", "203.0.113.40")):
        party, north = sbc.party(customer), sbc.party("north")
        party.calls("+4930123456")
        assert f"c=IN IP4 {address}\r\n".encode() in north.gets("INVITE").body
        north.answers(486)
        party.gets(486)


def test_no_call_lasts_longer_than_four_hours(sbc: Sbc) -> None:
    alpha, north = sbc.party("alpha"), sbc.party("north")
    alpha.calls("+4930123456")
    north.gets("INVITE")
    north.answers(200)
    alpha.gets(200)
    [call] = sbc.core.calls.values()
    assert call.lifetime_s == 4 * 3600


def test_limits_are_those_of_the_contract(sbc: Sbc) -> None:
    assert sbc.dry_run("+4930123456", "beta", present={"beta": 50}).status == 503
