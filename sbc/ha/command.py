"""The commands ``sbc ha``."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(help="A pair of nodes: who is active, and a planned switch.", no_args_is_help=True)

ConfigPath = Annotated[
    str, typer.Option("-c", "--config", metavar="FILE", envvar="SBC_CONFIG", help="The configuration.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_CONFIG = "/etc/sbc/sbc.yaml"
SWITCHED_S = 5.0


@app.command("status")
def status(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show role, token, lease and heartbeats, and whether the other node could take over. Exit code 0: it could; 1: it
    could not, and why; 3: it could, and this node is the passive one."""
    found = _ask(config, "status", as_json)
    if as_json:
        print(json.dumps(found))
    else:
        for line in lines(found):
            print(line)
    if not found["ready"]:
        raise typer.Exit(1)
    raise typer.Exit(0 if found["role"] == "active" else 3)


def lines(found: dict[str, Any]) -> list[str]:  # Any: JSON values
    """A status as text."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["since"]))
    shown = [
        f"{found['name']} is {found['role']} ({found['state']}) since {since}: {found['why']}",
        f"token {found['token']}, decided by {found['decided_by']}"
        + (f", {found['preferred']} is preferred" if found["preferred"] else ""),
        f"lease: {found['lease']['state']}"
        + (f"; the store {found['lease']['store']}" if "store" in found["lease"] else ""),
    ]
    if found["replication"] is not None:
        shown.append(f"replication: {found['replication']}")
    shown.append(f"media: {_media(found['media'])}")
    peer = found["peer"]
    shown.append(
        "peer: never heard"
        if peer is None
        else f"peer: {peer['name']} is {peer['state']}, token {peer['token']}, {'' if peer['ready'] else 'not '}ready"
    )
    for path in found["heartbeats"]:
        age = "never heard" if path["age_s"] is None else f"heard {path['age_s']} s ago"
        shown.append(
            f"path {path['path']}: {path['local']} to {path['peer']}: {age}{'' if path['heard'] else ', SILENT'}"
        )
    shown += [
        f"witness: {router['address']} {'answers' if router['heard'] else 'does not answer, SILENT'}"
        for router in found["witness"]
    ]
    shown += [f"address: {address}" for address in found["addresses"]]
    reasons = "; ".join(found["why_not"])
    shown.append("HA ready: yes" if found["ready"] else f"HA ready: no, because {reasons}")
    return shown


def _media(found: dict[str, Any]) -> str:  # Any: JSON values
    if found["role"] == "follows":
        return f"{found['sessions']} sessions kept ready" if found["synced"] else "not all sessions are here yet"
    return "the other node is told of all sessions" if found["synced"] else "the other node does not have all sessions"


@app.command("switch")
def switch(
    config: ConfigPath = DEFAULT_CONFIG,
    preferred: Annotated[
        bool,
        typer.Option("--preferred", help="To the node that has ha.prefers, asked of either; it may be active already."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hand over to the other node at once, if it is ready; asked of the active node. Calls go on."""
    answer = _ask(config, "switch", as_json, {"preferred": preferred})
    began = time.monotonic()
    while answer["from"] != answer["to"]:
        found = _ask(config, "status", as_json)
        peer = found["peer"] or {}
        states = {found["name"]: found["role"], peer.get("name"): peer.get("state")}
        if states.get(answer["to"]) == "active" and states.get(answer["from"]) != "active":
            break
        if time.monotonic() - began > SWITCHED_S:
            _fail([f"{answer['to']} did not take over within {SWITCHED_S:.0f} s: see sbc ha status on both"], as_json)
        time.sleep(0.02)
    if as_json:
        print(json.dumps(answer))
    elif answer["from"] == answer["to"]:
        print(f"{answer['to']} is active already")
    else:
        print(f"{answer['to']} is active, {answer['from']} stands by")


@app.command("active")
def active(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Make this node the active one without regard to the other: for the notify script of keepalived, or where the
    other node is known to be dead and this one cannot know."""
    answer = _ask(config, "active", as_json)
    print(json.dumps(answer) if as_json else f"{answer['name']} takes over")


@app.command("standby")
def standby(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Make this node passive, where keepalived decides."""
    answer = _ask(config, "standby", as_json)
    print(json.dumps(answer) if as_json else f"{answer['name']} stands by")


@app.command("keygen")
def keygen(file: Annotated[str, typer.Argument(help="Where to write the key that both nodes share.")]) -> None:
    """Make the key of a pair; copy it to the other node over a safe way."""
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        _fail([f"{file}: {(error.strerror or str(error)).lower()}"], False)
    with os.fdopen(fd, "w") as opened:
        opened.write(os.urandom(32).hex() + "\n")
    print(f"{file}: copy it to the other node, and name it there as ha.key_file too")


def _ask(config: str, method: str, as_json: bool, params: dict[str, Any] | None = None) -> Any:  # Any: JSON values
    from sbc.config import loader
    from sbc.errors import ConfigError
    from sbc.ha.slot import SOCKET
    from sbc.management import client

    try:
        loaded = loader.load(config)
    except ConfigError as error:
        _fail(list(error.faults), as_json)
    if loaded.ha is None:
        _fail([f"{config}: this node is alone: it has no ha"], as_json)
    try:
        return client.ask(os.path.join(loaded.run_dir, SOCKET), method, params)
    except client.NotRunning as error:
        _fail([f"no pair runs with this configuration ({error}): start it with sbc run -c {config}"], as_json)
    except client.ManagementError as error:
        _fail([str(error)], as_json)


def _fail(sentences: list[str], as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps({"ok": False, "errors": sentences}))
    else:
        for sentence in sentences:
            print(f"sbc: {sentence}", file=sys.stderr)
    raise typer.Exit(1)
