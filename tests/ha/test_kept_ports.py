"""A media worker dies, and no peer sees a closed port (P3): its RTP sockets are kept, with what waits in them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from tests.support.audio import Audio, Stream
from tests.support.callers import Site, site, spread
from tests.support.loopback import CALLEE, CALLER, CORE, OUTSIDE, loopback
from tests.support.sbc import eventually

CALLS = 10


def open_ports() -> set[tuple[str, int]]:
    """Every UDP port that is bound at an address of the SBC."""
    found = set()
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        host = socket.inet_ntoa(int(address, 16).to_bytes(4, sys.byteorder))
        if host in (OUTSIDE, CORE):
            found.add((host, int(port, 16)))
    return found


def killed(at: Site, streams: list[Stream]) -> None:
    """kill -9 of the media worker, until everybody hears half a second of audio again."""
    start = time.monotonic()
    died = at.sbc.kill("media 0")
    respawn_s = at.sbc.respawned("media 0", died)
    wanted = [len(stream.heard) + 25 for stream in streams]
    pairs = list(zip(streams, wanted, strict=True))
    eventually(lambda: all(len(stream.heard) > count for stream, count in pairs), 15, "audio again")
    silences = [stream.longest_silence(start, time.monotonic()) for stream in streams]
    print(f"there again {respawn_s:.3f} s, silence {spread(silences)}")


def test_no_port_is_closed_and_what_waits_is_relayed(tmp_path: Path) -> None:
    """kill -9 of the media worker of ten talking calls, twice, the second time under another supervisor. Peers send by
    connected sockets, which hear of a closed port: none does. What they sent meanwhile arrives; ports that no call has
    are kept as well."""
    net = loopback(sip=2, media=1)
    with Audio(CALLER) as near, Audio(CALLEE) as far, site(tmp_path, net, near.open, far.open) as at:
        at.end(at.establish(CALLS))
        pairs = at.establish(CALLS)
        streams = []
        for pair in pairs:
            a, b = near.streams[pair.a.audio_port], far.streams[pair.b.audio_port]
            for stream, address in ((a, pair.a.far_audio), (b, pair.b.far_audio)):
                stream.far = address
                stream.socket.connect(address)
                streams.append(stream)
        near.talk()
        far.talk()
        eventually(lambda: all(len(stream.heard) > 50 for stream in streams), 15, "audio both ways in each call")
        bound = open_ports()
        assert len(bound) >= 2 * 2 * CALLS

        killed(at, streams)
        assert open_ports() >= bound, "a port was lost"
        first = at.sbc.supervisor_pid
        os.kill(first, signal.SIGKILL)
        eventually(lambda: at.sbc.supervisor_pid not in (0, first), 10, "another supervisor")
        killed(at, streams)
        assert open_ports() >= bound, "a port was lost"

        near.talking = far.talking = False
        time.sleep(0.3)
        missed = [
            len(set(range(mine.sent)) - {sequence for _, sequence, _ in streams[n ^ 1].heard})
            for n, mine in enumerate(streams)
        ]
        print(f"packets of a stream {streams[0].sent}, lost in all {sum(missed)}, of one stream at most {max(missed)}")
        assert sum(stream.refused for stream in streams) == 0, "somebody saw a closed port"
        assert max(missed) <= 6  # what the worker had read when it died, twice
        at.end(pairs)
        at.settled(2 * CALLS)
