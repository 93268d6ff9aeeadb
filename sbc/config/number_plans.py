"""Number plans as the configuration has them: how the numbers of a peer are written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class NumberPlan(BaseModel):
    """How a peer writes telephone numbers, to be read as E.164 where they come in, and to be written so where they go
    out. ``area`` none: what has no prefix is not understood; empty: it is a national number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    country: str  # country code: "49"
    area: str | None = None  # of numbers without any prefix
    international: str = "00"  # before the country code
    national: str = "0"  # before the area code
    towards: Literal["e164", "national", "international", "as_is"] = "e164"  # what the peer gets
    plus: bool = True  # numbers in full have a + before them; false: they come and go without
    short_digits: Annotated[int, Field(ge=0, le=10)] = 6  # up to so many: extensions, services, emergency; left alone
    keep: list[str] = []  # further numbers that are left alone

    @field_validator("country", "area", "international", "national")
    @classmethod
    def _digits(cls, value: str | None) -> str | None:
        if value and not (value.isascii() and value.isdigit() and len(value) <= 8):
            raise ValueError(f"'{value}' should be digits only")
        return value

    @field_validator("keep")
    @classmethod
    def _numbers(cls, value: list[str]) -> list[str]:
        for number in value:
            if not (number.isascii() and number.isdigit()):
                raise ValueError(f"'{number}' should be digits only")
        return value

    @model_validator(mode="after")
    def _sound(self) -> NumberPlan:
        if not 1 <= len(self.country) <= 3 or self.country.startswith("0"):
            raise ValueError(f"country: '{self.country}' is no country code, such as \"49\"")
        if self.towards == "international" and not self.international:
            raise ValueError("towards: international takes the prefix that such numbers have: international")
        return self
