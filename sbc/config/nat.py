"""What a realm says of NAT before those in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _off(value: Any) -> Any:  # Any: whatever the YAML held
    return "never" if value in ("off", False) else value


# Whether those in a realm are behind NAT: as their messages tell, all of them, or nobody (which ``off`` says, too)
Nat = Annotated[Literal["auto", "always", "never"], BeforeValidator(_off)]


class KeepAlive(BaseModel):
    """Pings to phones of a realm that registered through this node, so that NAT keeps its way in open; ``true`` takes
    all from here. Only OPTIONS are answered: after ``misses`` in a row without an answer a binding is forgotten."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["crlf", "options", "udp"] = "crlf"
    interval_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    misses: Annotated[int, Field(ge=1, le=100)] = 3
    only_nated: bool = True

    @model_validator(mode="before")
    @classmethod
    def _from_flag(cls, value: Any) -> Any:  # Any: whatever the YAML held
        return {} if value is True else value


def _unless_false(value: Any) -> Any:  # Any: whatever the YAML held
    return None if value is False else value


Pings = Annotated[KeepAlive | None, BeforeValidator(_unless_false)]
