"""Dry runs of the configuration: what the routes must do before they serve."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class DryRun(BaseModel):
    """A call that the routes must treat as it says, tried in a dry run by ``sbc route test`` and before every reload.

    ``answers``: what peers answer to each attempt, such as ``503``, ``180+200``, ``5s+486``, ``timeout``, or
    ``503,200`` for the first and the further ones; all others answer ``otherwise``. ``lookups``: what its routes find
    where they look something up, before what ``lookups.answers`` of the configuration says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    call: Annotated[str, Field(min_length=1)]  # a number or a SIP URI
    source: Annotated[str, Field(min_length=1)]  # a peer, or address[:port]
    listener: str = ""  # a realm, or transport:address:port; empty: the first one where the source is a peer
    caller: str = "1000"  # user part of From
    method: Annotated[str, Field(pattern=r"^[A-Z]+$")] = "INVITE"
    headers: dict[str, str] = {}
    answers: dict[str, str] = {}
    otherwise: str = "180+200"
    at: datetime | None = None  # local time, unless it names a zone; none: now
    codecs: list[str] = []  # offered; empty: PCMA and PCMU
    lookups: dict[str, Any] = {}  # Any: JSON values of the operator's
    calls: dict[str, Annotated[int, Field(ge=0, le=100_000)]] = {}  # that peers have already
    cancel_s: Annotated[float | None, Field(gt=0)] = None  # the caller gives up after so long
    expect: Annotated[int, Field(ge=0, le=699)] = 200  # the final answer; 0: none
    by: str = ""  # the gateway that answers; empty: any

    @field_validator("answers", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:  # Any: whatever the YAML held
        """503 is as good as "503"."""
        if not isinstance(value, dict):
            return value
        return {name: str(said) if isinstance(said, int) else said for name, said in value.items()}
