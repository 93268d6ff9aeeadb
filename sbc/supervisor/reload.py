"""What a reload may not change: it lives in sockets, processes and memory that only a restart makes anew."""

from __future__ import annotations

from sbc.config.models import Config

MEDIA_WORKERS = "workers.media: a change takes a restart, since media workers share out the RTP ports"
ALONE = (
    ". Without one, a media node (sbc media run) that is added to media_sets takes more, and sbc media drain takes less"
)
IN_A_PAIR = (
    ", and must be the same on both nodes of a pair: restart the passive one with it, then sbc ha switch at a quiet "
    "time, then restart the other one (docs/upgrade.md says what that does to calls)"
)
FIXED = ("node", "run_dir", "state_dir", "user", "store", "ha", "database", "media", "management")


def restart_only(old: Config, new: Config) -> list[str]:
    """A sentence for each change that takes a restart; empty when ``new`` can be taken over as it is."""
    refused = [f"{key}: a change takes a restart" for key in FIXED if getattr(old, key) != getattr(new, key)]
    if old.workers.media != new.workers.media:
        refused.append(MEDIA_WORKERS + (ALONE if new.ha is None else IN_A_PAIR))
    if old.cdr.spool != new.cdr.spool:
        refused.append("cdr.spool: a change takes a restart")
    if old.listeners != new.listeners:
        refused.append("realms: a change of listeners takes a restart")
    refused += [
        f"realms.{name}: a change of media or nat takes a restart"
        for name in sorted(old.realms.keys() & new.realms.keys())
        if (old.realms[name].media, old.realms[name].nat) != (new.realms[name].media, new.realms[name].nat)
    ]
    return refused
