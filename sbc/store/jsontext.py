"""JSON from values that came off the wire: text may hold octets that are no UTF-8 (surrogateescape)."""

from __future__ import annotations

from typing import Any

import orjson


def to_json(value: Any) -> bytes:  # Any: JSON values, or what can be shown as such
    """``value`` as JSON, never an error: what JSON cannot hold is written as text, bad octets as ``\\xff``."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_encodable(value, 0))


def _encodable(value: Any, depth: int) -> Any:  # Any: JSON values
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return int(value)
    if depth < 20:
        if isinstance(value, dict):
            return {_encodable(str(name), depth): _encodable(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_encodable(item, depth + 1) for item in value]
    return str(value).encode("utf-8", "replace").decode("utf-8")
