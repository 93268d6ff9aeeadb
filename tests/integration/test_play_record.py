"""Announcements and recordings of a real media worker: what its legs hear, and what lies in its files."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pylibsrtp
import pytest

from media.counters import MediaCounter
from media.protocol import Answer, Delete, Offer, Play, Query, Record, Reply, Stop, Stream
from media.sdes import read_key
from tests.support.ends import Phone, run
from tests.support.media_process import MediaControl, MediaProcess
from tests.support.waves import alaw, from_alaw, level, read_wav, tone, write_wav

REALMS: dict[str, dict[str, object]] = {
    "core": {"address": "127.0.0.1", "ports": [23000, 23099]},
    "outside": {"address": "127.0.0.1", "ports": [23100, 23199]},
}
OUR_KEY = "1 AES_CM_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5MGFiY2RlZmdoaWprbG1ub3BxcnN0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``prompts`` and ``recordings``."""
    found = tmp_path_factory.mktemp("media")
    (found / "prompts").mkdir()
    write_wav(found / "prompts" / "tone.wav", tone(440, 0.6))
    write_wav(found / "prompts" / "long.wav", tone(440, 4, 44_100), 44_100, 2)
    return found


@pytest.fixture(scope="module")
def worker(folder: Path) -> Iterator[MediaProcess]:
    files = {"prompts": str(folder / "prompts"), "recordings": str(folder / "recordings")}
    process = MediaProcess(f"ipc://{folder}/media.sock", REALMS, **files)
    process.start()
    yield process
    process.close()


@pytest.fixture
def control(control: MediaControl) -> Iterator[MediaControl]:
    """The call of each test ends with it."""
    yield control
    control.ask(Delete("call"))


@pytest.fixture
def phones() -> Iterator[tuple[Phone, Phone]]:
    pair = Phone(), Phone()
    yield pair
    for phone in pair:
        phone.socket.close()


def good(reply: Reply) -> Reply:
    assert reply.ok, reply.reason
    return reply


def connect(control: MediaControl, phones: tuple[Phone, Phone]) -> None:
    a, b = phones
    offered = good(control.ask(Offer("call", "a", "b1", "core", "outside", [a.stream()])))
    answered = good(control.ask(Answer("call", "b1", "a", [b.stream()])))
    a.far, b.far = answered.endpoints[0].port, offered.endpoints[0].port


def heads(phone: Phone) -> list[tuple[int, ...]]:
    return [struct.unpack("!BBHII", data[:12]) for _, data in phone.heard]


def expect(control: MediaControl, event: str) -> dict[str, object]:
    told = control.wait_notification(3)
    assert told is not None
    assert told["event"] == event
    return told


