"""Whose media profile a leg has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sbc.b2bua.settings import MediaProfile

if TYPE_CHECKING:
    from sbc.b2bua.call import Call
    from sbc.b2bua.core import Core
    from sbc.b2bua.leg import Leg

PROMPT: Final = "prompt"  # the leg that stands for us where A hears an announcement
_OURSELVES: Final = MediaProfile(srtp="off")


def profile_of(core: Core, call: Call, leg: Leg) -> MediaProfile | None:
    """What is to be minded with media of this side; None for nothing."""
    return profile_under(core, call, leg, call.media_profile or "")


def profile_under(core: Core, call: Call, leg: Leg, caller: str) -> MediaProfile | None:
    """The same where the media of the A side are relayed under the profile ``caller``."""
    if leg.name == PROMPT:
        return _OURSELVES
    profiles = core.settings.media_profiles
    as_caller = leg is call.a and not leg.came
    return profiles.named.get(caller) if as_caller else profiles.of_branch(leg.peer, leg.profile)
