"""Nonces that need no memory: ours, in time, for this realm and source, under a current key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc.sip.nonce import Verdict, check, mint

KEY, OLD, OTHER = b"k" * 32, b"o" * 32, b"x" * 32
NOW = 1_700_000_000.0


def verdict(nonce: str, wall: float = NOW, keys: tuple[bytes, ...] = (KEY,), **fields: str) -> Verdict:
    return check(keys, nonce, wall, 30.0, **{"realm": "r", **fields}).verdict


def test_a_nonce_is_good_for_its_lifetime() -> None:
    nonce = mint(KEY, NOW, 7, realm="r")
    assert len(nonce) == 40
    judged = check([KEY], nonce, NOW + 12.5, 30.0, realm="r")
    assert (judged.verdict, judged.serial) == (Verdict.GOOD, 7)
    assert judged.age_s == pytest.approx(12.5, abs=0.002)
    assert verdict(nonce, NOW + 29.9) is Verdict.GOOD
    assert verdict(nonce, NOW + 30.1) is Verdict.STALE
    assert verdict(nonce, NOW - 4) is Verdict.GOOD, "a node whose clock is a little behind"
    assert verdict(nonce, NOW - 3600) is Verdict.STALE, "the clock was set back: challenged anew, not refused"


def test_it_is_bound_to_key_realm_and_source() -> None:
    nonce = mint(KEY, NOW, 2**64 - 1, realm="r", source="192.0.2.1")
    assert verdict(nonce, source="192.0.2.1") is Verdict.GOOD
    assert verdict(nonce, source="192.0.2.2") is Verdict.FORGED
    assert verdict(nonce) is Verdict.FORGED
    assert verdict(nonce, realm="R", source="192.0.2.1") is Verdict.FORGED
    assert verdict(nonce, keys=(OTHER,), source="192.0.2.1") is Verdict.FORGED
    assert verdict(nonce, keys=(OTHER, OLD, KEY), source="192.0.2.1") is Verdict.GOOD, "after the key was changed"
    assert verdict(nonce, keys=(), source="192.0.2.1") is Verdict.FORGED


def test_realm_and_source_do_not_run_into_each_other() -> None:
    assert verdict(mint(KEY, NOW, 0, realm="r", source="1"), realm="r1") is Verdict.FORGED


@given(st.integers(0, 39), st.characters(codec="ascii"))
def test_no_other_character_anywhere(place: int, character: str) -> None:
    nonce = mint(KEY, NOW, 99, realm="r")
    changed = nonce[:place] + character + nonce[place + 1 :]
    assert (verdict(changed) is Verdict.GOOD) == (changed == nonce)


@given(st.text(max_size=60))
def test_whatever_comes_back_is_judged(text: str) -> None:
    assert verdict(text) is Verdict.FORGED
