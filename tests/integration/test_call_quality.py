"""Quality through a real media worker: samples over a kill -9, the round trip from RTCP, one-way audio."""

from __future__ import annotations

import struct
import time
from pathlib import Path

from media.counters import MediaCounter
from media.protocol import Delete, Endpoint, Query
from tests.integration.test_media_worker import Phone, connect
from tests.support.audio import Audio
from tests.support.callers import site
from tests.support.loopback import CALLEE, CALLER, loopback
from tests.support.media_process import MediaControl, MediaProcess
from tests.support.sbc import eventually

REALMS: dict[str, dict[str, object]] = {
    "core": {"address": "127.0.0.1", "ports": [26800, 26849]},
    "outside": {"address": "127.0.0.1", "ports": [26850, 26899]},
}
NTP = 0x11223344


def talk(seconds: float, *pairs: tuple[Phone, Endpoint]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for phone, to in pairs:
            phone.send(to)
        time.sleep(0.02)


def test_samples_round_trip_and_the_summary_survive_a_kill(tmp_path: Path) -> None:
    worker = MediaProcess(f"ipc://{tmp_path}/media.sock", REALMS)
    worker.start()
    control, a, b = MediaControl(worker.endpoint), Phone(0xA), Phone(0xB)
    try:
        for_a, for_b = connect(control, a, b)
        both = (a, for_a), (b, for_b)
        talk(1.2, *both)
        report = struct.pack("!BBHIIIIII", 0x80, 200, 6, 0xA, NTP >> 16, (NTP & 0xFFFF) << 16, 0, 0, 0)
        a.rtcp.sendto(report, ("127.0.0.1", for_a.rtcp_port))
        assert b.rtcp.recv(2048) == report
        time.sleep(0.05)  # what B keeps it is not told in DLSR: so it is a part of the round trip
        answer = struct.pack("!BBHIIIIIII", 0x81, 201, 7, 0xB, 0xA, 26 << 24 | 2, 0, 80, NTP, 0)
        b.rtcp.sendto(answer, ("127.0.0.1", for_b.rtcp_port))
        assert a.rtcp.recv(2048) == answer
        worker.kill()
        worker.start()
        talk(2.2, *both)
        told = control.ask(Query("call-1", samples=60)).stats
        heard = told["a"][0].quality
        assert heard is not None
        assert heard.received is not None
        assert 3 <= heard.received.seconds <= 10
        assert 4.0 < heard.received.mos <= 4.5
        assert len(heard.samples) >= 3
        assert max(row[0] for row in heard.samples) >= 2, "what was sampled before the death is gone"
        assert any(row[1] > 20 and row[4] > 4 for row in heard.samples)
        assert heard.rtt_ms == -1.0, "nobody has answered a report that went to A"
        ended = control.ask(Delete("call-1")).stats["b1"][0].quality
        assert ended is not None
        assert ended.samples == []
        assert 50.0 <= ended.rtt_ms < 2000.0
        assert ended.rtt_min_ms == ended.rtt_max_ms == ended.rtt_ms
        assert ended.reported is not None
        assert (ended.reported.lost, ended.reported.jitter_ms) == (2, 10.0)
        assert ended.reported.mos < 4.0, "ten per cent were lost there"
    finally:
        control.close()
        a.close()
        b.close()
        worker.close()


def test_who_sends_nothing_is_told_to_the_owner(tmp_path: Path) -> None:
    worker = MediaProcess(f"ipc://{tmp_path}/media.sock", REALMS, one_way_s=1)
    worker.start()
    control, a, b = MediaControl(worker.endpoint), Phone(0xA), Phone(0xB)
    try:
        for_a, _ = connect(control, a, b)
        talk(2.5, (a, for_a))
        event = control.wait_notification(2)
        while event is not None and event["event"] != "one_way":
            event = control.wait_notification(2)
        assert event is not None
        assert (event["session"], event["leg"], event["heard"], event["refused"]) == ("call-1", "b1", False, 0)
        assert event["described"] == f"127.0.0.1:{b.rtp.getsockname()[1]}"
        assert worker.count(MediaCounter.ONE_WAY) >= 1
    finally:
        control.close()
        a.close()
        b.close()
        worker.close()


def test_a_call_that_only_one_side_hears(tmp_path: Path) -> None:
    """Through a whole SBC: what the log, the commands and the record say of it."""
    net = loopback(sip=1, media=1, more="timers: { media_one_way_s: 1 }\n")
    with Audio(CALLER) as near, Audio(CALLEE) as far, site(tmp_path, net, near.open, far.open) as at:
        [pair] = at.establish(1)
        near.streams[pair.a.audio_port].far = pair.a.far_audio
        near.talk()
        eventually(lambda: "one-way audio" in at.sbc.log, 8, "the line in the log")
        assert "B sends nothing: firewall or NAT on its side?" in at.sbc.log
        [call] = at.sbc.calls()
        shown = at.sbc.ask("quality", key=call["key"][:20], samples=5)
        assert shown["call"]["one_way"] == "b"
        by_leg = {leg: streams[0]["quality"] for leg, streams in shown["media"].items()}
        assert by_leg["a"]["received"]["mos"] > 4
        assert by_leg["a"]["samples"][-1][1] > 0
        assert "received" not in by_leg["b1"]
        assert by_leg["b1"]["one_way_s"] >= 1
        at.end([pair])
        at.settled(1)
        [cdr] = at.sbc.cdrs()
        assert cdr["one_way"] == "b"
        assert cdr["media"]["a"]["received"]["seconds"] >= 1
        assert cdr["media"]["b"] == {"packets": 0, "packets_out": cdr["media"]["a"]["packets"], "lost": 0} | {
            "jitter_ms": 0.0,
            "mos": 0.0,
        }