def test_a_caller_hears_a_tone_before_anybody_answers(
    worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a, played = phones[0], worker.count(MediaCounter.PACKETS_PLAYED)
    good(control.ask(Offer("call", "a", "prompt", "core", "core", [a.stream()])))
    good(control.ask(Play("call", "a", "tone.wav", formats=["18", "8", "0"], number=7)))
    run(phones, 1.0, until=30)
    assert len(a.heard) == 30  # 0.6 s
    first = heads(a)[0]
    assert heads(a) == [
        (0x80, 0x88 if n == 0 else 8, (first[2] + n) & 0xFFFF, (first[3] + 160 * n) & 0xFFFFFFFF, first[4])
        for n in range(30)
    ]
    assert level(a.audio()[:4400], 440) == pytest.approx(10_000, rel=0.02)
    arrivals = [at for at, _ in a.heard]
    assert arrivals[-1] - arrivals[0] == pytest.approx(29 * 0.02, abs=0.015)
    gaps = sorted(after - before for before, after in pairwise(arrivals))
    assert gaps[len(gaps) // 2] == pytest.approx(0.02, abs=0.003)
    assert expect(control, "played") == {
        **{"event": "played", "session": "call", "leg": "a", "number": 7, "reason": "end"}
    }
    assert worker.count(MediaCounter.PACKETS_PLAYED) - played == 30
    assert good(control.ask(Query("call"))).stats["a"][0].packets_out == 30


def test_in_a_call_the_peer_is_not_heard_meanwhile(
    worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a, b = phones
    connect(control, phones)
    a.clip = b.clip = alaw(tone(1000, 1))
    run(phones, 0.2)
    good(control.ask(Play("call", "a", "tone.wav", repeat=0, formats=["8"])))
    run(phones, 0.1)
    a.heard.clear()
    heard_by_b = len(b.heard)
    run(phones, 0.5)
    assert {head[4] for head in heads(a)} == {heads(a)[0][4]} != {b.port}
    assert level(a.audio(), 1000) < 100 < level(a.audio(), 440)
    assert len(b.heard) - heard_by_b >= 23  # a is heard by b all the time
    assert worker.count(MediaCounter.DROP_MUTED) >= 23
    last = heads(a)[-1]
    good(control.ask(Stop("call", "a")))
    assert expect(control, "played")["reason"] == "stopped"
    run(phones, 0.06)
    a.heard.clear()
    run(phones, 0.2)
    assert {head[4] for head in heads(a)} == {b.port}
    good(control.ask(Play("call", "a", "tone.wav", formats=["8"])))  # the same source, its numbers go on
    good(control.ask(Play("call", "a", "tone.wav", formats=["8"], at_ms=500)))
    assert expect(control, "played")["reason"] == "replaced"
    run(phones, 0.2)
    again = [head for head in heads(a) if head[4] == last[4]]
    assert 0 < again[0][2] - last[2] < 6
    assert again[0][1] == 0x88
    assert 0.2 < (again[0][3] - last[3]) / 8000 < 2  # timestamps go with time
    assert expect(control, "played")["reason"] == "end"


def test_what_cannot_be_played_is_refused(folder: Path, control: MediaControl, phones: tuple[Phone, Phone]) -> None:
    prompts = folder / "prompts"
    (folder / "secret.wav").write_bytes((prompts / "tone.wav").read_bytes())
    (prompts / "link.wav").symlink_to(folder / "secret.wav")
    (prompts / "inner.wav").symlink_to(prompts / "tone.wav")
    (prompts / "text.wav").write_text("no audio")
    os.mkfifo(prompts / "pipe.wav")
    good(control.ask(Offer("call", "a", "prompt", "core", "core", [phones[0].stream()])))
    outside = ["../secret.wav", str(folder / "secret.wav"), "link.wav", "x/../../secret.wav", "", "a//b", "a\0b"]
    for name, code in [
        *((name, "no_file") for name in (*outside, "missing.wav", "pipe.wav", "x" * 300)),
        ("text.wav", "bad_file"),
    ]:
        reply = control.ask(Play("call", "a", name))
        assert (reply.ok, reply.code) == (False, code), name
        assert str(folder) not in reply.reason or name.startswith("/")
    assert control.ask(Play("call", "a", "tone.wav", formats=["18 G729/8000", "101 telephone-event/8000"])).code == (
        "no_codec"
    )
    assert control.ask(Play("call", "b", "tone.wav")).code == "unknown_leg"
    assert control.ask(Play("call", "a", "tone.wav", stream=1)).code == "unknown_leg"
    good(control.ask(Play("call", "a", "inner.wav")))
    for name in ("../x", "/tmp/x", "a/../../x", ""):
        assert control.ask(Record("call", file=name)).code == "no_file", name
    assert control.ask(Record("call", file="x", formats=["18"])).code == "no_codec"


def test_a_successor_goes_on_where_the_music_would_be(
    worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a = phones[0]
    good(control.ask(Offer("call", "a", "prompt", "core", "core", [a.stream()])))
    good(control.ask(Play("call", "a", "long.wav", number=3)))
    run(phones, 2.0, until=20)
    worker.kill()
    worker.start()
    run(phones, 3.0, until=60)
    all_heads = heads(a)
    assert len({head[4] for head in all_heads}) == 1
    numbers = [head[2] for head in all_heads]
    assert all(after - before in (0, 1, 2) for before, after in pairwise(numbers))
    passed_s = a.heard[-1][0] - a.heard[0][0]
    assert passed_s > 1.22  # with the time that nobody played
    assert (all_heads[-1][3] - all_heads[0][3]) / 8000 == pytest.approx(passed_s, abs=0.06)
    marked = [n for n, head in enumerate(all_heads) if head[1] & 0x80]
    assert (marked[0], len(marked)) == (0, 2)
    assert control.ask(Stop("call", "a")).ok
    assert expect(control, "played")["number"] == 3


def test_a_leg_with_srtp_hears_it_too(worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]) -> None:
    a = phones[0]
    offer = Offer("call", "a", "prompt", "core", "core", [a.stream(protocol="RTP/SAVP", keys=[OUR_KEY])])
    offer.from_srtp = "required"
    good(control.ask(offer))
    nobody = Stream("0.0.0.0", 9)
    shown = good(control.ask(Answer("call", "prompt", "a", [nobody]))).endpoints[0]
    key = read_key(shown.keys[0])
    assert key is not None
    listener = pylibsrtp.Session(pylibsrtp.Policy(key=key.master, ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND))
    good(control.ask(Play("call", "a", "long.wav", formats=["8"])))
    run(phones, 2.0, until=15)
    worker.kill()
    worker.start()
    run(phones, 2.0, until=30)
    clear = [listener.unprotect(data) for _, data in a.heard]  # raises where an index comes again
    assert level(from_alaw(b"".join(data[12:] for data in clear[:14])), 440) == pytest.approx(10_000, rel=0.05)
    assert level(from_alaw(b"".join(data[12:] for data in clear[-10:])), 440) == pytest.approx(10_000, rel=0.05)


def test_a_recorded_call_has_each_side_in_its_channel(
    folder: Path, worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a, b = phones
    connect(control, phones)
    a.clip, b.clip = alaw(tone(440, 1)), alaw(tone(1000, 1))
    run(phones, 0.1)
    reply = good(control.ask(Record("call", file="2026/talk", formats=["8"])))
    assert reply.file == "2026/talk.wav"
    assert good(control.ask(Record("call", file="other"))).file == "2026/talk.wav"  # it is recorded already
    run(phones, 1.5)
    good(control.ask(Record("call", on=False)))
    told = expect(control, "recorded")
    assert (told["file"], told["reason"], told["lost"], told["late"]) == ("2026/talk.wav", "end", 0, 0)
    path = folder / "recordings" / "2026" / "talk.wav"
    left, right = read_wav(path)
    assert len(left) / 8000 == pytest.approx(1.5, abs=0.15) == told["seconds"]
    for samples, own, other in ((left, 440, 1000), (right, 1000, 440)):
        assert level(samples[800:10_400], own) == pytest.approx(10_000, rel=0.1)
        assert level(samples[800:10_400], other) < 300
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert not worker.count(MediaCounter.RECORDING_PACKETS_LOST)


def test_a_killed_worker_leaves_a_recording_that_can_be_heard(
    folder: Path, worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    connect(control, phones)
    phones[0].clip, phones[1].clip = alaw(tone(440, 1)), alaw(tone(1000, 1))
    good(control.ask(Record("call", file="killed")))
    run(phones, 2.0)
    worker.kill()
    left, right = read_wav(folder / "recordings" / "killed.wav")
    assert len(left) >= 8000
    assert level(left[2000:8000], 440) > 9000 < level(right[2000:8000], 1000)
    kept = (folder / "recordings" / "killed.wav").read_bytes()
    worker.start()
    run(phones, 0.8)
    good(control.ask(Delete("call")))
    assert expect(control, "recorded")["file"] == "killed-2.wav"
    assert (folder / "recordings" / "killed.wav").read_bytes() == kept
    left, right = read_wav(folder / "recordings" / "killed-2.wav")
    assert len(left) / 8000 > 0.5
    assert level(left[-2000:], 440) > 9000 < level(right[-2000:], 1000)


def test_a_pcap_has_the_packets_of_both_sides_in_clear(
    folder: Path, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    a, b = phones
    connect(control, phones)
    a.clip, b.clip = alaw(tone(440, 1)), alaw(tone(1000, 1))
    good(control.ask(Record("call", file="talk", format="pcap")))
    run(phones, 0.5)
    good(control.ask(Record("call", on=False)))
    told = expect(control, "recorded")
    data = (folder / "recordings" / "talk.pcap").read_bytes()
    assert struct.unpack("<IHHiIII", data[:24]) == (0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)
    at, found = 24, []
    while at < len(data):
        seconds, micros, kept, length = struct.unpack("<IIII", data[at : at + 16])
        assert kept == length
        packet = data[at + 16 : at + 16 + kept]
        assert abs(seconds + micros / 1e6 - time.time()) < 10
        assert packet[0] == 0x45
        assert _sum(packet[:20]) == 0xFFFF
        assert int.from_bytes(packet[2:4], "big") == kept
        pseudo = packet[12:20] + struct.pack("!BBH", 0, 17, kept - 20)
        assert _sum(pseudo + packet[20:]) == 0xFFFF
        source, target, udp = struct.unpack("!HHH", packet[20:26])
        assert udp == kept - 20
        found.append((source, target, packet[28:]))
        at += 16 + kept
    assert len(found) == told["packets"]
    for phone in phones:
        own = [payload for source, target, payload in found if (source, target) == (phone.port, phone.far)]
        assert len(own) >= 22
        assert level(from_alaw(b"".join(one[12:] for one in own)), 440 if phone is a else 1000) > 9000


@pytest.mark.peer("tshark")
def test_tshark_reads_a_pcap(folder: Path, control: MediaControl, phones: tuple[Phone, Phone]) -> None:
    """And finds both streams whole: of 8 kHz, nothing lost, every checksum right."""
    connect(control, phones)
    phones[0].clip = phones[1].clip = alaw(tone(440, 1))
    good(control.ask(Record("call", file="shark", format="pcap")))
    run(phones, 0.4)
    good(control.ask(Record("call", on=False)))
    packets = expect(control, "recorded")["packets"]
    ports = [option for phone in phones for option in ("-d", f"udp.port=={phone.port},rtp")]
    checks = ("-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    fields = ("-T", "fields", "-e", "rtp.p_type", "-e", "udp.checksum.status", "-e", "ip.checksum.status")
    command = ["tshark", "-n", "-r", str(folder / "recordings" / "shark.pcap"), *ports, *checks, *fields]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == ["8\t1\t1"] * packets  # type: ignore[operator]  # a number


def _sum(data: bytes) -> int:
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_full_disk_ends_the_recording_and_not_the_call(
    folder: Path, worker: MediaProcess, control: MediaControl, phones: tuple[Phone, Phone]
) -> None:
    connect(control, phones)
    phones[0].clip = phones[1].clip = alaw(tone(440, 1))
    (folder / "recordings").mkdir(exist_ok=True)
    (folder / "recordings" / "here").write_text("a file where a directory is wanted")
    good(control.ask(Record("call", file="here/talk")))
    told = expect(control, "recorded")
    assert (told["reason"], worker.count(MediaCounter.RECORDINGS_FAILED)) == ("failed", 1)
    assert "not a directory" in str(told["text"])
    run(phones, 0.2)
    assert len(phones[0].heard) >= 8
    good(control.ask(Record("call", file="again")))  # it may be tried again
    run(phones, 0.1)
    good(control.ask(Record("call", on=False)))
    assert expect(control, "recorded")["reason"] == "end"
