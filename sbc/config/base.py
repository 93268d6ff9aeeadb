"""What all parts of the configuration are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

HOST = r"\[[0-9a-fA-F:.]+\]|[0-9.]+"  # an address as it stands before a port


class Model(BaseModel):
    """Base: frozen, strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)
