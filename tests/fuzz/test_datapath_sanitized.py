"""The C packet logic under ASan and UBSan: the corpora and seeded mutations of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.secure import rtcp, rtp
from tests.support.shared import ROOT, shared_data

SOURCES = [ROOT / "tests/fuzz/c/replay_datapath.c", *(ROOT / "ext/c" / name for name in ("forward.c", "srtp.c"))]
FLAGS = ["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    program = tmp_path_factory.mktemp("asan") / "replay"
    subprocess.run([gcc, *FLAGS, f"-I{ROOT / 'ext/c'}", *map(str, SOURCES), "-lcrypto", "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize("kind", ["rtp", "rtcp", "stun"])
def test_no_octet_is_read_out_of_bounds(replay: Path, kind: str, tmp_path: Path) -> None:
    files = sorted(map(str, (shared_data() / "corpus" / kind).iterdir()))
    for name, octets in {"rtp": rtp(7), "rtcp": rtcp()}.items():  # the corpora have hardly a sound packet
        (tmp_path / name).write_bytes(octets)
        files.append(str(tmp_path / name))
    mutations = 2000
    done = subprocess.run([str(replay), str(mutations), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inspected, forwarded = map(int, done.stdout.split())
    assert inspected == len(files) * (mutations + 1)
    assert forwarded > 300
