"""Which files may be played: their names, and what is read of them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from media.clips import Coding, Form, read_form
from media.files import FileRefused, inside
from media.payloads import first_of, law_of
from media.player import Law


def wav(tag: int = 1, channels: int = 1, rate_hz: int = 8000, bits: int = 16, *, data: bytes = bytes(320)) -> bytes:
    form = struct.pack("<HHIIHH", tag, channels, rate_hz, 0, 0, bits)
    return b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", form) + chunk(b"data", data)


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (wav(), Form(Coding.PCM, 1, 8000, 44, 320)),
        (wav(6, 2, 16_000, 8), Form(Coding.ALAW, 2, 16_000, 44, 320)),
        (wav(7, 1, 8000, 8), Form(Coding.ULAW, 1, 8000, 44, 320)),
        # other chunks before, of an odd length too
        (wav().replace(b"fmt ", chunk(b"LIST", b"abc") + b"fmt "), Form(Coding.PCM, 1, 8000, 56, 320)),
        # a writer that was cut off: what is there
        (wav().replace((320).to_bytes(4, "little"), b"\xff\xff\xff\xff"), Form(Coding.PCM, 1, 8000, 44, 320)),
    ],
)
def test_forms(given: bytes, expected: Form) -> None:
    assert read_form(io.BytesIO(given)) == expected


def test_an_extensible_format_names_its_coding_later() -> None:
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 44_100, 0, 0, 16, 22, 16, 0) + b"\1\0" + bytes(14)
    data = b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", form) + chunk(b"data", bytes(8))
    assert read_form(io.BytesIO(data)) == Form(Coding.PCM, 1, 44_100, 68, 8)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"RIFF",
        b"RIFX\0\0\0\0WAVE",
        wav()[:30],
        wav(3, bits=32),
        wav(bits=8),
        wav(channels=3),
        wav(rate_hz=96_000),
        wav(rate_hz=4000),
        wav(data=b""),
        wav(6, 1, 8000, 8, data=bytes(8000 * 601)),
        b"RIFF\0\0\0\0WAVE" + chunk(b"data", bytes(320)),
        b"RIFF\0\0\0\0WAVE" + chunk(b"junk", b"") * 100 + wav()[12:],
    ],
)
def test_what_is_no_wav_that_can_be_played(given: bytes) -> None:
    with pytest.raises(FileRefused) as refused:
        read_form(io.BytesIO(given))
    assert refused.value.code == "bad_file"


def test_names_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "in" / "de").mkdir(parents=True)
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    assert inside(str(tmp_path / "in"), "de/x.wav") == str(tmp_path / "in" / "de" / "x.wav")
    for name in ("../x", "/x", "de/../../x", "de/./x", "", "out/x", "out/in/../x", "a\nb", "a\0b", "de/"):
        with pytest.raises(FileRefused):
            inside(str(tmp_path / "in"), name)


def test_payload_types() -> None:
    assert law_of("0") == (0, Law.U)
    assert law_of("8 PCMA/8000") == (8, Law.A)
    assert law_of("97 pcmu/8000/1") == (97, Law.U)
    for text in ("18", "0 G729/8000", "96 opus/48000/2", "8 PCMA/16000", "x", "", "300 PCMA/8000", "101 PCMA/8000/2"):
        assert law_of(text) is None, text
    assert first_of(["18", "101 telephone-event/8000 0-16", "8", "0"]) == (8, Law.A)
    assert first_of([]) == (8, Law.A)
    assert first_of(["9"]) is None
