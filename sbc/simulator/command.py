"""``sbc route test``: one trial from the command line, or all dry runs of the configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sbc.config.dry_runs import DryRun
from sbc.config.models import Config
from sbc.routing.routes import Routes
from sbc.simulator.dry_run import Trial, run
from sbc.simulator.party import CODECS
from sbc.simulator.report import Report
from sbc.simulator.stage import Stage
from sbc.simulator.trace import faults, phrase


@dataclass(frozen=True, slots=True)
class Expected:
    """What a dry run must come to: ``status`` 0 is no answer, None any 2xx; ``by`` '' is any gateway."""

    status: int | None = None
    by: str = ""

    def unmet(self, report: Report) -> str:
        """Why a report is not what was expected, '' where it is."""
        got = phrase(report.status, report.reason) if report.status else "no answer"
        if self.status is None and not report.is_answered:
            return f"expected that the call is answered, got {got}"
        if self.status is not None and report.status != self.status:
            return f"expected {phrase(self.status) if self.status else 'no answer'}, got {got}"
        if self.by and report.by != self.by:
            return f"expected an answer by {self.by}, got one by {report.by or 'nobody'}"
        return ""


def trial_of(given: DryRun) -> tuple[Trial, Expected]:
    """A dry run of the configuration."""
    trial = Trial(
        given.source,
        given.call,
        listener=given.listener,
        caller=given.caller,
        method=given.method,
        headers=tuple(given.headers.items()),
        codecs=tuple(given.codecs) or CODECS,
        answers=given.answers,
        otherwise=given.otherwise,
        at_s=given.at.timestamp() if given.at is not None else None,
        present=given.calls,
        cancel_s=given.cancel_s,
        lookups=given.lookups,
    )
    return trial, Expected(given.expect, given.by)


def message_of(path: str) -> bytes:
    """The message in a file as it goes over the wire: lines end in CRLF, and Content-Length is that of the body.

    An editor leaves neither. Octets without an empty line are taken as a head without body.
    """
    with open(path, "rb") as file:
        data = file.read()
    head, _, body = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    lines = head.strip(b"\n").split(b"\n")
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in (b"content-length", b"l")]
    body = body.replace(b"\n", b"\r\n")
    return b"\r\n".join([*kept, b"Content-Length: %d" % len(body), b"", b""]) + body


def pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` each. Raises ValueError."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or not name or not rest:
            raise ValueError(f"{option} takes NAME=VALUE, not {value!r}")
        found[name] = f"{found[name]},{rest}" if option == "--answer" and name in found else rest
    return found


def headers_of(values: Sequence[str]) -> list[tuple[str, str]]:
    """``Name: value`` each. Raises ValueError."""
    found = []
    for value in values:
        name, colon, rest = value.partition(":")
        if not colon:
            raise ValueError(f"--header takes 'Name: value', not {value!r}")
        found.append((name.strip(), rest.strip()))
    return found


def moment(text: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 time, local unless it names a zone; None for ''. Raises ValueError."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError(f"--at takes a time such as 2026-12-24T18:00, not {text!r}") from None


def try_one(
    config: Config, what: str, source: str, options: Mapping[str, Any]
) -> tuple[Report, str]:  # Any: as the command line has them
    """Try ``what``: a file that holds a message, a number or a URI. The report, and why it is not as expected or ''.

    Raises ValueError, ConfigError and whatever a startup route raises.
    """
    is_file = os.path.isfile(what)
    given = pairs(options["calls"], "--calls")
    trial = Trial(
        source,
        "" if is_file else what,
        message_of(what) if is_file else b"",
        listener=options["listener"],
        caller=options["caller"],
        method=options["method"].upper(),
        headers=headers_of(options["header"]),
        codecs=tuple(options["codec"]) or CODECS,
        answers=pairs(options["answer"], "--answer"),
        otherwise=options["otherwise"],
        at_s=moment(options["at"]),
        present={name: int(number) for name, number in given.items()},
        talk_s=options["talk"],
        cancel_s=options["cancel"] or None,
    )
    hosts = {name: text.split(",") for name, text in pairs(options["host"], "--host").items()}
    stage = Stage(config, options["routes"] or None, at_s=trial.at_s, hosts=hosts, ask=bool(options.get("ask")))
    try:
        report = run(stage, trial)
    finally:
        stage.close()
    return report, Expected(options["expect"], options["by"]).unmet(report)


def show_one(report: Report, unmet: str, *, as_json: bool, messages: bool) -> None:
    """Print a report."""
    if as_json:
        print(json.dumps({"ok": not unmet, "unmet": unmet, **report.as_json()}))
        return
    for line in report.sentences(messages=messages):
        print(line)
    print(f"Not as expected: {unmet}." if unmet else "As expected.")


@dataclass(frozen=True, slots=True)
class Tried:
    """One dry run of the configuration: its number from 1, what it was, the report, and why it failed or ''."""

    number: int
    given: DryRun
    report: Report | None
    unmet: str

    @property
    def title(self) -> str:
        """What was tried."""
        return f"dry run {self.number}, {self.given.method} {self.given.call} from {self.given.source}"


def try_all(
    config: Config, routes: Routes | str | None = None, *, ask: bool = False, ask_to_start: bool = False
) -> list[Tried]:
    """Every dry run of the configuration, on one stage. Raises as :class:`Stage` does.

    With ``ask`` real servers answer what no script does; with ``ask_to_start`` only what startup routes ask.
    """
    stage = Stage(config, routes, ask=ask or ask_to_start)
    if not ask:
        stage.lookups.ask_no_more()
    tried = []
    try:
        for number, given in enumerate(config.dry_runs, 1):
            trial, expected = trial_of(given)
            try:
                report = run(stage, trial)
            except ValueError as error:
                tried.append(Tried(number, given, None, str(error)))
            else:
                tried.append(Tried(number, given, report, expected.unmet(report)))
    finally:
        stage.close()
    return tried


def show_all(tried: Sequence[Tried], *, as_json: bool) -> None:
    """Print one line for each dry run, and everything about those that failed."""
    if as_json:
        rows = [
            {
                "number": one.number,
                "call": one.given.call,
                "source": one.given.source,
                "ok": not one.unmet,
                "unmet": one.unmet,
                **(one.report.as_json() if one.report is not None else {}),
            }
            for one in tried
        ]
        print(json.dumps({"ok": not any(one.unmet for one in tried), "dry_runs": rows}))
        return
    for one in tried:
        print(f"{'FAILED' if one.unmet else 'good'}: {one.title}{': ' if one.unmet else ''}{one.unmet}")
        if one.unmet and one.report is not None:
            for line in one.report.sentences():
                print(f"  {line}")
    failed = sum(bool(one.unmet) for one in tried)
    print(f"{len(tried)} dry runs, {failed} failed" if tried else "no dry runs are configured (dry_runs)")


def sentences(error: Exception) -> list[str]:
    """What to say of an error that ended the command."""
    return list(faults(error)) if not isinstance(error, ValueError) else [str(error)]
