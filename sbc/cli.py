"""The ``sbc`` command. Everything heavy is imported by the command that needs it, so that help is there at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sbc.ha.command import app as ha_app
from sbc.importer.app import app as import_app
from sbc.selftest.app import app as selftest_app

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from sbc.config.models import Config

EXIT_OK, EXIT_FAULT, EXIT_USAGE = 0, 1, 2

app = typer.Typer(
    name="sbc",
    help="Portcullis, a Session Border Controller.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich's costs more than all the rest of the start
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigPath = Annotated[
    str,
    typer.Option("-c", "--config", metavar="FILE", envvar="SBC_CONFIG", help="The configuration.", show_default=True),
]
MediaConfigPath = Annotated[
    str,
    typer.Option(
        "-c", "--config", metavar="FILE", envvar="SBC_MEDIA_CONFIG", help="The media node's own.", show_default=True
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Beside = Annotated[
    list[str], typer.Option("--beside", metavar="FILE", help="Of another instance that runs on the same machine.")
]
DEFAULT_CONFIG = "/etc/sbc/sbc.yaml"
DEFAULT_MEDIA_CONFIG = "/etc/sbc/media.yaml"


@app.command()
def run(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Run the SBC until it is stopped (SIGTERM drains, SIGHUP reloads)."""
    from sbc.errors import ConfigError
    from sbc.supervisor import supervisor

    loaded = _load(config, as_json)
    try:
        code = supervisor.run(os.path.abspath(config), loaded)
    except ConfigError as error:
        _fail([f"{config}: {fault}" for fault in error.faults], as_json)
    raise typer.Exit(code)


