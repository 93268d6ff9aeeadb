"""The compiled way through a usual session description under ASan and UBSan, on octets that end where they end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.shared import ROOT, shared_data

MUTATIONS = int(os.environ.get("SBC_FUZZ_EXAMPLES", "0")) or 200
_CHILD = """
import importlib.util, random, sys
from pathlib import Path
import sbc.sdp
spec = importlib.util.spec_from_file_location("sbc.sdp._usual", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.modules["sbc.sdp._usual"] = module
from sbc.errors import SdpError
from sbc.sdp import description
assert description.usual_description is module.usual_description
draw, sound = random.Random(sys.argv[2]), 0
for name in sys.argv[4:]:
    seed = Path(name).read_bytes()
    for turn in range(int(sys.argv[3])):
        data = bytearray(seed[: draw.randrange(len(seed) + 1)] if turn % 3 == 2 else seed)
        for _ in range(draw.randrange(4) if turn and data else 0):
            data[draw.randrange(len(data))] = draw.choice(b"\\r\\n\\0 \\t:/=@0m9\\xff")
        try:
            description.SessionDescription.parse(bytes(data))
            sound += 1
        except SdpError:
            pass
print(sound)
"""


def test_no_octet_of_a_description_is_read_out_of_bounds(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    source, program = tmp_path / "_usual.c", tmp_path / "_usual.so"
    cython = [sys.executable, "-m", "cython", "-3", str(ROOT / "ext/sbc/sdp/_usual.pyx"), "-o", str(source)]
    subprocess.run(cython, check=True, capture_output=True)
    flags = ["-g", "-O1", "-w", "-shared", "-fPIC", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run([gcc, *flags, include, str(source), "-o", str(program)], check=True)
    libraries = [
        subprocess.run([gcc, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    # every bytes object in memory of its own; what the interpreter keeps at its end is no leak of ours
    environment = {"LD_PRELOAD": ":".join(libraries), "PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0"}
    files = [*sorted((shared_data() / "corpus" / "sdp").iterdir())]
    (tmp_path / "usual").write_text(USUAL)
    done = subprocess.run(
        [
            *(sys.executable, "-c", _CHILD, str(program), os.environ.get("FUZZ_SEED", "1"), str(MUTATIONS)),
            *map(str, [tmp_path / "usual", *files]),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment, "SBC_PURE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > MUTATIONS // 10


USUAL = (
    "v=0\r\no=user1 53655765 2353687637 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    "m=audio 6000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    "a=fmtp:101 0-16\r\na=rtcp:6001\r\na=ptime:20\r\na=sendrecv\r\n"
)
