"""The supervisor of a release that was installed while the former one runs: ``python -m sbc.supervisor.successor``, run
by the keeper. With the word ``try`` it only says whether it could, and why not."""

from __future__ import annotations

import os
import sys

from sbc.config import loader
from sbc.errors import ConfigError


def main(word: str, fd: int) -> int:
    """The exit code."""
    from sbc.supervisor import inheritance
    from sbc.supervisor.members import real_entries

    description = inheritance.read(fd)
    entries = real_entries()
    config, faults = loader.check(description["config_path"])
    found = inheritance.objections(description, config, [str(fault) for fault in faults], entries)
    if word == "try":
        _load_the_rest()
        for sentence in found:
            print(sentence)
        return 1 if found else 0
    if config is None or found:
        raise ConfigError(found)
    estate, kept = inheritance.rebuild(description, config, entries)
    from sbc.supervisor.supervisor import live_on

    return live_on(estate, kept)


def _load_the_rest() -> None:
    """What workers import once they have begun."""
    import sbc.database.cdr
    import sbc.database.engine
    import sbc.management.api
    import sbc.management.cdr_writer
    import sbc.management.certificates
    import sbc.management.metrics
    import sbc.management.quality_metrics
    import sbc.simulator.command  # noqa: F401


if __name__ == "__main__":
    try:
        status = main(sys.argv[1], int(sys.argv[2]))
    except ConfigError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
