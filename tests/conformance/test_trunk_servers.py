"""Registering at carriers in virtual time: the servers of a registrar's name (RFC 3263)."""

from __future__ import annotations

from sbc.services.trunk_registration import START_S
from sbc.sip.flow import Flow
from tests.support.ladder import B_HOST, C_HOST
from tests.support.trunks import NAMED, Trunks, accept, answer, challenge


def named(f: Trunks) -> Trunks:
    """Both carriers are one, at the servers of a name."""
    f.peers.sources[1, C_HOST] = f.peers.sources[1, B_HOST]
    f.servers = [Flow(1, "udp", B_HOST, 5070), Flow(1, "udp", C_HOST, 5070)]
    return f


def test_the_next_server_of_the_name() -> None:
    """RFC 3263 §4.3."""
    f = named(Trunks())
    f.configure(NAMED)
    f.after(START_S + 0.1)
    answer(f.b, f.b.expect("REGISTER"), 503, [])
    second = f.c.expect("REGISTER")
    challenge(f.c, second)
    accept(f.c, f.c.expect("REGISTER"))
    assert f.one["server"] == f"udp:{C_HOST}:5070"
    refresh = f.register(f.c, 2870, 3010)
    assert f.failed == [Flow(1, "udp", B_HOST, 5070)]
    accept(f.c, refresh)  # the one that has the binding goes first
    f.b.nothing()


def test_all_servers_of_the_name_fail() -> None:
    f = named(Trunks())
    f.configure(NAMED)
    f.after(START_S + 0.1)
    answer(f.b, f.b.expect("REGISTER"), 503, [])
    answer(f.c, f.c.expect("REGISTER"), 500, [])
    assert f.one["state"] == "failed"
    f.register(f.b, 2, 6)
    assert f.failed == f.servers


def test_a_name_that_leads_nowhere() -> None:
    f = Trunks(NAMED)
    assert (f.one["state"], f.one["reason"]) == ("failed", "carrier.example leads to no usable server")
    named(f)
    accept(f.b, f.register(f.b, 2, 6))


def test_a_name_that_leads_nowhere_any_more_costs_no_registration() -> None:
    f = named(Trunks())
    f.configure(NAMED)
    f.after(START_S + 0.1)
    accept(f.b, f.b.expect("REGISTER"))
    f.servers = []
    accept(f.b, f.register(f.b, 2870, 3010))


def test_no_credentials_to_an_address_that_is_not_the_peers() -> None:
    """A forged answer of the DNS, or a registrar that the operator forgot to list."""
    f = Trunks()
    f.servers = [Flow(1, "udp", C_HOST, 5070)]  # carrier-c
    f.configure(NAMED)
    f.after(START_S + 0.1)
    f.c.nothing()
    assert (f.one["state"], f.one["reason"]) == ("refused", f"{C_HOST} is not among the addresses of the peer")
