"""What a supervisor of another release is given: all that the keeper has, as descriptors and a description in JSON.

A supervisor that is forked from the keeper has the keeper's code. One of the release that is installed by now begins
in an interpreter of its own, and finds here what a fork would have left it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sbc import __version__
from sbc.b2bua import records
from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.supervisor import folders
from sbc.supervisor.accepted import AcceptedConfig
from sbc.supervisor.kept import Kept
from sbc.supervisor.lifeline import Lifeline
from sbc.supervisor.members import Entries, Estate, Legacy
from sbc.supervisor.notify import Notify
from sbc.supervisor.resize import SeatSockets
from sbc.supervisor.roll import Roll, size_of
from sbc.supervisor.shared import Shared
from sbc.supervisor.signals import HANDLED
from sbc.supervisor.sockets import SlotSockets, text

FORMAT = 1  # of the description and of everything in shared memory; a release with another one takes a restart
Description = dict[str, Any]  # Any: JSON values


def describe(estate: Estate, kept: Kept) -> Description:
    """Everything."""
    return {
        "format": FORMAT,
        "version": __version__,
        "records": records.FORMAT,
        "config_path": estate.config_path,
        "facts": facts(estate.config),
        "shared": estate.shared.fd,
        "places": estate.shared.places,
        "sockets": [
            [[sock.fileno() for sock in row.listeners], row.inbox.fileno(), row.hand_over.fileno()]
            for row in estate.sockets
        ],
        "media": estate.media_memory,
        "pairs": [store.theirs.fileno() for store in estate.pair_stores],
        "bells": {} if estate.cell is None else estate.cell.bells,
        "lock": kept.lock.fd,
        "lifeline": kept.lifeline.end,
        "accepted": kept.accepted.fd,
        "notify": kept.notify.describe(),
        "rows": kept.roll.rows,
        "seats": kept.seat_sockets.theirs.fileno(),
    }


def facts(config: Config) -> dict[str, Any]:  # Any: JSON values
    """What of a configuration lives in sockets and memory: another release must read the same in it."""
    return {
        "node": config.node,
        "run_dir": config.run_dir,
        "state_dir": config.state_dir,
        "user": config.user,
        "store": str(config.store),
        "ha": config.ha is not None,
        "listeners": [text(listen) for _, listen in config.listeners],
        "media": {name: list(realm.media.ports) for name, realm in config.realms.items()},
    }


def spawn(description: Description, word: str, output: int = -1) -> int:
    """Begin :mod:`sbc.supervisor.successor` of the installed release; its pid. ``output``: where its standard output
    and errors go, other than ours. Raises OSError."""
    fd = os.memfd_create("sbc-description")  # inherited
    kept = [fd for fd in _descriptors(description) if not os.get_inheritable(fd)]
    try:
        os.write(fd, json.dumps(description).encode())
        os.set_inheritable(fd, True)
        for one in kept:
            os.set_inheritable(one, True)
        # -P: what lies in the folder that we were started in is not the product.
        words = [sys.executable, "-P", "-m", "sbc.supervisor.successor", word, str(fd)]
        actions = [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)] if output >= 0 else []
        return os.posix_spawn(sys.executable, words, os.environ, file_actions=actions, setsigmask=(), setsigdef=HANDLED)
    finally:
        for one in kept:
            os.set_inheritable(one, False)
        os.close(fd)


def read(fd: int) -> Description:
    """What :func:`spawn` has written."""
    found: Description = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    for one in _descriptors(found):
        os.set_inheritable(one, False)
    return found


def objections(description: Description, config: Config | None, faults: Sequence[str], entries: Entries) -> list[str]:
    """Why this release cannot go on with what the running one has; a sentence each."""
    found = [f"it refuses the configuration: {fault}" for fault in faults]
    if description["format"] != FORMAT:
        found.append("it has other formats of the memory that all processes share: it takes a restart")
        return found
    if description["records"] > records.FORMAT:
        found.append("its records of calls are older than those of the running release: it takes a restart")
    if any(entries.segment.fault(fd) for fd in description["media"]):
        found.append("its memory of media has another shape, so calls would have no audio: it takes a restart")
    if config is not None:
        mine, theirs = facts(config), description["facts"]
        found += [f"{name}: a change takes a restart" for name in mine if mine[name] != theirs.get(name)]
    return found


def rebuild(description: Description, config: Config, entries: Entries) -> tuple[Estate, Kept]:
    """The estate and what is kept, made of what is there. Raises ConfigError."""
    try:
        legacy = Legacy(
            Shared(description["shared"], {name: (at, size) for name, (at, size) in description["places"].items()}),
            [
                SlotSockets([_socket(fd) for fd in listeners], _socket(inbox), _socket(hand_over))
                for listeners, inbox, hand_over in description["sockets"]
            ],
            description["media"],
            [_socket(fd) for fd in description["pairs"]],
            description["bells"],
        )
        keys = folders.media_keys(config.state_dir, folders.shared_key(config))
        estate = Estate(
            config, description["config_path"], folders.shard_key(config), entries, keys, lasting=False, legacy=legacy
        )
        rows = description["rows"]
        if len(estate.members) + 1 != rows:
            raise ConfigError([f"the node has {rows - 1} places for processes, not {len(estate.members)}"])
        lifeline = Lifeline(description["lifeline"])
        kept = Kept(
            folders.Lock.of(description["lock"]),
            lifeline,
            Roll(rows, estate.shared.map("roll", size_of(rows))),
            AcceptedConfig(fd=description["accepted"]),
            Notify.of(description["notify"]),
            SeatSockets(_socket(description["seats"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError([f"what the running release has is not what this one expects: {error!r}"]) from error
    estate.orphaned = lifeline.is_cut
    return estate, kept


def _socket(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def _descriptors(description: Description) -> list[int]:
    found: list[int] = [description[name] for name in ("shared", "lock", "lifeline", "accepted", "seats")]
    for listeners, inbox, hand_over in description["sockets"]:
        found += [*listeners, inbox, hand_over]
    found += [*description["media"], *description["pairs"], *description["bells"].values()]
    found += description["notify"]["fds"]
    return found


def end(pid: int) -> None:
    """A process of :func:`spawn` is wanted no more."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
