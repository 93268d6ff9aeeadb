"""What a reload may not change: it lives in sockets, processes and memory that only a restart makes anew."""

from __future__ import annotations

from sbc.config.models import Config

FIXED = ("node", "run_dir", "state_dir", "user", "store", "ha", "database", "media", "management")


def restart_only(old: Config, new: Config) -> list[str]:
    """A sentence for each change that takes a restart; empty when ``new`` can be taken over as it is."""
    refused = [f"{key}: a change takes a restart" for key in FIXED if getattr(old, key) != getattr(new, key)]
    if old.workers.media != new.workers.media:
        refused.append(
            "workers.media: a change takes a restart, since media workers share out the RTP ports"
            + (", and must be the same on both nodes of a pair" if new.ha is not None else "")
        )
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
