"""What a route may cost the worker that it runs in."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class RoutesBudget(BaseModel):
    """A route that takes longer is ended; 0: never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step_ms: Annotated[float, Field(ge=0, le=2000)] = 20.0  # without waiting: nobody else is served meanwhile
    total_s: Annotated[float, Field(ge=0, le=3600)] = 5.0  # with all its waits; timer and startup routes have no end
