"""The command ``sbc import``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

app = typer.Typer(help="Bring the configuration of another SIP server over.", no_args_is_help=True)


@app.callback()
def _main() -> None:
    """Bring the configuration of another SIP server over."""


@app.command("opensips")
def opensips(
    file: Annotated[str, typer.Argument(help="An opensips.cfg.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="Where to write; left out: the report is shown only.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make sbc.yaml and routes.py of an OpenSIPS script, with a report of what is left to you. Exit code 0: all was
    mapped; 1: something was not; 2: the file cannot be read."""
    from sbc.importer import command
    from sbc.importer.tokens import InputFault

    try:
        made = command.read(file)
        faults = command.write(made, output) if output else []
    except (InputFault, OSError) as error:
        said = (
            f"{error.filename}: {error.strerror.lower()}"
            if isinstance(error, OSError) and error.strerror
            else str(error)
        )
        if as_json:
            print(json.dumps({"ok": False, "errors": [said]}))
        else:
            print(f"sbc: {said}", file=sys.stderr)
        raise typer.Exit(2) from error
    if as_json:
        items = [
            {"line": one.line, "text": one.text, "outcome": one.outcome.value, "reason": one.reason}
            for one in made.report.items
        ]
        print(json.dumps({"complete": made.report.complete, "items": items, "faults": faults}))
    else:
        print(made.report.text(), end="")
        for fault in faults:
            print(fault)
    if not made.report.complete or faults:
        raise typer.Exit(1)
