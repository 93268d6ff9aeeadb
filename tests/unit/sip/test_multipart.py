"""Bodies of several parts: whatever they hold, the parts are found, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sbc.errors import SipSyntaxError
from sbc.sip.multipart import MAX_PARTS, is_multipart, parts_of, replaced

BOUNDARY = b"x-1"
TYPE = "multipart/mixed;boundary=x-1"
PIECES = [b"--x-1", b"--", b"\r\n", b"--x-1--", b"x", b":", b" ", b"Content-Type: a/b"]


def build(contents: list[bytes]) -> bytes:
    return b"".join(b"--" + BOUNDARY + b"\r\nContent-Type: a/b\r\n\r\n" + c + b"\r\n" for c in contents) + b"--x-1--"


@given(st.lists(st.binary(max_size=200).filter(lambda c: BOUNDARY not in c), min_size=1, max_size=MAX_PARTS))
def test_every_part_is_found_and_replaced(contents: list[bytes]) -> None:
    body = build(contents)
    parts = parts_of(TYPE, body)
    assert [body[part.start : part.end] for part in parts] == contents
    for number, part in enumerate(parts):
        changed = replaced(body, part, b"new")
        assert changed == build([*contents[:number], b"new", *contents[number + 1 :]])


@hypothesis_settings(max_examples=500)
@given(
    st.lists(
        st.sampled_from([b"--x-1", b"--", b"\r\n", b"--x-1--", b"x", b":", b" ", b"Content-Type: a/b"]), max_size=40
    )
)
def test_any_octets_are_parts_or_a_syntax_error(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    try:
        parts = parts_of(TYPE, body)
    except SipSyntaxError:
        return
    at = 0
    for part in parts:
        assert at <= part.start <= part.end <= len(body)
        at = part.end


def test_one_too_many() -> None:
    with pytest.raises(SipSyntaxError):
        parts_of(TYPE, build([b""] * (MAX_PARTS + 1)))


@pytest.mark.parametrize(
    ("content_type", "found"),
    [
        ('multipart/mixed; x=y; boundary="x-1"', True),
        ("Multipart/Mixed;BOUNDARY=x-1;type=a", True),
        ("multipart/mixed; boundary=", False),
        ("multipart/mixed", False),
        (f"multipart/mixed; boundary={'x' * 71}", False),
    ],
)
def test_the_boundary(content_type: str, found: bool) -> None:
    assert is_multipart(content_type)
    if found:
        assert parts_of(content_type, build([b"1"]))[0].type == "a/b"
    else:
        with pytest.raises(SipSyntaxError):
            parts_of(content_type, build([b"1"]))
