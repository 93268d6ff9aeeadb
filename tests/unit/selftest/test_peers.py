"""Other products beside the SBC in the table of faults, and what is spoken with them."""

from __future__ import annotations

import threading
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Any

import pytest

from sbc.selftest import faults, kamailio, ng, rtpengine, table
from sbc.selftest.agents import Agent, Received, UaCall
from sbc.selftest.faults import Options, run_row
from sbc.selftest.measure import Failed, Measures, NotTried
from sbc.selftest.row import Row
from sbc.selftest.talk import Talk
from tests.unit.selftest.test_rows import NoSite


def test_rows_of_other_products_come_after_the_row_that_they_are_beside() -> None:
    names = [row.id for row in table.ROWS]
    assert names[names.index("P1") + 1] == "P1-kamailio"
    assert names[names.index("P3") + 1] == "P3-rtpengine"
    assert names[names.index("P3S2") + 1] == "P3S2-rtpengine"
    peers = [row for row in table.ROWS if row.is_beside]
    assert peers == [row for row in table.ROWS if "-" in row.id]
    assert len(peers) == len(kamailio.ROWS) + len(rtpengine.ROWS)


def test_they_are_chosen_by_name_alone() -> None:
    assert [row.id for row in table.choose(table.ROWS, "P3,p3-RTPENGINE")] == ["P3", "P3-rtpengine"]


def test_another_product_has_promised_nothing_and_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Any, measures: Measures) -> None:  # Any: no site
        measures.add("gap", [1.0], max_s=0.1)
        raise Failed("not within 10 s: an answer of it")

    class Nowhere(NoSite):
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> Nowhere:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(faults, "site", Nowhere)
    outcome = run_row(Row("T1-other", "x", "y", gone, is_beside=True), Options(runs=1), Path("/nowhere"))
    assert (outcome.verdict, outcome.has_failed) == ("beside us", False)
    lines = "\n".join(table.shown(outcome))
    assert "not measured: run 1: not within 10 s" in lines
    assert "FAIL" not in lines
    assert table.summary([outcome]) == "0 rows passed, 0 failed, 0 not tried, 1 of other products"


@pytest.mark.parametrize("row", [*kamailio.ROWS, *rtpengine.ROWS], ids=lambda row: row.id)
def test_without_the_package_they_are_not_tried(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kamailio, rtpengine):
        monkeypatch.setattr(module, "_program", lambda: "")
    with pytest.raises(NotTried, match="is not installed"):
        row.check()


@pytest.mark.parametrize("value", ["", "c=IN IP4 \u00e9", -3, [1, "a", []], {"b": 1, "a": {"c": ["d"]}}])
def test_bencode_reads_what_it_writes(value: ng.Value) -> None:
    assert ng.decode(ng.encode(value)) == value


def test_bencode_is_as_specified() -> None:
    assert ng.encode({"b": [1, "xy"], "a": {}}) == b"d1:ade1:bli1e2:xyee"
    with pytest.raises(ValueError, match="after the value"):
        ng.decode(b"i1ee")


class Spoken:
    """A daemon that echoes where it has audio."""

    def __init__(self, crypto: str = "") -> None:
        self.crypto = crypto
        self.asked: list[tuple[str, dict[str, Any]]] = []  # Any: values of ng

    def ask(self, command: str, **values: Any) -> str:  # Any: values of ng
        self.asked.append((command, values))
        port = 7000 if command == "offer" else 7002
        return f"c=IN IP4 127.0.0.9\r\nm=audio {port} RTP/AVP 0\r\n{self.crypto}"


class TwoTalks:
    """Both ends on this machine."""

    def __init__(self) -> None:
        self.talks = Talk("127.0.0.1", 0), Talk("127.0.0.1", 1)


def test_a_call_sends_where_rtpengine_says() -> None:
    site, daemon = TwoTalks(), Spoken()
    call = rtpengine._set_up(site, daemon, 3, secure=False)  # type: ignore[arg-type]
    assert call.streams
    near, far = call.streams
    ports = [near.port, far.port]
    try:
        assert (near.far, far.far) == (("127.0.0.9", 7002), ("127.0.0.9", 7000))
        assert near.call == far.call == b"peer0003"
        (offer, offered), (answer, answered) = daemon.asked
        assert (offer, answer) == ("offer", "answer")
        assert f"m=audio {near.port} RTP/AVP" in offered["sdp"]
        assert f"m=audio {far.port} RTP/AVP" in answered["sdp"]
        assert offered["transport-protocol"] == "RTP/AVP"
    finally:
        for talk in site.talks:
            talk.close_streams(ports)


def test_srtp_without_a_key_of_our_suite_is_refused_in_words() -> None:
    site = TwoTalks()
    with pytest.raises(Failed, match="offers no AES_CM_128_HMAC_SHA1_80"):
        rtpengine._set_up(site, Spoken(), 0, secure=True)  # type: ignore[arg-type]
    for talk in site.talks:
        talk.close_streams(list(talk._streams))


def test_agents_follow_a_proxy_that_stays_in_the_path() -> None:
    """RFC 3261 §12: both sides send by way of it, and the callee returns its Record-Route."""
    with socket(AF_INET, SOCK_DGRAM) as proxy, Agent("127.0.0.1") as callee:
        proxy.bind(("127.0.0.1", 0))
        proxy.settimeout(5)
        here = proxy.getsockname()
        sent = (
            f"INVITE sip:1@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{here[1]};branch=z9hG4bKx\r\n"
            f"Record-Route: <sip:127.0.0.1:{here[1]};lr>, <sip:127.0.0.5;lr>\r\nFrom: <sip:a@b>;tag=1\r\n"
            "To: <sip:1@b>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\nContact: <sip:a@127.0.0.7>\r\n\r\n"
        )
        proxy.sendto(sent.encode(), ("127.0.0.1", callee.port))
        replies = [Received(proxy.recv(4000)) for _ in range(2)]
        assert [reply.status for reply in replies] == [180, 200]
        assert replies[1].route() == [f"<sip:127.0.0.1:{here[1]};lr>", "<sip:127.0.0.5;lr>"]
        callee.hang_up(callee.all_calls()[0])
        messages = iter(lambda: Received(proxy.recv(4000)), None)
        bye = next(message for message in messages if message.method == "BYE")
        assert bye.start == "BYE sip:a@127.0.0.7 SIP/2.0"
        assert bye.headers["route"] == [f"<sip:127.0.0.1:{here[1]};lr>", "<sip:127.0.0.5;lr>"]


def test_without_a_proxy_a_dialog_goes_straight_to_its_contact() -> None:
    call = UaCall("c", "<sip:a@b>", far=("127.0.0.7", 5070))
    call.follow([])
    assert (call.route, call.far) == ([], ("127.0.0.7", 5070))


def test_kamailio_names_the_workers_that_receive(tmp_path: Path) -> None:
    server = kamailio.Server(tmp_path, 5060, 5070)
    assert server.workers() == []
    with socket(1, SOCK_DGRAM) as rpc:
        rpc.bind(str(tmp_path / "rpc"))
        rpc.settimeout(5)

        def answer() -> None:
            _, whom = rpc.recvfrom(4000)
            told = '[7,"main process",8,"udp receiver child=0",9,"udp receiver child=1",10,"slow timer"]'
            rpc.sendto(f'{{"jsonrpc":"2.0","id":1,"result":{told}}}'.encode(), whom)

        thread = threading.Thread(target=answer)
        thread.start()
        assert server.workers() == [8, 9]
        thread.join()
