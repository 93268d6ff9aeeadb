"""Reply codes as the configuration has them: which refusal of a call is told as which."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from sbc.config.header_rules import Statuses, status_range

# These say what the sender of the request must do, or that it has given up itself: never told as something else, and
# never told instead of something else.
NEVER = frozenset({401, 407, 415, 416, 420, 421, 422, 423, 481, 482, 487, 489, 491, 493, 494})


class ReplyCode(BaseModel):
    """What is told: a status alone, or with a phrase and a Q.850 cause (RFC 3326); 0: the cause that came, if any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Annotated[int, Field(ge=400, le=699)]
    reason: str = ""
    cause: Annotated[int, Field(ge=0, le=127)] = 0

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:  # Any: whatever the YAML held
        return {"status": value} if isinstance(value, int | str) else value

    @field_validator("status")
    @classmethod
    def _possible(cls, value: int) -> int:
        if value in NEVER:
            raise ValueError(f"{value} asks something of the caller that only we can know: it is never told instead")
        return value

    @field_validator("reason")
    @classmethod
    def _phrase(cls, value: str) -> str:
        if any(c in value for c in "\r\n\0"):
            raise ValueError("a phrase with a line end could smuggle in a header")
        return value


def _table(value: Any) -> Any:  # Any: whatever the YAML held
    if not isinstance(value, dict):
        return value
    for key in value:
        low, high = status_range(key)
        if low < 400:
            raise ValueError(f"{key}: only refusals (400 to 699) are told otherwise")
        if low == high and low in NEVER:
            raise ValueError(f"{key} asks something of the caller, or is its own doing: it is told as it is")
    return value


ReplyTable = Annotated[dict[str, ReplyCode], BeforeValidator(_table)]


class ReplyTables(BaseModel):
    """Names of tables: for what comes from the peer, and for what it is told."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    inbound: Annotated[str, Field(alias="in")] = ""
    outbound: Annotated[str, Field(alias="out")] = ""


def failover(value: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Which failures another target may be tried for. Raises ValueError."""
    for low, high in value:
        if low < 400 or high > 599:
            raise ValueError("only 400 to 599 let another target be tried: a 6xx is final (RFC 3261 §16.7)")
    return value


__all__ = ["NEVER", "ReplyCode", "ReplyTable", "ReplyTables", "Statuses", "failover"]