@app.command()
def check(config: ConfigPath = DEFAULT_CONFIG, beside: Beside = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Check a configuration and name every fault with its line and column."""
    from dataclasses import asdict

    from sbc.config import loader
    from sbc.config.advice import advice
    from sbc.config.beside import clashes
    from sbc.config.source import Fault

    loaded, faults = loader.check(config)
    if loaded is not None:
        found = [f"beside {file}: {clash}" for file in beside for clash in clashes(loaded, _load(file, as_json))]
        faults += [Fault(config, 1, 1, "", clash) for clash in found]
    warnings = advice(loaded) if loaded is not None else []
    if as_json:
        print(json.dumps({"ok": not faults, "faults": [asdict(fault) for fault in faults], "warnings": warnings}))
    else:
        for fault in faults:
            print(fault)
        for warning in warnings:
            print(f"{config}: warning: {warning}")
    if faults or loaded is None:
        raise typer.Exit(EXIT_FAULT)
    if not as_json:
        print(
            f"{config}: good: {len(loaded.realms)} realms, {len(loaded.listeners)} listeners, {len(loaded.peers)} peers"
        )


@app.command()
def status(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show whether the SBC runs, its processes and its calls."""
    _show(_ask(config, "status", as_json), as_json, "status", "nothing to show")


@app.command()
def upgrade(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Let the release that is installed by now take over, process by process, while calls go on."""
    from sbc.supervisor import order

    loaded = _load(config, as_json)
    try:
        told = order.upgrade(loaded.run_dir, say=None if as_json else print)
    except order.NoAnswer as error:
        _fail([str(error)], as_json)
    if as_json:
        print(json.dumps(told))
    elif told["state"] != "done":
        _fail(told["reasons"], as_json)
    if told["state"] != "done":
        raise typer.Exit(EXIT_FAULT)


calls = typer.Typer(help="List the calls that are up or being set up, or do something to one.")
app.add_typer(calls, name="calls", invoke_without_command=True)
CallKey = Annotated[str, typer.Argument(metavar="ID", help="The key of the call, as sbc calls --json shows it.")]


@calls.callback()
def list_calls(context: typer.Context, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the calls that are up or being set up, or do something to one."""
    if context.invoked_subcommand is None:
        _show(_ask(config, "calls", as_json), as_json, "calls", "no calls now; sbc status shows the counters")


@calls.command("record")
def calls_record(
    key: CallKey,
    switch: Annotated[str, typer.Argument(metavar="on|off", help="Begin, or end.")],
    config: ConfigPath = DEFAULT_CONFIG,
    pcap: Annotated[bool, typer.Option("--pcap", help="Keep packets instead of a WAV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Record a call, or end that."""
    if switch not in ("on", "off"):
        raise typer.BadParameter("say on or off", param_hint="on|off")
    answer = _ask(config, "record", as_json, key=key, on=switch == "on", format="pcap" if pcap else "wav")
    if as_json:
        print(json.dumps(answer))
    elif switch == "on":
        print(f"recording into {answer['file']} of the media worker's recordings")
    else:
        print(f"no longer recording; {answer['file']} is complete in a moment" if answer["file"] else "not recorded")


@calls.command("play")
def calls_play(
    key: CallKey,
    leg: Annotated[str, typer.Argument(help="Who is to hear it: a, who called, or b, who was called.")],
    file: Annotated[
        str, typer.Argument(help="A WAV of the media worker's prompts; left out: what is heard ends.")
    ] = "",
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Let one side of a call hear a prompt, once, instead of the other side."""
    answer = _ask(config, "play", as_json, key=key, leg=leg, file=file)
    if as_json:
        print(json.dumps(answer))
    else:
        print(f"{leg} hears {file}" if file else f"{leg} hears the other side")


@calls.command("show")
def calls_show(
    call: Annotated[str, typer.Argument(help="Its key, a beginning of that, or a Call-ID.")],
    config: ConfigPath = DEFAULT_CONFIG,
    seconds: Annotated[int, typer.Option(min=0, max=60, help="So many seconds of quality.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show a call, and how it sounds: what each leg sends as we receive it, and what it says of what we send."""
    answer = _ask(config, "quality", as_json, key=call, samples=seconds)
    if as_json:
        print(json.dumps(answer))
        return
    _show(answer.get("call"), as_json, "call", "nothing is known of this call")
    rows = list(_quality_rows(answer.get("media") or {}))
    _show(rows, as_json, "seconds", "no media were sampled yet")


@calls.command("direct")
def calls_direct(key: CallKey, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Let the two sides of a call exchange media directly; each learns the other's media address."""
    _move_media(key, True, config, as_json)


@calls.command("anchor")
def calls_anchor(key: CallKey, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Relay the media of a call again."""
    _move_media(key, False, config, as_json)


def _move_media(key: str, direct: bool, config: str, as_json: bool) -> None:
    answer = _ask(config, "media_move", as_json, key=key, direct=direct)
    if as_json:
        print(json.dumps(answer))
    elif answer["state"] == "asked":
        print("both sides are asked; sbc calls --json will say where the media go")
    else:
        print("the media go directly" if direct else "the media are relayed")


@app.command()
def registrations(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show where this SBC registers, and whether it is registered there."""
    _show(
        _ask(config, "registrations", as_json),
        as_json,
        "registrations",
        "no peer of this configuration is registered at",
    )


media = typer.Typer(
    help="Media nodes: the media workers of this SBC, and those elsewhere that it uses.", no_args_is_help=True
)
app.add_typer(media, name="media")


@media.command("list")
def media_list(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the media nodes with their state, and why one gets no new calls."""
    _show(_ask(config, "media", as_json), as_json, "media", "no SIP worker answered")


@media.command("drain")
def media_drain(
    node: Annotated[str, typer.Argument(help="The node, as sbc media list names it.")],
    config: ConfigPath = DEFAULT_CONFIG,
    off: Annotated[bool, typer.Option("--off", help="Give it new calls again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a media node no new calls; those that it has go on."""
    answer = _ask(config, "media_drain", as_json, node=node, on=not off)
    if as_json:
        print(json.dumps(answer))
    else:
        print(f"{node} takes new calls again" if off else f"{node} drains: it gets no new calls")


@media.command("run")
def media_run(config: MediaConfigPath = DEFAULT_MEDIA_CONFIG, as_json: AsJson = False) -> None:
    """Run media workers alone, for SBCs on other machines, until stopped; FILE is of its own kind."""
    from sbc.config import loader
    from sbc.errors import ConfigError
    from sbc.supervisor import media_node

    try:
        code = media_node.run(loader.load_media_node(config))
    except ConfigError as error:
        _fail(error.faults, as_json)
    raise typer.Exit(code)


@media.command("keygen")
def media_keygen(
    config: ConfigPath = DEFAULT_CONFIG,
    node: Annotated[bool, typer.Option("--node", help="FILE is that of a media node (sbc media run).")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the public key by which media nodes know this SBC, or with --node by which SBCs know this media node. The
    secret one is made at the first time."""
    from sbc.config import loader
    from sbc.errors import ConfigError
    from sbc.supervisor import folders, media_node

    try:
        loaded = media_node.as_config(loader.load_media_node(config)) if node else loader.load(config)
        folders.prepare(loaded)
        public, _ = folders.media_keys(loaded.state_dir, b"" if node else folders.shared_key(loaded))
    except ConfigError as error:
        _fail(error.faults, as_json)
    print(json.dumps({"public": public.decode()}) if as_json else public.decode())


route = typer.Typer(help="Routes: try them before they meet a call.", no_args_is_help=True)
app.add_typer(route, name="route")


@route.command("test")
def route_test(
    what: Annotated[
        str | None,
        typer.Argument(
            help="A number, a SIP URI, or a file with a SIP message; none: the dry_runs of the configuration."
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    source: Annotated[str, typer.Option("-s", "--source", help="Who sends it: a peer, or address[:port].")] = "",
    answer: Annotated[
        list[str],
        typer.Option(
            metavar="PEER=SAYS",
            help="What a peer answers: 503, 180+200, 180+5s+486, timeout, 302:sip:42@192.0.2.9, busy, 200+9s+bye; "
            "503,200 for one attempt after the other.",
        ),
    ] = [],  # noqa: B006  # typer copies it
    otherwise: Annotated[str, typer.Option(metavar="SAYS", help="What everybody else answers.")] = "180+200",
    expect: Annotated[int | None, typer.Option(help="The final answer expected; 0 for none. Default: any 2xx.")] = None,
    by: Annotated[str, typer.Option(help="The gateway that is expected to answer.")] = "",
    at: Annotated[str, typer.Option(metavar="TIME", help="When: 2026-12-24T18:00. Default: now.")] = "",
    listener: Annotated[str, typer.Option(help="Where it arrives: a realm, or udp:192.0.2.1:5060.")] = "",
    caller: Annotated[str, typer.Option("--from", help="The caller's number.")] = "1000",
    method: Annotated[str, typer.Option(help="Another method than INVITE.")] = "INVITE",
    header: Annotated[list[str], typer.Option(metavar="'NAME: VALUE'", help="A further header.")] = [],  # noqa: B006
    codec: Annotated[list[str], typer.Option(help="A codec that is offered, instead of PCMA and PCMU.")] = [],  # noqa: B006
    calls: Annotated[list[str], typer.Option(metavar="PEER=N", help="Calls that a peer has already.")] = [],  # noqa: B006
    host: Annotated[list[str], typer.Option(metavar="NAME=ADDRESS", help="What a host name stands for.")] = [],  # noqa: B006
    talk: Annotated[float, typer.Option(metavar="SECONDS", help="How long the call lasts.")] = 1.0,
    cancel: Annotated[float, typer.Option(metavar="SECONDS", help="The caller gives up after so long.")] = 0.0,
    routes: Annotated[str, typer.Option(metavar="FILE", help="Other routes than those of the configuration.")] = "",
    ask: Annotated[bool, typer.Option("--ask", help="Let real servers answer look-ups that no script does.")] = False,
    messages: Annotated[bool, typer.Option("--messages", help="Print every message in full.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try a call without making it: the real routes in virtual time, everybody else answers as you say. Prints what
    would be sent where, and why. Exit code 1 where it is not as expected."""
    from sbc.errors import SbcError
    from sbc.simulator import command
    from sbc.simulator.virtual_loop import RestlessRoute

    loaded = _load(config, as_json)
    options: dict[str, Any]  # Any: each option has a type of its own
    options = {"answer": answer, "otherwise": otherwise, "expect": expect, "by": by, "at": at, "listener": listener}
    options |= {"caller": caller, "method": method, "header": header, "codec": codec, "calls": calls, "host": host}
    options |= {"talk": talk, "cancel": cancel, "routes": routes, "ask": ask}
    try:
        if what is None:
            tried = command.try_all(loaded, routes or None, ask=ask)
            command.show_all(tried, as_json=as_json)
            failed = any(one.unmet for one in tried)
        else:
            if not source:
                _fail([f"who sends it? --source names a peer ({', '.join(loaded.peers)}) or an address"], as_json)
            report, unmet = command.try_one(loaded, what, source, options)
            command.show_one(report, unmet, as_json=as_json, messages=messages)
            failed = bool(unmet)
    except (ValueError, SbcError, RestlessRoute) as error:
        _fail(command.sentences(error), as_json)
    except Exception as error:  # of a startup route
        _fail([f"a startup route failed: {sentence}" for sentence in command.sentences(error)], as_json)
    if failed:
        raise typer.Exit(EXIT_FAULT)


app.add_typer(import_app, name="import")
app.add_typer(ha_app, name="ha")
routes_app = typer.Typer(help="Versions of the routes: take the file over, or go back.", no_args_is_help=True)
app.add_typer(routes_app, name="routes")


@routes_app.command("list")
def routes_list(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show which version each SIP worker serves, and how many calls it has on which."""
    _show(_ask(config, "routes", as_json), as_json, "routes", "no SIP worker answered")


@routes_app.command("versions")
def routes_versions(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the versions that are kept, and why the last reload was refused, if it was."""
    answer = _ask(config, "routes_versions", as_json)
    _show(answer, as_json, "versions", "the built-in routes serve; they have no versions")
    if not as_json and answer["refused"]:
        print("the last reload was refused:")
        for reason in answer["refused"]:
            print(f"  {reason}")


@routes_app.command("reload")
def routes_reload(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Take configuration and routes over as they are in their files now, once they are proven; calls that are up end
    with the version that they began with."""
    _changed(_ask(config, "routes_reload", as_json, timeout_s=180.0), as_json)


@routes_app.command("rollback")
def routes_rollback(
    version: Annotated[int, typer.Argument(help="As sbc routes versions lists it.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Let a former version serve again. It stays until the file changes, or sbc routes reload."""
    _changed(_ask(config, "routes_rollback", as_json, timeout_s=180.0, version=version), as_json)


def _changed(answer: Any, as_json: bool) -> None:  # Any: JSON values
    serves = f"version {answer['serves']}" if answer["serves"] else "the built-in routes"
    if as_json:
        print(json.dumps(answer))
    elif answer["ok"]:
        print(f"{serves} serves" if answer["serves"] else f"{serves} serve")
    else:
        for reason in answer["refused"]:
            print(f"sbc: {reason}", file=sys.stderr)
        print(f"sbc: refused; {serves} serves on" if answer["serves"] else "sbc: refused", file=sys.stderr)
    if not answer["ok"]:
        raise typer.Exit(EXIT_FAULT)


@app.command()
def codecs(as_json: AsJson = False) -> None:
    """Which codecs can be transcoded here, and what is missing for the others."""
    from importlib.util import find_spec

    from media.protocol import OPTIONAL_CODECS

    missing = {name: package for name, (module, package) in OPTIONAL_CODECS.items() if find_spec(module) is None}
    if as_json:
        print(json.dumps({name: name not in missing for name in ("PCMA", "PCMU", *OPTIONAL_CODECS)}))
        return
    print("PCMA    built in\nPCMU    built in")
    for name in OPTIONAL_CODECS:
        package = missing.get(name)
        print(
            f"{name:8}" + (f"not built: install the Debian package {package}, then ./dev setup" if package else "built")
        )


@app.command()
def demo(as_json: AsJson = False) -> None:
    """Place a real call with audio through a real SBC on loopback, and show what happened."""
    from sbc.demo import main as run_demo

    raise typer.Exit(run_demo(as_json=as_json))


app.add_typer(selftest_app, name="selftest")


# --- shared by the commands


def _load(path: str, as_json: bool) -> Config:
    from sbc.config import loader
    from sbc.errors import ConfigError

    try:
        return loader.load(path)
    except ConfigError as error:
        _fail(error.faults, as_json)


def _fail(sentences: list[str], as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps({"ok": False, "errors": sentences}))
    else:
        for sentence in sentences:
            print(f"sbc: {sentence}", file=sys.stderr)
    raise typer.Exit(EXIT_FAULT)


def _ask(config: str, method: str, as_json: bool, *, timeout_s: float = 5.0, **params: Any) -> Any:  # Any: JSON values
    from sbc.management import client

    path = os.path.join(_load(config, as_json).run_dir, "control.sock")
    try:
        return client.ask(path, method, params, timeout_s=timeout_s)
    except client.NotRunning as error:
        _fail([f"no SBC is running with this configuration ({error}): start it with sbc run -c {config}"], as_json)
    except client.ManagementError as error:
        _fail([str(error)], as_json)


def _show(result: Any, as_json: bool, title: str, empty: str) -> None:  # Any: JSON values
    if as_json:
        print(json.dumps(result))
        return
    from rich.console import Console

    found = result.get(title, result) if isinstance(result, dict) else result
    if not found:
        print(empty)
        return
    console = Console(soft_wrap=False)
    for table in _tables(found, title):
        console.print(table)
    if isinstance(result, dict):
        if isinstance(found, list) and result.get("total", 0) > len(found):
            print(f"{result['total'] - len(found)} more; sbc {title} --json shows up to 10,000")
        for silent in result.get("no_answer", []):
            print(f"sbc: no answer from {silent}", file=sys.stderr)


def _quality_rows(media: dict[str, Any]) -> Iterator[dict[str, Any]]:  # Any: JSON values
    """One row for each second that was sampled, then one for all, of each stream of each leg. Times in milliseconds;
    what is of another end is as that one reports."""
    columns = ("age_s", "received", "lost", "jitter", "mos", "sent", "lost_there", "jitter_there", "mos_there", "rtt")
    for leg, streams in media.items():
        for number, stream in enumerate(streams):
            told = stream.get("quality")
            if not told:
                continue
            name = leg if len(streams) == 1 else f"{leg}.{number}"
            for sample in told.get("samples", ()):
                yield {"leg": name, **{column: value or None for column, value in zip(columns, sample, strict=True)}}
            received, reported = told.get("received") or {}, told.get("reported") or {}
            yield {
                "leg": name,
                "age_s": "all",
                "received": stream.get("packets_in"),
                "lost": received.get("lost"),
                "jitter": received.get("jitter_ms"),
                "mos": received.get("mos"),
                "sent": stream.get("packets_out"),
                "lost_there": reported.get("lost"),
                "jitter_there": reported.get("jitter_ms"),
                "mos_there": reported.get("mos"),
                "rtt": told.get("rtt_avg_ms"),
            }


# The columns that fit a terminal of 80 characters; --json has them all.
COLUMNS = {
    "calls": ("key", "state", "since", "a_peer", "b_peer", "from", "to"),
    "seconds": (
        "leg",
        "age_s",
        "received",
        "lost",
        "jitter",
        "mos",
        "sent",
        "lost_there",
        "jitter_there",
        "mos_there",
        "rtt",
    ),
    "registrations": ("peer", "state", "since", "expires_s", "next_s", "reason"),
    "routes": ("worker", "version", "calls"),
    "versions": ("version", "serves", "taken", "by", "file"),
    "media": ("node", "worker", "state", "sessions", "opened", "reason"),
    "processes": ("name", "pid", "state", "uptime_s", "restarts", "cpu_s", "memory_bytes"),
}


def _tables(found: Any, title: str) -> list[Table]:  # Any: JSON values
    """A list of objects as one table; an object as a table of its plain values and one more for each list in it."""
    from rich.table import Table

    if isinstance(found, list):
        rows = [row if isinstance(row, dict) else {title: row} for row in found]
        columns = [column for column in COLUMNS.get(title, rows[0]) if column in rows[0]]
        table = Table(title=f"{len(rows)} {title}", title_justify="left", box=None, header_style="bold")
        for column in columns:
            table.add_column(column.removesuffix("_bytes"))
        for row in rows:
            table.add_row(*(_cell(row.get(column), column) for column in columns))
        return [table]
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    more = []
    for name, value in found.items():
        if isinstance(value, list | dict) and value:
            more += _tables(value, name)
        else:
            table.add_row(name, _cell(value, name))
    return [table, *more] if table.row_count else more


def _cell(value: Any, name: str) -> Text:  # Any: a JSON value
    """A value as it is shown: text of a caller cannot drive the terminal, times are local, nothing is a dash."""
    import time

    from rich.text import Text

    from sbc.telemetry.log import escape

    if value is None or value == "" or value == []:
        return Text("-", style="dim")
    if name in ("since", "answered", "started", "taken") and isinstance(value, int | float) and value > 1e9:
        return Text(time.strftime("%H:%M:%S", time.localtime(value)))
    if name.endswith("_bytes") and isinstance(value, int):
        return Text(f"{value / 2**20:.1f} MiB")
    if isinstance(value, list | dict):
        return Text(escape(json.dumps(value)))
    return Text(escape(f"{value:.1f}" if isinstance(value, float) else str(value)))


def main() -> None:
    """The entry point; an interrupted command says nothing more."""
    try:
        app(prog_name="sbc")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAULT)
