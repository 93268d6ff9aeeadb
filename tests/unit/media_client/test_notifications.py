"""Notifications off the wire."""

from __future__ import annotations

import pytest

from sbc.media_client.client import decode_notification


def test_a_notification_is_an_object_that_names_its_event() -> None:
    assert decode_notification(b'{"event":"timeout","session":"s"}') == {"event": "timeout", "session": "s"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"event":5}', b"\xff"])
def test_anything_else_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_notification(body)
