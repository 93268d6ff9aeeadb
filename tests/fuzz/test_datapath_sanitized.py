"""The C packet logic under ASan and UBSan: the corpora and seeded mutations of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.secure import rtcp, rtp
from tests.support.shared import ROOT, shared_data
from tests.support.stun import Agent

LINKED = {
    "replay_datapath": (
        *("forward.c", "quality.c", "srtp.c", "stun.c", "tap.c", "record.c"),
        *("process.c", "transcode.c"),
    ),
    "replay_stun": ("srtp.c",),  # it includes stun.c
}
FLAGS = ["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MUTATIONS = int(os.environ.get("SBC_FUZZ_EXAMPLES", "0"))  # of each file, for python -m tests.fuzz.run


def build(name: str, folder: Path) -> Path:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    program = folder / name
    sources = [ROOT / f"tests/fuzz/c/{name}.c", *(ROOT / "ext/c" / linked for linked in LINKED[name])]
    libraries = ["-lcrypto", "-lm"]
    subprocess.run([gcc, *FLAGS, f"-I{ROOT / 'ext/c'}", *map(str, sources), *libraries, "-o", str(program)], check=True)
    return program


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("replay_datapath", tmp_path_factory.mktemp("asan"))


@pytest.mark.parametrize("kind", ["rtp", "rtcp", "stun"])
def test_no_octet_is_read_out_of_bounds(replay: Path, kind: str, tmp_path: Path) -> None:
    files = sorted(map(str, (shared_data() / "corpus" / kind).iterdir()))
    for name, octets in {"rtp": rtp(7), "rtcp": rtcp()}.items():  # the corpora have hardly a sound packet
        (tmp_path / name).write_bytes(octets)
        files.append(str(tmp_path / name))
    mutations = MUTATIONS or 2000
    done = subprocess.run([str(replay), str(mutations), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inspected, forwarded = map(int, done.stdout.split())
    assert inspected == len(files) * (mutations + 1)
    assert forwarded > (0 if MUTATIONS else 300)


def test_no_octet_of_stun_is_read_out_of_bounds(tmp_path: Path) -> None:
    program = build("replay_stun", tmp_path)
    files = sorted(map(str, (shared_data() / "corpus" / "stun").iterdir()))
    (tmp_path / "check").write_bytes(Agent("ourufrag", "p" * 24).check(nominate=True))  # the corpus has none for us
    files += [str(tmp_path / "check")] * 5
    mutations = MUTATIONS or 5000
    done = subprocess.run([str(program), str(mutations), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inspected, answered = map(int, done.stdout.split())
    assert inspected == len(files) * (mutations + 1)
    assert answered > (0 if MUTATIONS else 3000)
