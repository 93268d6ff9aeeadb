"""The C packet logic under ASan and UBSan: the corpora and seeded mutations of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.shared import ROOT, shared_data

SOURCES = [ROOT / "tests/fuzz/c/replay_datapath.c", ROOT / "ext/c/forward.c"]
FLAGS = ["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    program = tmp_path_factory.mktemp("asan") / "replay"
    subprocess.run([gcc, *FLAGS, f"-I{ROOT / 'ext/c'}", *map(str, SOURCES), "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize("kind", ["rtp", "rtcp", "stun"])
def test_no_octet_is_read_out_of_bounds(replay: Path, kind: str) -> None:
    files = sorted(map(str, (shared_data() / "corpus" / kind).iterdir()))
    mutations = 2000
    done = subprocess.run([str(replay), str(mutations), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(files) * (mutations + 1)
