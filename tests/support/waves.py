"""Tones: as WAV files, as G.711, and found again by level."""

from __future__ import annotations

import math
import struct
import wave
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from media import _datapath

RATE_HZ = 8000
AMPLITUDE = 10_000


def tone(hz: float, seconds: float, rate_hz: int = RATE_HZ, amplitude: float = AMPLITUDE) -> list[int]:
    """A sine."""
    return [round(amplitude * math.sin(2 * math.pi * hz * n / rate_hz)) for n in range(round(seconds * rate_hz))]


def write_wav(path: Path, samples: Sequence[int], rate_hz: int = RATE_HZ, channels: int = 1) -> None:
    """PCM of 16 bits; both channels hold the same."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(b"".join(struct.pack("<h", one) * channels for one in samples))


def read_wav(path: Path) -> tuple[list[int], list[int]]:
    """Left and right of a file of two channels."""
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, RATE_HZ)
        data = file.readframes(file.getnframes())
    both = struct.unpack(f"<{len(data) // 2}h", data)
    return list(both[::2]), list(both[1::2])


def alaw(samples: Sequence[int]) -> bytes:
    """As G.711 A-law."""
    return _datapath.convert(struct.pack(f"<{len(samples)}h", *samples), 1, 1, RATE_HZ)[1]


@cache
def _alaw_table() -> list[int]:
    """ITU-T G.711 table 1, by its rule."""
    values = []
    for octet in range(256):
        code = octet ^ 0x55
        segment, step = code >> 4 & 7, code & 15
        value = (step * 2 + 1 + 32 * (segment > 0)) << (max(segment, 1) - 1)
        values.append(8 * value * (1 if code & 0x80 else -1))
    return values


@cache
def _ulaw_table() -> list[int]:
    """ITU-T G.711 table 2, by its rule."""
    values = []
    for octet in range(256):
        code = octet ^ 0xFF
        segment, step = code >> 4 & 7, code & 15
        values.append(4 * ((2 * step + 33 << segment) - 33) * (-1 if code & 0x80 else 1))
    return values


def from_alaw(octets: bytes) -> list[int]:
    """As linear samples."""
    return [_alaw_table()[octet] for octet in octets]


def from_ulaw(octets: bytes) -> list[int]:
    """As linear samples."""
    return [_ulaw_table()[octet] for octet in octets]


def level(samples: Sequence[int], hz: float, rate_hz: int = RATE_HZ) -> float:
    """The amplitude of a frequency (Goertzel)."""
    turn = 2 * math.pi * hz / rate_hz
    factor, before, last = 2 * math.cos(turn), 0.0, 0.0
    for sample in samples:
        before, last = last, sample + factor * last - before
    power = before * before + last * last - factor * before * last
    return 2 * math.sqrt(max(0.0, power)) / len(samples)
