"""Media nodes on other machines: media workers alone, asked over tcp:// by SBCs whose keys they know."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import zmq

from sbc.supervisor import folders
from tests.support.audio import Audio
from tests.support.callers import Site, site
from tests.support.loopback import CALLEE, CALLER, NETWORK, loopback
from tests.support.sbc import children, eventually, free_port

NODE_OUTSIDE, NODE_CORE, NODE_CONTROL = f"{NETWORK}.21", f"{NETWORK}.22", f"{NETWORK}.23"

NODE = """\
run_dir: run
state_dir: state
workers: 1
listen: tcp://{host}:{port}
clients: ['{client}']
realms:
  outside: {{ address: {outside}, ports: 10000-10999 }}
  core: {{ address: {core}, ports: 20000-20999 }}
"""
SETS = """\
media_sets:
  far: [{{ url: 'tcp://{host}:{port}', key: '{key}' }}, {{ workers: local, weight: 0 }}]
media_health: {{ probe_interval_s: 0.2, disable_s: 0.5 }}
"""


@contextmanager
def media_node(folder: Path, port: int, client: str) -> Iterator[subprocess.Popen[bytes]]:
    """``sbc media run`` until the end of the block, with its log in ``node.log``."""
    folder.mkdir(exist_ok=True)
    config = folder / "media.yaml"
    config.write_text(NODE.format(host=NODE_CONTROL, port=port, client=client, outside=NODE_OUTSIDE, core=NODE_CORE))
    with (folder / "node.log").open("wb") as log:
        command = [sys.executable, "-m", "sbc", "media", "run", "-c", str(config)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: '"serving"' in text(folder), 15, "a media node that serves")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, text(folder)


def text(folder: Path) -> str:
    return (folder / "node.log").read_text()


def worker_of(process: subprocess.Popen[bytes]) -> int:
    """The pid of the only media worker of a node."""
    return next(pid for pid, title in children(supervisor_of(process)).items() if title == "sbc: media 0")


def supervisor_of(process: subprocess.Popen[bytes]) -> int:
    return next(pid for pid, title in children(process.pid).items() if title == "sbc: media supervisor")


def network(port: int, key: str) -> str:
    return SETS.format(host=NODE_CONTROL, port=port, key=key)


def nodes(at: Site) -> dict[str, dict[str, object]]:
    return {str(row["node"]): row for row in at.sbc.ask("media")["media"]}


def test_a_call_over_a_media_node_that_dies(tmp_path: Path) -> None:
    """Audio passes through the node's addresses; after kill -9 of its worker new calls go to the spare, and back."""
    port = free_port(NODE_CONTROL)
    (tmp_path / "sbc" / "state").mkdir(parents=True)
    (tmp_path / "node" / "state").mkdir(parents=True)
    client = folders.media_keys(str(tmp_path / "sbc" / "state"))[0].decode()
    key = folders.media_keys(str(tmp_path / "node" / "state"))[0].decode()
    net = loopback(more=network(port, key))
    net = replace(net, text=net.text.replace("from_carrier,", "from_carrier, media_set: far,"))
    name = f"{NODE_CONTROL}:{port}"
    with (
        media_node(tmp_path / "node", port, client) as node,
        Audio(CALLER) as near,
        Audio(CALLEE) as far,
        site(tmp_path, net, near.open, far.open) as at,
    ):
        eventually(lambda: nodes(at)[name]["state"] == "up", 5, "the node to be up")
        (pair,) = at.establish(1)
        assert at.sbc.calls()[0]["media_node"] == name
        assert (pair.a.far_audio[0], pair.b.far_audio[0]) == (NODE_OUTSIDE, NODE_CORE)
        near.streams[pair.a.audio_port].far = pair.a.far_audio
        far.streams[pair.b.audio_port].far = pair.b.far_audio
        near.talk()
        far.talk()
        ends = near.streams[pair.a.audio_port], far.streams[pair.b.audio_port]
        eventually(lambda: all(len(end.heard) > 20 for end in ends), 5, "audio both ways")
        at.end([pair])

        os.kill(supervisor_of(node), signal.SIGSTOP)  # so that nobody starts the worker again
        os.kill(worker_of(node), signal.SIGKILL)
        try:
            placed = at.establish(4)
            assert {call["media_node"] for call in at.sbc.calls()} == {"media-0"}
            eventually(lambda: nodes(at)[name]["state"] == "down", 5, "the node to be down")
            reason = str(nodes(at)[name]["reason"])  # the second one where a connection was just being made
            assert "requests without an answer" in reason or "no handshake" in reason
            at.end(placed)
            assert "media node gets no new calls" in at.sbc.log
        finally:
            os.kill(supervisor_of(node), signal.SIGCONT)
        eventually(lambda: nodes(at)[name]["state"] == "up", 10, "the node to be up again")
        placed = at.establish(1)
        assert at.sbc.calls()[0]["media_node"] == name

        at.sbc.ask("media_drain", node=name)
        placed += at.establish(1)
        assert {call["media_node"] for call in at.sbc.calls()} == {name, "media-0"}
        at.end(placed)


def test_a_key_that_the_node_does_not_know_is_refused_in_plain_words_on_both_sides(tmp_path: Path) -> None:
    port = free_port(NODE_CONTROL)
    (tmp_path / "node" / "state").mkdir(parents=True)
    (tmp_path / "sbc" / "state").mkdir(parents=True)
    key = folders.media_keys(str(tmp_path / "node" / "state"))[0].decode()
    other = zmq.curve_keypair()[0].decode()
    net = loopback(more=network(port, key))
    with media_node(tmp_path / "node", port, other), site(tmp_path, net) as at:
        name = f"{NODE_CONTROL}:{port}"
        eventually(lambda: nodes(at)[name]["state"] == "down", 10, "the node to be down")
        assert nodes(at)[name]["reason"] == "it refuses our key: is it among the clients of that node?"
        ours = folders.media_keys(str(tmp_path / "sbc" / "state"))[0].decode()
        lines = [line for line in text(tmp_path / "node").splitlines() if "refused media control" in line]
        assert len(lines) == 1, "it is told once"
        assert f"its key {ours} is not among the clients of this node" in lines[0]


def test_a_media_node_without_keys_serves_loopback_only(tmp_path: Path) -> None:
    config = tmp_path / "media.yaml"
    command = [sys.executable, "-m", "sbc", "media", "run", "-c", str(config)]
    for more, fault in (
        ("", "clients: name the keys of the SBCs that may ask, as sbc media keygen prints them there"),
        ("workrs: 1", "4:1: workrs: unknown key, did you mean 'workers'?"),
        ("clients: [short]", "not a CURVE public key: 40 characters, as sbc media keygen prints them"),
    ):
        config.write_text(f"listen: tcp://10.0.0.9:7700\nrealms:\n  core: {{ address: 127.0.0.1 }}\n{more}\n")
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 1
        assert fault in done.stderr
