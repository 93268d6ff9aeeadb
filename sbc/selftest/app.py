"""The command ``sbc selftest``."""

from __future__ import annotations

import json
import signal
import sys
from typing import Annotated

import typer

app = typer.Typer(help="Break an SBC of its own on this machine, and see what holds.", no_args_is_help=True)


@app.callback()
def _main() -> None:
    """Break an SBC of its own on this machine, and see what holds."""


@app.command("faults")
def faults(
    runs: Annotated[int, typer.Option(min=1, max=1000, help="How often each row is tried.")] = 3,
    only: Annotated[str, typer.Option(metavar="IDS", help="These rows only: P1,R3.")] = "",
    calls: Annotated[int, typer.Option(min=4, max=200, help="Calls that are up in each row.")] = 20,
    minutes: Annotated[float, typer.Option(min=0.1, max=240, help="How long the random mix (X2) lasts.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 1,
    away: Annotated[
        float, typer.Option(min=1, max=600, help="Seconds for which the store is away in R1, R3, R5 and R5R.")
    ] = 3.0,
    listing: Annotated[bool, typer.Option("--list", help="List the rows.")] = False,
    json_file: Annotated[
        str, typer.Option("--json", metavar="FILE", help="Write the results there, too; - for stdout.")
    ] = "",
) -> None:
    """Break an SBC of its own in every way of the fault table, and print what was promised and what was measured.

    It has addresses, ports and folders of its own; as root also a network of its own. For a machine that carries no
    calls. Exit code 1 where a row fails."""
    from sbc.selftest import table

    try:
        rows = table.choose(table.ROWS, only)
    except ValueError as error:
        print(f"sbc: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if listing:
        for line in table.listed(rows):
            print(line)
        return
    from sbc.selftest.apart import go_apart
    from sbc.selftest.faults import Options, run_rows

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing is left behind
    options = Options(runs, calls, minutes, seed, away, go_apart())
    out = sys.stderr if json_file == "-" else sys.stdout

    def done(outcome: table.Outcome) -> None:
        for line in table.shown(outcome):
            print(line, file=out)
        print(file=out, flush=True)

    outcomes = run_rows(rows, options, done)
    print(table.summary(outcomes), file=out)
    if json_file:
        told = json.dumps({"runs": runs, "calls": calls, "rows": [table.as_json(one) for one in outcomes]}, indent=1)
        if json_file == "-":
            print(told)
        else:
            with open(json_file, "w") as file:
                file.write(told + "\n")
    if any(one.has_failed for one in outcomes):
        raise typer.Exit(1)
